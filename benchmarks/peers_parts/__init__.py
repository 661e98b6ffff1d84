"""What only benchmarks/peers.py needs: its plan, its report, its pictures."""

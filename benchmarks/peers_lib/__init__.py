"""What benchmarks/peers.py is made of.

    plan.py         which contenders are measured: networks, engines, sections
    jobs.py         one contender as data, as it is handed to its process
    machine.py      the CPU, the interpreters and what they have installed
    coordinator.py  starts the processes, lets one at a time run, in rounds
    store.py        every value as soon as it is known; a killed run goes on
    summary.py, targets.py, report.py, picture.py   what is made of them

and, in the contenders' own processes, which need nothing of the above:

    worker.py       answers "run" with the seconds it took
    *_runs.py       the runs of one framework each
"""

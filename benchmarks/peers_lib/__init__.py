"""What benchmarks/peers.py is made of.

    networks.py     which networks are compared with which
    plan.py, *_jobs.py  who is measured in each section, in which groups
    jobs.py         one contender as data, as it is handed to its process
    machine.py      the CPU, the interpreters and what they have installed
    coordinator.py  starts the processes, lets one at a time run, in rounds
    progress.py     what is done, and how long the rest may take
    store.py        every value as soon as it is known; a killed run goes on
    summary.py, targets.py, report.py, picture.py   what is made of them

and, in the contenders' own processes, which need nothing of the above:

    worker.py       answers "run" with the seconds it took
    *_runs.py       the runs of one framework each
    *_costs.py      building, weights and exports
"""

"""What the benchmarks share.

    networks.py    the networks that are compared, and the pairs
    machine.py     the CPU, its cores and memory, the interpreters, the device
    processes.py   starts worker processes, with time limits
    worker.py      the other end: a contender's process
    contenders.py  one class for each way to run a network
    timing.py      contenders in turns, in rounds; medians
    results.py     CSV files, pages of Markdown, pictures

worker.py and contenders.py import neither Keras nor keras_csp before they
need them: they also run in an environment that has only PyTorch and timm.
"""

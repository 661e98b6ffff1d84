"""A contender's process: makes its `Runs`, then answers requests with times.

    python worker.py JSON

One JSON line for each request on standard input, one for each answer on
standard output; what libraries print goes to standard error. Only the
standard library is needed here, so that any interpreter will do.
"""

import ctypes
import importlib
import json
import os
import resource
import signal
import sys
import time

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
# A round of a very fast run need not be repeated more often than this.
_MOST_RUNS = 200


def main():
    job = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    prepare(job["cores"])
    state = {}
    for line in sys.stdin:
        answer = guarded(state, job, json.loads(line))
        answer["peak_mb"] = peak_memory() / 1e6
        release_memory()
        print(json.dumps(answer), file=answers, flush=True)


def prepare(cores):
    """The process ends with its parent, stopped or not, and keeps to cores."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        os.sched_setaffinity(0, cores)


def guarded(state, job, request):
    """The answer, or {"error": one line} if the contender refused."""
    try:
        return answer_to(state, job, request)
    except Exception as error:
        import traceback

        traceback.print_exc()
        lines = str(error).strip().splitlines() or [""]
        return {"error": f"{type(error).__name__}: {lines[0][:300]}"}


def answer_to(state, job, request):
    if request["do"] == "load":
        start = time.perf_counter()
        module = importlib.import_module(job["runs"])
        state["runs"] = module.Runs(job["quantities"], **job["arguments"])
        return {"times": [time.perf_counter() - start]}
    if request["do"] == "peak":
        return {}
    runs, quantity = state["runs"], request["quantity"]
    if request["do"] == "cost":
        known = hasattr(runs, "cost")
        return {"cost": runs.cost(quantity) if known else {}}
    if hasattr(runs, "prepare"):
        runs.prepare(quantity)
    for _ in range(request["discarded"]):
        runs.run(quantity)
    return {"times": timed(runs, quantity, request["seconds"])}


def timed(runs, quantity, seconds):
    """Times of the runs that fit in so many seconds, at least one."""
    times = []
    while not times or (sum(times) < seconds and len(times) < _MOST_RUNS):
        start = time.perf_counter()
        measured = runs.run(quantity)
        spent = time.perf_counter() - start
        # A run may have measured itself, in a process of its own.
        times.append(spent if measured is None else measured)
    return times


def peak_memory():
    """The highest resident set of this process, in bytes."""
    try:
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return 1024 * int(line.split()[1])
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def release_memory():
    """Freed pages go back, for the contenders that wait beside this one."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim:
            trim(0)


if __name__ == "__main__":
    main()

"""The process of a contender: makes it, then answers requests with times.

    python -m harness.worker JSON

Only the standard library is imported here: any interpreter can run it.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import time

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
# A turn of a very fast contender has at most this many runs.
_MAX_RUNS = 200


class Channel:
    """A worker's end: JSON lines from standard input, to standard output.

    From then on, what libraries print goes to standard error.
    """

    def __init__(self):
        self._output = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def send(self, message):
        print(json.dumps(message), file=self._output, flush=True)

    def receive(self):
        """The next message; None where there is none any more."""
        line = sys.stdin.readline()
        return json.loads(line) if line.strip() else None


def main():
    channel = Channel()
    job = json.loads(sys.argv[1])
    _bind_to_parent(job["cores"])
    session = Session(job)
    while (request := channel.receive()) is not None:
        channel.send(session.answer(request))


class Session:
    """A contender, and the answers to requests about it.

    Args:
        job: dict of "contender", the class in `contenders`, "quantities" and
            "arguments".
        make: makes the contender from the job. Default: as the job says.
        clock: in seconds. Default: `time.perf_counter`.
    """

    def __init__(self, job, make=None, clock=time.perf_counter):
        self.job, self.make, self.clock = job, make or _make, clock
        self.contender = None

    def answer(self, request):
        """A dict; {"error": one line} if the contender raised an error.

        Args:
            request: {"do": "load"}, {"do": "peak"}, {"do": "cost",
                "quantity"} or {"do": "run", "quantity", "seconds",
                "discarded"}, where the last is a number of runs that are not
                timed.
        """
        try:
            answer = getattr(self, f"_{request.pop('do')}")(**request)
        except Exception as error:
            import traceback

            traceback.print_exc()
            first_line = (str(error).strip().splitlines() or [""])[0]
            answer = {"error": f"{type(error).__name__}: {first_line[:300]}"}
        answer["peak_mb"] = peak_memory() / 1e6
        _release_memory()
        return answer

    def _load(self):
        self.contender = self.make(self.job)
        return {}

    def _peak(self):
        return {}

    def _cost(self, quantity):
        known = hasattr(self.contender, "cost")
        return {"cost": self.contender.cost(quantity) if known else {}}

    def _run(self, quantity, seconds, discarded):
        if hasattr(self.contender, "prepare"):
            self.contender.prepare(quantity)
        for _ in range(discarded):
            self.contender.run(quantity)
        return {"times": self._timed(quantity, seconds)}

    def _timed(self, quantity, seconds):
        """Times of the runs that fit in so many seconds, at least one."""
        times = []
        while not times or (sum(times) < seconds and len(times) < _MAX_RUNS):
            start = self.clock()
            measured = self.contender.run(quantity)
            elapsed = self.clock() - start
            # A contender may measure itself, in processes of its own.
            times.append(elapsed if measured is None else measured)
        return times


def _make(job):
    from harness import contenders

    return getattr(contenders, job["contender"])(
        job["quantities"], **job["arguments"]
    )


def _bind_to_parent(cores):
    """The process ends with its parent, paused or not, and keeps to cores."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        os.sched_setaffinity(0, cores)


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


def _release_memory():
    """Returns freed pages, for the contenders that wait beside this one."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim:
            trim(0)


if __name__ == "__main__":
    main()

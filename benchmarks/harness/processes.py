"""Worker processes: started, asked, paused, and killed at a time limit.

Messages are JSON, one a line: to the worker on its standard input, from it on
its standard output (`worker.Channel`). What libraries print is in its log.
"""

import contextlib
import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import threading

BENCHMARKS = pathlib.Path(__file__).parents[1]


class WorkerError(Exception):
    """A worker could not start, ended, or did not answer in time."""


class Deadline:
    """A time limit for a group of workers: at the limit all are killed.

    As a context manager: no worker outlives the block.

    Args:
        seconds: the limit.

    Attributes:
        passed: whether the limit was reached.
    """

    def __init__(self, seconds):
        self.passed = False
        self._workers = set()
        self._timer = threading.Timer(seconds, self.expire)
        self._timer.daemon = True

    def __enter__(self):
        self._timer.start()
        return self

    def __exit__(self, *_):
        self._timer.cancel()
        self._kill_all()

    def add(self, worker):
        self._workers.add(worker)
        if self.passed:
            worker.kill()

    def remove(self, worker):
        self._workers.discard(worker)

    def expire(self):
        """Ends the time now."""
        self.passed = True
        self._kill_all()

    def _kill_all(self):
        for worker in list(self._workers):
            worker.kill()


class Worker:
    """A process that receives and sends messages.

    Args:
        command: list of strings.
        environment: dict, of the process.
        log: path of a file; its standard error is appended.
        deadline: a `Deadline` that may kill it. Default None.
    """

    def __init__(self, command, environment, log, deadline=None):
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as errors:
            self._log_start = errors.tell()
            self._process = subprocess.Popen(
                command,
                cwd=BENCHMARKS,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                # Signals reach the processes that it starts, too.
                start_new_session=True,
            )
        self._deadline = deadline
        if deadline is not None:
            deadline.add(self)

    def send(self, message):
        """A process that has ended says so when it is read from."""
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def receive(self, timeout):
        """The next message.

        Raises:
            WorkerError: there is none within `timeout` seconds, or the
                process has ended.
        """
        stdout = self._process.stdout
        if not select.select([stdout], [], [], timeout)[0]:
            raise WorkerError(f"no answer in {timeout:g} s")
        line = stdout.readline()
        if not line:
            raise WorkerError(self.failure() or "the process ended")
        return json.loads(line)

    def messages(self):
        """Yields its messages until it ends."""
        for line in self._process.stdout:
            yield json.loads(line)
        self._process.wait()
        if self._deadline is not None:
            self._deadline.remove(self)

    def pause(self):
        self._signal(signal.SIGSTOP)

    def resume(self):
        self._signal(signal.SIGCONT)

    def kill(self):
        self._signal(signal.SIGKILL)

    def close(self):
        """Kills the process and frees what it holds here."""
        self.kill()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()

    def failure(self):
        """Waits for the end: why it failed, or None if it succeeded."""
        status = self._process.wait()
        if status == 0:
            return None
        written = self.log.read_bytes()[self._log_start :]
        lines = written.decode(errors="replace").strip().splitlines()
        last = lines[-1][:300] if lines else "no message"
        return f"the process ended with status {status}: {last}"

    def _signal(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def script_answer(script, *arguments, environment=None):
    """Runs a Python script and returns the JSON on the last line it prints.

    Args:
        script: its path.
        arguments: of its command line.
        environment: of its process. Default: this one's.

    Raises:
        WorkerError: it failed; the message ends with its standard error.
    """
    answer = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        env={
            **(os.environ if environment is None else environment),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        shown = " ".join(map(str, arguments))
        raise WorkerError(f"{shown} failed:\n{answer.stderr[-2000:]}")
    return json.loads(answer.stdout.strip().splitlines()[-1])

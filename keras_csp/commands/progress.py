"""A progress bar on a terminal's standard error, and nothing elsewhere."""

import sys


class Progress:
    """[#####     ] 3/12 name, in one line that is written over again.

    Args:
        total: how many steps there are.
        least: a smaller total shows nothing. Default 2.
    """

    def __init__(self, total, least=2):
        self._total = total
        self._shown = total >= least and sys.stderr.isatty()

    def update(self, done, name=""):
        """Shows that `done` steps are done, and the name of the next."""
        if self._shown:
            bar = ("#" * (20 * done // self._total)).ljust(20)
            self._write(f"[{bar}] {done}/{self._total} {name}")

    def clear(self):
        """Removes the bar: before anything else is printed, and at the end."""
        if self._shown:
            self._write("")

    def _write(self, text):
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

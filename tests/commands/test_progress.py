"""A bar on a terminal, and nothing in a file."""

import io
import sys

from keras_csp.commands.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    progress = Progress(4)
    progress.update(1, "dog.jpg")
    progress.clear()
    lines = sys.stderr.getvalue().split("\r\033[K")
    assert lines == ["", "[#####               ] 1/4 dog.jpg", ""]


def test_nothing_elsewhere_or_for_few(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    Progress(100).update(3)
    assert sys.stderr.getvalue() == ""
    monkeypatch.setattr(sys, "stderr", Terminal())
    Progress(9, least=10).update(3)
    assert sys.stderr.getvalue() == ""

"""Who decides about oneDNN: the user first, then the package, once."""

import os

import pytest
from support import run_python

SHOW = """
import os, sys
{first}
import keras_csp
print(os.environ.get("TF_ENABLE_ONEDNN_OPTS"))
"""


def setting(first="", **environment):
    saved = os.environ.pop("TF_ENABLE_ONEDNN_OPTS", None)
    try:
        code = SHOW.format(first=first)
        return run_python(code, **environment).split()[-1]
    finally:
        if saved is not None:
            os.environ["TF_ENABLE_ONEDNN_OPTS"] = saved


def test_switched_on_when_nobody_chose():
    assert setting() == "1"


@pytest.mark.slow
def test_the_users_choice_stands():
    assert setting(TF_ENABLE_ONEDNN_OPTS="0") == "0"


@pytest.mark.slow
def test_nothing_is_changed_after_tensorflow_was_imported():
    """Too late to matter, and a surprise for the user's subprocesses."""
    assert setting(first="import tensorflow") == "None"

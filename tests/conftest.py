"""Shared fixtures. keras_csp comes before Keras: it switches oneDNN on."""

import gc
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_csp  # noqa: F401, I001
import keras
import numpy as np
import pytest
from keras.src.utils.naming import reset_uids

# Other processes use the backend of this one, whatever a program that is
# imported here sets for itself.
os.environ["KERAS_BACKEND"] = keras.backend.backend()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Makes weights the same whichever tests ran before.

    They follow from the seed or, where a test randomizes them, from the names
    that Keras counts. A hook comes before every fixture; a fixture comes after
    those of the module, which make networks too.
    """
    keras.utils.set_random_seed(0)
    reset_uids()


@pytest.fixture(autouse=True)
def _fresh_keras():
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(autouse=True, scope="module")
def _free_memory():
    """Once a module: collecting garbage takes longer than most tests."""
    yield
    keras.utils.clear_session()
    # What is still alive stays: later collections need not look at it again.
    gc.freeze()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real images that CI has and users do not."""
    path = os.environ.get("KERAS_CSP_DATA")
    if not path:
        pytest.skip("KERAS_CSP_DATA is not set: no shared images here")
    return pathlib.Path(path)

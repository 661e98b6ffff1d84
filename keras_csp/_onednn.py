"""oneDNN for TensorFlow on CPUs, switched on unless somebody chose otherwise.

TensorFlow reads TF_ENABLE_ONEDNN_OPTS once, when it is first imported, and
leaves oneDNN off on x86 processors without AVX-512. On those, convolutions
are slower and the gradient of a grouped convolution is missing.
"""

import os
import sys

VARIABLE = "TF_ENABLE_ONEDNN_OPTS"


def enable():
    """Sets the variable if it is unset and TensorFlow not yet imported."""
    if "tensorflow" not in sys.modules:
        os.environ.setdefault(VARIABLE, "1")

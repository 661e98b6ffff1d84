"""`python -m keras_csp`, the same as `keras-csp`: see keras_csp/commands."""

import sys

from keras_csp.commands import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m keras_csp`: see keras_csp/commands."""

import sys

from keras_csp.commands import main

if __name__ == "__main__":
    sys.exit(main())

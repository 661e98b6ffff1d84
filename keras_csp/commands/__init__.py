"""`python -m keras_csp COMMAND`: each module adds its commands to the parser.

A command is a function of the parsed arguments, set as their `run`; mistakes
of the user's are its ValueErrors, printed in one line. What one command alone
needs it imports itself: listing the networks needs no LiteRT.
"""

import argparse
import sys

from keras_csp.commands import exporting, predicting, tables

_DESCRIPTION = """\
Cross Stage Partial Networks: the networks and their counts, files for other
runtimes, and what they see in photographs.
"""


def main(arguments=None):
    """Runs one command; returns the exit status."""
    options = parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except (ValueError, ImportError, OSError) as error:
        reason = str(error).strip() or type(error).__name__
        print(f"keras_csp: {reason.splitlines()[0]}", file=sys.stderr)
        return 2


def parser():
    made = argparse.ArgumentParser(
        prog="python -m keras_csp", description=_DESCRIPTION
    )
    commands = made.add_subparsers(required=True, metavar="COMMAND")
    for module in (tables, exporting, predicting):
        module.add_to(commands)
    return made

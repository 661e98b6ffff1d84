"""`keras-csp COMMAND`, or `python -m keras_csp COMMAND`.

Each module adds its commands to the parser. A command is a function of the
parsed arguments, set as their `run`; its ValueErrors are mistakes of the user,
printed in one line. A command imports what only it needs when it runs:
listing the networks needs no LiteRT.
"""

import argparse
import sys

from keras_csp.commands import exporting, predicting, tables

_DESCRIPTION = """\
Cross Stage Partial Networks: the networks and their counts, files for other
runtimes, and what they see in photographs.
"""


def main(arguments=None):
    """Runs one command; returns the exit status.

    Args:
        arguments: a list of strings. Default: those of the command line.
    """
    options = parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except (ValueError, ImportError, OSError) as error:
        reason = str(error).strip() or type(error).__name__
        print(f"keras-csp: {reason.splitlines()[0]}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130  # as a shell has it


def parser():
    made = argparse.ArgumentParser(prog="keras-csp", description=_DESCRIPTION)
    commands = made.add_subparsers(required=True, metavar="COMMAND")
    for module in (tables, exporting, predicting):
        module.add_to(commands)
    return made

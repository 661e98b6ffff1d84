"""The networks, their counts and their published checkpoints."""

import functools

import keras_csp
from keras_csp.analysis import detectors
from keras_csp.analysis.cost import CONVENTIONS, build_and_count
from keras_csp.analysis.table import render, table_rows
from keras_csp.commands.progress import Progress
from keras_csp.weights.listing import TASKS


def add_to(commands):
    table = commands.add_parser(
        "table", help="every network, counted beside published (a minute)"
    )
    table.add_argument(
        "--markdown", action="store_true", help="as the README shows it"
    )
    table.add_argument(
        "--detectors",
        action="store_true",
        help="the detectors of Table 2 instead (15 seconds)",
    )
    table.set_defaults(run=_table)

    listing = commands.add_parser("list", help="the names of the networks")
    listing.set_defaults(run=_list)

    weights = commands.add_parser(
        "weights", help="the published checkpoints and their licences"
    )
    weights.add_argument(
        "--task",
        choices=TASKS,
        help="those of one task; default: all",
    )
    weights.add_argument(
        "--markdown", action="store_true", help="as the README shows it"
    )
    weights.set_defaults(run=_weights)

    count = commands.add_parser(
        "count", help="one network: parameters, BFLOPs and CIO of each layer"
    )
    count.add_argument("network", help="e.g. CSPResNeXt50")
    count.add_argument(
        "--convention", choices=CONVENTIONS, default=CONVENTIONS[0]
    )
    count.add_argument("--size", type=int, help="side of the image, pixels")
    count.add_argument(
        "--total", action="store_true", help="the totals alone, one line"
    )
    count.set_defaults(run=_count)


def _table(options):
    if options.detectors:
        rows = list(detectors.detector_rows())
        print(detectors.render(rows, markdown=options.markdown))
        return
    rows = list(table_rows(_show))
    Progress(len(rows)).clear()
    print(render(rows, markdown=options.markdown))


def _show(done, total, name):
    Progress(total).update(done, name)


def _list(options):
    print("\n".join(keras_csp.list_models()))


def _weights(options):
    keras_csp.list_weights(options.task, markdown=options.markdown)


def _count(options):
    factory = keras_csp.get_factory(options.network)
    shape = (options.size, options.size, 3) if options.size else None
    build = functools.partial(factory, weights=None, input_shape=shape)
    counted = build_and_count(build, options.convention)
    print(counted.summary() if options.total else counted)

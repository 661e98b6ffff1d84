"""What a profile is: the time of each operation and how often it ran."""

import collections


def per_run(events, runs):
    """{operation: (milliseconds of one run, calls in one run)}.

    Args:
        events: (operation, milliseconds) of each call, of all runs.
        runs: how many there were.
    """
    found = collections.defaultdict(lambda: [0.0, 0])
    for operation, milliseconds in events:
        found[operation][0] += milliseconds / runs
        found[operation][1] += 1
    return {k: (total, calls // runs) for k, (total, calls) in found.items()}

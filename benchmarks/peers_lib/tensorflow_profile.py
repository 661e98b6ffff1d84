"""Where TensorFlow spends its time, by the operations of its graph."""

import pathlib
import tempfile

from peers_lib.operations import per_run


def operations(run, runs=5):
    """{operation: (milliseconds of CPU time of one run, calls in one run)}.

    Several threads may work at once, so that the sum is more than a run takes.

    Args:
        run: a function; called twice before, to warm up.
        runs: over which it is averaged.
    """
    import tensorflow as tf

    run()
    run()
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        for _ in range(runs):
            run()
        tf.profiler.experimental.stop()
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        content = path.read_bytes()
    return per_run(_events(content), runs)


def _events(content):
    """(operation, milliseconds) of each kernel that the executor ran."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace.FromString(content)
    for plane in space.planes:
        names = {key: data.name for key, data in plane.event_metadata.items()}
        for line in plane.lines:
            for event in line.events:
                # "path/of/the/node:Conv2D"
                name = names[event.metadata_id].split("#")[0]
                node, _, kind = name.rpartition(":")
                scope = node.endswith(":")  # a C++ function, no node
                if node and not scope and kind.isidentifier():
                    yield kind.lstrip("_"), event.duration_ps / 1e9

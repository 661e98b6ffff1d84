"""The jobs of the detectors of Table 2."""

from peers_lib.jobs import CLOSE, TENSORFLOW, Job

SIZE = 416


def detector(request, row):
    """One of Table 2, as `published_detectors()` gives it."""
    return Job(
        section="detectors",
        network="detectors",
        framework="keras_csp",
        engine="TensorFlow",
        model=row.head,
        runs="peers_lib.detector_runs",
        quantities={"frame": {"size": SIZE}},
        arguments={"detector": row.arguments, "threads": request.threads},
        needs=("keras", "tensorflow", "sklearn"),
        environment=TENSORFLOW,
        repeats=CLOSE,
        seconds=12,
    )

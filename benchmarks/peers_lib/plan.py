"""What is measured: sections, as groups of jobs.

Jobs of a group are alive together and take turns. A quantity of a higher
level than the run's is left out, and the report says so.
"""

import dataclasses
import pathlib

from keras_csp.analysis import published
from peers_lib import cost_jobs, inference_jobs, saving_jobs
from peers_lib.detector_jobs import detector
from peers_lib.jobs import DEFAULT, QUICK, THOROUGH
from peers_lib.networks import NETWORKS, PAIRS

__all__ = ["DEFAULT", "NETWORKS", "PAIRS", "QUICK", "THOROUGH"]

SECTIONS = ("inference", "training", "costs", "savings", "detectors")
SAVING_SIZES = (128, 320)
_HOW = {DEFAULT: "without --quick", THOROUGH: "with --thorough"}


@dataclasses.dataclass(frozen=True)
class Request:
    """What a run is asked for.

    Attributes:
        sections: of `SECTIONS`.
        size: of the images of inference and training.
        saving_sizes: of the pairs, besides the published one.
        networks, pairs: of `NETWORKS` and `PAIRS`.
        detectors: of `keras_csp.analysis.detectors.published_detectors()`.
        threads: of every contender.
        folder: for exported files.
    """

    sections: tuple
    size: int
    saving_sizes: tuple
    networks: tuple
    pairs: tuple
    detectors: tuple
    threads: int
    folder: pathlib.Path

    def path(self, model, ending, size=None):
        """Of an exported file, as text."""
        return str(self.folder / f"{model}-{size or self.size}.{ending}")


def groups(request):
    """Lists of jobs, in the order in which they are measured."""
    wanted, found = set(request.sections), []
    if "costs" in wanted:
        found.append(list(cost_jobs.imports()))
    if wanted & {"inference", "training", "costs"}:
        for network in request.networks:
            found += _network(request, network)
    if "savings" in wanted:
        for pair in request.pairs:
            found += _pair(request, pair)
    if "detectors" in wanted:
        found.append([detector(request, d) for d in request.detectors])
    return [group for group in found if group]


def split(found, level):
    """Groups as `level` measures them, and what it leaves out.

    Returns:
        Lists of jobs, and {(key of a job, quantity): reason}.
    """
    left_out, kept = {}, []
    for group in found:
        kept.append([])
        for job in group:
            late = {q: n for q, n in job.levels.items() if n > level}
            for quantity in job.quantities.keys() & late.keys():
                reason = f"measured only {_HOW[late[quantity]]}"
                left_out[job.key, quantity] = reason
            remaining = job.only(job.quantities.keys() - late.keys())
            if remaining.quantities:
                kept[-1].append(remaining)
    return [group for group in kept if group], left_out


def _network(request, network):
    """Costs, each alone, which leave the files; then all in turn."""
    sections = set(request.sections)
    alone = []
    if sections & {"inference", "costs"}:
        weights = "costs" in sections
        alone = [[j] for j in cost_jobs.costs(request, network, weights)]
    together = [
        *inference_jobs.ours(request, network),
        *inference_jobs.files(request, network),
        *inference_jobs.peers(request, network),
        *inference_jobs.sgemm(request, network),
    ]
    return [*alone, [job for job in together if job.quantities]]


def _pair(request, pair):
    """The exports of both; then both in both engines, in turn."""
    size = published(pair.base).input_size
    sizes = sorted({size, *request.saving_sizes})
    models = (pair.base, pair.csp)
    alone = [[saving_jobs.files(request, pair, m, sizes, size)] for m in models]
    together = [
        made(request, pair, model, sizes, size)
        for model in models
        for made in (saving_jobs.litert, saving_jobs.tensorflow)
    ]
    return [*alone, together]

"""PeleeNet and its CSP variants: two-way dense layers.

A layer gives 32 channels through a bottleneck of 16, 32, 64 and 64; the
stages have 3, 4, 8 and 6 of them and are 128, 256, 512 and 704 wide.
"""

from keras_csp._validation import check_choice
from keras_csp.layers.csp_stage import FUSIONS
from keras_csp.models.builder import factory
from keras_csp.models.spec import (
    NetworkSpec,
    Stage,
    conv,
    csp,
    dense_block,
    identity,
    max_pool,
    parallel,
    two_way,
)

GAMMAS = (0.25, 0.5, 0.75)

_STEM = (
    conv(32, 3, 2),
    parallel((max_pool(2), (conv(16), conv(32, 3, 2)))),
    conv(32),
)


def _dense(depth, bottleneck, links="dense"):
    return dense_block(depth * (two_way(32, bottleneck),), links=links)


def _peleenet(name, provenance, links):
    return NetworkSpec(
        name=name,
        provenance=provenance,
        stem=_STEM,
        stages=(
            Stage(blocks=(_dense(3, 16, links), conv(128))),
            Stage(
                down=(max_pool(2),), blocks=(_dense(4, 32, links), conv(256))
            ),
            Stage(
                down=(max_pool(2),), blocks=(_dense(8, 64, links), conv(512))
            ),
            Stage(
                down=(max_pool(2),), blocks=(_dense(6, 64, links), conv(704))
            ),
        ),
    )


PELEENET = _peleenet(
    "PeleeNet",
    "Exact: the PeleeNet authors' code, with max instead of average pooling "
    "as in the CSPNet paper's Darknet count.",
    "dense",
)

SPARSE_PELEENET = _peleenet(
    "SparsePeleeNet",
    "Exact: PeleeNet with SparseNet's links.",
    "sparse",
)

_CSP_PROVENANCE = (
    "Inferred: the authors published its parameters and BFLOPs only. Known: "
    "PeleeNet's layers, a partial dense block, and where the transitions "
    "stand. Inferred from Table 1: the first stage is not split, and the "
    "second transition M is computed after the pooling."
)


def csp_peleenet(gamma=0.5, fusion="csp"):
    """The nine networks of Table 1.

    gamma: the fraction of the channels on the shortcut of a stage: 0.25, 0.5
        (default) or 0.75.
    fusion: Fig. 3: "csp" (default), "first" or "last".
    """
    check_choice("gamma", gamma, GAMMAS)
    check_choice("fusion", fusion, FUSIONS)
    stage = _fusion_first_stage if fusion == "first" else _fusion_last_stage
    after_pool = fusion == "csp"  # M stands there
    # The first stage is not split; its T is two convolutions side by side.
    first = [_dense(3, 16)]
    if fusion != "first":
        first.append(parallel((conv(64), conv(64))))
    name = "CSPPeleeNet"
    if (gamma, fusion) != (0.5, "csp"):
        name += f"_gamma{gamma}_{fusion}"
    return NetworkSpec(
        name=name,
        provenance=_CSP_PROVENANCE,
        stem=_STEM,
        stages=(
            Stage(down=(conv(32),) if after_pool else (), blocks=tuple(first)),
            stage(128, 4, 32, gamma, after_pool),
            stage(256, 8, 64, gamma, after_pool),
            stage(512, 6, 64, gamma, after_pool),
        ),
        pre_logits=(conv(704),) if after_pool else (),
    )


def _fusion_last_stage(width, depth, bottleneck, gamma, after_pool):
    """Transition T, then concatenate; M, if any, is the next stage's first."""
    return Stage(
        down=(max_pool(2), conv(width)) if after_pool else (max_pool(2),),
        blocks=(
            csp(
                blocks=(_dense(depth, bottleneck),),
                gamma=gamma,
                fusion="last",
            ),
        ),
    )


def _fusion_first_stage(width, depth, bottleneck, gamma, _):
    """Concatenate; M is where the next stage splits, one branch a part."""
    shortcut = int(gamma * width)
    return Stage(
        blocks=(
            csp(
                blocks=(_dense(depth, bottleneck),),
                fusion="first",
                split=(
                    (max_pool(2), conv(shortcut)),
                    (conv(width - shortcut), max_pool(2)),
                ),
                transition=identity(),
            ),
        ),
    )


def _reference(name, last, provenance):
    def stage(depth, growth, mixed):
        return csp(
            blocks=(dense_block(depth * (two_way(growth, growth),)),),
            fusion="last",
            partial_transition=conv(mixed),
        )

    return NetworkSpec(
        name=name,
        provenance=provenance,
        stem=(conv(32, 3, 2), conv(48, 3, 2)),
        stages=(
            Stage(blocks=(stage(2, 24, 36),)),
            Stage(down=(max_pool(2), conv(128)), blocks=(stage(4, 48, 128),)),
            Stage(down=(max_pool(2), conv(256)), blocks=(stage(4, 96, 256),)),
            Stage(down=(max_pool(2), conv(512)), blocks=(last,)),
        ),
    )


CSP_PELEENET_REFERENCE = _reference(
    "CSPPeleeNetReference",
    conv(512, 3),
    "Inferred: a numerical reconstruction that costs what the authors "
    "published; other widths and depths cost as much. Known: the kind of "
    "network, parameters and BFLOPs.",
)

CSP_PELEENETB_REFERENCE = _reference(
    "CSPPeleeNetbReference",
    conv(512),
    "Inferred: a numerical reconstruction, CSPPeleeNet Reference with its "
    "last 3x3 convolution made 1x1, which the difference of the published "
    "numbers matches. Known: the kind of network, parameters and BFLOPs.",
)

PeleeNet = factory(PELEENET)
CSPPeleeNet = factory(csp_peleenet(), variants=csp_peleenet)
SparsePeleeNet = factory(SPARSE_PELEENET)
CSPPeleeNetReference = factory(CSP_PELEENET_REFERENCE)
CSPPeleeNetbReference = factory(CSP_PELEENETB_REFERENCE)

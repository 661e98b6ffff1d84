"""The fusion of a feature pyramid: Fig. 6 as a table that one layer runs.

A row of the table is a `FusionNode`: which maps it reads, how it merges them,
what it does to the result. `keras_csp.detection.necks` holds the tables.
"""

import keras
from keras import ops

from keras_csp._validation import check_choice
from keras_csp.layers.composite import (
    Composite,
    build,
    build_in_order,
    layer_list,
    output_shape,
    with_channels,
)
from keras_csp.layers.residual import partial_shortcut

MERGES = ("concat", "sum", "shortcut")


@keras.saving.register_keras_serializable(package="keras_csp")
class FusionNode(Composite):
    """y = f(merge(x_1, ..., x_n)): one row of a fusion table.

    Args:
        inputs: names of the maps that it reads: levels of the pyramid ("P3")
            or nodes before it. One name may be given as a string, and a name
            may stand more than once.
        layers: f, a list of layers applied in order; may be empty.
        merge: "concat" (default): along the channels. "sum": the sum, in
            which a 1x1 map is added to every position. "shortcut": the sum
            in the first map's width, of which wider maps give their first
            channels and narrower ones are padded with zeros (PRN's partial
            shortcut; Darknet's [shortcut]).

    Shapes: maps of equal height and width (or, in a sum, 1x1) to
    `(batch, h', w', filters)`, as f maps them.
    Raises ValueError for arguments out of range, and at build for maps whose
    sides differ.
    """

    layer_arguments = ("layers",)

    def __init__(self, inputs, layers=(), merge="concat", **kwargs):
        super().__init__(**kwargs)
        self.inputs = _names("inputs", inputs)
        self.layers = layer_list("layers", layers) if layers else []
        self.merge = check_choice("merge", merge, MERGES)

    def build(self, input_shape):
        build_in_order(self.layers, self._merged_shape(input_shape))

    def call(self, maps):
        x = self._merge(maps)
        for layer in self.layers:
            x = layer(x)
        return x

    def _merge(self, maps):
        first, *others = maps
        if self.merge == "concat":
            return ops.concatenate(maps, axis=-1) if others else first
        if self.merge == "shortcut":
            width = first.shape[-1]
            others = [partial_shortcut(other, 1, width) for other in others]
        return sum(others, first)

    def _merged_shape(self, shapes):
        first, *others = (tuple(shape) for shape in shapes)
        for shape in others:
            broadcast = self.merge == "sum" and shape[1:3] == (1, 1)
            sides = zip(shape[1:3], first[1:3])
            if not broadcast and any(a != b for a, b in sides if a and b):
                raise ValueError(
                    f"The maps of node {self.name!r} must have equal height "
                    f"and width. Received: {self.inputs} of {list(shapes)}"
                )
            if self.merge == "sum" and shape[-1] != first[-1]:
                raise ValueError(
                    f"The maps that node {self.name!r} sums must have equal "
                    f"channels. Received: {self.inputs} of {list(shapes)}"
                )
        if self.merge != "concat":
            return first
        return with_channels(first, sum(shape[-1] for shape in shapes))

    def compute_output_shape(self, input_shape):
        shape = self._merged_shape(input_shape)
        for layer in self.layers:
            shape = output_shape(layer, shape)
        return shape

    def get_config(self):
        return {
            **super().get_config(),
            "inputs": self.inputs,
            "merge": self.merge,
        }


@keras.saving.register_keras_serializable(package="keras_csp")
class PyramidFusion(Composite):
    """The maps of a pyramid, each level fused with others: Fig. 6.

    Runs its nodes in order; a node reads levels and the nodes before it.

    Args:
        nodes: `FusionNode`s, each with a name of its own.
        outputs: `{level: name of the node that is its output}`.

    Shapes: a dict of maps `{level: (batch, h, w, c)}` in, a dict of maps
    with the keys of `outputs` out.
    Raises ValueError for two nodes of one name, a name that nothing before
    it has, and an output that is no node.
    """

    layer_arguments = ("nodes",)

    def __init__(self, nodes, outputs, **kwargs):
        super().__init__(**kwargs)
        self.nodes = layer_list("nodes", nodes)
        self.outputs = dict(outputs)
        names = [node.name for node in self.nodes]
        if len(set(names)) < len(names):
            raise ValueError(
                f"`nodes` must have names of their own. Received: {names}"
            )
        missing = set(self.outputs.values()) - set(names)
        if missing or not self.outputs:
            raise ValueError(
                f"`outputs` must name nodes, one of {names}. Received: "
                f"outputs={self.outputs}"
            )

    def build(self, input_shape):
        self._run(dict(input_shape), build)

    def call(self, pyramid):
        return self._run(dict(pyramid), lambda node, maps: node(maps))

    def compute_output_shape(self, input_shape):
        return self._run(dict(input_shape), output_shape)

    def compute_output_spec(self, pyramid):
        # Keras would ask `call` otherwise, which takes much longer.
        shapes = {level: x.shape for level, x in pyramid.items()}
        return {
            level: keras.KerasTensor(shape, dtype=self.compute_dtype)
            for level, shape in self.compute_output_shape(shapes).items()
        }

    def _run(self, known, apply):
        """`apply(node, its inputs)` in order, of shapes as of tensors."""
        for node in self.nodes:
            missing = [name for name in node.inputs if name not in known]
            if missing:
                raise ValueError(
                    f"Node {node.name!r} of layer {self.name!r} reads "
                    f"{missing[0]!r}, which nothing before it has. Known: "
                    f"{list(known)}"
                )
            inputs = [known[name] for name in node.inputs]
            known[node.name] = apply(node, inputs)
        return {level: known[name] for level, name in self.outputs.items()}

    def get_config(self):
        return {**super().get_config(), "outputs": self.outputs}


def _names(argument, value):
    names = (value,) if isinstance(value, str) else tuple(value)
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"`{argument}` must be a name or names of maps. Received: "
            f"{argument}={value!r}"
        )
    return names

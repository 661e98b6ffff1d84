"""Layers made of layers: how they are built, named, checked and serialised."""

import keras
from keras import ops


class Composite(keras.layers.Layer):
    """Base of layers that are given other layers.

    A subclass names in `layer_arguments` the constructor arguments that hold
    a layer, `None`, or a list of layers; it stores each under the same name,
    so that the configuration can be read back from the attributes.
    """

    layer_arguments = ()

    def get_config(self):
        layers = {name: getattr(self, name) for name in self.layer_arguments}
        return {
            **super().get_config(),
            **keras.saving.serialize_keras_object(layers),
        }

    @classmethod
    def from_config(cls, config):
        layers = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in cls.layer_arguments
        }
        return super().from_config({**config, **layers})


class SequentialLayer(keras.layers.Layer):
    """Base of layers that run `self.layers` in order."""

    def build(self, input_shape):
        build_in_order(self.layers, input_shape)

    def call(self, x):
        for layer in self.layers:
            x = layer(x)
        return x

    def compute_output_shape(self, input_shape):
        for layer in self.layers:
            input_shape = output_shape(layer, input_shape)
        return input_shape


@keras.saving.register_keras_serializable(package="keras_csp")
class SequentialBlock(SequentialLayer, Composite):
    """y = f_n(...f_2(f_1(x))): layers one after another.

    Args:
        layers: Keras layers, applied in order.

    Shapes: whatever the layers map; the output is the last layer's.
    """

    layer_arguments = ("layers",)

    def __init__(self, layers, **kwargs):
        super().__init__(**kwargs)
        self.layers = layer_list("layers", layers)


@keras.saving.register_keras_serializable(package="keras_csp")
class Parallel(Composite):
    """y = [p_1(x), ..., p_n(x)]: paths side by side, concatenated.

    Args:
        paths: each a layer or a list of layers; all must map the height and
            width alike.

    Shapes: the channels of the output are those of all paths together.
    """

    layer_arguments = ("paths",)

    def __init__(self, paths, **kwargs):
        super().__init__(**kwargs)
        self.paths = layer_list("paths", paths)

    def build(self, input_shape):
        first, *rest = [build(path, input_shape) for path in self.paths]
        for shape in rest:
            check_same_sides(self, "every path", shape, "the first", first)

    def call(self, x):
        return ops.concatenate([path(x) for path in self.paths], axis=-1)

    def compute_output_shape(self, input_shape):
        shapes = [output_shape(path, input_shape) for path in self.paths]
        return with_channels(shapes[0], sum(shape[-1] for shape in shapes))


def as_layer(argument, value):
    """`value` as one layer: a list of layers becomes a `SequentialBlock`."""
    if isinstance(value, keras.layers.Layer):
        return value
    layers = layer_list(argument, value)
    return (
        layers[0]
        if len(layers) == 1
        else SequentialBlock(layers, name=argument)
    )


def layer_list(argument, value):
    """`value` as a list of distinct layers, each possibly given as a list.

    Raises:
        ValueError: not layers, none at all, or one layer more than once.
    """
    if isinstance(value, keras.layers.Layer):
        value = [value]
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError(
            f"`{argument}` must be a Keras layer or a non-empty list of them. "
            f"Received: {argument}={value!r}"
        )
    layers = []
    for index, item in enumerate(value):
        if isinstance(item, (list, tuple)):
            layers.append(as_layer(f"{argument}{index}", item))
        elif isinstance(item, keras.layers.Layer):
            layers.append(item)
        else:
            raise ValueError(
                f"`{argument}` must hold Keras layers only. Received at "
                f"position {index}: {item!r} of type {type(item).__name__}"
            )
    if len({id(layer) for layer in layers}) < len(layers):
        raise ValueError(
            f"`{argument}` holds the same layer more than once, which would "
            "share its weights. Make one layer for each position, e.g. "
            f"[Block() for _ in range({len(layers)})]"
        )
    return layers


def build(layer, input_shape):
    """Builds `layer` and returns its output shape.

    A layer of the user's may define neither `build` nor
    `compute_output_shape`; then it is called on a symbolic tensor instead.
    """
    if type(layer).build is keras.layers.Layer.build:
        dtype = layer.compute_dtype or keras.config.floatx()
        return layer(keras.KerasTensor(input_shape, dtype=dtype)).shape
    if not layer.built:
        layer.build(input_shape)
    return output_shape(layer, input_shape)


def build_in_order(layers, input_shape):
    for layer in layers:
        input_shape = build(layer, input_shape)
    return input_shape


def output_shape(layer, input_shape):
    own = type(layer).compute_output_shape
    if own is keras.layers.Layer.compute_output_shape:
        dtype = layer.compute_dtype or keras.config.floatx()
        return layer(keras.KerasTensor(input_shape, dtype=dtype)).shape
    return tuple(layer.compute_output_shape(input_shape))


def with_channels(input_shape, channels):
    return (*input_shape[:-1], channels)


def check_same_sides(layer, what, shape, other_what, other):
    """Raises unless both shapes have the same height and width."""
    if tuple(shape[1:3]) != tuple(other[1:3]):
        raise ValueError(
            f"In layer {layer.name!r}, {what} must have the height and width "
            f"of {other_what}. Received: {tuple(shape[1:3])} and "
            f"{tuple(other[1:3])}"
        )

"""Networks of the Keras frameworks, with random weights."""


def make(framework, name, size):
    """A classifier of 1000 classes for images of `size` x `size`.

    Args:
        framework: "keras_csp", "keras-hub" or "keras.applications". The first
            is imported before TensorFlow, as its users do; the others come
            as they are.
        name: of the factory; of keras-hub, timm's name of the architecture.
    """
    shape = (size, size, 3)
    if framework == "keras_csp":
        import keras_csp

        return getattr(keras_csp, name)(weights=None, input_shape=shape)
    if framework == "keras-hub":
        return _hub(name, shape)
    import keras

    return getattr(keras.applications, name)(weights=None, input_shape=shape)


def _hub(name, shape):
    """keras-hub's own configuration for timm's file of this name."""
    from keras_hub.models import CSPNetBackbone, CSPNetImageClassifier
    from keras_hub.src.utils.timm.convert_cspnet import convert_backbone_config

    configuration = convert_backbone_config({"architecture": name})
    backbone = CSPNetBackbone(**configuration, image_shape=shape)
    return CSPNetImageClassifier(
        backbone=backbone, num_classes=1000, activation="softmax"
    )


def set_statistics(model, samples):
    """BatchNormalization statistics as if the network had seen data.

    Without them the values of a deep random network shrink or grow from layer
    to layer, until denormal numbers slow a runtime down or an 8-bit one has
    no scale for them. In training each layer normalises by the batch itself,
    so one pass over the samples is right for all layers at once.
    """
    import keras

    layers = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    model(samples, training=True)
    for layer, momentum in zip(layers, momenta):
        layer.momentum = momentum

"""The GPUs of one host, or parts of its CPU to try the same."""

import keras


def mirrored(count=None, batch_size=None, accumulation=1):
    """A strategy that trains on several devices, each on its share of a batch.

        with devices.mirrored(2, batch_size=64).scope():
            model = ...

    Every device normalises its own share: Keras' `BatchNormalization` sees
    `batch_size` / `count` images, and the first device's statistics are saved.

    Args:
        count: of the GPUs; where there are none, of the parts into which the
            CPU is divided. Default: all GPUs, or the CPU undivided.
        batch_size: images for one step on all devices. Default: not checked.
        accumulation: batches whose gradients are added up, which Keras can do
            on one device only. Default 1.

    Returns:
        A `tf.distribute.Strategy`; `num_replicas_in_sync` is the count.

    Raises:
        ValueError: more than there are; a batch that cannot be shared evenly;
            accumulation on several; the CPU already in use undivided; another
            backend than TensorFlow.
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "Several devices of a host are for Keras' TensorFlow backend. "
            f"Received: {keras.backend.backend()!r}"
        )
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    count = count or len(found) or 1
    if count > len(found) > 0:
        raise ValueError(f"There are {len(found)} GPUs. Received: {count}")
    if batch_size and batch_size % count:
        raise ValueError(
            f"The batch must be a multiple of the {count} devices. Received: "
            f"{batch_size}"
        )
    if count == 1:
        return tf.distribute.get_strategy()
    if accumulation > 1:
        raise ValueError(
            "Keras accumulates gradients on one device only. Received: "
            f"{accumulation} batches for a step on {count} devices"
        )
    kind = "GPU" if found else "CPU"
    if not found:
        _divide_cpu(tf.config, count)
    names = [device.name for device in tf.config.list_logical_devices(kind)]
    return tf.distribute.MirroredStrategy(names[:count])


def shared(dataset, strategy):
    """The batches of an evaluation, so that the devices can share them.

    Left out is a last batch of fewer images than there are devices. A first
    one that is short, too, loses what makes the shares unequal: Keras adds
    the shares of the first batch up, to know their shapes.
    """
    count = strategy.num_replicas_in_sync
    if count == 1:
        return dataset
    import tensorflow as tf

    def even(number, batch):
        images = tf.shape(batch[0])[0]
        kept = tf.where(number == 0, images - images % count, images)
        return keras.tree.map_structure(lambda part: part[:kept], batch)

    dataset = dataset.enumerate().map(even)
    return dataset.filter(lambda x, *_: tf.shape(x)[0] >= count)


def _divide_cpu(config, count):
    try:
        config.set_logical_device_configuration(
            config.list_physical_devices("CPU")[0],
            [config.LogicalDeviceConfiguration()] * count,
        )
    except RuntimeError as error:
        raise ValueError(
            "The CPU must be divided before TensorFlow's first operation. "
            f"Received: {count}"
        ) from error

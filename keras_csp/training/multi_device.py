"""Several GPUs of one host, on Keras' TensorFlow backend."""

import keras


def make_strategy(count=None, batch_size=None, accumulation=1):
    """A strategy that trains on several devices, each on a part of a batch.

        with make_strategy(2, batch_size=64).scope():
            model = ...

    Every device normalises its own part: Keras' `BatchNormalization` sees
    `batch_size` / `count` images, and the first device's statistics are saved.
    To try it without GPUs, the CPU is divided into as many logical devices.

    Args:
        count: number of GPUs, or of parts of the CPU where there are no GPUs.
            Default: all GPUs, or the CPU undivided.
        batch_size: images of a batch on all devices together. Default: not
            checked.
        accumulation: batches whose gradients are added up, which Keras can do
            on one device only. Default 1.

    Returns:
        A `tf.distribute.Strategy`; `num_replicas_in_sync` is the count.

    Raises:
        ValueError: more devices than there are; a batch size that the count
            does not divide; accumulation on several devices; the CPU already
            in use undivided; another backend than TensorFlow.
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "Several devices of a host need Keras' TensorFlow backend. "
            f"Received: {keras.backend.backend()!r}"
        )
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    count = count or len(gpus) or 1
    if count > len(gpus) > 0:
        raise ValueError(f"There are {len(gpus)} GPUs. Received: {count}")
    if batch_size and batch_size % count:
        raise ValueError(
            f"The batch size must be a multiple of the {count} devices. "
            f"Received: {batch_size}"
        )
    if count == 1:
        return tf.distribute.get_strategy()
    if accumulation > 1:
        raise ValueError(
            "Keras accumulates gradients on one device only. Received: "
            f"accumulation={accumulation} on {count} devices"
        )
    kind = "GPU" if gpus else "CPU"
    if not gpus:
        _divide_cpu(tf.config, count)
    names = [device.name for device in tf.config.list_logical_devices(kind)]
    return tf.distribute.MirroredStrategy(names[:count])


def shard_safe_batches(dataset, strategy):
    """Batches of an evaluation that can be divided among the devices.

    A final batch with fewer images than devices is dropped. If the first batch
    is that short, its last images are dropped so that all parts are equal:
    Keras adds up the parts of the first batch to learn their shapes.

    Args:
        dataset: a `tf.data.Dataset` of batches.
        strategy: of `make_strategy`. With one device, `dataset` is returned.
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

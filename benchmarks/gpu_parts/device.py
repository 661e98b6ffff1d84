"""What the backend computes on, in words."""

import os

import keras
from peers_lib.machine import cpu


def name():
    """The GPU of the backend in use, or else the CPU and its cores."""
    return _gpu() or f"{cpu()}, {os.cpu_count()} cores"


def has_gpu():
    return _gpu() is not None


def _gpu():
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        (device, *_others) = jax.devices()
        return None if device.platform == "cpu" else device.device_kind
    if backend == "torch":
        import torch

        found = torch.cuda.is_available()
        return torch.cuda.get_device_name(0) if found else None
    import tensorflow as tf

    for device in tf.config.list_physical_devices("GPU"):
        return tf.config.experimental.get_device_details(device)["device_name"]
    return None

"""Several hosts that train as one, on Keras' JAX backend."""

import contextlib
import json
import os
import pathlib
import re
import secrets
import signal
import socket
import sys
import time
import traceback
import zlib

import keras
import numpy as np

from keras_csp.training import run
from keras_csp.training.checkpoint import TrainingState

# How messages of JAX's runtime begin. It has no exception type for a lost host.
_STATUS = re.compile(r"[A-Z][A-Z_]+: ")


@contextlib.contextmanager
def cli_errors(program):
    """As `run.cli_errors`; a lost host is one line, too.

    Once the hosts have joined, an error ends the process at once: at a normal
    exit JAX waits up to five minutes for hosts that are lost or that wait for
    this one.
    """
    try:
        with run.cli_errors(program), _lost_hosts():
            yield
    except BaseException as error:
        if not _joined():
            raise
        if isinstance(error, SystemExit):
            print(error, file=sys.stderr)
        else:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        if _is_first():
            # JAX ends the others as soon as host 0 is gone, even before they
            # have printed their own error.
            time.sleep(2)
        os._exit(1)


@contextlib.contextmanager
def _lost_hosts():
    try:
        yield
    except (ValueError, RuntimeError) as error:
        if not _joined() or not _STATUS.match(str(error)):
            raise
        line = str(error).splitlines()[0][:200]
        raise ValueError(
            "a host was lost, or JAX failed; rerun the same command on every "
            f"host to resume after the last complete epoch ({line})"
        ) from error


def _joined():
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def _is_first():
    import jax

    return jax.process_index() == 0


@contextlib.contextmanager
def without_distribution():
    """In the block, Keras creates variables on this host only.

    Otherwise a new variable belongs to all hosts and waits until each has
    created it; saving a model creates some.
    """
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


class _SharedTrainingState(TrainingState):
    """Written by host 0, read by every host."""

    def __init__(self, folder, log, writes):
        super().__init__(folder, log=log if writes else None)
        self.writes = writes

    def on_epoch_end(self, epoch, logs=None):
        if self.writes:
            with without_distribution():
                super().on_epoch_end(epoch, logs)


class Hosts:
    """All hosts of a training, and which of them this process is.

        hosts = Hosts(2, index, "10.0.0.1:9876")
        hosts.join(recipe.batch_size)
        model = ...
        model.fit(hosts.training(data, recipe, model), ...)

    Every host runs the same program. After `join` the devices of all hosts
    form one `keras.distribution.DataParallel`: each host loads its part of a
    batch, and loss, gradients and the statistics of batch normalization are
    computed over the whole batch.

    Args:
        count: number of hosts. Default 1, which needs no network.
        index: of this host, 0 to `count` - 1. Default 0.
        coordinator: "ADDRESS:PORT" of host 0, as the others reach it. Of a
            list with commas, as Keras takes it, the first is used.

    Raises:
        ValueError: an index out of range or an invalid address.
    """

    def __init__(self, count=1, index=0, coordinator=None):
        if not 0 <= index < count:
            raise ValueError(
                "The host's index must be from 0 to below the number of hosts. "
                f"Received: host {index} of {count}"
            )
        self.count = count
        self.index = index
        self.coordinator = (coordinator or "").split(",")[0]
        if count > 1:
            address, _, port = self.coordinator.rpartition(":")
            if not address or not port.isdigit() or not 0 < int(port) < 1 << 16:
                raise ValueError(
                    f"{count} hosts need a coordinator, the ADDRESS:PORT of "
                    f"host 0. Received: {coordinator!r}"
                )

    @property
    def first(self):
        """Whether this is host 0, which alone writes."""
        return self.index == 0

    def join(self, batch_size):
        """Waits for all hosts, then connects their devices.

        Call it before a model or an optimizer is created. JAX ends the process
        if a host is missing after five minutes.

        Args:
            batch_size: of all hosts together.

        Raises:
            ValueError: another backend than JAX, a batch size that the number
                of devices does not divide, or host 0's port is in use.
        """
        self._check_batch(batch_size, self.count, "hosts")
        if keras.backend.backend() != "jax":
            raise ValueError(
                "Several hosts need Keras' JAX backend: set KERAS_BACKEND to "
                f"jax. Received: {keras.backend.backend()!r}"
            )
        import tensorflow as tf

        # TensorFlow only reads the images, and would take the GPUs' memory.
        tf.config.set_visible_devices([], "GPU")
        if self.count > 1:
            self._initialize()
        devices = len(keras.distribution.list_devices())
        self._check_batch(batch_size, devices, "devices")
        # Each host loads its own part: Keras must not divide it again.
        keras.distribution.set_distribution(
            keras.distribution.DataParallel(auto_shard_dataset=False)
        )

    def run_on_all_hosts(self, work):
        """Calls `work` on every host, and waits until all have finished.

        Args:
            work: a function without arguments.

        Returns:
            What `work()` returned on this host.

        Raises:
            ValueError: on every host, if `work` failed on one of them.
        """
        result = problem = None
        try:
            result = work()
        except (ValueError, OSError, ImportError) as error:
            problem = error
        failed = self._gather(np.int32(problem is not None))
        if problem is not None:
            raise problem
        if failed.any():
            raise ValueError(
                f"host {failed.argmax()} failed; its own output says why"
            )
        return result

    def assert_same(self, values):
        """Raises a ValueError on every host unless all have the same values.

        Args:
            values: a dict of JSON values, with the same keys on every host.
        """
        codes = [
            zlib.crc32(json.dumps(value, sort_keys=True).encode())
            for value in values.values()
        ]
        differs = self._gather(np.uint32(codes))
        differs = differs != differs[:1]
        if differs.any():
            host, place = np.argwhere(differs)[0]
            key = list(values)[place]
            raise ValueError(
                f"`{key}` of host {host} differs from that of host 0. "
                f"Received: {key}={values[key]!r} on host {self.index}"
            )

    def check_shared_folder(self, folder):
        """Creates a folder; ValueError unless all hosts see the same one."""
        name = int(self._gather(np.int32(secrets.randbits(31)))[0])
        # A new name: a network file system may remember that one is missing.
        mark = pathlib.Path(folder) / f"part-{name:08x}"

        def write():
            if self.first:
                mark.parent.mkdir(parents=True, exist_ok=True)
                mark.touch()

        def look():
            if not mark.exists():
                raise ValueError(
                    f"{folder} is not the folder of host 0: it must be shared "
                    "by all hosts, e.g. over NFS"
                )

        try:
            self.run_on_all_hosts(write)
            self.run_on_all_hosts(look)
        finally:
            if self.first:
                mark.unlink(missing_ok=True)

    def training(self, data, recipe, model=None, seed=0):
        """This host's part of every training batch, augmented in its own way.

        Every host gets the same number of batches, whatever the number of its
        images.

        Args:
            data: a `keras_csp.data.ClassificationData`, the same on all hosts.
            recipe: a `ClassificationRecipe`; its `batch_size` is of all hosts
                together.
            model, seed: as of `recipe.training`.
        """
        part = recipe.replace(
            batch_size=recipe.batch_size // self.count, drop_remainder=True
        )
        batches = part.training(
            data.shard(self.count, self.index),
            model,
            seed * self.count + self.index,
        )
        return batches.take(data.size // recipe.batch_size)

    def evaluation(self, data, recipe, model=None):
        """This host's part of the test images, each once, with weights.

        Every host gets the same number of batches of the same size. Missing
        images are filled in as black ones of weight 0, and the others weigh
        more, so that losses are means over `data.size` images. Pass accuracy
        as one of `weighted_metrics`; unreadable images do not count in it.

        Args:
            data, recipe, model: as of `training`.

        Returns:
            `tf.data.Dataset` of images, one-hot labels and weights.
        """
        import tensorflow as tf

        batch_size = recipe.batch_size // self.count
        batches = -(-data.size // recipe.batch_size)
        weight = np.float32(batches * recipe.batch_size / data.size)
        part = recipe.replace(batch_size=batch_size).evaluation(
            data.shard(self.count, self.index), model
        )
        part = part.unbatch()
        black = (tf.zeros(spec.shape) for spec in part.element_spec)
        filling = tf.data.Dataset.from_tensors((*black, 0.0)).repeat()
        part = part.map(lambda image, label: (image, label, weight))
        part = part.concatenate(filling).batch(batch_size)
        return part.take(batches).prefetch(tf.data.AUTOTUNE)

    def state(self, folder, log=None):
        """A `TrainingState` for the callbacks of all hosts.

        Host 0 writes it, and every host restores from it: `folder` must be
        shared, see `check_shared_folder`.
        """
        return _SharedTrainingState(folder, log, writes=self.first)

    def save(self, model, path):
        """Host 0 saves the model, atomically."""
        if self.first:
            with without_distribution():
                run.save_model(path, model)

    def _initialize(self):
        import jax

        if self.first:
            self._check_port()
        print(
            f"host {self.index} of {self.count} waits for the others, at "
            f"{self.coordinator}",
            flush=True,
        )
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        keras.distribution.initialize(self.coordinator, self.count, self.index)
        # JAX turns SIGTERM into a notice that nothing reads here.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _check_port(self):
        """Raises a ValueError if the port is in use: JAX would crash."""
        port = int(self.coordinator.rpartition(":")[2])
        try:
            socket.create_server(("", port)).close()
        except OSError as error:
            raise ValueError(
                f"Host 0 cannot listen at the port of the coordinator, {port}: "
                f"{error.strerror}"
            ) from error

    def _gather(self, value):
        """The arrays of all hosts, `(count, ...)`."""
        from jax.experimental import multihost_utils

        return multihost_utils.process_allgather(value)

    @staticmethod
    def _check_batch(batch_size, count, name):
        if batch_size % count:
            raise ValueError(
                f"The batch size must be a multiple of the {count} {name}. "
                f"Received: {batch_size}"
            )

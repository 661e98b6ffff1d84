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

from keras_csp.training import run as runs
from keras_csp.training.checkpoint import TrainingState

# How messages of JAX's runtime begin, whatever their Python type: no type of
# its own says that a host was lost.
_STATUS = re.compile(r"[A-Z][A-Z_]+: ")


@contextlib.contextmanager
def cli_errors(program):
    """As `runs.cli_errors`, and a lost host in one line, too.

    Once the hosts have joined it ends the process at once: on its way out JAX
    would wait, up to five minutes, for hosts that are lost or that themselves
    wait for this one.
    """
    try:
        with runs.cli_errors(program), _lost_hosts():
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
            # have said what was wrong.
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
            "a host was lost, or JAX failed; the same command on every host "
            f"goes on after the last whole epoch ({line})"
        ) from error


def _joined():
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def _is_first():
    import jax

    return jax.process_index() == 0


@contextlib.contextmanager
def alone():
    """In the block, what Keras makes is this host's own.

    A new variable otherwise is all hosts', and waits for each to make it;
    saving makes some.
    """
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


class _FirstHostsState(TrainingState):
    """Written by host 0, read by all."""

    def __init__(self, folder, log, writes):
        super().__init__(folder, log=log if writes else None)
        self.writes = writes

    def on_epoch_end(self, epoch, logs=None):
        if self.writes:
            with alone():
                super().on_epoch_end(epoch, logs)


class Hosts:
    """All hosts of a training, and which of them this process is.

        hosts = Hosts(2, index, "10.0.0.1:9876")
        hosts.join(batch_size=64)
        model = ...
        model.fit(hosts.training(data, 64, size=32), ...)

    Every host runs the same program. After `join` the devices of all are one
    `keras.distribution.DataParallel`: each host puts in its share of a batch,
    and loss, gradients and the statistics of batch normalization are of the
    whole batch.

    Args:
        count: of the hosts. Default 1; then nothing here needs a network.
        index: of this one, 0 to `count` - 1. Default 0.
        coordinator: "ADDRESS:PORT" of host 0, as the others reach it; of
            several with commas between, as Keras takes them, the first.

    Raises:
        ValueError: an index or an address that cannot be.
    """

    def __init__(self, count=1, index=0, coordinator=None):
        if not 0 <= index < count:
            raise ValueError(
                "The host's number must be from 0 to below the number of "
                f"hosts. Received: host {index} of {count}"
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
        """Waits for all hosts, then makes their devices one.

        Call it before anything of Keras is made: a model, an optimizer. JAX
        ends the process if a host is not there after five minutes.

        Args:
            batch_size: of all hosts together.

        Raises:
            ValueError: another backend than JAX, a batch that the devices
                cannot share evenly, or host 0's port is taken.
        """
        self._check_batch(batch_size, self.count, "hosts")
        if keras.backend.backend() != "jax":
            raise ValueError(
                "Several hosts are for Keras' JAX backend: set KERAS_BACKEND "
                f"to jax. Received: {keras.backend.backend()!r}"
            )
        import tensorflow as tf

        # TensorFlow only reads the images, and would take the GPUs' memory.
        tf.config.set_visible_devices([], "GPU")
        if self.count > 1:
            self._initialize()
        devices = len(keras.distribution.list_devices())
        self._check_batch(batch_size, devices, "devices")
        # The data are shares already: Keras must not share them out again.
        keras.distribution.set_distribution(
            keras.distribution.DataParallel(auto_shard_dataset=False)
        )

    def together(self, work):
        """What `work()` returns, once it is done on every host.

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
            raise ValueError(f"host {failed.argmax()} failed, see there")
        return result

    def agree(self, values):
        """Raises a ValueError on every host, unless all have the same values.

        Args:
            values: dict of what JSON has, with the same keys on every host.
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
                f"host {host} has another `{key}` than host 0. Received: "
                f"{key}={values[key]!r} on host {self.index}"
            )

    def check_shared(self, folder):
        """Makes a folder; ValueError unless all hosts see the same one."""
        name = int(self._gather(np.int32(secrets.randbits(31)))[0])
        # A name that no host has looked for, and remembers as missing.
        mark = pathlib.Path(folder) / f"part-{name:08x}"

        def write():
            if self.first:
                mark.parent.mkdir(parents=True, exist_ok=True)
                mark.touch()

        def look():
            if not mark.exists():
                raise ValueError(
                    f"{folder} is not the folder of host 0: it must be one "
                    "that every host sees, as over NFS"
                )

        try:
            self.together(write)
            self.together(look)
        finally:
            if self.first:
                mark.unlink(missing_ok=True)

    def training(self, data, batch_size, size, augmentation=None, seed=0):
        """This host's share of every training batch, varied in its own way.

        Every host makes as many batches, whatever the size of its share.

        Args:
            data: a `keras_csp.data.ClassificationData`, the same on all hosts.
            batch_size: of all hosts together.
            size, augmentation, seed: as of `data.training`.
        """
        share = data.shard(self.count, self.index).training(
            batch_size // self.count,
            size,
            augmentation,
            seed * self.count + self.index,
            drop_remainder=True,
        )
        return share.take(data.size // batch_size)

    def evaluation(self, data, batch_size, size):
        """This host's share of the test images, each once, with weights.

        Every host makes as many batches of the same size. What a host lacks
        is filled up with black images of weight 0, and the others weigh more,
        so that losses are means over `data.size` images. Accuracy belongs in
        `weighted_metrics`; unreadable images do not count in it.

        Args:
            data, batch_size, size: as of `training`.

        Returns:
            `tf.data.Dataset` of images, one-hot labels and weights.
        """
        import tensorflow as tf

        batches = -(-data.size // batch_size)
        weight = np.float32(batches * batch_size / data.size)
        share = data.shard(self.count, self.index)
        share = share.evaluation(batch_size // self.count, size).unbatch()
        black = (tf.zeros(spec.shape) for spec in share.element_spec)
        filling = tf.data.Dataset.from_tensors((*black, 0.0)).repeat()
        share = share.map(lambda image, label: (image, label, weight))
        share = share.concatenate(filling).batch(batch_size // self.count)
        return share.take(batches).prefetch(tf.data.AUTOTUNE)

    def state(self, folder, log=None):
        """A `TrainingState` for the callbacks of all hosts.

        Host 0 writes it, and every host restores from what it wrote: `folder`
        must pass `check_shared`.
        """
        return _FirstHostsState(folder, log, writes=self.first)

    def save(self, model, path):
        """Host 0 saves the model, whole or not at all."""
        if self.first:
            with alone():
                runs.save_model(path, model)

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
        # JAX makes it a notice that nobody reads here.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _check_port(self):
        """JAX crashes where the port is taken."""
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
                f"The batch must be a multiple of the {count} {name}. "
                f"Received: {batch_size}"
            )

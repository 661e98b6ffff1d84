"""Engines: inference and the training step of a network, in one interface.

An engine compiles a program for (quantity, batch), where quantity is
"inference" or "training", and runs it on images that are already on the
device. `run` returns when the device has finished. Activations are in
`precision`, weights in float32.
"""

import functools

import keras
from harness.contenders import (
    LEARNING_RATE,
    MOMENTUM,
    TorchNetwork,
    random_batch,
)

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def make(engine, network, size, precision):
    """The engine of this name, one of `jobs.ENGINES`."""
    return MAKERS[engine](network, size, precision)


def _model(network, size, precision):
    import keras_csp

    keras.config.set_dtype_policy(POLICIES[precision])
    return keras_csp.get_factory(network.factory)(
        input_shape=(size, size, 3), classifier_activation=None
    )


def _optimizer():
    return keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM)


def _loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Jax:
    """Keras on JAX: a step of stateless calls, compiled ahead of time."""

    def __init__(self, network, size, precision):
        import jax

        self.jax, self.size = jax, size
        self.model = _model(network, size, precision)
        self.optimizer, self.loss = _optimizer(), _loss()
        self.optimizer.build(self.model.trainable_variables)
        self.programs = {}
        self.state = None

    def _variables(self):
        groups = (
            self.model.trainable_variables,
            self.model.non_trainable_variables,
            self.optimizer.variables,
        )
        return tuple([v.value for v in group] for group in groups)

    def _inference(self, state, images, labels):
        return self.model.stateless_call(*state[:2], images)[0], state

    def _training(self, state, images, labels):
        trainable, others, moments = state

        def objective(trainable):
            logits, updated = self.model.stateless_call(
                trainable, others, images, training=True
            )
            return self.loss(labels, logits), updated

        gradient = self.jax.value_and_grad(objective, has_aux=True)
        (loss, others), gradients = gradient(trainable)
        trainable, moments = self.optimizer.stateless_apply(
            moments, gradients, trainable
        )
        return loss, (trainable, others, moments)

    def compile(self, quantity, batch):
        step = {"inference": self._inference, "training": self._training}
        program = self.jax.jit(step[quantity], donate_argnums=0)
        arguments = self._variables(), *random_batch(batch, self.size)
        self.programs[quantity, batch] = program.lower(*arguments).compile()

    def prepare(self, quantity, batch):
        # Copies, because a program reuses the memory of its arguments.
        self.state = self.jax.tree.map(lambda x: x.copy(), self._variables())
        self.data = self.jax.device_put(random_batch(batch, self.size))
        self.program = self.programs[quantity, batch]

    def run(self, steps):
        for _ in range(steps):
            answer, self.state = self.program(self.state, *self.data)
        self.jax.block_until_ready((answer, self.state))

    def memory(self):
        """Bytes of arguments and intermediate results, as compiled."""
        used = self.program.memory_analysis()
        sizes = (used.argument_size_in_bytes, used.temp_size_in_bytes)
        return sum(sizes)


class _Torch:
    """The common part of the PyTorch engines."""

    def __init__(self, size):
        import torch

        self.torch, self.size = torch, size
        self.cuda = torch.cuda.is_available()
        self.device = "cuda" if self.cuda else "cpu"

    def compile(self, quantity, batch):
        """PyTorch compiles a program when it first runs."""
        self.prepare(quantity, batch)
        self.run(1)
        self.data = None
        if self.cuda:
            self.torch.cuda.empty_cache()

    def prepare(self, quantity, batch):
        self.data = self._place(*random_batch(batch, self.size))
        self.step = getattr(self, f"_{quantity}")
        if self.cuda:
            self.torch.cuda.reset_peak_memory_stats()

    def run(self, steps):
        for _ in range(steps):
            self.step(*self.data)
        if self.cuda:
            self.torch.cuda.synchronize()

    def memory(self):
        return self.torch.cuda.max_memory_allocated() if self.cuda else None


class KerasTorch(_Torch):
    """Keras on PyTorch: `predict_on_batch` and `train_on_batch`."""

    def __init__(self, network, size, precision, compiled):
        super().__init__(size)
        self.model = _model(network, size, precision)
        self.model.compile(_optimizer(), _loss(), jit_compile=compiled)

    def _place(self, *arrays):
        return [self.torch.from_numpy(x).to(self.device) for x in arrays]

    def _inference(self, images, labels):
        self.model.predict_on_batch(images)

    def _training(self, images, labels):
        self.model.train_on_batch(images, labels)


class Timm(_Torch):
    """timm's network, channels last, under autocast."""

    def __init__(self, network, size, precision, compiled):
        super().__init__(size)
        made = TorchNetwork(
            {},
            network.timm,
            channels_last=True,
            compiled=compiled,
            device=self.device,
            precision=precision,
        )
        self._place, self._training = made.place, made.train
        self._infer = made.infer

    def _inference(self, images, labels):
        self._infer(images)


# By the names of `jobs.ENGINES`.
MAKERS = {
    "keras_csp, JAX": Jax,
    "timm, eager": functools.partial(Timm, compiled=False),
    "timm, compiled": functools.partial(Timm, compiled=True),
    "keras_csp, PyTorch compiled": functools.partial(KerasTorch, compiled=True),
}

"""One contender as data: what its process needs, and what is measured."""

import dataclasses

# How thorough a run is: with --quick, by default, with --thorough.
QUICK, DEFAULT, THOROUGH = range(3)
TRAINING_BATCH = 8
# Rounds of networks that differ by little, for each round of others.
CLOSE = 3
TENSORFLOW = {"KERAS_BACKEND": "tensorflow"}
JAX = {"KERAS_BACKEND": "jax"}


@dataclasses.dataclass(frozen=True)
class Job:
    """A process of one contender.

    Attributes:
        section: "inference" (the training step, of the same process, too),
            "costs", "savings", "detectors" or "imports".
        network: the heading that it is listed under.
        framework, engine: who computes it, e.g. "timm", "eager".
        model: the network as its framework calls it.
        runs: the module with the class `Runs` that the process makes.
        quantities: {name: its dict of batch, size, training ...}, in the
            order in which they are measured.
        arguments: of `Runs`, besides the quantities.
        needs: modules that its interpreter must have.
        python: "this" or "timm": the interpreter that is asked first.
        environment: variables of the process.
        files: {quantity: path} of what an earlier job must have made.
        once: whether each quantity is run once, without warming up.
        repeats: its rounds for each round of others: more, where a few
            percent are to be told apart.
        levels: {quantity: 0 to 2}, how thorough a run measures it; 0 if not
            named.
        seconds: guess of what its first warming-up takes, or each step of
            those that are run once; for the time left.
    """

    section: str
    network: str
    framework: str
    engine: str
    model: str
    runs: str
    quantities: dict
    arguments: dict = dataclasses.field(default_factory=dict)
    needs: tuple = ()
    python: str = "this"
    environment: dict = dataclasses.field(default_factory=dict)
    files: dict = dataclasses.field(default_factory=dict)
    once: bool = False
    repeats: int = 1
    levels: dict = dataclasses.field(default_factory=dict)
    seconds: float = 10.0

    @property
    def key(self):
        """What tells it from every other job."""
        return (
            self.section,
            self.network,
            self.framework,
            self.engine,
            self.model,
        )

    @property
    def title(self):
        return f"{self.framework} {self.engine}, {self.model}"

    def only(self, quantities):
        """The same job with these of its quantities."""
        kept = {k: v for k, v in self.quantities.items() if k in quantities}
        return dataclasses.replace(self, quantities=kept)

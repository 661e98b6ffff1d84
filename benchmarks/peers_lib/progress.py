"""What is done and how long the rest may take, guessed."""

import sys
import time


class Progress:
    """A line on standard error for each step, with the time left.

    That is the guess for the steps to come, corrected by how long those that
    are done took beside their guesses.
    """

    def __init__(self):
        self.total = self.done = self.current = 0.0
        self.start = time.monotonic()

    def __call__(self, title, step, guess):
        self.done += self.current
        self.current = guess
        factor = 1.0
        if self.done:
            factor = (time.monotonic() - self.start) / self.done
        left = max(self.total - self.done, 0) * factor / 60
        print(
            f"[{left:.0f} min left] {title}: {step}",
            file=sys.stderr,
            flush=True,
        )


def guessed(job, rules):
    """Seconds that all quantities of a job may take."""
    total = 0.0
    for index, quantity in enumerate(job.quantities):
        training = quantity == "training"
        total += starting(job, index == 0, training)
        if not job.once:
            total += rules.rounds * job.repeats * turn(rules, training)
    return total


def starting(job, first, training):
    """Importing and building, or a step to compile, or only a new shape."""
    if job.once or first:
        return job.seconds
    return 1.5 * job.seconds if training else job.seconds / 3


def turn(rules, training):
    """An uncounted run and those that count."""
    return max(2.5 * rules.seconds, 4.0 if training else 0.0)

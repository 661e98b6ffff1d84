"""Checks of arguments; each returns the value, or names it in a ValueError."""

import numbers


def is_integer(value):
    """Whether it is a whole number, NumPy's included; True is none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def check_choice(argument, value, choices):
    if value not in choices:
        allowed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(
            f"`{argument}` must be one of {allowed}. Received: "
            f"{argument}={value!r}"
        )
    return value


def check_positive(argument, value):
    if not is_integer(value) or value < 1:
        raise ValueError(
            f"`{argument}` must be a positive integer. Received: "
            f"{argument}={value!r}"
        )
    return int(value)


def check_fraction(argument, value):
    if isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError(
            f"`{argument}` must be between 0 and 1. Received: "
            f"{argument}={value!r}"
        )
    return value


def check_input_shape(shape):
    """The shape as a tuple of integers, of which the sides may be None.

    Raises:
        ValueError: not (height, width, channels), or channels left open.
    """
    good = isinstance(shape, (list, tuple)) and len(shape) == 3
    if not good or not all(
        side is None or (is_integer(side) and side > 0) for side in shape
    ):
        raise ValueError(
            "`input_shape` must be a tuple (height, width, channels) of "
            f"positive integers. Received: input_shape={shape!r}"
        )
    if shape[-1] is None:
        raise ValueError(
            "`input_shape` must be a tuple (height, width, channels) that "
            f"gives the channels. Received: input_shape={shape!r}"
        )
    return tuple(side if side is None else int(side) for side in shape)

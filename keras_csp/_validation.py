"""Checks of arguments; each returns the value, or names it in a ValueError."""

import numbers


def check_choice(argument, value, choices):
    if value not in choices:
        allowed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(
            f"`{argument}` must be one of {allowed}. Received: "
            f"{argument}={value!r}"
        )
    return value


def check_positive(argument, value):
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < 1:
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

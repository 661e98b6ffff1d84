"""The factories of networks by name: `models` fills it, `weights` reads it."""

import difflib

_FACTORIES = {}


def register_factory(name, factory):
    """Makes `factory` known as `name`."""
    _FACTORIES[name] = factory


def list_models():
    """The names of the factories, sorted."""
    return sorted(_FACTORIES)


def get_factory(name):
    """The factory of this name.

    Raises:
        ValueError: no such factory; the message lists the closest names.
    """
    if name in _FACTORIES:
        return _FACTORIES[name]
    lower = {known.lower(): known for known in _FACTORIES}
    close = difflib.get_close_matches(str(name).lower(), lower, n=3)
    hint = ", ".join(lower[match] for match in close)
    raise ValueError(
        f"There is no network named {name!r}. "
        + (f"Did you mean {hint}? " if hint else "")
        + "keras_csp.list_models() names all of them."
    )

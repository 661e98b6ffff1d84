"""Darknet's .cfg text as sections, with the line of everything.

    [convolutional]
    batch_normalize=1
    filters = 32

As Darknet reads it (src/parser.c, src/option_list.c): white space counts
nowhere, a line that starts with # or ; is a comment, and of a key given twice
in a section the first value holds. Unlike Darknet, which takes what it can of
a damaged value, everything here is understood or refused.
"""

import dataclasses
import math
import re

MAX_BYTES = 4 << 20
MAX_SECTIONS = 10_000

# Under which name a model keeps its text: see `origin_of`.
ORIGIN = "darknet_cfg"

_WHOLE = re.compile(r"[+-]?[0-9]{1,9}")


@dataclasses.dataclass(frozen=True)
class Option:
    """The text after `key =`, without white space, and its line."""

    text: str
    line: int


@dataclasses.dataclass(frozen=True)
class Section:
    """`[kind]` and the options below it; the getters name all three places.

    Args:
        source: what the errors call the file.
        kind: the name in brackets.
        line: of the brackets, from 1.
        options: {key: Option}.
    """

    source: str
    kind: str
    line: int
    options: dict

    def error(self, message, key=None):
        """A ValueError that names file, line and section, to be raised."""
        line = self.options[key].line if key in self.options else self.line
        return ValueError(
            f"{self.source}, line {line}, [{self.kind}]: {message}"
        )

    def text(self, key, default):
        return self.options[key].text if key in self.options else default

    def choice(self, key, default, choices):
        """The text of `key`, one of `choices`."""
        value = self.text(key, default)
        if value not in choices:
            raise self.error(
                f"`{key}` must be one of {', '.join(choices)}. Received: "
                f"{key}={quoted(value)}",
                key,
            )
        return value

    def integer(self, key, default, minimum=None):
        """The integer of `key`, at least `minimum`."""
        values = self.integers(key, default=None)
        value = default if values is None else values[0]
        wanted = "an integer"
        if minimum is not None:
            wanted += f" of at least {minimum}"
        if values is not None and len(values) > 1:
            raise self._wrong(key, wanted)
        if value is None:
            raise self.error(f"`{key}` is missing; it must be {wanted}")
        if minimum is not None and value < minimum:
            raise self._wrong(key, wanted, value)
        return value

    def integers(self, key, default=()):
        """The integers of `key`, separated by commas."""
        wanted = "integers of at most nine digits"
        return self._numbers(key, default, _whole, wanted)

    def number(self, key, default):
        """The finite number of `key`."""
        values = self.numbers(key, default=(default,))
        if len(values) > 1:
            raise self._wrong(key, "one number")
        return values[0]

    def numbers(self, key, default=()):
        """The finite numbers of `key`, separated by commas."""
        return self._numbers(key, default, _finite, "finite numbers")

    def _numbers(self, key, default, convert, wanted):
        if key not in self.options:
            return default
        parts = self.options[key].text.split(",")
        try:
            return tuple(convert(part) for part in parts)
        except ValueError:
            raise self._wrong(key, wanted) from None

    def _wrong(self, key, wanted, value=None):
        received = value if value is not None else self.text(key, None)
        return self.error(
            f"`{key}` must be {wanted}. Received: {key}={quoted(received)}", key
        )


def quoted(value):
    """`value` for a message, cut where it is long."""
    text = str(value)
    return repr(text if len(text) <= 60 else text[:60] + "...")


def _whole(text):
    if not _WHOLE.fullmatch(text):
        raise ValueError
    return int(text)


def _finite(text):
    value = float(text)
    if len(text) > 40 or "_" in text or not math.isfinite(value):
        raise ValueError
    return value


def read_bytes(path):
    """What `parse` takes, of the file at `path`; of a long one the start."""
    with open(path, "rb") as file:
        return file.read(MAX_BYTES + 1)


def parse(data, source="cfg"):
    """Sections of the bytes of a .cfg file, in order, of `read_bytes`.

    Raises:
        ValueError: not UTF-8, too long, a line that is neither section,
            option nor comment, or text before the first section.
    """
    sections = []
    for number, line in enumerate(_lines(data, source), 1):
        if line.startswith("["):
            sections.append(_section(line, number, source))
            if len(sections) > MAX_SECTIONS:
                raise ValueError(
                    f"{source}, line {number}: more than {MAX_SECTIONS} "
                    "sections"
                )
        elif line and line[0] not in "#;":
            _add_option(sections, line, number, source)
    if not sections:
        raise ValueError(
            f"{source} holds no section. A Darknet .cfg starts with [net]"
        )
    return sections


def _lines(data, source):
    """The lines without any white space, as Darknet strips them."""
    if len(data) > MAX_BYTES:
        raise ValueError(
            f"{source} is longer than the {MAX_BYTES} bytes allowed for a "
            ".cfg file"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{source} is not UTF-8 text, so not a .cfg file: byte "
            f"{error.start} is 0x{data[error.start]:02x}"
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ValueError(
            f"{source}, line {line}: a NUL byte, so not a .cfg file"
        )
    return ("".join(line.split()) for line in text.split("\n"))


def _section(line, number, source):
    name = line.split("]")[0][1:]
    rest = line[len(name) + 2 :]
    if "]" not in line or not name or (rest and rest[0] not in "#;"):
        raise ValueError(
            f"{source}, line {number}: a section is [name]. Received: "
            f"{quoted(line)}"
        )
    return Section(source, name, number, {})


def _add_option(sections, line, number, source):
    key, equals, value = line.partition("=")
    if not sections:
        raise ValueError(
            f"{source}, line {number}: text before the first section. A "
            f"Darknet .cfg starts with [net]. Received: {quoted(line)}"
        )
    section = sections[-1]
    value = re.split("[#;]", value)[0]
    if not equals or not key or not value:
        raise ValueError(
            f"{source}, line {number}, [{section.kind}]: an option is "
            f"key=value. Received: {quoted(line)}"
        )
    section.options.setdefault(key, Option(value, number))

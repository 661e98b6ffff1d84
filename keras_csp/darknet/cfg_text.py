"""The text of a cfg with other values: what is not changed stays as it is.

    text = CfgText(data.decode(), "yolov4.cfg")
    text.put(text.sections[0], "width", "416")
    text.render()

Comments, order, white space and options that nobody knows are kept, byte for
byte.
"""

import dataclasses
import re

from keras_csp.darknet.cfg import Section, parse
from keras_csp.darknet.plan import IMAGE, Step

_VALUE = re.compile(r"(\s*)([^#;]*?)(\s*([#;].*)?)", re.DOTALL)


class CfgText:
    """A cfg's text, its `sections`, and the changes so far.

    Args:
        text: of the cfg.
        source: what errors call it.

    Raises:
        ValueError: as `cfg.parse`.
    """

    def __init__(self, text, source="cfg"):
        self.sections = parse(text.encode(), source)
        self._lines = text.split("\n")
        self._ends = [s.line - 1 for s in self.sections[1:]]
        self._ends.append(len(self._lines))
        self._replaced = {}
        self._added = {}

    def put(self, section, key, value):
        """Gives an option a value, where it stands or after the others.

        Of a key given twice the first counts in Darknet, the last in OpenCV:
        both get the value.
        """
        options = self._options(section)
        places = [number for number, name in options if name == key]
        for number in places:
            self._replaced[number] = self._with_value(number, value)
        if not places:
            last = max([number for number, _ in options], default=section.line)
            end = "\r" if self._line(last).endswith("\r") else ""
            self._added.setdefault(last, {})[key] = f"{key}={value}{end}"

    def remove(self, section, key):
        """Takes an option out, its line included."""
        for number, name in self._options(section):
            if name == key:
                self._replaced[number] = None

    def render(self):
        """The text with the changes."""
        lines = []
        for number, line in enumerate(self._lines, 1):
            lines.append(self._replaced.get(number, line))
            lines.extend(self._added.get(number, {}).values())
        return "\n".join(line for line in lines if line is not None)

    def _line(self, number):
        return self._lines[number - 1]

    def _options(self, section):
        """(number of the line, key) of every option of a section."""
        end = self._ends[self.sections.index(section)]
        found = []
        for number in range(section.line + 1, end + 1):
            line = "".join(self._line(number).split())
            if line and line[0] not in "#;":
                found.append((number, line.partition("=")[0]))
        return found

    def _with_value(self, number, value):
        key, equals, rest = self._line(number).partition("=")
        before, _, after, _ = _VALUE.fullmatch(rest).groups()
        return f"{key}{equals}{before}{value}{after}"


def number_text(value):
    """A number as in a cfg, such that reading it gives the same number."""
    value = float(value)
    return str(int(value)) if value.is_integer() else repr(value)


@dataclasses.dataclass(frozen=True)
class Head:
    """A [yolo] of a cfg, and the convolution before it.

    Args:
        step: of the plan.
        yolo: its section.
        convolutions: the sections of the convolution: several where it shares
            its weights.
    """

    step: Step
    yolo: Section
    convolutions: list

    def put_sizes(self, text, classes, anchors=None):
        """Gives the head a number of classes, and of anchors.

        The filters before it follow. `counters_per_class`, which has a number
        for each class, is left out where it no longer does.

        Args:
            text: the `CfgText`, which is changed.
            classes, anchors: their numbers; anchors by default as they are.
        """
        before = self.step.arguments["classes"]
        mask = len(self.step.arguments["anchors"])
        if classes != before:
            text.put(self.yolo, "classes", classes)
            text.remove(self.yolo, "counters_per_class")
        filters = (anchors or mask) * (5 + classes)
        if filters != mask * (5 + before):
            for section in self.convolutions:
                text.put(section, "filters", filters)


def heads_of(text, plan):
    """The `Head`s of a detector, in the order of the cfg.

    Args:
        text: a `CfgText`.
        plan: of its sections.

    Raises:
        ValueError: a [yolo] that reads another layer than a convolution.
    """
    layers = text.sections[1:]
    heads = []
    for step in plan.steps:
        if step.kind != "yolo":
            continue
        owner = _convolution_before(plan, step, layers[step.index])
        sections = [
            layers[other.index]
            for other in plan.steps
            if owner in (other.index, other.arguments.get("shared"))
        ]
        heads.append(Head(step, layers[step.index], sections))
    return heads


def _convolution_before(plan, step, section):
    """Its index; a [route] of one layer and [cost] are passed through."""
    index = step.inputs[0]
    while index != IMAGE and plan.steps[index].passes_on:
        index = plan.steps[index].inputs[0]
    before = None if index == IMAGE else plan.steps[index]
    if before is None or before.kind != "convolutional":
        raise section.error(
            "the layer before must be [convolutional], whose filters are "
            "those of the classes. Received: "
            + (f"[{before.kind}]" if before else "the image")
        )
    return before.arguments.get("shared", index)

"""The pictures: images per second by engine, and time by BFLOPs."""

from harness.networks import NETWORKS
from harness.results import save_picture

from peers_parts.plan import BATCH_1, BATCH_8, TRAINING
from peers_parts.summary import savings

COLOURS = {
    "keras_csp": "#1f6fb4",
    "timm": "#e07b39",
    "keras-hub": "#7a5195",
    "keras.applications": "#8c8c8c",
}
PAPER, OTHER = "#8fbbe0", "black"
COLUMNS = (
    (BATCH_1, "inference, batch 1"),
    (BATCH_8, "inference, batch 8"),
    (TRAINING, "training step, batch 8"),
)


def draw_speeds(summary, path, note):
    """Bars of images/s: a row of panels for each network."""
    from matplotlib.figure import Figure

    shown = [(n, _contenders(summary, n)) for n in NETWORKS]
    shown = [(network, keys) for network, keys in shown if keys]
    if not shown:
        return
    heights = [len(keys) + 1.6 for _network, keys in shown]
    figure = Figure(figsize=(13, 0.24 * sum(heights) + 1.0), dpi=130)
    axes = figure.subplots(
        len(shown),
        len(COLUMNS),
        squeeze=False,
        gridspec_kw={"height_ratios": heights},
    )
    for row, (network, keys) in zip(axes, shown):
        labels = [_label(network, key) for key in keys]
        for axis, (quantity, title) in zip(row, COLUMNS):
            _bars(axis, summary, network, keys, quantity)
            axis.set_title(f"{network.title}: {title}", fontsize=9, loc="left")
        row[0].set_yticks(range(len(keys)), labels, fontsize=8)
    figure.suptitle(f"Images per second, more is better. {note}", fontsize=9)
    figure.tight_layout(rect=(0, 0, 1, 0.995))
    save_picture(figure, path)


def draw_savings(summary, path, published_size, note):
    """Time saved by BFLOPs saved; on the line both fall equally."""
    from matplotlib.figure import Figure

    points = [s for s in savings(summary, published_size) if s.bflops]
    if not points:
        return
    figure = Figure(figsize=(11, 5.6), dpi=130)
    engines = list(dict.fromkeys(s.engine for s in points))
    axes = figure.subplots(
        1, len(engines), squeeze=False, sharex=True, sharey=True
    )
    for axis, engine in zip(axes[0], engines):
        _scatter(axis, [s for s in points if s.engine == engine])
        axis.set_title(engine, fontsize=10)
    axes[0][0].set_ylabel("time saved, %")
    axes[0][0].legend(fontsize=8, loc="lower right")
    figure.suptitle(
        "What CSP saves, percent of the base network; full at the paper's "
        f"size. {note}",
        fontsize=9,
    )
    figure.tight_layout()
    save_picture(figure, path)


def _contenders(summary, network):
    """(framework, engine, model) of a network's panels, in their order."""
    keys = summary.contenders(network.title)
    order = [*COLOURS, *(key[0] for key in keys)]
    return sorted(
        keys, key=lambda key: (order.index(key[0]), key[2] == network.paper)
    )


def _label(network, key):
    """The model's name only where it is not the panel's network."""
    framework, engine, model = key
    if model == network.paper:
        return f"{framework} {engine}, the paper's"
    if model in (network.factory, network.timm):
        return f"{framework} {engine}"
    return f"{framework} {engine}, {model}"


def _bars(axis, summary, network, keys, quantity):
    values = []
    for key in keys:
        row = summary.one(
            section="inference",
            network=network.title,
            **dict(zip(("framework", "engine", "model"), key)),
            quantity=quantity,
        )
        values.append(row.images_per_second if row else 0.0)
    colours = [
        PAPER if key[2] == network.paper else COLOURS.get(key[0], OTHER)
        for key in keys
    ]
    axis.barh(range(len(keys)), values, color=colours)
    axis.set_ylim(len(keys) - 0.4, -0.6)
    axis.set_yticks([])
    axis.set_xticks([])
    largest = max(values) or 1.0
    axis.set_xlim(0, 1.18 * largest)
    for place, value in enumerate(values):
        if value:
            x = value + 0.01 * largest
            axis.text(x, place, _short(value), va="center", fontsize=7.5)
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)


def _short(value):
    """Three digits of it, or all before the point."""
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def _scatter(axis, points):
    pairs = list(dict.fromkeys(point.pair for point in points))
    # The second and the fourth pair save nearly as many BFLOPs: their labels
    # are on different sides.
    sides = ("left", "right", "left", "left")
    for number, (pair, marker, side) in enumerate(zip(pairs, "osD^", sides)):
        own = [point for point in points if point.pair == pair]
        x = [100 * (1 - point.bflops) for point in own]
        y = [100 * (1 - point.time) for point in own]
        colour = f"C{number}"
        axis.scatter(
            x,
            y,
            marker=marker,
            edgecolors=colour,
            facecolors=[colour if p.published else "white" for p in own],
            label=f"{pair.csp} / {pair.base}",
            zorder=3,
        )
        for text, a, b in _sizes(own, x, y):
            axis.annotate(
                text,
                (a, b),
                xytext=(6 if side == "left" else -6, 3),
                textcoords="offset points",
                ha=side,
                fontsize=7,
            )
    axis.axline((0, 0), slope=1, color="grey", linewidth=0.8)
    axis.axhline(0, color="grey", linewidth=0.5)
    axis.margins(x=0.25, y=0.15)
    axis.set_xlabel("BFLOPs saved, % (on the line the time falls as much)")


def _sizes(points, x, y, apart=2.0):
    """(sizes, x, y): one label for points less than `apart` from the next."""
    labels = []
    for b, a, point in sorted(zip(y, x, points), key=lambda each: each[:2]):
        size = point.quantity.removesuffix(" px")
        if labels and b - labels[-1][2] < apart:
            labels[-1][0].append(size)
        else:
            labels.append(([size], a, b))
    return [(f"{', '.join(sizes)} px", a, b) for sizes, a, b in labels]

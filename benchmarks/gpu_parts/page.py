"""The page of results, made from the rows: README.md and two pictures."""

import collections

import ablation_study as networks
from harness.results import (
    draw_curves,
    save_picture,
    table_lines,
    write_page,
)

import keras_csp
from gpu_parts import ablation, jobs
from keras_csp._files import atomic_write
from keras_csp._tables import markdown

FACTORIES = {
    network.title: network.factory
    for network in (*jobs.NETWORKS, *jobs.SMALLEST.networks)
}
TITLE = "# On a GPU: checks, speed, and the ablation where it converges"
SPEED, ABLATION, CURVES = "speed.png", "ablation.png", "ablation_epochs.png"


def write(folder, tables):
    """README.md in `folder`, and a picture of what there are rows of."""
    folder.mkdir(parents=True, exist_ok=True)
    write_page(
        folder / "README.md",
        [
            TITLE,
            "",
            "Made by `python benchmarks/gpu.py page` from the CSV files beside "
            "it; [benchmarks/gpu.md](../../gpu.md) says how they come about.",
            "",
            *_checks(tables),
            *_speed(folder, tables),
            *_ablation(folder, tables),
        ],
    )


def _checks(tables):
    lines = ["## Checks", ""]
    rows = tables.rows("checks")
    if not rows:
        return [*lines, "No device has been checked yet.", ""]
    lines += [
        "Each network's outputs and training steps beside golden numbers of a "
        "CPU, layers and their gradients beside numpy in float64. Differences "
        "are by the largest value.",
        "",
    ]
    counted = collections.Counter(
        (row["device"], row["backend"], row["precision"], row["result"])
        for row in rows
    )
    header = ("device", "backend", "precision", "ok", "failed", "error")
    table = [
        [*key, *(str(counted[*key, result]) for result in header[3:])]
        for key in dict.fromkeys(key[:3] for key in counted)
    ]
    lines += [*markdown([header, *table], right=(3, 4, 5)), ""]
    wrong = [row for row in rows if row["result"] != "ok"]
    columns = (
        "backend",
        "check",
        "precision",
        "jit",
        "result",
        "difference",
        "tolerance",
        "detail",
    )
    if wrong:
        lines += ["Not passed:", "", *table_lines(columns, wrong), ""]
    return lines


def _speed(folder, tables):
    lines = ["## Speed", ""]
    rows = [row for row in tables.rows("speed") if row["images_per_second"]]
    if not rows:
        return [*lines, "No device has been timed yet.", ""]
    bflops = _bflops({(row["network"], int(row["size"])) for row in rows})
    for device in dict.fromkeys(row["device"] for row in rows):
        mine = [row for row in rows if row["device"] == device]
        rates = {
            row["engine"]: float(row["rate"])
            for row in tables.rows("rates")
            if row["device"] == device
        }
        lines += [f"### {device}", "", _rates(rates), ""]
        lines += [*_speed_table(mine, rates, bflops), ""]
        lines += [*_savings(mine, bflops), ""]
        draw_speed(folder / SPEED, mine, device)
        lines += [f"![images per second]({SPEED})", ""]
    failed = [r for r in tables.rows("speed") if not r["images_per_second"]]
    if failed:
        columns = ("engine", "network", "quantity", "batch", "detail")
        lines += ["What did not run:", "", *table_lines(columns, failed), ""]
    return lines


def _bflops(networks_and_sizes):
    """{(title, size): twice the multiply-adds of an image, in 1e9}."""
    found = {}
    for title, size in networks_and_sizes:
        factory = keras_csp.get_factory(FACTORIES[title])
        model = factory(input_shape=(size, size, 3))
        found[title, size] = keras_csp.count(model, "darknet-original").bflops
    return found


def _rates(rates):
    rated = [f"{engine} {rate:.0f}" for engine, rate in rates.items()]
    return "Product of bfloat16 matrices, TFLOP/s: " + ", ".join(rated) + "."


def _operations(quantity):
    """A training step has a gradient by its input and by its kernels, too."""
    return 3 if quantity == "training" else 1


def _speed_table(rows, rates, bflops):
    """A line for each network, quantity, batch and engine."""
    timms = {}
    for row in rows:
        if row["engine"].startswith("timm"):
            key = row["network"], row["quantity"], row["batch"]
            timms.setdefault(key, {})[row["engine"]] = _rate(row)
    header = (
        "network",
        "quantity",
        "batch",
        "engine",
        "images/s",
        "spread",
        "by timm eager",
        "by timm compiled",
        "of the product",
        "MB",
        "compiling, s",
    )
    table = []
    for row in sorted(rows, key=_place):
        key = row["network"], row["quantity"], row["batch"]
        work = bflops[row["network"], int(row["size"])] / 1000
        work *= _operations(row["quantity"])
        rate = rates.get(row["engine"])
        of_timm = [
            f"{_rate(row) / timms[key][engine]:.2f}"
            if engine in timms.get(key, {}) and engine != row["engine"]
            else ""
            for engine in ("timm, eager", "timm, compiled")
        ]
        spread = float(row["fastest"]) / float(row["slowest"]) - 1
        table.append(
            [
                *key,
                row["engine"],
                f"{_rate(row):.0f}",
                f"{100 * spread:.0f} %",
                *of_timm,
                f"{100 * _rate(row) * work / rate:.1f} %" if rate else "",
                row["memory_mb"],
                row["compile_seconds"],
            ]
        )
    return markdown([header, *table], right=range(4, len(header)))


def _rate(row):
    return float(row["images_per_second"])


def _place(row):
    titles, engines = list(FACTORIES), [e.name for e in jobs.ENGINES]
    return (
        row["quantity"],
        -int(row["batch"]),
        titles.index(row["network"]),
        engines.index(row["engine"]),
    )


def _savings(rows, bflops):
    """What CSP saves in time, beside what it saves in operations."""
    rates = {
        (row["engine"], row["quantity"], row["batch"], row["network"]): row
        for row in rows
    }
    table = []
    for base, csp in jobs.PAIRS:
        for key in dict.fromkeys(key[:3] for key in rates):
            pair = [rates.get((*key, title)) for title in (base, csp)]
            if None not in pair:
                time = _rate(pair[0]) / _rate(pair[1]) - 1
                size = int(pair[0]["size"])
                saved = bflops[csp, size] / bflops[base, size] - 1
                percent = [f"{100 * share:+.1f} %" for share in (time, saved)]
                table.append([f"{csp} / {base}", *key, *percent])
    if not table:
        return ["No pair of a CSP network and its base is complete yet."]
    header = ("pair", "engine", "quantity", "batch", "time", "BFLOPs")
    return markdown([header, *table], right=(3, 4, 5))


def draw_speed(path, rows, device):
    """Images per second of every engine, by quantity and batch."""
    from matplotlib.figure import Figure

    panels = sorted({(r["quantity"], int(r["batch"])) for r in rows})
    figure = Figure(figsize=(11, 3.6 * len(panels)), layout="constrained")
    figure.suptitle(device)
    axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    width = 0.8 / len(jobs.ENGINES)
    for axis, (quantity, batch) in zip(axes, panels):
        mine = [
            row
            for row in rows
            if (row["quantity"], int(row["batch"])) == (quantity, batch)
        ]
        titles = [t for t in FACTORIES if t in {r["network"] for r in mine}]
        for number, engine in enumerate(jobs.ENGINES):
            rates = {
                row["network"]: _rate(row)
                for row in mine
                if row["engine"] == engine.name
            }
            places = [i + number * width for i in range(len(titles))]
            axis.bar(
                places,
                [rates.get(title, 0) for title in titles],
                width,
                label=engine.name,
            )
        axis.set(title=f"{quantity}, batch {batch}", ylabel="images/s")
        axis.set_xticks([i + 1.5 * width for i in range(len(titles))], titles)
        axis.tick_params(axis="x", labelrotation=20)
        axis.grid(axis="y", alpha=0.3)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=4, fontsize=8
    )
    save_picture(figure, path, dpi=100)


def _ablation(folder, tables):
    cells = ablation.order()
    rows = tables.rows("ablation")
    lines = [
        "## The ablation",
        "",
        f"Table 1's networks and two pairs on CIFAR-10 (JPEG, enlarged to "
        f"{ablation.SIZE} pixels), {ablation.EPOCHS} epochs of all 50,000 "
        f"images, tested on 10,000. {len(rows)} of {len(cells)} cells are "
        "trained; the most important come first. saved: of the base network's "
        "BFLOPs; gain: points above it; spread: standard deviation over the "
        "seeds. The paper's numbers are ImageNet's.",
        "",
    ]
    if not rows:
        return [*lines, "None is yet.", ""]
    made = networks.results(
        [
            {
                "network": row["network"],
                "accuracy": float(row["accuracy"]),
                "params": int(row["params"]),
                "bflops": float(row["bflops"]),
            }
            for row in rows
        ]
    )
    header = networks.HEADER
    table = networks.table(made)
    lines += [*markdown([header, *table], right=range(1, len(header))), ""]
    recipes = " ".join(dict.fromkeys(f"{row['recipe']}." for row in rows))
    lines += [recipes[0].upper() + recipes[1:], ""]
    columns = ("network", "seed", "device", "backend", "seconds", "cpu_seconds")
    lines += [*table_lines(columns, rows, right=(1, 4, 5)), ""]
    lines += [*_cost_of_the_rest(rows, len(cells) - len(rows)), ""]
    with atomic_write(folder / ABLATION) as part:
        networks.draw(part, made)
    draw_epochs(folder / CURVES, tables.rows("ablation_epochs"))
    lines += [f"![accuracy by BFLOPs]({ABLATION})", ""]
    return [*lines, f"![accuracy by epoch]({CURVES})", ""]


def _cost_of_the_rest(rows, left):
    """A sentence for each device, from the mean of its cells."""
    lines = []
    for device in dict.fromkeys(row["device"] for row in rows):
        mine = [row for row in rows if row["device"] == device]
        mean = sum(float(row["seconds"]) for row in mine) / len(mine)
        lines.append(
            f"A cell took {mean / 60:.1f} minutes on {device}, other work "
            f"beside it included; {left} like it would take "
            f"{left * mean / 3600:.1f} hours."
        )
    return lines


def draw_epochs(path, rows):
    """Accuracy on the test images by epoch, averaged over the seeds."""
    found = collections.defaultdict(lambda: collections.defaultdict(list))
    for row in rows:
        if row["test_accuracy"]:
            accuracy = 100 * float(row["test_accuracy"])
            found[row["network"]][int(row["epoch"])].append(accuracy)
    draw_curves(
        path,
        {
            name: {epoch: sum(a) / len(a) for epoch, a in epochs.items()}
            for name, epochs in found.items()
        },
        (8, 4.5),
        100,
        legend={"fontsize": 8},
        ylabel="top-1 accuracy on the test images, %",
    )

"""What the tests of the ablation share: the paper's numbers, made-up cells."""

import csv

# As printed in Tables 1 and 3: name here, top-1, BFLOPs, and its base.
PAPER = [
    ("PeleeNet", 70.7, 1.017, "PeleeNet"),
    ("CSPPeleeNet_gamma0.75_first", 68.4, 0.649, "PeleeNet"),
    ("CSPPeleeNet_gamma0.5_first", 69.2, 0.755, "PeleeNet"),
    ("CSPPeleeNet_gamma0.25_first", 70.0, 0.861, "PeleeNet"),
    ("CSPPeleeNet_gamma0.75_last", 69.2, 0.716, "PeleeNet"),
    ("CSPPeleeNet_gamma0.5_last", 70.6, 0.804, "PeleeNet"),
    ("CSPPeleeNet_gamma0.25_last", 70.8, 0.902, "PeleeNet"),
    ("CSPPeleeNet_gamma0.75_csp", 70.4, 0.800, "PeleeNet"),
    ("CSPPeleeNet", 70.9, 0.888, "PeleeNet"),
    ("CSPPeleeNet_gamma0.25_csp", 71.5, 0.986, "PeleeNet"),
    ("ResNet10_reduced2", 63.5, 2.273, "ResNet10_reduced2"),
    ("CSPResNet10_reduced2", 65.3, 1.905, "ResNet10_reduced2"),
    ("ResNeXt50_reduced4", 77.8, 10.11, "ResNeXt50_reduced4"),
    ("CSPResNeXt50_reduced4", 77.9, 7.93, "ResNeXt50_reduced4"),
]


def made_up(name, seed, accuracy, bflops=1.0, seconds=60.0):
    return {
        "network": name,
        "seed": seed,
        "accuracy": accuracy,
        "params": 2_345_678,
        "bflops": bflops,
        "seconds": seconds,
    }


def read_table(folder):
    with (folder / "ablation.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))

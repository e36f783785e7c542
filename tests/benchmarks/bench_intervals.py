"""Coverage of 95 % confidence intervals when the objects of a group are correlated.

`python -m tests.benchmarks.bench_intervals [--repeats 400]`; exit code 1 if the coverage of the package's interval is
below 92 % in a row, or below 94 % on average.

Every repeat draws groups of unequal size, of three classes with unequal shares. In each group the probability of a
correct prediction is drawn around that of the class, so that two objects of a group are correlated by
``correlation``. The true value is that of infinitely many groups. For comparison: the Wilson interval of independent
objects, which most reports give, and the percentile interval of the same cluster bootstrap.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from svetlana_jupyter.core.stats.metrics import Proportion, score
from tests.benchmarks.report import print_report

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAMES = {1: "a", 2: "b", 3: "c"}
SHARES = np.array([0.5, 0.3, 0.2])
RECALLS = {"easy": np.array([0.95, 0.9, 0.9]), "hard": np.array([0.8, 0.7, 0.55]), "few errors": np.full(3, 0.98)}
WORST, MEAN = 0.92, 0.94


def draw_repeat(
    groups: int, objects: int, recalls: NDArray[np.float64], correlation: float, rng: np.random.Generator
) -> tuple[Any, Any, Any]:
    """Return truth, predictions and groups of the objects of one repeat; ``objects`` per group on average."""
    sizes = np.maximum(1, rng.poisson(rng.gamma(4, objects / 4, groups)))
    group = np.repeat(np.arange(groups), sizes)
    chances = np.tile(recalls, (groups, 1))
    if correlation:
        chances = rng.beta(recalls * (1 / correlation - 1), (1 - recalls) * (1 / correlation - 1), (groups, 3))
    truth = rng.choice(3, len(group), p=SHARES)
    right = rng.random(len(group)) < chances[group, truth]
    return truth + 1, np.where(right, truth, (truth + rng.integers(1, 3, len(group))) % 3) + 1, group


def percentile_interval(truth: Any, predicted: Any, group: Any, rng: np.random.Generator) -> tuple[float, float]:
    right = np.bincount(group, truth == predicted)
    drawn = rng.multinomial(len(right), np.full(len(right), 1 / len(right)), 2000)
    return tuple(np.percentile((drawn @ right) / (drawn @ np.bincount(group)), [2.5, 97.5]))


def measure_coverage(groups: int, objects: int, kind: str, correlation: float, repeats: int) -> dict[str, Any]:
    """Return one row: the coverage of each interval, and the mean width of the package's interval."""
    rng = np.random.default_rng(0)
    recalls = RECALLS[kind]
    accuracy, balanced = float(SHARES @ recalls), float(recalls.mean())
    held: dict[str, list[bool]] = {name: [] for name in ("naive", "percentiles", "accuracy", "balanced", "recall of c")}
    widths = []
    for _ in range(repeats):
        truth, predicted, group = draw_repeat(groups, objects, recalls, correlation, rng)
        report = score(truth, predicted, NAMES, group)
        naive = Proportion(int((truth == predicted).sum()), len(truth)).interval
        row = report.per_class.loc["c"]
        for name, (low, high), value in (
            ("naive", naive, accuracy),
            ("percentiles", percentile_interval(truth, predicted, group, rng), accuracy),
            ("accuracy", (report.accuracy.low, report.accuracy.high), accuracy),
            ("balanced", (report.balanced_accuracy.low, report.balanced_accuracy.high), balanced),
            ("recall of c", (row["recall_low"], row["recall_high"]), recalls[2]),
        ):
            held[name].append(bool(low <= value <= high))
        widths.append(report.accuracy.high - report.accuracy.low)
    return {
        "groups": groups,
        "objects in each": objects,
        "classes": kind,
        "correlation": correlation,
        **{name: round(float(np.mean(values)), 3) for name, values in held.items()},
        "width of ours": round(float(np.mean(widths)), 3),
        "repeats": repeats,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=400)
    repeats = parser.parse_args().repeats
    rows = [
        measure_coverage(groups, objects, kind, correlation, repeats)
        for groups, objects, kind, correlation in itertools.product((4, 12, 40), (4, 20), RECALLS, (0.0, 0.05, 0.2))
    ]
    print_report("coverage of 95 % confidence intervals", rows)
    ours = np.array([[row[name] for name in ("accuracy", "balanced", "recall of c")] for row in rows])
    print(f"\nours: {ours.mean():.3f} on average, {ours.min():.3f} at worst")
    return 0 if ours.mean() >= MEAN and ours.min() >= WORST else 1


if __name__ == "__main__":
    sys.exit(main())

"""Balanced accuracy per number of labels: live head, forest on measurements, and a network.

`python -m tests.benchmarks.bench_labels [--data FOLDER] [--set NAME ...] [--draws 5] [--networks 0] [--cache FOLDER]`;
exit code 1 if the head is behind the forest by more than two standard errors and 2 points.

"head" is the average of least squares and 60 trees, which a project shows after each label; "forest" has 300 trees on
measurements alone. Labels are drawn uniformly, for "stained cells" from 8 of 24 groups, and all other objects are
scored; numbers of labels that leave fewer than 150 are left out. The network of the preset "default" is trained on the
same labels in the first ``networks`` draws.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.learn.live_head import fit_least_squares, fit_live_forest
from svetlana_jupyter.learn.training import FitResult, fit
from tests.benchmarks.inclusion_set import LABELED_GROUPS
from tests.benchmarks.labeled_sets import CELLS, LabeledSet, balanced_accuracy, set_parts, sets
from tests.benchmarks.report import print_report
from tests.learn.calls import collect_training_data, predict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from svetlana_jupyter.learn.dataset import AnnotatedImage

COUNTS, LEAST_SCORED, SHORTFALL = (10, 20, 45, 100, 200), 150, 0.02


def draw(data: LabeledSet, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of labels of at least two classes, and the rows to score."""
    rng, is_open = np.random.default_rng(seed), np.ones(len(data.codes), bool)
    if data.name == CELLS:
        is_open = data.images < LABELED_GROUPS
    while True:
        rows = np.sort(rng.permutation(np.flatnonzero(is_open))[:count])
        if len(np.unique(data.codes[rows])) > 1:
            break
    scored = ~is_open if data.name == CELLS else ~np.isin(np.arange(len(is_open)), rows)
    return rows, np.flatnonzero(scored)


def scores(data: LabeledSet, rows: np.ndarray, scored: np.ndarray, seed: int) -> dict[str, float]:
    """Return the balanced accuracy of each classifier on features."""
    known, codes = np.unique(data.codes[rows], return_inverse=True)
    x, new = data.features[rows], data.features[scored]
    head, trees = fit_least_squares(x, codes), fit_live_forest(x[:, : data.trees], codes, seed)
    forest = RandomForestClassifier(300, class_weight="balanced", random_state=seed)
    forest.fit(x[:, : data.measurements], codes)
    found = {
        "least squares": head.probabilities(new),
        "head": (head.probabilities(new) + trees.probabilities(new[:, : data.trees])) / 2,
        "forest": forest.predict_proba(new[:, : data.measurements]),
    }
    return {name: balanced_accuracy(p, known, data.codes[scored]) for name, p in found.items()}


def network(
    data: LabeledSet, parts: Sequence[AnnotatedImage], rows: np.ndarray, scored: np.ndarray, seed: int
) -> float:
    """Return the balanced accuracy of a network that is trained on the same labels."""
    starts = np.cumsum([0, *(len(objects) for _, objects, _ in parts)])

    def chosen(some: np.ndarray) -> list[AnnotatedImage]:
        positions = [some[(some >= a) & (some < b)] - a for a, b in itertools.pairwise(starts)]
        return [
            (pair, objects.iloc[own], classes.loc[objects.index[own]])
            for (pair, objects, classes), own in zip(parts, positions)
            if len(own)
        ]

    *_, last = fit(collect_training_data(chosen(rows), TrainingSettings(preset="default", seed=seed)))
    assert isinstance(last, FitResult)
    p, truth = [], []
    for pair, objects, classes in chosen(scored):
        for event in predict(pair, objects, last.classifier):
            p.append(event.probabilities)
            truth.append(classes.loc[event.objects].to_numpy())
    return balanced_accuracy(np.concatenate(p), np.array(last.classifier.classes), np.concatenate(truth))


def measure(
    data: LabeledSet, make: Callable[[], Sequence[AnnotatedImage]], draws: int, networks: int
) -> list[dict[str, Any]]:
    """Return one row per number of labels."""
    rows, parts = [], make() if networks else ()
    for count in COUNTS:
        drawn = [draw(data, count, seed) for seed in range(draws)]
        if len(drawn[0][1]) < LEAST_SCORED:
            continue
        found = [scores(data, *each, seed) for seed, each in enumerate(drawn)]
        difference = np.array([each["head"] - each["forest"] for each in found])
        error = difference.std(ddof=1) / np.sqrt(draws)
        row: dict[str, Any] = {"set": data.name, "labels": count, "draws": draws}
        row |= {name: _spread([each[name] for each in found]) for name in found[0]}
        row["head - forest"] = _spread(difference)
        by_network = [network(parts, *each, seed) for seed, each in enumerate(drawn[:networks])]
        row["network"] = _spread(by_network) if by_network else ""
        row["passes"] = bool(difference.mean() >= -max(SHORTFALL, 2 * error))
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
    return rows


def _spread(values: Sequence[float] | np.ndarray) -> str:
    error = f" ± {100 * np.std(values, ddof=1) / np.sqrt(len(values)):.1f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.1f}{error}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--set", nargs="+")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--networks", type=int, default=0)
    arguments = parser.parse_args()
    made, parts = sets(arguments.data, arguments.cache), set_parts(arguments.data)
    names = arguments.set or list(parts)
    rows = [row for name in names for row in measure(made[name](), parts[name], arguments.draws, arguments.networks)]
    print_report("accuracy per label", rows)
    return 0 if all(row["passes"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

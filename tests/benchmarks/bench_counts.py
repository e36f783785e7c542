"""Coverage of the 95 % intervals of class fractions, by simulation.

`python -m tests.benchmarks.bench_counts [--repeats 1000] [--jobs 2]`; exit code 1 if an interval covers the true
fraction in less than 92 % of the repeats (90 % for single wells), or less than 94 % on average, or in more than 98 % on
average in the rows "condition" and "errors differ".

Each repeat draws a world of Gaussian classes, trains a linear discriminant, draws labels uniformly at random, and
counts other wells, whose class fractions differ from those of the labels. Either the labels train the discriminant, and
are predicted in five folds, or they are a test set. ``overlap`` is the distance of the class means in standard
deviations, ``labels`` their number, ``labeled`` and ``counted`` the fraction of the rare class among the labels and in
the wells. The wells of a condition scatter around its fraction with the correlation ``icc``. The true value is the
fraction of the condition or, for a single well, the probability from which its objects were drawn.

For comparison: the Wilson interval of the counted predictions, which most programs report. A class with fewer than five
labels has no interval; ``given`` is the fraction of repeats with one. In the rows "errors differ", the classifier
recognizes fewer objects of the rare class in the counted condition, where half of the labels were drawn. In the rows
"labels counted" and "total", the labels were drawn from the counted objects; the true value of "total" is the fraction
of these very objects.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.special import softmax

from svetlana_jupyter.core.stats.fractions import CountedObjects, DrawnLabels, FractionEstimator
from svetlana_jupyter.core.stats.metrics import Proportion
from tests.benchmarks.report import print_report

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_FEATURES = 6
N_FOLDS = 5
BELOW = {"condition": 0.92, "errors differ": 0.92, "labels counted": 0.92, "total": 0.92, "one well": 0.90}
MEAN = 0.94, 0.98


class Cell(NamedTuple):
    """Setting of one row of the table."""

    kind: str
    classes: int
    overlap: float
    labels: int
    trains: bool
    labeled: float
    counted: float
    wells: int
    objects: int
    icc: float


def cells() -> list[Cell]:
    """Return the rows of the table."""
    worlds, labels = ((2, 1.5), (2, 3.0), (3, 2.5)), ((45, True), (100, False), (200, True))
    fractions, wells = ((0.2, 0.02), (0.3, 0.1), (0.2, 0.5)), ((6, 100, 0.1), (3, 500, 0.02))
    rows = [
        Cell("condition", *world, *some, *both, *group)
        for i, (world, some, both) in enumerate(itertools.product(worlds, labels, fractions))
        for group in [wells[i % 2]]
    ]
    rows += [
        Cell("one well", *world, *some, *both, 1, n, 0.0)
        for i, (world, some, both) in enumerate(itertools.product(worlds, labels, fractions))
        if i % 3 == 0
        for n in (150,)
    ]
    rows += [
        Cell("errors differ", *world, n, False, *both, *group)
        for world, n, both, group in zip(worlds * 2, (100, 200) * 3, fractions * 2, wells * 3)
    ]
    rows += [
        Cell(kind, *world, n, True, rare, rare, *group)
        for kind, group in (("labels counted", wells[0]), ("labels counted", wells[1]), ("total", wells[1]))
        for (world, n), rare in zip(itertools.product(((2, 0.5), (2, 1.5), (3, 2.5)), (45, 200)), (0.5, 0.1, 0.1) * 2)
    ]
    return rows


class World:
    """Gaussian classes, and a linear discriminant trained on some of their objects."""

    def __init__(self, cell: Cell, rng: np.random.Generator) -> None:
        self.rng, self.k = rng, cell.classes
        means = rng.standard_normal((self.k, N_FEATURES))
        distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(means, 2)]
        self.means = (means - means.mean(axis=0)) * cell.overlap / np.mean(distances)

    def draw(self, truth: NDArray[np.int64], shift: float = 0.0) -> NDArray[np.float64]:
        """Return features; ``shift`` moves the first class towards the others."""
        means = self.means.copy()
        means[0] += shift * (means[1:].mean(axis=0) - means[0])
        noise = self.rng.standard_normal((len(truth), N_FEATURES))
        return means[truth] + noise + 0.3 * self.rng.standard_t(5, (len(truth), 1))

    def train(self, features: NDArray[np.float64], truth: NDArray[np.int64]) -> Any:
        """Return a function that predicts probabilities; the classes count equally."""
        is_class, present = truth == np.arange(self.k)[:, None], np.bincount(truth, minlength=self.k) > 0
        means = is_class @ features / np.maximum(is_class.sum(axis=1), 1)[:, None]
        rest = features - means[truth]
        covariance = rest.T @ rest / max(1, len(rest) - self.k)
        covariance = 0.8 * covariance + 0.2 * np.eye(N_FEATURES) * np.trace(covariance) / N_FEATURES
        weights = np.linalg.solve(covariance, means.T)
        bias = np.where(present, -0.5 * (means * weights.T).sum(axis=1), -8)
        return lambda some: softmax(some @ weights + bias, axis=1)


def fractions_of(rare: float, k: int) -> NDArray[np.float64]:
    return np.array([rare, *[(1 - rare) / (k - 1)] * (k - 1)])


def draw_labels(cell: Cell, world: World, rng: np.random.Generator) -> tuple[DrawnLabels, Any]:
    """Return labels with held-out probabilities, and the trained classifier."""
    truth = rng.choice(cell.classes, cell.labels, p=fractions_of(cell.labeled, cell.classes))
    unit = np.array([f"other {i % 8}" for i in range(cell.labels)])
    return predict_labels(cell, world, rng, truth, unit)


def predict_labels(
    cell: Cell, world: World, rng: np.random.Generator, truth: NDArray[np.int64], unit: NDArray[np.str_]
) -> tuple[DrawnLabels, Any]:
    """Return labels with held-out probabilities, and the trained classifier."""
    if not cell.trains:
        trained = np.repeat(np.arange(cell.classes), 30)
        predict = world.train(world.draw(trained), trained)
        return DrawnLabels(predict(world.draw(truth)), truth, unit), predict
    features, fold = world.draw(truth), rng.permutation(cell.labels) % N_FOLDS
    probability = np.empty((cell.labels, cell.classes))
    for f in range(N_FOLDS):
        probability[fold == f] = world.train(features[fold != f], truth[fold != f])(features[fold == f])
    return DrawnLabels(probability, truth, unit), world.train(features, truth)


def one_repeat(cell: Cell, rng: np.random.Generator) -> tuple[float, float, float, float, float]:
    """Return coverage, coverage of Wilson's interval, width, error, and whether an interval is given."""
    world = World(cell, rng)
    expected, shift = fractions_of(cell.counted, cell.classes), 0.3 if cell.kind == "errors differ" else 0.0
    shares = np.tile(expected, (cell.wells, 1))
    if cell.icc:
        shares = rng.dirichlet(expected * (1 / cell.icc - 1), cell.wells)
    truth = np.concatenate([rng.choice(cell.classes, cell.objects, p=share / share.sum()) for share in shares])
    unit, annotation = np.repeat([f"{i}" for i in range(cell.wells)], cell.objects), np.full(len(truth), -1)
    if cell.kind in ("labels counted", "total"):
        drawn = rng.choice(len(truth), cell.labels, replace=False)
        annotation[drawn] = truth[drawn]
        labels, predict = predict_labels(cell, world, rng, truth[drawn], unit[drawn])
    else:
        labels, predict = draw_labels(cell, world, rng)
    if cell.kind == "total":
        expected = np.bincount(truth, minlength=cell.classes) / len(truth)
    probability = predict(world.draw(truth, shift))
    groups = [CountedObjects(probability, annotation, unit, annotation >= 0)]
    if shift:
        drawn = rng.choice(len(truth), cell.labels, replace=False)
        own = DrawnLabels(predict(world.draw(truth[drawn], shift)), truth[drawn], unit[drawn])
        labels = DrawnLabels(*(np.concatenate(both) for both in zip(labels, own)))
    result = FractionEstimator(labels).estimate(groups)[0]
    low, high = result.low[0], result.high[0]
    naive = Proportion(int((probability.argmax(axis=1) == 0).sum()), len(truth)).interval
    covers, given = low <= expected[0] <= high, not np.isnan(low)
    return covers, naive[0] <= expected[0] <= naive[1], high - low, result.fraction[0] - expected[0], given


def measure_cell(cell: Cell, repeats: int) -> dict[str, Any]:
    """Return one row of the table."""
    rng = np.random.default_rng(0)
    values = np.array([one_repeat(cell, rng) for _ in range(repeats)], float)
    given = values[:, 4] == 1
    covers, naive, width, error = values[given, :4].mean(axis=0).round(3).tolist()
    figures = {"covers": covers, "naive": naive, "width": width, "bias": error, "given": given.mean().round(2)}
    return cell._asdict() | figures | {"repeats": repeats}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    with ProcessPoolExecutor(arguments.jobs) as pool:
        rows = list(pool.map(measure_cell, cells(), itertools.repeat(arguments.repeats)))
    print_report("coverage of 95 % intervals of class fractions", rows)
    failed = False
    for kind, least in BELOW.items():
        values = [row["covers"] for row in rows if row["kind"] == kind]
        mean, worst = float(np.mean(values)), min(values)
        print(f"{kind}: {mean:.3f} on average, {worst:.3f} at worst ({len(values)} cells)")
        failed |= worst < least or not MEAN[0] <= mean <= (MEAN[1] if kind in ("condition", "errors differ") else 1)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

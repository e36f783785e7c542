"""Race of queues: how many labels each needs, on generated and real sets.

`python -m tests.benchmarks.bench_queue [--data FOLDER] [--set NAME ...] [--draws 20] [--query NAME ...]
[--cache FOLDER]`; exit code 1 if the default queue is behind random labels or behind the best other queue by more than
two standard errors.

In each draw, 60 % of the objects can be labeled, and the live classifier, the average of least squares and 60 trees, is
scored on all others; a small set may have fewer than 100 to label. The default queue hands out lists as a project does,
all others batches of 5. "labels" is the number of labels after which the mean of a queue first reaches what random
labels reach at 100. TypiClust, MaxHerding and ProbCover are those of scikit-activeml (``pip install scikit-activeml``).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.cluster import kmeans_plusplus

from svetlana_jupyter.core.queries import QUERIES, Pool
from svetlana_jupyter.learn.live_head import fit_least_squares, fit_live_forest
from svetlana_jupyter.project.queues import LIST_LENGTH, UNIFORM_SHARE
from tests.benchmarks.labeled_sets import LabeledSet, balanced_accuracy, sets
from tests.benchmarks.report import print_report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHOWN, STEPS, STEP = (20, 45, 100), (10, 15, 20, 25, 30, 35, 40, 45, 60, 80, 100), 5
POOL_SHARE = 0.6
DEFAULT = "useful"
RACED = ("stained cells, 5 %", "well, 8 %", "faint foci, 20 %", "overlapping", "bright foci 3D", "five textures")
PEERS = ("TypiClust", "MaxHerding", "ProbCover", "Badge")


class Head(ClassifierMixin, BaseEstimator):
    """The live classifier as a classifier of scikit-learn.

    Parameters
    ----------
    trees : int
        Number of columns that the forest uses.
    """

    def __init__(self, trees: int = 0) -> None:
        self.trees = trees

    def fit(self, features: np.ndarray, codes: np.ndarray) -> Head:
        features = np.asarray(features, np.float32)
        self.classes_, known = np.unique(codes.astype(int), return_inverse=True)
        self.head_ = fit_least_squares(features, known)
        self.forest_ = fit_live_forest(features[:, : self.trees], known)
        return self

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        features = np.asarray(features, np.float32)
        trees = self.forest_.probabilities(features[:, : self.trees])
        return np.asarray((self.head_.probabilities(features) + trees) / 2, float)

    def predict(self, features: np.ndarray) -> np.ndarray:
        return self.classes_[self.predict_proba(features).argmax(axis=1)]


class Race:
    """State of one draw: the objects that can be labeled, and those that are labeled."""

    def __init__(self, data: LabeledSet, rng: np.random.Generator) -> None:
        self.features, self.trees, self.codes, self.rng = data.features, data.trees, data.codes, rng
        self.labeled: list[int] = []

    @property
    def open(self) -> np.ndarray:
        """Positions of the unlabeled objects."""
        return np.setdiff1d(np.arange(len(self.codes)), self.labeled)

    def head(self) -> Head | None:
        """Return the live classifier; None with labels of one class."""
        if len(np.unique(self.codes[self.labeled])) < 2:
            return None
        return Head(trees=self.trees).fit(self.features[self.labeled], self.codes[self.labeled])

    def draw(self, count: int) -> list[int]:
        """Draw unlabeled objects uniformly."""
        return self.rng.permutation(self.open)[:count].tolist()


def by_query(kind: str, batch: int = 1, uniform: bool = False) -> Callable[[Race], list[int]]:
    """Return a queue that hands out lists of ``batch`` objects of a query."""

    def choose(race: Race) -> list[int]:
        drawn = race.draw(round(UNIFORM_SHARE * batch)) if uniform else []
        free = np.setdiff1d(race.open, drawn)
        head = race.head()
        if head is None and "probabilities" in QUERIES[kind].needs:
            return race.draw(1)
        pool = Pool(
            features=race.features[free],
            labeled=race.features[race.labeled],
            probabilities=head and head.predict_proba(race.features[free]).astype(np.float32),
            names=list(map(str, head.classes_)) if head else (),
            **({"regularization": head.head_.regularization} if head else {}),
        )
        return [int(free[pick.position]) for pick in QUERIES[kind].function(pool, batch - len(drawn))] + drawn

    return choose


def by_peer(name: str) -> Callable[[Race], list[int]]:
    """Return a queue of scikit-activeml."""
    from skactiveml import pool

    def choose(race: Race) -> list[int]:
        seed, y = int(race.rng.integers(2**31)), np.full(len(race.codes), np.nan)
        y[race.labeled] = race.codes[race.labeled]
        classes = {"n_classes": len(np.unique(race.codes))} if name == "ProbCover" else {}
        found = getattr(pool, name)(random_state=seed, **classes).query(race.features, y, batch_size=STEP)
        return [int(i) for i in found]

    return choose


def by_badge(race: Race) -> list[int]:
    """Choose objects by k-means++ on the gradients of the last layer (Ash et al. 2020, ICLR)."""
    head, free = race.head(), race.open
    if head is None:
        return race.draw(1)
    p = head.predict_proba(race.features[free])
    errors = p - np.eye(p.shape[1])[p.argmax(axis=1)]
    gradients = (errors[:, :, None] * race.features[free][:, None]).reshape(len(free), -1)
    seed = int(race.rng.integers(2**31))
    return free[kmeans_plusplus(gradients, min(STEP, len(free)), random_state=seed)[1]].tolist()


def queues(names: list[str]) -> dict[str, Callable[[Race], list[int]]]:
    """Return the queues by name."""
    own = {
        "random": lambda race: race.draw(STEP),
        DEFAULT: by_query("useful", LIST_LENGTH, uniform=True),
        **{f"useful, lists of {n}": by_query("useful", n, uniform=True) for n in (4, 8)},
        "useful, none uniform": by_query("useful", LIST_LENGTH),
        "margin": by_query("uncertain", STEP),
        "diverse": by_query("diverse", STEP),
        "unlike": by_query("unlike", STEP),
        "Badge": by_badge,
    }
    return {name: own[name] if name in own else by_peer(name) for name in names}


def curve(data: LabeledSet, choose: Callable[[Race], list[int]], draw: int) -> Iterator[float]:
    """Yield the balanced accuracy at the numbers of labels `STEPS`."""
    rng = np.random.default_rng(draw)
    order = rng.permutation(len(data.codes))
    count = round(POOL_SHARE * len(order))
    scored, race = data.subset(order[count:]), Race(data.subset(order[:count]), rng)
    coming: list[int] = []
    for labels in STEPS:
        while len(race.labeled) < min(labels, count):
            coming = coming or choose(race)
            race.labeled.append(coming.pop(0))
        head, chance = race.head(), 1 / len(np.unique(scored.codes))
        yield balanced_accuracy(head.predict_proba(scored.features), head.classes_, scored.codes) if head else chance


def measure(data: LabeledSet, names: list[str], draws: int) -> list[dict[str, Any]]:
    """Return one row per queue."""
    curves, at = {}, [STEPS.index(n) for n in SHOWN]
    for name, choose in queues(names).items():
        curves[name] = np.array([list(curve(data, choose, draw)) for draw in range(draws)])
        print(f"{data.name}: {name} {curves[name].mean(axis=0)[at].round(3)}", file=sys.stderr, flush=True)
    random = curves["random"]
    rows = []
    for name, values in curves.items():
        reached = np.flatnonzero(values.mean(axis=0) >= random[:, -1].mean() - 1e-9)
        row: dict[str, Any] = {"set": data.name, "queue": name, "draws": draws}
        row |= {f"at {n}": _spread(values[:, i]) for n, i in zip(SHOWN, at)}
        row |= {f"over random at {n}": _spread((values - random)[:, i]) for n, i in zip(SHOWN, at)}
        row["labels"] = STEPS[reached[0]] if len(reached) else f"over {STEPS[-1]}"
        peers = [other for other in curves if not other.startswith(DEFAULT)]
        row["passes"] = name != DEFAULT or all(
            _is_level(values[:, i], curves[other][:, i]) for i in at for other in peers
        )
        rows.append(row)
    return rows


def _is_level(values: np.ndarray, others: np.ndarray) -> bool:
    """Return whether values are not below others by more than two standard errors."""
    difference = values - others
    return bool(difference.mean() >= -2 * difference.std(ddof=1) / np.sqrt(len(difference)) - 1e-9)


def _spread(values: np.ndarray) -> str:
    return f"{100 * values.mean():.1f} ± {100 * values.std(ddof=1) / np.sqrt(len(values)):.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--set", nargs="+")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--query", nargs="+", default=["random", DEFAULT, "margin", *PEERS])
    arguments = parser.parse_args()
    made = sets(arguments.data, arguments.cache)
    real = [name for name in made if name.endswith(("2d", "3d"))]
    names = arguments.set or [*RACED, *real]
    rows = [row for name in names for row in measure(made[name](), arguments.query, arguments.draws)]
    print_report("queues", rows)
    return 0 if all(row["passes"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

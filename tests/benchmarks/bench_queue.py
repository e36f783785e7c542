"""Race of queues: how many labels each needs, on generated and real sets.

`python -m tests.benchmarks.bench_queue [--data FOLDER] [--set NAME ...] [--draws 20] [--query NAME ...]
[--cache FOLDER]`; exit code 1 if the default queue is behind random labels or behind the best other queue by more than
two standard errors.

In each draw, 60 % of the objects can be labeled, and the least-squares head is scored on all others. "labels" is the
median number of labels after which the mean of a queue first reaches what random labels reach at 100. TypiClust,
MaxHerding, ProbCover and Badge are those of scikit-activeml (``pip install scikit-activeml``), with batches of 5.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from svetlana_jupyter.core.queries import QUERIES, Pool
from svetlana_jupyter.learn.live_head import LeastSquaresHead, fit_least_squares
from tests.benchmarks.labeled_sets import LabeledSet, balanced_accuracy, sets
from tests.benchmarks.report import print_report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MOST, SHOWN, STEP = 100, (20, 45, 100), 5
POOL_SHARE = 0.6
DEFAULT = "useful"
UNIFORM_EVERY = 4  # of the default queue, one object of so many is drawn uniformly
RACED = ("stained cells, 5 %", "well, 8 %", "faint foci, 20 %", "overlapping", "bright foci 3D", "five textures")
PEERS = ("TypiClust", "MaxHerding", "ProbCover", "Badge")


class Race:
    """State of one draw: the objects that can be labeled, and those that are labeled."""

    def __init__(self, data: LabeledSet, rng: np.random.Generator) -> None:
        self.features, self.codes, self.rng = data.features, data.codes, rng
        self.labeled: list[int] = []

    @property
    def open(self) -> np.ndarray:
        """Positions of the unlabeled objects."""
        return np.setdiff1d(np.arange(len(self.codes)), self.labeled)

    def head(self) -> tuple[LeastSquaresHead, np.ndarray] | None:
        """Return the head and its classes; None with labels of one class."""
        known, codes = np.unique(self.codes[self.labeled], return_inverse=True)
        return (fit_least_squares(self.features[self.labeled], codes), known) if len(known) > 1 else None

    def draw(self, count: int) -> list[int]:
        """Draw unlabeled objects uniformly."""
        return self.rng.permutation(self.open)[:count].tolist()


def by_query(kind: str, batch: int = 1, uniform: bool = False) -> Callable[[Race], list[int]]:
    """Return a queue that hands out lists of ``batch`` objects of a query."""

    def choose(race: Race) -> list[int]:
        if uniform and batch == 1 and len(race.labeled) % UNIFORM_EVERY == UNIFORM_EVERY - 1:
            return race.draw(1)
        drawn = race.draw(batch // UNIFORM_EVERY) if uniform else []
        free = np.setdiff1d(race.open, drawn)
        fitted = race.head()
        if fitted is None and "probabilities" in QUERIES[kind].needs:
            return race.draw(1)
        pool = Pool(
            features=race.features[free],
            labeled=race.features[race.labeled],
            probabilities=fitted and fitted[0].probabilities(race.features[free]),
            names=list(map(str, fitted[1])) if fitted else (),
            **({"regularization": fitted[0].regularization} if fitted else {}),
        )
        return [int(free[pick.position]) for pick in QUERIES[kind].function(pool, batch - len(drawn))] + drawn

    return choose


def by_peer(name: str) -> Callable[[Race], list[int]]:
    """Return a queue of scikit-activeml."""
    from skactiveml import pool
    from skactiveml.classifier import SklearnClassifier
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Head(ClassifierMixin, BaseEstimator):
        """The least-squares head as a classifier of scikit-learn."""

        def fit(self, features: np.ndarray, codes: np.ndarray) -> Head:
            self.classes_, known = np.unique(codes.astype(int), return_inverse=True)
            self.head_ = fit_least_squares(np.asarray(features, np.float32), known)
            return self

        def predict_proba(self, features: np.ndarray) -> np.ndarray:
            return self.head_.probabilities(np.asarray(features, np.float32)).astype(float)

        def predict(self, features: np.ndarray) -> np.ndarray:
            return self.classes_[self.predict_proba(features).argmax(axis=1)]

    def choose(race: Race) -> list[int]:
        seed, y = int(race.rng.integers(2**31)), np.full(len(race.codes), np.nan)
        y[race.labeled] = race.codes[race.labeled]
        if name == "Badge":
            if race.head() is None:
                return race.draw(1)
            classifier = SklearnClassifier(Head(), classes=np.unique(race.codes[race.labeled]), random_state=seed)
            found = pool.Badge(random_state=seed).query(race.features, y, classifier, batch_size=STEP)
        else:
            classes = {"n_classes": len(np.unique(race.codes))} if name == "ProbCover" else {}
            found = getattr(pool, name)(random_state=seed, **classes).query(race.features, y, batch_size=STEP)
        return [int(i) for i in found]

    return choose


def queues(names: list[str]) -> dict[str, Callable[[Race], list[int]]]:
    """Return the queues by name."""
    own = {
        "random": lambda race: race.draw(1),
        DEFAULT: by_query("useful", uniform=True),
        **{f"useful, lists of {n}": by_query("useful", n, uniform=True) for n in (2, 4, 8)},
        "useful, none uniform": by_query("useful"),
        "margin": by_query("uncertain"),
        "diverse": by_query("diverse"),
        "unlike": by_query("unlike"),
    }
    return {name: own[name] if name in own else by_peer(name) for name in names}


def curve(data: LabeledSet, choose: Callable[[Race], list[int]], draw: int) -> Iterator[float]:
    """Yield the balanced accuracy at 5, 10, … labels."""
    rng = np.random.default_rng(draw)
    order = rng.permutation(len(data.codes))
    count = round(POOL_SHARE * len(order))
    scored, race = data.subset(order[count:]), Race(data.subset(order[:count]), rng)
    for labels in range(STEP, MOST + 1, STEP):
        while len(race.labeled) < labels:
            race.labeled += choose(race)[: labels - len(race.labeled)]
        fitted = race.head()
        classes = len(np.unique(scored.codes))
        yield (
            balanced_accuracy(fitted[0].probabilities(scored.features), fitted[1], scored.codes)
            if fitted
            else (1 / classes)
        )


def measure(data: LabeledSet, names: list[str], draws: int) -> list[dict[str, Any]]:
    """Return one row per queue."""
    curves = {}
    for name, choose in queues(names).items():
        curves[name] = np.array([list(curve(data, choose, draw)) for draw in range(draws)])
        print(f"{data.name}: {name} {curves[name].mean(axis=0)[[3, 8, -1]].round(3)}", file=sys.stderr, flush=True)
    steps, random = np.arange(STEP, MOST + 1, STEP), curves["random"]
    rows = []
    for name, values in curves.items():
        reached = np.flatnonzero(values.mean(axis=0) >= random[:, -1].mean() - 1e-9)
        row: dict[str, Any] = {"set": data.name, "queue": name, "draws": draws}
        row |= {f"at {n}": _spread(values[:, n // STEP - 1]) for n in SHOWN}
        row |= {f"over random at {n}": _spread((values - random)[:, n // STEP - 1]) for n in SHOWN}
        row["labels"] = int(steps[reached[0]]) if len(reached) else f"over {MOST}"
        peers = [other for other in curves if not other.startswith(DEFAULT)]
        row["passes"] = name != DEFAULT or all(
            _is_level(values[:, n // STEP - 1], curves[other][:, n // STEP - 1]) for n in SHOWN for other in peers
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
    parser.add_argument("--query", nargs="+", default=["random", DEFAULT, "useful, lists of 8", "margin", *PEERS])
    arguments = parser.parse_args()
    made = sets(arguments.data, arguments.cache)
    real = [name for name in made if name.endswith(("2d", "3d"))]
    names = arguments.set or [*RACED, *real]
    rows = [row for name in names for row in measure(made[name](), arguments.query, arguments.draws)]
    print_report("queues", rows)
    return 0 if all(row["passes"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Time from a label to new predictions of all objects, to their average with a forest, and to the score.

`python -m tests.benchmarks.bench_live [--objects 10000 100000] [--labels 40] [--features 640]`; exit code 1 beyond a
limit. The features are drawn at random beforehand, as if they had been computed, so that only the loop is timed: label,
log on disk, fit, predictions, counts, class of every pixel on the screen. Labels are given one by one as soon as the
score is there, and then as fast as the loop takes them.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import svetlana_jupyter as sv
from svetlana_jupyter.core.display.overlay import class_styles
from svetlana_jupyter.project.object_features import ObjectFeatures
from tests.benchmarks.report import print_report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from svetlana_jupyter.core.io.image_pair import ImagePair

LIMITS = {10_000: 0.3, 100_000: 1.0, 1_000_000: 5.0}  # seconds, median of the least-squares result
SIMILAR = "100 similar objects"
OTHER_LIMITS = {"average": 1.0, "score": 3.0, SIMILAR: 0.1}
PITCH = 6  # pixels from object to object


@dataclass(frozen=True)
class RandomSource:
    """Features that are known without reading any pixel; two classes overlap in the first ten."""

    width: int
    name: str = "random"
    version: str = "1"
    blocks: tuple[str, ...] = ("random",)

    def fit(self, sample: Sequence[tuple[ImagePair, pd.DataFrame]]) -> dict[str, NDArray[np.float64]]:
        """Return nothing."""
        return {}

    def compute(
        self, pair: ImagePair, objects: pd.DataFrame, fitted: object
    ) -> Iterator[tuple[NDArray[np.int64], Mapping[str, NDArray[np.float32]]]]:
        """Yield random features, the same for the same object."""
        labels = objects.index.to_numpy(np.int64)
        for some in np.array_split(labels, -(-len(labels) // 1000)):
            values = np.random.default_rng(int(some[0])).normal(size=(len(some), self.width)).astype(np.float32)
            values[:, :10] += np.where(some % 2, 0.7, -0.7)[:, None]
            yield some, {"random": values}


def make_project(folder: Path, count: int, width: int) -> sv.Project:
    """Return a project with ``count`` objects of 4 × 4 pixels and their features."""
    side = int(np.ceil(count**0.5))
    mask = np.zeros((side * PITCH, side * PITCH), np.int32)
    numbers = np.arange(1, side * side + 1).reshape(side, side)
    numbers[numbers > count] = 0
    for y in range(1, 5):
        for x in range(1, 5):
            mask[y::PITCH, x::PITCH] = numbers
    project = sv.Project(folder / "live.svetlana", classes=["even", "odd"])
    project.add("plate", (mask > 0).astype(np.uint8), mask, axes="yx")
    ObjectFeatures.sources = lambda self: (RandomSource(width),)  # type: ignore[method-assign]
    for _ in project.features.compute(lambda: False):
        pass
    return project


def draw(project: sv.Project) -> int:
    """Color all objects by their predictions, and return how many there are."""
    predicted = project.probabilities("plate")["predicted"]
    class_styles(project.classes.scheme, lambda labels: project.annotations.labels_of("plate", labels), predicted)
    return len(predicted)


async def wait_for(project: sv.Project, labels: int, reached: Callable[[sv.Project], bool]) -> None:
    """Wait until a result for a number of labels is shown."""
    while True:
        state = project.live_state
        if state is not None and state.labels >= labels and reached(project):
            return
        await asyncio.sleep(0.0005)


def is_scored(project: sv.Project) -> bool:
    """Return whether the result has held-out predictions, after which nothing follows."""
    return project.live.result is not None and project.live.result.held_out is not None


async def time_labels(count: int, labels: int, width: int) -> list[dict[str, Any]]:
    """Return the times for projects with ``count`` objects."""
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder), count, width)
        rng = np.random.default_rng(0)
        order = [int(label) for label in rng.permutation(count)[: 2 * labels + 10] + 1]
        for label in order[:10]:
            project.annotate("plate", label, "odd" if label % 2 else "even", source="random")
        project.live.start()
        await wait_for(project, 10, is_scored)
        times: dict[str, list[float]] = {"least squares": [], "average": [], "score": []}
        for number, label in enumerate(order[10 : 10 + labels], start=11):
            start = time.perf_counter()
            project.annotate("plate", label, "odd" if label % 2 else "even", source="random")
            await wait_for(project, number, lambda project: True)
            assert draw(project) == count
            times["least squares"].append(time.perf_counter() - start)
            await wait_for(project, number, lambda project: project.live_state.stage == "average")
            draw(project)
            times["average"].append(time.perf_counter() - start)
            await wait_for(project, number, is_scored)
            times["score"].append(time.perf_counter() - start)
        start, before = time.perf_counter(), time.process_time()
        for label in order[10 + labels :]:
            project.annotate("plate", label, "odd" if label % 2 else "even", source="random")
            await asyncio.sleep(0.08)  # twelve keys per second
        await wait_for(project, 10 + 2 * labels, lambda project: project.live_state.stage == "average")
        behind = time.perf_counter() - start - 0.08 * labels
        processor = (time.process_time() - before) / (time.perf_counter() - start)
        project.live.stop()
        times[SIMILAR] = []
        for label in order[:20]:
            start = time.perf_counter()
            assert len(project.features.similar("plate", label)) == 100
            times[SIMILAR].append(time.perf_counter() - start)
    rows = [
        {
            "objects": count,
            "features": width,
            "result": name,
            "median s": round(float(np.median(values)), 3),
            "p95 s": round(float(np.quantile(values, 0.95)), 3),
            "limit s": LIMITS.get(count, "") if name == "least squares" else OTHER_LIMITS[name],
        }
        for name, values in times.items()
    ]
    last = {"objects": count, "features": width, "result": "average after 12 labels per second"}
    return [*rows, last | {"median s": round(behind, 3), "p95 s": f"{processor:.2f} processors", "limit s": ""}]


def main() -> int:
    """Print the report; return 1 if a median exceeds its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--labels", type=int, default=30)
    parser.add_argument("--features", type=int, default=640)
    arguments = parser.parse_args()
    rows = []
    for count in arguments.objects:
        rows += asyncio.run(time_labels(count, arguments.labels, arguments.features))
    print_report("bench_live", rows)
    is_slow = [
        row
        for row in rows
        if row["limit s"]
        and row["median s"] > row["limit s"]
        and (row["result"] == "least squares" or row["objects"] <= (100_000 if row["result"] == SIMILAR else 10_000))
    ]
    return int(bool(is_slow))


if __name__ == "__main__":
    sys.exit(main())

"""True totals of each class, and the intervals of `Project.counts`.

`python -m tests.benchmarks.bench_totals [--data FOLDER] [--only NAME ...] [--draws 5] [--threads 2]`; exit code 1 if
fewer than 90 % of the true totals of a set lie in their intervals.

Each draw labels other objects, which are drawn uniformly at random from all images, trains the preset "default",
predicts, and counts all images together. FOLDER contains the real sets of `bench_preset`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch

import svetlana_jupyter as sv
from svetlana_jupyter.samples import Sample, faint_foci, osteoclast_well, stripes
from tests.benchmarks.bench_preset import axes_of
from tests.benchmarks.bench_sets import LABELED_WELLS, OTHER_WELLS, WELL_CELLS, WELL_SIDE
from tests.benchmarks.report import print_report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LABELS, EPOCHS = 100, 8  # at most half of the objects are labeled
REQUIRED = 0.90


class Part(NamedTuple):
    """An image, its mask, the true class names by label, and the axes of the image."""

    name: str
    image: Any
    mask: Any
    classes: pd.Series
    axes: str | None = None


def generated(make: Callable[..., Sample]) -> Callable[[Path], Iterator[Part]]:
    def parts(folder: Path) -> Iterator[Part]:
        sample = make(seed=1, size=1024, count=500, step=42)
        yield Part("set", sample.image, sample.mask, _named(sample.classes, sample.names))

    return parts


def wells(folder: Path) -> Iterator[Part]:
    """Make wells with other stains and other shares of activated cells."""
    for number, (stain, share) in enumerate((*LABELED_WELLS, *OTHER_WELLS)):
        well_folder = folder / f"well_{number}"
        well_folder.mkdir()
        well = osteoclast_well(well_folder, number, WELL_SIDE, WELL_CELLS, share, stain)
        yield Part(well_folder.name, well.image, well.mask, _named(well.classes, well.names))


def _named(classes: Any, names: Any) -> pd.Series:
    return pd.Series([names[number] for number in classes], index=np.arange(1, len(classes) + 1))


def real(data: Path) -> Callable[[Path], Iterator[Part]]:
    """Return the parts of a real set."""

    def parts(folder: Path) -> Iterator[Part]:
        if (data / "mask.tif").exists():
            image = next(file for file in (data / "gfp.tif", data / "dna.tif") if file.exists())
            files = [(data.name, image, data / "mask.tif", data / "classes.csv")]
        else:
            files = [
                (file.stem, file, data / "masks" / f"{file.stem}.tif", data / "classes" / f"{file.stem}.csv")
                for file in sorted((data / "images").iterdir())
            ]
        for name, image, mask, table in files:
            yield Part(name, image, mask, pd.read_csv(table).set_index("label")["class"], axes_of(image).get("axes"))

    return parts


def count(parts: list[Part], draw: int) -> pd.DataFrame:
    """Return the counts after one draw, with the true totals in the column "true"."""
    truth = pd.concat({part.name: part.classes for part in parts})
    with tempfile.TemporaryDirectory() as folder:
        project = sv.Project(Path(folder) / "totals.svetlana", classes=sorted(set(truth)), annotator="bench")
        for part in parts:
            project.add(part.name, part.image, part.mask, axes=part.axes)
        drawn = truth.iloc[np.random.default_rng(draw).permutation(len(truth))[: min(LABELS, len(truth) // 2)]]
        project.annotations.annotate_each(drawn.to_dict(), source="random")
        project.train(preset="default", epochs=EPOCHS, seed=draw)
        project.predict()
        counts = project.counts().set_index("class")
    assert int(counts["total"].iloc[0]) == len(truth)
    return counts.assign(true=truth.value_counts())


def measure(name: str, make: Callable[[Path], Iterator[Part]], draws: int) -> dict[str, Any]:
    """Return one row: how many totals lie in their intervals, and the width of the intervals."""
    with tempfile.TemporaryDirectory() as folder:
        parts = list(make(Path(folder)))
        tables = []
        for draw in range(draws):
            tables.append(count(parts, draw))
            print(name, draw, tables[-1].to_string(), sep="\n", file=sys.stderr, flush=True)
    counts = pd.concat(tables)
    low, high = counts["low"] * counts["total"], counts["high"] * counts["total"]
    given = counts["low"].notna()
    inside = (low.round(6) <= counts["true"]) & (counts["true"] <= high.round(6))
    return {
        "set": name,
        "objects": int(counts["total"].iloc[0]),
        "totals": len(counts),
        "with an interval": int(given.sum()),
        "inside": int(inside.sum()),
        "counted predictions inside": int(((low <= counts["count"]) & (counts["count"] <= high)).sum()),
        "mean error of the estimate": f"{(counts['estimate'] - counts['true']).abs().mean():.1f}",
        "mean error of the count": f"{(counts['count'] - counts['true']).abs().mean():.1f}",
        "mean width": f"{(high - low).mean():.1f}",
        "passes": bool(inside.sum() >= REQUIRED * given.sum()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    sets = {"stripes": generated(stripes), "faint foci": generated(faint_foci), "wells": wells}
    sets |= (
        {folder.name: real(folder) for folder in sorted(chosen.data.iterdir()) if folder.is_dir()}
        if chosen.data
        else {}
    )
    rows = [measure(name, make, chosen.draws) for name, make in sets.items() if name in (chosen.only or sets)]
    print_report("true totals in the intervals of counts", rows)
    return 0 if all(row["passes"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

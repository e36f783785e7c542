"""The tables: one row an object, the counts by image, and what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from svetlana_jupyter.project.exports.measured import known_measurements

if TYPE_CHECKING:
    from svetlana_jupyter.project.exports.place import Place
    from svetlana_jupyter.project.project import Project


def write_csv(place: Place) -> Iterator[Path]:
    """Write ``objects.csv``, ``counts.csv`` and, once something was measured, ``measurements.csv``."""
    for name, table in _tables(place.project):
        with place.writing(f"{name}.csv") as beside:
            table.to_csv(beside, encoding="utf-8")
        yield place.folder / f"{name}.csv"


def write_parquet(place: Place) -> Iterator[Path]:
    """Write the same tables as Parquet."""
    for name, table in _tables(place.project):
        with place.writing(f"{name}.parquet") as beside:
            table.to_parquet(beside)
        yield place.folder / f"{name}.parquet"


def _tables(project: Project) -> Iterator[tuple[str, pd.DataFrame]]:
    yield "objects", project.predictions()
    yield "counts", project.counts(by="image").set_index(["image", "class"])
    measured = {image: known_measurements(project, image) for image in project.images}
    known = [table for table in measured.values() if len(table.columns)]
    if known:
        yield "measurements", pd.concat(measured, names=["image"])

"""Time to show a page of 60 patches of an 8000×8000 Zarr with 10,000 cells, and to sort 100,000 objects.

`python -m tests.benchmarks.bench_gallery [--folder FOLDER]`; exit code 1 beyond the limit. A page is read, colored,
outlined and encoded for the screen; none was displayed before, but the operating system may have cached the file. The
image stays in the folder for the next run.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import svetlana_jupyter as sv
from svetlana_jupyter.core.display import encode
from svetlana_jupyter.core.display.selection import GalleryQuery, Pagination, build_gallery_table, filter_and_sort
from svetlana_jupyter.core.display.thumbnails import THREADS, GridLayout, draw_thumbnail_grid
from svetlana_jupyter.widgets.gallery.thumbnail_loader import ThumbnailCache, default_crop_side
from tests.benchmarks.report import print_report

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT_MS = 400
PAGES = 15
GRID = GridLayout((484, 648), columns=10)


def time_ms(work: Callable[[], object]) -> tuple[float, float]:
    """Return wall time and processor time in milliseconds; the latter depends less on other load."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return 1000 * (time.perf_counter() - clock), 1000 * (time.process_time() - processor)


def open_well(folder: Path) -> sv.Project:
    """Return a project with one well, generated if it does not exist yet."""
    if not (folder / "mask.zarr" / "zarr.json").exists():
        sv.samples.osteoclast_well(folder)
    project = sv.Project(folder / "well.svetlana", classes=["resting", "activated"])
    project.add("well", folder / "image.zarr", folder / "mask.zarr")
    project.objects("well")
    return project


def time_pages(project: sv.Project, order: str, dpr: float) -> list[tuple[float, float]]:
    """Time pages that are not in the thumbnail cache."""
    objects = project.objects("well")
    table = build_gallery_table({"well": objects}, {"well": project.probabilities("well")}, project.labels())
    rows = filter_and_sort(table, GalleryQuery(order=order))  # type: ignore[arg-type]
    cache, pages = ThumbnailCache(project), Pagination(len(rows), GRID.count)

    def draw(number: int) -> None:
        labels = table["object"].to_numpy()[rows[pages.places(number)]]
        shown = [("well", int(label)) for label in labels]
        page = cache.page(shown, default_crop_side(table), round(GRID.side * dpr), "plane")
        page.load()
        encode.jpeg(draw_thumbnail_grid(cache.cached_thumbnails(page), GRID, dpr)[0], 92)

    draw(PAGES)  # the contrast of the image is chosen once
    return [time_ms(lambda number=number: draw(number)) for number in range(PAGES)]  # type: ignore[misc]


def time_sorting(count: int) -> dict[str, tuple[float, float]]:
    """Time building and sorting the table of a gallery of many objects."""
    random = np.random.default_rng(0)
    index = pd.RangeIndex(1, count + 1, name="object")
    places = {axis: random.random(count) * 8000 for axis in "yx"}
    boxes = {f"{axis}{end}": places[axis] + 20 * (end == "1") for axis in "yx" for end in "01"}
    objects = pd.DataFrame({"size": random.integers(50, 500, count), **places, **boxes}, index=index)
    predicted = pd.DataFrame({"predicted": 1, "probability": random.random(count)}, index=index)
    some = pd.MultiIndex.from_product([["well"], range(1, count // 10)], names=["image", "object"])
    labels = pd.DataFrame({"action": "label", "class_id": 1}, index=some)
    tables: list[pd.DataFrame] = []
    gathering = time_ms(lambda: tables.append(build_gallery_table({"well": objects}, {"well": predicted}, labels)))
    sorting = time_ms(lambda: filter_and_sort(tables[0], GalleryQuery(status="unlabeled", order="uncertain")))
    return {"gathered": gathering, "sorted": sorting}


def make_row(what: str, times: list[tuple[float, float]]) -> dict[str, Any]:
    clock, processor = zip(*times, strict=True)
    return {
        "what": what,
        "median ms": round(float(np.median(clock))),
        "p95 ms": round(float(np.percentile(clock, 95))),
        "processor ms": round(float(np.median(processor))),
        "limit ms": LIMIT_MS,
        "threads": THREADS,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where the image is kept; a temporary folder by default")
    folder = parser.parse_args().folder
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        home = folder or Path(temporary)
        home.mkdir(parents=True, exist_ok=True)
        project = open_well(home)
        for order in ("random", "position", "largest"):
            for dpr in (1.0, 2.0):
                what = f"page of {GRID.count} patches, order {order}, {dpr:g} device pixels a pixel"
                rows.append(make_row(what, time_pages(project, order, dpr)))
    rows += [make_row(f"100,000 objects {step}", [times]) for step, times in time_sorting(100_000).items()]
    print_report("gallery", rows)
    slow = [row["what"] for row in rows if row["median ms"] > LIMIT_MS]
    if slow:
        sys.exit(f"more than {LIMIT_MS} ms: {'; '.join(slow)}")


if __name__ == "__main__":
    main()

"""Map of 100,000 objects with 700 stored features: the first map, colors, dragging, and a lasso seen by all views.

`python -m tests.benchmarks.bench_map [--objects N] [--features D]`; exit code 1 beyond a limit. Features are 16-bit
floats in memory-mapped files, as a project stores them, in ten images; the operating system may have cached them. Peers
on the same data: scikit-learn's PCA, and scikit-image's test of each point against the same lasso. "All views" are the
map, the shared selection with a gallery that lists the objects, and the overlay of the displayed image.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from skimage.measure import points_in_poly
from sklearn.decomposition import PCA

import svetlana_jupyter as sv
from svetlana_jupyter.core.display import encode
from svetlana_jupyter.core.display.point_map import PointMap, PointStyles, compose_map
from svetlana_jupyter.core.display.viewport import Viewport
from svetlana_jupyter.core.features.projection import FeatureMap, pca_map
from svetlana_jupyter.widgets.gallery.gallery_panel import GalleryPanel
from svetlana_jupyter.widgets.map_panel import MapPanel
from svetlana_jupyter.widgets.viewer.viewer import Viewer
from tests.benchmarks.report import print_report

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGES, REPEATS = 10, 7
FIRST_MAP_MS, LASSO_MS = 1000, 200  # limits
SIZE = (600, 900)
SIDE, STEP = 1000, 10  # pixels of an image, and between two objects


@dataclass
class StoredRows:
    """Features of an image in a memory-mapped file."""

    rows: np.ndarray

    @property
    def labels(self) -> pd.Index:
        return pd.RangeIndex(1, 1 + len(self.rows))

    @property
    def is_present(self) -> np.ndarray:
        return np.ones(len(self.rows), bool)

    def read(self, positions: np.ndarray) -> np.ndarray:
        return self.rows[positions].astype(np.float32)

    def project(self, weights: np.ndarray, rows: slice) -> np.ndarray:
        return self.rows[rows].astype(np.float32) @ weights


def store_features(folder: Path, count: int, features: int) -> dict[str, StoredRows]:
    """Write features of groups of objects, and open them."""
    random = np.random.default_rng(0)
    centers = random.normal(0, 1.5, (6, features)) * (random.random(features) < 0.1)
    stored = {}
    for number in range(IMAGES):
        size = count // IMAGES
        values = random.normal(size=(size, features)) + centers[random.integers(0, 6, size)]
        file = folder / f"{number}.rows"
        values.astype("<f2").tofile(file)
        stored[f"image {number}"] = StoredRows(np.memmap(file, "<f2", "r", 0, (size, features)))
    return stored


def time_ms(work: Callable[[], object], repeats: int = REPEATS) -> list[tuple[float, float]]:
    """Return wall and processor times in milliseconds."""
    times = []
    for _ in range(repeats):
        clock, processor = time.perf_counter(), time.process_time()
        work()
        times.append((1000 * (time.perf_counter() - clock), 1000 * (time.process_time() - processor)))
    return times


def lasso_around(points: PointMap, share: float, corners: int = 200) -> list[tuple[float, float]]:
    """Return a wavy closed line, as drawn by hand, around the first point; ``share`` is its radius on the map."""
    center, radius = points.points[0].tolist(), share * points.shape[0]
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    reach = radius * (1 + 0.1 * np.sin(9 * angles))
    return [(center[0] + r * np.sin(a), center[1] + r * np.cos(a)) for r, a in zip(reach, angles)]


def draw_first(stored: dict[str, StoredRows], view_of: Callable[[PointMap], Viewport]) -> int:
    """Compute the map, draw it, and encode it for the browser."""
    points = PointMap.from_coordinates(pca_map(stored).coordinates)
    scene = compose_map(points, styles_of(len(points.points)), view_of(points), "#ffffff", selected=np.empty(0, int))
    return len(encode.indexed_png(scene.dots.codes, scene.dots.table))


def styles_of(count: int, key: int = 0) -> PointStyles:
    codes = (1 + (np.arange(count) + key) % 2).astype(np.uint8)
    return PointStyles(key, ("#8c8c8c", "#e69f00", "#56b4e9"), codes, np.arange(0, count, 999), np.zeros(count, bool))


def bench_drawing(stored: dict[str, StoredRows]) -> list[dict[str, Any]]:
    """Time the first map, recoloring and dragging, with peers."""
    fitted = lambda points: Viewport.fitted(points.shape, SIZE)  # noqa: E731
    count = sum(len(image.rows) for image in stored.values())
    rows = [make_row("first map: project, draw, encode", time_ms(lambda: draw_first(stored, fitted)), FIRST_MAP_MS)]

    def peer() -> None:
        PCA(2, random_state=0).fit_transform(
            np.concatenate([image.rows for image in stored.values()], dtype=np.float32)
        )

    rows.append(make_row("peer: scikit-learn's PCA of all objects", time_ms(peer, 2)))
    points = PointMap.from_coordinates(pca_map(stored).coordinates)
    view, styles = fitted(points), styles_of(count)
    nothing = np.empty(0, np.int64)
    scene = compose_map(points, styles, view, "#ffffff", selected=nothing, moving=True)
    keys = iter(range(1, 1000))

    def recolor() -> None:
        new = compose_map(points, styles_of(count, next(keys)), view, "#ffffff", selected=nothing, previous=scene)
        encode.indexed_png(new.dots.codes, new.dots.table)

    rows.append(make_row("new colors, encoded", time_ms(recolor)))
    dragged = [view.panned(step, step) for step in range(1, 6)]
    options: dict[str, Any] = {"selected": nothing, "previous": scene, "moving": True}
    rows.append(make_row("drag by a pixel", time_ms(lambda: compose_map(points, styles, dragged[0], "", **options))))
    candidates, lasso = ~styles.hidden, lasso_around(points, 0.2)
    rows.append(make_row("point under the pointer", time_ms(lambda: points.nearest(400, 500, 9, candidates))))
    rows.append(make_row("objects inside a lasso of 200 corners", time_ms(lambda: points.inside(lasso, candidates))))
    rows.append(
        make_row("peer: points_in_poly of scikit-image", time_ms(lambda: points_in_poly(points.points, lasso), 3))
    )
    different = int(
        (points_in_poly(points.points, lasso) != np.isin(np.arange(count), points.inside(lasso, candidates))).sum()
    )
    print(f"{different} of {count:,} points differ from the peer (on the line itself)")
    return rows


def bench_views(folder: Path, stored: dict[str, StoredRows]) -> dict[str, Any]:
    """Time a lasso on the map until map, gallery and image have drawn the selection."""
    project = sv.Project(folder / "map.svetlana", classes=["one", "two"])
    per_row = SIDE // STEP
    for name, image in stored.items():
        mask = np.zeros((-(-len(image.rows) // per_row) * STEP, SIDE), np.uint32)
        for i in range(len(image.rows)):
            y, x = STEP * (i // per_row) + 2, STEP * (i % per_row) + 2
            mask[y : y + 6, x : x + 6] = i + 1
        project.add(name, (mask > 0).astype(np.uint8), mask, axes="yx")
        project.objects(name)
    project.live.start = lambda: None  # type: ignore[method-assign]
    panel, gallery, viewer = MapPanel(project), GalleryPanel(project), Viewer(project)
    gallery.filter_bar.image.value = ""
    made = pca_map(stored)
    panel.view._show_map(
        FeatureMap({name: project.objects(name).index for name in stored}, made.coordinates, "PCA", 700)
    )
    points, shared = panel.view.points, panel.view.shared
    lasso = lasso_around(points, 0.1)
    numbers: list[int] = []

    def select() -> None:
        panel.view.clear_selection()
        clock, processor = time.perf_counter(), time.process_time()
        panel.view.select_inside(lasso)
        times.append((1000 * (time.perf_counter() - clock), 1000 * (time.process_time() - processor)))
        numbers.append(len(shared.selection))

    times: list[tuple[float, float]] = []
    for _ in range(REPEATS):
        select()
    assert len(gallery.view.listed) == numbers[-1], (len(gallery.view.listed), numbers[-1])
    assert set(viewer.model.selection) == set(shared.labels_in(viewer.model.image))
    return make_row(f"lasso of {numbers[-1]:,} objects, until all views have drawn", times, LASSO_MS)


def make_row(what: str, times: list[tuple[float, float]], limit: int | None = None) -> dict[str, Any]:
    clock, processor = zip(*times, strict=True)
    return {
        "what": what,
        "median ms": round(float(np.median(clock)), 1),
        "worst ms": round(max(clock), 1),
        "processor ms": round(float(np.median(processor)), 1),
        "limit ms": limit or "",
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=700)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        stored = store_features(Path(temporary), options.objects, options.features)
        rows = [*bench_drawing(stored), bench_views(Path(temporary), stored)]
        print_report("map", rows)
    slow = [row["what"] for row in rows if row["limit ms"] and row["median ms"] > row["limit ms"]]
    if slow:
        sys.exit(f"beyond the limit: {'; '.join(slow)}")


if __name__ == "__main__":
    main()

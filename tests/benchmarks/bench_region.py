"""Time of a lasso around 10,000 objects, from mouse release to selection, and from key press to saved labels.

`python -m tests.benchmarks.bench_region [--side 8000] [--across 100] [--repeats 9]`; in the kernel, without a browser:
images are encoded but not sent. The first selection also builds the object table. Processor time is given next to wall
time, since it depends less on other load.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from svetlana_jupyter.project.project import Project
from svetlana_jupyter.widgets.annotation_panel import AnnotationPanel
from tests.benchmarks.bench_objects import make_disks
from tests.benchmarks.report import print_report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHUNK = 512
CORNERS = 400


@contextmanager
def counting_syncs() -> Iterator[list[int]]:
    """Count the syncs to disk within the context."""
    synced, sync = [], os.fsync
    os.fsync = lambda file: (synced.append(file), sync(file))[1]
    try:
        yield synced
    finally:
        os.fsync = sync


def make_project(folder: Path, side: int, across: int) -> Project:
    """Return a project with one image of ``across`` x ``across`` objects, stored as Zarr."""
    mask = make_disks(side, side // across, np.uint32)
    image = np.where(mask, 150, 20).astype(np.uint8) + np.random.default_rng(0).integers(0, 40, mask.shape, np.uint8)
    for name, pixels in (("image", image), ("mask", mask)):
        zarr.create_array(folder / f"{name}.zarr", shape=pixels.shape, chunks=(CHUNK, CHUNK), dtype=pixels.dtype)[
            ...
        ] = pixels
    project = Project(folder / "region.svetlana", classes=["active", "resting"])
    project.add("well", folder / "image.zarr", folder / "mask.zarr", axes="yx")
    return project


def timed(act: Callable[[], object]) -> tuple[float, float]:
    """Return the wall and processor milliseconds of a call."""
    clock, processor = time.perf_counter(), time.process_time()
    act()
    return (time.perf_counter() - clock) * 1000, (time.process_time() - processor) * 1000


def lasso(panel: AnnotationPanel) -> tuple[float, float]:
    """Draw a lasso around the whole image; return the times from the mouse release to the selection."""
    height, width = panel.viewer.model.view.size
    send = panel.viewer.screen.pointer._handle_custom_msg
    angles = np.linspace(0, 2 * math.pi, CORNERS)
    points = [(height / 2 * (1 + 1.5 * math.sin(a)), width / 2 * (1 + 1.5 * math.cos(a))) for a in angles]
    panel.viewer.model.tool = "lasso"
    send({"event": "pressed", "row": points[0][0], "column": points[0][1], "button": 0}, [])
    for row, column in points[1:]:
        send({"event": "moved", "row": row, "column": column}, [])
    return timed(lambda: send({"event": "released", "row": row, "column": column, "time": time.time()}, []))


def measure_lasso(project: Project, repeats: int, dpr: float) -> list[dict[str, Any]]:
    """Select and label all objects, with each class in turn."""
    panel = AnnotationPanel(project)
    viewer = panel.viewer
    viewer.screen.pointer.dpr = dpr
    selecting, labeling, syncs = [], [], set()
    for repeat in range(repeats):
        viewer.selector.clear_selection()
        selecting.append(lasso(panel))
        expected = rgb(list(project.classes)[repeat % 2].color)
        with counting_syncs() as synced:
            labeling.append(
                timed(lambda key=str(repeat % 2 + 1): viewer.screen.handle_key(key, viewer.model.selection_id))
            )
        syncs.add(len(synced))
        overlay = viewer.model.scene.overlay
        shown = overlay.table[np.unique(overlay.codes)]
        assert {tuple(map(int, color[:3])) for color in shown if color[3] == 255} == {expected}
    count = len(viewer.model.selection)
    assert count == len(project.objects("well")) == int(project.annotations.class_counts().sum())
    screen = "{1} x {0}".format(*viewer.model.view.device_size)
    return [
        {
            "what": what,
            "objects": count,
            "screen": screen,
            "median ms": round(statistics.median(clock for clock, _ in times)),
            "processor ms": round(statistics.median(processor for _, processor in times)),
            "first ms": round(times[0][0]),
            "worst ms": round(max(clock for clock, _ in times)),
            "syncs": sync_count,
        }
        for what, times, sync_count in (
            (f"a lasso of {CORNERS} corners: button up to selection drawn", selecting, 0),
            ("a key: recorded on disk and recolored", labeling, ", ".join(map(str, sorted(syncs)))),
        )
    ]


def rgb(color: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(color.removeprefix("#")))


def main() -> None:
    """Time a common and a sharp screen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=8000, help="rows and columns of the image")
    parser.add_argument("--across", type=int, default=100, help="objects in a row and in a column")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for dpr in (1.0, 2.0):
            place = Path(folder) / f"{dpr:g}"
            place.mkdir()
            rows += measure_lasso(make_project(place, options.side, options.across), options.repeats, dpr)
    print_report("lasso around many objects", rows)


if __name__ == "__main__":
    main()

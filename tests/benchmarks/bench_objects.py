"""Speed of building the object table, compared with scipy and scikit-image on the same mask in the same run.

`python -m tests.benchmarks.bench_objects [--side 4096]`; figures are megapixels per second of wall time, and per second
of processor time, which depends less on other load.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import psutil
import zarr
from scipy import ndimage
from skimage.measure import regionprops_table
from xarray import DataArray

from svetlana_jupyter.core.io.images import open_mask
from svetlana_jupyter.core.objects import index_objects, tally_block
from tests.benchmarks.report import print_report

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK = 1024


def make_disks(side: int, cell: int, dtype: type[np.integer]) -> np.ndarray:
    """Return a mask with one disk in each square of ``cell`` pixels, labeled in random order."""
    place, offset = np.divmod(np.arange(side), cell)
    across = place[-1] + 1
    numbers = np.random.default_rng(0).permutation(across**2).astype(dtype) + dtype(1)
    distance = (offset[:, None] - cell / 2) ** 2 + (offset - cell / 2) ** 2
    return np.where(distance < (0.42 * cell) ** 2, numbers[place[:, None] * across + place], dtype(0))


def tally_all(mask: np.ndarray) -> None:
    """Tally block by block on this thread, without reading or merging."""
    for row in range(0, len(mask), BLOCK):
        for column in range(0, len(mask), BLOCK):
            tally_block(mask[row : row + BLOCK, column : column + BLOCK], [row, column], mask.shape)


def with_scipy(mask: np.ndarray) -> None:
    """Compute size, bounding box and centroid with scipy."""
    np.bincount(mask.ravel())
    ndimage.find_objects(mask)
    ndimage.center_of_mass(mask > 0, mask, np.arange(1, mask.max() + 1))


def with_skimage(mask: np.ndarray) -> None:
    """Compute size, bounding box and centroid with scikit-image."""
    regionprops_table(mask, properties=["label", "num_pixels", "centroid", "bbox"])


def time_methods(mask: np.ndarray, folder: Path) -> list[dict[str, Any]]:
    """Time all methods on one mask."""
    path = folder / f"{mask.dtype}.zarr"
    zarr.create_array(path, shape=mask.shape, chunks=(BLOCK, BLOCK), dtype=mask.dtype)[...] = mask
    lazy = DataArray(da.from_array(mask, chunks=BLOCK, name=False), dims=("y", "x"))
    cores = os.cpu_count() or 1
    ways: list[tuple[str, int, Callable[[], object]]] = [
        ("blocks in memory, no merging", 1, lambda: tally_all(mask)),
        ("index_objects, in memory", cores, lambda: index_objects(lazy)),
        ("index_objects, from Zarr", cores, lambda: index_objects(open_mask(path))),
        ("scipy.ndimage", 1, lambda: with_scipy(mask)),
        ("skimage.regionprops_table", 1, lambda: with_skimage(mask)),
    ]
    rows = []
    for way, threads, work in ways:
        clock, processor = time.perf_counter(), time.process_time()
        work()
        clock, processor = time.perf_counter() - clock, time.process_time() - processor
        rows.append(
            {
                "mask": f"{len(mask)}² {mask.dtype}, {int(mask.max())} objects",
                "way": way,
                "threads": threads,
                "Mpx/s": round(mask.size / clock / 1e6, 1),
                "Mpx/s a core": round(mask.size / processor / 1e6, 1),
            }
        )
    return rows


def time_huge_mask(side: int, cell: int, folder: Path) -> dict[str, Any]:
    """Time the object table of a mask larger than the memory limit, read from Zarr, and measure its memory."""
    path, rows = folder / "huge.zarr", side // cell
    mask = zarr.create_array(path, shape=(side, side), chunks=(BLOCK, BLOCK), dtype=np.uint32)
    row = np.tile(make_disks(cell, cell, np.uint32) > 0, rows)
    places = np.arange(rows * cell) // cell
    for top in range(0, rows * cell, BLOCK):
        lines = np.arange(top, min(top + BLOCK, rows * cell))
        numbers = (lines[:, None] // cell * rows + places + 1).astype(np.uint32)
        mask[top : top + len(lines), : rows * cell] = np.where(row[lines % cell], numbers, 0)
    process, peak = psutil.Process(), [0]
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            peak[0] = max(peak[0], process.memory_info().rss)

    before = process.memory_info().rss
    watching = threading.Thread(target=watch)
    watching.start()
    clock = time.perf_counter()
    table = index_objects(open_mask(path))
    clock = time.perf_counter() - clock
    stop.set()
    watching.join()
    return {
        "mask": f"{side}² uint32 from Zarr",
        "objects": len(table),
        "threads": os.cpu_count(),
        "seconds": round(clock, 1),
        "grows by MB": round((peak[0] - before) / 1e6),
    }


def main() -> None:
    """Time small and large cells."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=4096, help="rows and columns of the mask")
    parser.add_argument("--huge", type=int, nargs="*", default=[8000, 40_000], help="sides of masks read from Zarr")
    options = parser.parse_args()
    side = options.side
    with tempfile.TemporaryDirectory() as folder:
        small = time_methods(make_disks(side, 20, np.uint32), Path(folder))
        large = time_methods(make_disks(side, 60, np.uint16), Path(folder))
    print_report("object table", [*small, *large])
    rows = []
    for side in options.huge:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(time_huge_mask(side, 80, Path(folder)))
    if rows:
        print_report("object table of whole files", rows)


if __name__ == "__main__":
    main()

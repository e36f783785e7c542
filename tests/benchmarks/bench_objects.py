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
from unittest.mock import patch

import dask.array as da
import numpy as np
import psutil
import zarr
from scipy import ndimage
from skimage.measure import regionprops_table
from xarray import DataArray

from svetlana_jupyter.core import objects
from svetlana_jupyter.core.io.images import open_mask
from svetlana_jupyter.core.objects import index_objects, tally_block
from svetlana_jupyter.core.pieces import BlockPieces
from tests.benchmarks.report import print_report

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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


def make_balls(shape: tuple[int, int, int], cell: tuple[int, int, int]) -> np.ndarray:
    """Return a uint32 mask with one ellipsoid in each box of ``cell`` voxels, labeled in random order."""
    place, offset = zip(*(np.divmod(np.arange(side), size) for side, size in zip(shape, cell)))
    counts = [int(steps[-1]) + 1 for steps in place]
    numbers = np.random.default_rng(0).permutation(np.prod(counts)).astype(np.uint32).reshape(counts) + np.uint32(1)
    z, y, x = (((steps + 0.5) / size - 0.5) ** 2 for steps, size in zip(offset, cell))
    mask = np.zeros(shape, np.uint32)
    for plane, distance in enumerate(z):
        inside = distance + y[:, None] + x < 0.42**2
        mask[plane] = np.where(inside, numbers[place[0][plane]][np.ix_(place[1], place[2])], 0)
    return mask


def tally_without_pieces(
    pixels: np.ndarray, start: Sequence[int], mask_shape: Sequence[int]
) -> tuple[np.ndarray, BlockPieces]:
    """Return what `tally_block` returns, with a single piece per object and block and none across seams."""
    width, tallies = pixels.shape[-1], []
    lines = pixels.reshape(-1, width)
    for first in range(0, len(lines), step := max(1, objects.SLAB_PIXELS // width)):
        slab = lines[first : first + step]
        edge = np.ones(slab.shape, bool)
        np.not_equal(slab[:, 1:], slab[:, :-1], out=edge[:, 1:])
        begin = np.flatnonzero(edge)
        values, length = slab.reshape(-1)[begin], np.diff(begin, append=slab.size)
        inside = np.flatnonzero(values)
        begin, labels, length = begin[inside] + first * width, values[inside].astype(np.int64), length[inside]
        low = [at + offset for at, offset in zip(np.unravel_index(begin, pixels.shape), start)]
        sums = [*(at * length for at in low[:-1]), low[-1] * length + length * (length - 1) // 2]
        high = [*(at + 1 for at in low[:-1]), low[-1] + length]
        columns = np.stack([labels, length, np.ones_like(labels), *sums, *low, *high])
        tallies.append(objects._reduce(np.take(columns, np.argsort(labels), axis=1)))
    columns = tallies[0] if len(tallies) == 1 else objects._merge(tallies)
    return columns, BlockPieces(columns[2], 0, columns[0, :0], {})


def time_pieces(mask: np.ndarray, chunks: tuple[int, ...], repeats: int = 5) -> dict[str, Any]:
    """Time the object table with and without counting pieces; both take turns, and the fastest of each counts."""
    lazy = DataArray(da.from_array(mask, chunks=chunks, name=False), dims=("z", "y", "x")[-mask.ndim :])
    clocks, processors = dict[str, float](), dict[str, float]()
    for way in ("without", "with") * repeats:
        tally = tally_without_pieces if way == "without" else tally_block
        with patch.object(objects, "tally_block", tally):
            clock, processor = time.perf_counter(), time.process_time()
            table = index_objects(lazy)
            clock, processor = time.perf_counter() - clock, time.process_time() - processor
        clocks[way], processors[way] = (
            min(clock, clocks.get(way, clock)),
            min(processor, processors.get(way, processor)),
        )
    return {
        "mask": f"{' × '.join(map(str, mask.shape))}, {len(table)} objects",
        "chunks": " × ".join(map(str, chunks)),
        "Mpx/s": round(mask.size / clocks["with"] / 1e6, 1),
        "without pieces": round(mask.size / clocks["without"] / 1e6, 1),
        "ratio of wall time": round(clocks["with"] / clocks["without"], 2),
        "of processor time": round(processors["with"] / processors["without"], 2),
    }


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
    rows = [time_pieces(make_disks(side, cell, np.uint32), (BLOCK, BLOCK)) for cell in (20, 60)]
    plane = min(side, BLOCK)
    for cell in ((10, 20, 20), (30, 60, 60)):
        balls = make_balls((64, plane, plane), cell)
        rows += [time_pieces(balls, chunks) for chunks in ((32, 256, 256), (1, plane, plane), (1, 256, 256))]
    print_report("connected pieces in the object table", rows)
    rows = []
    for side in options.huge:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(time_huge_mask(side, 80, Path(folder)))
    if rows:
        print_report("object table of whole files", rows)


if __name__ == "__main__":
    main()

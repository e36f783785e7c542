"""Time and memory of measurements, blob and oriented features, compared with their limits.

`python -m tests.benchmarks.bench_features [--objects 1000] [--threads 1]`; exit code 1 if processor time is above a
limit. The well has three channels, gray cells one; all images are stored as Zarr arrays and read block by block.
Figures are seconds per 1,000 objects; patches are cut within blob and oriented features, too.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from svetlana_jupyter.core.features.compute import measure_objects
from svetlana_jupyter.core.features.object_patches import fit_patches, iter_patches
from svetlana_jupyter.core.features.patch_features import iter_patch_features
from svetlana_jupyter.core.io.image_pair import ImagePair, open_pair
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.settings import MeasureSettings
from svetlana_jupyter.samples import bright_foci_3d, gray_cells, osteoclast_well, tile_sample
from tests.benchmarks.report import print_report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Seconds of processor time per 1,000 objects; measurements use one thread. The reference needs 11-15 for blob features
# of three channels, 7 for oriented features of one, and 35 in 3D.
LIMITS = {
    ("well", "measurements"): 4.0,
    ("well", "blob"): 8.0,
    ("gray cells", "blob"): 4.0,
    ("gray cells", "oriented"): 3.5,
    ("volume", "blob"): 10.0,
}


def make_pairs(folder: Path, count: int) -> Iterator[tuple[str, ImagePair]]:
    """Yield image pairs of about ``count`` objects each."""
    for name in ("well", "gray cells", "volume"):
        (place := folder / name).mkdir()
        if name == "well":
            stored = osteoclast_well(place, size=round((count * 6400) ** 0.5), count=count)
        else:
            sample = gray_cells(0) if name == "gray cells" else bright_foci_3d(0)
            stored = tile_sample(sample, place, 1, -(-count // len(sample.classes)))
        yield name, open_pair(name, stored.image, stored.mask)


def time_features(work: Callable[[], int]) -> dict[str, Any]:
    """Return seconds per 1,000 objects, and how much memory grows at most."""
    process, peak, stop = psutil.Process(), [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.01):
            peak[0] = max(peak[0], process.memory_info().rss)

    before = process.memory_info().rss
    watching = threading.Thread(target=watch)
    watching.start()
    clock, processor = time.perf_counter(), time.process_time()
    count = work()
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    stop.set()
    watching.join()
    return {
        "objects": count,
        "processor s per 1,000": round(1000 * processor / count, 2),
        "wall s per 1,000": round(1000 * clock / count, 2),
        "grows by MB": round((peak[0] - before) / 1e6),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, pair in make_pairs(Path(folder), chosen.objects):
            objects = index_objects(pair.mask)
            fitted = fit_patches([(pair, objects.iloc[:2000])])
            given = pair, objects, fitted
            kinds: dict[str, Callable[[], int]] = {
                "measurements": lambda given=given: sum(map(len, measure_objects(*given[:2], MeasureSettings()))),
                "fit": lambda given=given: fit_patches([given[:2]]) and len(given[1]),
                "patches": lambda given=given: sum(len(batch[0]) for batch in iter_patches(*given)),
                "blob": lambda given=given: sum(
                    len(batch[0]) for batch in iter_patch_features(*given, ["blob"], threads=chosen.threads)
                ),
                "oriented": lambda given=given: sum(
                    len(batch[0]) for batch in iter_patch_features(*given, ["oriented"], threads=chosen.threads)
                ),
            }
            for kind, work in kinds.items():
                if (name, kind) == ("volume", "oriented"):
                    continue
                figures, limit = time_features(work), LIMITS.get((name, kind))
                passes = limit is None or figures["processor s per 1,000"] <= limit
                channels = len(pair.channels)
                rows.append({"image": name, "channels": channels, "what": kind, "threads": chosen.threads, **figures})
                rows[-1] |= {"limit": limit or "", "passes": passes}
    print_report("features of objects", rows)
    return 0 if all(row["passes"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

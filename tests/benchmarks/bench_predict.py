"""Prediction from disk to Parquet relative to the bare network's forward pass on the same patches in memory.

`python -m tests.benchmarks.bench_predict [--cases well stripes foci cluster large] [--rounds 3] [--threads 1 2]
[--folder FOLDER]`; exit code 1 if a figure is missed. In each round the bare network processes patches in memory, in
the same type, batch size and number of threads, and then the whole project predicts, so that other load on the machine
slows down both; the ratio is the median over the rounds. *Bare* is the network as torch builds it, in its fastest
layout; *folded* is the form used for prediction (`learn.networks`). One additional thread cuts patches meanwhile.
Figures per second, and processor time, are those of the best round. Generated images stay in the folder for the next
run.

- well: 8000×8000×3 with 10,000 cells, 64 pixels; stripes: 4000² with 5,000 disks, 44 pixels (set b of
  `samples.generated`); foci: set c tiled to 3,200 nuclei, a field of view of 44³ sampled at 24³.
- cluster: wells and foci on a LocalCluster of two workers with one thread each, compared with one worker.
- discs, large: 8000² with 10,000 disks and 40,000² with 250,000, uint32 masks; an object of the large image may cost
  a fifth more. Not run by default.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import torch
import zarr
from distributed import Client, LocalCluster

from svetlana_jupyter.learn.classifier import NetworkClassifier, load_classifier
from svetlana_jupyter.learn.device import autocast_context
from svetlana_jupyter.learn.inference import default_batch_size
from svetlana_jupyter.learn.networks import MEMORY_FORMATS, fold_network
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.samples import StoredSample, bright_foci_3d, osteoclast_well, stripes, tile_sample
from tests.benchmarks.browsing import load
from tests.benchmarks.report import print_report
from tests.learn.calls import cut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

QUICK = {"preset": "default", "epochs": 1, "steps": 1, "folds": 2, "trees": 1, "depth": 3, "width": 16}
COSTLIER = 1.2
ON_CLUSTERS = ("well", "foci")
READY = {2: 1024, 3: 192}  # patches that the bare network cycles through


@dataclass(frozen=True)
class Case:
    """Set and its required figures."""

    make: Callable[[Path], StoredSample]
    patches: dict[str, Any]
    threads: tuple[int, ...]
    slowest: float  # ratio of time to the bare forward pass
    least: dict[int, float]  # objects per second, by threads
    grows: float = np.inf  # MB


def _tiles_of_discs(folder: Path, tiles: int) -> StoredSample:
    """Return set b as tiles of 800 pixels with 100 disks each, repeated along rows and columns."""
    sample = stripes(seed=2, size=800, count=100, step=54)
    return tile_sample(sample, folder, tiles, tiles)


def _stripes(folder: Path) -> StoredSample:
    """Return set b in chunks of 1000 pixels."""
    sample = stripes(seed=2, size=4000, count=5000, step=54)
    for name, array in (("image", sample.image), ("mask", sample.mask)):
        zarr.create_array(folder / f"{name}.zarr", data=array, chunks=(1000, 1000), dimension_names=("y", "x"))
    return StoredSample(folder / "image.zarr", folder / "mask.zarr", sample.classes, sample.names)


CASES = {
    "well": Case(lambda folder: osteoclast_well(folder), {"size": 64}, (1, 2), 1.25, {2: 1500}),
    "stripes": Case(_stripes, {"size": 44}, (1,), np.inf, {1: 3 * 525}, 200),
    "foci": Case(
        lambda folder: tile_sample(bright_foci_3d(seed=3, shape=(128, 256, 256), count=400), folder, 2, 4),
        {"size": 44, "sampling": 24},
        (1,),
        1.25,
        {1: 2 * 78},
    ),
    "discs": Case(lambda folder: _tiles_of_discs(folder, 10), {"size": 44}, (1,), np.inf, {}),
    "large": Case(lambda folder: _tiles_of_discs(folder, 50), {"size": 44}, (1,), np.inf, {}, 1000),
}


def make_project(name: str, folder: Path) -> Project:
    """Return a project with one image and a barely trained network, new or from an earlier run."""
    case, place = CASES[name], folder / name
    project_folder = place / "set.svetlana"
    if not project_folder.exists():
        place.mkdir(parents=True, exist_ok=True)
        sample = case.make(place)
        project = Project(project_folder, classes=sample.names, annotator="benchmark")
        project.add("set", sample.image, sample.mask)
        labels = project.objects("set").index[:40]
        for label in labels:
            project.annotate("set", int(label), sample.names[int(sample.classes[label - 1])])
        project.train(**QUICK, patches=case.patches)
    return Project(project_folder, annotator="benchmark")


@contextmanager
def measure_resources() -> Iterator[dict[str, float]]:
    """Measure wall and processor seconds, and the growth of this process in MB."""
    gc.collect()
    process, result = psutil.Process(), {"grows": 0.0}
    stop, before = threading.Event(), process.memory_info().rss

    def watch() -> None:
        while not stop.wait(0.01):
            result["grows"] = max(result["grows"], (process.memory_info().rss - before) / 1e6)

    watching = threading.Thread(target=watch)
    watching.start()
    wall, worked = time.perf_counter(), time.process_time()
    try:
        yield result
    finally:
        result |= {"wall": time.perf_counter() - wall, "worked": time.process_time() - worked}
        stop.set()
        watching.join()


def bare_pass(project: Project, threads: int) -> Callable[[], dict[str, float]]:
    """Return a function that applies both forms of the network to patches in memory and returns seconds per object."""
    classifier, pair = load_classifier(project.runs.current.path), project.pair("set")
    assert isinstance(classifier, NetworkClassifier)
    objects, batch = project.objects("set").iloc[: READY[pair.ndim]], default_batch_size(classifier)
    inputs = np.concatenate([inputs for _, inputs in cut(classifier, pair, objects)])
    plain = [torch.from_numpy(inputs[start : start + batch]) for start in range(0, len(inputs), batch)]
    dtype = getattr(torch, classifier.precision)
    folded = fold_network(classifier.module, classifier.device, dtype)
    forms = {
        "bare": (classifier.module, [patches.to(memory_format=MEMORY_FORMATS[pair.ndim]) for patches in plain]),
        "folded": (folded, plain),
    }

    @torch.inference_mode()
    def run() -> dict[str, float]:
        torch.set_num_threads(threads)
        result = {}
        for name, (network, ready) in forms.items():
            with autocast_context(classifier.device, dtype if name == "bare" else torch.float32):
                network(ready[0])
                wall, worked, count = time.perf_counter(), time.process_time(), 0
                while count < 2 * len(inputs):
                    for patches in ready:
                        network(patches)
                        count += len(patches)
            result |= {
                f"{name} wall": (time.perf_counter() - wall) / count,
                f"{name} worked": (time.process_time() - worked) / count,
            }
        return result

    return run


def measure_case(name: str, folder: Path, threads: int, rounds: int) -> dict[str, Any]:
    """Predict a set with the project and with the bare network."""
    case, project = CASES[name], make_project(name, folder)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    count, bare = len(project.objects("set")), bare_pass(project, threads)
    project.objects("set")
    results = []
    for _ in range(rounds):
        alone = bare()
        with measure_resources() as ours:
            project.predict(resume=False, client="local")
        results.append(alone | ours)
    ratio, folded, worked = (
        float(np.median([result[key] / count / result[f"{form} {key}"] for result in results]))
        for form, key in (("bare", "wall"), ("folded", "wall"), ("bare", "worked"))
    )
    rate = count / min(result["wall"] for result in results)
    grows = max(result["grows"] for result in results)
    return {
        "set": name,
        "objects": count,
        "torch threads": threads,
        "objects per second": round(rate),
        "bare, per second": round(1 / min(result["bare wall"] for result in results)),
        "time ÷ bare (wall)": round(ratio, 2),
        "time ÷ folded (wall)": round(folded, 2),
        "time ÷ bare (processor)": round(worked, 2),
        "µs per object (processor)": round(1e6 * min(result["worked"] for result in results) / count),
        "grows by MB": round(grows),
        "cost ÷ 8000²": "–",
        "load": round(load(), 1),
        "passes": bool(ratio <= case.slowest and rate >= case.least.get(threads, 0) and grows <= case.grows),
    }


def compare_costs(rows: dict[str, dict[str, Any]]) -> None:
    """Compare the cost per object of the large image with that of the image of 8000²."""
    if {"discs", "large"} <= set(rows):
        ratio = rows["discs"]["objects per second"] / rows["large"]["objects per second"]
        rows["large"]["cost ÷ 8000²"] = round(ratio, 2)
        rows["large"]["passes"] &= ratio <= COSTLIER


def on_clusters(name: str, folder: Path) -> dict[str, Any]:
    """Predict a set on one worker and on two."""
    project, seconds = make_project(name, folder), {}
    for workers in (1, 2, 1, 2):
        with (
            LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            project.predict(resume=False, client=client)  # imports torch on the workers
            began = time.perf_counter()
            project.predict(resume=False, client=client)
            seconds[workers] = min(seconds.get(workers, np.inf), time.perf_counter() - began)
    faster = seconds[1] / seconds[2]
    return {
        "set": name,
        "one worker (s)": round(seconds[1], 2),
        "two workers (s)": round(seconds[2], 2),
        "times faster": round(faster, 2),
        "load": round(load(), 1),
        "passes": bool(faster >= 1.5),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cases", nargs="+", choices=[*CASES, "cluster"], default=["well", "stripes", "foci", "cluster"]
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", help="torch threads, instead of those of the figures")
    parser.add_argument("--folder", type=Path, help="where generated sets stay")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        rows = [
            measure_case(name, folder, threads, options.rounds)
            for name in options.cases
            if name != "cluster"
            for threads in options.threads or CASES[name].threads
        ]
        compare_costs({row["set"]: row for row in rows})
        clusters = [on_clusters(name, folder) for name in ON_CLUSTERS] if "cluster" in options.cases else []
    for title, table in (("prediction", rows), ("prediction on a cluster", clusters)):
        if table:
            print_report(title, table)
    return 0 if all(row["passes"] for row in [*rows, *clusters]) else 1


if __name__ == "__main__":
    sys.exit(main())

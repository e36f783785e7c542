"""Training speed relative to the bare network's forward and backward pass on batches in memory.

`python -m tests.benchmarks.bench_augment [--labels 5400] [--threads 1 2] [--ndim 2] [--cases NAME ...]`; exit code 1 if
a ratio is below 0.8.

The set consists of gray disks; a field of view of 96 pixels is sampled at 48 (3D: 48 at 24). One epoch with flips and
rotations is timed: sampling, augmentation, transfer, forward, backward and optimizer. After each step the same network,
in the same layout, type and batch size, runs forward and backward on a batch in memory, so that other load on the
machine slows down both. Ratios are bare time / training time: of processor time over the whole epoch, and of the median
wall time of 16 steps (patches are augmented for several steps at once). Other load can only lower either, so the better
one counts. The setting of the paper is flips and rotations only; the default adds intensity augmentation and noise, and
its network is lighter.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from svetlana_jupyter.core.io.image_pair import open_pair
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.learn.build import build_network
from svetlana_jupyter.learn.device import autocast_context, choose_device, compute_dtype, seeded_computation
from svetlana_jupyter.learn.networks import MEMORY_FORMATS
from svetlana_jupyter.learn.training import Epoch, fit
from tests.benchmarks.report import print_report
from tests.learn.calls import collect_training_data

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from svetlana_jupyter.learn.dataset import AnnotatedImage, TrainingData

LEAST = 0.8
CELL = {2: 40, 3: 20}
FIELD = {2: (96, 48), 3: (48, 24)}
TOGETHER = 16  # steps whose wall time is taken together
READY = 8  # batches that the bare network cycles through
CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "default, any angle": {"augmentation": {"rotation": "free"}},
    "paper, right angles": {"preset": "paper", "augmentation": {"rotation": "right_angles"}},
    "paper, any angle": {"preset": "paper", "augmentation": {"rotation": "free"}},
}


def make_disks(count: int, ndim: int) -> AnnotatedImage:
    """Return a lattice of bright and dark disks or balls."""
    rng, cell = np.random.default_rng(0), CELL[ndim]
    sides = [int(np.ceil(count ** (1 / ndim)))] * ndim
    ball = (sum((axis - cell // 2) ** 2 for axis in np.ogrid[(slice(cell),) * ndim]) <= (cell // 3) ** 2).astype(
        np.uint16
    )
    numbers = np.arange(1, np.prod(sides) + 1, dtype=np.uint16).reshape(sides)
    mask = np.kron(numbers, ball) * (np.kron(numbers, np.ones_like(ball)) <= count)
    classes = np.r_[0, rng.permutation(count) % 2 + 1]
    image = rng.normal(100, 10, mask.shape).astype(np.float32) + 40 * classes[mask].astype(np.float32)
    pair = open_pair("discs", image, mask, axes="zyx"[-ndim:])
    return pair, index_objects(pair.mask), pd.Series(classes[1:], index=np.arange(1, count + 1))


def time_bare_steps(samples: TrainingData) -> Iterator[tuple[float, float]]:
    """Yield wall and processor seconds of forward and backward passes on batches in memory, on the training device."""
    settings, ndim, sampling = samples.settings, samples.ndim, samples.settings.patches.sampling
    assert isinstance(sampling, tuple)
    device = choose_device(settings.device, ndim)
    dtype, channels = compute_dtype(settings.precision, device), samples.inputs.shape[1]
    network = build_network(settings, ndim, channels, len(samples.classes)).train().to(device)
    shape = (settings.batch_size, channels, *sampling)
    batches = [torch.randn(shape).to(device, memory_format=MEMORY_FORMATS[ndim]) for _ in range(READY)]
    truth = (torch.arange(settings.batch_size) % len(samples.classes)).to(device)
    for batch in itertools.cycle(batches):
        began, worked = time.perf_counter(), time.process_time()
        network.zero_grad(set_to_none=True)
        with seeded_computation(device, None):
            with autocast_context(device, dtype):
                logits = network(batch)
            loss = functional.cross_entropy(logits, truth)
            loss.backward()  # type: ignore[no-untyped-call]
        if device.type != "cpu":
            torch.accelerator.synchronize()
        yield time.perf_counter() - began, time.process_time() - worked


def time_training_steps(samples: TrainingData) -> Iterator[tuple[float, float]]:
    """Yield wall and processor seconds of each training step of one epoch; the last includes the end of the epoch."""
    events = fit(samples)
    next(events)  # the first step also builds the network and analyzes the patches
    while True:
        began, worked = time.perf_counter(), time.process_time()
        event = next(events)
        if isinstance(event, Epoch):
            event = next(events)  # two epochs, since the last also prepares saving
            events.close()
        yield time.perf_counter() - began, time.process_time() - worked
        if event.epoch == 2:
            return


def measure_ratios(part: AnnotatedImage, name: str, threads: int, device: str = "cpu") -> dict[str, Any]:
    """Return one row: both ratios of one case."""
    settings = TrainingSettings(**CASES[name])
    field, pixels = FIELD[part[0].ndim]
    settings = settings.changed(
        patches={"size": field, "sampling": pixels}, epochs=2, steps=None, held_out=0.0, threads=threads, device=device
    )
    samples = collect_training_data([part], settings)
    torch.set_num_threads(threads)
    bare, ours = [], []
    ready = time_bare_steps(samples)
    for _ in range(5):
        next(ready)
    for ours_took, bare_took in zip(time_training_steps(samples), ready, strict=False):
        ours.append(ours_took)
        bare.append(bare_took)
    bare_wall, our_wall = (np.median(_summed(steps)) for steps in (bare, ours))
    worked = np.sum(bare, axis=0)[1] / np.sum(ours, axis=0)[1]
    return {
        "setting": name,
        "ndim": part[0].ndim,
        "threads": threads,
        "labels": len(samples),
        "batch": settings.batch_size,
        "steps": len(ours),
        "patches per second": round(TOGETHER * settings.batch_size / float(our_wall)),
        "bare step (ms, processor)": round(1e3 * float(np.mean(bare, axis=0)[1]), 2),
        "our step (ms, processor)": round(1e3 * float(np.mean(ours, axis=0)[1]), 2),
        "ratio (processor)": round(float(worked), 3),
        "ratio (wall)": round(float(bare_wall / our_wall), 3),
        "passes": bool(max(worked, bare_wall / our_wall) >= LEAST),
    }


def _summed(steps: list[tuple[float, float]]) -> NDArray[np.float64]:
    """Return the wall time of each group of `TOGETHER` steps."""
    walls: NDArray[np.float64] = np.array(steps)[: len(steps) // TOGETHER * TOGETHER, 0]
    return walls.reshape(-1, TOGETHER).sum(axis=1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, default=5400)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--ndim", type=int, choices=[2, 3], default=2)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    arguments = parser.parse_args()
    part = make_disks(arguments.labels, arguments.ndim)
    rows = [measure_ratios(part, name, threads) for threads in arguments.threads for name in arguments.cases]
    print_report("training relative to the bare network", rows)
    return 0 if all(row["passes"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Out-of-distribution warnings of images: detection on wells of osteoclast-like cells, and cost of the test.

`python -m tests.benchmarks.bench_unlike [--wells 6] [--labels 20] [--new 8] [--size 1000]`; exit code 1 if a well of
the same kind is reported, or one of another stain, blurred, noisier or magnified is not.

A number of labels is taken from each of several wells. New wells are of the same kind, contain more activated cells,
are darker (which normalization compensates), or differ in a way that the classifier sees. The cost is the processor
time of the test relative to that of the default network, on the same patches.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
import zarr
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from svetlana_jupyter.core.io.image_pair import ImagePair, open_pair
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.patches import cut_patches
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.core.stats.outliers import flag_unfamiliar_images
from svetlana_jupyter.learn.novelty import ReferenceDistribution, fit_reference
from svetlana_jupyter.learn.training import fit
from svetlana_jupyter.samples import osteoclast_well
from tests.benchmarks.report import print_report
from tests.learn.calls import collect_training_data

if TYPE_CHECKING:
    from svetlana_jupyter.learn.dataset import AnnotatedImage

SETTINGS = TrainingSettings(epochs=1, steps=1, threads=1, patches={"size": 96, "sampling": 32})
Change = Callable[[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]


def map_channels(change: Callable[[NDArray[Any]], NDArray[Any]]) -> Change:
    return lambda image, mask: (np.stack([change(channel) for channel in image]), mask)


def add_noise(channel: NDArray[Any]) -> NDArray[Any]:
    noise = np.random.default_rng(0).normal(0, 15, channel.shape)
    return np.clip(channel + noise, 0, 255).astype(np.uint8)


# Name of the difference: options of the wells, change of their pixels, and whether a warning is expected.
KINDS: dict[str, tuple[dict[str, Any], Change | None, bool]] = {
    "same kind": ({}, None, False),
    "40 % activated": ({"activated": 0.4}, None, False),
    "darker": ({}, map_channels(lambda channel: (channel * 0.6).astype(np.uint8)), False),
    "other stain": ({"stain": (1.4, 1.0, 0.7)}, None, True),
    "blurred": ({}, map_channels(lambda channel: gaussian_filter(channel, 1.5)), True),
    "noisier": ({}, map_channels(add_noise), True),
    "magnified": ({}, lambda i, m: (np.stack([zoom(c, 1.5, order=1) for c in i]), zoom(m, 1.5, order=0)), True),
}


def make_well(seed: int, size: int, change: Change | None = None, **options: Any) -> AnnotatedImage:
    with tempfile.TemporaryDirectory() as folder:
        sample = osteoclast_well(Path(folder), seed=seed, size=size, count=size * size // 7500, **options)
        image, mask = zarr.open_array(sample.image)[:], zarr.open_array(sample.mask)[:]
    if change is not None:
        image, mask = change(image, mask)
    pair = open_pair(f"well {seed}", image, mask, axes="cyx")
    objects = index_objects(pair.mask)
    return pair, objects, pd.Series(sample.classes[objects.index.to_numpy() - 1], objects.index)


def draw_labels(part: AnnotatedImage, count: int, seed: int) -> AnnotatedImage:
    """Return labels of one third activated and two thirds resting cells, a typical balance."""
    pair, objects, classes = part
    rng = np.random.default_rng(seed)
    rare = classes.index[classes == classes.max()].to_numpy()
    resting = classes.index.difference(rare).to_numpy()
    activated = rng.permutation(rare)[: count // 3]
    chosen = [*activated, *rng.permutation(resting)[: count - len(activated)]]
    return pair, objects, classes.loc[chosen]


def flagged_share(
    reference: ReferenceDistribution, pair: ImagePair, objects: pd.DataFrame, settings: TrainingSettings
) -> tuple[float, int]:
    pieces = [reference.novelty(patches, True) for _, patches in cut_patches(pair, objects, settings.patches)]
    novelty = np.concatenate(pieces)
    return float((novelty > 1).mean()), len(novelty)


def measure_cost(
    reference: ReferenceDistribution, parts: list[AnnotatedImage], settings: TrainingSettings
) -> dict[str, float]:
    """Return milliseconds of processor time per object, of the network and of the test."""
    *_, fitted = fit(collect_training_data(parts, SETTINGS))
    inputs = next(cut_patches(parts[0][0], parts[0][1], settings.patches))[1][:64]
    costs = {}
    for name, act in (
        ("network", fitted.classifier.classify),
        ("test", lambda patches: reference.novelty(patches, True)),
    ):
        act(inputs)
        began = time.process_time()
        for _ in range(10):
            act(inputs)
        costs[name] = (time.process_time() - began) / 10 / len(inputs) * 1000
    return costs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("--wells", 6), ("--labels", 20), ("--new", 8), ("--size", 1000)):
        parser.add_argument(name, type=int, default=default)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    parts = [draw_labels(make_well(seed, arguments.size), arguments.labels, seed) for seed in range(arguments.wells)]
    samples = collect_training_data(parts, SETTINGS)
    reference = fit_reference(samples)
    assert reference is not None
    rows, right = [], []
    for number, (kind, (options, change, expected)) in enumerate(KINDS.items(), start=1):
        results = []
        for seed in range(arguments.new):
            image, objects, _ = make_well(100 * number + seed, arguments.size, change, **options)
            results.append((f"{kind} {seed}", *flagged_share(reference, image, objects, samples.settings)[::-1]))
        table = pd.DataFrame(results, columns=["image", "asked", "unlike"]).set_index("image")
        table = flag_unfamiliar_images(table, {}, reference.left_out)
        right.append(bool((table["warn"] == expected).all()))
        low, high = table["unlike"].min(), table["unlike"].max()
        rows.append(
            {
                "wells": kind,
                "flagged": f"{int(table['warn'].sum())} of {len(table)}",
                "expected": len(table) if expected else 0,
                "flagged objects": f"{low:.0%} to {high:.0%}",
                "p": f"{table['p'].min():.2g} to {table['p'].max():.2g}",
            }
        )
    print_report("out-of-distribution images", rows)
    costs = measure_cost(reference, parts, samples.settings)
    print(f"\nprocessor time per object: network {costs['network']:.2f} ms, test {costs['test']:.2f} ms")
    return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(main())

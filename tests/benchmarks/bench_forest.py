"""Balanced accuracy of the forest on objects it was not trained on, for generated and real sets.

`python -m tests.benchmarks.bench_forest [--data FOLDER] [--set NAME ...] [--draws 5] [--groups shape texture ...]
[--may-use brightness ...]`

Every object of a set is measured once; then labels are drawn, and a forest is trained on them and scored on all others.
Generated sets are those of `samples`, with as many labels as other tools were given. FOLDER adds the real sets of
`bench_preset`.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from svetlana_jupyter.core.features.catalog import CUES, GROUPS
from svetlana_jupyter.core.io.image_pair import open_pair
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.settings import MeasureSettings, TrainingSettings
from svetlana_jupyter.learn.forest import fit_forest
from svetlana_jupyter.samples import (
    Sample,
    bright_foci_3d,
    draw_labels,
    faint_foci,
    gray_cells,
    oriented_textures,
    real_textures,
    stripes,
    tube_and_somites,
)
from tests.benchmarks.bench_preset import real_sets
from tests.benchmarks.report import print_report
from tests.learn.calls import collect_training_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from svetlana_jupyter.learn.dataset import AnnotatedImage, TrainingData

# Function that makes each set, and the number of labels drawn.
GENERATED: dict[str, tuple[Callable[[], Sample], int]] = {
    "gray cells": (lambda: gray_cells(0), 10),
    "stripes (a)": (lambda: stripes(1, 1024, 500, 42), 45),
    "oriented textures, 0 and 90 degrees": (lambda: oriented_textures(0), 45),
    "oriented textures, 45 and 135 degrees": (lambda: oriented_textures(0, turn=45), 45),
    "faint foci (d)": (lambda: faint_foci(4, 1024, 500, 42), 45),
    "bright foci 3D (c)": (lambda: bright_foci_3d(3, (128, 256, 256), 400), 60),
    "real textures, 45 labels": (lambda: real_textures(0), 45),
    "real textures, 200 labels": (lambda: real_textures(0), 200),
    "tube and somites": (lambda: tube_and_somites(0), 169),
}


def annotated_image(name: str, sample: Sample) -> AnnotatedImage:
    """Return a sample as an image with all its classes."""
    pair = open_pair(name, sample.image, sample.mask, axes="zyx"[-sample.mask.ndim :])
    objects = index_objects(pair.mask)
    classes = pd.Series(sample.classes + 1, pd.RangeIndex(1, len(sample.classes) + 1))
    return pair, objects, classes.loc[classes.index.isin(objects.index)]


def score_forest(data: TrainingData, training: np.ndarray, testing: np.ndarray, seed: int) -> float:
    """Return the balanced accuracy on the rows ``testing`` of a forest trained on the rows ``training``."""
    seeded = data.settings.changed(seed=seed)
    forest = fit_forest(replace(data.subset(training), settings=seeded))
    predicted = np.array(forest.classes)[forest.classify(data.inputs[testing]).argmax(axis=1)]
    right = pd.Series(predicted == data.targets[testing])
    return float(right.groupby(data.targets[testing]).mean().mean())


def make_row(name: str, data: TrainingData, count: int, seconds: float, scores: list[float]) -> dict[str, Any]:
    return {
        "set": name,
        "labels": count,
        "draws": len(scores),
        "balanced accuracy": f"{np.mean(scores):.4f} ± {np.std(scores):.4f}",
        "measurements": data.inputs.shape[1],
        "objects": len(data),
        "objects measured per processor second": round(len(data) / seconds),
    }


def measure_objects(parts: list[AnnotatedImage], settings: TrainingSettings) -> tuple[TrainingData, float]:
    """Return the measurements of all objects and the processor seconds they took."""
    began = time.process_time()
    data = collect_training_data(parts, settings)
    return data, time.process_time() - began


def score_generated_set(name: str, settings: TrainingSettings, draws: int) -> dict[str, Any]:
    make, count = GENERATED[name]
    sample = make()
    data, seconds = measure_objects([annotated_image(name, sample)], settings)
    scores = []
    for seed in range(draws):
        labels = draw_labels(sample.mask, count, seed)
        training = np.isin(data.objects, labels)
        scores.append(score_forest(data, np.flatnonzero(training), np.flatnonzero(~training), seed))
    return make_row(name, data, count, seconds, scores)


def score_real_set(name: str, folder: Path, settings: TrainingSettings, draws: int) -> dict[str, Any]:
    real_set = real_sets(folder)[name]()
    data, seconds = measure_objects(real_set.parts, settings)
    position = {key: number for number, key in enumerate(zip(data.images.tolist(), data.objects.tolist()))}
    scores = []
    for seed in range(draws):
        training, testing = (
            np.array([position[pair.name, label] for pair, _, classes in parts for label in classes.index])
            for parts in real_set.draw(seed)
        )
        scores.append(score_forest(data, training, testing, seed))
    return make_row(name, data, len(training), seconds, scores)


def iter_rows(arguments: argparse.Namespace, settings: TrainingSettings) -> Iterator[dict[str, Any]]:
    makers: dict[str, Callable[[], dict[str, Any]]] = {
        name: lambda name=name: score_generated_set(name, settings, arguments.draws) for name in GENERATED
    }
    if arguments.data:
        for name in real_sets(arguments.data):
            makers[name] = lambda name=name: score_real_set(name, arguments.data, settings, arguments.draws)
    for name in arguments.set or makers:
        row = makers[name]()
        print(f"{name}: {row['balanced accuracy']}", file=sys.stderr)
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--set", nargs="+")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=MeasureSettings().groups)
    parser.add_argument("--may-use", nargs="*", choices=CUES, default=CUES)
    arguments = parser.parse_args()
    chosen = {"groups": arguments.groups, "may_use": arguments.may_use}
    print_report("forest", list(iter_rows(arguments, TrainingSettings(architecture="forest", measurements=chosen))))


if __name__ == "__main__":
    main()

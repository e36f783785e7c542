"""Accuracy and duration of a preset compared with the forest, trained on the same labels, on real sets.

`python -m tests.benchmarks.bench_preset --data FOLDER [--set NAME] [--draws 10] [--preset NAME]`; exit code 1 if the
mean of the network is more than 0.02 below that of the forest, or a training takes more than 60 seconds.

FOLDER contains the sets, each with images, label masks and tables of classes (columns ``label``, ``class``):
``blood_smear_2d`` (100 labels), ``ht29_mitosis_2d`` (100, balanced accuracy), ``hippocampus_3d`` (all of two volumes,
scored on the third, which is rotated) and ``foxo_translocation_2d`` (100 of the left half, scored on the right).
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from svetlana_jupyter.core.io.image_pair import ImagePair, open_pair
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.settings import PRESETS, TrainingSettings
from svetlana_jupyter.learn.training import FitResult, fit
from tests.benchmarks.report import print_report
from tests.learn.calls import collect_training_data, predict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from svetlana_jupyter.learn.classifier import Classifier
    from svetlana_jupyter.learn.dataset import AnnotatedImage

FEWEST = 3  # labels of each class in a draw
SHORTFALL, SECONDS = 0.02, 60.0


@dataclass(frozen=True)
class RealSet:
    """A set, the objects that labels are drawn from, and how it is scored.

    ``labels`` and ``scored`` map an image name and an object table to the objects that may be drawn and those that are
    scored; if ``count`` is None, all of the former are labels.
    """

    name: str
    parts: list[AnnotatedImage]
    count: int | None
    balanced: bool
    labels: Callable[[str, pd.DataFrame], pd.Series]
    scored: Callable[[str, pd.DataFrame], pd.Series]

    def draw(self, seed: int) -> tuple[list[AnnotatedImage], list[AnnotatedImage]]:
        """Return disjoint parts to train on and to score."""
        pools = [self.labels(pair.name, objects).loc[classes.index] for pair, objects, classes in self.parts]
        keys = [(number, label) for number, pool in enumerate(pools) for label in pool.index[pool]]
        classes = np.array([self.parts[number][2].loc[label] for number, label in keys])
        rng = np.random.default_rng(seed)
        while True:
            chosen = rng.permutation(len(keys))[: self.count]
            counts = np.bincount(classes[chosen])[1:]
            if counts.min() >= FEWEST:
                break
        drawn = {keys[position] for position in chosen}
        training, scored = [], []
        for number, (pair, objects, class_ids) in enumerate(self.parts):
            own = pd.Series([(number, label) in drawn for label in class_ids.index], index=class_ids.index)
            free = self.scored(pair.name, objects).loc[class_ids.index] & ~own
            training += [(pair, objects, class_ids[own])] if own.any() else []
            scored += [(pair, objects, class_ids[free])] if free.any() else []
        return training, scored


def everything(name: str, objects: pd.DataFrame) -> pd.Series:
    return pd.Series(True, index=objects.index)


def real_sets(folder: Path) -> dict[str, Callable[[], RealSet]]:
    """Return a function per set that opens it."""
    return {
        "blood_smear_2d": lambda: RealSet(
            "blood_smear_2d", open_batch(folder / "blood_smear_2d", "png"), 100, False, everything, everything
        ),
        "ht29_mitosis_2d": lambda: RealSet(
            "ht29_mitosis_2d", open_single(folder / "ht29_mitosis_2d", "dna.tif"), 100, True, everything, everything
        ),
        "hippocampus_3d": lambda: RealSet(
            "hippocampus_3d",
            open_batch(folder / "hippocampus_3d", "tif"),
            None,
            False,
            lambda name, objects: everything(name, objects) & (name != "volume_3_rotated"),
            lambda name, objects: everything(name, objects) & (name == "volume_3_rotated"),
        ),
        "foxo_translocation_2d": lambda: RealSet(
            "foxo_translocation_2d",
            open_single(folder / "foxo_translocation_2d", "gfp.tif"),
            100,
            False,
            lambda name, objects: objects["x"] < 1280,
            lambda name, objects: objects["x"] >= 1280,
        ),
    }


def open_batch(folder: Path, suffix: str) -> list[AnnotatedImage]:
    """Open images, masks and classes with equal file stems."""
    files = sorted((folder / "images").glob(f"*.{suffix}"))
    pairs = [open_pair(file.stem, file, folder / "masks" / f"{file.stem}.tif", **axes_of(file)) for file in files]
    return add_classes(pairs, [folder / "classes" / f"{file.stem}.csv" for file in files])


def open_single(folder: Path, image: str) -> list[AnnotatedImage]:
    return add_classes([open_pair(folder.name, folder / image, folder / "mask.tif")], [folder / "classes.csv"])


def axes_of(file: Path) -> dict[str, Any]:
    return {"axes": "zyx"} if file.name.startswith("volume") else {}


def add_classes(pairs: list[ImagePair], tables: list[Path]) -> list[AnnotatedImage]:
    class_names = [pd.read_csv(table).set_index("label")["class"] for table in tables]
    names = sorted({name for table in class_names for name in table})
    ids = {name: number for number, name in enumerate(names, start=1)}
    return [(pair, index_objects(pair.mask), table.map(ids)) for pair, table in zip(pairs, class_names, strict=True)]


def score(classifier: Classifier, parts: list[AnnotatedImage], balanced: bool) -> float:
    truth, predicted = [], []
    for pair, objects, classes in parts:
        for event in predict(pair, objects.loc[classes.index], classifier):
            predicted.append(np.array(classifier.classes)[event.probabilities.argmax(axis=1)])
            truth.append(classes.loc[event.objects].to_numpy())
    right = pd.Series(np.concatenate(predicted) == np.concatenate(truth))
    return float(right.groupby(np.concatenate(truth)).mean().mean() if balanced else right.mean())


def train_timed(parts: list[AnnotatedImage], settings: TrainingSettings) -> tuple[Classifier, float, float]:
    """Return a classifier, and the wall and processor seconds of its training."""
    began, worked = time.perf_counter(), time.process_time()
    *_, last = fit(collect_training_data(parts, settings))
    assert isinstance(last, FitResult)
    return last.classifier, time.perf_counter() - began, time.process_time() - worked


def measure_set(real_set: RealSet, draws: int, preset: str) -> dict[str, Any]:
    """Return one row: means, standard deviations, and the longest training."""
    scores: dict[str, list[float]] = {"network": [], "forest": []}
    seconds, worked = [], []
    for seed in range(draws):
        training, scored = real_set.draw(seed)
        settings = TrainingSettings.from_preset(preset, seed=seed)
        network, wall, processor = train_timed(training, settings)
        seconds.append(wall)
        worked.append(processor)
        forest, *_ = train_timed(training, settings.changed(architecture="forest"))
        scores["network"].append(score(network, scored, real_set.balanced))
        scores["forest"].append(score(forest, scored, real_set.balanced))
        print(
            f"{real_set.name} draw {seed}: network {scores['network'][-1]:.3f}, forest {scores['forest'][-1]:.3f}, "
            f"{wall:.1f} s",
            file=sys.stderr,
        )
    network, forest = (np.array(scores[name]) for name in ("network", "forest"))
    return {
        "set": real_set.name,
        "score": "balanced accuracy" if real_set.balanced else "accuracy",
        "preset": preset,
        "draws": draws,
        "network": f"{network.mean():.4f} ± {network.std():.4f}",
        "forest": f"{forest.mean():.4f} ± {forest.std():.4f}",
        "difference": round(float(network.mean() - forest.mean()), 4),
        "seconds": f"{np.mean(seconds):.1f}, at most {max(seconds):.1f}",
        "processor seconds": f"{np.mean(worked):.1f}, at most {max(worked):.1f}",
        "torch threads": torch.get_num_threads(),
        "passes": bool(network.mean() >= forest.mean() - SHORTFALL and max(seconds) <= SECONDS),
    }


def iter_rows(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    openers = real_sets(arguments.data)
    for name in [arguments.set] if arguments.set else openers:
        yield measure_set(openers[name](), arguments.draws, arguments.preset)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", choices=list(real_sets(Path())))
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--preset", choices=list(PRESETS), default="default")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = list(iter_rows(arguments))
    print_report("network and forest", rows)
    return 0 if all(row["passes"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Features and true classes of the objects of generated and real sets, for benchmarks of labeling.

Features are computed once per set, by the functions that a project uses, and can be kept in a folder between runs.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import zarr
from scipy.ndimage import gaussian_filter

from svetlana_jupyter.core.features.compute import iter_features
from svetlana_jupyter.core.features.feature_sources import PatchSource
from svetlana_jupyter.core.features.patch_features import iter_patch_features
from svetlana_jupyter.core.io.image_pair import open_pair
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.samples import Sample, bright_foci_3d, faint_foci, osteoclast_well, real_textures
from tests.benchmarks.bench_preset import real_sets
from tests.benchmarks.inclusion_set import inclusion_set

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from svetlana_jupyter.learn.dataset import AnnotatedImage

LIMIT = 5.0  # standard deviations at which features are clipped
SPACING = 48  # pixels between the disks of `disks`


@dataclass(frozen=True, eq=False)
class LabeledSet:
    """Objects with features and classes.

    Attributes
    ----------
    name : str
    features : float32 of shape (n, d)
        Blocks of standardized features, with a mean squared row norm of 1 in all.
    measurements, trees : int
        Number of columns of the measurements, which come first, and of all blocks that the small forest uses.
    codes, images : int of shape (n,)
        Class and image of each object.
    """

    name: str
    features: np.ndarray
    measurements: int
    trees: int
    codes: np.ndarray
    images: np.ndarray

    def subset(self, rows: np.ndarray) -> LabeledSet:
        """Return some of the objects."""
        return replace(self, features=self.features[rows], codes=self.codes[rows], images=self.images[rows])

    def thinned(self, name: str, code: int, share: float) -> LabeledSet:
        """Return the set with so few objects of a class that they are this share."""
        of_class = np.flatnonzero(self.codes == code)
        kept = max(3, round(share / (1 - share) * (len(self.codes) - len(of_class))))
        rows = np.setdiff1d(np.arange(len(self.codes)), np.random.default_rng(0).permutation(of_class)[kept:])
        return replace(self.subset(rows), name=name)


def labeled_set(name: str, make: Callable[[], Sequence[AnnotatedImage]], folder: Path | None = None) -> LabeledSet:
    """Compute the features of a set, or read them from a folder."""
    file = folder / f"{name}.npz" if folder is not None else None
    if file is not None and file.exists():
        stored = dict(np.load(file))
    else:
        settings, parts = TrainingSettings(architecture="forest"), make()
        sample = [(pair, objects) for pair, objects, _ in parts]
        source = PatchSource(parts[0][0].ndim, settings.may_use)
        fitted = source.fit(sample)
        unit, measurements = settings.patches.unit, settings.measurements
        stored = {"measurements": _rows(sample, lambda pair, o: iter_features(pair, o, measurements, unit))}
        for block in source.blocks:
            stored[block] = _rows(sample, lambda pair, o, block=block: _iter_block(pair, o, fitted, block))
        classes = np.concatenate([classes.loc[objects.index] for _, objects, classes in parts])
        stored["codes"] = np.unique(classes, return_inverse=True)[1]
        stored["images"] = np.repeat(np.arange(len(parts)), [len(objects) for _, objects, _ in parts])
        if file is not None:
            np.savez(file, **stored)
    codes, images = stored.pop("codes"), stored.pop("images")
    scaled = [_standardized(block) for block in stored.values()]
    scaled = [block / np.sqrt((block**2).sum(axis=1).mean() * len(scaled)) for block in scaled]
    trees = sum(block.shape[1] for block in scaled[:2])
    return LabeledSet(name, np.concatenate(scaled, axis=1).astype(np.float32), scaled[0].shape[1], trees, codes, images)


def annotated(sample: Sample, name: str = "set", axes: str | None = None) -> AnnotatedImage:
    """Return a sample as an image with all its classes."""
    pair = open_pair(name, sample.image, sample.mask, axes=axes or "zyx"[-sample.mask.ndim :])
    objects = index_objects(pair.mask)
    return pair, objects, pd.Series(sample.classes + 1, pd.RangeIndex(1, len(sample.classes) + 1)).loc[objects.index]


def stained_cells() -> list[AnnotatedImage]:
    """Return the images of `inclusion_set`."""
    return [annotated(sample, f"group {number}", "cyx") for number, sample in enumerate(inclusion_set())]


def well() -> list[AnnotatedImage]:
    """Return a generated well with 8 % activated cells."""
    with tempfile.TemporaryDirectory() as folder:
        stored = osteoclast_well(Path(folder), 0, 2000, 620)
        image, mask = (np.asarray(zarr.open_array(path, mode="r")[:]) for path in (stored.image, stored.mask))
    return [annotated(Sample(image, mask.astype(np.uint16), stored.classes, stored.names), axes="cyx")]


def disks(pixels: Callable[[np.random.Generator, int, int], np.ndarray], classes: int, count: int = 500) -> Sample:
    """Generate disks whose pixels (side, side) are a function of generator, class and side."""
    rng = np.random.default_rng(0)
    columns = int(np.ceil(np.sqrt(count)))
    image = rng.normal(40, 4, (columns * SPACING, columns * SPACING))
    mask = np.zeros(image.shape, np.uint16)
    codes = rng.integers(0, classes, count)
    rows, cols = np.indices((SPACING, SPACING)) - SPACING / 2
    for number, code in enumerate(codes):
        corner = np.array(divmod(number, columns)) * SPACING
        window = tuple(slice(start, start + SPACING) for start in corner)
        inside = np.hypot(rows, cols) <= rng.uniform(12, 20)
        image[window][inside] = pixels(rng, int(code), SPACING)[inside]
        mask[window][inside] = number + 1
    return Sample(np.clip(np.rint(image), 0, 255).astype(np.uint8), mask, codes, tuple("abcde"[:classes]))


def _overlapping(rng: np.random.Generator, code: int, side: int) -> np.ndarray:
    """Return noise around a brightness whose distributions overlap between classes."""
    return rng.normal(rng.normal(110 + 20 * code, 12), 12, (side, side))


def _textures(rng: np.random.Generator, code: int, side: int) -> np.ndarray:
    """Return noise of the same mean and deviation, finer or coarser by class."""
    noise = gaussian_filter(rng.standard_normal((side, side)), 0.8 * 1.35**code)
    return np.asarray(rng.uniform(100, 140) + 25 * noise / noise.std())


CELLS, FOCI = "stained cells", "faint foci"


def set_parts(data: Path | None) -> dict[str, Callable[[], list[AnnotatedImage]]]:
    """Return a function per set that opens its images; the real sets only with their folder."""
    made: dict[str, Callable[[], list[AnnotatedImage]]] = {
        CELLS: stained_cells,
        FOCI: lambda: [annotated(faint_foci(4, 1024, 500, 42))],
        "well, 8 %": well,
        "real textures": lambda: [annotated(real_textures(1))],
        "overlapping": lambda: [annotated(disks(_overlapping, 2))],
        "five textures": lambda: [annotated(disks(_textures, 5))],
        "bright foci 3D": lambda: [annotated(bright_foci_3d(3, (128, 256, 256), 400))],
    }
    for name, make in (real_sets(data) if data is not None else {}).items():
        made[name] = lambda make=make: _known(make().parts)
    return made


def sets(data: Path | None, folder: Path | None) -> dict[str, Callable[[], LabeledSet]]:
    """Return a function per set that computes its features."""
    made = {
        name: lambda name=name, parts=parts: labeled_set(name, parts, folder) for name, parts in set_parts(data).items()
    }
    made[f"{CELLS}, 5 %"] = lambda: made[CELLS]().thinned(f"{CELLS}, 5 %", 1, 0.05)
    made[f"{FOCI}, 20 %"] = lambda: made[FOCI]().thinned(f"{FOCI}, 20 %", 1, 0.2)
    return made


def _known(parts: Iterable[AnnotatedImage]) -> list[AnnotatedImage]:
    """Return the parts with those objects whose class is known."""
    return [(pair, objects.loc[objects.index.isin(classes.index)], classes) for pair, objects, classes in parts]


def balanced_accuracy(probabilities: np.ndarray, known: np.ndarray, codes: np.ndarray) -> float:
    """Return the mean recall over the classes of ``codes``; ``known`` are the classes of the columns."""
    right = known[probabilities.argmax(axis=1)] == codes
    return float(np.mean([right[codes == code].mean() for code in np.unique(codes)]))


def _iter_block(pair, objects, fitted, block):
    """Yield labels and the features of one block of patches."""
    for labels, blocks in iter_patch_features(pair, objects, fitted, [block]):
        yield labels, blocks[block]


def _rows(sample: Sequence[tuple], features: Callable[..., Iterable[tuple[np.ndarray, np.ndarray]]]) -> np.ndarray:
    """Return the features of all objects in the order of the object tables."""
    found = []
    for pair, objects in sample:
        labels, values = (np.concatenate(each) for each in zip(*features(pair, objects)))
        found.append(values[pd.Index(labels).get_indexer(objects.index)])
    return np.concatenate(found)


def _standardized(values: np.ndarray) -> np.ndarray:
    """Return standardized, clipped columns without constant ones; NaN becomes the median."""
    values = np.asarray(values, np.float64)
    values = np.where(np.isfinite(values), values, np.nan)
    values = values[:, ~np.isnan(values).all(axis=0)]
    values = np.where(np.isnan(values), np.nanmedian(values, axis=0), values)
    values = values[:, values.std(axis=0) > 1e-9 * (1 + np.abs(values).max(axis=0))]
    return np.asarray(np.clip((values - values.mean(axis=0)) / values.std(axis=0), -LIMIT, LIMIT))

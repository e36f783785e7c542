"""Sources of features with what they have learned.

Features are stored as 16-bit integers in steps of `STEP`. Everything that is fitted to features uses the rounded
values, so that it makes no difference whether they were stored in between.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from svetlana_jupyter.core.features.feature_sources import FeatureSource, MeasurementSource, PatchSource
from svetlana_jupyter.errors import ClassifierError, DamagedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from svetlana_jupyter.core.features.feature_sources import Fitted
    from svetlana_jupyter.core.io.chunks import ArrayRegion
    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.core.settings import TrainingSettings

MAX_DEVIATIONS = 5.0  # standardized values are clipped
STEP = MAX_DEVIATIONS / 32767  # integers convert to 32-bit floats several times as fast as 16-bit floats
SAMPLE_OBJECTS, SAMPLE_IMAGES = 500, 20  # objects that a source learns from, and the images they are drawn from
SAMPLE_SEED = 0
BATCH_OBJECTS = 500  # objects computed at a time
SampleFeatures = dict[str, "list[tuple[NDArray[np.int64], NDArray[np.float32]]]"]  # labels and features by image


@dataclass(frozen=True, eq=False)
class FittedSource:
    """Source of features with what it has learned from a sample.

    Attributes
    ----------
    source : FeatureSource
    fitted : dict of str to array
        What the source itself has learned.
    center, scale : float64 of shape (d,)
        A feature is standardized as ``(value - center) * scale``; the scale of a constant feature is 0.
    sizes : tuple of int
        Number of columns of each block of the source.
    """

    source: FeatureSource
    fitted: Fitted
    center: NDArray[np.float64]
    scale: NDArray[np.float64]
    sizes: tuple[int, ...]

    @cached_property
    def weights(self) -> NDArray[np.float32]:
        """Factors (d,) of stored features, for blocks with a mean squared row norm of 1."""
        blocks = np.split(self.scale > 0, np.cumsum(self.sizes)[:-1])
        return np.concatenate([STEP * used * max(used.sum(), 1) ** -0.5 for used in blocks]).astype(np.float32)

    @cached_property
    def digest(self) -> str:
        """Hash of the source and of what it has learned."""
        text = hashlib.sha256(f"{self.source.name} {self.source.version} {self.sizes}".encode())
        for name in sorted(self.fitted):
            text.update(name.encode() + np.ascontiguousarray(self.fitted[name], np.float64).tobytes())
        text.update(self.center.tobytes() + self.scale.tobytes())
        return text.hexdigest()

    def standardize(self, values: NDArray[np.float32]) -> NDArray[np.int16]:
        """Return features (n, d) to store; an undefined value becomes the mean, 0."""
        standard = np.clip((values - self.center) * self.scale, -MAX_DEVIATIONS, MAX_DEVIATIONS)
        return np.where(np.isfinite(standard), np.rint(standard / STEP), 0).astype(np.int16)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON document that `from_json` reads."""
        fitted = {name: np.asarray(values, np.float64).tolist() for name, values in self.fitted.items()}
        numbers = {"center": self.center.tolist(), "scale": self.scale.tolist(), "sizes": list(self.sizes)}
        return {"version": self.source.version, "digest": self.digest, "learned": fitted, **numbers}

    @classmethod
    def from_json(cls, document: Mapping[str, Any], source: FeatureSource) -> FittedSource:
        """Return a source with what it has learned.

        Raises
        ------
        ValueError, KeyError, TypeError
            If the document is damaged or of another version of the source.
        """
        if document["version"] != source.version:
            raise ValueError("another version of the features")
        fitted = {str(name): np.array(values, np.float64) for name, values in document["learned"].items()}
        center, scale = (np.array(document[name], np.float64) for name in ("center", "scale"))
        result = cls(source, fitted, center, scale, tuple(map(int, document["sizes"])))
        result.check()
        if document["digest"] != result.digest:
            raise ValueError("a number has changed")
        return result

    def check(self) -> None:
        """Raise a `ValueError` unless the arrays fit together."""
        is_finite = all(np.isfinite(values).all() for values in (self.center, self.scale, *self.fitted.values()))
        fits = self.center.shape == self.scale.shape == (sum(self.sizes),)
        if (
            not is_finite
            or not fits
            or (self.scale < 0).any()
            or len(self.sizes) != len(self.source.blocks)
            or min(self.sizes) < 0
        ):
            raise ValueError("its arrays do not fit together")
        self.source.check(self.fitted)


@dataclass(frozen=True, eq=False)
class FittedSources:
    """All sources of the features of a classifier.

    Attributes
    ----------
    sources : tuple of FittedSource
    """

    sources: tuple[FittedSource, ...]

    @cached_property
    def weights(self) -> tuple[NDArray[np.float32], ...]:
        """Factors of the stored features of each source; all blocks have equal weights."""
        n_blocks = np.float32(sum(len(each.sizes) for each in self.sources))
        return tuple(each.weights / np.sqrt(n_blocks) for each in self.sources)

    @cached_property
    def blocks(self) -> dict[str, slice]:
        """Columns of each block of features."""
        columns, start = dict[str, slice](), 0
        for each in self.sources:
            for block, size in zip(each.source.blocks, each.sizes, strict=True):
                columns[block] = slice(start, start := start + size)
        return columns

    @property
    def width(self) -> int:
        """Number of features."""
        return sum(len(each.center) for each in self.sources)

    @property
    def forest_columns(self) -> slice:
        """Columns that trees use: all but oriented textures, which are last."""
        return slice(0, self.blocks["oriented"].start if "oriented" in self.blocks else self.width)

    def compute(
        self, pair: ImagePair, objects: pd.DataFrame
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield labels (n,) and weighted standardized features (n, D) of objects.

        Each of b blocks has a mean squared row norm of about 1 / b.

        Raises
        ------
        DamagedError
            If the features of an object cannot be computed.
        """
        for start in range(0, len(objects), BATCH_OBJECTS):
            batch = objects.iloc[start : start + BATCH_OBJECTS]
            found = []
            for each, weights in zip(self.sources, self.weights, strict=True):
                rows = np.zeros((len(batch), len(each.center)), np.int16)
                missing = np.ones(len(batch), bool)
                for labels, blocks in each.source.compute(pair, batch, each.fitted):
                    values, places = joined(blocks, each.source), batch.index.get_indexer(pd.Index(labels))
                    if values.shape[1] != rows.shape[1]:
                        raise ClassifierError(
                            f"{pair.name!r} has {values.shape[1]} features ({each.source.name}), but the classifier "
                            f"was trained on {rows.shape[1]}. Train it again."
                        )
                    rows[places] = each.standardize(values)
                    missing[places] = ~np.isfinite(values).any(axis=1)
                if missing.any():
                    label = batch.index[int(missing.argmax())]
                    raise DamagedError(f"Object {label} of {pair.name!r} has no {each.source.name}.")
                found.append(rows.astype(np.float32) * weights)
            yield batch.index.to_numpy(np.int64), np.concatenate(found, axis=1)

    def regions(self, pair: ImagePair, objects: pd.DataFrame) -> list[ArrayRegion]:
        """Return the regions of the image that `compute` reads."""
        return [region for each in self.sources for region in each.source.regions(pair, objects, each.fitted)]


def standard_sources(settings: TrainingSettings, ndim: int, threads: int = 1) -> tuple[FeatureSource, ...]:
    """Return the measurements and the features of patches, within the allowed cues.

    Parameters
    ----------
    settings : TrainingSettings
        Restricted to the allowed cues (`core.allowed_cues.restrict_to_allowed_cues`).
    ndim : 2 or 3
    threads : int
    """
    measurements = MeasurementSource(settings.measurements, settings.patches.unit)
    return measurements, PatchSource(ndim, settings.may_use, threads)


def fit_source(
    source: FeatureSource,
    tables: Mapping[str, pd.DataFrame],
    open_pair: Callable[[str], ImagePair],
    stop: Callable[[], bool] = lambda: False,
    count: int | None = None,
) -> tuple[FittedSource, SampleFeatures] | None:
    """Let a source learn from a random sample of the objects.

    Parameters
    ----------
    source : FeatureSource
    tables : mapping of image name to DataFrame
        Object tables. The sample is drawn from at most 20 images.
    open_pair : callable
        Returns an image by name.
    stop : callable
    count : int, optional
        Largest number of objects in the sample; 500 by default.

    Returns
    -------
    tuple, or None after a stop
        The source with what it has learned, and the labels (n,) and features (n, d) of the sample by image.
    """
    rng, names = np.random.default_rng(SAMPLE_SEED), sorted(tables)
    chosen = [names[number] for number in np.sort(rng.permutation(len(names))[:SAMPLE_IMAGES])]
    position = np.repeat(np.arange(len(chosen)), [len(tables[name]) for name in chosen])
    drawn = np.sort(rng.permutation(len(position))[: count or SAMPLE_OBJECTS])
    starts = np.searchsorted(position, np.arange(len(chosen)))
    sample = {}
    for number, name in enumerate(chosen):
        rows = drawn[position[drawn] == number] - starts[number]
        if len(rows):
            sample[name] = open_pair(name), tables[name].iloc[rows]
    fitted = source.fit(list(sample.values()))
    computed: list[Mapping[str, NDArray[np.float32]]] = []
    features: SampleFeatures = {name: [] for name in sample}
    for name, (pair, rows) in sample.items():
        for labels, blocks in source.compute(pair, rows, fitted):
            if stop():
                return None
            computed.append(blocks)
            features[name].append((labels, joined(blocks, source)))
    return fit_standardization(source, fitted, computed), features


def fit_standardization(source: FeatureSource, fitted: Fitted, blocks: Sequence[Mapping[str, Any]]) -> FittedSource:
    """Return a source with means and standard deviations of the features of a sample.

    Parameters
    ----------
    source : FeatureSource
    fitted : dict of str to array
    blocks : sequence of mapping
        Features of the sample, as `FeatureSource.compute` yields them.
    """
    parts = [joined(each, source) for each in blocks]
    if len(widths := {part.shape[1] for part in parts}) > 1:
        raise ClassifierError(
            f"The {source.name} returned {min(widths)} features of some objects and {max(widths)} of others. Return "
            "the same number of features of every object, or call project.features.remove to do without it."
        )
    values = np.concatenate(parts).astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    known = np.isfinite(values)
    count = np.maximum(known.sum(axis=0), 1)
    center = np.nansum(values, axis=0) / count
    deviation = np.sqrt(np.nansum((values - center) ** 2, axis=0) / count)
    varies = deviation > 1e-9 * (1 + np.abs(np.where(known, values, 0)).max(axis=0))
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
    return FittedSource(source, fitted, center, scale, tuple(blocks[0][block].shape[1] for block in source.blocks))


def joined(blocks: Mapping[str, NDArray[np.float32]], source: FeatureSource) -> NDArray[np.float32]:
    """Return the blocks of a source as one array (n, d)."""
    return np.concatenate([blocks[block] for block in source.blocks], axis=1)

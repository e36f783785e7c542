"""Sources of object features, such as measurements and image patches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from svetlana_jupyter.core.features.catalog import VERSION, Cue, columns
from svetlana_jupyter.core.features.compute import cached_features, feature_regions, in_um, measure
from svetlana_jupyter.core.features.object_patches import check_patches, crop_regions, fit_patches
from svetlana_jupyter.core.features.patch_features import iter_patch_features

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from svetlana_jupyter.core.io.chunks import ArrayRegion
    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.core.settings import MeasureSettings

PATCH_VERSION = 1  # of the features of patches
Fitted = dict[str, "NDArray[np.float64]"]  # what a source has learned from a sample of objects


class FeatureSource(Protocol):
    """Function from objects to features, with a name and a version."""

    @property
    def name(self) -> str:
        """Name of the source."""

    @property
    def version(self) -> str:
        """Text that changes whenever the features of an unchanged object change."""

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the groups of columns, which have equal weights in a classifier."""

    def fit(self, sample: Sequence[tuple[ImagePair, pd.DataFrame]]) -> Fitted:
        """Learn from a sample what does not depend on labels, such as channel axes.

        Parameters
        ----------
        sample : sequence of (ImagePair, DataFrame)
            Images, each with rows of its object table.
        """

    def compute(
        self, pair: ImagePair, objects: pd.DataFrame, fitted: Fitted
    ) -> Iterator[tuple[NDArray[np.int64], Mapping[str, NDArray[np.float32]]]]:
        """Yield labels (n,) and the features (n, d) of each block, in chunk order.

        The values of an object whose features cannot be computed are NaN. Single undefined values may be NaN, too.
        """

    def regions(self, pair: ImagePair, objects: pd.DataFrame, fitted: Fitted) -> list[ArrayRegion]:
        """Return the regions of the image that `compute` reads for these objects."""

    def check(self, fitted: Fitted) -> None:
        """Raise a `ValueError` unless this is a possible result of `fit`."""


@dataclass(frozen=True)
class MeasurementSource:
    """Measurements of shape, intensity and texture, as a random forest uses them.

    Attributes
    ----------
    settings : MeasureSettings
        Groups and allowed cues.
    unit : "px" or "um"
        Unit of length; micrometers require images whose pixel size is known.
    """

    settings: MeasureSettings
    unit: Literal["px", "um"] = "px"
    name: str = "measurements"
    blocks: tuple[str, ...] = ("measurements",)

    @property
    def version(self) -> str:
        """Version of the measurements and their settings."""
        return f"{VERSION} {self.unit} {self.settings.model_dump_json()}"

    def fit(self, sample: Sequence[tuple[ImagePair, pd.DataFrame]]) -> Fitted:
        """Return nothing, because measurements learn nothing."""
        return {}

    def compute(
        self, pair: ImagePair, objects: pd.DataFrame, fitted: Fitted
    ) -> Iterator[tuple[NDArray[np.int64], Mapping[str, NDArray[np.float32]]]]:
        """Yield labels and measurements; undefined measurements are NaN.

        Cached measurements are used if they are complete. New ones are not added to the cache of the image, whose files
        would be written again for every part of the objects.
        """
        settings = self.settings
        chosen = columns(pair.ndim, len(pair.channels), settings.groups, settings.may_use)
        cached = (cached_features(pair, group, settings) for group in settings.groups)
        complete = all(objects.index.isin(table.index).all() for table in cached)
        for table in measure(pair if complete else replace(pair, feature_cache=None), objects, settings):
            values = in_um(table, chosen, pair) if self.unit == "um" else table[[column.key for column in chosen]]
            yield table.index.to_numpy(np.int64), {"measurements": values.to_numpy(np.float32)}

    def regions(self, pair: ImagePair, objects: pd.DataFrame, fitted: Fitted) -> list[ArrayRegion]:
        """Return the regions of the image that `compute` reads for these objects."""
        return feature_regions(pair, objects, self.settings)

    def check(self, fitted: Fitted) -> None:
        """Raise a `ValueError` unless this is a possible result of `fit`."""
        if fitted:
            raise ValueError("measurements learn nothing")


@dataclass(frozen=True)
class PatchSource:
    """Features of object patches: detail at several scales, and oriented texture.

    Attributes
    ----------
    ndim : 2 or 3
        Number of dimensions of the images.
    may_use : frozenset of str
        Allowed cues.
    threads : int
    """

    ndim: int
    may_use: frozenset[Cue]
    threads: int = 1
    name: str = "patches"

    @property
    def blocks(self) -> tuple[str, ...]:
        """The blob block and, in 2D and if orientation may be used, the oriented one."""
        return ("blob", "oriented") if self.ndim == 2 and "orientation" in self.may_use else ("blob",)

    @property
    def version(self) -> str:
        """Version of the features and the allowed cues."""
        return f"{PATCH_VERSION} {self.ndim}D {' '.join(sorted(self.may_use))}"

    def fit(self, sample: Sequence[tuple[ImagePair, pd.DataFrame]]) -> Fitted:
        """Fit the side of the patches and the axes of their channels."""
        return fit_patches(sample, self.may_use)

    def compute(
        self, pair: ImagePair, objects: pd.DataFrame, fitted: Fitted
    ) -> Iterator[tuple[NDArray[np.int64], Mapping[str, NDArray[np.float32]]]]:
        """Yield labels and features; NaN for objects with undefined pixels."""
        return iter_patch_features(pair, objects, fitted, self.blocks, self.may_use, self.threads)

    def regions(self, pair: ImagePair, objects: pd.DataFrame, fitted: Fitted) -> list[ArrayRegion]:
        """Return the regions of the image that `compute` reads for these objects."""
        return crop_regions(pair, objects, self.may_use)

    def check(self, fitted: Fitted) -> None:
        """Raise a `ValueError` unless this is a possible result of `fit`."""
        check_patches(fitted, self.ndim)


@dataclass(frozen=True)
class StoredSource:
    """Source of cached features, whose function is missing in this kernel."""

    name: str
    version: str

    @property
    def blocks(self) -> tuple[str, ...]:
        """The name of the source, whose features are one block."""
        return (self.name,)

    def fit(self, sample: Sequence[tuple[ImagePair, pd.DataFrame]]) -> Fitted:
        """Return nothing, because nothing can be computed."""
        return {}

    def compute(
        self, pair: ImagePair, objects: pd.DataFrame, fitted: Fitted
    ) -> Iterator[tuple[NDArray[np.int64], Mapping[str, NDArray[np.float32]]]]:
        """Yield nothing."""
        return iter(())

    def regions(self, pair: ImagePair, objects: pd.DataFrame, fitted: Fitted) -> list[ArrayRegion]:
        """Return no region."""
        return []

    def check(self, fitted: Fitted) -> None:
        """Accept anything, because nothing is computed."""

"""Features of the objects of one or several images, side by side for all sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from svetlana_jupyter.project.feature_rows import IMPOSSIBLE, MISSING, PRESENT

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from svetlana_jupyter.core.features.fitted_sources import FittedSources
    from svetlana_jupyter.project.feature_rows import FeatureRows

CACHED_ROWS = 512  # rows converted to floats at a time, which fit in the cache of a core


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """Features of the objects of an image, in the order of its object table.

    Attributes
    ----------
    name : str
    mask : int
        Number of the mask that contains the objects.
    fingerprint : str
        Fingerprint of the file of the image.
    labels : Index of int
    parts : tuple of FeatureRows
        One per source.
    weights : tuple of float32 arrays
        Factors of the columns of each part.
    """

    name: str
    mask: int
    fingerprint: str
    labels: pd.Index
    parts: tuple[FeatureRows, ...]
    weights: tuple[NDArray[np.float32], ...]

    @property
    def is_present(self) -> NDArray[np.bool_]:
        """Which objects (n,) have the features of all sources."""
        return np.asarray(np.logical_and.reduce([part.state == PRESENT for part in self.parts]))

    @property
    def is_waiting(self) -> NDArray[np.bool_]:
        """Which objects (n,) lack features that can still be computed."""
        states = np.stack([part.state for part in self.parts])
        return np.asarray((states == MISSING).any(axis=0) & ~(states == IMPOSSIBLE).any(axis=0))

    def project(self, weights: NDArray[np.float32], rows: slice) -> NDArray[np.float32]:
        """Return the products (m, k) of the features of some rows with weights (D, k)."""
        parts = np.split(weights, np.cumsum([len(each) for each in self.weights])[:-1])
        each = zip(self.parts, self.weights, parts, strict=True)
        return np.asarray(sum(part.rows[rows].astype(np.float32) @ (factor[:, None] * w) for part, factor, w in each))

    def squared_distances(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the squared distances (n,) from features (D,); inf where unknown."""
        queries = np.split(query, np.cumsum([len(each) for each in self.weights])[:-1])
        distances = np.full(len(self.labels), np.dot(query, query), np.float32)
        for part, weights, own in zip(self.parts, self.weights, queries, strict=True):
            for start in range(0, len(distances), CACHED_ROWS):
                rows = part.rows[start : start + CACHED_ROWS].astype(np.float32)
                products = rows @ (weights * own)
                distances[start : start + CACHED_ROWS] += np.square(rows, out=rows) @ weights**2 - 2 * products
        return np.where(self.is_present, np.maximum(distances, 0), np.float32(np.inf))

    def read(self, positions: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        """Return the features (n, D) of objects.

        Each of b blocks has a mean squared row norm of about 1 / b.
        """
        parts = zip(self.parts, self.weights, strict=True)
        return np.concatenate([part.rows[positions].astype(np.float32) * weights for part, weights in parts], axis=1)


@dataclass(frozen=True, eq=False)
class FeatureMatrix:
    """Features of the objects of several images.

    Attributes
    ----------
    images : mapping of image name to ImageFeatures
    fitted : FittedSources
    """

    images: Mapping[str, ImageFeatures]
    fitted: FittedSources

    @property
    def blocks(self) -> Mapping[str, slice]:
        """Columns of each block of features."""
        return self.fitted.blocks

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.fitted.width

    def impossible_sources(self) -> list[str]:
        """Return the sources whose features some objects can never have."""
        images, sources = self.images.values(), enumerate(self.fitted.sources)
        return [
            each.source.name
            for number, each in sources
            if any((image.parts[number].state == IMPOSSIBLE).any() for image in images)
        ]

    def find(self, objects: pd.Index) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Return which objects (n,) have features, and the features (m, D) of those.

        Parameters
        ----------
        objects : Index
            Pairs ``(image, object)``.
        """
        values, is_known = np.zeros((len(objects), self.width), np.float32), np.zeros(len(objects), bool)
        names, labels = objects.get_level_values(0), objects.get_level_values(1)
        for name in names.unique():
            if (features := self.images.get(str(name))) is None:
                continue
            places = np.flatnonzero(names == name)
            rows = features.labels.get_indexer(labels[places])
            known = (rows >= 0) & features.is_present[rows]
            values[places[known]] = features.read(rows[known])
            is_known[places[known]] = True
        return is_known, values[is_known]

"""Two-dimensional projection of object features.

Principal component analysis shows a map at once: the axes are fitted to a sample of the objects, and all objects are
projected block by block, so that the memory does not depend on the number of objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy.sparse.linalg import svds

from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pandas as pd
    from numpy.typing import NDArray

MIN_OBJECTS = 3  # fewer points have no second principal axis
SAMPLE = 2000  # objects to which the axes are fitted


class FeatureRows(Protocol):
    """Feature matrix of N objects and D features that is read in parts."""

    @property
    def ids(self) -> pd.MultiIndex:
        """Image and label of each object."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """Names of the features."""
        ...

    def rows(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the features of some objects; NaN where they are not computed."""
        ...

    def blocks(self, size: int = ...) -> Iterator[NDArray[np.float32]]:
        """Yield the features of all objects, ``size`` objects at a time."""
        ...


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """Places of objects in two dimensions, close to each other if their features are.

    Attributes
    ----------
    ids : MultiIndex
        Image and label of each object.
    coordinates : array of float32, shape (n, 2)
        NaN for objects without features.
    method : str
        "PCA" or "UMAP".
    features : int
        Number of features.
    """

    ids: pd.MultiIndex
    coordinates: NDArray[np.float32]
    method: str
    features: int


@dataclass(frozen=True)
class PrincipalAxes:
    """First two principal axes of a feature matrix with D columns.

    Attributes
    ----------
    mean : array of float32, shape (D,)
    axes : array of float32, shape (D, 2)
        Orthonormal columns. The entry of each column with the largest absolute value is positive, so that a map is not
        mirrored when it is computed again.
    explained : tuple of float
        Fraction of the variance of the sample along each axis, 0 to 1.
    """

    mean: NDArray[np.float32]
    axes: NDArray[np.float32]
    explained: tuple[float, float]

    def project(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the coordinates (n, 2) of features (n, D) along the axes.

        Objects with a feature that is NaN or infinite have the coordinates NaN.
        """
        places = features @ self.axes - self.mean @ self.axes
        places[~np.isfinite(places).all(axis=1)] = np.nan
        return places


def fit_principal_axes(sample: NDArray[np.float32]) -> PrincipalAxes:
    """Fit the first two principal axes to a sample of objects.

    The singular value decomposition computes two vectors only: 2,000 objects with 700 features take 0.04 s, a complete
    decomposition takes 0.5 s. The result is the same in every call.

    Parameters
    ----------
    sample : array of float32, shape (n, D)
        Objects with a feature that is NaN or infinite are left out.

    Raises
    ------
    InputError
        If fewer than three objects have features, or if all of them have the same features.
    """
    complete = _complete(sample).astype(np.float64)
    if len(complete) < MIN_OBJECTS:
        raise InputError(
            f"A map needs the features of at least {MIN_OBJECTS} objects, got {len(complete)}. Add images with more "
            "objects, or wait until their features are computed."
        )
    mean = complete.mean(axis=0)
    centered = complete - mean
    total = float((centered**2).sum())
    if total <= np.finfo(np.float32).eps * max(1.0, float((complete**2).sum())):
        raise InputError(
            f"All {len(complete):,} objects have the same features, so they have no map. Add a feature that differs "
            "between the objects."
        )
    dimensions = centered.shape[1]
    padded = np.pad(centered, [(0, 0), (0, max(0, MIN_OBJECTS - dimensions))])  # `svds` finds fewer than all vectors
    start = np.random.default_rng(0).normal(size=min(padded.shape))
    _, strengths, vectors = svds(padded, k=2, v0=start)
    order = np.argsort(-strengths)
    axes = vectors[order, :dimensions].T
    axes *= np.where(axes[np.abs(axes).argmax(axis=0), [0, 1]] < 0, -1.0, 1.0)
    first, second = (float(strength**2 / total) for strength in strengths[order])
    return PrincipalAxes(mean.astype(np.float32), axes.astype(np.float32), (first, second))


def pca_map(matrix: FeatureRows) -> FeatureMap:
    """Return the map of objects along the first two principal axes of their features.

    Raises
    ------
    InputError
        As for `fit_principal_axes`.
    """
    axes = fit_principal_axes(complete_sample(matrix, SAMPLE))
    return FeatureMap(matrix.ids, project_blocks(matrix.blocks(), axes), "PCA", len(matrix.names))


def complete_sample(matrix: FeatureRows, count: int) -> NDArray[np.float32]:
    """Return the features of up to ``count`` objects that are drawn at random.

    While features are being computed, most of the objects may lack them; then all rows are read to find those that
    are complete.
    """
    shuffle = np.random.default_rng(0).permutation
    sample = _complete(matrix.rows(np.sort(shuffle(len(matrix.ids))[:count])))
    if 2 * len(sample) >= min(count, len(matrix.ids)):
        return sample
    found = [np.isfinite(block).all(axis=1) for block in matrix.blocks()]
    positions = np.flatnonzero(np.concatenate([np.empty(0, bool), *found]))
    return matrix.rows(np.sort(shuffle(positions)[:count]))


def _complete(features: NDArray[np.float32]) -> NDArray[np.float32]:
    return features[np.isfinite(features).all(axis=1)]


def project_blocks(blocks: Iterable[NDArray[np.float32]], axes: PrincipalAxes) -> NDArray[np.float32]:
    """Return the coordinates (n, 2) of all objects, given their features in blocks.

    Parameters
    ----------
    blocks : iterable of array of float32, shape (m, D)
        Consecutive rows of the feature matrix; only one block is held at a time.
    axes : PrincipalAxes
    """
    places = [axes.project(block) for block in blocks]
    return np.concatenate(places) if places else np.empty((0, 2), np.float32)

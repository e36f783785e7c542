"""Properties of objects for a forest: shape, brightness, texture and the ring around; nothing that tells where it lies.

Lengths are in pixels. Columns, in this order:

shape
    ``size`` (voxels), ``extent`` (share of the box that is filled), ``axis_1`` ≥ ``axis_2`` (≥ ``axis_3``) (deviations
    along the principal axes), ``elongation`` (last axis over first), ``surface`` (faces between the object and anything
    else), ``compactness`` (surface over that of a cube of equal size), ``radius_mean``, ``radius_sd``, ``radius_max``
    (distances from the centroid), ``roundness`` (size over the ball of the largest radius).
brightness, for each channel
    ``mean``, ``sd``, ``skew``, ``p0``, ``p5``, ``p25``, ``p50``, ``p75``, ``p95``, ``p100`` (percentiles),
    ``concentration`` (mean radius weighted by brightness above the least, over the mean radius).
ring, for each channel
    ``ring_mean``, ``ring_sd`` of the pixels up to 5 px outside the object that belong to no other, ``contrast``
    (mean minus ring), ``ratio`` (mean over ring).
texture, for each channel
    mean and deviation inside the object of ``gradient`` (magnitude) and ``blob`` (Laplacian) at scales of 1 and 2 px.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import gaussian_gradient_magnitude, gaussian_laplace
from skimage.segmentation import expand_labels

from svetlana_jupyter.core.blocks import SIDES, block_sides, group_by_block, read
from svetlana_jupyter.core.normalize import finite

if TYPE_CHECKING:
    from svetlana_jupyter.core.pairing import ImagePair

Floats = NDArray[np.float64]

RING = 5
SCALES = (1, 2)
# As far as anything looks: another object may be as far from a ring's pixel as that is from its own, and scipy cuts its
# kernels at four deviations.
HALO = max(2 * RING, 4 * max(SCALES)) + 1
PERCENTILES = (0, 5, 25, 50, 75, 95, 100)


def measure(pair: ImagePair, objects: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Measure objects, block after block.

    Parameters
    ----------
    pair : ImagePair
    objects : DataFrame
        Rows of `core.objects.index_objects`.

    Yields
    ------
    DataFrame
        One row an object, index ``object``, float64 columns as this module's first lines list them. Every value is
        finite; what cannot be computed (the ring of an object without surroundings) is 0.
    """
    axes = "zyx"[-pair.ndim :]
    centers = objects[list(axes)].to_numpy(float)
    first = objects[[f"{axis}0" for axis in axes]].to_numpy(np.int64)
    last = objects[[f"{axis}1" for axis in axes]].to_numpy(np.int64)
    labels = objects.index.to_numpy(np.int64)
    shape = np.array(pair.mask.shape)
    for members in group_by_block(centers, block_sides(pair.image, pair.mask)):
        low = np.maximum(first[members].min(axis=0) - HALO, 0)
        high = np.minimum(last[members].max(axis=0) + HALO, shape)
        pixels, mask = read(pair.image, low, high, "zeros"), read(pair.mask, low, high, "zeros")
        # A file without chunks is read whole, but filtered in parts.
        for some in group_by_block(centers[members], SIDES[pair.ndim]):
            some = members[some]
            begin = np.maximum(first[some].min(axis=0) - HALO, 0) - low
            end = np.minimum(last[some].max(axis=0) + HALO, shape) - low
            window = tuple(map(slice, begin, end))
            yield _measured(pixels[(slice(None), *window)], mask[window], np.sort(labels[some]), pair.channels)


def cut_features(pair: ImagePair, objects: pd.DataFrame) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield what `measure` yields as labels (n,) and values (n, features)."""
    for table in measure(pair, objects):
        yield table.index.to_numpy(np.int64), table.to_numpy(np.float32)


@dataclass(frozen=True)
class _Members:
    """Pixels sorted by the object they belong to.

    Parameters
    ----------
    at : int array of shape (m,)
        Flat positions in the block.
    owner : int array of shape (m,)
        Ascending positions in the list of objects.
    counts, starts : int array of shape (n,)
    """

    at: NDArray[np.int64]
    owner: NDArray[np.int64]
    counts: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, mask: NDArray[Any], labels: NDArray[np.int64]) -> _Members:
        flat = mask.ravel()
        at = np.flatnonzero(flat)
        owner = np.minimum(np.searchsorted(labels, flat[at]), len(labels) - 1)
        known = labels[owner] == flat[at]
        at, owner = at[known], owner[known]
        order = np.argsort(owner, kind="stable")
        counts = np.bincount(owner, minlength=len(labels))
        return cls(at[order], owner[order], counts, np.cumsum(counts) - counts)

    def mean(self, values: Floats) -> Floats:
        """Return the mean by object of one value a pixel, 0 where an object has no pixel."""
        sums = np.bincount(self.owner, weights=values, minlength=len(self.counts))
        return sums / np.maximum(self.counts, 1)

    def deviation(self, values: Floats) -> Floats:
        return np.sqrt(self.mean((values - self.mean(values)[self.owner]) ** 2))

    def percentiles(self, values: Floats) -> Floats:
        """Return (n, len(PERCENTILES)); every object must have a pixel."""
        ordered = values[np.lexsort([values, self.owner])]
        ranks = np.array(PERCENTILES) / 100 * (self.counts[:, None] - 1)
        below = np.floor(ranks).astype(np.int64)
        above = np.minimum(below + 1, self.counts[:, None] - 1)
        lower, upper = ordered[self.starts[:, None] + below], ordered[self.starts[:, None] + above]
        return np.asarray(lower + (upper - lower) * (ranks - below))


def _measured(
    pixels: NDArray[Any], mask: NDArray[Any], labels: NDArray[np.int64], channels: tuple[str, ...]
) -> pd.DataFrame:
    inside = _Members.of(mask, labels)
    ring_mask = expand_labels(mask, RING)
    ring_mask[mask != 0] = 0
    ring = _Members.of(ring_mask, labels)
    columns, radius = _shape(mask, inside)
    for channel, plane in zip(channels, pixels, strict=True):
        values = _brightness(finite(plane), inside, ring, radius)
        columns |= {f"{channel}_{name}": value for name, value in values.items()}
    return pd.DataFrame(columns, index=pd.Index(labels, name="object"))


def _shape(mask: NDArray[Any], inside: _Members) -> tuple[dict[str, Floats], Floats]:
    """Return columns, and for every pixel its distance from the centroid."""
    ndim, size = mask.ndim, inside.counts.astype(float)
    positions = np.array(np.unravel_index(inside.at, mask.shape), float)
    centered = np.array([axis - inside.mean(axis)[inside.owner] for axis in positions])
    # A pixel is a little cube: its own second moment keeps flat objects from having no width.
    covariance = np.array([[inside.mean(a * b) for b in centered] for a in centered]).transpose(2, 0, 1)
    axes = np.sqrt(np.linalg.eigvalsh(covariance + np.eye(ndim) / 12))[:, ::-1]
    boxes = [
        np.maximum.reduceat(axis, inside.starts) - np.minimum.reduceat(axis, inside.starts) + 1 for axis in positions
    ]
    radius = np.sqrt((centered**2).sum(axis=0))
    largest = np.maximum.reduceat(radius, inside.starts) + 0.5
    ball = math.pi ** (ndim / 2) / math.gamma(ndim / 2 + 1)
    surface = inside.mean(_faces(mask)[inside.at]) * size
    columns = {"size": size, "extent": size / np.prod(boxes, axis=0)}
    columns |= {f"axis_{number}": axes[:, number - 1] for number in range(1, ndim + 1)}
    columns |= {
        "elongation": axes[:, -1] / axes[:, 0],
        "surface": surface,
        "compactness": surface / (2 * ndim * size ** ((ndim - 1) / ndim)),
        "radius_mean": inside.mean(radius),
        "radius_sd": inside.deviation(radius),
        "radius_max": largest,
        "roundness": size / (ball * largest**ndim),
    }
    return columns, radius


def _faces(mask: NDArray[Any]) -> Floats:
    """Return, for each pixel, how many of its faces touch another label or the border; flat."""
    faces = np.zeros(mask.shape)
    for axis in range(mask.ndim):
        padded = np.pad(mask, [(1, 1) if other == axis else (0, 0) for other in range(mask.ndim)])
        differs = np.diff(padded, axis=axis) != 0
        faces += np.take(differs, range(mask.shape[axis]), axis) + np.take(
            differs, range(1, mask.shape[axis] + 1), axis
        )
    return faces.ravel()


def _brightness(plane: NDArray[np.float32], inside: _Members, ring: _Members, radius: Floats) -> dict[str, Floats]:
    """Return the columns of one channel."""
    values = plane.ravel()[inside.at].astype(float)
    around = plane.ravel()[ring.at].astype(float)
    mean, sd = inside.mean(values), inside.deviation(values)
    percentiles = inside.percentiles(values)
    above = values - percentiles[inside.owner, 0]
    ring_mean = ring.mean(around)
    columns = {
        "mean": mean,
        "sd": sd,
        "skew": _over(inside.mean((values - mean[inside.owner]) ** 3), sd**3),
        **{f"p{rank}": percentiles[:, number] for number, rank in enumerate(PERCENTILES)},
        "concentration": _over(inside.mean(above * radius), inside.mean(above) * inside.mean(radius)),
        "ring_mean": ring_mean,
        "ring_sd": ring.deviation(around),
        "contrast": np.where(ring.counts > 0, mean - ring_mean, 0.0),
        "ratio": _over(mean, ring_mean),
    }
    for scale in SCALES:
        for name, filtered in (
            ("gradient", gaussian_gradient_magnitude(plane, scale)),
            ("blob", gaussian_laplace(plane, scale)),
        ):
            here = filtered.ravel()[inside.at].astype(float)
            columns[f"{name}_{scale}"], columns[f"{name}_{scale}_sd"] = inside.mean(here), inside.deviation(here)
    return columns


def _over(value: Floats, by: Floats) -> Floats:
    """Return ``value / by``, 0 where that is undefined."""
    small = np.abs(by) < 1e-9
    return np.where(small, 0.0, value / np.where(small, 1.0, by))

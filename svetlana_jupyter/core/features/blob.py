"""Blob features of objects: small structures at several scales.

An object is smoothed by Gaussians of growing width, each pixel becoming the weighted mean of the object's own pixels
(normalized convolution). Statistics of the differences between successive blurs, with their highest peaks and deepest
pits, and of the curvature and slope of each blur, describe small structures such as spots, dark inclusions and edges.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from svetlana_jupyter.core.features.patch_boxes import Bools, Floats, iter_boxes, subtract_mean
from svetlana_jupyter.core.features.patch_catalog import PEAKS, RANKS, SCALES, blob_names

TRUNCATE = 3  # standard deviations beyond which a blur is cut off
STACK_PIXELS = 1 << 17  # per channel in a stack of objects, so that the stack fits into the processor's cache
BORDER = 2  # pixels of 0 around each bounding box, so that derivatives need no special case
LEAST_COVERAGE = 0.05  # least sum of weights of a normalized convolution
LEAST_SD = 1e-2  # least standard deviation of an object in its logarithm; the sample of objects has 1
MAX_SKEWNESS = 8.0
# Shares of an object that must remain without its outermost pixels; otherwise, they are not left out.
MIN_INNER, MIN_CORE = 0.4, 0.3
NEARBY = 2  # a peak is higher than all pixels up to this many pixels away along each axis


def blob_features(patches: Floats, masks: Bools) -> Floats:
    """Compute the blob features of object patches.

    Parameters
    ----------
    patches : float32 of shape (n, c, [side,] side, side)
        Channels with standard deviation 1 over all objects, from `core.features.object_patches.iter_patches`.
    masks : bool of shape (n, [side,] side, side)
        The object's own pixels; the others are ignored.

    Returns
    -------
    float32 of shape (n, c, len(blob_names(ndim)))
        NaN for an object with NaN or infinite pixels, and for an empty mask.
    """
    result = np.full((*patches.shape[:2], len(blob_names(masks.ndim - 1))), np.nan, np.float32)
    for rows, pixels, own in iter_boxes(patches, masks, STACK_PIXELS):
        result[rows] = _Stack(pixels, own).features()
    return result


class _Pixels:
    """Positions of some pixels of each object in a padded stack.

    Arrays have as many columns as the largest object has pixels; the rest of a row is filled up.
    """

    def __init__(self, chosen: Bools) -> None:
        ranks = RANKS[chosen.ndim - 1].values()
        flat = chosen.reshape(len(chosen), -1)
        counts = np.count_nonzero(flat, axis=1)
        inside = np.arange(counts.max()) < counts[:, None]
        self.counts = counts.astype(np.float32)
        self.at = np.zeros(inside.shape, np.int64)  # position 0 is a border pixel
        self.at[inside] = np.flatnonzero(flat)
        self.positions = self.at[inside]
        self.inside = inside.astype(np.float32)
        self._beyond = np.where(inside, np.float32(0), np.float32(np.inf))
        self._ranks = [counts - 1 - np.rint((counts - 1) * share).astype(int) for share in ranks]

    def of(self, stack: Floats) -> Floats:
        """Return the values of a stack (c, ...) at the pixels, (c, n, columns)."""
        return np.take(stack.reshape(len(stack), -1), self.at, axis=1)

    def statistics(self, values: Floats) -> list[Floats]:
        """Return the statistics of values (c, n, columns), each (c, n).

        The values are overwritten.
        """
        values *= self.inside
        mean = values.sum(axis=2) / self.counts
        residual = values - mean[..., None]
        residual *= self.inside
        squared = residual * residual
        sd = np.sqrt(np.maximum(squared.sum(axis=2) / self.counts, 1e-12))
        cubes = np.einsum("cnk,cnk->cn", squared, residual) / self.counts
        skewness = np.clip(cubes / (sd**3 + 1e-6), -MAX_SKEWNESS, MAX_SKEWNESS)
        values += self._beyond
        values.sort(axis=2)
        ranked = [values[:, np.arange(len(ranks)), ranks] for ranks in self._ranks]
        return [mean, sd, skewness, *ranked]

    def peaks(self, values: Floats, highest_nearby: Floats) -> list[Floats]:
        """Return the heights of the peaks of `PEAKS`, at least the mean, each (c, n)."""
        mean = (values * self.inside).sum(axis=2) / self.counts
        heights = np.where((values == highest_nearby) & (self.inside > 0), values, -np.inf)
        heights.sort(axis=2)
        last = heights.shape[2] - 1
        return [np.maximum(heights[..., last - rank], mean) if rank <= last else mean for rank in PEAKS]


class _Stack:
    """Objects in boxes of the same side.

    Parameters
    ----------
    pixels : float32 of shape (c, n, [side,] side, side)
        0 outside the objects; overwritten.
    own : bool of shape (n, [side,] side, side)
    """

    def __init__(self, pixels: Floats, own: Bools) -> None:
        self._ndim, self._side, weights = own.ndim - 1, own.shape[1], own.astype(np.float32)
        self._padding = [(BORDER, BORDER)] * self._ndim
        self._own = np.pad(weights, [(0, 0), *self._padding])
        self._mean, self._sd = subtract_mean(pixels, own)
        self._pixels, self._weights = pixels, weights
        inner = self._erode(1, self._own > 0, MIN_INNER)
        self._inner, self._core = _Pixels(inner), _Pixels(self._erode(2, inner, MIN_CORE))
        shape = (len(pixels), *self._own.shape)
        self._lowest, self._highest = np.full(shape, -np.inf, np.float32), np.full(shape, np.inf, np.float32)

    def _erode(self, width: int, otherwise: Bools, least: float) -> Bools:
        """Erode the masks, except those of which less than a share would remain."""
        eroded = self._nearby(self._own, width, highest=False) > 0
        remaining, whole = (np.count_nonzero(masks.reshape(len(masks), -1), axis=1) for masks in (eroded, self._own))
        kept = np.expand_dims(remaining >= least * whole, tuple(range(1, eroded.ndim)))
        return np.where(kept, eroded, otherwise)

    def _nearby(self, stack: Floats, reach: int, *, highest: bool) -> Floats:
        """Return the highest or lowest value of the square or cube around each pixel."""
        square, extreme = np.ones((2 * reach + 1,) * 2, np.uint8), np.maximum if highest else np.minimum
        montage = stack.reshape(-1, stack.shape[-1])
        planes = np.asarray(cv2.dilate(montage, square) if highest else cv2.erode(montage, square), np.float32)
        planes = planes.reshape(stack.shape)
        if self._ndim == 2:
            return planes
        result = planes.copy()
        for shift in range(1, reach + 1):
            extreme(result[..., shift:, :, :], planes[..., :-shift, :, :], out=result[..., shift:, :, :])
            extreme(result[..., :-shift, :, :], planes[..., shift:, :, :], out=result[..., :-shift, :, :])
        return result

    def features(self) -> Floats:
        """Return the features (n, c, len(blob_names(ndim)))."""
        features = [self._mean, np.log(np.maximum(self._sd, LEAST_SD))]
        finer = self._inner.of(np.pad(self._pixels, [(0, 0), (0, 0), *self._padding]))
        for scale in SCALES[self._ndim]:
            coverage = np.maximum(self._blur(self._weights, scale), LEAST_COVERAGE)
            smooth = self._blur(self._pixels, scale)
            smooth *= self._own / coverage
            coarser = self._inner.of(smooth)
            features += self._detail(finer - coarser)
            finer = coarser
            for values in self._derivatives(smooth):
                values *= scale
                features += self._core.statistics(values)
        return np.stack(features, axis=2).swapaxes(0, 1)

    def _blur(self, stack: Floats, scale: float) -> Floats:
        """Blur the boxes (..., [side,] side, side), with the border added."""
        weights = _gaussian_matrix(self._side, scale)
        blurred = np.matmul(weights, np.matmul(stack, weights.T))
        if self._ndim == 3:
            lines = blurred.reshape(*blurred.shape[:-2], -1)
            blurred = np.matmul(weights, lines).reshape(*lines.shape[:-2], *(len(weights),) * 3)
        return np.asarray(blurred, np.float32)

    def _detail(self, values: Floats) -> list[Floats]:
        """Return statistics, peaks and pits of the detail at the inner pixels."""
        peaks: list[Floats] = []
        for canvas, sign in ((self._lowest, 1), (self._highest, -1)):
            canvas.reshape(len(canvas), -1)[:, self._inner.positions] = values[:, self._inner.inside > 0]
            extremes = self._inner.of(self._nearby(canvas, NEARBY, highest=sign > 0))
            peaks += self._inner.peaks(sign * values, sign * extremes)
        return [*self._inner.statistics(values), *peaks]

    def _derivatives(self, smooth: Floats) -> list[Floats]:
        """Return curvatures (in 2D both, in 3D their sum) and slope at the core pixels."""
        flat, side = smooth.reshape(len(smooth), -1), smooth.shape[-1]
        strides = [side**power for power in range(self._ndim)]
        slopes = [_slope(flat, stride) for stride in strides]
        curvatures = [self._core.of(_slope(slope, stride)) for slope, stride in zip(slopes, strides, strict=True)]
        steepness = np.sqrt(sum(np.square(self._core.of(slope)) for slope in slopes))
        if self._ndim == 3:
            return [sum(curvatures[1:], curvatures[0]), steepness]
        mean, half = (curvatures[0] + curvatures[1]) / 2, (curvatures[0] - curvatures[1]) / 2
        spread = np.sqrt(np.square(half) + np.square(self._core.of(_slope(slopes[0], side))))
        return [mean + spread, mean - spread, steepness]


def _slope(flat: Floats, stride: int) -> Floats:
    """Return central differences of a flat stack; meaningless in its border."""
    result = np.zeros_like(flat)
    np.subtract(flat[:, 2 * stride :], flat[:, : -2 * stride], out=result[:, stride:-stride])
    result *= 0.5
    return result


@lru_cache(maxsize=64)
def _gaussian_matrix(side: int, scale: float) -> Floats:
    """Return the matrix that blurs a line of pixels and adds a border of 0.

    The matrix has shape (side + 2 BORDER, side).
    """
    reach = max(1, round(TRUNCATE * scale))
    kernel = np.exp(-(np.arange(-reach, reach + 1.0) ** 2) / (2 * scale**2))
    distance = np.abs(np.arange(side)[:, None] - np.arange(side))
    weights = np.where(distance <= reach, np.exp(-(distance**2) / (2 * scale**2)), 0) / kernel.sum()
    return np.pad(weights, [(BORDER, BORDER), (0, 0)]).astype(np.float32)

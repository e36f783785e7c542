"""Blob features of objects: small structures at several scales.

An object is smoothed by Gaussians of growing width, each pixel becoming the weighted mean of the object's own pixels
(normalized convolution). Statistics of the differences between successive blurs, with their highest peaks and deepest
pits, and of the curvature and slope of each blur, describe small structures such as spots, dark inclusions and edges.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]

SCALES = (0.8, 1.6, 3.2, 6.4)  # standard deviations of the blurs, in patch pixels
TRUNCATE = 3  # standard deviations beyond which a blur is cut off
BOX_STEP = 8  # objects whose bounding boxes are equally long up to this many pixels are computed together
STACK_PIXELS = 1 << 17  # per channel in a stack of objects, so that the stack fits into the processor's cache
BORDER = 2  # pixels of 0 around each bounding box, so that derivatives need no special case
LEAST_COVERAGE = 0.05  # least sum of weights of a normalized convolution
LEAST_SD = 1e-2  # least standard deviation of an object in its logarithm; the sample of objects has 1
MAX_SKEWNESS = 8.0
ROUNDING = 1e-5  # standard deviation up to which an object counts as uniform
# Shares of an object that must remain without its outermost pixels; otherwise, they are not left out.
MIN_INNER, MIN_CORE = 0.4, 0.3
PEAKS = (1, 2, 4)  # ranks of the peaks besides the highest one
RANKS = {"max": 0.0, "p98": 0.02, "p2": 0.98, "min": 1.0}  # share of the pixels that are higher

_STATISTICS = ("mean", "sd", "skewness", *RANKS)
_PEAKS = tuple(f"{kind}_{rank + 1}" for kind in ("peak", "pit") for rank in PEAKS)
_DERIVATIVES = ("curvature_max", "curvature_min", "slope")
# Names of the features of one channel, in order.
BLOB_NAMES = (
    "mean",
    "log_sd",
    *(
        f"{kind}_{scale:g}_{statistic}"
        for scale in SCALES
        for kind in ("detail", *_DERIVATIVES)
        for statistic in (_STATISTICS + _PEAKS if kind == "detail" else _STATISTICS)
    ),
)


def blob_features(patches: Floats, masks: Bools) -> Floats:
    """Compute the blob features of object patches.

    Parameters
    ----------
    patches : float32 of shape (n, c, side, side)
        Channels with standard deviation 1 over all objects, from `core.features.object_patches.iter_patches`.
    masks : bool of shape (n, side, side)
        The object's own pixels; the others are ignored.

    Returns
    -------
    float32 of shape (n, c, len(BLOB_NAMES))
        NaN for an object with NaN pixels, and for an empty mask.
    """
    n, channels = patches.shape[:2]
    result = np.full((n, channels, len(BLOB_NAMES)), np.nan, np.float32)
    usable = np.flatnonzero(masks.any(axis=(1, 2)) & np.isfinite(patches.sum(axis=(1, 2, 3), where=masks[:, None])))
    low, boxes = _bounding_boxes(masks[usable])
    # Objects of similar size are computed together.
    order = np.lexsort((np.count_nonzero(masks[usable], axis=(1, 2)), boxes))
    for some in np.split(order, np.flatnonzero(np.diff(boxes[order])) + 1):
        if not len(some):
            continue
        side = int(boxes[some[0]])
        count = max(1, STACK_PIXELS // (side + 2 * BORDER) ** 2)
        for part in np.split(some, range(count, len(some), count)):
            pixels, own = _crop_boxes(patches, masks, usable[part], low[part], side)
            result[usable[part]] = _Stack(pixels, own).features()
    return result


def _bounding_boxes(masks: Bools) -> tuple[Integers, Integers]:
    """Return the first pixel (n, 2) and the side (n,) of a square around each mask."""
    low, high = [], []
    for axis in (2, 1):
        seen: Bools = np.any(masks, axis=axis)
        low.append(seen.argmax(axis=1))
        high.append(seen.shape[1] - seen[:, ::-1].argmax(axis=1))
    sides = np.max(np.subtract(high, low), axis=0)
    return np.stack(low, axis=1), -(-sides // BOX_STEP) * BOX_STEP


def _crop_boxes(patches: Floats, masks: Bools, rows: Integers, low: Integers, side: int) -> tuple[Floats, Bools]:
    """Return squares around the objects, and their masks.

    Pixels have shape (c, n, side, side) and are 0 outside the object; masks have shape (n, side, side).
    """
    pixels = np.zeros((patches.shape[1], len(rows), side, side), np.float32)
    own = np.zeros((len(rows), side, side), bool)
    for number, (row, (y, x)) in enumerate(zip(rows, low, strict=True)):
        part = masks[row, y : y + side, x : x + side]
        own[number, : part.shape[0], : part.shape[1]] = part
        np.copyto(
            pixels[:, number, : part.shape[0], : part.shape[1]], patches[row, :, y : y + side, x : x + side], where=part
        )
    return pixels, own


class _Pixels:
    """Positions of some pixels of each object in a padded stack.

    Arrays have as many columns as the largest object has pixels; the rest of a row is filled up.
    """

    def __init__(self, chosen: Bools) -> None:
        flat = chosen.reshape(len(chosen), -1)
        counts = np.count_nonzero(flat, axis=1)
        inside = np.arange(counts.max()) < counts[:, None]
        self.counts = counts.astype(np.float32)
        self.at = np.zeros(inside.shape, np.int64)  # position 0 is a border pixel
        self.at[inside] = np.flatnonzero(flat)
        self.positions = self.at[inside]
        self.inside = inside.astype(np.float32)
        self._beyond = np.where(inside, np.float32(0), np.float32(np.inf))
        self._ranks = [counts - 1 - np.rint((counts - 1) * share).astype(int) for share in RANKS.values()]

    def of(self, stack: Floats) -> Floats:
        """Return the values of a stack (c, ...) at the pixels, (c, n, columns)."""
        return np.take(stack.reshape(len(stack), -1), self.at, axis=1)

    def statistics(self, values: Floats) -> list[Floats]:
        """Return the statistics `_STATISTICS` of values (c, n, columns), each (c, n).

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
    pixels : float32 of shape (c, n, side, side)
        0 outside the objects; overwritten.
    own : bool of shape (n, side, side)
    """

    def __init__(self, pixels: Floats, own: Bools) -> None:
        self._side, weights = own.shape[1], own.astype(np.float32)
        self._padded = self._side + 2 * BORDER
        self._own = np.pad(weights, [(0, 0), (BORDER, BORDER), (BORDER, BORDER)])
        counts = weights.sum(axis=(1, 2))
        self._mean = pixels.sum(axis=(2, 3)) / counts
        pixels -= self._mean[..., None, None]
        pixels *= weights
        self._pixels, self._weights = pixels, weights
        self._sd = np.sqrt(np.einsum("cnyx,cnyx->cn", pixels, pixels) / counts)
        pixels[self._sd <= ROUNDING * (1 + np.abs(self._mean))] = 0  # rounding errors would reveal the outline
        inner = self._eroded(1, self._own > 0, MIN_INNER)
        self._inner, self._core = _Pixels(inner), _Pixels(self._eroded(2, inner, MIN_CORE))
        shape = (len(pixels), len(own) * self._padded**2)
        self._lowest, self._highest = np.full(shape, -np.inf, np.float32), np.full(shape, np.inf, np.float32)

    def _eroded(self, width: int, otherwise: Bools, least: float) -> Bools:
        """Erode the masks, except those of which less than a share would remain."""
        montage = self._own.reshape(-1, self._padded)
        eroded = cv2.erode(montage, np.ones((2 * width + 1,) * 2, np.uint8)).reshape(self._own.shape) > 0
        remaining, whole = (np.count_nonzero(masks.reshape(len(masks), -1), axis=1) for masks in (eroded, self._own))
        return np.where((remaining >= least * whole)[:, None, None], eroded, otherwise)

    def features(self) -> Floats:
        """Return the features (n, c, len(BLOB_NAMES))."""
        features = [self._mean, np.log(np.maximum(self._sd, LEAST_SD))]
        finer = self._inner.of(np.pad(self._pixels, [(0, 0), (0, 0), (BORDER, BORDER), (BORDER, BORDER)]))
        for scale in SCALES:
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
        """Blur the boxes (..., side, side), with the border added."""
        weights = _gaussian_matrix(self._side, scale)
        return np.asarray(np.matmul(np.matmul(weights, stack), weights.T), np.float32)

    def _detail(self, values: Floats) -> list[Floats]:
        """Return statistics, peaks and pits of the detail at the inner pixels."""
        peaks, square = [], np.ones((5, 5), np.uint8)
        for canvas, nearby, sign in ((self._lowest, cv2.dilate, 1), (self._highest, cv2.erode, -1)):
            canvas[:, self._inner.positions] = values[:, self._inner.inside > 0]
            extremes = self._inner.of(nearby(canvas.reshape(-1, self._padded), square).reshape(canvas.shape))
            peaks += self._inner.peaks(sign * values, sign * extremes)
        return [*self._inner.statistics(values), *peaks]

    def _derivatives(self, smooth: Floats) -> list[Floats]:
        """Return both principal curvatures, and the slope, at the core pixels."""
        flat = smooth.reshape(len(smooth), -1)
        right, down = (_slope(flat, stride) for stride in (1, self._padded))
        pairs = ((right, 1), (right, self._padded), (down, self._padded))
        xx, xy, yy = (self._core.of(_slope(*given)) for given in pairs)
        right, down = self._core.of(right), self._core.of(down)
        mean, half = (xx + yy) / 2, (xx - yy) / 2
        spread = np.sqrt(half * half + xy * xy)
        return [mean + spread, mean - spread, np.sqrt(right * right + down * down)]


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

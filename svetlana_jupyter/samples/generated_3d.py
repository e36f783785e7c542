"""A volume with a tube and somites on both sides: two tissues of nuclei, as in figure 5 of the Svetlana paper."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from svetlana_jupyter.samples.sample import Point, Sample, scatter, window

NAMES = ("tube", "somite")
HALF_AXES = np.array([(2.6, 3.0, 5.2), (3.1, 3.9, 3.9)])  # of a nucleus, (z, y, x); the tube's are drawn out along x
GRAIN = (1.0, 1.6)  # blur of the chromatin texture
TUBE_SHARE = 0.381
BLOCK, BLOCK_GAP = 66, 9  # somites along y, pixels


def tube_and_somites(
    seed: int, shape: tuple[int, int, int] = (64, 200, 256), count: int = 900, equal_axes: bool = False
) -> Sample:
    """Make a volume of nuclei: drawn out and fine-grained in a tube, round and coarse-grained in blocks beside it.

    Parameters
    ----------
    seed : int
    shape : tuple of int
        Planes, rows and columns. The paper's volume is ``(158, 232, 624)`` with 26,214 nuclei.
    count : int
        Number of nuclei asked; those that find no place are left out.
    equal_axes : bool
        Make the tube's nuclei round as well, so that within a nucleus only the grain tells.
    """
    rng = np.random.default_rng(seed)
    classes = (rng.random(count) >= TUBE_SHARE).astype(np.int64)
    half_axes = HALF_AXES[np.ones_like(classes) if equal_axes else classes] * rng.normal(1, 0.1, (count, 3)).clip(
        0.7, 1.3
    )
    width = shape[2]

    def in_its_tissue(index: int, point: Point) -> bool:
        aside = abs(point[2] - width / 2) / width
        if classes[index] == 0:
            return bool(aside < 0.13)
        return bool(0.19 <= aside <= 0.42 and point[1] % (BLOCK + BLOCK_GAP) < BLOCK)

    centers = scatter(rng, half_axes.mean(1), shape, gap=1, max_tries=400, allowed=in_its_tissue)
    placed = np.flatnonzero(~np.isnan(centers[:, 0]))
    grains = [_grain(rng.standard_normal(shape), blur) for blur in GRAIN]
    volume = np.full(shape, 10.0)
    mask = np.zeros(shape, np.uint16)
    for label, index in enumerate(placed, 1):
        there, offsets = window(centers[index], half_axes[index].max(), shape)
        distance = sum((offset / half) ** 2 for offset, half in zip(offsets, half_axes[index]))
        inside = (distance <= 1) & (mask[there] == 0)
        mask[there][inside] = label
        volume[there][inside] = 105 + 18 * grains[classes[index]][there][inside]
    volume = gaussian_filter(volume, (1.1, 0.7, 0.7)) * np.linspace(1, 0.7, shape[0])[:, None, None]
    volume += rng.normal(0, 4, shape)
    return Sample(np.clip(np.rint(volume), 0, 255).astype(np.uint8), mask, classes[placed], NAMES)


def _grain(noise: NDArray[np.float64], blur: float) -> NDArray[np.float64]:
    smooth = gaussian_filter(noise, blur)
    return np.asarray(smooth / smooth.std())

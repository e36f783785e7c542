"""Generated volume of the nuclei of a tube and somites.

It stands in for figure 5 of the Svetlana paper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter

from svetlana_jupyter.samples.sample import Field, Point, Sample, crop_around, place_objects

if TYPE_CHECKING:
    from numpy.random import Generator

NAMES = ("tube", "somite")
# Half axes of a nucleus by class, (z, y, x), in pixels; those of the tube are elongated along x.
HALF_AXES = np.array([(2.6, 3.0, 5.2), (3.1, 3.9, 3.9)])
CHROMATIN_BLUR = (1.0, 1.6)  # pixels, by class
TUBE_SHARE = 0.381  # of the nuclei
SOMITE_LENGTH, SOMITE_GAP = 66, 9  # along y, pixels


def tube_and_somites(
    seed: int, shape: tuple[int, int, int] = (64, 200, 256), count: int = 900, equal_axes: bool = False
) -> Sample:
    """Generate a volume of nuclei in a tube and in somites.

    Nuclei are elongated and fine-textured in the tube, round and coarse-textured in somites.

    Parameters
    ----------
    seed : int
    shape : tuple of int
        Planes, rows and columns. The volume of the paper is ``(158, 232, 624)`` with 26,214 nuclei.
    count : int
        Requested number of nuclei; those without a free position are left out.
    equal_axes : bool
        Make the nuclei of the tube round as well, so that only the texture within a nucleus differs.
    """
    rng = np.random.default_rng(seed)
    classes = (rng.random(count) >= TUBE_SHARE).astype(np.int64)
    size_factors = rng.normal(1, 0.1, (count, 3)).clip(0.7, 1.3)
    half_axes = HALF_AXES[np.ones_like(classes) if equal_axes else classes] * size_factors
    width = shape[2]

    def in_its_tissue(index: int, point: Point) -> bool:
        from_axis = abs(point[2] - width / 2) / width
        if classes[index] == 0:
            return bool(from_axis < 0.13)
        return bool(0.19 <= from_axis <= 0.42 and point[1] % (SOMITE_LENGTH + SOMITE_GAP) < SOMITE_LENGTH)

    centers = place_objects(rng, half_axes.mean(1), shape, gap=1, max_tries=400, allowed=in_its_tissue)
    placed = np.flatnonzero(~np.isnan(centers[:, 0]))
    textures = [_blurred_noise(rng, shape, blur) for blur in CHROMATIN_BLUR]
    volume = np.full(shape, 10.0)
    mask = np.zeros(shape, np.uint16)
    for label, index in enumerate(placed, 1):
        crop, offsets = crop_around(centers[index], half_axes[index].max(), shape)
        distance = sum((offset / half) ** 2 for offset, half in zip(offsets, half_axes[index]))
        inside = (distance <= 1) & (mask[crop] == 0)
        mask[crop][inside] = label
        volume[crop][inside] = 105 + 18 * textures[classes[index]][crop][inside]
    # Optical blur, and light lost with depth.
    volume = gaussian_filter(volume, (1.1, 0.7, 0.7)) * np.linspace(1, 0.7, shape[0])[:, None, None]
    volume += rng.normal(0, 4, shape)
    return Sample(np.clip(np.rint(volume), 0, 255).astype(np.uint8), mask, classes[placed], NAMES)


def _blurred_noise(rng: Generator, shape: tuple[int, ...], blur: float) -> Field:
    smooth = gaussian_filter(rng.standard_normal(shape), blur)
    return np.asarray(smooth / smooth.std())

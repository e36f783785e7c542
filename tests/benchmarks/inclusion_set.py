"""Generated set of stained cells in groups, some with one small dark inclusion.

The stain differs between the groups, and the texture of the cells has dark spots, too, so that the darkest pixel and
the mean color of a cell say little. Labels are drawn from the first `LABELED_GROUPS` groups; the others are predicted.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from svetlana_jupyter.samples import Sample

GROUPS, LABELED_GROUPS, LABELS = 24, 8, 45
CELLS = 30  # per group
CELL, RADII = 52, (14.0, 20.0)  # pixels
STAIN = np.array((205.0, 140.0, 165.0))  # mean color of a cell
BACKGROUND, NOISE, BLUR = 235.0, 4.0, 0.8


def inclusion_set(seed: int = 0, groups: int = GROUPS, cells: int = CELLS) -> list[Sample]:
    """Generate one sample per group, with RGB images of shape (3, Y, X).

    Parameters
    ----------
    seed : int
    groups : int
        Number of samples.
    cells : int
        Number of cells per sample; two of five have an inclusion on average.
    """
    rng = np.random.default_rng(seed)
    return [_group(rng, cells) for _ in range(groups)]


def _group(rng: np.random.Generator, cells: int) -> Sample:
    side = int(np.ceil(np.sqrt(cells)))
    stain = STAIN * rng.uniform(0.75, 1.1) * rng.uniform(0.9, 1.1, 3)
    texture = rng.uniform(0.5, 1.5)
    image = np.full((3, side * CELL, side * CELL), BACKGROUND * rng.uniform(0.92, 1.05))
    mask = np.zeros(image.shape[1:], np.uint16)
    classes = (rng.random(cells) < 0.4).astype(np.int64)
    offsets = np.stack(np.meshgrid(*[np.arange(CELL) - (CELL - 1) / 2] * 2, indexing="ij"))
    for number, infected in enumerate(classes):
        corner = np.array(divmod(number, side)) * CELL
        window = tuple(slice(a, a + CELL) for a in corner)
        inside, density = _cell(rng, offsets, bool(infected), texture)
        absorbed = np.log(BACKGROUND / stain)[:, None, None] * density
        image[(slice(None), *window)][:, inside] = (BACKGROUND * np.exp(-absorbed))[:, inside]
        mask[window][inside] = number + 1
    image = gaussian_filter(image, (0, BLUR, BLUR)) + rng.normal(0, NOISE, image.shape)
    return Sample(np.clip(np.rint(image), 0, 255).astype(np.uint8), mask, classes, ("plain", "inclusion"))


def _cell(
    rng: np.random.Generator, offsets: np.ndarray, infected: bool, texture: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels of a cell and the density of its stain."""
    centered = offsets - rng.uniform(-3, 3, (2, 1, 1))
    angle, radius, ratio = rng.uniform(0, np.pi), rng.uniform(*RADII), rng.uniform(0.75, 1)
    along = centered[0] * np.cos(angle) + centered[1] * np.sin(angle)
    across = centered[1] * np.cos(angle) - centered[0] * np.sin(angle)
    distance = np.hypot(along, across / ratio) / radius
    inside = distance <= 1
    coarse, fine = (gaussian_filter(rng.standard_normal(inside.shape), blur) for blur in (4.0, 1.6))
    density = rng.uniform(0.85, 1.2) * (0.75 + 0.35 * distance**2)
    density += texture * (0.1 * coarse / coarse.std() + 0.05 * fine / fine.std())
    spots = [(rng.uniform(0.5, 1.0), rng.uniform(3.5, 5.0)) for _ in range(rng.integers(3))]  # broad, in both classes
    spots += [(rng.uniform(0.8, 1.3), rng.uniform(1.2, 1.6))] * infected
    reachable = np.argwhere(distance <= 0.8)
    for depth, width in spots:
        spot = offsets[:, *reachable[rng.integers(len(reachable))]]
        density += depth * np.exp(-((offsets - spot[:, None, None]) ** 2).sum(axis=0) / (2 * width**2))
    return inside, np.maximum(density, 0.05)

"""Objects in one plane whose classes differ in brightness, in the direction of their texture, or in a real texture.

The first two stand in for figures 3 c and 3 e of the Svetlana paper; the last defeats simple measurements.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, rotate
from scipy.special import ndtri

from svetlana_jupyter.core.samples.placing import scatter, window
from svetlana_jupyter.core.samples.sample import Sample

MEAN, DEVIATION = 128, 40  # of the texture in every disc
Field = NDArray[np.float64]


def gray_cells(seed: int, size: int = 1024, count: int = 200) -> Sample:
    """Make ellipses of two brightnesses (means 100 and 150, noise 12) over a dark background.

    Parameters
    ----------
    seed : int
    size : int
        Side of the square image, in pixels.
    count : int
        Number of objects asked; the few that find no place are left out.
    """
    rng = np.random.default_rng(seed)
    long = rng.uniform(12, 20, count)
    centers = scatter(rng, long, (size, size))
    placed = np.flatnonzero(~np.isnan(centers[:, 0]))
    classes = rng.integers(0, 2, len(placed))
    image = np.full((size, size), 30.0)
    mask = np.zeros((size, size), np.uint16)
    for label, (index, number) in enumerate(zip(placed, classes), 1):
        ratio, angle = rng.uniform(0.75, 1), rng.uniform(0, np.pi)
        there, (rows, columns) = window(centers[index], long[index], image.shape)
        along = columns * np.cos(angle) + rows * np.sin(angle)
        across = rows * np.cos(angle) - columns * np.sin(angle)
        inside = along**2 + (across / ratio) ** 2 <= long[index] ** 2
        mask[there][inside] = label
        image[there][inside] = (100, 150)[number]
    image = gaussian_filter(image, 0.7) + rng.normal(0, 12, image.shape)
    return Sample(_to_uint8(image), mask, classes, ("dark", "bright"))


def oriented_textures(seed: int, size: int = 1400, count: int = 400, turn: float = 0) -> Sample:
    """Make discs of drawn-out noise; the classes are the same texture turned by 90 degrees.

    Mean and deviation are the same in every disc. With ``turn=0`` the classes survive flips but not turns; with
    ``turn=45`` one flip swaps them.

    Parameters
    ----------
    seed, size, count
        As in `gray_cells`.
    turn : float
        Direction of the first class, in degrees.
    """
    rng = np.random.default_rng(seed)
    fields = [_turned_noise(rng, size, angle) for angle in (turn, turn + 90)]

    def fill(rng: Generator, number: int, there: tuple[slice, ...], inside: NDArray[np.bool_]) -> Field:
        values = fields[number][there][inside]
        texture: Field = MEAN + DEVIATION * (values - values.mean()) / values.std()
        return texture

    return _textured_discs(rng, size, count, fill, (f"{turn:g} degrees", f"{turn + 90:g} degrees"))


def real_textures(seed: int, size: int = 1400, count: int = 400) -> Sample:
    """Make discs of brick, grass and gravel, with the same distribution of grey values in every disc.

    The photographs are those inside scikit-image; discs are cut at random places and turned by quarters.
    Parameters as in `gray_cells`.
    """
    from skimage import data

    rng = np.random.default_rng(seed)
    photographs = (data.brick(), data.grass(), data.gravel())

    def fill(rng: Generator, number: int, there: tuple[slice, ...], inside: NDArray[np.bool_]) -> Field:
        photograph = np.rot90(photographs[number], int(rng.integers(4)))
        row, column = (rng.integers(side - part + 1) for side, part in zip(photograph.shape, inside.shape))
        values = photograph[row : row + inside.shape[0], column : column + inside.shape[1]][inside]
        ranks = np.argsort(np.argsort(values + rng.random(len(values))))  # equal grey values get ranks at random
        texture: Field = MEAN + DEVIATION * ndtri((ranks + 0.5) / len(ranks))
        return texture

    return _textured_discs(rng, size, count, fill, ("brick", "grass", "gravel"))


def _textured_discs(
    rng: Generator,
    size: int,
    count: int,
    fill: Callable[[Generator, int, tuple[slice, ...], NDArray[np.bool_]], Field],
    names: tuple[str, ...],
) -> Sample:
    radii = rng.uniform(18, 24, count)
    centers = scatter(rng, radii, (size, size))
    placed = np.flatnonzero(~np.isnan(centers[:, 0]))
    classes = rng.integers(0, len(names), len(placed))
    image = rng.normal(MEAN, 8, (size, size))
    mask = np.zeros((size, size), np.uint16)
    for label, (index, number) in enumerate(zip(placed, classes), 1):
        there, (rows, columns) = window(centers[index], radii[index], image.shape)
        inside = rows**2 + columns**2 <= radii[index] ** 2
        mask[there][inside] = label
        image[there][inside] = fill(rng, number, there, inside)
    return Sample(_to_uint8(image), mask, classes, names)


def _turned_noise(rng: Generator, size: int, angle: float) -> Field:
    """White noise drawn out along the rows, then turned; made larger so that no corner stays empty."""
    side = int(np.ceil(size * np.sqrt(2))) + 2
    noise = gaussian_filter(rng.standard_normal((side, side)), (1, 5))
    turned = rotate(noise, angle, reshape=False, order=1) if angle else noise
    start = (side - size) // 2
    return np.asarray(turned[start : start + size, start : start + size])


def _to_uint8(image: Field) -> NDArray[np.uint8]:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)

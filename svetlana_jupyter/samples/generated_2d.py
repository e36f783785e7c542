"""Objects in one plane whose classes differ in brightness, in the direction of their texture, or in a real texture.

The first two stand in for figures 3 c and 3 e of the Svetlana paper; the last defeats simple measurements.

Stripes, faint foci, and bright foci in 3D: two classes of equal brightness that only texture tells apart.

The arrays of a seed never change: other tools were timed on these, knowing the classes of some drawn labels:

=== =============================================================== ============= =========== =====
set call                                                            labels known  drawn with  patch
=== =============================================================== ============= =========== =====
a   ``stripes(seed=1, size=1024, count=500, step=42)``              45            seed 2      44
b   ``stripes(seed=2, size=4000, count=5000, step=54)``             none          -           44
c   ``bright_foci_3d(seed=3, shape=(128, 256, 256), count=400)``    60            seed 4      45
d   ``faint_foci(seed=4, size=1024, count=500, step=42)``           45            seed 5      44
=== =============================================================== ============= =========== =====

A whole well of osteoclast-like cells, as in figure 4 of the Svetlana paper, written block by block.

Every cell and every block has random numbers of its own, so that what a block shows does not depend on the others: the
memory needed is that of one block and the list of cells.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, rotate
from scipy.special import ndtri

from svetlana_jupyter.errors import InputError
from svetlana_jupyter.samples.sample import Point, Sample, StoredSample, scatter, window

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


Points = NDArray[np.int64]  # (n, dimensions), pixels
Cut = Callable[[Generator, NDArray[np.float64]], Points]
Texture = Callable[[Generator, Points, int], NDArray[np.float64]]


def stripes(seed: int, size: int = 256, count: int = 25, step: int = 42) -> Sample:
    """Make striped discs; the classes differ in the direction of the stripes alone.

    Parameters
    ----------
    seed : int
    size : int
        Side of the square image, in pixels.
    count : int
        Number of objects.
    step : int
        Distance between the places where objects may stand, in pixels.

    Raises
    ------
    InputError
        If the image has too few places for the objects.
    """
    return _discs(seed, size, count, step, _stripes, ("horizontal", "vertical"))


def faint_foci(seed: int, size: int = 256, count: int = 25, step: int = 42) -> Sample:
    """Make discs of varying brightness; one class has three faint foci, at equal mean. Parameters as in `stripes`."""
    return _discs(seed, size, count, step, _faint_foci, ("plain", "foci"))


def bright_foci_3d(seed: int, shape: tuple[int, int, int] = (48, 96, 96), count: int = 16) -> Sample:
    """Make ellipsoids in a volume; one class has four bright foci, at equal mean.

    Parameters
    ----------
    seed : int
    shape : tuple of int
        Planes, rows and columns of the volume.
    count : int
        Number of objects.

    Raises
    ------
    InputError
        If the volume has too few places for the objects.
    """
    rng = np.random.default_rng(seed)
    return _fill(rng, (600, 60), shape, count, (23, 1.5, 12), _ellipsoid, _bright_foci, ("plain", "foci"))


def draw_labels(mask: NDArray[Any], count: int, seed: int) -> list[int]:
    """Draw labels of a mask uniformly and without replacement, as those a person has annotated."""
    labels = np.unique(mask[mask > 0])
    return [int(label) for label in np.random.default_rng(seed).permutation(labels)[:count]]


def _discs(seed: int, size: int, count: int, step: int, texture: Texture, names: tuple[str, str]) -> Sample:
    return _fill(np.random.default_rng(seed), (1000, 60), (size, size), count, (step, 3, 22), _disc, texture, names)


def _fill(
    rng: Generator,
    background: tuple[float, float],
    shape: tuple[int, ...],
    count: int,
    lattice: tuple[int, float, int],
    cut: Cut,
    texture: Texture,
    names: tuple[str, str],
) -> Sample:
    """Paint objects over normal noise. The order of the random draws is part of what a seed means."""
    image = rng.normal(*background, shape).astype(np.float32)
    mask = np.zeros(shape, np.uint16)
    classes = rng.integers(0, 2, count)
    centers = _lattice_centers(rng, shape, count, *lattice)
    for label, (center, number) in enumerate(zip(centers, classes), 1):
        points = cut(rng, center)
        points = points[((points >= 0) & (points < shape)).all(1)]
        points = points[mask[tuple(points.T)] == 0]
        mask[tuple(points.T)] = label
        image[tuple(points.T)] = texture(rng, points, number)
    return Sample(np.clip(image, 0, 65535).astype(np.uint16), mask, classes, names)


def _lattice_centers(
    rng: Generator, shape: tuple[int, ...], count: int, step: int, jitter: float, margin: int
) -> NDArray[np.float64]:
    axes = [np.arange(margin, side - margin, step) for side in shape]
    places = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(shape)).astype(float)
    if len(places) < count:
        raise InputError(
            f"an image of shape {shape} has {len(places)} places for objects, {count} were asked: make it larger"
        )
    return places[rng.permutation(len(places))[:count]] + rng.uniform(-jitter, jitter, (count, len(shape)))


def _cube(center: NDArray[np.float64], half: int) -> Points:
    """All pixels of a cube round a centre, in row-major order."""
    axes = [np.arange(start, start + 2 * half + 1) for start in np.floor(center - half).astype(int)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(center))


def _disc(rng: Generator, center: NDArray[np.float64]) -> Points:
    radius = rng.uniform(10, 16)
    points = _cube(center, 18)
    inside: NDArray[np.bool_] = ((points - center) ** 2).sum(1) <= radius * radius
    return points[inside]


def _ellipsoid(rng: Generator, center: NDArray[np.float64]) -> Points:
    half_axes = rng.uniform(7, 10, 3)
    points = _cube(center, 12)
    inside: NDArray[np.bool_] = (((points - center) / half_axes) ** 2).sum(1) <= 1
    return points[inside]


def _stripes(rng: Generator, points: Points, number: int) -> NDArray[np.float64]:
    wave = np.sin(2 * np.pi * points[:, number] / 6 + rng.uniform(0, 6.28))
    return 2500 + 500 * wave + rng.normal(0, 250, len(points))


def _faint_foci(rng: Generator, points: Points, number: int) -> NDArray[np.float64]:
    level = _foci(rng, points, 2500, 3 * number, height=450, spread=8)
    return level * rng.uniform(0.8, 1.2) + rng.normal(0, 250, len(points))


def _bright_foci(rng: Generator, points: Points, number: int) -> NDArray[np.float64]:
    level = _foci(rng, points, 2000, 4 * number, height=1500, spread=6)
    return level + rng.normal(0, 150, len(points))


def _foci(rng: Generator, points: Points, mean: float, count: int, height: float, spread: float) -> NDArray[np.float64]:
    level = np.full(len(points), float(mean))
    if count:
        for spot in points[rng.integers(0, len(points), count)]:
            level += height * np.exp(-((points - spot) ** 2).sum(1) / spread)
        level += mean - level.mean()
    return level


NAMES = ("resting", "activated")
ACTIVATED_SHARE = 0.08
RADIUS = (19, 26)  # median of a class, pixels
SPREAD = (0.30, 0.35)  # of the radii, log-normal
WAVINESS = (0.10, 0.16)  # of the outline
COLOR = np.array([(185, 150, 175), (150, 110, 165)])
NUCLEI = ((1, 3), (4, 15))
GROUND = np.array((238, 222, 228))
OUTSIDE, RIM, NUCLEUS = np.array((120, 120, 120)), np.array((60, 55, 60)), np.array((70, 45, 110))
REACH = 1.6  # no outline is further from the centre than this many radii
BLOCK, CHUNK = 1000, 500


def osteoclast_well(
    folder: Path,
    seed: int = 0,
    size: int = 8000,
    count: int = 10_000,
    activated: float = ACTIVATED_SHARE,
    stain: tuple[float, float, float] = (1, 1, 1),
) -> StoredSample:
    """Write a stained well: a few large, many-nucleated activated cells among small resting ones.

    Parameters
    ----------
    folder : Path
        Gets ``image.zarr`` (c, y, x; uint8, red green blue) and ``mask.zarr`` (y, x). Must exist.
    seed : int
    size : int
        Side of the image, in pixels; the well's radius is 0.48 of it. 8000 takes about half a minute.
    count : int
        Number of cells asked; the few that find no place are left out.
    activated : float
        Probability of a cell to be an activated one.
    stain : three floats
        By how much more, or less, red, green and blue light are absorbed than usual (optical density), as by more dye,
        another dye or a thicker layer.
    """
    well = _Well(seed, size, count, activated, np.array(stain, float))
    places = {"image": ((3, size, size), ("c", "y", "x"), "uint8"), "mask": ((size, size), ("y", "x"), well.label_type)}
    stored = {
        name: zarr.create_array(
            folder / f"{name}.zarr",
            shape=shape,
            chunks=(3, CHUNK, CHUNK)[-len(shape) :],
            dtype=dtype,
            dimension_names=axes,
        )
        for name, (shape, axes, dtype) in places.items()
    }
    for top, left in itertools.product(range(0, size, BLOCK), repeat=2):
        there = slice(top, min(top + BLOCK, size)), slice(left, min(left + BLOCK, size))
        stored["image"][(slice(None), *there)], stored["mask"][there] = well.paint(there)
    return StoredSample(folder / "image.zarr", folder / "mask.zarr", well.classes[np.argsort(well.labels)], NAMES)


class _Well:
    """The cells of a well, largest first: a pixel belongs to the first cell that reaches it."""

    def __init__(self, seed: int, size: int, count: int, activated: float, stain: Field) -> None:
        rng = np.random.default_rng(seed)
        classes = (rng.random(count) < activated).astype(np.int64)
        radii = np.take(RADIUS, classes) * np.exp(np.take(SPREAD, classes) * rng.standard_normal(count))
        order = np.argsort(-radii, kind="stable")
        classes, radii = classes[order], radii[order].clip(8, 110)
        middle = np.array((size / 2, size / 2))

        def in_the_well(index: int, point: Point) -> bool:
            return bool(np.hypot(*(point - middle)) <= 0.48 * size - radii[index])

        centers = scatter(rng, radii, (size, size), gap=0, distance_factor=0.9, allowed=in_the_well)
        placed = ~np.isnan(centers[:, 0])
        self.centers, self.radii, self.classes = centers[placed], radii[placed], classes[placed]
        self.labels = rng.permutation(placed.sum()) + 1
        self.light = rng.normal(0, 4, (9, 9))
        self.label_type = np.min_scalar_type(int(placed.sum()) + 256)  # 16 bits at least
        self.seed, self.size, self.stain = seed, size, stain

    def paint(self, there: tuple[slice, slice]) -> tuple[NDArray[np.uint8], NDArray[np.integer]]:
        """Return image (3, rows, columns) and mask (rows, columns) of a block."""
        rows, columns = (np.arange(part.start, part.stop) for part in there)
        noise = np.random.default_rng([self.seed, 0, rows[0], columns[0]])
        light = self._weights(rows) @ self.light @ self._weights(columns).T
        image = GROUND[:, None, None] + light + noise.normal(0, 3, (3, len(rows), len(columns)))
        from_middle = np.hypot(rows[:, None] - self.size / 2, columns - self.size / 2)
        image = np.where(from_middle > 0.48 * self.size, RIM[:, None, None], image)
        image = np.where(from_middle > 0.492 * self.size, OUTSIDE[:, None, None], image)
        mask = np.zeros((len(rows), len(columns)), self.label_type)
        corner = np.array((rows[0], columns[0]))
        for index in self._reaching(corner, corner + mask.shape):
            self._paint_cell(index, self.centers[index] - corner, image, mask)
        if (self.stain != 1).any():
            image = 255 * (image.clip(1, 255) / 255) ** self.stain[:, None, None]
        return np.clip(np.rint(image), 0, 255).astype(np.uint8), mask

    def _weights(self, places: NDArray[np.int64]) -> Field:
        """Weights of linear interpolation between the nine knots of the light along an axis."""
        knots = places / self.size * (len(self.light) - 1)
        return np.clip(1 - abs(knots[:, None] - np.arange(len(self.light))), 0, None)

    def _reaching(self, start: NDArray[np.int64], stop: NDArray[np.int64]) -> NDArray[np.int64]:
        reach = REACH * self.radii[:, None]
        return np.flatnonzero(((self.centers + reach >= start) & (self.centers - reach < stop)).all(1))

    def _paint_cell(self, index: int, center: Point, image: Field, mask: NDArray[np.integer]) -> None:
        cell = _Cell.draw(
            np.random.default_rng([self.seed, self.labels[index]]), self.radii[index], self.classes[index]
        )
        there, offsets = window(center, REACH * cell.radius, mask.shape)
        inside, colors = cell.colors(*offsets)
        free = inside & (mask[there] == 0)
        mask[there][free] = self.labels[index]
        image[(slice(None), *there)][:, free] = colors[:, free]


@dataclass(frozen=True)
class _Cell:
    """One cell by its random draws; the same whichever part of it is shown."""

    radius: float
    waves: Field  # (2, 4) cosine and sine amplitudes of the outline, orders 2 to 5
    color: Field  # (3,)
    nuclei: Field  # (n, 3) row and column from the centre, radius; pixels
    ripples: Field  # (3, 12) frequency along rows and columns, phase: the texture

    @classmethod
    def draw(cls, rng: np.random.Generator, radius: float, number: int) -> _Cell:
        waves = rng.normal(0, WAVINESS[number], (2, 4)) / np.sqrt(np.arange(2, 6))
        color = COLOR[number] + rng.normal(0, 14)
        low, high = NUCLEI[number]
        count = rng.integers(low, high + 1)
        angle, far = rng.uniform(0, 2 * np.pi, count), 0.65 * radius * np.sqrt(rng.random(count))
        nuclei = np.stack([far * np.sin(angle), far * np.cos(angle), rng.uniform(3.5, 5.5, count)], 1)
        ripples = np.vstack([rng.normal(0, 0.7, (2, 12)), rng.uniform(0, 2 * np.pi, (1, 12))])
        return cls(radius, waves, color, nuclei, ripples)

    def colors(self, rows: Field, columns: Field) -> tuple[NDArray[np.bool_], Field]:
        """Return where the cell is and its colours (3, ...), for offsets from its centre."""
        far, angle = np.hypot(rows, columns), np.arctan2(rows, columns)
        turns = np.arange(2, 6)[:, None, None] * angle
        outline = 1 + np.tensordot(self.waves[0], np.cos(turns), 1) + np.tensordot(self.waves[1], np.sin(turns), 1)
        edge = self.radius * outline.clip(0.5, REACH)
        down, right, phase = self.ripples[:, :, None, None]
        texture = 9 * np.sqrt(2 / len(phase)) * np.cos(down * rows + right * columns + phase).sum(0)
        colors = self.color[:, None, None] + texture + 20 * (1 - (far / edge) ** 2)
        for row, column, radius in self.nuclei:
            colors[:, (rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = NUCLEUS[:, None]
        return far <= edge, colors

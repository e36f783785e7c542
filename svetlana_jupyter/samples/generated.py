"""Generated images with known classes: disks, textures, a well, a volume.

`stripes`, `faint_foci` and `bright_foci_3d` place objects on a jittered lattice. `gray_cells`, `oriented_textures`,
`osteoclast_well` and `tube_and_somites` imitate the images of figures 3 c, 3 e, 4 and 5 of the Svetlana paper. In
`real_textures`, simple measurements do not distinguish the classes.

A seed must always generate the same arrays, because this package was compared with other tools on the four samples
below. The table states how many labels were given with their classes for training, the seed with which `draw_labels`
drew these labels, and the patch size in pixels:

=== =============================================================== ============== ========== =====
set call                                                            labels given   drawn with patch
=== =============================================================== ============== ========== =====
a   ``stripes(seed=1, size=1024, count=500, step=42)``              45             seed 2     44
b   ``stripes(seed=2, size=4000, count=5000, step=54)``             none           -          44
c   ``bright_foci_3d(seed=3, shape=(128, 256, 256), count=400)``    60             seed 4     45
d   ``faint_foci(seed=4, size=1024, count=500, step=42)``           45             seed 5     44
=== =============================================================== ============== ========== =====
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, rotate
from scipy.special import ndtri

from svetlana_jupyter.errors import InputError
from svetlana_jupyter.samples.sample import (
    Field,
    Point,
    Sample,
    StoredSample,
    create_arrays,
    crop_around,
    place_objects,
)

if TYPE_CHECKING:
    from pathlib import Path

Points = NDArray[np.int64]  # (n, dimensions), pixels
ObjectShape = Callable[[Generator, Point], Points]  # draws the pixels of an object around a center
ObjectTexture = Callable[[Generator, Points, int], Field]  # draws the values of these pixels for a class


def stripes(seed: int, size: int = 256, count: int = 25, step: int = 42) -> Sample:
    """Generate striped disks whose classes differ in the direction of the stripes.

    Parameters
    ----------
    seed : int
    size : int
        Side of the square image, in pixels.
    count : int
        Number of objects.
    step : int
        Distance between the possible positions of objects, in pixels.

    Raises
    ------
    InputError
        If the image has no room for the objects.
    """
    return _lattice_of_disks(seed, size, count, step, _stripes, ("horizontal", "vertical"))


def faint_foci(seed: int, size: int = 256, count: int = 25, step: int = 42) -> Sample:
    """Generate disks of varying brightness; those of one class have three faint foci.

    Both classes have the same mean brightness. The parameters are those of `stripes`.
    """
    return _lattice_of_disks(seed, size, count, step, _faint_foci, ("plain", "foci"))


def bright_foci_3d(seed: int, shape: tuple[int, int, int] = (48, 96, 96), count: int = 16) -> Sample:
    """Generate ellipsoids; those of one class have four bright foci.

    All objects have the same mean brightness.

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
        If the volume has no room for the objects.
    """
    rng = np.random.default_rng(seed)
    return _paint_on_lattice(rng, (600, 60), shape, count, (23, 1.5, 12), _ellipsoid, _bright_foci, ("plain", "foci"))


def _lattice_of_disks(
    seed: int, size: int, count: int, step: int, texture: ObjectTexture, names: tuple[str, str]
) -> Sample:
    rng = np.random.default_rng(seed)
    return _paint_on_lattice(rng, (1000, 60), (size, size), count, (step, 3, 22), _disk, texture, names)


def _disk(rng: Generator, center: Point) -> Points:
    radius = rng.uniform(10, 16)
    points = _cube_points(center, 18)
    inside: NDArray[np.bool_] = ((points - center) ** 2).sum(1) <= radius * radius
    return points[inside]


def _stripes(rng: Generator, points: Points, number: int) -> Field:
    wave = np.sin(2 * np.pi * points[:, number] / 6 + rng.uniform(0, 6.28))
    return 2500 + 500 * wave + rng.normal(0, 250, len(points))


def _faint_foci(rng: Generator, points: Points, number: int) -> Field:
    level = _draw_foci(rng, points, 2500, 3 * number, height=450, spread=8)
    return level * rng.uniform(0.8, 1.2) + rng.normal(0, 250, len(points))


def _ellipsoid(rng: Generator, center: Point) -> Points:
    half_axes = rng.uniform(7, 10, 3)
    points = _cube_points(center, 12)
    inside: NDArray[np.bool_] = (((points - center) / half_axes) ** 2).sum(1) <= 1
    return points[inside]


def _bright_foci(rng: Generator, points: Points, number: int) -> Field:
    level = _draw_foci(rng, points, 2000, 4 * number, height=1500, spread=6)
    return level + rng.normal(0, 150, len(points))


def _paint_on_lattice(
    rng: Generator,
    background: tuple[float, float],
    shape: tuple[int, ...],
    count: int,
    lattice: tuple[int, float, int],
    draw_shape: ObjectShape,
    draw_texture: ObjectTexture,
    names: tuple[str, str],
) -> Sample:
    """Paint objects of two classes on a jittered lattice over Gaussian noise.

    The order of the random draws must not change, because the arrays of a seed depend on it.

    Parameters
    ----------
    rng : Generator
    background : tuple of float
        Mean and standard deviation of the noise.
    shape : tuple of int
        Shape of the image.
    count : int
        Number of objects.
    lattice : (int, float, int)
        Distance between lattice points, jitter, and margin, in pixels.
    draw_shape, draw_texture : callable
        See `ObjectShape` and `ObjectTexture`.
    names : tuple of str
        Class names.

    Raises
    ------
    InputError
        If the lattice has too few points for the objects.
    """
    image = rng.normal(*background, shape).astype(np.float32)
    mask = np.zeros(shape, np.uint16)
    classes = rng.integers(0, 2, count)
    for label, (center, number) in enumerate(zip(_lattice_centers(rng, shape, count, *lattice), classes), 1):
        points = draw_shape(rng, center)
        points = points[((points >= 0) & (points < shape)).all(1)]
        points = points[mask[tuple(points.T)] == 0]
        mask[tuple(points.T)] = label
        image[tuple(points.T)] = draw_texture(rng, points, number)
    return Sample(np.clip(image, 0, 65535).astype(np.uint16), mask, classes, names)


def _lattice_centers(
    rng: Generator, shape: tuple[int, ...], count: int, step: int, jitter: float, margin: int
) -> NDArray[np.float64]:
    axes = [np.arange(margin, side - margin, step) for side in shape]
    centers = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(shape)).astype(float)
    if len(centers) < count:
        raise InputError(
            f"An image of shape {shape} has room for {len(centers)} objects, but {count} were requested. "
            f"Make it larger, or pass count={len(centers)}."
        )
    return centers[rng.permutation(len(centers))[:count]] + rng.uniform(-jitter, jitter, (count, len(shape)))


def _cube_points(center: Point, half: int) -> Points:
    """Return all pixels of a cube around a center, in row-major order."""
    axes = [np.arange(start, start + 2 * half + 1) for start in np.floor(center - half).astype(int)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(center))


def _draw_foci(rng: Generator, points: Points, mean: float, count: int, height: float, spread: float) -> Field:
    """Return pixel values of the given mean with Gaussian foci at random positions."""
    values = np.full(len(points), float(mean))
    if count:
        for focus in points[rng.integers(0, len(points), count)]:
            values += height * np.exp(-((points - focus) ** 2).sum(1) / spread)
        values += mean - values.mean()
    return values


MEAN, DEVIATION = 128, 40  # of the texture in every disk
_Fill = Callable[[Generator, int, tuple[slice, ...], NDArray[np.bool_]], Field]


def gray_cells(seed: int, size: int = 1024, count: int = 200) -> Sample:
    """Generate ellipses on a dark background; the classes differ in brightness.

    The mean gray values of the classes are 100 and 150; the noise has a standard deviation of 12.

    Parameters
    ----------
    seed : int
    size : int
        Side of the square image, in pixels.
    count : int
        Requested number of objects; objects without a free position are left out.
    """
    rng = np.random.default_rng(seed)
    half_axes = rng.uniform(12, 20, count)
    centers = place_objects(rng, half_axes, (size, size))
    placed = np.flatnonzero(~np.isnan(centers[:, 0]))
    classes = rng.integers(0, 2, len(placed))
    image = np.full((size, size), 30.0)
    mask = np.zeros((size, size), np.uint16)
    for label, (index, number) in enumerate(zip(placed, classes), 1):
        ratio, angle = rng.uniform(0.75, 1), rng.uniform(0, np.pi)
        crop, (rows, columns) = crop_around(centers[index], half_axes[index], image.shape)
        along = columns * np.cos(angle) + rows * np.sin(angle)
        across = rows * np.cos(angle) - columns * np.sin(angle)
        inside = along**2 + (across / ratio) ** 2 <= half_axes[index] ** 2
        mask[crop][inside] = label
        image[crop][inside] = (100, 150)[number]
    image = gaussian_filter(image, 0.7) + rng.normal(0, 12, image.shape)
    return Sample(_to_uint8(image), mask, classes, ("dark", "bright"))


def oriented_textures(seed: int, size: int = 1400, count: int = 400, turn: float = 0) -> Sample:
    """Generate disks of elongated noise, rotated by 90 degrees in the second class.

    Mean and standard deviation are the same in every disk. With ``turn=0``, flips keep the class and rotations by 90
    degrees swap the classes; with ``turn=45``, flips swap the classes, too.

    Parameters
    ----------
    seed, size, count
        See `gray_cells`.
    turn : float
        Direction of the first class, in degrees.
    """
    rng = np.random.default_rng(seed)
    fields = [_rotated_noise(rng, size, angle) for angle in (turn, turn + 90)]

    def fill(rng: Generator, number: int, crop: tuple[slice, ...], inside: NDArray[np.bool_]) -> Field:
        values = fields[number][crop][inside]
        texture: Field = MEAN + DEVIATION * (values - values.mean()) / values.std()
        return texture

    return _textured_disks(rng, size, count, fill, (f"{turn:g} degrees", f"{turn + 90:g} degrees"))


def _rotated_noise(rng: Generator, size: int, angle: float) -> Field:
    """Return white noise that is blurred along the rows and then rotated.

    The result is cropped from a larger image, so that no corner is empty.
    """
    side = int(np.ceil(size * np.sqrt(2))) + 2
    noise = gaussian_filter(rng.standard_normal((side, side)), (1, 5))
    rotated = rotate(noise, angle, reshape=False, order=1) if angle else noise
    start = (side - size) // 2
    return np.asarray(rotated[start : start + size, start : start + size])


def real_textures(seed: int, size: int = 1400, count: int = 400) -> Sample:
    """Generate disks that are cropped from photographs of brick, grass and gravel.

    The photographs come with scikit-image. Disks are cropped at random positions and rotated by multiples of 90
    degrees. The distribution of gray values is the same in every disk. The parameters are those of `gray_cells`.
    """
    from skimage import data

    rng = np.random.default_rng(seed)
    photographs = (data.brick(), data.grass(), data.gravel())

    def fill(rng: Generator, number: int, crop: tuple[slice, ...], inside: NDArray[np.bool_]) -> Field:
        photograph = np.rot90(photographs[number], int(rng.integers(4)))
        row, column = (rng.integers(side - part + 1) for side, part in zip(photograph.shape, inside.shape))
        values = photograph[row : row + inside.shape[0], column : column + inside.shape[1]][inside]
        ranks = np.argsort(np.argsort(values + rng.random(len(values))))  # ties are broken at random
        texture: Field = MEAN + DEVIATION * ndtri((ranks + 0.5) / len(ranks))
        return texture

    return _textured_disks(rng, size, count, fill, ("brick", "grass", "gravel"))


def _textured_disks(rng: Generator, size: int, count: int, fill: _Fill, names: tuple[str, ...]) -> Sample:
    radii = rng.uniform(18, 24, count)
    centers = place_objects(rng, radii, (size, size))
    placed = np.flatnonzero(~np.isnan(centers[:, 0]))
    classes = rng.integers(0, len(names), len(placed))
    image = rng.normal(MEAN, 8, (size, size))
    mask = np.zeros((size, size), np.uint16)
    for label, (index, number) in enumerate(zip(placed, classes), 1):
        crop, (rows, columns) = crop_around(centers[index], radii[index], image.shape)
        inside = rows**2 + columns**2 <= radii[index] ** 2
        mask[crop][inside] = label
        image[crop][inside] = fill(rng, number, crop, inside)
    return Sample(_to_uint8(image), mask, classes, names)


def _to_uint8(image: Field) -> NDArray[np.uint8]:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


# The well. Tuples of two are values for the classes "resting" and "activated".
NAMES = ("resting", "activated")
ACTIVATED_SHARE = 0.08
RADIUS = (19, 26)  # median, pixels
SPREAD = (0.30, 0.35)  # of the log-normal radii
WAVINESS = (0.10, 0.16)  # of the outline
COLOR = np.array([(185, 150, 175), (150, 110, 165)])
NUCLEI = ((1, 3), (4, 15))
BACKGROUND = np.array((238, 222, 228))
OUTSIDE, RIM, NUCLEUS = np.array((120, 120, 120)), np.array((60, 55, 60)), np.array((70, 45, 110))
MAX_OUTLINE = 1.6  # largest distance of an outline from the center, in radii
BLOCK, CHUNK = 1000, 500


def osteoclast_well(
    folder: Path,
    seed: int = 0,
    size: int = 8000,
    count: int = 10_000,
    activated: float = ACTIVATED_SHARE,
    stain: tuple[float, float, float] = (1, 1, 1),
) -> StoredSample:
    """Write a generated image of a stained well with cells of two classes.

    A few large activated cells with many nuclei lie among small resting cells. Every cell and every block has its own
    random generator, so that the pixels of a block do not depend on other blocks. Only one block and the list of cells
    are held in memory.

    Parameters
    ----------
    folder : Path
        Existing folder for ``image.zarr`` (c, y, x; uint8, red green blue) and ``mask.zarr`` (y, x).
    seed : int
    size : int
        Side of the image, in pixels; the well's radius is 0.48 of it. A size of 8000 takes about half a minute.
    count : int
        Requested number of cells; cells without a free position are left out.
    activated : float
        Probability that a cell is activated.
    stain : three floats
        Factors of the optical density in red, green and blue, to imitate more dye, another dye or a thicker layer.
    """
    well = _Well(seed, size, count, activated, np.array(stain, float))
    image, mask = create_arrays(folder, (size, size), (CHUNK, CHUNK), np.uint8, len(well.labels), channels=(3,))
    for top, left in itertools.product(range(0, size, BLOCK), repeat=2):
        block = slice(top, min(top + BLOCK, size)), slice(left, min(left + BLOCK, size))
        image[(slice(None), *block)], mask[block] = well.paint(block)
    return StoredSample(folder / "image.zarr", folder / "mask.zarr", well.classes[np.argsort(well.labels)], NAMES)


class _Well:
    """Cells of a well in order of decreasing size.

    A pixel belongs to the first cell that covers it.
    """

    def __init__(self, seed: int, size: int, count: int, activated: float, stain: Field) -> None:
        rng = np.random.default_rng(seed)
        classes = (rng.random(count) < activated).astype(np.int64)
        radii = np.take(RADIUS, classes) * np.exp(np.take(SPREAD, classes) * rng.standard_normal(count))
        order = np.argsort(-radii, kind="stable")
        classes, radii = classes[order], radii[order].clip(8, 110)
        middle = np.array((size / 2, size / 2))

        def in_the_well(index: int, point: Point) -> bool:
            return bool(np.hypot(*(point - middle)) <= 0.48 * size - radii[index])

        centers = place_objects(rng, radii, (size, size), gap=0, distance_factor=0.9, allowed=in_the_well)
        placed = ~np.isnan(centers[:, 0])
        self.centers, self.radii, self.classes = centers[placed], radii[placed], classes[placed]
        self.labels = rng.permutation(placed.sum()) + 1
        self.light = rng.normal(0, 4, (9, 9))
        self.seed, self.size, self.stain = seed, size, stain

    def paint(self, block: tuple[slice, slice]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return image (3, rows, columns) and mask (rows, columns) of a block."""
        rows, columns = (np.arange(part.start, part.stop) for part in block)
        noise = np.random.default_rng([self.seed, 0, rows[0], columns[0]])
        light = self._interpolation_weights(rows) @ self.light @ self._interpolation_weights(columns).T
        image = BACKGROUND[:, None, None] + light + noise.normal(0, 3, (3, len(rows), len(columns)))
        from_center = np.hypot(rows[:, None] - self.size / 2, columns - self.size / 2)
        image = np.where(from_center > 0.48 * self.size, RIM[:, None, None], image)
        image = np.where(from_center > 0.492 * self.size, OUTSIDE[:, None, None], image)
        mask = np.zeros((len(rows), len(columns)), np.int64)
        corner = np.array((rows[0], columns[0]))
        reach = MAX_OUTLINE * self.radii[:, None]
        overlaps = ((self.centers + reach >= corner) & (self.centers - reach < corner + mask.shape)).all(1)
        for index in np.flatnonzero(overlaps).tolist():
            self._paint_cell(index, self.centers[index] - corner, image, mask)
        if (self.stain != 1).any():
            image = 255 * (image.clip(1, 255) / 255) ** self.stain[:, None, None]
        return np.clip(np.rint(image), 0, 255).astype(np.uint8), mask

    def _interpolation_weights(self, positions: NDArray[np.int64]) -> Field:
        """Return the weights that interpolate the illumination linearly along an axis.

        The illumination is given at nine knots per axis.
        """
        knots = positions / self.size * (len(self.light) - 1)
        return np.clip(1 - abs(knots[:, None] - np.arange(len(self.light))), 0, None)

    def _paint_cell(self, index: int, center: Point, image: Field, mask: NDArray[np.int64]) -> None:
        rng = np.random.default_rng([self.seed, self.labels[index]])
        radius, number = self.radii[index], self.classes[index]
        # All random numbers are drawn first, so that they are the same for each part of the cell.
        waves = rng.normal(0, WAVINESS[number], (2, 4)) / np.sqrt(np.arange(2, 6))  # cosine and sine, orders 2 to 5
        color = COLOR[number] + rng.normal(0, 14)
        low, high = NUCLEI[number]
        count = rng.integers(low, high + 1)
        angle, distance = rng.uniform(0, 2 * np.pi, count), 0.65 * radius * np.sqrt(rng.random(count))
        nuclei = np.stack([distance * np.sin(angle), distance * np.cos(angle), rng.uniform(3.5, 5.5, count)], 1)
        down, right = rng.normal(0, 0.7, (2, 12))[:, :, None, None]  # ripples of the texture
        phase = rng.uniform(0, 2 * np.pi, 12)[:, None, None]

        crop, (rows, columns) = crop_around(center, MAX_OUTLINE * radius, mask.shape)
        distance = np.hypot(rows, columns)
        turns = np.arange(2, 6)[:, None, None] * np.arctan2(rows, columns)
        outline = 1 + np.tensordot(waves[0], np.cos(turns), 1) + np.tensordot(waves[1], np.sin(turns), 1)
        edge = radius * outline.clip(0.5, MAX_OUTLINE)
        texture = 9 * np.sqrt(2 / len(phase)) * np.cos(down * rows + right * columns + phase).sum(0)
        colors = color[:, None, None] + texture + 20 * (1 - (distance / edge) ** 2)
        for row, column, size in nuclei:
            colors[:, (rows - row) ** 2 + (columns - column) ** 2 <= size**2] = NUCLEUS[:, None]
        free = (distance <= edge) & (mask[crop] == 0)
        mask[crop][free] = self.labels[index]
        image[(slice(None), *crop)][:, free] = colors[:, free]


# The volume. The rows of `HALF_AXES` are the classes.
TUBE_NAMES = ("tube", "somite")
# Half axes of a nucleus by class, (z, y, x), in pixels; nuclei of the tube are elongated along x.
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
        Planes, rows and columns. The volume in the Svetlana paper has shape ``(158, 232, 624)`` and 26,214 nuclei.
    count : int
        Requested number of nuclei; nuclei without a free position are left out.
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
    # Optical blur, and loss of light with depth.
    volume = gaussian_filter(volume, (1.1, 0.7, 0.7)) * np.linspace(1, 0.7, shape[0])[:, None, None]
    volume += rng.normal(0, 4, shape)
    return Sample(np.clip(np.rint(volume), 0, 255).astype(np.uint8), mask, classes[placed], TUBE_NAMES)


def _blurred_noise(rng: Generator, shape: tuple[int, ...], blur: float) -> Field:
    smooth = gaussian_filter(rng.standard_normal(shape), blur)
    return np.asarray(smooth / smooth.std())

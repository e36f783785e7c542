"""A whole well of osteoclast-like cells, as in figure 4 of the Svetlana paper, written block by block.

Every cell and every block has random numbers of its own, so that what a block shows does not depend on the others: the
memory needed is that of one block and the list of cells.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

from svetlana_jupyter.core.samples.placing import Point, scatter, window
from svetlana_jupyter.core.samples.sample import StoredSample

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

Field = NDArray[np.float64]


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

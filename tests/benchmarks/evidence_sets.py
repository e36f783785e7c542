"""Generated sets in which a single cue carries the class, and all others vary within each class.

Objects are disks or balls, more or less elongated along one axis, with or without spots, each on its own background,
with optical blur and noise. In each set the two classes differ in one property, by as much as it varies in the others.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from svetlana_jupyter.samples import Sample

CARRIERS = ("brightness", "orientation", "size", "surroundings", "texture")
CELL = {2: 42, 3: 30}  # so far apart that large objects do not see their neighbors either
RADII = {2: (7.0, 12.0), 3: (5.0, 8.0)}
BLUR, NOISE = 0.7, 5.0


def evidence_set(carrier: str, ndim: int = 2, count: int = 300, seed: int = 0) -> Sample:
    """Make a set whose classes differ in ``carrier`` alone.

    Parameters
    ----------
    carrier : one of `CARRIERS`
        "texture" is the cue that remains if none of the four may be used: a few bright spots, or none.
    ndim : 2 or 3
    count : int
        Number of objects.
    seed : int
    """
    rng = np.random.default_rng(seed)
    cell = CELL[ndim]
    sides = [int(np.ceil(count ** (1 / ndim)))] * ndim
    image = np.full([side * cell for side in sides], 20.0)
    mask = np.zeros(image.shape, np.uint16)
    positions = rng.permutation(int(np.prod(sides)))[:count]
    classes = rng.integers(0, 2, count)
    offsets = np.stack(np.meshgrid(*[np.arange(cell) - (cell - 1) / 2] * ndim, indexing="ij"))
    for position in range(int(np.prod(sides))):
        corner = np.array(np.unravel_index(position, sides)) * cell
        window = tuple(slice(a, a + cell) for a in corner)
        index = np.flatnonzero(positions == position)
        class_index = int(classes[index[0]]) if len(index) else None

        def draw(name: str, low: float, high: float, class_index: int | None = class_index) -> float:
            """Draw uniformly, or for the carrier from the lower or the upper end."""
            share = rng.random()
            if name == carrier and class_index is not None:
                share = 0.2 * share + 0.8 * class_index
            return low + share * (high - low)

        if class_index is None:
            continue
        shift = rng.uniform(-2, 2, ndim)
        centered = offsets - shift.reshape(-1, *[1] * ndim)
        axis = int(draw("orientation", 0, 2 - 1e-9))  # along rows or columns
        radius = draw("size", *RADII[ndim]) * np.where(np.arange(ndim) == ndim - 1 - axis, 1.0, rng.uniform(0.6, 0.8))
        inside = ((centered / radius.reshape(-1, *[1] * ndim)) ** 2).sum(0) <= 1
        # The surroundings scale with the object; otherwise they would reveal its size.
        image[window][(centered**2).sum(0) <= (1.6 * radius.max()) ** 2] = draw("surroundings", 20, 60)
        level = draw("brightness", 90, 160)
        own = np.full(inside.shape, level)
        if draw("texture", 0, 2 - 1e-9) >= 1:
            # Spots scale with the size and brightness of their object; the additional blur is not compensated.
            wide = (0.2 * radius.max()) ** 2
            sharp = wide - BLUR**2
            for spot in offsets[:, inside].T[rng.integers(0, inside.sum(), 4)]:
                distance = ((offsets - spot.reshape(-1, *[1] * ndim)) ** 2).sum(0) / (2 * sharp)
                own += 0.5 * level * (wide / sharp) ** (ndim / 2) * np.exp(-distance)
            own += level - own[inside].mean()
        image[window][inside] = own[inside]
        mask[window][inside] = index[0] + 1
    image = gaussian_filter(image, BLUR) + rng.normal(0, NOISE, image.shape)
    return Sample(np.clip(np.rint(image), 0, 255).astype(np.uint8), mask, classes, ("first", "second"))


def tiny_objects(
    carrier: str, ndim: int = 2, widths: tuple[int, int] = (3, 3), count: int = 300, seed: int = 0
) -> Sample:
    """Make a set of objects a few pixels wide whose classes differ in ``carrier`` alone.

    Parameters
    ----------
    carrier : one of `CARRIERS` except "texture"
    ndim : 2 or 3
    widths : (int, int)
        Diameters in pixels; those of the two classes if size is the carrier, otherwise drawn. If orientation is the
        carrier, objects are longer by two thirds along rows or columns.
    count : int
        Number of objects.
    seed : int
    """
    rng = np.random.default_rng(seed)
    cell, classes = 2 * max(widths) + 5, rng.integers(0, 2, count)
    sides = (int(np.ceil(count ** (1 / ndim))),) * ndim
    image = np.full(np.multiply(sides, cell), 20.0)
    mask = np.zeros(image.shape, np.uint16)
    grid = np.stack(np.meshgrid(*[np.arange(cell)] * ndim, indexing="ij"), -1)
    for number, class_index in enumerate(classes.tolist()):
        shares = {cue: rng.random() for cue in ("orientation", "size", "brightness", "surroundings")}
        shares[carrier] = 0.2 * shares[carrier] + 0.8 * class_index
        axis, wide, level, outside = shares.values()
        radii = np.full(ndim, widths[int(wide >= 0.5)] / 2)
        if carrier == "orientation":
            radii[ndim - 1 - int(axis >= 0.5)] *= 5 / 3
        inside = (((grid - cell // 2 - rng.integers(-1, 2, ndim)) / radii) ** 2).sum(-1) <= 1 + 1e-9
        corner = np.array(np.unravel_index(number, sides)) * cell
        window = tuple(slice(start, start + cell) for start in corner)
        image[window] = 20 + 40 * outside
        image[window][inside] = 90 + 70 * level
        mask[window][inside] = number + 1
    image = gaussian_filter(image, BLUR) + rng.normal(0, NOISE, image.shape)
    return Sample(np.clip(np.rint(image), 0, 255).astype(np.uint8), mask, classes, ("first", "second"))

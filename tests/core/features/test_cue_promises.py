"""Invariance of features to the cues that they do not use."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter, zoom

from svetlana_jupyter.core.features.catalog import GROUPS, columns
from svetlana_jupyter.core.features.compute import measure
from svetlana_jupyter.core.io.image_pair import open_pair
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.settings import MeasureSettings

Turn = Callable[[np.ndarray], np.ndarray]


def cells(ndim: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a smooth image and a mask of a few asymmetric ellipsoids."""
    rng = np.random.default_rng(seed)
    shape, count = ((90, 100), 9) if ndim == 2 else ((30, 45, 45), 5)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    mask = np.zeros(shape, np.uint16)
    for label in range(1, count + 1):
        center, radii = rng.uniform(8, np.array(shape) - 8), rng.uniform(5, 9, ndim)
        inside = (((grid - center) / radii) ** 2).sum(-1) <= 1
        inside &= ((grid - center - radii) ** 2).sum(-1) > radii.max() ** 2
        mask[inside] = label
    return 500 + 3000 * gaussian_filter(rng.standard_normal(shape), 1.5), mask


def measured(image: np.ndarray, mask: np.ndarray, **measure_arguments) -> pd.DataFrame:
    image_pair = open_pair("cells", image, mask, axes="zyx"[-mask.ndim :], **measure_arguments)
    tables = measure(image_pair, index_objects(image_pair.mask), MeasureSettings(groups=GROUPS))
    return pd.concat(list(tables)).sort_index().astype(float)


def columns_without(table: pd.DataFrame, cue: str) -> pd.DataFrame:
    ndim = 3 if "volume" in table else 2
    return table[[column.key for column in columns(ndim, 1) if cue not in column.measurement.uses]]


def columns_with(table: pd.DataFrame, cue: str) -> pd.DataFrame:
    return table.drop(columns=columns_without(table, cue).columns)


def assert_same(actual: pd.DataFrame, expected: pd.DataFrame, tolerance: float = 2e-4) -> None:
    pd.testing.assert_frame_equal(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("ndim", [2, 3])
def test_without_surroundings_only_the_object_pixels_matter(ndim):
    image, mask = cells(ndim)
    before = measured(image, mask)
    kept = np.isin(mask, [1, 3, 4])
    after = measured(
        np.where(kept, image, np.random.default_rng(1).normal(0, 1e4, image.shape)), np.where(kept, mask, 0)
    )
    # Objects of similar size are computed together, so another neighbor changes the rounding of float32 sums.
    assert_same(columns_without(after, "surroundings"), columns_without(before, "surroundings").loc[[1, 3, 4]], 1e-5)
    moved = [
        name for name in columns_with(before, "surroundings") if "position" not in name and name != "border_distance"
    ]
    assert (after[moved] != before.loc[[1, 3, 4], moved]).any().all()


@pytest.mark.parametrize("ndim", [2, 3])
def test_without_brightness_gain_and_offset_do_not_matter(ndim):
    image, mask = cells(ndim)
    before, after = measured(image, mask), measured(np.where(mask > 0, 3.7 * image - 900, 0.6 * image + 50), mask)
    assert_same(columns_without(after, "brightness"), columns_without(before, "brightness"))
    assert (columns_with(after, "brightness") != columns_with(before, "brightness")).any().all()


TURNS: dict[str, Turn] = {
    "a quarter": lambda array: np.rot90(array, axes=(-2, -1)),
    "half": lambda array: np.rot90(array, 2, axes=(-2, -1)),
    "mirrored": lambda array: np.flip(array, -1),
    "upside down": lambda array: np.flip(array, 0),
    "any axis for another": lambda array: np.transpose(array, tuple(range(array.ndim))[::-1]),
}


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
def test_without_orientation_rotation_does_not_matter(ndim, turn):
    image, mask = cells(ndim)
    before, after = measured(image, mask), measured(turn(image).copy(), turn(mask).copy())
    assert_same(columns_without(after, "orientation"), columns_without(before, "orientation"))


def test_without_orientation_rotating_a_volume_about_its_long_axis_does_not_matter():
    image, mask = cells(3)
    before, after = (
        measured(
            TURNS["a quarter"](image) if turned else image,
            TURNS["a quarter"](mask) if turned else mask,
            spacing=(2.5, 1, 1),
        )
        for turned in (False, True)
    )
    assert_same(columns_without(after, "orientation"), columns_without(before, "orientation"))


def test_measurements_that_use_orientation_change_with_rotation():
    image, mask = cells(2)
    before, after = measured(image, mask), measured(np.rot90(image).copy(), np.rot90(mask).copy())
    turned = [name for name in columns_with(before, "orientation") if name != "extent"]
    assert (np.abs(after[turned] - before[turned]) > 1e-3).any().all()


def test_without_size_magnification_hardly_matters():
    field = gaussian_filter(np.random.default_rng(0).standard_normal((81, 81)), 6)
    groups = ("shape", "intensity", "texture")
    tables = []
    for factor in (1, 2):
        rows, columns_ = np.mgrid[-40 * factor : 40 * factor + 1, -40 * factor : 40 * factor + 1] / (25 * factor)
        mask = (rows**2 + (columns_ / 1.4) ** 2 <= 1) & (rows + columns_ < 1)
        image_pair = open_pair("cell", 100 + 500 * zoom(field, len(rows) / 81), mask.astype(np.uint8), axes="yx")
        (table,) = measure(image_pair, index_objects(image_pair.mask), MeasureSettings(groups=groups))
        tables.append(table.astype(float))
    for column in columns(2, 1, groups):
        small, large = (table[column.key].item() for table in tables)
        if "size" not in column.measurement.uses:
            assert large == pytest.approx(small, rel=0.04, abs=0.04), column.key
    assert tables[1]["area"].item() == pytest.approx(4 * tables[0]["area"].item(), rel=0.02)

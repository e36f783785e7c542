"""The groups "blob" and "oriented" of the measurements: patches of each object's own size."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter, zoom

from svetlana_jupyter.core.features.blob import blob_features
from svetlana_jupyter.core.features.catalog import columns
from svetlana_jupyter.core.features.compute import measure
from svetlana_jupyter.core.features.oriented import oriented_features
from svetlana_jupyter.core.features.patch_catalog import ORIENTED_FEATURES, blob_names
from svetlana_jupyter.core.io.image_pair import open_pair
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.settings import MeasureSettings
from tests.core.features.test_compute import blobs

GROUPS = ("blob", "oriented")


def table(pair, groups=GROUPS) -> pd.DataFrame:
    return pd.concat(measure(pair, index_objects(pair.mask), MeasureSettings(groups=groups))).sort_index()


def test_an_object_of_37_pixels_is_measured_at_its_own_resolution():
    image = 300 + 900 * gaussian_filter(np.random.default_rng(0).standard_normal((1, 56, 56)), (0, 1.2, 1.2))
    mask = np.zeros((56, 56), np.uint8)
    mask[9:47, 12:42] = np.hypot(*np.mgrid[-18.5:19, -14.5:15]) <= 18.5
    mask[9, 27], mask[46, 27] = 1, 1
    pair = open_pair("x", image.astype(np.float32), mask, axes="cyx")
    own = mask > 0
    standardized = ((image - image[0][own].mean()) / image[0][own].std()).astype(np.float32)[None]
    row = table(pair).loc[1]
    step = 38 / 37.333  # the side of a patch is 1.5 sides of the object
    features = blob_features(standardized, own[None])[0, 0]
    for name, value in zip(blob_names(2), features, strict=True):
        if name.startswith(("detail_3.2", "slope_3.2")) and name.endswith(("sd", "mean")):
            assert row[f"blob_{name}:0"] == pytest.approx(value, abs=0.05 * step), name
    responses = oriented_features(standardized, own[None])[0, 0]
    for name, value in zip(ORIENTED_FEATURES, responses, strict=True):
        assert row[f"gabor_{name}:0"] == pytest.approx(value, abs=0.15), name


def test_magnification_hardly_matters():
    field = gaussian_filter(np.random.default_rng(0).standard_normal((81, 81)), 6)
    rows = []
    for factor in (1, 2):
        y, x = np.mgrid[-40 * factor : 40 * factor + 1, -40 * factor : 40 * factor + 1] / (25 * factor)
        pair = open_pair(
            "x", 100 + 500 * zoom(field, len(y) / 81), (y**2 + (x / 1.4) ** 2 <= 1).astype(np.uint8), axes="yx"
        )
        rows.append(table(pair).loc[1])
    difference = (rows[1] - rows[0]).abs()
    assert difference.filter(regex="sd|gabor").max() < 0.1


@pytest.mark.parametrize("shape", [(60, 70), (16, 30, 32)])
def test_there_is_one_column_per_feature_and_channel_and_no_oriented_ones_in_3d(shape):
    measured = table(blobs(shape))
    assert list(measured) == [column.key for column in columns(len(shape), 2, GROUPS)]
    assert measured.shape == (13, 2 * (len(blob_names(len(shape))) - 2 + (32 if len(shape) == 2 else 0)))
    assert measured.notna().all().all()

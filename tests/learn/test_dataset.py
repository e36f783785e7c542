"""Detection of annotated objects with NaN or infinite pixels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from svetlana_jupyter.core.io.image_pair import open_pair
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.learn.dataset import check_finite
from tests.learn.calls import collect_training_data


def scene(dtype=np.float32, ndim: int = 2):
    """Return twelve squares or cubes in a row, labeled in steps of three, in two channels."""
    mask = np.zeros((*[8] * (ndim - 1), 96), np.uint16)
    for number in range(12):
        mask[..., 2:6, 8 * number + 1 : 8 * number + 6] = 3 * (number + 1)
    image = np.arange(2 * mask.size).reshape(2, *mask.shape).astype(dtype)
    return image, mask


def checked(image: np.ndarray, mask: np.ndarray, labels: list[int] | None = None) -> None:
    pair = open_pair("cells", image, mask, axes="c" + "zyx"[-mask.ndim :])
    objects = index_objects(pair.mask)
    check_finite(pair, objects if labels is None else objects.loc[labels])


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_object_with_nan_or_inf_in_any_channel_is_named(ndim, value):
    image, mask = scene(ndim=ndim)
    image[1, ..., 3, 8 * 4 + 3] = value
    with pytest.raises(InputError, match=r"'cells' has NaN or infinite pixels.* objects 15\. Flag"):
        checked(image, mask)
    checked(image, mask, labels=[3, 12, 18])


def test_many_objects_with_nan_are_counted():
    image, mask = scene()
    image[0] = np.nan
    with pytest.raises(InputError, match=r"objects 3, 6, 9, 12, 15 and 7 more\."):
        checked(image, mask)


def test_nan_outside_the_annotated_objects_is_ignored():
    image, mask = scene()
    image[:, mask == 0] = np.nan
    checked(image, mask)


def test_integer_images_are_not_checked():
    image, mask = scene(np.uint16)
    checked(image, mask)
    image, mask = scene(np.float16)
    checked(np.zeros_like(image), mask)


@pytest.mark.parametrize("architecture", ["small_cnn", "forest", "live"])
def test_training_refuses_nan_with_image_and_object(architecture):
    image, mask = scene()
    image[0, 3, 3] = np.nan
    pair = open_pair("cells", image, mask, axes="cyx")
    objects = index_objects(pair.mask)
    classes = pd.Series(np.arange(12) % 2, index=objects.index)
    with pytest.raises(InputError, match=r"'cells' .* objects 3\."):
        collect_training_data([(pair, objects, classes)], TrainingSettings(architecture=architecture))
    samples = collect_training_data([(pair, objects, classes.drop(3))], TrainingSettings(architecture=architecture))
    assert np.isfinite(samples.inputs).all()

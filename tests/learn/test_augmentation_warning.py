"""Augmentation warning for classes that differ only in the direction of stripes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from svetlana_jupyter.core.io.image_pair import open_pair
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.settings import AugmentSettings, TrainingSettings
from svetlana_jupyter.core.stats.model_selection import augmentation_warning
from svetlana_jupyter.learn.cross_validation import CrossValidationResult, cross_validate
from tests.learn.calls import collect_training_data

if TYPE_CHECKING:
    from svetlana_jupyter.learn.dataset import AnnotatedImage

SETTINGS = TrainingSettings(
    epochs=8, steps=6, batch_size=16, depth=2, width=8, patches={"size": 14, "normalize": "object", "context": "hide"}
)


@pytest.fixture(scope="module")
def stripes() -> AnnotatedImage:
    """Return disks with stripes along rows or columns and random phase."""
    rng = np.random.default_rng(0)
    side, cell = 8, 16
    rows, columns = np.mgrid[: side * cell, : side * cell]
    mask = np.where(
        (rows % cell - 8) ** 2 + (columns % cell - 8) ** 2 <= 36, 1 + rows // cell * side + columns // cell, 0
    )
    classes = np.r_[0, rng.permutation(side**2) % 2 + 1]
    phases = rng.uniform(0, 2 * np.pi, side**2 + 1)
    along = np.where(classes[mask] == 1, rows, columns)
    image = 100 + 40 * np.sin(2 * np.pi * along / 4 + phases[mask]) + rng.normal(0, 5, mask.shape)
    pair = open_pair("stripes", image.astype(np.float32), mask.astype(np.uint16), axes="yx")
    return pair, index_objects(pair.mask), pd.Series(classes[1:], index=np.arange(1, side**2 + 1))


def held_out(annotated_image: AnnotatedImage, **augmentation) -> pd.DataFrame:
    values = {**AugmentSettings.none().model_dump(), **augmentation}
    *_, last = cross_validate(collect_training_data([annotated_image], SETTINGS.changed(augmentation=values)), 2)
    assert isinstance(last, CrossValidationResult)
    return last.table


def test_free_rotations_destroy_the_direction_of_stripes_but_half_turns_do_not(stripes):
    plain = held_out(stripes)
    warning = augmentation_warning(AugmentSettings(rotation="free"), held_out(stripes, rotation="free"), plain)
    assert warning.startswith("Augmentation destroys the classes: without it 6")
    assert "rotation" in warning
    half = {"rotation": "half_turns", "flips": True}
    assert augmentation_warning(AugmentSettings(**half), held_out(stripes, **half), plain) == ""

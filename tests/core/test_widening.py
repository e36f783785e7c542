"""Widening by a ball is what a distance transform finds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from svetlana_jupyter.core import widening
from svetlana_jupyter.core.widening import erode_masks, widened


def by_distance(own: np.ndarray, reach: tuple[float, ...]) -> np.ndarray:
    """Widen each mask by the distance to it in units of the ball; an axis without reach is an infinite step long."""
    step = [1 / radius if radius >= 1 else 1e6 for radius in reach]
    found = [distance_transform_edt(~mask, sampling=step) <= 1 + 1e-5 if mask.any() else mask for mask in own]
    return np.stack(found)


@pytest.mark.parametrize("most_rows", [widening.MAX_JOINED_ROWS, 0], ids=["row by row", "axis by axis"])
@pytest.mark.parametrize(
    "reach", [(2, 2), (1, 1), (5, 5), (0, 3), (3, 0), (2.5, 4.0), (2, 2, 2), (1, 3, 3), (0, 2, 2), (2.0, 0, 1.5)]
)
def test_a_mask_is_widened_by_a_ball(reach, most_rows, monkeypatch):
    monkeypatch.setattr(widening, "MAX_JOINED_ROWS", most_rows)
    rng = np.random.default_rng(0)
    own = rng.random((6, *(11, 14, 12)[: len(reach)])) < 0.02
    own[0] = False
    before = own.copy()
    np.testing.assert_array_equal(widened(own, reach), by_distance(own, reach))
    np.testing.assert_array_equal(own, before)


def test_a_mask_is_narrowed_as_its_surroundings_are_widened_and_never_to_nothing():
    own = np.zeros((2, 12, 12), bool)
    own[0, 2:10, 2:10] = True
    own[1, 5, 5] = True
    narrow = erode_masks(own, (2, 2))
    assert narrow[0].sum() == 16 and narrow[0, 4:8, 4:8].all()
    np.testing.assert_array_equal(narrow[1], own[1])
    np.testing.assert_array_equal(erode_masks(own, (0, 0)), own)

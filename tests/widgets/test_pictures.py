"""Explanations as pictures: what is on them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import xarray as xr

from svetlana_jupyter.widgets.pictures import explanation_pictures


def explanation(ndim, channels=("signal",)):
    """Return an explanation of a square whose evidence is in its upper left corner."""
    shape = (20,) * ndim
    dims = ("z", "y", "x")[-ndim:]
    mask = np.zeros(shape, bool)
    mask[(slice(6, 14),) * ndim] = True
    cam = np.zeros(shape, np.float32)
    cam[(slice(6, 9),) * ndim] = 1
    image = np.stack([np.where(mask, 0.8, 0.1).astype(np.float32)] * len(channels))
    return xr.Dataset(
        {"image": (("c", *dims), image), "mask": (dims, mask), "cam": (dims, cam)}, coords={"c": list(channels)}
    )


def decoded(png):
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).astype(int)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("channels", [("signal",), ("DAPI", "GFP"), ("red", "green", "blue")])
def test_both_pictures_are_large_enough_to_look_at_and_outline_the_object(ndim, channels):
    seen, looked = (decoded(png) for png in explanation_pictures(explanation(ndim, channels)))
    assert seen.shape == looked.shape == (280, 280, 3)
    for picture in (seen, looked):
        assert (picture[6 * 14, 10 * 14] == 255).all()
        assert not (picture[0, 0] == 255).all()


def test_the_evidence_is_the_brightest_place():
    _, looked = explanation_pictures(explanation(2))
    picture = decoded(looked).sum(axis=2)
    assert picture[7 * 14 + 7, 7 * 14 + 7] > picture[12 * 14 + 7, 12 * 14 + 7]


def test_no_evidence_at_all_makes_an_even_picture():
    flat = explanation(2)
    flat["cam"][:] = 0
    _, looked = explanation_pictures(flat)
    assert len(np.unique(decoded(looked)[:70, :70].reshape(-1, 3), axis=0)) == 1


def test_a_large_patch_is_shown_as_it_is():
    large = xr.Dataset(
        {
            "image": (("c", "y", "x"), np.random.default_rng(0).random((1, 400, 300), np.float32)),
            "mask": (("y", "x"), np.zeros((400, 300), bool)),
            "cam": (("y", "x"), np.zeros((400, 300), np.float32)),
        }
    )
    assert decoded(explanation_pictures(large)[0]).shape == (400, 300, 3)

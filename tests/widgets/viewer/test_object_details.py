"""Small images of the selected object, the frame of its patch, and explanation images."""

from __future__ import annotations

import base64
import html
import re

import cv2
import numpy as np
import pytest
import xarray as xr

from svetlana_jupyter.project.project import Project
from svetlana_jupyter.widgets.viewer.object_details import explanation_pictures
from svetlana_jupyter.widgets.viewer.viewer import Viewer
from svetlana_jupyter.widgets.viewer.viewer_model import shared_model


@pytest.fixture
def volume(tmp_path):
    """A project with a volume of two bright boxes on a dark background, planes four times as far apart as rows."""
    mask = np.zeros((20, 60, 70), np.uint8)
    mask[8:11, 20:30, 20:32] = 1
    mask[8:11, 40:52, 50:60] = 2
    made = Project(tmp_path / "volume.svetlana", classes=["a"])
    made.add("volume", (mask > 0) * np.uint8(200), mask, axes="zyx", spacing=(2.0, 0.5, 0.5))
    return made


def pictures(viewer):
    """Return the small images of a viewer, by caption."""
    found = re.findall(r'base64,([^"]+)"><figcaption>(.*?)<', viewer.object_details.value)
    return {
        html.unescape(caption): cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        for data, caption in found
    }


def test_the_complete_classifier_input_of_the_selected_object_is_shown(project):
    viewer = Viewer(project)
    assert pictures(viewer) == {}
    assert "Select an object" in viewer.object_details.value
    viewer.show("left", 9)
    shown = pictures(viewer)
    assert list(shown) == ["Classifier input", "Object alone", "Mask"]
    mask = shown["Mask"][..., 0]
    assert mask[len(mask) // 2, len(mask) // 2] == 255
    assert mask[0, 0] == 0


def test_a_volume_is_shown_in_three_cross_sections_with_the_object_outlined(volume):
    viewer = Viewer(volume)
    viewer.show("volume", 1)
    shown = pictures(viewer)
    assert list(shown) == ["Plane (xy)", "Front (xz)", "Side (zy)", "Maximum along z", "Classifier input"]
    for picture in list(shown.values())[:4]:
        height, width = picture.shape[:2]
        assert abs(height - width) < 0.1 * width, "cubes of the volume are squares on the screen"
        middle = picture[height // 2, width // 2]
        assert middle.tolist() == [255, 255, 255]
        rings = (picture.reshape(-1, 3) == 255).all(axis=1).sum()
        assert rings > 0.02 * height * width


def test_cross_sections_have_the_contrast_of_the_viewer(volume):
    viewer = Viewer(volume)
    viewer.show("volume", 1)
    viewer.set_palette(viewer._opened.palette.with_contrast_limits(0, (0, 400)))
    picture = next(iter(pictures(viewer).values()))
    assert picture[len(picture) // 2, len(picture) // 2].tolist() == [128] * 3


def test_the_patch_is_framed_in_the_image_until_nothing_is_selected(project):
    viewer = Viewer(project)
    viewer.show("left", 9)
    top, left, bottom, right = viewer.model.scene.field
    row = project.objects("left").loc[9]
    assert top < row["y0"]
    assert left < row["x0"]
    assert bottom > row["y1"]
    assert right > row["x1"]
    assert (top + bottom) / 2 == pytest.approx(row["y"] + 0.5, abs=0.6)
    viewer.model.selection = ()
    assert viewer.model.scene.field is None
    assert pictures(viewer) == {}


def test_another_image_begins_without_small_images(project):
    viewer = Viewer(project)
    viewer.show("left", 9)
    viewer.model.image = "right"
    assert pictures(viewer) == {}
    assert viewer.model.scene.field is None


@pytest.mark.parametrize("follows", [True, False])
def test_small_images_are_those_of_the_selected_object_also_in_another_image(project, monkeypatch, follows):
    viewer = Viewer(project)
    viewer.show("right", 9)
    expected, field = viewer.object_details.value, viewer.object_details.field
    viewer.show("left", 1)
    assert viewer.object_details.value != expected
    if not follows:
        monkeypatch.setattr(project.images, "is_indexed", lambda name: False)
    shared_model(project).selection = (("right", 9),)  # another view selects it
    assert viewer.object_details.value == expected
    assert (viewer.model.image, viewer.model.scene.field) == (("right", field) if follows else ("left", None))


def test_the_frame_has_the_size_from_the_settings(project):
    project.settings = project.settings.changed(patches={"size": 30.0})
    viewer = Viewer(project)
    viewer.show("left", 9)
    top, left, bottom, right = viewer.model.scene.field
    assert (bottom - top, right - left) == (30, 30)


def test_an_object_that_cannot_be_displayed_leaves_a_message_and_the_viewer_usable(project):
    project.settings = project.settings.changed(patches={"size": 8.0, "unit": "um"})
    viewer = Viewer(project)
    viewer.show("left", 9)
    assert "need an image with known pixel size" in viewer.object_details.value
    assert viewer.model.selected == 9
    assert viewer.model.scene.field is None
    project.settings = project.settings.changed(patches={"unit": "px"})
    viewer.show("left", 10)
    assert len(pictures(viewer)) == 3


def explanation(ndim, channels=("signal",)):
    """Return an explanation of a square with its evidence in the upper left corner."""
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
def test_both_explanation_images_are_large_and_outline_the_object(ndim, channels):
    seen, looked = (decoded(png) for png in explanation_pictures(explanation(ndim, channels)))
    assert seen.shape == looked.shape == (280, 280, 3)
    for picture in (seen, looked):
        assert (picture[6 * 14, 10 * 14] == 255).all()
        assert not (picture[0, 0] == 255).all()


def test_the_evidence_is_the_brightest_region():
    _, looked = explanation_pictures(explanation(2))
    picture = decoded(looked).sum(axis=2)
    assert picture[7 * 14 + 7, 7 * 14 + 7] > picture[12 * 14 + 7, 12 * 14 + 7]


def test_without_evidence_the_grad_cam_is_uniform():
    flat = explanation(2)
    flat["cam"][:] = 0
    _, looked = explanation_pictures(flat)
    assert len(np.unique(decoded(looked)[:70, :70].reshape(-1, 3), axis=0)) == 1


def test_a_large_patch_is_not_enlarged():
    large = xr.Dataset(
        {
            "image": (("c", "y", "x"), np.random.default_rng(0).random((1, 400, 300), np.float32)),
            "mask": (("y", "x"), np.zeros((400, 300), bool)),
            "cam": (("y", "x"), np.zeros((400, 300), np.float32)),
        },
        coords={"c": ["signal"]},
    )
    assert decoded(explanation_pictures(large)[0]).shape == (400, 300, 3)

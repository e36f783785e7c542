"""Allowed cues: restricted patches and candidate presets reveal no forbidden cue."""

from __future__ import annotations

import itertools
from typing import get_args

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, gaussian_filter
from xarray import DataArray

from svetlana_jupyter.core.allowed_cues import (
    candidate_presets,
    explain_restrictions,
    non_default_values,
    restrict_to_allowed_cues,
)
from svetlana_jupyter.core.features.catalog import CUES, columns
from svetlana_jupyter.core.io.image_pair import ImagePair
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.patch_geometry import resolve_patch_settings
from svetlana_jupyter.core.patches import count_object_only_channels, cut_patches
from svetlana_jupyter.core.settings import CANDIDATE_PRESETS, PRESETS, PatchSettings, TrainingSettings


def test_all_candidates_including_one_without_augmentation_are_compared_with_all_cues():
    candidates = candidate_presets(TrainingSettings())
    assert [*candidates] == [name for name in CANDIDATE_PRESETS if name != "grain"]
    assert len(candidates) <= 9
    assert not candidates["plain"].augmentation.varies
    assert candidates["forest"].architecture == "forest"


@pytest.mark.parametrize("allowed", [set(cues) for n in range(4) for cues in itertools.combinations(CUES, n)])
def test_no_candidate_uses_a_forbidden_cue(allowed):
    candidates = candidate_presets(TrainingSettings(may_use=allowed))
    assert next(iter(candidates)) == "default"
    assert list(candidates)[-2:] == ["forest", "live"]
    for settings in candidates.values():
        assert restrict_to_allowed_cues(settings) == settings
        assert settings.may_use == allowed
    dumps = [settings.model_dump_json(exclude={"preset"}) for settings in candidates.values()]
    assert len(set(dumps)) == len(dumps)


def test_residual_texture_is_a_candidate_only_without_surroundings_but_with_brightness():
    """Without brightness, residual texture would equal the preset "texture". Division by the mean reveals it."""
    allowed = {cue: "grain" in candidate_presets(TrainingSettings(may_use=set(CUES) - {cue})) for cue in CUES}
    assert allowed == {"surroundings": True, "brightness": False, "orientation": False, "size": False}
    assert "grain" not in candidate_presets(TrainingSettings(may_use=["orientation", "size"]))


def test_given_values_stay_in_every_candidate():
    requested = TrainingSettings(epochs=7, seed=3, patches={"size": 40}, augmentation={"share": 0.5})
    candidates = candidate_presets(requested)
    for settings in candidates.values():
        assert (settings.epochs, settings.seed, settings.patches.size) == (7, 3, 40)
        assert settings.augmentation.share == 0.5
        assert settings.patches.sampling == "auto"
    assert "wide" not in candidates  # a given size cannot be widened
    assert not {"object", "wide"} & set(candidate_presets(TrainingSettings(patches={"context": "hide"})))


@pytest.mark.parametrize("architecture", ["resnet18", "forest"])
def test_another_architecture_has_one_candidate(architecture):
    (settings,) = candidate_presets(TrainingSettings(architecture=architecture)).values()
    assert (settings.architecture, settings.preset) == (architecture, "default")


def test_a_given_sampling_stays_and_other_architectures_need_none():
    for settings in candidate_presets(TrainingSettings(patches={"size": 40, "sampling": 40})).values():
        assert settings.patches.sampling == 40
    (alone,) = candidate_presets(TrainingSettings(architecture="resnet18", patches={"size": 40})).values()
    assert alone.patches.sampling is None
    assert all(settings.patches.sampling is None for settings in candidate_presets(TrainingSettings()).values())


def test_only_values_that_differ_from_the_defaults_are_listed():
    assert non_default_values(TrainingSettings(preset="default")) == {}
    assert non_default_values(TrainingSettings(preset="object", width=8)) == {
        "patches": {"context": "hide"},
        "width": 8,
    }


def without(*cues: str, **values) -> TrainingSettings:
    return restrict_to_allowed_cues(TrainingSettings(may_use=set(CUES) - set(cues), **values))


def scene(ndim: int = 2, enlarged: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return image and mask of a textured, concave object with a neighbor in noise."""
    rng = np.random.default_rng(0)
    shape = (33,) * ndim
    grid = np.stack(np.meshgrid(*[np.arange(33) - 16] * ndim, indexing="ij"))
    mask = ((grid**2).sum(0) <= 49).astype(np.uint16)
    mask[(slice(9, 13),) * ndim] = 0
    mask[(slice(28, 32),) * ndim] = 2
    image = rng.normal(50, 8, shape) + 60 * (mask > 0) + 20 * rng.random(shape) * (mask == 1)
    for axis in range(ndim):
        image, mask = np.repeat(image, enlarged, axis), np.repeat(mask, enlarged, axis)
    return image, mask


def patch(image: np.ndarray, mask: np.ndarray, settings: TrainingSettings) -> np.ndarray:
    dims = list("zyx"[-mask.ndim :])
    pair = ImagePair("x", DataArray(image[None], dims=["c", *dims]), DataArray(mask, dims=dims))
    objects = index_objects(pair.mask).loc[[1]]
    frozen = resolve_patch_settings(settings.patches, objects, None, None)
    ((_, patches),) = cut_patches(pair, objects, frozen)
    return patches[0]


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("view", ["fixed", "object"])
@pytest.mark.parametrize("sampling", [None, 17])
@pytest.mark.parametrize("normalize", get_args(PatchSettings.model_fields["normalize"].annotation))
@pytest.mark.parametrize("scope", ["patch", "image"])
def test_without_surroundings_the_patch_is_the_same_whatever_is_outside(ndim, view, sampling, normalize, scope):
    image, mask = scene(ndim)
    other = np.where(mask == 1, image, np.random.default_rng(1).normal(900, 300, image.shape))
    patch_settings = {"normalize": normalize, "scope": scope, "view": view, "sampling": sampling, "dilation": 7}
    settings = without("surroundings", patches=patch_settings)
    reference = patch(image, mask, settings)
    np.testing.assert_array_equal(patch(other, np.where(mask == 1, 1, 0), settings), reference)
    assert np.ptp(reference[0]) > 0
    # Control: with its surroundings, the patch does change.
    changes = not np.array_equal(patch(other, mask, TrainingSettings(patches=patch_settings)), reference)
    assert changes or normalize == "grain"  # residual texture always hides the surroundings


@pytest.mark.parametrize("normalize", ["both_raw", "object"])
def test_without_surroundings_an_object_3_pixels_wide_is_not_dilated(normalize):
    """The automatic eroded margin is 0, so only the dilation determines the visible surroundings."""
    mask = np.zeros((33, 33), np.uint16)
    mask[15:18, 8:25] = 1
    image = np.random.default_rng(0).normal(50, 8, mask.shape) + 60 * mask
    settings = without("surroundings", patches={"normalize": normalize})
    reference = patch(image, mask, settings)
    np.testing.assert_array_equal(patch(np.where(mask, image, image + 90), mask, settings), reference)
    assert np.ptp(reference[0]) > 0


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("left", [("surroundings",), ()])
@pytest.mark.parametrize("preset", PRESETS)
def test_without_brightness_neither_gain_nor_offset_of_object_or_surroundings_changes_the_patch(ndim, left, preset):
    image, mask = scene(ndim)
    settings = without("brightness", *{"surroundings"}.difference(left), preset=preset)
    reference = patch(image, mask, settings)
    brighter = np.where(mask == 1, 3 * image - 40, 0.5 * image + 90)
    np.testing.assert_allclose(patch(brighter, mask, settings), reference, atol=1e-3)
    assert np.ptp(reference[0]) > 1


def test_without_brightness_the_mixed_light_along_the_edge_is_left_out():
    image, mask = scene()
    settings = without("brightness")
    near = binary_dilation(mask == 1, iterations=1) & ~np.isin(mask, 1)
    edge = (mask == 1) & binary_dilation(mask != 1, iterations=1)
    mixed = np.where(near, image + 30, np.where(edge, image - 30, image))
    np.testing.assert_allclose(patch(mixed, mask, settings), patch(image, mask, settings), atol=1e-4)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("left", [("surroundings",), ()])
def test_without_size_a_larger_object_in_the_same_optics_gives_the_same_patch(ndim, left):
    settings = without("size", *{"surroundings"}.difference(left), patches={"sampling": 14, "normalize": "none"})
    small, large = (patch(*through_optics(radius, ndim), settings)[0] for radius in (7.3, 14.6))
    shown = (small != 0) & (large != 0)
    assert np.abs(small - large)[shown].max() < 5  # of 80 between object and surroundings
    assert ((small != 0) == (large != 0)).mean() > 0.8
    # Control: in a plain patch, the edges of a small object are softer.
    plain = PatchSettings(size=22.0, sampling=14, context="hide", dilation=0, normalize="none", mask_channel=False)
    soft = patch(*through_optics(7.3, ndim), TrainingSettings(patches=plain))[0]
    assert np.ptp(soft[soft != 0]) > 25


def through_optics(radius: float, ndim: int) -> tuple[np.ndarray, np.ndarray]:
    """Return image and mask of a uniform ellipsoid on a dark background, with the same blur at any size."""
    side = int(4 * radius)
    positions = np.stack(np.meshgrid(*[np.arange(side) - side / 2] * ndim, indexing="ij"))
    stretch = np.r_[1.0, [0.8] * (ndim - 1)].reshape(-1, *[1] * ndim)
    mask = ((positions / (radius * stretch)) ** 2).sum(0) <= 1
    return gaussian_filter(np.where(mask, 100.0, 20.0), 0.8), mask.astype(np.uint16)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_without_size_thin_objects_stay_visible(width):
    mask = np.zeros((90, 90), np.uint16)
    mask[40 : 40 + width, 10:70] = 1
    shown = patch(mask * 50.0, mask, without("size", "surroundings", patches={"normalize": "none"}))[0] != 0
    across, along = shown.sum(axis=0).max(), shown.any(axis=0).sum()
    assert 1 <= across <= 2
    assert along >= len(shown) / 1.5 / 1.5


def test_without_size_objects_of_any_size_in_one_image_fill_their_patches_alike():
    mask = np.zeros((200, 200), np.uint16)
    for label, (center, radius) in enumerate([(30, 6), (80, 11), (150, 35)], 1):
        rows, columns = np.mgrid[:200, :200]
        mask[(rows - center) ** 2 + (columns - 100) ** 2 <= radius**2] = label
    pair = ImagePair("x", DataArray(mask[None] * 1.0, dims=["c", "y", "x"]), DataArray(mask, dims=["y", "x"]))
    objects = index_objects(pair.mask)
    frozen = resolve_patch_settings(PatchSettings(view="object", rim="auto"), objects, None, None)
    cut = dict(zip(*[np.concatenate(part) for part in zip(*cut_patches(pair, objects, frozen), strict=True)]))
    shares = [cut[label][-1].mean() for label in (1, 2, 3)]
    np.testing.assert_allclose(
        shares, np.pi / 4 / 1.5**2, rtol=0.2
    )  # a disk of few pixels fills less of its bounding box


def test_without_orientation_training_rotates_by_any_angle_and_mirrors():
    varied = without("orientation", preset="oriented", augmentation={"share": 0.5}).augmentation
    assert (varied.flips, varied.rotation, varied.axes, varied.share) == (True, "free", "all", 1.0)


@pytest.mark.parametrize("preset", PRESETS)
def test_restricting_twice_changes_nothing(preset):
    for cues in [(), *((cue,) for cue in CUES), CUES]:
        once = without(*cues, preset=preset)
        assert restrict_to_allowed_cues(once) == once
    assert without(preset=preset) == TrainingSettings(preset=preset)


def test_stricter_settings_stay():
    strict = without("brightness", patches={"context": "hide", "rim": 5}, augmentation={"brightness": 0.8})
    assert (strict.patches.context, strict.patches.rim, strict.patches.normalize) == ("hide", 5, "object")
    assert strict.augmentation.brightness == 0.8


@pytest.mark.parametrize("cue", CUES)
def test_a_forest_uses_no_measurement_of_a_forbidden_cue(cue):
    used = [column.measurement.uses for column in columns(2, 1, may_use=without(cue).measurements.may_use)]
    assert used
    assert not any(cue in uses for uses in used)
    narrower = without("size", measurements={"may_use": ["brightness", "size"]})
    assert narrower.measurements.may_use == {"brightness"}


def test_without_size_the_mask_is_not_shown():
    assert not without("size").patches.mask_channel
    assert all(without(cue).patches.mask_channel for cue in CUES if cue != "size")


def test_residual_texture_needs_an_eroded_margin_only_without_size():
    assert without("surroundings", preset="texture").patches.rim == "auto"
    assert without("surroundings", preset="grain").patches.rim == 0
    assert without("surroundings", "size", preset="grain").patches.rim == "auto"


@pytest.mark.parametrize("normalize", get_args(PatchSettings.model_fields["normalize"].annotation))
def test_object_only_channels_are_counted(normalize):
    image, mask = scene()
    settings = TrainingSettings(
        patches={"normalize": normalize, "rim": 2 if normalize == "apart" else 0, "dilation": 0}
    )
    channels = patch(image, mask, settings)[:-1]
    shown = [bool(channel[0].any() or channel[-1].any()) for channel in channels]
    hidden = count_object_only_channels(len(channels), settings.patches)
    assert shown == [True] * (len(channels) - hidden) + [False] * hidden


def test_overridden_settings_are_explained():
    settings = TrainingSettings(may_use=["brightness", "orientation", "size"])
    assert "must not use surroundings. Overridden" in explain_restrictions(settings)
    assert "patches.context is 'hide' instead of 'keep'" in explain_restrictions(settings)
    assert explain_restrictions(restrict_to_allowed_cues(settings)) == explain_restrictions(TrainingSettings()) == ""

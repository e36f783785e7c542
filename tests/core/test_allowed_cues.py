"""A search tries what the settings leave open, and nothing that may not count.

What may not count changes no pixel that a classifier sees, whatever the other settings say.
"""

from __future__ import annotations

import itertools
from typing import get_args

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, gaussian_filter
from xarray import DataArray

from svetlana_jupyter.core.allowed_cues import candidates, non_default_values, restrict_to_allowed_cues, said
from svetlana_jupyter.core.features.catalog import CUES, columns
from svetlana_jupyter.core.io.image_pair import ImagePair
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.patch_geometry import resolve_patch_settings
from svetlana_jupyter.core.patches import count_object_only_channels, cut_patches
from svetlana_jupyter.core.settings import CANDIDATE_PRESETS, PRESETS, PatchSettings, TrainingSettings


def test_with_everything_allowed_every_candidate_is_tried_and_one_does_not_augment():
    tried = candidates(TrainingSettings())
    assert [*tried] == [name for name in CANDIDATE_PRESETS if name != "grain"] and len(tried) <= 8
    assert not tried["plain"].augmentation.varies
    assert tried["forest"].architecture == "forest"


@pytest.mark.parametrize("allowed", [set(some) for n in range(4) for some in itertools.combinations(CUES, n)])
def test_no_candidate_lets_in_what_may_not_count(allowed):
    tried = candidates(TrainingSettings(may_use=allowed))
    assert next(iter(tried)) == "default" and list(tried)[-1] == "forest"
    for settings in tried.values():
        assert restrict_to_allowed_cues(settings) == settings
        assert settings.may_use == allowed
    dumps = [settings.model_dump_json(exclude={"preset"}) for settings in tried.values()]
    assert len(set(dumps)) == len(dumps)


def test_the_grain_is_looked_for_where_the_surroundings_may_not_count_but_brightness_may():
    """Without the brightness it is no more than the texture: what is divided by the level tells of it."""
    allowed = {some: "grain" in candidates(TrainingSettings(may_use=set(CUES) - {some})) for some in CUES}
    assert allowed == {"surroundings": True, "brightness": False, "orientation": False, "size": False}
    assert "grain" not in candidates(TrainingSettings(may_use=["orientation", "size"]))


def test_what_was_set_stays_in_every_candidate():
    asked = TrainingSettings(epochs=7, seed=3, patches={"size": 40}, augmentation={"share": 0.5})
    tried = candidates(asked)
    for settings in tried.values():
        assert (settings.epochs, settings.seed, settings.patches.size) == (7, 3, 40)
        assert settings.augmentation.share == 0.5
        assert settings.patches.sampling == "auto"
    assert "wide" not in tried  # a size that is set leaves nothing to widen
    assert not {"object", "wide"} & set(candidates(TrainingSettings(patches={"context": "hide"})))


@pytest.mark.parametrize("architecture", ["resnet18", "forest"])
def test_another_architecture_is_trained_as_it_was_asked_for(architecture):
    (settings,) = candidates(TrainingSettings(architecture=architecture)).values()
    assert (settings.architecture, settings.preset) == (architecture, "default")


def test_a_sampling_that_is_set_stays_and_one_architecture_alone_needs_none():
    for settings in candidates(TrainingSettings(patches={"size": 40, "sampling": 40})).values():
        assert settings.patches.sampling == 40
    (alone,) = candidates(TrainingSettings(architecture="resnet18", patches={"size": 40})).values()
    assert alone.patches.sampling is None
    assert all(settings.patches.sampling is None for settings in candidates(TrainingSettings()).values())


def test_what_is_as_by_default_is_no_change():
    assert non_default_values(TrainingSettings(preset="default")) == {}
    assert non_default_values(TrainingSettings(preset="object", width=8)) == {
        "patches": {"context": "hide"},
        "width": 8,
    }


def without(*evidence: str, **values) -> TrainingSettings:
    return restrict_to_allowed_cues(TrainingSettings(may_use=set(CUES) - set(evidence), **values))


def scene(ndim: int = 2, enlarged: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A textured object with a dent, a second one beside it, and noise."""
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
    found = ImagePair("x", DataArray(image[None], dims=["c", *dims]), DataArray(mask, dims=dims))
    objects = index_objects(found.mask).loc[[1]]
    frozen = resolve_patch_settings(settings.patches, objects, None, None)
    ((_, patches),) = cut_patches(found, objects, frozen)
    return patches[0]


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("view", ["fixed", "object"])
@pytest.mark.parametrize("sampling", [None, 17])
@pytest.mark.parametrize("normalize", get_args(PatchSettings.model_fields["normalize"].annotation))
@pytest.mark.parametrize("scope", ["patch", "image"])
def test_without_surroundings_the_patch_is_the_same_whatever_is_outside(ndim, view, sampling, normalize, scope):
    image, mask = scene(ndim)
    other = np.where(mask == 1, image, np.random.default_rng(1).normal(900, 300, image.shape))
    given = {"normalize": normalize, "scope": scope, "view": view, "sampling": sampling, "dilation": 7}
    settings = without("surroundings", patches=given)
    seen = patch(image, mask, settings)
    np.testing.assert_array_equal(patch(other, np.where(mask == 1, 1, 0), settings), seen)
    assert np.ptp(seen[0]) > 0
    # ... which is what the test would miss if it compared nothing: with its surroundings, the patch does change.
    changes = not np.array_equal(patch(other, mask, TrainingSettings(patches=given)), seen)
    assert changes or normalize == "grain"  # which shows the object alone in any case


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("left", [("surroundings",), ()])
@pytest.mark.parametrize("preset", PRESETS)
def test_without_brightness_neither_gain_nor_offset_of_object_or_surroundings_changes_the_patch(ndim, left, preset):
    image, mask = scene(ndim)
    settings = without("brightness", *{"surroundings"}.difference(left), preset=preset)
    seen = patch(image, mask, settings)
    augment_intensity = np.where(mask == 1, 3 * image - 40, 0.5 * image + 90)
    np.testing.assert_allclose(patch(augment_intensity, mask, settings), seen, atol=1e-3)
    assert np.ptp(seen[0]) > 1


def test_without_brightness_the_light_that_mixes_along_the_edge_is_left_out():
    image, mask = scene()
    settings = without("brightness")
    near = binary_dilation(mask == 1, iterations=1) & ~np.isin(mask, 1)
    edge = (mask == 1) & binary_dilation(mask != 1, iterations=1)
    mixed = np.where(near, image + 30, np.where(edge, image - 30, image))
    np.testing.assert_allclose(patch(mixed, mask, settings), patch(image, mask, settings), atol=1e-4)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("left", [("surroundings",), ()])
def test_without_size_a_larger_object_seen_through_the_same_optics_gives_the_same_patch(ndim, left):
    settings = without("size", *{"surroundings"}.difference(left), patches={"sampling": 14, "normalize": "none"})
    small, large = (patch(*through_optics(radius, ndim), settings)[0] for radius in (7.3, 14.6))
    shown = (small != 0) & (large != 0)
    assert np.abs(small - large)[shown].max() < 5  # of 80 between the object and what is around it
    assert ((small != 0) == (large != 0)).mean() > 0.8
    # ... which says something: by the image alone, the edges of a small object are softer.
    plain = PatchSettings(size=22.0, sampling=14, context="hide", dilation=0, normalize="none", mask_channel=False)
    soft = patch(*through_optics(7.3, ndim), TrainingSettings(patches=plain))[0]
    assert np.ptp(soft[soft != 0]) > 25


def through_optics(radius: float, ndim: int) -> tuple[np.ndarray, np.ndarray]:
    """An even ellipsoid on a dark ground, blurred as much however large it is."""
    side = int(4 * radius)
    places = np.stack(np.meshgrid(*[np.arange(side) - side / 2] * ndim, indexing="ij"))
    stretch = np.r_[1.0, [0.8] * (ndim - 1)].reshape(-1, *[1] * ndim)
    mask = ((places / (radius * stretch)) ** 2).sum(0) <= 1
    return gaussian_filter(np.where(mask, 100.0, 20.0), 0.8), mask.astype(np.uint16)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_without_size_thin_objects_are_not_lost(width):
    mask = np.zeros((90, 90), np.uint16)
    mask[40 : 40 + width, 10:70] = 1
    shown = patch(mask * 50.0, mask, without("size", "surroundings", patches={"normalize": "none"}))[0] != 0
    across, along = shown.sum(axis=0).max(), shown.any(axis=0).sum()
    assert 1 <= across <= 2 and along >= len(shown) / 1.5 / 1.5


def test_without_size_objects_of_any_size_in_one_image_fill_their_patches_alike():
    mask = np.zeros((200, 200), np.uint16)
    for label, (center, radius) in enumerate([(30, 6), (80, 11), (150, 35)], 1):
        rows, columns = np.mgrid[:200, :200]
        mask[(rows - center) ** 2 + (columns - 100) ** 2 <= radius**2] = label
    found = ImagePair("x", DataArray(mask[None] * 1.0, dims=["c", "y", "x"]), DataArray(mask, dims=["y", "x"]))
    objects = index_objects(found.mask)
    frozen = resolve_patch_settings(PatchSettings(view="object", rim="auto"), objects, None, None)
    cut = dict(zip(*[np.concatenate(part) for part in zip(*cut_patches(found, objects, frozen), strict=True)]))
    shares = [cut[label][-1].mean() for label in (1, 2, 3)]
    np.testing.assert_allclose(shares, np.pi / 4 / 1.5**2, rtol=0.2)  # a disc of few pixels fills less of its box


def test_without_orientation_training_turns_by_any_angle_and_mirrors():
    varied = without("orientation", preset="oriented", augmentation={"share": 0.5}).augmentation
    assert (varied.flips, varied.rotation, varied.axes, varied.share) == (True, "free", "all", 1.0)


@pytest.mark.parametrize("preset", PRESETS)
def test_what_may_count_wins_and_restricting_twice_changes_nothing(preset):
    for evidence in [(), *((one,) for one in CUES), CUES]:
        once = without(*evidence, preset=preset)
        assert restrict_to_allowed_cues(once) == once
    assert without(preset=preset) == TrainingSettings(preset=preset)


def test_stricter_settings_of_ones_own_stay():
    strict = without("brightness", patches={"context": "hide", "rim": 5}, augmentation={"brightness": 0.8})
    assert (strict.patches.context, strict.patches.rim, strict.patches.normalize) == ("hide", 5, "object")
    assert strict.augmentation.brightness == 0.8


@pytest.mark.parametrize("evidence", CUES)
def test_a_forest_measures_nothing_that_uses_what_may_not_count(evidence):
    used = [column.measurement.uses for column in columns(2, 1, may_use=without(evidence).measurements.may_use)]
    assert used and not any(evidence in uses for uses in used)
    narrower = without("size", measurements={"may_use": ["brightness", "size"]})
    assert narrower.measurements.may_use == {"brightness"}


def test_without_size_no_mask_shows_its_corners():
    assert not without("size").patches.mask_channel
    assert all(without(one).patches.mask_channel for one in CUES if one != "size")


def test_the_grain_needs_no_rim_against_the_surroundings_but_one_against_size():
    assert without("surroundings", preset="texture").patches.rim == "auto"
    assert without("surroundings", preset="grain").patches.rim == 0
    assert without("surroundings", "size", preset="grain").patches.rim == "auto"


@pytest.mark.parametrize("normalize", get_args(PatchSettings.model_fields["normalize"].annotation))
def test_channels_are_hidden_where_nothing_beside_the_object_is_shown(normalize):
    image, mask = scene()
    settings = TrainingSettings(
        patches={"normalize": normalize, "rim": 2 if normalize == "apart" else 0, "dilation": 0}
    )
    channels = patch(image, mask, settings)[:-1]
    shown = [bool(channel[0].any() or channel[-1].any()) for channel in channels]
    hidden = count_object_only_channels(len(channels), settings.patches)
    assert shown == [True] * (len(channels) - hidden) + [False] * hidden


def test_what_is_overruled_is_said():
    settings = TrainingSettings(may_use=["brightness", "orientation", "size"])
    assert "surroundings may not count" in said(settings)
    assert "patches.context is 'hide' instead of 'keep'" in said(settings)
    assert said(restrict_to_allowed_cues(settings)) == said(TrainingSettings()) == ""

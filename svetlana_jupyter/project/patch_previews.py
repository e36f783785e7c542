"""Patches of single objects, as a classifier would receive them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from xarray import DataArray

from svetlana_jupyter.core.allowed_cues import restrict_to_allowed_cues
from svetlana_jupyter.core.patch_geometry import patch_geometry, patch_settings_for_object, resolve_patch_settings
from svetlana_jupyter.core.patches import take_patch
from svetlana_jupyter.core.settings import AUTO_PRESET
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.training_job import previous_choice

if TYPE_CHECKING:
    from collections.abc import Iterable

    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.core.normalization import Floats
    from svetlana_jupyter.core.settings import PatchSettings, TrainingSettings
    from svetlana_jupyter.project.exporters.snapshot import ResultsSnapshot
    from svetlana_jupyter.project.image_collection import ImageCollection
    from svetlana_jupyter.project.runs import Run

MAX_SAMPLED_OBJECTS = 256  # objects from which a preview estimates the standard deviation of each channel


def patch_settings(
    images: ImageCollection | ResultsSnapshot, labels: pd.Series[int], image: str, settings: TrainingSettings
) -> PatchSettings:
    """Return the patch settings that a training with the current labels would use.

    This function may be called from any thread.

    Parameters
    ----------
    images : ImageCollection or ResultsSnapshot
    labels : Series of int
        Class ids of the labeled objects, indexed by ``(image, object)``. Without labels, an automatic patch size is
        computed from all objects of ``image``.
    image : str
    settings : TrainingSettings
    """
    settings = restrict_to_allowed_cues(settings)
    if settings.patches.is_frozen:
        return settings.patches
    names = list(labels.index.unique("image")) or [image]
    objects = pd.concat({name: images.objects(name) for name in names})
    known = labels if len(labels) else None
    return resolve_patch_settings(settings.patches, objects, known, images.pair(image).spacing, settings.min_patch_side)


def classifier_patch(images: ImageCollection, image: str, label: int, settings: PatchSettings) -> DataArray:
    """Return the patch of an object as a classifier with these settings receives it.

    Parameters
    ----------
    images : ImageCollection
    image : str
    label : int
    settings : PatchSettings
        Frozen settings, as returned by `patch_settings`.

    Returns
    -------
    DataArray of shape (C', [Z,] Y, X), float32
        The coordinate ``c`` contains the channel names; the other coordinates are in pixels of the image.

    Raises
    ------
    InputError
        If the image has no such object.
    """
    pair, row = images.pair(image), _object_row(images, image, label)
    center = row[list("zyx"[-pair.ndim :])].to_numpy(float)[0]
    settings = patch_settings_for_object(settings, row, label, pair.spacing)
    pixels = take_patch(pair.image, pair.mask, center, settings, label)
    coordinates = patch_geometry(settings, pair.spacing).coordinates(center)
    return _with_channel_names(pixels, pair, settings, "patch").assign_coords(coordinates)


def augmented_patches(
    images: ImageCollection,
    labels: pd.Series[int],
    runs: Iterable[Run],
    image: str,
    label: int,
    settings: TrainingSettings,
    n: int = 8,
) -> DataArray:
    """Return patches of an object, augmented as in a training with these settings.

    With the preset "auto", the preset that was selected in the latest of ``runs`` is used, or the default preset if
    none was selected. Intensity augmentation is in units of each channel's standard deviation, which is estimated from
    at most `MAX_SAMPLED_OBJECTS` labeled objects, or from objects of the image if no object is labeled.

    Parameters
    ----------
    images : ImageCollection
    labels : Series of int
        Class ids of the labeled objects, indexed by ``(image, object)``.
    runs : iterable of Run
        Earlier runs, in which a preset may have been selected.
    image : str
    label : int
    settings : TrainingSettings
    n : int

    Returns
    -------
    DataArray of shape (n, C', [Z,] Y, X), float32
        The coordinate ``c`` contains the channel names, as for `classifier_patch`. ``attrs["settings"]`` contains the
        settings in use as JSON, with frozen patch settings.

    Raises
    ------
    InputError
        If the image has no such object.
    SettingsError
        If the augmentation pipeline does not work on such patches.
    """
    from svetlana_jupyter.learn.augmentation import augment_object

    if settings.preset == AUTO_PRESET and (before := previous_choice(runs, settings, labels.unique().tolist())):
        settings = before[1]
    settings = restrict_to_allowed_cues(settings)
    row = _object_row(images, image, label)
    frozen = settings.changed(patches=patch_settings(images, labels, image, settings))
    ids = labels.index if len(labels) else pd.MultiIndex.from_product([[image], images.objects(image).index])
    sampled = ids[np.unique(np.linspace(0, len(ids) - 1, min(len(ids), MAX_SAMPLED_OBJECTS)).astype(int))]
    others = []
    for name in map(str, sampled.unique(0)):
        table = images.objects(name)
        chosen = sampled[sampled.get_level_values(0) == name].get_level_values(1)
        others.append((images.pair(name), table[table.index.isin(chosen)]))
    pair = images.pair(image)
    pixels = augment_object(pair, row, others, frozen, n)
    named = _with_channel_names(pixels, pair, frozen.patches, "augmented patches")
    return named.assign_attrs(settings=frozen.to_json())


def check_pipeline(images: ImageCollection, labels: pd.Series[int], settings: TrainingSettings) -> None:
    """Check that an augmentation pipeline works on patches of the images.

    The check does not read pixels of the images.

    Raises
    ------
    SettingsError
        If Albumentations has no such transform, or if the pipeline fails on patches or changes their shape.
    """
    if settings.augmentation.pipeline is None:
        return
    from svetlana_jupyter.learn.albumentations_adapter import build_pipeline

    settings = restrict_to_allowed_cues(settings)
    kinds = {(len(entry.shape), len(entry.channels)): name for name, entry in images.items()} or {(2, 3): ""}
    annotated = list(labels.index.unique("image"))
    for (ndim, channels), image in kinds.items():
        # The patch size depends on the objects, which may not be indexed yet.
        if image and all(images.is_indexed(name) for name in annotated or [image]):
            settings = settings.changed(patches=patch_settings(images, labels, image, settings))
        build_pipeline(settings, ndim, channels)


def _object_row(images: ImageCollection, image: str, label: int) -> pd.DataFrame:
    objects = images.objects(image)
    if label not in objects.index:
        raise InputError(f"Image {image!r} has no object {label}. Choose one of its {len(objects):,} objects.")
    return objects.loc[[label]]


def _with_channel_names(pixels: Floats, pair: ImagePair, settings: PatchSettings, name: str) -> DataArray:
    """Return patches (..., C', [z,] y, x) as a DataArray with named channels."""
    doubled = pair.channels if settings.has_doubled_channels else ()
    names = [*pair.channels, *(f"{channel}, object alone" for channel in doubled), *["mask"] * settings.mask_channel]
    dims = ["n", "c", *"zyx"[-pair.ndim :]][-pixels.ndim :]
    return DataArray(pixels, dims=dims, coords={"c": names}, name=name)

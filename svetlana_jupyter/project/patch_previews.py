"""What a classifier that is trained now would see of an object."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from xarray import DataArray

from svetlana_jupyter.core.allowed_cues import restrict_to_allowed_cues
from svetlana_jupyter.core.patch_geometry import patch_geometry, patch_settings_for_object, resolve_patch_settings
from svetlana_jupyter.core.patches import Floats, take_patch
from svetlana_jupyter.core.settings import AUTO_PRESET
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.training_job import previous_choice

if TYPE_CHECKING:
    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.core.settings import PatchSettings, TrainingSettings
    from svetlana_jupyter.project.project import Project

MEASURED = 256  # objects whose deviation a preview of augmentation is in units of


def patch_settings(project: Project, image: str, settings: TrainingSettings | None = None) -> PatchSettings:
    """Return the patches of settings, the project's by default, as a training that starts now would freeze them.

    Before there are annotations, a size that is automatic follows all objects of ``image``. Any thread may call this.
    """
    settings = settings or restrict_to_allowed_cues(project.settings)
    pair = project.pair(image)
    if settings.patches.is_frozen:
        return settings.patches
    labels = _labels(project)
    names = list(labels.index.unique("image")) or [image]
    objects = pd.concat({name: project.objects(name) for name in names})
    known = labels if len(labels) else None
    return resolve_patch_settings(settings.patches, objects, known, pair.spacing, settings.min_patch_side)


def classifier_patch(project: Project, image: str, label: int, settings: PatchSettings) -> DataArray:
    """Return the patch of an object exactly as a classifier with these settings sees it.

    Parameters
    ----------
    project : Project
    image : str
    label : int
    settings : PatchSettings
        Frozen (`patch_settings`).

    Returns
    -------
    DataArray of shape (C', [Z,] Y, X), float32
        ``c`` names what each channel is; the other coordinates are in pixels of the image.

    Raises
    ------
    InputError
        If the image has no such object.
    """
    pair, row = project.pair(image), _row(project, image, label)
    axes = list("zyx"[-pair.ndim :])
    center = row[axes].to_numpy(float)[0]
    settings = patch_settings_for_object(settings, row, label, pair.spacing)
    pixels = take_patch(pair.image, pair.mask, center, settings, label)
    geometry = patch_geometry(settings, pair.spacing)
    places = {
        axis: first + step * np.arange(count)
        for axis, first, step, count in zip(axes, geometry.origin(center), geometry.step, geometry.shape, strict=True)
    }
    return _named(pixels, pair, settings, "patch").assign_coords(places)


def augmented_patches(
    project: Project, image: str, label: int, settings: TrainingSettings | None = None, n: int = 8
) -> DataArray:
    """Return patches of an object varied as a training with these settings varies them.

    Where they leave the preset open, it is the one that was chosen last, else the default one.

    Changes of light are in units of each channel's deviation over the annotated objects, of which at most 256 are
    looked at; before there are any, over as many objects of the image.

    Parameters
    ----------
    project : Project
    image : str
    label : int
    settings : TrainingSettings, optional
        The project's by default.
    n : int

    Returns
    -------
    DataArray of shape (n, C', [Z,] Y, X), float32
        ``c`` names what each channel is, as for `classifier_patch`. The settings that were used, patches concrete, are
        ``attrs["settings"]`` as JSON.

    Raises
    ------
    InputError
        If the image has no such object.
    SettingsError
        If the augmentation pipeline cannot work on such patches.
    """
    from svetlana_jupyter.learn.augmentation import augment_object

    settings, labels = settings or project.settings, _labels(project)
    if settings.preset == AUTO_PRESET and (before := previous_choice(project.runs, settings, labels.unique().tolist())):
        settings = before[1]
    settings = restrict_to_allowed_cues(settings)
    row = _row(project, image, label)
    frozen = settings.changed(patches=patch_settings(project, image, settings))
    known = labels.index if len(labels) else pd.MultiIndex.from_product([[image], project.objects(image).index])
    some = known[np.unique(np.linspace(0, len(known) - 1, min(len(known), MEASURED)).astype(int))]
    tables = {str(name): project.objects(str(name)) for name in some.unique(0)}
    beside = [
        (project.pair(name), table[table.index.isin(some[some.get_level_values(0) == name].get_level_values(1))])
        for name, table in tables.items()
    ]
    varied = augment_object(project.pair(image), row, beside, frozen, n)
    named = _named(varied, project.pair(image), frozen.patches, "augmented patches")
    return named.assign_attrs(settings=frozen.to_json())


def check_pipeline(project: Project, settings: TrainingSettings) -> None:
    """Refuse an augmentation pipeline that the project's images cannot go through, before anything is cut.

    Raises
    ------
    SettingsError
        If Albumentations does not know a transform, or the pipeline fails on patches or changes their shape.
    """
    if settings.augmentation.pipeline is None:
        return
    from svetlana_jupyter.learn.albumentations_adapter import build_pipeline

    settings = restrict_to_allowed_cues(settings)
    kinds = {(len(entry.shape), len(entry.channels)): name for name, entry in project.images.items()} or {(2, 3): ""}
    annotated = list(_labels(project).index.unique("image"))
    for (ndim, channels), image in kinds.items():
        if image and all(project.images.is_indexed(name) for name in annotated or [image]):  # how large patches are is known
            settings = settings.changed(patches=patch_settings(project, image, settings))
        build_pipeline(settings, ndim, channels)


def _labels(project: Project) -> pd.Series[int]:
    with project._folder.lock:
        return project.labels().query("action == 'label'")["class_id"]


def _row(project: Project, image: str, label: int) -> pd.DataFrame:
    objects = project.objects(image)
    if label not in objects.index:
        raise InputError(f"{image} has no object {label}; it has {len(objects):,} objects.")
    return objects.loc[[label]]


def _named(pixels: Floats, pair: ImagePair, settings: PatchSettings, name: str) -> DataArray:
    """Name the channels of patches (..., C', [z,] y, x)."""
    names = [*pair.channels]
    if settings.has_doubled_channels:
        names += [f"{name}, object alone" for name in pair.channels]
    if settings.mask_channel:
        names.append("mask")
    dims = ["n", "c", *"zyx"[-pair.ndim :]][-pixels.ndim :]
    return DataArray(pixels, dims=dims, coords={"c": names}, name=name)

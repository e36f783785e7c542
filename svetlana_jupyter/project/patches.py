"""What a classifier that is trained now would see of an object."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from xarray import DataArray

from svetlana_jupyter.core.patches import freeze_patches, patch_geometry, take_patch
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from svetlana_jupyter.core.settings import PatchSettings
    from svetlana_jupyter.project.project import Project


def patch_settings(project: Project, image: str) -> PatchSettings:
    """Return the patch settings as a training that starts now would freeze them.

    Before there are annotations, a size that is automatic follows all objects of ``image``. Any thread may call this.
    """
    settings = project.settings.patches
    pair = project.pair(image)
    if settings.is_frozen:
        return settings
    with project._lock:
        labels = project.labels().query("action == 'label'")["class_id"]
    names = list(labels.index.unique("image")) or [image]
    objects = pd.concat({name: project.objects(name) for name in names})
    return freeze_patches(settings, objects, labels if len(labels) else None, pair.spacing)


def seen_patch(project: Project, image: str, object: int, settings: PatchSettings) -> DataArray:
    """Return the patch of an object exactly as a classifier with these settings sees it.

    Parameters
    ----------
    project : Project
    image : str
    object : int
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
    pair, objects = project.pair(image), project.objects(image)
    if object not in objects.index:
        raise InputError(f"{image} has no object {object}; it has {len(objects):,} objects.")
    axes = list("zyx"[-pair.ndim :])
    center = objects.loc[object, axes].to_numpy(float)
    pixels = take_patch(pair.image, pair.mask, center, settings, object)
    geometry = patch_geometry(settings, pair.spacing)
    names = [*pair.channels]
    if settings.normalize == "both":
        names += [f"{name}, object alone" for name in pair.channels]
    if settings.mask_channel:
        names.append("mask")
    places = {
        axis: first + step * np.arange(count)
        for axis, first, step, count in zip(axes, geometry.origin(center), geometry.step, geometry.shape, strict=True)
    }
    return DataArray(pixels, dims=("c", *axes), coords={"c": names, **places}, name="patch")

"""The table of objects, with what was measured of them, as a Dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
import xarray as xr

from svetlana_jupyter.core.object_dataset import object_dataset
from svetlana_jupyter.project.exports.measured import cached_measurements

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project


def to_xarray(project: Project, images: Sequence[str]) -> xr.Dataset:
    """Return the objects of some images as `core.object_dataset` describes them."""
    measured = {name: table for name in images if len((table := cached_measurements(project, name)).columns)}
    found = object_dataset(
        project.predictions(images),
        project.classes,
        {name: project.pair(name).spacing for name in images},
        pd.concat(measured, names=["image"]) if measured else None,
    )
    return found.assign_attrs(project=project.path.name, run=project.current_run)

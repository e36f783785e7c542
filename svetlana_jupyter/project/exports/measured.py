"""What is known of the objects beyond their predictions, without measuring anything anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from svetlana_jupyter.core.measure import feature_cache_key
from svetlana_jupyter.project.measurement import MEASURED, feature_table

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project


def cached_measurements(project: Project, image: str) -> pd.DataFrame:
    """Return what `Project.measure` has measured of all objects of an image, columns called and in units as there.

    Returns
    -------
    DataFrame
        Indexed by object; without columns where nothing was measured yet.
    """
    pair, objects = project.pair(image), project.objects(image)
    settings = project.settings.measurements
    known = [
        group
        for group in MEASURED
        if pair.feature_cache
        and objects.index.isin(pair.feature_cache.recall(feature_cache_key(group, settings)).index).all()
    ]
    if not known:
        return objects[[]]
    return feature_table(pair, objects, settings.changed(groups=tuple(known))).droplevel("image")

"""The measuring job, and its result as a table for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pandas as pd

from svetlana_jupyter.core.measure import feature_cache_key, finest_pixel_size_um, in_um, measure
from svetlana_jupyter.core.measure_settings import MeasureSettings
from svetlana_jupyter.core.measures.table import columns
from svetlana_jupyter.core.pairing import ImagePair
from svetlana_jupyter.project.jobs import Progress, Stop

MEASURED = ("shape", "intensity", "texture", "ring", "orientation", "position")


def needs_measuring(pair: ImagePair, objects: pd.DataFrame, settings: MeasureSettings) -> bool:
    """Whether anything must still be measured of these objects."""
    feature_cache = pair.feature_cache
    known = (
        [feature_cache.recall(feature_cache_key(group, settings)).index for group in settings.groups]
        if feature_cache
        else [objects.index[:0]]
    )
    return any(not objects.index.isin(index).all() for index in known)


def measure_images(
    pairs: Mapping[str, ImagePair], objects: Callable[[str], pd.DataFrame], settings: MeasureSettings, stop: Stop
) -> Iterator[Progress]:
    """Measure all objects of images into their memories; a stop keeps what is done."""
    yield Progress(0, 1, "opening")
    tables = {name: objects(name) for name in pairs}
    total = sum(map(len, tables.values()))
    done = 0
    for name, pair in pairs.items():
        for table in measure(pair, tables[name], settings):
            done += len(table)
            yield Progress(done, total, f"measuring {name}")
            if stop():
                return


def feature_table(pair: ImagePair, objects: pd.DataFrame, settings: MeasureSettings) -> pd.DataFrame:
    """Return what is measured of the objects of an image, for people: indexed by ``(image, object)``."""
    found = columns(pair.ndim, len(pair.channels), settings.groups)
    table = pd.concat(list(measure(pair, objects, settings))).loc[objects.index]
    return pd.concat(
        {pair.name: in_um(table, found, pair.channels, finest_pixel_size_um(pair))}, names=["image", "object"]
    )

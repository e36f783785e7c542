"""On-disk cache of object features, and the measurement job.

The file ``measurements/<image>/<group>.parquet`` has one row per object and one column per feature key, so that no
object is measured twice. Each file records its image, mask and spacing and the version of the feature code; files for
another image, mask, spacing or version are ignored. The cache may be deleted at any time.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd
from filelock import FileLock

from svetlana_jupyter.core.features.catalog import VERSION, columns
from svetlana_jupyter.core.features.compute import cached_features, in_um, measure
from svetlana_jupyter.core.io.images import fingerprint
from svetlana_jupyter.errors import InputError, ProjectError
from svetlana_jupyter.project.file_access import make_folder, read_parquet, refuse_link
from svetlana_jupyter.project.jobs import Progress, Stop
from svetlana_jupyter.project.storage import atomic_write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.core.settings import MeasureSettings

DEFAULT_FEATURE_GROUPS = ("shape", "intensity", "texture", "ring", "orientation", "position")


class DiskFeatureCache:
    """Cached features of one image; safe to use from several threads and kernels.

    Parameters
    ----------
    folder : Path
    writable : bool
        If False, features are cached in memory only.
    identity : callable
        Returns a text that identifies image, mask and spacing; called once, when the text is first needed. If the
        function raises an `InputError` because a file is missing, the cache stays empty, and reading the pixels raises
        the same error.
    """

    def __init__(self, folder: Path, writable: bool, identity: Callable[[], str]) -> None:
        self._folder, self._writable, self._identity = folder, writable, identity
        self._version = ""
        self._tables: dict[str, pd.DataFrame] = {}
        self._lock = threading.RLock()

    def get_features(self, key: str) -> pd.DataFrame:
        """Return the cached features of a feature group, indexed by object."""
        with self._lock:
            if not self._version:
                try:
                    self._version = f"{VERSION} {self._identity()}"
                except InputError:
                    return _empty_table()
            if key not in self._tables:
                self._tables[key] = self._read(key)
            return self._tables[key]

    def add_features(self, key: str, table: pd.DataFrame) -> None:
        """Add features of a feature group; objects in the cache keep their features."""
        with self._lock:
            self._tables[key] = _append_new(self.get_features(key), table)
            if self._writable and self._version:
                with suppress(OSError, ProjectError):  # a full disk or a link must not interrupt the user
                    make_folder(self._folder)
                    refuse_link(self._folder / ".measurements.lock")
                    # Another kernel may have written rows after this kernel read the file.
                    with FileLock(self._folder / ".measurements.lock"):
                        self._tables[key] = _append_new(self._read(key), self._tables[key])
                        self._tables[key].attrs["of"] = self._version
                        with atomic_write(self._file(key)) as draft:
                            self._tables[key].to_parquet(draft)

    def _file(self, key: str) -> Path:
        return self._folder / f"{key}.parquet"

    def _read(self, key: str) -> pd.DataFrame:
        with suppress(OSError, ValueError):  # an unreadable file is measured again
            table = read_parquet(self._file(key))
            numeric = all(map(pd.api.types.is_numeric_dtype, table.dtypes))
            if numeric and table.attrs.get("of") == self._version:
                return table
        return _empty_table()


def with_feature_cache(
    pair: ImagePair, folder: Path, writable: bool, files: tuple[Path | tuple[Path, ...], Path]
) -> ImagePair:
    """Return an image pair that caches its features in a folder.

    Parameters
    ----------
    pair : ImagePair
    folder : Path
    writable : bool
    files : (Path or tuple of Path, Path)
        Files of the image and of the mask.
    """
    cache = DiskFeatureCache(folder, writable, lambda: f"{' '.join(map(fingerprint, files))} {pair.spacing}")
    return replace(pair, feature_cache=cache)


def _empty_table() -> pd.DataFrame:
    return pd.DataFrame(index=pd.Index([], dtype="int64", name="object"))


def _append_new(cached: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Add the rows of objects that are not cached.

    The cached table is replaced if it lacks a column of the new table.
    """
    lacks_columns = not set(table.columns) <= set(cached.columns)
    new = table if cached.empty or lacks_columns else pd.concat([cached, table[~table.index.isin(cached.index)]])
    return new.sort_index()


def needs_measuring(pair: ImagePair, objects: pd.DataFrame, settings: MeasureSettings) -> bool:
    """Return whether any feature of these objects is not cached yet."""
    return not all(_is_cached(pair, objects, group, settings) for group in settings.groups)


def _is_cached(pair: ImagePair, objects: pd.DataFrame, group: str, settings: MeasureSettings) -> bool:
    return bool(objects.index.isin(cached_features(pair, group, settings).index).all())


def measure_images(
    pairs: Mapping[str, ImagePair], objects: Callable[[str], pd.DataFrame], settings: MeasureSettings, stop: Stop
) -> Iterator[Progress]:
    """Measure all objects of the images, and store the features in their caches.

    After a stop, finished measurements are kept.
    """
    yield Progress(0, 1, "opening")
    tables = {name: objects(name) for name in pairs}
    total, done = sum(map(len, tables.values())), 0
    for name, pair in pairs.items():
        for table in measure(pair, tables[name], settings):
            done += len(table)
            yield Progress(done, total, f"measuring {name}")
            if stop():
                return


def feature_table(pair: ImagePair, objects: pd.DataFrame, settings: MeasureSettings) -> pd.DataFrame:
    """Return the features of the objects of an image with readable names and units.

    Returns
    -------
    DataFrame
        Indexed by ``(image, object)``.
    """
    names = columns(pair.ndim, len(pair.channels), settings.groups)
    table = pd.concat(list(measure(pair, objects, settings))).loc[objects.index]
    readable = in_um(table, names, pair)
    return pd.concat({pair.name: readable}, names=["image", "object"])


def cached_measurements(pair: ImagePair, objects: pd.DataFrame, settings: MeasureSettings) -> pd.DataFrame:
    """Return the features that are cached for all objects, without measuring any.

    Returns
    -------
    DataFrame
        Indexed by object, with the columns and units of `Project.measure`; without columns if no feature is cached.
    """
    wanted = DEFAULT_FEATURE_GROUPS if pair.feature_cache is not None else ()
    groups = tuple(group for group in wanted if _is_cached(pair, objects, group, settings))
    if not groups:
        return objects[[]]
    return feature_table(pair, objects, settings.changed(groups=groups)).droplevel("image")

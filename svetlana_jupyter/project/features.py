"""What was measured of the objects of an image, kept in the project so that no object is measured twice.

``measurements/<image>/<group>.parquet``, a row an object and a column a measurement by its key. Each file says which
image and mask it is of, with their spacing, and in which version it was measured; whatever is of others counts as not
there. It is a cache: it may be deleted at any time.

The measuring job, and its result as a table for people.

What is known of the objects beyond their predictions, without measuring anything anew.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from filelock import FileLock

from svetlana_jupyter.core.features.catalog import VERSION, columns
from svetlana_jupyter.core.features.compute import feature_cache_key, finest_pixel_size_um, in_um, measure
from svetlana_jupyter.core.io.image_pair import ImagePair
from svetlana_jupyter.core.io.images import fingerprint
from svetlana_jupyter.core.settings import MeasureSettings
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.jobs import Progress, Stop
from svetlana_jupyter.project.storage import atomic_write

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project


class DiskFeatureCache:
    """The memory (`core.features.compute.FeatureCache`) of one image; any thread and several kernels may use it.

    Parameters
    ----------
    folder : Path
    writable : bool
        Where it is not, what is measured is known for as long as the project is open.
    identity : callable
        Returns what stands for image, mask and spacing; asked for once, when it is first needed. Where it raises an
        `InputError`, because a file is gone, nothing is known, and reading the pixels will say so.
    """

    def __init__(self, folder: Path, writable: bool, identity: Callable[[], str]) -> None:
        self._folder, self._writable, self._identity = folder, writable, identity
        self._of = ""
        self._tables: dict[str, pd.DataFrame] = {}
        self._lock = threading.Lock()

    def get_features(self, key: str) -> pd.DataFrame:
        with self._lock:
            return self._known(key)

    def add_features(self, key: str, table: pd.DataFrame) -> None:
        with self._lock:
            self._tables[key] = _joined(self._known(key), table)
            if self._writable and self._of:
                with suppress(OSError):  # a full disk keeps nobody from looking
                    self._folder.mkdir(parents=True, exist_ok=True)
                    with FileLock(self._folder / ".measurements.lock"):
                        self._tables[key] = _joined(self._read(key), self._tables[key])
                        self._tables[key].attrs["of"] = self._of
                        with atomic_write(self._file(key)) as beside:
                            self._tables[key].to_parquet(beside)

    def _known(self, key: str) -> pd.DataFrame:
        if not self._of:
            try:
                self._of = f"{VERSION} {self._identity()}"
            except InputError:
                return _nothing()
        if key not in self._tables:
            self._tables[key] = self._read(key)
        return self._tables[key]

    def _file(self, key: str) -> Path:
        return self._folder / f"{key}.parquet"

    def _read(self, key: str) -> pd.DataFrame:
        with suppress(OSError, ValueError):  # what cannot be read is measured again
            table = pd.read_parquet(self._file(key))
            if table.attrs.get("of") == self._of:
                return table
        return _nothing()


def with_feature_cache(
    pair: ImagePair, folder: Path, writable: bool, files: tuple[Path | tuple[Path, ...], Path]
) -> ImagePair:
    """Return an image that keeps what is measured of it in a folder; ``files`` are those of image and of mask."""

    def identity() -> str:
        return f"{fingerprint(files[0])} {fingerprint(files[1])} {pair.spacing}"

    return replace(pair, feature_cache=DiskFeatureCache(folder, writable, identity))


def _nothing() -> pd.DataFrame:
    return pd.DataFrame(index=pd.Index([], dtype="int64", name="object"))


def _joined(known: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    if known.empty:
        return table.sort_index()
    return pd.concat([known, table[~table.index.isin(known.index)]]).sort_index()


MEASURED = ("shape", "intensity", "texture", "ring", "orientation", "position")


def needs_measuring(pair: ImagePair, objects: pd.DataFrame, settings: MeasureSettings) -> bool:
    """Whether anything must still be measured of these objects."""
    feature_cache = pair.feature_cache
    known = (
        [feature_cache.get_features(feature_cache_key(group, settings)).index for group in settings.groups]
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
        and objects.index.isin(pair.feature_cache.get_features(feature_cache_key(group, settings)).index).all()
    ]
    if not known:
        return objects[[]]
    return feature_table(pair, objects, settings.changed(groups=tuple(known))).droplevel("image")

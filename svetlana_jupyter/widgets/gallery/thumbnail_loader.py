"""Cache of object thumbnails, read in the background and bounded in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from svetlana_jupyter.core.display.thumbnails import DepthMode, Thumbnail, ThumbnailSampling, take_thumbnails
from svetlana_jupyter.errors import SvetlanaError
from svetlana_jupyter.widgets.viewer.object_details import default_palette
from svetlana_jupyter.widgets.viewer.open_images import unreadable_image

if TYPE_CHECKING:
    import pandas as pd

    from svetlana_jupyter.core.display.channels import DisplaySettings
    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.project.project import Project

_MARGIN, _MIN_SIDE = 1.3, 8.0  # around the 95th percentile of the objects' longest sides; image pixels
_MAX_BYTES = 64 * 2**20

Picture = tuple[Thumbnail, "DisplaySettings"]


def default_crop_side(table: pd.DataFrame) -> float:
    """Return the side, in pixels, of a square that holds nearly every object."""
    longest = np.maximum(table["y1"] - table["y0"], table["x1"] - table["x0"])
    return max(_MIN_SIDE, _MARGIN * float(np.quantile(longest, 0.95))) if len(longest) else _MIN_SIDE


@dataclass(frozen=True)
class GalleryPage:
    """Thumbnails of one page, to be read if they are not cached.

    Attributes
    ----------
    cache : ThumbnailCache
    objects : tuple of (str, int)
        Image names and object labels.
    cuts : tuple of (str, ThumbnailSampling)
        Size of the thumbnails, for each image that can be opened.
    version : int
        Changes when a mask is replaced.
    open_errors : tuple of (str, str)
        Images that cannot be opened, and why.
    """

    cache: ThumbnailCache
    objects: tuple[tuple[str, int], ...]
    cuts: tuple[tuple[str, ThumbnailSampling], ...]
    version: int
    open_errors: tuple[tuple[str, str], ...] = ()

    def load(self) -> None:
        """Read the missing thumbnails; may be called on any thread."""
        self.cache.load(self)


class ThumbnailCache:
    """Thumbnails by object, and the display settings of their images.

    The least recently used thumbnails are dropped when memory runs short.

    Parameters
    ----------
    project : Project
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._pairs: dict[str, ImagePair] = {}
        self._palettes: dict[str, DisplaySettings] = {}
        self._thumbnails: OrderedDict[tuple[object, ...], Thumbnail] = OrderedDict()
        self._version = 0
        self._lock = threading.Lock()

    def page(self, objects: list[tuple[str, int]], side: float, pixels: int, depth: DepthMode) -> GalleryPage:
        """Return the page of some objects, to be loaded if `cached_thumbnails` has gaps.

        Parameters
        ----------
        objects : list of (str, int)
        side : float
            Side of a thumbnail in pixels of the project's first image. Images with a known pixel size are displayed at
            the same scale.
        pixels : int
            Side of a thumbnail in screen pixels.
        depth : {"plane", "maximum"}
            Part of a volume: the middle plane of an object, or the maximum over its planes.
        """
        cuts, open_errors = [], []
        for name in dict.fromkeys(name for name, _ in objects):
            try:
                pair = self._project.pair(name)
            except SvetlanaError as error:
                open_errors.append((name, str(error)))
                continue
            if self._pairs.get(name) is not pair:  # new, or its mask was replaced
                self._forget(name)
                self._version += name in self._pairs
                self._pairs[name] = pair
            cuts.append((name, ThumbnailSampling.of(side * self._relative_size(pair), pixels, depth)))
        return GalleryPage(self, tuple(objects), tuple(cuts), self._version, tuple(open_errors))

    def cached_thumbnails(self, page: GalleryPage) -> list[Picture | None]:
        """Return the cached thumbnails of a page.

        None stands for a thumbnail that is not loaded or cannot be read.
        """
        cuts = dict(page.cuts)
        keys = [(name, label, cuts.get(name)) for name, label in page.objects]
        with self._lock:
            cached = [self._thumbnails.get(key) for key in keys]
            for key in filter(self._thumbnails.__contains__, keys):
                self._thumbnails.move_to_end(key)
            return [thumbnail and (thumbnail, self._palettes[key[0]]) for key, thumbnail in zip(keys, cached)]

    def load(self, page: GalleryPage) -> None:
        """Read the missing thumbnails of a page.

        Raises
        ------
        InputError
            If an image cannot be read; the thumbnails of the other images are loaded all the same.
        """
        errors: list[tuple[str, Exception | str]] = list(page.open_errors)
        cached = self.cached_thumbnails(page)
        missing = [object_id for object_id, picture in zip(page.objects, cached) if picture is None]
        for name, cut in page.cuts:
            try:
                self._load(name, [label for image, label in missing if image == name], cut)
            except Exception as error:
                errors.append((name, error))
        if errors:
            name, problem = errors[0]
            raise unreadable_image(name, problem) from (problem if isinstance(problem, Exception) else None)

    def _load(self, name: str, labels: list[int], cut: ThumbnailSampling) -> None:
        if not labels:
            return
        pair = self._pairs[name]
        if name not in self._palettes:
            self._palettes[name] = default_palette(pair)
        thumbnails = take_thumbnails(pair, self._project.objects(name).loc[labels], cut)
        with self._lock:
            if self._pairs.get(name) is not pair:  # its mask was replaced while the thumbnails were read
                return
            self._thumbnails.update(((name, label, cut), thumbnail) for label, thumbnail in zip(labels, thumbnails))
            excess = sum(thumbnail.nbytes for thumbnail in self._thumbnails.values()) - _MAX_BYTES
            while excess > 0 and len(self._thumbnails) > len(labels):
                excess -= self._thumbnails.popitem(last=False)[1].nbytes

    def _forget(self, name: str) -> None:
        with self._lock:
            self._palettes.pop(name, None)
            for key in [key for key in self._thumbnails if key[0] == name]:
                del self._thumbnails[key]

    def _relative_size(self, pair: ImagePair) -> float:
        """Return the pixel size of the project's first image in pixels of this one."""
        first = next(iter(self._project.images.values())).spacing
        return first[-1] / pair.spacing[-1] if first and pair.spacing else 1.0

"""Cache of object thumbnails, read in the background and bounded in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from svetlana_jupyter.core.display.channels import default_display_settings
from svetlana_jupyter.core.display.thumbnails import DepthMode, Thumbnail, ThumbnailSampling, take_thumbnails
from svetlana_jupyter.errors import SvetlanaError
from svetlana_jupyter.widgets.viewer.open_images import unreadable_image

if TYPE_CHECKING:
    import pandas as pd

    from svetlana_jupyter.core.display.channels import DisplaySettings
    from svetlana_jupyter.project.project import Project

_MARGIN, _MIN_SIDE = 1.3, 8.0  # factor of the 95th percentile of the longest sides of objects; image pixels
_MAX_BYTES = 64 * 2**20

Picture = tuple[Thumbnail, "DisplaySettings"]
Cut = tuple[int, ThumbnailSampling]  # the number of the mask, and the size of the thumbnail


def default_crop_side(table: pd.DataFrame) -> float:
    """Return the side, in pixels, of a square that holds nearly every object."""
    longest = np.maximum(table["y1"] - table["y0"], table["x1"] - table["x0"])
    return max(_MIN_SIDE, _MARGIN * float(np.quantile(longest, 0.95))) if len(longest) else _MIN_SIDE


@dataclass(frozen=True)
class GalleryPage:
    """Thumbnails of one gallery page; `load` reads those that are not cached.

    Attributes
    ----------
    cache : ThumbnailCache
    keys : tuple of (str, int, Cut)
        Image name and label of each object, with the mask number and size of its thumbnail.
    """

    cache: ThumbnailCache
    keys: tuple[tuple[str, int, Cut], ...]

    def load(self) -> None:
        """Read the missing thumbnails; may be called on any thread."""
        self.cache.load(self)

    def by_image(self) -> list[GalleryPage]:
        """Return the parts of the page by image, to be shown as they arrive."""
        names = dict.fromkeys(name for name, _, _ in self.keys)
        return [GalleryPage(self.cache, tuple(key for key in self.keys if key[0] == name)) for name in names]


class ThumbnailCache:
    """Cache of thumbnails by object, and of the display settings of their images.

    The least recently used thumbnails are dropped when the cache is full.

    Parameters
    ----------
    project : Project
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._palettes: dict[str, DisplaySettings] = {}
        self._thumbnails: OrderedDict[tuple[str, int, Cut], Thumbnail] = OrderedDict()
        self._lock = threading.Lock()

    def page(self, objects: list[tuple[str, int]], side: float, pixels: int, depth: DepthMode) -> GalleryPage:
        """Return a page with the given objects; its missing thumbnails are not read yet.

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
        images = self._project.images
        cuts: dict[str, Cut] = {}
        for name in {name for name, _ in objects}:
            # Images are opened here, on the thread that owns the project; `load` reports the error.
            with suppress(SvetlanaError):
                self._project.pair(name)
            first, own = next(iter(images.values())).spacing, images.entry(name).spacing
            scaled_side = side * first[-1] / own[-1] if first and own else side
            cuts[name] = images.entry(name).mask_number, ThumbnailSampling.of(scaled_side, pixels, depth)
        return GalleryPage(self, tuple((name, label, cuts[name]) for name, label in objects))

    def cached_thumbnails(self, page: GalleryPage) -> list[Picture | None]:
        """Return the cached thumbnails of a page.

        None stands for a thumbnail that is not loaded or cannot be read.
        """
        with self._lock:
            cached = [self._thumbnails.get(key) for key in page.keys]
            for key in filter(self._thumbnails.__contains__, page.keys):
                self._thumbnails.move_to_end(key)
            return [(picture, self._palettes[key[0]]) if picture else None for key, picture in zip(page.keys, cached)]

    def load(self, page: GalleryPage) -> None:
        """Read the missing thumbnails of a page.

        Raises
        ------
        InputError
            If an image cannot be read; the thumbnails of the other images are loaded anyway.
        """
        missing = [key for key, picture in zip(page.keys, self.cached_thumbnails(page)) if picture is None]
        errors: list[tuple[str, Exception]] = []
        for name, cut in dict.fromkeys((name, cut) for name, _, cut in missing):
            try:
                self._load(name, [label for image, label, _ in missing if image == name], cut)
            except Exception as error:
                errors.append((name, error))
        if errors:
            name, first = errors[0]
            raise unreadable_image(name, first) from first

    def _load(self, name: str, labels: list[int], cut: Cut) -> None:
        pair = self._project.pair(name)
        if name not in self._palettes:
            self._palettes[name] = default_display_settings(pair)
        thumbnails = take_thumbnails(pair, self._project.objects(name).loc[labels], cut[1])
        with self._lock:
            self._thumbnails.update(((name, label, cut), thumbnail) for label, thumbnail in zip(labels, thumbnails))
            excess = sum(thumbnail.nbytes for thumbnail in self._thumbnails.values()) - _MAX_BYTES
            while excess > 0 and len(self._thumbnails) > len(labels):
                excess -= self._thumbnails.popitem(last=False)[1].nbytes

"""The thumbnails of a project's objects: read beside the kernel's loop, kept within a bound of memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from svetlana_jupyter.core.display.thumbnails import DepthMode, Thumbnail, ThumbnailSampling, take_thumbnails
from svetlana_jupyter.errors import InputError, SvetlanaError
from svetlana_jupyter.widgets.viewer.object_details import default_palette

if TYPE_CHECKING:
    from svetlana_jupyter.core.display.channels import DisplaySettings
    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.project.project import Project

_MARGIN, _LEAST = 1.3, 8.0  # around the 95th percentile of the objects' longest sides; image pixels
_BYTES = 64 * 2**20

Picture = tuple[Thumbnail, "DisplaySettings"]


def default_crop_side(table: pd.DataFrame) -> float:
    """Return the side of a square that holds nearly every object with something around it, in image pixels."""
    longest = np.maximum(table["y1"] - table["y0"], table["x1"] - table["x0"])
    return max(_LEAST, _MARGIN * float(longest.quantile(0.95))) if len(longest) else _LEAST


@dataclass(frozen=True)
class Page:
    """Objects that are shown together, and how.

    Attributes
    ----------
    album : Album
    objects : tuple of (str, int)
        Image names and object numbers.
    cuts : tuple of (str, Cut)
        For each of the images that can be opened.
    version : int
        Another one after a mask was replaced.
    unopened : tuple of (str, str)
        The other images, and what is wrong with each.
    """

    album: ThumbnailCache
    objects: tuple[tuple[str, int], ...]
    cuts: tuple[tuple[str, ThumbnailSampling], ...]
    version: int
    open_errors: tuple[tuple[str, str], ...] = ()

    def load(self) -> None:
        """Read what is missing; may be called on any thread."""
        self.album.load(self)


class ThumbnailCache:
    """Thumbnails by object, and the contrast of their images; those not looked at for longest are dropped.

    Parameters
    ----------
    project : Project
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._pairs: dict[str, ImagePair] = {}
        self._palettes: dict[str, DisplaySettings] = {}
        self._kept: OrderedDict[Hashable, Thumbnail] = OrderedDict()
        self._bytes = self._version = 0
        self._lock = threading.Lock()

    def page(self, objects: list[tuple[str, int]], side: float, pixels: int, depth: DepthMode) -> Page:
        """Return the page of some objects, to be loaded if `pictures` has gaps.

        Parameters
        ----------
        objects : list of (str, int)
        side : float
            What a picture shows, in pixels of the project's first image; where the spacing of images is known, all are
            shown at the same scale.
        pixels : int
            Screen pixels of a picture's side.
        depth : {"plane", "maximum"}
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
            cuts.append((name, ThumbnailSampling.of(side * self._relative(pair), pixels, depth)))
        return Page(self, tuple(objects), tuple(cuts), self._version, tuple(open_errors))

    def pictures(self, page: Page) -> list[Picture | None]:
        """Return what is there of a page; None for what must be loaded, or could not be read."""
        cuts = dict(page.cuts)
        with self._lock:
            found: list[Picture | None] = []
            for name, label in page.objects:
                thumbnail = self._kept.get((name, label, cuts[name])) if name in cuts else None
                if thumbnail is not None:
                    self._kept.move_to_end((name, label, cuts[name]))
                found.append(None if thumbnail is None else (thumbnail, self._palettes[name]))
            return found

    def load(self, page: Page) -> None:
        """Read what is missing of a page.

        Raises
        ------
        InputError
            If an image cannot be read; the thumbnails of the others are there all the same.
        """
        unreadable: list[tuple[str, Exception | str]] = list(page.open_errors)
        gaps = [label for label, found in zip(page.objects, self.pictures(page)) if found is None]
        for name, cut in page.cuts:
            wanted = [label for image, label in gaps if image == name]
            try:
                self._load(name, wanted, cut)
            except Exception as error:
                unreadable.append((name, error))
        if unreadable:
            name, error = unreadable[0]
            raise InputError(
                f"{name} cannot be shown ({error}). Check that its files are whole and where they were; "
                "nothing is lost, and other images can be shown."
            ) from (error if isinstance(error, Exception) else None)

    def _load(self, name: str, wanted: list[int], cut: ThumbnailSampling) -> None:
        if not wanted:
            return
        pair = self._pairs[name]
        if name not in self._palettes:
            self._palettes[name] = default_palette(pair)
        found = take_thumbnails(pair, self._project.objects(name).loc[wanted], cut)
        with self._lock:
            if self._pairs.get(name) is not pair:
                return
            for label, thumbnail in zip(wanted, found):
                self._drop((name, label, cut))
                self._kept[name, label, cut] = thumbnail
                self._bytes += thumbnail.nbytes
            while self._bytes > _BYTES and len(self._kept) > len(wanted):
                self._drop(next(iter(self._kept)))

    def _drop(self, key: Hashable) -> None:
        dropped = self._kept.pop(key, None)
        self._bytes -= dropped.nbytes if dropped is not None else 0

    def _forget(self, name: str) -> None:
        with self._lock:
            self._palettes.pop(name, None)
            for key in [key for key in self._kept if key[0] == name]:
                self._drop(key)

    def _relative(self, pair: ImagePair) -> float:
        """Return how many pixels of an image are as long as one of the project's first."""
        first = next(iter(self._project.images.values())).spacing
        return first[-1] / pair.spacing[-1] if first and pair.spacing else 1.0

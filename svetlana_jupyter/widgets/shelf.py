"""The images of a viewer that stay open, and what they share: memory for their pixels, contrast set by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svetlana_jupyter.core.scene import ahead
from svetlana_jupyter.core.tiles import TileCache
from svetlana_jupyter.widgets.indexing import ObjectIndexer
from svetlana_jupyter.widgets.opened import OpenImage

if TYPE_CHECKING:
    from svetlana_jupyter.core.contrast import DisplaySettings
    from svetlana_jupyter.core.regions import Piece
    from svetlana_jupyter.core.view import View
    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.widgets.parts import StatusLine

_KEPT = 4  # a queue goes back and forth between images


class Shelf:
    """Opens images, and keeps those open that were shown last.

    Parameters
    ----------
    project : Project
    status : Status
        Says how far the finding of objects is.

    Attributes
    ----------
    cache : TileCache
    indexing : Indexing
    """

    def __init__(self, project: Project, status: StatusLine) -> None:
        self.cache = TileCache()
        self.indexing = ObjectIndexer(project, status)
        self._project = project
        self._kept: dict[str, OpenImage] = {}
        self._by_hand: dict[object, DisplaySettings] = {}

    def take(self, name: str) -> OpenImage:
        """Return an image, opened now or kept from before, in the contrast that was last set for its like."""
        opened = self.kept(name) or OpenImage(self._project, name, self.cache)
        self.put(opened)
        self.indexing.begin(name, opened.pair.mask.size)
        opened.palette = self._by_hand.get(opened.auto_palette.kind, opened.auto_palette)
        return opened

    def kept(self, name: str) -> OpenImage | None:
        """Return an image if it is open, and its mask was not replaced since."""
        opened = self._kept.get(name)
        return opened if opened is not None and opened.pair is self._project.pair(name) else None

    def put(self, opened: OpenImage) -> None:
        """Keep an image; of more than a few, the one not taken for longest is closed."""
        self._kept.pop(opened.name, None)
        self._kept[opened.name] = opened
        while len(self._kept) > _KEPT:
            del self._kept[next(iter(self._kept))]

    def ahead(self, image: str, object: int, view: View) -> tuple[Piece, ...]:
        """Return what would have to be read to bring an object into this view; nothing for images that are not open."""
        opened = self.kept(image)
        if opened is None or not self._project.is_indexed(image):
            return ()
        return ahead(opened.image, opened.mask, opened.view_centered_on(object, view, zoom=True))

    def set_manual_palette(self, opened: OpenImage, palette: DisplaySettings) -> None:
        """Show an image, and those to come with the same channels, in this palette; the automatic one ends that."""
        opened.palette = palette
        self._by_hand[palette.kind] = palette
        if palette == opened.auto_palette:
            del self._by_hand[palette.kind]

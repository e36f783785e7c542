"""What was read for the screen and is kept: tiles of decoded pixels, the latest used, within a bound of memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from numpy.typing import NDArray

MEMORY_MB = 256


class TileCache:
    """Tiles by key; those not used for longest are dropped when they take more than the bound.

    Tiles are stored by background threads and read by the one that draws.

    Parameters
    ----------
    limit_mb : float
        In megabytes (10**6 bytes).
    """

    def __init__(self, limit_mb: float = MEMORY_MB) -> None:
        self._tiles: OrderedDict[Hashable, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()
        self._limit = limit_mb
        self.bytes = 0

    @property
    def limit_mb(self) -> float:
        """The bound; lowering it drops tiles at once."""
        return self._limit

    @limit_mb.setter
    def limit_mb(self, limit_mb: float) -> None:
        with self._lock:
            self._limit = limit_mb
            self._shrink()

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            return key in self._tiles

    def get(self, key: Hashable) -> NDArray[Any] | None:
        """Return a tile, which from now on is the last used; None if it is not kept."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def keep(self, key: Hashable, tile: NDArray[Any]) -> None:
        """Keep a tile, which must own its pixels."""
        with self._lock:
            known = self._tiles.pop(key, None)
            self.bytes += tile.nbytes - (known.nbytes if known is not None else 0)
            self._tiles[key] = tile
            self._shrink()

    def _shrink(self) -> None:
        while self.bytes > self._limit * 10**6 and self._tiles:
            _, dropped = self._tiles.popitem(last=False)
            self.bytes -= dropped.nbytes

"""Reading that fails in words: a file that is gone, or a piece of it that does not decode."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from svetlana_jupyter.core.formats.stored import ArraySource
from svetlana_jupyter.errors import DamagedError, InputError


@dataclass(frozen=True)
class ReadGuard:
    """The pixels of ``source``, which lie in the file or folder ``path``.

    Whether it is still there is seen before each reading: Zarr takes a chunk that is missing for an empty one, so a
    folder that was deleted would be read as background.
    """

    source: ArraySource
    path: Path

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.source.dtype

    def __getitem__(self, part: Any) -> npt.NDArray[Any]:
        if not self.path.exists():
            raise InputError(
                f"{self.path} is gone; it was there when it was opened. Bring it back, and go on where you were."
            )
        try:
            return np.asarray(self.source[part])
        except (InputError, MemoryError):
            raise
        except Exception as error:  # each codec and storage has errors of its own
            raise DamagedError(
                f"a piece of {self.path} cannot be read ({error}). It may be damaged or was changed: copy it again, "
                "and go on where you were."
            ) from error

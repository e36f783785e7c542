"""Blob and oriented features of objects, computed from their patches."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from svetlana_jupyter.core.features.blob import blob_features
from svetlana_jupyter.core.features.catalog import CUES
from svetlana_jupyter.core.features.object_patches import iter_patches
from svetlana_jupyter.core.features.oriented import oriented_features
from svetlana_jupyter.errors import PatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from svetlana_jupyter.core.io.image_pair import ImagePair

    Patches = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]
    Features = tuple[NDArray[np.int64], NDArray[np.float32]]

BRIGHTNESS_FEATURES = 2  # the first blob features of a channel: the mean and the standard deviation of the object


def iter_blob_features(
    pair: ImagePair,
    objects: pd.DataFrame,
    fitted: Mapping[str, NDArray[np.float64]],
    may_use: Iterable[str] = CUES,
    threads: int = 1,
) -> Iterator[Features]:
    """Yield the blob features of objects, block by block.

    Parameters
    ----------
    pair : ImagePair
    objects : DataFrame
        Rows of `core.objects.index_objects`.
    fitted : mapping of str to array
        Result of `core.features.object_patches.fit_patches` with the same allowed cues.
    may_use : iterable of str
        Allowed cues; see `core.features.object_patches.iter_patches`. Without brightness, the mean and the standard
        deviation of the objects are left out.
    threads : int
        Number of threads that compute features while the calling thread reads patches.

    Yields
    ------
    labels : int64 of shape (n,)
    features : float32 of shape (n, d)
        All features of the first axis of the channels, then of the next. NaN for an object with NaN or infinite pixels.
    """
    allowed = frozenset(may_use)
    first = 0 if "brightness" in allowed else BRIGHTNESS_FEATURES

    def compute(batch: Patches) -> Features:
        labels, patches, masks = batch
        return labels, blob_features(patches, masks)[..., first:].reshape(len(labels), -1)

    return _map_in_order(compute, iter_patches(pair, objects, fitted, allowed), threads)


def iter_oriented_features(
    pair: ImagePair,
    objects: pd.DataFrame,
    fitted: Mapping[str, NDArray[np.float64]],
    may_use: Iterable[str] = CUES,
    threads: int = 1,
) -> Iterator[Features]:
    """Yield the oriented features of the objects of a 2D image, block by block.

    See `iter_blob_features` for arguments and results.

    Raises
    ------
    PatchError
        If orientation is no allowed cue, or the image is a volume.
    """
    allowed = frozenset(may_use)
    if "orientation" not in allowed or pair.ndim != 2:
        reason = "the image is 3D" if pair.ndim != 2 else "orientation is not an allowed cue"
        raise PatchError(
            f"There are no oriented features of {pair.name!r}, since {reason}. Use the blob features only."
        )

    def compute(batch: Patches) -> Features:
        labels, patches, masks = batch
        return labels, oriented_features(patches, masks).reshape(len(labels), -1)

    return _map_in_order(compute, iter_patches(pair, objects, fitted, allowed), threads)


def _map_in_order(
    compute: Callable[[Patches], Features], batches: Iterator[Patches], threads: int
) -> Iterator[Features]:
    """Yield results in the order of the batches; at most two per thread are waiting."""
    if threads <= 1:
        yield from map(compute, batches)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Features]] = deque()
        for batch in batches:
            waiting.append(pool.submit(compute, batch))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

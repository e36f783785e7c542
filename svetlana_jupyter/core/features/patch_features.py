"""Blob and oriented features of objects, computed from their patches."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from svetlana_jupyter.core.features.blob import blob_features
from svetlana_jupyter.core.features.catalog import CUES
from svetlana_jupyter.core.features.object_patches import MARGIN, MAX_STACK, SAMPLING, iter_patches, resample_objects
from svetlana_jupyter.core.features.oriented import oriented_features
from svetlana_jupyter.core.features.patch_catalog import ORIENTED_FEATURES, OWN_BRIGHTNESS, blob_names
from svetlana_jupyter.errors import PatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from svetlana_jupyter.core.io.image_pair import ImagePair

    Patches = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]
    Blocks = tuple[NDArray[np.int64], dict[str, NDArray[np.float32]]]


def iter_patch_features(
    pair: ImagePair,
    objects: pd.DataFrame,
    fitted: Mapping[str, NDArray[np.float64]],
    blocks: Collection[str],
    may_use: Iterable[str] = CUES,
    threads: int = 1,
) -> Iterator[Blocks]:
    """Yield blocks of features of objects, whose patches are cut once.

    Parameters
    ----------
    pair : ImagePair
    objects : DataFrame
        Rows of `core.objects.index_objects`.
    fitted : mapping of str to array
        Result of `core.features.object_patches.fit_patches` with the same allowed cues.
    blocks : collection of str
        "blob" and "oriented"; the latter only in 2D and if orientation is an allowed cue.
    may_use : iterable of str
        Allowed cues; see `core.features.object_patches.iter_patches`. Without brightness, the mean and the standard
        deviation of the objects are left out.
    threads : int
        Number of threads that compute features while the calling thread reads patches.

    Yields
    ------
    labels : int64 of shape (n,)
    features : dict of float32 arrays of shape (n, d)
        By block: all features of the first axis of the channels, then of the next. NaN for an object with NaN or
        infinite pixels.

    Raises
    ------
    PatchError
        If there are no oriented features.
    """
    allowed = frozenset(may_use)
    if "oriented" in blocks and ("orientation" not in allowed or pair.ndim != 2):
        reason = "the image is 3D" if pair.ndim != 2 else "orientation is not an allowed cue"
        raise PatchError(
            f"There are no oriented features of {pair.name!r}, since {reason}. Use the blob features only."
        )
    first = 0 if "brightness" in allowed else OWN_BRIGHTNESS

    def compute(batch: Patches) -> Blocks:
        labels, patches, masks = batch
        found = {}
        if "blob" in blocks:
            found["blob"] = blob_features(patches, masks)[..., first:].reshape(len(labels), -1)
        if "oriented" in blocks:
            found["oriented"] = oriented_features(patches, masks).reshape(len(labels), -1)
        return labels, found

    return _map_in_order(compute, iter_patches(pair, objects, fitted, allowed), threads)


def group_features(
    planes: Sequence[NDArray[np.float32]],
    own: NDArray[np.bool_],
    sides: NDArray[np.int64],
    step: Sequence[float],
    groups: Collection[str],
) -> dict[str, NDArray[np.float64]]:
    """Return the groups "blob" and "oriented" of measurements of a stack.

    Unlike those of a project, these patches are scaled to the object's own size, so that the measurements of an object
    do not depend on other objects.

    Parameters
    ----------
    planes : sequence of float32 arrays of shape (n, *box)
        Channels, standardized within each object.
    own : bool of shape (n, *box)
        The pixels of each object that count.
    sides : int64 of shape (n, ndim)
        Sides of the bounding boxes, which begin at the first pixel of the crops.
    step : sequence of float
        Lengths of a pixel along each axis.
    groups : collection of str

    Returns
    -------
    dict of float64 arrays of shape (n,)
        By name and number of the channel, as in `core.features.catalog`.
    """
    ndim, pixels = own.ndim - 1, np.stack(planes, axis=1)
    count, centers = SAMPLING[ndim], (sides - 1) / 2
    scale = MARGIN[ndim] * (sides * np.array(step)).max(axis=1, keepdims=True) / np.array(step) / count
    tables: dict[str, list[NDArray[np.float32]]] = {"blob": [], "oriented": []}
    for start in range(0, len(own), MAX_STACK):
        part = slice(start, start + MAX_STACK)
        patches, masks = resample_objects(pixels[part], own[part], centers[part], scale[part], count)
        if "blob" in groups:
            tables["blob"].append(blob_features(patches, masks)[..., OWN_BRIGHTNESS:])
        if "oriented" in groups and ndim == 2:
            tables["oriented"].append(oriented_features(patches, masks))
    names = {"blob": [f"blob_{name}" for name in blob_names(ndim)[OWN_BRIGHTNESS:]]}
    names["oriented"] = [f"gabor_{name}" for name in ORIENTED_FEATURES]
    return {
        f"{name}:{channel}": values.astype(np.float64)
        for group, parts in tables.items()
        if parts
        for channel, table in enumerate(np.concatenate(parts).swapaxes(0, 1))
        for name, values in zip(names[group], table.T, strict=True)
    }


def _map_in_order(compute: Callable[[Patches], Blocks], batches: Iterator[Patches], threads: int) -> Iterator[Blocks]:
    """Yield results in the order of the batches; at most two per thread are waiting."""
    if threads <= 1:
        yield from map(compute, batches)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Blocks]] = deque()
        for batch in batches:
            waiting.append(pool.submit(compute, batch))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

"""Two-dimensional projection of object features by UMAP, an optional extra.

UMAP (McInnes et al., 2018, https://arxiv.org/abs/1802.03426) keeps neighbors together: it separates groups of
similar objects that overlap along principal axes. It takes minutes, one of which the first call needs to compile.
"""

from __future__ import annotations

import warnings
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from svetlana_jupyter.core.features.projection import MIN_OBJECTS, FeatureMap, read_sample
from svetlana_jupyter.errors import InputError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from svetlana_jupyter.core.features.projection import ImageFeatureRows

SAMPLE = 5000  # objects to which the map is fitted; others are placed beside their nearest neighbors among these
_BLOCK = 2000  # objects that are placed at a time
_NEIGHBORS = 15


def umap_map(images: Mapping[str, ImageFeatureRows]) -> FeatureMap:
    """Return the map of objects by UMAP of their features.

    The result is the same in every call on the same machine, and therefore computed on one thread.

    Parameters
    ----------
    images : mapping of image name to ImageFeatureRows

    Raises
    ------
    SettingsError
        If umap-learn is not installed.
    InputError
        If fewer than three objects have features.
    """
    umap = _import_umap()
    sample = read_sample(images, SAMPLE)
    if len(sample) < MIN_OBJECTS:
        raise InputError(
            f"A map needs the features of at least {MIN_OBJECTS} objects, got {len(sample)}. Add images with more "
            "objects, or wait until their features are computed."
        )
    # A spectral start needs more objects than dimensions; a random one does for so few.
    start = "random" if len(sample) < 2 * _NEIGHBORS else "spectral"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the single thread, and about few objects
        model = umap.UMAP(n_neighbors=min(_NEIGHBORS, len(sample) - 1), init=start, random_state=0, n_jobs=1)
        model.fit(sample)
        everything = len(sample) == sum(int(image.is_present.sum()) for image in images.values())
        embedded = iter(model.embedding_) if everything else None
        coordinates = np.concatenate([_place(model, image, embedded) for image in images.values()])
    return FeatureMap({name: image.labels for name, image in images.items()}, coordinates, "UMAP", sample.shape[1])


def _place(model: Any, image: ImageFeatureRows, embedded: Iterator[Any] | None) -> NDArray[np.float32]:
    """Return the places (n, 2) of the objects of an image; NaN without features.

    ``embedded`` holds the places of the following objects, if the model was fitted to all of them.
    """
    places = np.full((len(image.labels), 2), np.nan, np.float32)
    present = np.flatnonzero(image.is_present)
    if embedded is not None:
        places[present] = np.array(list(islice(embedded, len(present)))).reshape(-1, 2)
        return places
    for start in range(0, len(present), _BLOCK):
        rows = present[start : start + _BLOCK]
        places[rows] = model.transform(image.read(rows))
    return places


def _import_umap() -> Any:
    try:
        import umap
    except ImportError as error:
        raise SettingsError(
            'UMAP is not installed. Install it with `pip install "svetlana-jupyter[umap]"`, or choose PCA.'
        ) from error
    return umap

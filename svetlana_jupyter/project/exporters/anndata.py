"""All objects as AnnData, for scanpy and squidpy: what is known in ``obs``, numbers in ``X``, places in ``obsm``."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from svetlana_jupyter.errors import ProjectError

if TYPE_CHECKING:
    from anndata import AnnData

    from svetlana_jupyter.project.exporters.snapshot import OutputFolder, ResultsSnapshot


def check_anndata(found: ResultsSnapshot) -> None:
    """Refuse where the package is not installed."""
    if find_spec("anndata") is None:
        raise ProjectError(
            'this format needs the package anndata: pip install "svetlana-jupyter[anndata]", then again.'
        )


def write_anndata(place: OutputFolder, found: ResultsSnapshot) -> Iterator[Path]:
    """Write ``objects.h5ad``.

    ``obs`` has the columns of `Project.predictions`, with image and object, and is indexed by ``image/object``. ``X``
    is what was measured of all objects of all images, or the probabilities of the classes where nothing was; these are
    in ``obsm["probabilities"]`` too. ``obsm["spatial"]`` holds ``x, y[, z]`` in ``uns["spatial_unit"]``: micrometres
    where all images have a spacing, else pixels. ``uns["class_colors"]`` are scanpy's.
    """
    from anndata import AnnData

    table = found.table
    named = [name for name in found.classes.names if f"p_{name}" in table]
    probabilities = table[[f"p_{name}" for name in named]].to_numpy(np.float32)
    measured = pd.concat([found.measured(image) for image in found.images], join="inner")
    x, names = (measured.to_numpy(np.float32), measured.columns) if measured.shape[1] else (probabilities, named)
    spatial, unit = _places(found)
    obs = table.reset_index()
    obs["class"] = pd.Categorical(obs["class"], categories=list(found.classes.names))
    texts = obs.columns[obs.dtypes == "object"]
    obs = obs.astype(dict.fromkeys(texts, "category"))
    obs.index = pd.Index([f"{image}/{label}" for image, label in table.index])
    data = AnnData(
        X=x,
        obs=obs,
        var=pd.DataFrame(index=pd.Index(list(names), dtype="object")),
        obsm={"spatial": spatial, "probabilities": probabilities},
        uns={
            "spatial_unit": unit,
            "class_colors": [info.color for info in found.classes],
            "classes": list(named),
            "run": found.run,
        },
    )
    with place.write_file("objects.h5ad") as beside:
        beside.write_bytes(_written(data))
    yield place.folder / "objects.h5ad"


def _written(data: AnnData) -> bytes:
    """Return the file. It is made in memory: on a full disk, the HDF5 library may take the kernel down with it."""
    from anndata.io import write_elem

    with h5py.File("objects.h5ad", "w", driver="core", backing_store=False) as file:
        write_elem(file, "/", data, dataset_kwargs={"compression": "gzip"})
        file.flush()
        return bytes(file.id.get_file_image())


def _places(found: ResultsSnapshot) -> tuple[NDArray[np.float64], str]:
    pairs = [found.pair(image) for image in found.images]
    known = all(pair.spacing for pair in pairs)
    axes = "xyz"[: max(pair.ndim for pair in pairs)]
    places = []
    for pair in pairs:
        spacing = dict(zip("zyx"[-pair.ndim :], pair.spacing or ())) if known else {}
        rows = found.of_image(pair.name)
        flat = [axis for axis in axes if axis not in "zyx"[-pair.ndim :]]  # a plane among volumes lies at 0
        places.append(rows.assign(**dict.fromkeys(flat, 0.0))[list(axes)] * [spacing.get(axis, 1.0) for axis in axes])
    return pd.concat(places).to_numpy(np.float64), "um" if known else "px"

"""AnnData export, for scanpy and squidpy.

Features are in ``X``, predictions in ``obs``, positions in ``obsm``.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pandas as pd

from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.image_warnings import summarize

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    from svetlana_jupyter.project.exporters.output_folder import OutputFolder
    from svetlana_jupyter.project.exporters.snapshot import ResultsSnapshot


def check_anndata(snapshot: ResultsSnapshot) -> None:
    """Raise an error if the package anndata is not installed."""
    if find_spec("anndata") is None:
        raise ProjectError(
            'The package anndata is not installed. Run pip install "svetlana-jupyter[anndata]", then export again.'
        )


def write_anndata(output: OutputFolder, snapshot: ResultsSnapshot) -> Iterator[Path]:
    """Write the objects of all images to ``objects.h5ad``.

    ``obs`` has the columns of `Project.predictions`, ``image`` and ``object``, and is indexed by ``image/object``.
    ``X`` holds the features that are cached for every image, or the class probabilities if there are no such features.
    ``obsm["probabilities"]`` always holds the class probabilities. ``obsm["spatial"]`` holds ``x, y[, z]`` in the unit
    ``uns["spatial_unit"]``: micrometers if the pixel size of every image is known, otherwise pixels.
    ``uns["class_colors"]`` holds the class colors, as scanpy expects them.
    """
    from anndata import AnnData

    table, classes = snapshot.table, snapshot.classes
    named = [name for name in classes.names if f"p_{name}" in table]
    probabilities = table[[f"p_{name}" for name in named]].to_numpy(np.float32)
    features = pd.concat([snapshot.measurements(image) for image in snapshot.images], join="inner")
    x, names = (features.to_numpy(np.float32), features.columns) if features.shape[1] else (probabilities, named)
    spatial, unit = _positions(snapshot)
    obs = table.reset_index()
    obs["class"] = pd.Categorical(obs["class"], categories=list(classes.names))
    obs = obs.astype(dict.fromkeys(obs.columns[obs.dtypes == "object"], "category"))
    obs.index = pd.Index([f"{image}/{label}" for image, label in table.index])
    data = AnnData(
        X=x,
        obs=obs,
        var=pd.DataFrame(index=pd.Index(list(names), dtype="object")),
        obsm={"spatial": spatial, "probabilities": probabilities},
        uns={
            "spatial_unit": unit,
            "class_colors": [info.color for info in classes],
            "classes": named,
            "run": snapshot.run,
            "warning": summarize(snapshot.warnings),
        },
    )
    with output.write_file("objects.h5ad") as draft:
        draft.write_bytes(_encode(data))
    yield output.folder / "objects.h5ad"


def _encode(data: AnnData) -> bytes:
    """Return the contents of the HDF5 file.

    The file is built in memory, because the HDF5 library may crash when the disk is full.
    """
    from anndata.io import write_elem

    with h5py.File("objects.h5ad", "w", driver="core", backing_store=False) as file:
        write_elem(file, "/", data, dataset_kwargs={"compression": "gzip"})
        file.flush()
        return bytes(file.id.get_file_image())


def _positions(snapshot: ResultsSnapshot) -> tuple[NDArray[np.float64], str]:
    pairs = [snapshot.pair(image) for image in snapshot.images]
    calibrated = all(pair.spacing for pair in pairs)
    axes = list("xyz"[: max(pair.ndim for pair in pairs)])
    positions = []
    for pair in pairs:
        spacing = dict(zip("zyx"[-pair.ndim :], pair.spacing or ())) if calibrated else {}
        rows = snapshot.rows_of_image(pair.name)
        if "z" in axes and pair.ndim == 2:  # a 2D image among volumes lies at z = 0
            rows = rows.assign(z=0.0)
        positions.append(rows[axes] * [spacing.get(axis, 1.0) for axis in axes])
    return pd.concat(positions).to_numpy(np.float64), "um" if calibrated else "px"

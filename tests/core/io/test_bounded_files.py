"""Inputs that would take far more memory than their size, that never end, or that run code."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import zipfile
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
import zarr
from numcodecs import Pickle
from numcodecs.errors import UnsafeDecodeError

from svetlana_jupyter.core.io import bounded_files
from svetlana_jupyter.core.io.bounded_files import parse_json
from svetlana_jupyter.core.io.geojson import read_geojson
from svetlana_jupyter.core.io.images import open_image, open_mask
from svetlana_jupyter.core.io.table_files import read_table
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


class Runs:
    """Object whose unpickling creates a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def write_array(folder: Path, dtype: str, **changes: object) -> None:
    """Write a Zarr 2 array of 4 × 4 pixels, whose only chunk is a pickle that creates the folder "executed"."""
    folder.mkdir(parents=True)
    metadata = {"zarr_format": 2, "shape": [4, 4], "chunks": [4, 4], "dtype": dtype, "order": "C", "fill_value": 0}
    (folder / ".zarray").write_text(json.dumps({**metadata, "compressor": None, "filters": None, **changes}))
    (folder / "0.0").write_bytes(pickle.dumps(Runs(folder.parents[1] / "executed")))


@pytest.mark.parametrize(
    ("dtype", "changes"),
    [
        ("|O", {"filters": [{"id": "pickle", "protocol": 5}]}),
        ("<u2", {"filters": [{"id": "pickle", "protocol": 5}]}),
        ("<u2", {"compressor": {"id": "pickle", "protocol": 5}}),
        ("|O", {"filters": [{"id": "vlen-bytes"}]}),
        ("<U4", {}),
        ("<M8[s]", {}),
    ],
)
@pytest.mark.parametrize("level", ["0", "1"])
def test_a_zarr_array_with_an_object_codec_is_refused_at_every_level(tmp_path, dtype, changes, level):
    folder = tmp_path / "image.zarr"
    group = zarr.open_group(folder, mode="w", zarr_format=2)
    axes = [{"name": name, "type": "space"} for name in "yx"]
    datasets = [{"path": path, "coordinateTransformations": [{"type": "scale", "scale": [1, 1]}]} for path in "01"]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    for path in "01":
        if path == level:
            write_array(folder / path, dtype, **changes)
        else:
            group.create_array(path, data=np.zeros((4, 4), np.uint16), chunks=(4, 4))
    with pytest.raises(InputError):
        open_image(folder)
    with pytest.raises(InputError):
        open_mask(folder / level)
    assert not (tmp_path / "executed").exists()


def test_the_installed_numcodecs_does_not_run_pickles_either(tmp_path: Path) -> None:
    with pytest.raises(UnsafeDecodeError):
        Pickle().decode(pickle.dumps(Runs(tmp_path / "executed")))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("compressors", [["auto"], [zarr.codecs.BloscCodec()], None])
def test_arrays_with_codecs_of_numbers_open_in_both_versions(tmp_path: Path, compressors: object) -> None:
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8)
    options = {} if compressors == ["auto"] else {"compressors": compressors}
    zarr.create_array(tmp_path / "3.zarr", data=pixels, chunks=(4, 4), shards=(8, 8), **options)
    np.testing.assert_array_equal(open_image(tmp_path / "3.zarr"), pixels)
    zarr.create_array(tmp_path / "2.zarr", data=pixels, chunks=(4, 4), zarr_format=2)
    np.testing.assert_array_equal(open_image(tmp_path / "2.zarr"), pixels)


def test_a_pipe_in_place_of_a_chunk_is_refused_at_once(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=np.ones((8, 8)), chunks=(4, 4), zarr_format=2)
    (tmp_path / "a.zarr" / "1.1").unlink()
    os.mkfifo(tmp_path / "a.zarr" / "1.1")
    with pytest.raises(InputError, match="a named pipe or device, not a file"):
        open_image(tmp_path / "a.zarr").compute()


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.npy", "a.h5", "a.geojson", "a.csv"])
def test_a_pipe_in_place_of_an_input_is_refused_at_once(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    read = {"a.geojson": read_geojson, "a.csv": lambda path: read_table(path, "a table")}.get(name, open_image)
    with pytest.raises(InputError, match="named pipe or device"):
        read(tmp_path / name)


def test_absurd_shapes_and_chunks_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", shape=(2**31, 2**31), dtype="u1", chunks=(1024, 1024))
    with pytest.raises(InputError, match="states the shape"):
        open_image(tmp_path / "a.h5")
    zarr.create_array(tmp_path / "a.zarr", shape=(2**17, 2**17), dtype="u1", chunks=(2**17, 2**17), zarr_format=2)
    with pytest.raises(InputError, match="chunks of 17 GB"):
        open_image(tmp_path / "a.zarr")


def test_compressed_outlines_that_expand_too_much_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "cells.geojson.gz"
    file.write_bytes(gzip.compress(b" " * (bounded_files.MIN_GZIP_LIMIT + 1)))
    with pytest.raises(InputError, match="compressed bytes expand to more than"):
        read_geojson(file)


def test_json_of_too_many_values_or_levels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_files, "MAX_JSON_VALUES", 10)
    assert parse_json(b"[1,2,3]") == [1, 2, 3]
    with pytest.raises(ValueError, match="about 12 values, more than 10"):
        parse_json(b"[1,2,3,4,5,6,7,8,9,0,1,2]")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * 100_000)


def test_an_excel_file_that_expands_too_much_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", b" " * (bounded_files.MIN_GZIP_LIMIT + 1))
    with pytest.raises(InputError, match="it expands to"):
        read_table(tmp_path / "a.xlsx", "a table")

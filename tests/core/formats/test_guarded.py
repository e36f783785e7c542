"""A file that is gone or damaged after it was opened: a sentence, and everything as before once it is back."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
import zarr

from svetlana_jupyter.core.images import open_image, open_mask
from svetlana_jupyter.errors import InputError

PIXELS = np.random.default_rng(0).integers(1, 200, (96, 128)).astype(np.uint8)


def written(folder: Path, kind: str) -> Path:
    path = folder / f"image.{kind.split()[0]}"
    if kind == "tif":
        tifffile.imwrite(path, PIXELS)
    elif kind == "tif tiled":
        tifffile.imwrite(path, PIXELS, tile=(32, 32), compression="zlib")
    elif kind == "npy":
        np.save(path, PIXELS)
    elif kind == "png":
        iio.imwrite(path, PIXELS)
    elif kind == "h5":
        with h5py.File(path, "w") as file:
            file.create_dataset("image", data=PIXELS, chunks=(32, 32), compression="gzip")
    else:
        zarr.create_array(path, data=PIXELS, chunks=(32, 32))
    return path


@pytest.mark.parametrize("kind", ["tif", "tif tiled", "npy", "png", "h5", "zarr"])
def test_a_file_that_is_deleted_after_opening_is_a_sentence_until_it_is_back(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, kind)
    image = open_image(path)
    path.rename(tmp_path / "away")
    with pytest.raises(InputError, match=r"image\.\w+ is gone.*Bring it back"):
        image.compute()
    (tmp_path / "away").rename(path)
    np.testing.assert_array_equal(image.to_numpy(), PIXELS)


@pytest.mark.parametrize("kind", ["tif tiled", "h5", "zarr"])
def test_a_chunk_that_does_not_decode_is_a_sentence_and_the_others_are_read(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, kind)
    mask = open_mask(path)
    whole = tmp_path / "whole"
    (shutil.copytree if path.is_dir() else shutil.copyfile)(path, whole)
    if kind == "zarr":
        spoil(path / "c" / "0" / "0", 0, 40)
    elif kind == "h5":
        with h5py.File(path) as file:
            chunk = file["image"].id.get_chunk_info(0)
        spoil(path, chunk.byte_offset, chunk.size)
    else:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages[0]
        spoil(path, page.dataoffsets[0], page.databytecounts[0])
    with pytest.raises(InputError, match=r"a piece of .*image\.\w+ cannot be read"):
        mask.data[:32, :32].compute()
    np.testing.assert_array_equal(mask.data[64:, 64:].compute(), PIXELS[64:, 64:])


def spoil(file: Path, start: int, length: int) -> None:
    content = bytearray(file.read_bytes())
    content[start : start + length] = b"\xff" * len(content[start : start + length])
    file.write_bytes(content)

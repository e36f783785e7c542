"""Errors for files that are deleted or damaged after opening, and unpacking of undivided files.

Files that cannot be read in part are one block, or are unpacked to Zarr on the first read.
"""

from __future__ import annotations

import shutil
import threading
from typing import TYPE_CHECKING

import h5py
import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from svetlana_jupyter.core.io import sources as unpacked
from svetlana_jupyter.core.io.images import is_rgb, open_image, open_mask
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

PIXELS = np.random.default_rng(0).integers(1, 200, (96, 128)).astype(np.uint8)


def write_image(folder: Path, kind: str) -> Path:
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
def test_a_file_deleted_after_opening_raises_a_helpful_error_until_it_is_restored(tmp_path: Path, kind: str) -> None:
    path = write_image(tmp_path, kind)
    image = open_image(path)
    path.rename(tmp_path / "away")
    with pytest.raises(InputError, match=r"image\.\w+ was moved or deleted.*Restore it"):
        image.compute()
    (tmp_path / "away").rename(path)
    np.testing.assert_array_equal(image.to_numpy(), PIXELS)


@pytest.mark.parametrize("kind", ["tif tiled", "h5", "zarr"])
def test_a_corrupt_chunk_raises_a_helpful_error_and_other_chunks_are_read(tmp_path: Path, kind: str) -> None:
    path = write_image(tmp_path, kind)
    mask = open_mask(path)
    whole = tmp_path / "whole"
    (shutil.copytree if path.is_dir() else shutil.copyfile)(path, whole)
    if kind == "zarr":
        corrupt(path / "c" / "0" / "0", 0, 40)
    elif kind == "h5":
        with h5py.File(path) as file:
            chunk = file["image"].id.get_chunk_info(0)
        corrupt(path, chunk.byte_offset, chunk.size)
    else:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages[0]
        corrupt(path, page.dataoffsets[0], page.databytecounts[0])
    with pytest.raises(InputError, match=r"A part of .*image\.\w+ cannot be read"):
        mask.data[:32, :32].compute()
    np.testing.assert_array_equal(mask.data[64:, 64:].compute(), PIXELS[64:, 64:])


def corrupt(file: Path, start: int, length: int) -> None:
    content = bytearray(file.read_bytes())
    content[start : start + length] = b"\xff" * len(content[start : start + length])
    file.write_bytes(content)


RNG = np.random.default_rng(5)
LARGE = np.kron(RNG.integers(0, 256, (40, 50), np.uint8), np.ones((40, 50), np.uint8))  # 1600 × 2500 pixels


def test_a_large_image_is_unpacked_once_on_first_read(tmp_path, monkeypatch):
    iio.imwrite(tmp_path / "a.png", LARGE)
    cache, write_image = tmp_path / "cache", []
    monkeypatch.setattr(
        unpacked, "unpack_to_zarr", lambda *args, unpack=unpacked.unpack_to_zarr: write_image.append(unpack(*args))
    )

    image = open_image(tmp_path / "a.png", cache=cache)
    assert not cache.exists()
    assert image.data.npartitions > 1

    np.testing.assert_array_equal(image.compute(scheduler="threads"), LARGE)
    np.testing.assert_array_equal(open_image(tmp_path / "a.png", cache=cache)[900:, :7], LARGE[900:, :7])
    assert len(write_image) == 1
    assert [path.suffix for path in cache.iterdir()] == [".zarr"]


def test_a_changed_file_is_unpacked_again(tmp_path):
    path, cache = tmp_path / "a.png", tmp_path / "cache"
    iio.imwrite(path, LARGE)
    open_image(path, cache=cache).compute()

    iio.imwrite(path, 255 - LARGE)

    np.testing.assert_array_equal(open_image(path, cache=cache), 255 - LARGE)


def test_without_a_cache_an_image_is_one_lazy_block(tmp_path):
    iio.imwrite(tmp_path / "a.png", LARGE)

    image = open_image(tmp_path / "a.png")

    assert image.data.npartitions == 1
    np.testing.assert_array_equal(image, LARGE)


def test_a_small_image_needs_no_cache(tmp_path):
    iio.imwrite(tmp_path / "a.png", LARGE[:40, :50])

    open_image(tmp_path / "a.png", cache=tmp_path / "cache").compute()

    assert not (tmp_path / "cache").exists()


def test_a_compressed_tiff_in_one_large_strip_is_unpacked(tmp_path):
    pixels = np.zeros((3000, 3000), np.uint16)
    pixels[1500:, 7] = 12
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression="zlib", rowsperstrip=3000)

    mask = open_mask(tmp_path / "a.tif", cache=tmp_path / "cache")

    assert mask.data.npartitions > 1
    np.testing.assert_array_equal(mask, pixels)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_failed_unpacking_leaves_no_files(tmp_path):
    def fail(path):
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        unpacked.unpack_to_zarr(tmp_path / "a.png", fail, tmp_path / "cache" / "a.zarr")

    assert list((tmp_path / "cache").iterdir()) == []


def test_concurrent_unpacking_of_one_file_succeeds(tmp_path):
    together = threading.Barrier(2)

    def decode(path):
        together.wait(timeout=30)
        return LARGE

    picture, folder = tmp_path / "a.png", tmp_path / "cache" / "a.zarr"
    other = threading.Thread(target=unpacked.unpack_to_zarr, args=(picture, decode, folder))
    other.start()
    unpacked.unpack_to_zarr(picture, decode, folder)
    other.join()

    assert [path.name for path in folder.parent.iterdir()] == ["a.zarr"]


@pytest.mark.parametrize(("mode", "channels"), [("L", 0), ("LA", 0), ("RGB", 3), ("RGBA", 3), ("P", 3), ("I;16", 0)])
def test_images_of_every_mode_drop_transparency_and_keep_colors(tmp_path, mode, channels):
    pixels = RNG.integers(0, 256, (20, 30, 4), np.uint8)
    picture = Image.fromarray(pixels[..., :3] if mode == "P" else pixels)
    picture = Image.fromarray(pixels[..., 0].astype(np.uint16) * 9) if mode == "I;16" else picture.convert(mode)
    picture.save(tmp_path / "a.png")

    image = open_image(tmp_path / "a.png")

    assert image.dims == (("c", "y", "x") if channels else ("y", "x"))
    assert is_rgb(image) == bool(channels)
    expected = picture.convert("RGB") if channels else picture.getchannel(0) if mode == "LA" else picture
    np.testing.assert_array_equal(image.transpose("y", "x", ...), np.asarray(expected))


def test_an_image_beyond_the_size_limit_of_pillow_is_refused_with_a_better_format(tmp_path, monkeypatch):
    iio.imwrite(tmp_path / "a.png", LARGE[:40, :50])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)

    with pytest.raises(InputError, match=r"a\.png is too large for PNG or JPEG\. Save it as tiled TIFF"):
        open_image(tmp_path / "a.png")


def test_a_jpeg_opens_in_color(tmp_path):
    iio.imwrite(tmp_path / "a.jpg", np.full((20, 30, 3), (200, 90, 10), np.uint8), quality=95)

    assert open_image(tmp_path / "a.jpg").mean(["y", "x"]).values == pytest.approx([200, 90, 10], abs=3)


def test_an_invalid_image_is_refused_when_opened_and_a_truncated_image_when_read(tmp_path):
    (tmp_path / "a.png").write_text("not a picture")
    with pytest.raises(InputError, match=r"a\.png cannot be read as PNG or JPEG"):
        open_image(tmp_path / "a.png")

    iio.imwrite(tmp_path / "b.png", LARGE[:200, :200] ^ RNG.integers(0, 256, (200, 200), np.uint8))
    data = (tmp_path / "b.png").read_bytes()
    (tmp_path / "b.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"b\.png cannot be decoded"):
        open_image(tmp_path / "b.png").compute()

"""PNG, JPEG, BMP, GIF and WebP: palettes, inks, depth, alpha, rotation and frames."""

from __future__ import annotations

import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageOps

from svetlana_jupyter.core.io.images import open_image, open_mask
from svetlana_jupyter.errors import InputError

RNG = np.random.default_rng(8)
COLOR = RNG.integers(0, 256, (12, 20, 3), np.uint8)
LABELS = np.kron(np.arange(15).reshape(3, 5), np.ones((4, 4), int)).astype(np.uint8)
PALETTE = [channel for index in range(256) for channel in (index * 37 % 256, index * 91 % 256, index * 53 % 256)]


def first(pixels):
    """Return an array with its color samples as the first axis."""
    return np.moveaxis(pixels, -1, 0)


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif"])
def test_the_indices_of_a_palette_are_labels_in_a_mask_and_colors_in_an_image(tmp_path, suffix):
    picture = Image.fromarray(LABELS, "P")
    picture.putpalette(PALETTE)
    picture.save(tmp_path / f"a.{suffix}", **({"optimize": False} if suffix == "gif" else {}))

    np.testing.assert_array_equal(open_mask(tmp_path / f"a.{suffix}"), LABELS)
    colors = np.array(PALETTE, np.uint8).reshape(256, 3)[LABELS]
    np.testing.assert_array_equal(open_image(tmp_path / f"a.{suffix}"), first(colors))


def test_a_large_indexed_picture_is_unpacked_apart_as_image_and_as_mask(tmp_path):
    labels = np.kron(np.arange(6, dtype=np.uint8).reshape(2, 3), np.ones((900, 800), np.uint8))
    picture = Image.fromarray(labels, "P")
    picture.putpalette(PALETTE)
    picture.save(tmp_path / "a.png", compress_level=1)

    image = open_image(tmp_path / "a.png", cache=tmp_path / "cache")
    mask = open_mask(tmp_path / "a.png", cache=tmp_path / "cache")

    assert image[:, -1, -1].values.tolist() == [5 * 37, 5 * 91 % 256, 5 * 53 % 256]
    assert int(mask[-1, -1]) == 5


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif"])
def test_a_palette_of_grays_gives_gray_values(tmp_path, suffix):
    picture = Image.fromarray(COLOR[..., 0], "P")
    picture.putpalette([255 - index for index in range(256) for _ in range(3)])
    picture.save(tmp_path / f"a.{suffix}")

    np.testing.assert_array_equal(open_image(tmp_path / f"a.{suffix}"), 255 - COLOR[..., 0])


@pytest.mark.parametrize(("samples", "kept"), [(1, 1), (2, 1), (3, 3), (4, 3)])
def test_16_bits_per_color_are_kept_and_alpha_is_dropped(tmp_path, samples, kept):
    pixels = RNG.integers(0, 2**16, (12, 20, samples), np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels.squeeze()))

    image = open_image(tmp_path / "a.png")

    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image, first(pixels)[0] if kept == 1 else first(pixels)[:3])


def test_colors_of_webp_are_read_without_alpha(tmp_path):
    pixels = np.dstack([COLOR, COLOR[..., 0]])
    Image.fromarray(pixels).save(tmp_path / "a.webp", lossless=True, exact=True)

    np.testing.assert_array_equal(open_image(tmp_path / "a.webp"), first(COLOR))


def test_inks_of_a_jpeg_are_converted_with_a_warning(tmp_path):
    color = np.full((16, 16, 3), (200, 60, 30), np.uint8)
    Image.fromarray(color).convert("CMYK").save(tmp_path / "a.jpg", quality=95)

    with pytest.warns(UserWarning, match=r"a\.jpg: The inks \(CMYK\) are converted"):
        image = open_image(tmp_path / "a.jpg")

    np.testing.assert_array_equal(image, first(color))


def test_one_bit_per_pixel_is_read_as_booleans(tmp_path):
    bright = COLOR[..., 0] > 128
    Image.fromarray(bright).save(tmp_path / "a.png")

    np.testing.assert_array_equal(open_image(tmp_path / "a.png"), bright)
    with pytest.raises(InputError, match="got booleans"):
        open_mask(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["gif", "png", "webp", "jpg"])
def test_several_frames_are_refused_with_the_call_that_saves_one(tmp_path, kind, monkeypatch):
    frames = [Image.fromarray(np.roll(COLOR, shift, axis=0)) for shift in (0, 3, 6)]
    options = {"format": "MPO"} if kind == "jpg" else {}
    frames[0].save(tmp_path / f"a.{kind}", save_all=True, append_images=frames[1:], **options)

    with pytest.raises(InputError, match=rf"a\.{kind} holds 3 pictures, expected one") as error:
        open_image(tmp_path / f"a.{kind}")

    monkeypatch.chdir(tmp_path)
    exec("import PIL.Image\n" + str(error.value).split("`")[1])
    assert open_image("first.png").shape == (3, 12, 20)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_the_mask_tells_whether_a_picture_is_turned_upright(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(COLOR).save(tmp_path / f"a.{suffix}", exif=exif)
    with Image.open(tmp_path / f"a.{suffix}") as picture:
        stored, upright = np.asarray(picture), np.asarray(ImageOps.exif_transpose(picture))

    np.testing.assert_array_equal(open_image(tmp_path / f"a.{suffix}", mask_shape=(12, 20)), first(stored))
    np.testing.assert_array_equal(open_image(tmp_path / f"a.{suffix}", mask_shape=(20, 12)), first(upright))


def test_a_rotation_that_is_stated_after_the_pixels_is_found(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    data = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = b"eXIf" + data
    Image.fromarray(COLOR).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    end = content.index(b"IEND") - 4
    late = len(data).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(content[:end] + late + content[end:])

    np.testing.assert_array_equal(open_image(tmp_path / "a.png", mask_shape=(20, 12)), first(np.rot90(COLOR, -1)))


@pytest.mark.parametrize(("orientation", "mask_shape"), [(3, (12, 20)), (2, None), (6, None)])
def test_a_rotation_that_the_mask_does_not_tell_is_refused(tmp_path, orientation, mask_shape):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(COLOR).save(tmp_path / "a.jpg", exif=exif)

    with pytest.raises(InputError, match=rf"\(EXIF orientation {orientation}\).*exif_transpose"):
        open_image(tmp_path / "a.jpg", mask_shape=mask_shape)


def test_a_colored_mask_is_refused(tmp_path):
    Image.fromarray(COLOR).save(tmp_path / "a.png")

    with pytest.raises(InputError, match=r"has 3 color samples per pixel.*Pass the label image itself"):
        open_mask(tmp_path / "a.png")

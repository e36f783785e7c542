"""Pixel sizes: units of ImageJ, OME and OME-Zarr, sizes that are not used, and sizes that differ."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tifffile
import zarr
from xarray import DataArray

from svetlana_jupyter.core.io.image_pair import open_pair
from svetlana_jupyter.core.io.images import open_image, spacing_of
from svetlana_jupyter.core.io.pixel_size import micrometers_per, read_spacing
from svetlana_jupyter.errors import InputError

PLANE = np.random.default_rng(3).integers(0, 2**16, (20, 30), np.uint16)
MASK = np.kron(np.arange(6, dtype=np.uint16).reshape(2, 3), np.ones((10, 10), np.uint16))
INCH = 25_400
# All lengths of OME-XML (schema 2016-06), written out.
OME_UNITS = {
    **{"Ym": 1e30, "Zm": 1e27, "Em": 1e24, "Pm": 1e21, "Tm": 1e18, "Gm": 1e15, "Mm": 1e12, "km": 1e9, "hm": 1e8},
    **{"dam": 1e7, "m": 1e6, "dm": 1e5, "cm": 1e4, "mm": 1e3, "µm": 1, "nm": 1e-3, "pm": 1e-6, "fm": 1e-9, "am": 1e-12},
    **{"zm": 1e-15, "ym": 1e-18, "Å": 1e-4, "thou": INCH / 1000, "li": INCH / 12, "in": INCH, "ft": 12 * INCH},
    **{
        "yd": 36 * INCH,
        "mi": 63_360 * INCH,
        "ua": 1.495978707e17,
        "ly": 9.4607304725808e21,
        "pc": 3.0856775814913674e22,
    },
    "pt": INCH / 72,
}
NGFF_UNITS = {
    **{"angstrom": 1e-4, "attometer": 1e-12, "centimeter": 1e4, "decimeter": 1e5, "exameter": 1e24, "femtometer": 1e-9},
    **{"foot": 12 * INCH, "gigameter": 1e15, "hectometer": 1e8, "inch": INCH, "kilometer": 1e9, "megameter": 1e12},
    **{"meter": 1e6, "micrometer": 1, "mile": 63_360 * INCH, "millimeter": 1e3, "nanometer": 1e-3, "petameter": 1e21},
    **{"picometer": 1e-6, "terameter": 1e18, "yard": 36 * INCH, "yoctometer": 1e-18, "yottameter": 1e30},
    **{"zeptometer": 1e-15, "zettameter": 1e27, "parsec": 3.0856775814913674e22},
}
IMAGEJ_UNITS = {
    **dict.fromkeys(["um", r"\u00B5m", "µm", "μm", "micron", "microns", "Micron", "micrometres"], 1),
    **{"nm": 1e-3, "mm": 1e3, "cm": 1e4, "inch": INCH, "inches": INCH, "Å": 1e-4, "\u212b": 1e-4, "A\u030a": 1e-4},
}


@pytest.mark.parametrize(("unit", "um"), [*OME_UNITS.items(), *NGFF_UNITS.items()])
def test_every_length_of_ome_and_ngff_is_converted(unit, um):
    assert micrometers_per(unit) == pytest.approx(um, rel=1e-12)


@pytest.mark.parametrize("unit", ["parsnip", "MM", "mM", "nM", "", None, "s", "pixel", "reference frame", "A"])
def test_other_units_are_not_taken_for_lengths(unit):
    assert micrometers_per(unit) is None


@pytest.mark.parametrize(("unit", "um"), IMAGEJ_UNITS.items())
def test_units_of_imagej_are_converted(tmp_path, unit, um):
    description = f"ImageJ=1.54f\nunit={unit}\n".encode()
    tifffile.imwrite(tmp_path / "a.tif", PLANE, resolution=(4, 2), description=description, metadata=None)

    assert spacing_of(open_image(tmp_path / "a.tif")) == pytest.approx((0.5 * um, 0.25 * um))


def test_each_axis_of_an_imagej_file_may_have_its_own_unit(tmp_path):
    metadata = {"axes": "ZYX", "unit": "um", "yunit": "nm", "zunit": "mm", "spacing": 0.002}
    tifffile.imwrite(tmp_path / "a.tif", np.stack([PLANE] * 3), imagej=True, resolution=(4, 0.004), metadata=metadata)

    assert spacing_of(open_image(tmp_path / "a.tif")) == pytest.approx((2, 0.25, 0.25))


@pytest.mark.parametrize("unit", ["pixel", "pixels", "reference frame"])
def test_a_size_in_pixels_is_no_size_and_needs_no_warning(tmp_path, unit, recwarn):
    sizes = {f"PhysicalSize{axis}{end}": value for axis in "XY" for end, value in (("", 2.0), ("Unit", unit))}
    tifffile.imwrite(tmp_path / "a.ome.tif", PLANE, metadata={"axes": "YX", **sizes})

    assert spacing_of(open_image(tmp_path / "a.ome.tif")) is None
    assert not recwarn.list


@pytest.mark.parametrize(
    ("size", "unit", "message"),
    [
        (0.5, "parsnip", r"along y and x \(0\.5 'parsnip'\) is not used: the unit is unknown\. Pass `spacing=`"),
        (0.0, "µm", r"\(0\.0 'µm'\) is not used: it cannot be true"),
        (-1.0, "µm", r"\(-1\.0 'µm'\) is not used: it cannot be true"),
        (math.nan, "µm", "cannot be true"),
        (math.inf, "µm", "cannot be true"),
        (1e-300, "µm", r"\(1e-300 'µm'\) is not used: it cannot be true"),
        (0.5, "Mm", r"\(0\.5 'Mm'\) is not used: it cannot be true"),
    ],
)
def test_a_size_that_cannot_be_used_is_reported(size, unit, message):
    spacing, notes = read_spacing({"y": (str(size), unit), "x": (str(size), unit)})

    assert spacing == {}
    assert len(notes) == 1
    sizes = {"units": unit, "spacing": str(size)}
    image = DataArray(np.zeros((1, 1)), {axis: (axis, [0], sizes) for axis in "yx"}, ("y", "x"))
    with pytest.warns(UserWarning, match=message):
        open_image(image)


@pytest.mark.parametrize("version", [2, 3])
def test_axes_of_an_ome_zarr_image_may_have_different_units(tmp_path, version):
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=version)
    group.create_array("0", data=np.stack([PLANE] * 2))
    axes = [{"name": name, "unit": unit} for name, unit in zip("zyx", ("nanometer", "angstrom", "parsnip"))]
    scale = [{"type": "scale", "scale": [2000, 5000, 3]}]
    image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    group.attrs.update({"multiscales": [image]} if version == 2 else {"ome": {"multiscales": [image]}})

    with pytest.warns(UserWarning, match="pixel size") as warned:
        opened = open_image(tmp_path / "a.zarr")

    assert opened.attrs["notes"] == [str(warned[0].message)]
    assert "along x (3 'parsnip') is not used: the unit is unknown" in str(warned[0].message)
    assert str(warned[1].message) == (
        "The pixel size is known along z (2 µm) and y (0.5 µm), but not along x, so all lengths are in pixels. "
        "Pass `spacing=(2, 0.5, x)` with all sizes in micrometers."
    )


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [((20_000, 10_000), "CENTIMETER", (1.0, 0.5)), ((25_400, 50_800), "INCH", (0.5, 1.0)), ((4, 4), "NONE", None)],
)
def test_the_resolution_of_a_plain_tiff_is_used_if_no_printer_has_it(tmp_path, resolution, unit, expected):
    tifffile.imwrite(tmp_path / "a.tif", PLANE, resolution=resolution, resolutionunit=unit, metadata=None)

    spacing = spacing_of(open_image(tmp_path / "a.tif"))

    assert spacing == (None if expected is None else pytest.approx(expected))


def test_a_resolution_that_may_be_that_of_a_printer_is_reported(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PLANE, resolution=(300, 300), resolutionunit="INCH", metadata=None)

    with pytest.warns(
        UserWarning, match=r"300 pixels per inch may be that of a printer.*spacing=\(84\.6667, 84\.6667\)"
    ):
        assert spacing_of(open_image(tmp_path / "a.tif")) is None


def write_imagej(path, pixels, resolution, **metadata):
    tifffile.imwrite(
        path, pixels, imagej=True, resolution=(resolution, resolution), metadata={"unit": "um", **metadata}
    )
    return path


def test_image_and_mask_of_different_pixel_size_are_refused_until_one_is_passed(tmp_path):
    image, mask = write_imagej(tmp_path / "i.tif", PLANE, 4), write_imagej(tmp_path / "m.tif", MASK, 2)

    with pytest.raises(
        InputError, match=r"a: The pixel sizes of image \(0\.25 .*`spacing=\(0\.25, 0\.25\)` or `spacing="
    ):
        open_pair("a", image, mask)
    assert open_pair("a", image, mask, spacing=(0.5, 0.5)).spacing == (0.5, 0.5)


def test_rounded_pixel_sizes_do_not_differ(tmp_path):
    image, mask = write_imagej(tmp_path / "i.tif", PLANE, 4), write_imagej(tmp_path / "m.tif", MASK, 4.004)

    assert open_pair("a", image, mask).spacing == pytest.approx((0.25, 0.25))


def test_channels_of_different_pixel_size_are_refused(tmp_path):
    files = (write_imagej(tmp_path / "dna.tif", PLANE, 4), write_imagej(tmp_path / "actin.tif", PLANE, 2))

    with pytest.raises(InputError, match=r"pixel sizes of .*dna\.tif .* and .*actin\.tif .* differ"):
        open_image(files)
    assert spacing_of(open_image(files, spacing=0.25)) == (0.25, 0.25)


def test_image_and_mask_complete_each_others_pixel_size(tmp_path):
    image = write_imagej(tmp_path / "i.tif", np.stack([PLANE] * 2), 4, axes="ZYX")
    tifffile.imwrite(tmp_path / "m.ome.tif", np.stack([MASK] * 2), metadata={"axes": "ZYX", "PhysicalSizeZ": 2.0})

    pair = open_pair("a", image, tmp_path / "m.ome.tif")

    assert pair.spacing == pytest.approx((2, 0.25, 0.25))
    assert pair.notes == ()


def test_a_pixel_size_of_some_axes_is_reported_with_the_image(tmp_path):
    image = write_imagej(tmp_path / "i.tif", np.stack([PLANE] * 2), 4, axes="ZYX")

    pair = open_pair("well 3", image, np.stack([MASK] * 2))

    assert pair.spacing is None
    assert pair.notes == (
        "well 3: The pixel size is known along y (0.25 µm) and x (0.25 µm), but not along z, so all lengths are in "
        "pixels. Pass `spacing=(z, 0.25, 0.25)` with all sizes in micrometers.",
    )
    assert open_pair("well 3", image, np.stack([MASK] * 2), spacing=(2, 0.25, 0.25)).notes == ()


@pytest.mark.parametrize("spacing", [0, -1, math.nan, 1e-300, (0.5, math.inf)])
def test_a_given_pixel_size_must_be_plausible(spacing):
    with pytest.raises(InputError, match="positive numbers in micrometers"):
        open_image(PLANE, spacing=spacing)

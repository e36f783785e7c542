"""Zarr arrays and OME-Zarr images of versions 0.4 and 0.5."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from svetlana_jupyter.core.io.images import open_image, open_mask, spacing_of
from svetlana_jupyter.errors import InputError

RNG = np.random.default_rng(5)
PIXELS = RNG.integers(0, 2**16, (1, 2, 5, 60, 70), np.uint16)


def write_ome_zarr(path, version, pixels=PIXELS, names="tczyx", unit="micrometer"):
    group = zarr.create_group(path, zarr_format=2 if version == "0.4" else 3)
    for level, step in enumerate((1, 2)):
        data = pixels[..., ::step, ::step]
        array = group.create_array(
            str(level), shape=data.shape, dtype=data.dtype, chunks=(1,) * (data.ndim - 2) + (32, 32)
        )
        array[...] = data
    scale = {"t": 1.0, "c": 1.0, "z": 2000.0, "y": 500.0, "x": 250.0}
    axes = [{"name": name, "unit": unit} if name in "zyx" else {"name": name} for name in names]
    multiscales = [
        {
            "axes": axes,
            "datasets": [
                {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [scale[n] for n in names]}]},
                {"path": "1", "coordinateTransformations": [{"type": "scale", "scale": [2 * scale[n] for n in names]}]},
            ],
            "coordinateTransformations": [{"type": "scale", "scale": [0.1] * len(names)}],
        }
    ]
    ome = {"multiscales": multiscales}
    if "c" in names:
        ome["omero"] = {"channels": [{"label": "DAPI"}, {"label": "actin"}]}
    group.attrs.update(ome if version == "0.4" else {"ome": {"version": version, **ome}})
    return group


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_image_opens_at_full_resolution_with_spacing_and_channel_names(tmp_path, version):
    write_ome_zarr(tmp_path / "image.zarr", version, unit="nanometer")

    image = open_image(tmp_path / "image.zarr")

    assert image.dims == ("c", "z", "y", "x")
    assert image.c.values.tolist() == ["DAPI", "actin"]
    assert spacing_of(image) == pytest.approx((0.2, 0.05, 0.025))
    np.testing.assert_array_equal(image, PIXELS[0])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_mask_of_an_image_is_its_only_label_image(tmp_path, version):
    path = tmp_path / "image.zarr"
    write_ome_zarr(path, version)
    labels = zarr.create_group(path / "labels", zarr_format=2 if version == "0.4" else 3)
    labels.attrs.update({"labels": ["nuclei"]} if version == "0.4" else {"ome": {"labels": ["nuclei"]}})
    write_ome_zarr(path / "labels" / "nuclei", version, PIXELS[0, 0] % 7, "zyx")

    mask = open_mask(path)

    assert mask.dims == ("z", "y", "x")
    assert open_image(path).shape[1:] == mask.shape
    np.testing.assert_array_equal(mask, PIXELS[0, 0] % 7)
    np.testing.assert_array_equal(open_mask(path / "labels" / "nuclei"), mask)


def test_an_image_with_several_label_images_requires_the_name_of_one(tmp_path):
    path = tmp_path / "image.zarr"
    write_ome_zarr(path, "0.5")
    for name in ("cells", "nuclei"):
        write_ome_zarr(path / "labels" / name, "0.5", PIXELS[0, 0], "zyx")
    zarr.create_group(path / "labels", zarr_format=3, attributes={"ome": {"labels": ["cells", "nuclei"]}})

    with pytest.raises(InputError, match=r"has 2 label images \(cells, nuclei\), expected one"):
        open_mask(path)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_bare_array_opens_in_blocks_of_whole_chunks(tmp_path, zarr_format):
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(5000, 3000), chunks=(100, 300), dtype=np.uint8, zarr_format=zarr_format
    )
    array[4000:, 7] = 3

    image = open_image(tmp_path / "a.zarr")

    assert all(size % 100 == 0 for size in image.chunks[0])
    assert all(size % 300 == 0 for size in image.chunks[1])
    assert 2**19 < np.prod(image.data.chunksize) <= 2**21
    assert int(image.sum()) == 3000


def test_named_dimensions_of_a_bare_array_are_used(tmp_path):
    pixels = np.ones((4, 9, 8), np.uint8)
    zarr.create_array(tmp_path / "a.zarr", data=pixels, dimension_names=["z", "y", "x"])

    assert open_image(tmp_path / "a.zarr").dims == ("z", "y", "x")


def test_missing_units_are_not_guessed(tmp_path):
    write_ome_zarr(tmp_path / "image.zarr", "0.5", unit=None)

    with pytest.warns(UserWarning, match=r"along z, y and x \(200, 50, 25\) is not used: it has no unit"):
        assert spacing_of(open_image(tmp_path / "image.zarr")) is None


def test_a_group_without_an_image_is_refused_with_its_content(tmp_path):
    group = zarr.create_group(tmp_path / "a.zarr")
    for name in ("first", "second"):
        group.create_array(name, data=np.ones((4, 4), np.uint8))

    with pytest.raises(InputError, match="Zarr group but not an image; it holds first, second"):
        open_image(tmp_path / "a.zarr")
    assert open_image(tmp_path / "a.zarr" / "first").shape == (4, 4)


def test_a_folder_that_is_not_zarr_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read as Zarr"):
        open_image(tmp_path)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda image: image["datasets"][0].pop("path"),
            r"invalid at multiscales\.0\.datasets\.0\.path: Field required",
        ),
        (lambda image: image.update(datasets=[]), r"invalid at multiscales\.0\.datasets: .*at least 1 item"),
        (lambda image: image["axes"][2].pop("name"), r"invalid at multiscales\.0\.axes\.2\.name"),
        (lambda image: image["datasets"][0].update(path="9"), "refer to '9', which is missing"),
        (lambda image: image["datasets"][0].update(path="labels"), "'labels' in .*image.zarr is a group"),
    ],
)
def test_invalid_metadata_are_refused_with_the_location(tmp_path, version, change, message):
    group = write_ome_zarr(tmp_path / "image.zarr", version)
    group.create_group("labels")
    attributes = dict(group.attrs)
    change(attributes.get("ome", attributes)["multiscales"][0])
    group.attrs.update(attributes)

    with pytest.raises(InputError, match=message):
        open_image(tmp_path / "image.zarr")


def test_metadata_of_version_0_3_are_read(tmp_path):
    group = write_ome_zarr(tmp_path / "image.zarr", "0.4")
    image = {"version": "0.3", "axes": list("tczyx"), "datasets": [{"path": "0"}, {"path": "1"}]}
    group.attrs.put({"multiscales": [image], "omero": None})

    image = open_image(tmp_path / "image.zarr")

    assert image.dims == ("c", "z", "y", "x")
    assert spacing_of(image) is None
    assert image.c.values.tolist() == ["channel 1", "channel 2"]


def test_a_scale_of_the_wrong_length_gives_no_spacing(tmp_path):
    group = write_ome_zarr(tmp_path / "image.zarr", "0.4")
    attributes = dict(group.attrs)
    attributes["multiscales"][0]["coordinateTransformations"] = [{"type": "scale", "scale": [0.1, 0.1]}]
    group.attrs.update(attributes)

    with pytest.warns(UserWarning, match="scale in the metadata has 2 numbers for 5 axes"):
        assert spacing_of(open_image(tmp_path / "image.zarr")) is None


def test_a_missing_label_image_named_in_the_metadata_is_an_error(tmp_path):
    write_ome_zarr(tmp_path / "image.zarr", "0.5")
    zarr.create_group(tmp_path / "image.zarr" / "labels", zarr_format=3, attributes={"ome": {"labels": ["nuclei"]}})

    with pytest.raises(InputError, match=r"labels refer to 'nuclei', which is missing"):
        open_mask(tmp_path / "image.zarr")


IMAGE = {"axes": [{"name": name, "unit": "micrometer"} for name in "yx"], "datasets": [{"path": "0"}]}
SCALE = {"type": "scale", "scale": [0.5, 0.25]}
SMALL = RNG.integers(1, 9, (20, 30), np.uint16)


def write_group(path, version, metadata, **arrays):
    """Write a group with the given metadata and arrays."""
    group = zarr.create_group(path, zarr_format=2 if version == "0.4" else 3, overwrite=True)
    for name, pixels in arrays.items():
        group.create_array(name.strip("_"), data=pixels)
    group.attrs.put(metadata if version == "0.4" else {"ome": {"version": version, **metadata}})
    return path


def with_dataset(**changes):
    return {"multiscales": [{**IMAGE, "datasets": [{"path": "0", "coordinateTransformations": [SCALE], **changes}]}]}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("path", ["../a.zarr/0", "s3://bucket/0", "/0", "..", "", "C:\\0", "9", "0/0", "x" * 5000])
def test_a_path_that_leads_to_no_array_of_the_image_is_named(tmp_path, version, path):
    write_group(tmp_path / "a.zarr", version, with_dataset(path=path), _0=SMALL)

    with pytest.raises(InputError, match=r"metadata of .*a\.zarr refer to '.*', which is (missing|not a folder in it)"):
        open_image(tmp_path / "a.zarr")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"zarr_format": 9}', '{"zarr_format": 2, "shape": "x"}'])
def test_an_array_whose_metadata_are_damaged_is_named(tmp_path, version, content):
    write_group(tmp_path / "a.zarr", version, with_dataset(), _0=SMALL)
    (tmp_path / "a.zarr" / "0" / (".zarray" if version == "0.4" else "zarr.json")).write_text(content)

    with pytest.raises(InputError, match=r"'0'.* (cannot be read|is missing|is a group)"):
        open_image(tmp_path / "a.zarr")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_array_of_which_no_chunk_was_copied_is_named(tmp_path, version):
    group = zarr.open_group(write_group(tmp_path / "a.zarr", version, with_dataset()), mode="a")
    group.create_array("0", shape=(20, 30), dtype=np.uint16)

    with pytest.raises(InputError, match=r"array .*a\.zarr/0 has shape \(20, 30\), but none of its chunks exists"):
        open_image(tmp_path / "a.zarr")
    with pytest.warns(UserWarning, match="None of its chunks exists"):
        open_image(tmp_path / "a.zarr" / "0")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_scale_in_an_array_is_read_and_reported_if_it_is_missing(tmp_path, version):
    dataset = with_dataset(coordinateTransformations=[{"type": "scale", "path": "s"}])
    path = write_group(tmp_path / "a.zarr", version, dataset, _0=SMALL, s=np.array([0.5, 0.25]))
    assert spacing_of(open_image(path)) == (0.5, 0.25)

    write_group(path, version, dataset, _0=SMALL)

    with pytest.warns(UserWarning, match="scale in the metadata has no numbers for 2 axes"):
        assert spacing_of(open_image(path)) is None


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("kind", ["affine", "rotation", "sequence"])
def test_other_transformations_give_no_spacing_and_are_reported(tmp_path, version, kind):
    dataset = with_dataset(coordinateTransformations=[SCALE, {"type": kind}])

    with pytest.warns(UserWarning, match=f"The '{kind}' of its coordinates is not used"):
        assert spacing_of(open_image(write_group(tmp_path / "a.zarr", version, dataset, _0=SMALL))) is None


def test_without_a_scale_there_is_no_spacing(tmp_path):
    write_group(tmp_path / "a.zarr", "0.4", with_dataset(coordinateTransformations=None), _0=SMALL)

    assert spacing_of(open_image(tmp_path / "a.zarr")) is None


def test_axes_that_do_not_fit_the_array_are_refused_with_its_path(tmp_path):
    write_group(tmp_path / "a.zarr", "0.5", with_dataset(), _0=SMALL[None])

    with pytest.raises(InputError, match=r"name 2 axes \(y, x\), but the array '0' has 3 dimensions.*a\.zarr/0'"):
        open_image(tmp_path / "a.zarr")
    assert open_image(tmp_path / "a.zarr" / "0", axes="zyx").shape == (20, 30)


def test_axes_are_read_by_type_inferred_or_those_of_old_versions(tmp_path, recwarn):
    channels = [{"name": "stain", "type": "channel"}, *IMAGE["axes"]]
    image = {"multiscales": [{**IMAGE, "axes": channels}]}
    assert open_image(write_group(tmp_path / "a.zarr", "0.4", image, _0=SMALL[None])).dims == ("c", "y", "x")

    old = {"multiscales": [{"version": "0.1", "datasets": [{"path": "0"}]}]}
    pixels = np.stack([SMALL] * 4)[None, :, None]
    assert open_image(write_group(tmp_path / "b.zarr", "0.4", old, _0=pixels)).dims == ("c", "y", "x")
    assert not recwarn.list

    named = {"multiscales": [{**IMAGE, "axes": [{"name": "row"}, {"name": "column"}]}]}
    with pytest.warns(UserWarning, match="axes row, column are not t, c, z, y and x, so they are inferred"):
        assert open_image(write_group(tmp_path / "c.zarr", "0.4", named, _0=SMALL)).dims == ("y", "x")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_only_image_of_bioformats2raw_is_opened(tmp_path, version):
    root = write_group(tmp_path / "a.zarr", version, {"bioformats2raw.layout": 3})
    write_group(root / "0", version, with_dataset(), _0=SMALL)
    (root / "OME").mkdir()

    image = open_image(root)
    np.testing.assert_array_equal(image, SMALL)
    assert spacing_of(image) == (0.5, 0.25)

    write_group(root / "1", version, with_dataset(), _0=SMALL)
    with pytest.raises(InputError, match=r"holds several images\. Pass the path .*a\.zarr/0', '.*a\.zarr/1'"):
        open_image(root)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"plate": {"wells": [{"path": "A/1"}]}}, "is a plate of 1 wells, expected one image.*a.zarr/A/1/0'"),
        ({"plate": {}}, "is a plate of 0 wells"),
        ({"well": {"images": []}}, "group but not an image; it holds nothing"),
        ({"labels": ["nuclei"]}, "group of label images. Pass the path of one of them: '.*a.zarr/nuclei'"),
        ({"multiscales": []}, "group but not an image; it holds nothing"),
        ({"multiscales": 3}, "invalid at multiscales: Input should be a valid list"),
        ({"multiscales": [with_dataset()["multiscales"][0], {"datasets": [{"path": "1"}]}]}, "holds 2 images"),
    ],
)
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_groups_that_are_no_image_are_named(tmp_path, version, metadata, message):
    with pytest.raises(InputError, match=message):
        open_image(write_group(tmp_path / "a.zarr", version, metadata))


def test_four_channels_of_a_bare_array_are_kept(tmp_path):
    pixels = np.stack([SMALL] * 4, -1).astype(np.uint8)
    zarr.create_array(tmp_path / "a.zarr", data=pixels, dimension_names=["y", "x", "s"])

    np.testing.assert_array_equal(open_image(tmp_path / "a.zarr"), np.moveaxis(pixels, -1, 0))

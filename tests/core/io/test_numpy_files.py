"""Pickles give their plain values, and run nothing: what would run is put down by its name."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
from collections import OrderedDict
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svetlana_jupyter.core.io.images import open_image, open_mask
from svetlana_jupyter.core.io.numpy_files import UnsupportedValue, load_plain_pickle
from svetlana_jupyter.errors import InputError


class Runs:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return os.system, (f"touch {Runs.file}",)

    file = "/nowhere"


def read(value: object, protocol: int = 4) -> object:
    return load_plain_pickle(io.BytesIO(pickle.dumps(value, protocol)))


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner) | st.tuples(inner),
    max_leaves=12,
)


@settings(max_examples=60)
@given(plain, st.integers(0, 5))
def test_plain_values_come_out_as_they_went_in(value: object, protocol: int) -> None:
    assert read(value, protocol) == value


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("dtype", ["uint16", ">i4", "float32", "bool", "int64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_out_as_they_went_in(protocol: int, dtype: str, order: str) -> None:
    array = np.asarray(np.arange(12).reshape(3, 4).astype(dtype), order=order)
    found = read({"a": array, "again": [array, array], "one": array[1, 2]}, protocol)
    assert found["a"].dtype == array.dtype and found["again"][1] is found["a"] and found["one"] == array[1, 2]
    np.testing.assert_array_equal(found["a"], array)


def test_sets_paths_and_ordered_dictionaries_are_plain_too() -> None:
    value = {"set": {1, 2}, "frozen": frozenset([3]), "path": PurePosixPath("/a/b"), "ordered": OrderedDict(a=1)}
    assert read(value) == {**value, "path": "/a/b"}
    assert read(np.array([{"a": 1}, None], object)).tolist() == [{"a": 1}, None]
    assert read(np.empty((1,), object)).tolist() == [None] and read(np.zeros((0, 3), np.int8)).shape == (0, 3)
    nested = np.empty(1, object)
    nested[0] = [1, 2]
    assert read(nested)[0] == [1, 2] and read(bytearray(b"ab")) == b"ab"


@pytest.mark.parametrize("protocol", range(2, 6))
def test_text_of_numpy_is_read_and_what_is_not_plain_is_put_down(protocol: int) -> None:
    times = np.array(["2024-01-01"], "M8[D]")
    records = np.zeros(2, [("a", "i4"), ("b", "f8")])
    value = {"name": np.str_("well"), "names": np.array(["a", "bc"]), "time": times[0], "times": times, "all": records}
    found = read({**value, "row": records[0], "masks": np.arange(3)}, protocol)
    assert found["name"] == "well" and found["names"].tolist() == ["a", "bc"]
    assert all(isinstance(found[key], UnsupportedValue) for key in ("time", "times", "all", "row"))
    assert found["masks"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("protocol", range(0, 6))
def test_nothing_runs(protocol: int, tmp_path: Path) -> None:
    Runs.file = str(tmp_path / "ran")
    found = read({"bad_segmentation": Runs(), "good": 1}, protocol)
    assert (
        found["good"] == 1
        and isinstance(found["bad_segmentation"], UnsupportedValue)
        and found["bad_segmentation"].name.endswith("system")
    )
    assert not Path(Runs.file).exists()
    pickle.loads(pickle.dumps(Runs(), protocol))
    assert Path(Runs.file).exists(), "it would have run"


@pytest.mark.parametrize("text", [b"", b"\x80\x04", b"cos\nsystem\n", b"\x80\x04N", b"hello", b"t."])
def test_what_is_no_pickle_is_refused(text: bytes) -> None:
    with pytest.raises(InputError):
        load_plain_pickle(io.BytesIO(text))


def test_an_array_larger_than_its_bytes_is_refused() -> None:
    text = pickle.dumps(np.arange(4, dtype=np.uint8), 2).replace(b"K\x04\x85", b"K\x09\x85")
    with pytest.raises(InputError, match="cannot reshape"):
        load_plain_pickle(io.BytesIO(text))


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    whole = pickle.dumps({"masks": np.arange(3)}, 4)
    for mangled in (text, whole[: len(text)] + text, whole[:-20] + text + b"."):
        with contextlib.suppress(InputError):
            load_plain_pickle(io.BytesIO(mangled))


def seg(masks: np.ndarray, **others: object) -> dict:
    """A dictionary as Cellpose's window saves it."""
    flows = [np.zeros((1, *masks.shape[-2:], 3), np.uint8), np.zeros((2, *masks.shape), np.float32)]
    return {
        "outlines": masks * 0,
        "colors": np.zeros((3, 3), np.uint8),
        "masks": masks,
        "chan_choose": [0, 0],
        "filename": "C:/images/well.tif",
        "flows": flows,
        "ismanual": np.zeros(3, bool),
        "manual_changes": [["2024-01-01T10:00:00", "added mask", [np.arange(3), np.arange(3)]]],
        "model_path": 0,
        "flow_threshold": 0.4,
        "diameter": np.float64(30.0),
        **others,
    }


@pytest.mark.parametrize("shape", [(20, 30), (4, 20, 30)])
def test_the_masks_of_cellpose_are_opened(tmp_path: Path, shape: tuple[int, ...]) -> None:
    masks = np.random.default_rng(0).integers(0, 9, shape).astype(np.uint16)
    np.save(tmp_path / "well_seg.npy", seg(masks))
    found = open_mask(tmp_path / "well_seg.npy")
    assert found.dims == ("z", "y", "x")[-len(shape) :] and found.dtype == np.uint16
    np.testing.assert_array_equal(found, masks)
    np.testing.assert_array_equal(found[..., 3:7, 5:9], masks[..., 3:7, 5:9])


def test_masks_beside_something_that_would_run_are_opened_and_it_does_not_run(tmp_path: Path) -> None:
    Runs.file = str(tmp_path / "ran")
    np.save(tmp_path / "well_seg.npy", seg(np.eye(4, dtype=np.int32), extra=Runs()))
    assert open_mask(tmp_path / "well_seg.npy").sum() == 4 and not Path(Runs.file).exists()


def test_other_pickled_arrays_are_refused_with_what_they_hold(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", {"flows": 1, "diameter": 2})
    with pytest.raises(InputError, match=r"flows, diameter\), and no “masks” of Cellpose"):
        open_image(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.array([None, 1], object))
    with pytest.raises(InputError, match="holds pickled objects"):
        open_mask(tmp_path / "b.npy")
    np.save(tmp_path / "c.npy", seg(np.eye(4)))
    with pytest.raises(InputError, match="no array of integers"):
        open_mask(tmp_path / "c.npy")
    whole = (tmp_path / "c.npy").read_bytes()
    (tmp_path / "d.npy").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cannot be read.*Save the masks as TIFF"):
        open_mask(tmp_path / "d.npy")

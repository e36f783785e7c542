"""Safe reading of pickled NumPy files and Cellpose masks."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import sys
import tracemalloc
from collections import OrderedDict
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svetlana_jupyter.core.io.images import open_image, open_mask
from svetlana_jupyter.core.io.numpy_files import UnsupportedValue, load_plain_pickle
from svetlana_jupyter.errors import InputError


class RunsCode:
    """Object that runs code when it is unpickled."""

    def __reduce__(self):
        return os.system, (f"touch {RunsCode.file}",)

    file = "/nowhere"


def read(value: object, protocol: int = 4) -> object:
    return load_plain_pickle(io.BytesIO(pickle.dumps(value, protocol)))


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner) | st.tuples(inner),
    max_leaves=12,
)


@settings(max_examples=25)
@given(plain, st.integers(0, 5))
def test_plain_values_are_read_unchanged(value: object, protocol: int) -> None:
    assert read(value, protocol) == value


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("dtype", ["uint16", ">i4", "float32", "bool", "int64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_read_unchanged(protocol: int, dtype: str, order: str) -> None:
    array = np.asarray(np.arange(12).reshape(3, 4).astype(dtype), order=order)
    loaded = read({"a": array, "again": [array, array], "one": array[1, 2]}, protocol)
    assert loaded["a"].dtype == array.dtype.newbyteorder("=")
    assert loaded["again"][1] is loaded["a"]
    assert loaded["one"] == array[1, 2]
    np.testing.assert_array_equal(loaded["a"], array)


def test_sets_paths_and_ordered_dictionaries_count_as_plain() -> None:
    value = {"set": {1, 2}, "frozen": frozenset([3]), "path": PurePosixPath("/a/b"), "ordered": OrderedDict(a=1)}
    assert read(value) == {**value, "path": "/a/b"}
    assert read(np.array([{"a": 1}, None], object)).tolist() == [{"a": 1}, None]
    assert read(np.empty((1,), object)).tolist() == [None]
    assert read(np.zeros((0, 3), np.int8)).shape == (0, 3)
    nested = np.empty(1, object)
    nested[0] = [1, 2]
    assert read(nested)[0] == [1, 2]
    assert read(bytearray(b"ab")) == b"ab"


@pytest.mark.parametrize("protocol", range(2, 6))
def test_numpy_strings_are_read_and_other_objects_are_recorded(protocol: int) -> None:
    times = np.array(["2024-01-01"], "M8[D]")
    records = np.zeros(2, [("a", "i4"), ("b", "f8")])
    value = {"name": np.str_("well"), "names": np.array(["a", "bc"]), "time": times[0], "times": times, "all": records}
    loaded = read({**value, "row": records[0], "masks": np.arange(3)}, protocol)
    assert loaded["name"] == "well"
    assert loaded["names"].tolist() == ["a", "bc"]
    assert all(isinstance(loaded[key], UnsupportedValue) for key in ("time", "times", "all", "row"))
    assert loaded["masks"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("protocol", range(0, 6))
def test_loading_a_pickle_runs_no_code(protocol: int, tmp_path: Path) -> None:
    RunsCode.file = str(tmp_path / "ran")
    loaded = read({"bad_segmentation": RunsCode(), "good": 1}, protocol)
    assert loaded["good"] == 1
    assert isinstance(loaded["bad_segmentation"], UnsupportedValue)
    assert loaded["bad_segmentation"].name.endswith("system")
    assert not Path(RunsCode.file).exists()
    pickle.loads(pickle.dumps(RunsCode(), protocol))
    assert Path(RunsCode.file).exists(), "it would have run"


@pytest.mark.parametrize("text", [b"", b"\x80\x04", b"cos\nsystem\n", b"\x80\x04N", b"hello", b"t."])
def test_a_file_that_is_not_a_pickle_is_refused(text: bytes) -> None:
    with pytest.raises(InputError):
        load_plain_pickle(io.BytesIO(text))


def test_an_array_larger_than_its_bytes_is_refused() -> None:
    text = pickle.dumps(np.arange(4, dtype=np.uint8), 2).replace(b"K\x04\x85", b"K\x09\x85")
    with pytest.raises(InputError, match="instead of 9 bytes"):
        load_plain_pickle(io.BytesIO(text))


AUDITED: list[str] | None = None  # audit events of the interpreter while a pickle is loaded


def record_event(event: str, _: object) -> None:
    if AUDITED is not None:
        AUDITED.append(event)


sys.addaudithook(record_event)
HARMLESS = {"pickle.find_class", "object.__getattr__", "object.__setattr__", "sys._getframe"}


def load_watched(text: bytes) -> object:
    """Load a pickle; fail if it opens, imports or starts anything, or uses far more memory than its size."""
    global AUDITED
    tracemalloc.start()
    AUDITED = []
    try:
        with contextlib.suppress(InputError):
            return load_plain_pickle(io.BytesIO(text))
    finally:
        events, AUDITED = AUDITED, None
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert set(events) <= HARMLESS, events
        assert peak < 3_000_000 + 2000 * len(text), peak


SAMPLES = [
    pickle.dumps(value, protocol)
    for value in ({"masks": np.arange(30).reshape(5, 6), "one": np.float32(1)}, [np.array([1, "a"], object), {1, 2}])
    for protocol in range(2, 6)
]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_damaged_pickles_neither_run_code_nor_exhaust_memory(data: st.DataObject) -> None:
    text = bytearray(data.draw(st.sampled_from(SAMPLES)))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        removed = data.draw(st.integers(0, 3))
        text[start : start + removed] = data.draw(st.binary(max_size=8) | st.sampled_from(SAMPLES))
    load_watched(bytes(text))


def pickled_text(value: str) -> bytes:
    return pickle.SHORT_BINUNICODE + bytes([len(value)]) + value.encode()


NAMES = [
    *[("os", "system"), ("builtins", "exec"), ("builtins", "eval"), ("builtins", "getattr"), ("builtins", "open")],
    *[("subprocess", "Popen"), ("numpy", "load"), ("numpy", "ndarray"), ("numpy", "dtype"), ("numpy", "zeros")],
    *[("numpy._core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "scalar"), ("builtins", "bytearray")],
    *[("numpy._core.numeric", "_frombuffer"), ("builtins", "bytes"), ("builtins", "list"), ("builtins", "set")],
    *[("_codecs", "encode"), ("collections", "OrderedDict"), ("copyreg", "_reconstructor"), ("pathlib", "PosixPath")],
]
names = st.sampled_from(NAMES).map(lambda name: pickled_text(name[0]) + pickled_text(name[1]) + pickle.STACK_GLOBAL)
operands = st.sampled_from(
    [
        *[pickle.NONE, pickle.EMPTY_DICT, pickle.EMPTY_LIST, pickle.EMPTY_TUPLE, pickle.MARK, pickle.EMPTY_SET],
        *[pickled_text(text) for text in ("touch ran", "u2", "O8", "__setstate__", "numpy", "U9", "<")],
        *[pickle.dumps(number, 2)[2:-1] for number in (0, 1, -1, 3, 2**31, 2**62, 10**12)],
        *[pickle.dumps(value, 2)[2:-1] for value in ((3,), (10**6, 10**6), (1, (2, 2), None, False, b"abcd"))],
    ]
)
instructions = st.sampled_from(
    [
        *[pickle.REDUCE, pickle.BUILD, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.OBJ, pickle.TUPLE, pickle.TUPLE1],
        *[pickle.TUPLE2, pickle.TUPLE3, pickle.LIST, pickle.DICT, pickle.APPEND, pickle.APPENDS, pickle.SETITEM],
        *[pickle.SETITEMS, pickle.ADDITEMS, pickle.FROZENSET, pickle.MEMOIZE, pickle.DUP, pickle.POP],
        *[pickle.BINPERSID, pickle.BINGET + b"\0", pickle.BINGET + b"\1", pickle.BINPUT + b"\0", pickle.POP_MARK],
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(names | operands | instructions, max_size=25))
def test_arbitrary_opcodes_neither_run_code_nor_exhaust_memory(parts: list[bytes]) -> None:
    load_watched(b"\x80\x05" + b"".join(parts) + b".")


def call(name: tuple[str, str], *arguments: bytes) -> bytes:
    return pickled_text(name[0]) + pickled_text(name[1]) + pickle.STACK_GLOBAL + b"(" + b"".join(arguments) + b"tR"


ARRAY = call(
    ("numpy._core.multiarray", "_reconstruct"),
    pickled_text("numpy") + pickled_text("ndarray") + pickle.STACK_GLOBAL,
    b"K\0",
)
BYTES = call(("numpy", "dtype"), pickled_text("u1"))
MANY = pickle.dumps(10**12, 2)[2:-1]
REPEATED = (
    pickle.BINUNICODE
    + b"\0\2\0\0"
    + b"a" * 512
    + b"\x94"
    + b"0"
    + b"".join([call(("_codecs", "encode"), b"h\0")] * 3000)
)


@pytest.mark.parametrize(
    "text",
    [
        ARRAY + b"(K\1(" + MANY + b"t" + BYTES + b"\x89" + pickled_text("") + b"tb",
        ARRAY + b"(K\1(" + MANY + b"t" + call(("numpy", "dtype"), pickled_text("O8")) + b"\x89]tb",
        ARRAY + b"(K\1(J\xff\xff\xff\xffK\1t" + BYTES + b"\x89" + pickled_text("") + b"tb",
        call(("builtins", "bytes"), MANY),
        call(("builtins", "bytearray"), MANY),
        call(("builtins", "list"), pickled_text("abc")),
        call(("numpy._core.numeric", "_frombuffer"), pickled_text("abc"), BYTES, MANY, pickled_text("C")),
        REPEATED,
        b"N" + pickle.LONG_BINPUT + b"\xff\xff\xff\x7f",
        b"N" + pickle.PUT + b"99999999999\n",
        pickle.BYTEARRAY8 + b"\0\0\0\0\1\0\0\0",
        pickle.BINBYTES8 + b"\0\0\0\0\1\0\0\0",
        pickle.FRAME + b"\0\0\0\0\0\1\0\0N",
        b"".join(f"cmodule\nname{number}\n0".encode() for number in range(10_001)) + b"N",
        pickled_text("builtins") + pickled_text("list") + pickle.STACK_GLOBAL + b"}" + pickled_text("a") + b"K\1sb",
    ],
)
def test_a_pickle_that_claims_more_than_its_size_is_refused(text: bytes) -> None:
    assert load_watched(b"\x80\x05" + text + b".") is None
    with pytest.raises(InputError):
        load_plain_pickle(io.BytesIO(b"\x80\x05" + text + b"."))


def test_a_pickle_cannot_modify_a_class() -> None:
    name = pickled_text("os") + pickled_text("system") + pickle.STACK_GLOBAL
    state = b"N}" + pickled_text("name") + pickled_text("changed") + b"s\x86"
    load_watched(b"\x80\x05" + name + state + b"b.")
    assert load_watched(b"\x80\x05" + name + b")R.").name == "os.system"
    assert UnsupportedValue.name == "persistent object"


def test_masks_do_not_keep_the_rest_of_the_file_in_memory() -> None:
    tracemalloc.start()
    masks = np.asarray(read({"masks": np.ones((100, 100), np.uint8), "flows": np.zeros(10**7, np.uint8)})["masks"])
    memory_used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert masks.sum() == 10**4
    assert memory_used < 10**6


def test_persistent_objects_of_torch_are_recorded() -> None:
    text = b"\x80\x02}(" + pickled_text("tensor") + pickled_text("storage") + b"Q" + pickled_text("label") + b"K\x07u."
    loaded = load_plain_pickle(io.BytesIO(text))
    assert isinstance(loaded["tensor"], UnsupportedValue)
    assert loaded["label"] == 7


def cellpose_dict(masks: np.ndarray, **entries: object) -> dict:
    """Return a dictionary as saved by the Cellpose GUI."""
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
        **entries,
    }


@pytest.mark.parametrize("shape", [(20, 30), (4, 20, 30)])
def test_cellpose_masks_are_opened(tmp_path: Path, shape: tuple[int, ...]) -> None:
    masks = np.random.default_rng(0).integers(0, 9, shape).astype(np.uint16)
    np.save(tmp_path / "well_seg.npy", cellpose_dict(masks))
    loaded = open_mask(tmp_path / "well_seg.npy")
    assert loaded.dims == ("z", "y", "x")[-len(shape) :]
    assert loaded.dtype == np.uint16
    np.testing.assert_array_equal(loaded, masks)
    np.testing.assert_array_equal(loaded[..., 3:7, 5:9], masks[..., 3:7, 5:9])


def test_masks_next_to_malicious_objects_are_opened_without_running_code(tmp_path: Path) -> None:
    RunsCode.file = str(tmp_path / "ran")
    np.save(tmp_path / "well_seg.npy", cellpose_dict(np.eye(4, dtype=np.int32), extra=RunsCode()))
    assert open_mask(tmp_path / "well_seg.npy").sum() == 4
    assert not Path(RunsCode.file).exists()


def test_other_pickled_arrays_are_refused_with_their_content(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", {"flows": 1, "diameter": 2})
    with pytest.raises(InputError, match=r"flows, diameter\), but not the “masks” of Cellpose"):
        open_image(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.array([None, 1], object))
    with pytest.raises(InputError, match="holds pickled objects"):
        open_mask(tmp_path / "b.npy")
    np.save(tmp_path / "c.npy", cellpose_dict(np.eye(4)))
    with pytest.raises(InputError, match="not an array of integers"):
        open_mask(tmp_path / "c.npy")
    whole = (tmp_path / "c.npy").read_bytes()
    (tmp_path / "d.npy").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cannot be read.*Save the masks as TIFF"):
        open_mask(tmp_path / "d.npy")

"""PNG and JPEG, which are decoded whole, and NumPy's own ``.npy``, which is read in place.

What Cellpose saves beside an image: ``*_seg.npy``, a pickled dictionary of which the masks are read.

The plain values of a pickle, without unpickling it: nothing that a file says can run.

A pickle is a program for a machine with a stack. The standard library's machine calls whatever the file names; this one
only follows the instructions that build numbers, text, lists, tuples, sets, dictionaries and NumPy arrays of numbers.
Whatever else a file names is put down as `UnsupportedValue`, by its name, and never looked up. The instructions
themselves are
decoded by ``pickletools``, which executes none.
"""

from __future__ import annotations

import pickletools
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import imageio.v3 as iio
import numpy as np
import numpy.typing as npt
from PIL import Image

from svetlana_jupyter.core.io.sources import OpenedFile, ReadGuard, UndividedFile, to_dask, undivided_to_dask
from svetlana_jupyter.errors import InputError

_PLAIN = re.compile(r"[bBhHiIlLqQefdgFD?]|[biufc]\d{1,2}|[SU]\d{1,6}")  # numbers and text
_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")


@dataclass(frozen=True, eq=False)
class UnsupportedValue:
    """A value that only running what the file names would give."""

    name: str


@dataclass(frozen=True)
class _Name:
    module: str
    name: str


@dataclass(eq=False)
class _Unbuilt:
    """A dtype or an array that waits for its contents, and where the machine remembers it."""

    kind: str
    code: str = ""
    remembered: list[int] = field(default_factory=list)


class _Mark:
    pass


def load_plain_pickle(stream: BinaryIO) -> Any:
    """Return the value of a pickle as far as it is plain.

    Parameters
    ----------
    stream : binary file
        At the beginning of the pickle.

    Returns
    -------
    object
        Numbers, text, bytes, lists, tuples, sets, dictionaries, read-only NumPy arrays, and `UnsupportedValue` in
        place of
        everything else.

    Raises
    ------
    InputError
        If it is no pickle, or is cut short.

    Examples
    --------
    >>> import io
    >>> load_plain_pickle(io.BytesIO(b"(dS'masks'" + bytes([10]) + b"(lI1" + bytes([10]) + b"as."))
    {'masks': [1]}
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "STOP":
                return _settled(machine.stack.pop())
            machine.step(opcode.name, argument)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, struct.error) as error:
        raise InputError(f"it is no pickle of plain values, or is cut short ({error})") from error
    raise InputError("it is cut short")


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _PUSHED:
            stack.append(argument)
        elif name in _MADE:
            stack.append(_MADE[name]())
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            place = len(self.memo) if name == "MEMOIZE" else int(argument)
            self.memo[place] = stack[-1]
            if isinstance(stack[-1], _Unbuilt):
                stack[-1].remembered.append(place)
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[int(argument)])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name in ("TUPLE", "LIST", "DICT", "FROZENSET"):
            stack.append(_GATHERED[name](self._since_mark()))
        elif name in ("APPEND", "SETITEM"):
            count = 1 if name == "APPEND" else 2
            items = stack[-count:]
            del stack[-count:]
            self._add(items)
        elif name in ("APPENDS", "SETITEMS", "ADDITEMS"):
            self._add(self._since_mark())
        elif name == "GLOBAL":
            module, _, thing = str(argument).partition(" ")
            stack.append(_Name(module, thing))
        elif name == "STACK_GLOBAL":
            stack[-2:] = [_Name(str(stack[-2]), str(stack[-1]))]
        elif name in ("REDUCE", "NEWOBJ"):
            called, arguments = stack[-2:]
            stack[-2:] = [_built(called, arguments)]
        elif name == "BUILD":
            state = stack.pop()
            self._fill(state)
        elif name in ("PROTO", "FRAME"):
            pass
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self._since_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "PERSID":
            stack.append(UnsupportedValue("something kept elsewhere"))
        elif name == "BINPERSID":
            stack[-1] = UnsupportedValue("something kept elsewhere")
        elif name in ("NEWOBJ_EX", "INST", "OBJ"):
            gone = self._since_mark() if name != "NEWOBJ_EX" else stack[-3:]
            if name == "NEWOBJ_EX":
                del stack[-3:]
            stack.append(UnsupportedValue(str(gone[0] if gone else argument)))
        else:
            raise ValueError(f"the instruction {name} is not one of plain values")

    def _since_mark(self) -> list[Any]:
        place = max(i for i, value in enumerate(self.stack) if isinstance(value, _Mark))
        items = self.stack[place + 1 :]
        del self.stack[place:]
        return items

    def _add(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            target.update(zip(items[::2], items[1::2], strict=True))
        elif isinstance(target, list):
            target.extend(items)
        elif isinstance(target, set):
            target.update(items)

    def _fill(self, state: Any) -> None:
        """Give what is on top its state; what is no dtype or array has none that is read."""
        waiting = self.stack[-1]
        if isinstance(waiting, _Unbuilt):
            value = _dtype_pickled(waiting.code, state) if waiting.kind == "dtype" else _array(*state)
            self.stack[-1] = value
            for place in waiting.remembered:
                self.memo[place] = value


def _built(called: Any, arguments: Any) -> Any:
    """Return what a call would give, of the few that only rearrange plain values."""
    if not isinstance(called, _Name):
        return UnsupportedValue("a call")
    if (called.module, called.name) == ("numpy", "dtype"):
        code = str(arguments[0])
        return (
            _Unbuilt("dtype", code)
            if _PLAIN.fullmatch(code) or code in ("O8", "O")
            else UnsupportedValue(f"dtype {code}")
        )
    if called.module in _MULTIARRAY and called.name == "_reconstruct" and arguments[0] == _Name("numpy", "ndarray"):
        return _Unbuilt("array")
    if called.module in _MULTIARRAY and called.name == "scalar":
        dtype, content = arguments[0], arguments[-1]
        return np.frombuffer(content, dtype, 1)[0].item() if _is_plain(dtype) else UnsupportedValue("a value of NumPy")
    if called.module in _NUMERIC and called.name == "_frombuffer":
        content, dtype, shape, order = arguments
        return (
            np.frombuffer(content, dtype).reshape(shape, order=order)
            if _is_plain(dtype)
            else UnsupportedValue("an array")
        )
    if (called.module, called.name) == ("_codecs", "encode"):
        return str(arguments[0]).encode("latin1")
    if (called.module, called.name) == ("collections", "OrderedDict"):
        return dict(*arguments)
    if called.module in ("builtins", "__builtin__") and called.name in _COLLECTED:
        given: list[Any] = list(*arguments)  # a number, which would ask for so much memory, is refused by this
        return _COLLECTED[called.name](given)
    if called.module.startswith("pathlib") and called.name.endswith("Path"):
        return "/".join(map(str, arguments)).replace("//", "/")
    return UnsupportedValue(f"{called.module}.{called.name}")


def _dtype_pickled(code: str, state: Any) -> Any:
    """Return a dtype of numbers in its byte order; fields and subarrays are not read."""
    if code.startswith("O"):
        return np.dtype(object)
    if any(state[2:5]):
        return UnsupportedValue("a structured dtype")
    return np.dtype(code).newbyteorder(state[1] if state[1] in "<>" else "=")


def _array(version: int, shape: tuple[int, ...], dtype: Any, fortran: bool, content: Any) -> Any:
    if isinstance(dtype, np.dtype) and dtype.hasobject:
        values = np.empty(len(content), object)
        for i, one in enumerate(content):  # at once, NumPy would take lists apart
            values[i] = one
        return values.reshape(shape)
    if not _is_plain(dtype):
        return UnsupportedValue("an array")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def _is_plain(dtype: Any) -> bool:
    return isinstance(dtype, np.dtype) and not dtype.hasobject


def _settled(value: Any) -> Any:
    return UnsupportedValue(value.kind) if isinstance(value, _Unbuilt) else value


_COLLECTED: Mapping[str, Callable[[list[Any]], Any]] = {
    "set": set,
    "frozenset": frozenset,
    "list": list,
    "bytes": bytes,
    "bytearray": bytes,
}
_PUSHED = frozenset(
    [
        *("INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    ]
)
_MADE: Mapping[str, Callable[[], Any]] = {
    "MARK": _Mark,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
}
_GATHERED: Mapping[str, Callable[[list[Any]], Any]] = {
    "TUPLE": tuple,
    "LIST": list,
    "DICT": lambda items: dict(zip(items[::2], items[1::2], strict=True)),
    "FROZENSET": frozenset,
}


EXPORT_HINT = "Save the masks as TIFF in Cellpose (File, Save masks as PNG/tif) and take that file."


def is_pickled_npy(path: Path) -> bool:
    """Whether an ``.npy`` file holds pickled objects instead of numbers."""
    try:
        with path.open("rb") as file:
            return _dtype(file).hasobject
    except (OSError, ValueError, EOFError):
        return False


def read_cellpose_seg(path: Path, stamp: str, cache: Path | None = None) -> OpenedFile:
    """Describe the masks of a ``*_seg.npy``; nothing in the file is executed (`core.io.numpy_files`)."""
    masks = _masks(path, stamp)
    whole = UndividedFile(path, stamp, masks.shape, masks.dtype, _Decode(stamp))
    return OpenedFile(undivided_to_dask(whole, cache), {2: "yx", 3: "zyx"}.get(masks.ndim))


class _Decode:
    """Reads the masks again, once they have been forgotten. ``stamp`` changes when the file does."""

    def __init__(self, stamp: str) -> None:
        self.stamp = stamp

    def __call__(self, path: Path) -> npt.NDArray[Any]:
        return _masks(path, self.stamp)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Decode) and self.stamp == other.stamp

    def __hash__(self) -> int:
        return hash(self.stamp)


@lru_cache(maxsize=1)
def _masks(path: Path, stamp: str) -> npt.NDArray[Any]:
    try:
        with path.open("rb") as file:
            _dtype(file)
            found = load_plain_pickle(file)
    except (OSError, ValueError) as error:  # an InputError is a ValueError
        raise InputError(f"{path} cannot be read: {error}. {EXPORT_HINT}") from error
    content = found.item() if isinstance(found, np.ndarray) and found.shape == () else found
    if not isinstance(content, dict) or "masks" not in content:
        holds = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise InputError(
            f"{path} holds pickled objects ({holds}), and no “masks” of Cellpose among them. "
            "Save numbers alone with `np.save`, or the masks as TIFF."
        )
    masks = content["masks"]
    if not isinstance(masks, np.ndarray) or masks.dtype.kind not in "ui" or masks.ndim not in (2, 3):
        raise InputError(f"the masks in {path} are no array of integers in two or three dimensions. {EXPORT_HINT}")
    return masks


def _dtype(file: Any) -> np.dtype[Any]:
    version = np.lib.format.read_magic(file)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return np.dtype(reader(file)[2])


def read_png_or_jpeg(path: Path, stamp: str, cache: Path | None = None) -> OpenedFile:
    """Describe a PNG or JPEG from its header."""
    try:
        header = iio.improps(path, plugin="pillow")
    except (OSError, ValueError, SyntaxError) as error:
        reason = error.__cause__ or error
        if isinstance(reason, Image.DecompressionBombError):
            raise InputError(f"{path} is too large for a picture. Save it as TIFF with tiles, or as Zarr.") from error
        raise InputError(
            f"{path} cannot be read as a picture ({reason}). Is it complete, and does it open elsewhere?"
        ) from error
    whole = UndividedFile(path, stamp, tuple(header.shape), np.dtype(header.dtype), _decode)
    return OpenedFile(undivided_to_dask(whole, cache), "yxs" if len(header.shape) == 3 else "yx")


def _decode(path: Path) -> npt.NDArray[Any]:
    try:
        return np.asarray(iio.imread(path, plugin="pillow"))
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{path} cannot be decoded ({error}). It may be cut short: copy it again.") from error


@dataclass(frozen=True)
class NpySource:
    """Pixels of an ``.npy`` file. ``stamp`` changes when the file does."""

    path: Path
    stamp: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __getitem__(self, part: Any) -> npt.NDArray[Any]:
        return np.array(np.load(self.path, mmap_mode="r")[part])


def read_npy(path: Path, stamp: str, cache: Path | None = None) -> OpenedFile:
    """Describe an ``.npy`` file from its header, or the masks that Cellpose keeps in one."""
    if is_pickled_npy(path):
        return read_cellpose_seg(path, stamp, cache)
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as an array ({error}). Save it again with `np.save`.") from error
    return OpenedFile(to_dask(ReadGuard(NpySource(path, stamp, array.shape, array.dtype), path)))

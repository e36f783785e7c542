"""NumPy files (``.npy``), including ``*_seg.npy`` files of Cellpose.

Arrays are memory-mapped. The files of Cellpose are pickles, which `load_plain_pickle` reads without calling any
function that they name.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from svetlana_jupyter.core.io.sources import (
    FileSource,
    OpenedFile,
    ReadRequest,
    file_version,
    to_dask,
    undivided_to_dask,
)
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

CELLPOSE_HINT = "Save the masks as TIFF in Cellpose (File > Save masks as PNG/tif) and add that file instead."
MAX_PICKLE_BYTES = 16 * 2**30
MAX_GROWTH = 16  # bytes of memory per byte of a pickle; a pickled list of small integers needs 4
MAX_NAMES = 10_000  # functions and classes named by a pickle; the placeholder of each takes about 1 kB
COLLECTIONS: Mapping[str, Callable[[Any], Any]] = {
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "builtins.list": list,
    "builtins.bytes": bytes,
    "builtins.bytearray": bytes,
    "_codecs.encode": bytes,
    "collections.OrderedDict": dict,
}
PLAIN_DTYPE = re.compile(r"[bBhHiIlLqQefdgFD?]|[biufc]\d{1,2}|[SU]\d{1,6}")  # numbers and text


def read_npy(path: Path, request: ReadRequest) -> OpenedFile:
    """Open an ``.npy`` file, or the masks in a ``*_seg.npy`` file of Cellpose."""
    if _is_pickled(path):
        masks = _decode_masks(path)
        return OpenedFile(
            undivided_to_dask(path, masks.shape, masks.dtype, _decode_masks, request.cache), "zyx"[-masks.ndim :]
        )
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as an array ({error}). Save it again with `np.save`.") from error
    source = FileSource(path, file_version(path), array.shape, array.dtype, partial(_read_part, path))
    return OpenedFile(to_dask(source))


def _read_part(path: Path, part: Any) -> npt.NDArray[Any]:
    return np.array(np.load(path, mmap_mode="r")[part])


def _is_pickled(path: Path) -> bool:
    """Return whether an ``.npy`` file holds pickled objects instead of numbers."""
    try:
        with path.open("rb") as file:
            return _read_dtype(file).hasobject
    except (OSError, ValueError, EOFError):
        return False


def _read_dtype(file: BinaryIO) -> np.dtype[Any]:
    """Return the dtype that the header of an ``.npy`` file states."""
    version = np.lib.format.read_magic(file)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return np.dtype(reader(file)[2])


def _decode_masks(path: Path) -> npt.NDArray[Any]:
    return _cached_masks(path, file_version(path))


@lru_cache(maxsize=1)  # masks of the last file, which would otherwise be decoded again for each block
def _cached_masks(path: Path, file_version: str) -> npt.NDArray[Any]:
    try:
        with path.open("rb") as file:
            _read_dtype(file)
            content = load_plain_pickle(file)
    except (OSError, ValueError) as error:  # an InputError is a ValueError
        raise InputError(f"{path} cannot be read: {error}. {CELLPOSE_HINT}") from error
    if isinstance(content, np.ndarray) and content.shape == ():
        content = content.item()
    if not isinstance(content, dict) or "masks" not in content:
        keys = ", ".join(key for key in content if isinstance(key, str)) if isinstance(content, dict) else ""
        raise InputError(
            f"{path} holds pickled objects ({keys or type(content).__name__}), but not the “masks” of Cellpose. "
            "Save the masks as an array with `np.save`, or as TIFF."
        )
    masks = content["masks"]
    if not isinstance(masks, np.ndarray) or masks.dtype.kind not in "ui" or masks.ndim not in (2, 3):
        raise InputError(
            f"The masks in {path} are not an array of integers in two or three dimensions. {CELLPOSE_HINT}"
        )
    return np.asarray(masks)


class UnsupportedValue:
    """Placeholder for a value that could only be obtained by running code.

    The placeholder replaces a class or function that the pickle names. It accepts any calls, items and attributes, and
    ignores them.
    """

    name = "persistent object"

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Create the placeholder, whatever the arguments."""
        return super().__new__(cls)

    def __call__(self, *args: Any, **kwargs: Any) -> UnsupportedValue:
        """Return the placeholder itself, whatever the arguments."""
        return self

    def _ignore(self, *args: Any) -> None:
        pass

    # Without a `__setstate__` of its own, unpickling would set any attribute that the file names.
    __setstate__ = __setitem__ = append = extend = add = _ignore


def load_plain_pickle(stream: BinaryIO) -> Any:
    """Return the plain values of a pickle without running any code that it names.

    A pickle is a program that may call any function. Here, `pickle.Unpickler` gets constructors for NumPy arrays of
    numbers and for collections, and `UnsupportedValue` instead of every other function or class, which is never
    imported. The memory that the values take is limited by the size of the file; the time for hashing dictionary keys
    is not limited.

    Parameters
    ----------
    stream : seekable binary file
        File positioned at the beginning of the pickle.

    Returns
    -------
    object
        Numbers, text, bytes, lists, tuples, sets, dictionaries, read-only NumPy arrays, and `UnsupportedValue` in
        place of everything else.

    Raises
    ------
    InputError
        If the file is incomplete, is not a pickle, or claims to be larger than it is.

    Examples
    --------
    >>> load_plain_pickle(io.BytesIO(pickle.dumps({"masks": [1]})))
    {'masks': [1]}
    """
    start = stream.tell()
    size = stream.seek(0, io.SEEK_END) - start
    try:
        if size > MAX_PICKLE_BYTES:
            raise ValueError(f"pickle has {size:,} bytes, but the limit is {MAX_PICKLE_BYTES:,}")
        stream.seek(start)
        _check_instructions(stream, size)
        stream.seek(start)
        return _PlainUnpickler(stream, size).load()
    except Exception as error:  # each instruction fails in its own way if its operands are wrong
        raise InputError(f"the file is incomplete, or is not a pickle of plain values ({error!r:.200})") from error


def _check_instructions(stream: BinaryIO, size: int) -> None:
    """Raise an error for lengths and positions that exceed the size of a pickle.

    `pickle.Unpickler` would allocate the memory for them at once.
    """
    argument: Any
    for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        # The unpickler stores values by position in a table, which grows to twice the largest position.
        largest = {"PUT": number, "BINPUT": number, "LONG_BINPUT": number, "FRAME": size}.get(opcode.name)
        if largest is not None and not 0 <= int(argument) <= largest:
            raise ValueError(f"pickle instruction {opcode.name} has the argument {argument}, in a file of {size} bytes")


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, stream: BinaryIO, size: int) -> None:
        super().__init__(stream, encoding="latin1")  # Python 2 pickled the contents of arrays as text
        self._build = _Builder(MAX_GROWTH * size)
        self._named: dict[str, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return a constructor of plain values, or a placeholder for any other name."""
        path = f"{module.replace('__builtin__', 'builtins').replace('numpy.core.', 'numpy._core.')}.{name}"
        if path not in self._named:
            if len(self._named) >= MAX_NAMES:
                raise ValueError(f"the file names more than {MAX_NAMES} functions and classes")
            function = self._build.constructor(path)
            unsupported = type("UnsupportedValue", (UnsupportedValue,), {"name": path})
            self._named[path] = _Constructor(function) if function else unsupported
        return self._named[path]

    def persistent_load(self, pid: Any) -> UnsupportedValue:
        """Return a placeholder for an object that is stored elsewhere."""
        return UnsupportedValue()


class _Builder:
    """Constructors of plain values, with a common limit on memory.

    All values together take at most ``bytes_left`` bytes. The constructors hold no reference to the unpickler: in a
    reference cycle, the unpickler would stay in memory after use, with all values of the file.
    """

    def __init__(self, bytes_left: int) -> None:
        self._bytes_left = bytes_left

    def spend(self, nbytes: int) -> None:
        """Subtract bytes from the limit, and raise an error if it is exceeded.

        Without the limit, a small file could fill the memory by repeating its contents.
        """
        self._bytes_left -= nbytes
        if self._bytes_left < 0:
            raise ValueError(f"its values take more than {MAX_GROWTH} times the size of the file")

    def constructor(self, path: str) -> Callable[..., Any] | None:
        """Return the function that replaces a class or function named by the pickle."""
        if path in COLLECTIONS:
            return partial(self._collect, COLLECTIONS[path])
        if path.startswith("pathlib.") and path.endswith("Path"):
            return _join_path
        return {
            "numpy.dtype": _PickledDtype.from_code,
            "numpy._core.multiarray._reconstruct": self._start_array,
            "numpy._core.multiarray.scalar": self._build_scalar,
            "numpy._core.numeric._frombuffer": self._build_from_buffer,
        }.get(path)

    def _collect(self, kind: Callable[[Any], Any], items: Any = (), *_: Any) -> Any:
        if isinstance(items, str) and kind is bytes:
            items = items.encode("latin1")  # protocol 2 stores bytes as text
        if not isinstance(items, list | tuple | set | frozenset | dict | bytes | bytearray):
            # For example, `bytes(10**12)` would fill the memory.
            raise TypeError(f"collections of type {type(items).__name__} are not supported")
        self.spend(len(items) * (1 if kind is bytes else 8))
        return kind(items)

    def _start_array(self, kind: Any, *_: Any) -> Any:
        return _PickledArray.start(self) if getattr(kind, "name", "") == "numpy.ndarray" else UnsupportedValue()

    def _build_scalar(self, dtype: Any, content: Any = b"") -> Any:
        if not isinstance(dtype, _PickledDtype) or dtype.dtype.hasobject:
            return UnsupportedValue()
        return np.frombuffer(_to_bytes(content), dtype.dtype, 1)[0].item()

    def _build_from_buffer(self, content: Any, dtype: Any, shape: Any, order: Any) -> Any:
        array = _PickledArray.start(self)
        array.__setstate__((1, shape, dtype, order == "F", content))
        return array


class _Constructor:
    """Wrapper of a function that a pickle may call but not modify.

    Without the wrapper, a pickle could set attributes of the function.
    """

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise TypeError("a function has no state")


class _PickledDtype(UnsupportedValue):
    """Data type of numbers, text or objects; the pickle states its byte order later."""

    name = "dtype"
    dtype: np.dtype[Any]

    @classmethod
    def from_code(cls, code: Any, *_: Any) -> UnsupportedValue:
        text = code if isinstance(code, str) else ""
        if not PLAIN_DTYPE.fullmatch(text) and text not in ("O8", "O"):
            return UnsupportedValue()
        found = cls()
        found.dtype = np.dtype("O" if text.startswith("O") else text)
        return found

    def __setstate__(self, state: Any) -> None:
        _, order, *structure = state
        if any(structure[:3]):
            raise TypeError("structured dtypes are not supported")
        self.dtype = self.dtype.newbyteorder(order if order in ("<", ">") else "=")


class _PickledArray(np.ndarray[Any, Any]):
    """Array that checks the shape and contents that a pickle states.

    The array is empty until the pickle sets its state. NumPy itself would not check the shape.
    """

    builder: _Builder

    @classmethod
    def start(cls, builder: _Builder) -> _PickledArray:
        array = np.empty(0, np.uint8).view(cls)
        array.builder = builder
        return array

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, _PickledDtype):
            self.__class__ = _UnsupportedArray
            del self.builder
            return
        count = math.prod(shape)
        are_lengths = all(isinstance(side, int) and side >= 0 for side in shape)
        if not are_lengths or math.prod(max(1, side) for side in shape) > 2**62:
            raise ValueError(f"shape {shape!r:.100} is invalid")
        if dtype.dtype.hasobject:
            values, expected = content, count
            if not isinstance(content, list):
                raise TypeError("an array of objects needs a list")
        else:
            values, expected = _to_bytes(content), count * dtype.dtype.itemsize
        if len(values) != expected:
            raise ValueError(f"an array of shape {shape} has {len(values)} instead of {expected} bytes or objects")
        self.builder.spend(count * dtype.dtype.itemsize)
        checked: Any = (1, shape, dtype.dtype, bool(fortran), values)  # NumPy's type stubs require a NumPy bool
        super().__setstate__(checked)
        self.flags.writeable = False
        del self.builder

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TypeError("arrays are read-only")  # NumPy would expand nested lists without limit


class _UnsupportedArray(UnsupportedValue, _PickledArray):
    """Placeholder for an array with an unsupported dtype, such as a structured dtype."""

    name = "array"


def _to_bytes(content: Any) -> bytes:
    if isinstance(content, str):
        return content.encode("latin1")
    if not isinstance(content, bytes | bytearray):
        raise TypeError(f"array contents of type {type(content).__name__} are not supported")
    return bytes(content)


def _join_path(*parts: Any) -> str:
    if not all(isinstance(part, str) for part in parts):
        raise TypeError("the parts of a path must be text")
    return "/".join(parts).replace("//", "/")

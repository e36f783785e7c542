"""PNG, JPEG and NumPy's ``.npy`` files.

These include the pickled ``*_seg.npy`` files of Cellpose.

PNG and JPEG are decoded whole, ``.npy`` is read in place. Pickles are read by `load_plain_pickle`, which calls none of
the functions that they name.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import imageio.v3 as iio
import numpy as np
import numpy.typing as npt
from PIL import Image

from svetlana_jupyter.core.io.sources import FileSource, OpenedFile, file_version, to_dask, undivided_to_dask
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

CELLPOSE_HINT = "Save the masks as TIFF in Cellpose (File > Save masks as PNG/tif) and add that file instead."
MAX_PICKLE_BYTES = 16 * 2**30
MAX_GROWTH = 16  # bytes built per byte of a pickle: a pickled list of small integers needs 4
MAX_NAMES = 10_000  # of functions and classes; each becomes a class of its own, which takes about 1 kB
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


def read_png_or_jpeg(path: Path, cache: Path | None = None) -> OpenedFile:
    """Describe a PNG or JPEG from its header."""
    try:
        header = iio.improps(path, plugin="pillow")
    except (OSError, ValueError, SyntaxError) as error:
        reason = error.__cause__ or error
        if isinstance(reason, Image.DecompressionBombError):
            raise InputError(f"{path} is too large for PNG or JPEG. Save it as tiled TIFF or as Zarr.") from error
        raise InputError(
            f"{path} cannot be read as PNG or JPEG ({reason}). Check that the file is complete and opens elsewhere."
        ) from error
    pixels = undivided_to_dask(path, tuple(header.shape), np.dtype(header.dtype), _decode_picture, cache)
    return OpenedFile(pixels, "yxs" if pixels.ndim == 3 else "yx")


def _decode_picture(path: Path) -> npt.NDArray[Any]:
    try:
        return np.asarray(iio.imread(path, plugin="pillow"))
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{path} cannot be decoded ({error}). It may be incomplete: copy it again.") from error


def read_npy(path: Path, cache: Path | None = None) -> OpenedFile:
    """Describe an ``.npy`` file, or the masks of a ``*_seg.npy`` file of Cellpose."""
    if _is_pickled(path):
        masks = _decode_masks(path)
        return OpenedFile(undivided_to_dask(path, masks.shape, masks.dtype, _decode_masks, cache), "zyx"[-masks.ndim :])
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
    """Read the header of an ``.npy`` file, and return the dtype that it states."""
    version = np.lib.format.read_magic(file)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return np.dtype(reader(file)[2])


def _decode_masks(path: Path) -> npt.NDArray[Any]:
    return _cached_masks(path, file_version(path))


@lru_cache(maxsize=1)  # the masks of the file that is read at the moment: it is decoded whole for each block
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
        raise InputError(f"The masks in {path} are no array of integers in two or three dimensions. {CELLPOSE_HINT}")
    return np.asarray(masks)


class UnsupportedValue:
    """Placeholder for a value that only running code of a pickle would give.

    It takes the place of the class or function in the pickle: it can be called and filled, and ignores it.
    """

    name = "persistent object"

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Create the placeholder, whatever the arguments."""
        return super().__new__(cls)

    def __call__(self, *args: Any, **kwargs: Any) -> UnsupportedValue:
        """Return this value, whatever the arguments."""
        return self

    def _ignore(self, *args: Any) -> None:
        pass

    # Without a `__setstate__` of its own, unpickling would set any attribute that the file names.
    __setstate__ = __setitem__ = append = extend = add = _ignore


def load_plain_pickle(stream: BinaryIO) -> Any:
    """Return the plain values of a pickle without running anything that it names.

    A pickle is a program that may call any function. Here `pickle.Unpickler` is given constructors for NumPy arrays
    of numbers and for collections, and `UnsupportedValue` for every other name, which is not looked up. What a file
    makes this take in memory is bounded by its size; how long hashing its keys takes is not.

    Parameters
    ----------
    stream : seekable binary file
        At the beginning of the pickle.

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
    """Raise an error for lengths and positions beyond the file.

    `pickle.Unpickler` would reserve memory for these at once.
    """
    argument: Any
    for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        # The unpickler keeps values by position in a table that grows to twice the largest position.
        largest = {"PUT": number, "BINPUT": number, "LONG_BINPUT": number, "FRAME": size}.get(opcode.name)
        if largest is not None and not 0 <= int(argument) <= largest:
            raise ValueError(f"{opcode.name} {argument} in a file of {size} bytes")


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, stream: BinaryIO, size: int) -> None:
        super().__init__(stream, encoding="latin1")  # NumPy arrays of Python 2 are text
        self._build = _Builder(MAX_GROWTH * size)
        self._named: dict[str, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return a constructor of plain values, or a class of its own for any other name."""
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
    """Constructors of plain values with a common limit on memory.

    Together, they take no more than ``bytes_left`` bytes.

    They do not refer to the unpickler: it keeps all values of the file, and would outlive its use in a cycle.
    """

    def __init__(self, bytes_left: int) -> None:
        self._bytes_left = bytes_left

    def spend(self, nbytes: int) -> None:
        """Raise an error for a file that repeats its contents until they fill the memory."""
        self._bytes_left -= nbytes
        if self._bytes_left < 0:
            raise ValueError(f"its values take more than {MAX_GROWTH} times the size of the file")

    def constructor(self, path: str) -> Callable[..., Any] | None:
        """Return the function that stands for a class or function of the pickle."""
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
            items = items.encode("latin1")  # the form of bytes in protocol 2
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

    A function itself would accept attributes.
    """

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise TypeError("a function has no state")


class _PickledDtype(UnsupportedValue):
    """Data type of numbers, text or objects, whose byte order follows in the pickle."""

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
    """Array that waits for its contents and checks them.

    NumPy itself trusts the shape that a pickle states.
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
        checked: Any = (1, shape, dtype.dtype, bool(fortran), values)  # NumPy's types ask for a bool of its own
        super().__setstate__(checked)
        self.flags.writeable = False
        del self.builder

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TypeError("arrays are read-only")  # NumPy would expand nested lists without bound


class _UnsupportedArray(UnsupportedValue, _PickledArray):
    """Placeholder for an array of anything but numbers and text.

    An example is a structured array.
    """

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

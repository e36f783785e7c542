"""The plain values of a pickle, without unpickling it: nothing that a file says can run.

A pickle is a program for a machine with a stack. The standard library's machine calls whatever the file names; this one
only follows the instructions that build numbers, text, lists, tuples, sets, dictionaries and NumPy arrays of numbers.
Whatever else a file names is put down as `UnsupportedValue`, by its name, and never looked up. The instructions themselves are
decoded by ``pickletools``, which executes none.
"""

from __future__ import annotations

import pickletools
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

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
        Numbers, text, bytes, lists, tuples, sets, dictionaries, read-only NumPy arrays, and `UnsupportedValue` in place of
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
            value = _dtype(waiting.code, state) if waiting.kind == "dtype" else _array(*state)
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


def _dtype(code: str, state: Any) -> Any:
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

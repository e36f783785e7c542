"""Hash of an encoder: its code, and the values that it computes with."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Mapping
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

from svetlana_jupyter.learn.onnx_encoder import OnnxEncoder

MAX_DEPTH = 8  # of values within values; deeper ones count by their type alone
MAX_VALUES = 20_000


def encoder_digest(encoder: object) -> str:
    """Return a hash of an encoder.

    Two encoders have the same hash only if they have the same code, weights, settings, default arguments, and the same
    values from outside their function. Values of compiled code are not seen.
    """
    digest = _Digest()
    digest.add(encoder)
    return digest.text.hexdigest()[:16]


class _Digest:
    """Hash to which values are added."""

    def __init__(self) -> None:
        self.text = hashlib.sha256()
        self._known: dict[int, tuple[int, object]] = {}  # with the object, whose identity must not be given away

    def add(self, value: Any, depth: int = 0) -> None:
        """Add a value with all values within it."""
        self.text.update(f"<{type(value).__module__}.{type(value).__qualname__}>".encode())
        if isinstance(value, str | bytes | int | float | complex | None):
            self.text.update(repr(value).encode())
            return
        if isinstance(value, type | ModuleType):
            self.text.update(f"{getattr(value, '__module__', '')}.{value.__name__}".encode())
            return
        known = self._known.get(id(value))
        if known is not None or depth > MAX_DEPTH or len(self._known) > MAX_VALUES:
            self.text.update(b"" if known is None else str(known[0]).encode())
            return
        self._known[id(value)] = len(self._known), value
        for part in self._parts(value):
            self.add(part, depth + 1)

    def _parts(self, value: Any) -> list[Any]:
        """Return what a value consists of; add numbers at once."""
        match value:
            case OnnxEncoder():
                return [value.content]
            case torch.nn.Module():
                return [_source(type(value)), *_attributes(value), *value.named_parameters(recurse=False)] + [
                    part for each in (value.named_buffers(recurse=False), value.named_children()) for part in each
                ]
            case torch.Tensor():
                return [str(value.dtype), value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()]
            case np.ndarray() if value.dtype != object:
                self.text.update(f"{value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes())
                return []
            case np.generic():
                return [value.item()]
            case functools.partial():
                return [value.func, value.args, value.keywords]
            case MethodType():
                return [value.__func__, value.__self__]
            case FunctionType():
                return [_source(value), value.__defaults__, value.__kwdefaults__, *_outside(value)]
            case Mapping():
                return [part for pair in value.items() for part in pair]
            case list() | tuple():
                return list(value)
            case set() | frozenset():
                return sorted(value, key=repr)
            case _:
                return [_source(type(value)), getattr(value, "__qualname__", ""), getattr(value, "__dict__", {})]


def _outside(function: FunctionType) -> list[Any]:
    """Return the values that a function uses from outside; installed ones are fixed."""
    if "site-packages" in function.__code__.co_filename:
        return [cell.cell_contents for cell in function.__closure__ or () if not _is_empty(cell)]
    try:
        found = inspect.getclosurevars(function)
    except (ValueError, TypeError):  # a variable that has no value yet
        return []
    return [found.nonlocals, found.globals]


def _is_empty(cell: CellType) -> bool:
    try:
        return cell.cell_contents is cell
    except ValueError:
        return True


def _attributes(module: torch.nn.Module) -> list[Any]:
    """Return the attributes of a module that are no parts of torch."""
    own = {name: value for name, value in vars(module).items() if not name.startswith("_") and name != "training"}
    return [own, type(module).__module__ + type(module).__qualname__]


def _source(value: Any) -> str:
    """Return the source of a function or class, or else its compiled code."""
    if (getattr(value, "__module__", "") or "").partition(".")[0] in ("torch", "builtins", "numpy"):
        return ""
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):  # typed into a console, or compiled
        functions = [value, *vars(value).values()] if isinstance(value, type) else [value]
        return "".join(_code(each.__code__) for each in functions if isinstance(each, FunctionType))


def _code(code: CodeType) -> str:
    constants = [_code(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"

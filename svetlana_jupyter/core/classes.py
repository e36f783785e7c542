"""The classes of a project: stable ids with a name, a colour and a key that may change."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from svetlana_jupyter.errors import InputError

# Okabe and Ito's palette without black (told apart with any colour vision), then Paul Tol's "muted" scheme.
PALETTE = (
    "#e69f00",
    "#56b4e9",
    "#cc79a7",
    "#009e73",
    "#f0e442",
    "#d55e00",
    "#0072b2",
    "#882255",
    "#44aa99",
    "#999933",
    "#aa4499",
    "#88ccee",
)


@dataclass(frozen=True)
class ClassInfo:
    """One class.

    Parameters
    ----------
    id : int
        1 or more; never reused, so annotations need no rewriting when a class is renamed.
    name : str
    color : str
        ``"#rrggbb"``.
    key : str
        The key that labels an object with this class: ``"1"`` to ``"9"``, or ``""`` from the tenth class on.
    """

    id: int
    name: str
    color: str
    key: str


class Classes:
    """An ordered, immutable set of classes, found by id or by name.

    >>> classes = Classes().adding(["resting", "active"])
    >>> classes.names
    ('resting', 'active')
    >>> classes.by_name("active").key
    '2'
    """

    def __init__(self, infos: Iterable[ClassInfo] = ()) -> None:
        self._infos = tuple(infos)
        self._by_id = {info.id: info for info in self._infos}
        self._by_name = {info.name: info for info in self._infos}

    def __iter__(self) -> Iterator[ClassInfo]:
        return iter(self._infos)

    def __len__(self) -> int:
        return len(self._infos)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Classes) and self._infos == other._infos

    def __hash__(self) -> int:
        return hash(self._infos)

    def __repr__(self) -> str:
        return f"Classes({', '.join(map(repr, self.names))})"

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(self._by_id)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._by_name)

    def by_id(self, id: int) -> ClassInfo:
        """Return the class with this id; an `InputError` if there is none."""
        if id not in self._by_id:
            raise InputError(f"there is no class with the id {id}; the classes are {self._listed()}.")
        return self._by_id[id]

    def by_name(self, name: str) -> ClassInfo:
        """Return the class with this name; an `InputError` that lists the names if there is none."""
        if name not in self._by_name:
            raise InputError(
                f"there is no class {name!r}; the classes are {self._listed()}. "
                f"Add it with project.add_class({name!r})."
            )
        return self._by_name[name]

    def by_key(self, key: str) -> ClassInfo | None:
        """Return the class that this key labels with, if any."""
        return next((info for info in self._infos if info.key and info.key == key), None)

    def adding(self, names: Iterable[str], color: str | None = None) -> Classes:
        """Return these classes and, behind them, those of ``names`` that are new; none is ever dropped."""
        names = list(names)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"class names must differ, but {', '.join(map(repr, twice))} was given more than once.")
        infos = list(self._infos)
        for name in names:
            check_name(name)
            if name in self._by_name:
                continue
            position = len(infos)
            infos.append(
                ClassInfo(
                    id=max((info.id for info in infos), default=0) + 1,
                    name=name,
                    color=check_color(color) if color else PALETTE[position % len(PALETTE)],
                    key=str(position + 1) if position < 9 else "",
                )
            )
        return Classes(infos)

    def renaming(self, old: str, new: str) -> Classes:
        """Return these classes with one renamed; its id, colour and key stay."""
        info = self.by_name(old)
        check_name(new)
        if new != old and new in self._by_name:
            raise InputError(f"there is a class {new!r} already; choose another name.")
        return self._replacing(replace(info, name=new))

    def recoloring(self, name: str, color: str) -> Classes:
        """Return these classes with one in another colour."""
        return self._replacing(replace(self.by_name(name), color=check_color(color)))

    def _replacing(self, info: ClassInfo) -> Classes:
        return Classes(info if old.id == info.id else old for old in self._infos)

    def _listed(self) -> str:
        return ", ".join(map(repr, self.names)) or "none yet"


def check_name(name: str) -> None:
    """Refuse what cannot name a class: anything but text, or text without a visible character."""
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"a class name must be text with at least one visible character, got {name!r}.")


def check_color(color: str) -> str:
    """Return ``color`` in lower case; an `InputError` if it is not ``#rrggbb``."""
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", color):
        raise InputError(f"a colour must look like '#e69f00', got {color!r}.")
    return color.lower()

"""The classes of a project: stable ids with a name, a colour and a key that may change."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
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

# Digits, then letters that are where a hand rests, on every keyboard, and that no command of a panel uses. Not Shift
# and a digit: what that types differs from country to country, and in France it is the digit.
KEYS = "1234567890qwtyhjk"


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
        The key that labels an object with this class, one of `KEYS`; ``""`` once these are used up.
    into : int
        The class that this one was merged into, 0 for none. What was said with a merged class counts as the other one.
    """

    id: int
    name: str
    color: str
    key: str
    into: int = 0


class ClassScheme:
    """An ordered, immutable set of classes, found by id or by name.

    A class that was merged into another is found as that other one, by its own id and name.

    >>> classes = ClassScheme().adding(["resting", "active"])
    >>> classes.names
    ('resting', 'active')
    >>> classes.by_name("active").key
    '2'
    >>> classes.with_merged("active", "resting").by_id(2).name
    'resting'

    Attributes
    ----------
    infos : tuple of ClassInfo
        Those that were merged as well.
    """

    def __init__(self, infos: Iterable[ClassInfo] = ()) -> None:
        self.infos = tuple(infos)
        self._standing = tuple(info for info in self.infos if not info.into)
        own = {info.id: info for info in self.infos}
        self._by_id = {info.id: _followed(info, own) for info in self.infos}
        self._by_name = {info.name: self._by_id[info.id] for info in self.infos}

    def __iter__(self) -> Iterator[ClassInfo]:
        return iter(self._standing)

    def __len__(self) -> int:
        return len(self._standing)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClassScheme) and self.infos == other.infos

    def __hash__(self) -> int:
        return hash(self.infos)

    def __repr__(self) -> str:
        return f"Classes({', '.join(map(repr, self.names))})"

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(info.id for info in self)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(info.name for info in self)

    @property
    def merged(self) -> Mapping[int, int]:
        """For each class that was merged, the id of the class that it counts as."""
        return {info.id: self._by_id[info.id].id for info in self.infos if info.into}

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
                f"Add it with project.classes.add({name!r})."
            )
        return self._by_name[name]

    def by_shortcut(self, key: str) -> ClassInfo | None:
        """Return the class that this key labels with, if any."""
        return next((info for info in self if info.key and info.key == key), None)

    def adding(self, names: Iterable[str], color: str | None = None) -> ClassScheme:
        """Return these classes and, behind them, those of ``names`` that are new; none is ever dropped.

        A class that was merged stays so: what is run again does not bring it back.
        """
        names = list(names)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"class names must differ, but {', '.join(map(repr, twice))} was given more than once.")
        infos = list(self.infos)
        for name in names:
            check_class_name(name)
            if name in self._by_name:
                continue
            infos.append(
                ClassInfo(
                    id=max((info.id for info in infos), default=0) + 1,
                    name=name,
                    color=check_color(color) if color else PALETTE[len(infos) % len(PALETTE)],
                    key=_free_key(infos),
                )
            )
        return ClassScheme(infos)

    def with_renamed(self, old: str, new: str) -> ClassScheme:
        """Return these classes with one renamed; its id, colour and key stay."""
        info = self._own(old)
        check_class_name(new)
        if new != old and new in self._by_name:
            raise InputError(f"there is a class {new!r} already; choose another name.")
        return self._replacing(replace(info, name=new))

    def with_recolored(self, name: str, color: str) -> ClassScheme:
        """Return these classes with one in another colour."""
        return self._replacing(replace(self._own(name), color=check_color(color)))

    def with_merged(self, name: str, into: str) -> ClassScheme:
        """Return these classes with one that counts as another from now on; its key is free."""
        info, other = self._own(name), self.by_name(into)
        if info == other:
            raise InputError(f"{name!r} and {into!r} count as one class already; choose two that differ.")
        return self._replacing(replace(info, key="", into=other.id))

    def with_unmerged(self, name: str) -> ClassScheme:
        """Return these classes with one that was merged standing for itself again."""
        info = next((info for info in self.infos if info.name == name and info.into), None)
        if info is None:
            merged = ", ".join(repr(info.name) for info in self.infos if info.into) or "none"
            raise InputError(f"{name!r} was not merged into another class; those that were are {merged}.")
        return self._replacing(replace(info, key=_free_key(self.infos), into=0))

    def _own(self, name: str) -> ClassInfo:
        info = self.by_name(name)
        if info.name != name:
            raise InputError(f"{name!r} was merged into {info.name!r}; split it off first, or name that one.")
        return info

    def _replacing(self, info: ClassInfo) -> ClassScheme:
        return ClassScheme(info if old.id == info.id else old for old in self.infos)

    def _listed(self) -> str:
        return ", ".join(map(repr, self.names)) or "none yet"


def _followed(info: ClassInfo, by_id: Mapping[int, ClassInfo]) -> ClassInfo:
    while info.into:
        info = by_id[info.into]
    return info


def _free_key(infos: Iterable[ClassInfo]) -> str:
    taken = {info.key for info in infos}
    return next((key for key in KEYS if key not in taken), "")


def check_class_name(name: str) -> None:
    """Refuse what cannot name a class: anything but text, or text without a visible character."""
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"a class name must be text with at least one visible character, got {name!r}.")


def check_color(color: str) -> str:
    """Return ``color`` in lower case; an `InputError` if it is not ``#rrggbb``."""
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", color):
        raise InputError(f"a colour must look like '#e69f00', got {color!r}.")
    return color.lower()

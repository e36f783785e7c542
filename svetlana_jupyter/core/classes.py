"""Class scheme of a project.

The id of a class is permanent; its name, color and shortcut key may change. Names are stored in Unicode NFC and without
surrounding blanks.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Okabe and Ito's palette without black (distinguishable with any color vision), then Paul Tol's "muted" scheme.
PALETTE = (
    *("#e69f00", "#56b4e9", "#cc79a7", "#009e73", "#f0e442", "#d55e00", "#0072b2"),
    *("#882255", "#44aa99", "#999933", "#aa4499", "#88ccee"),
)

# Digits, then letters that are near the resting hand on every keyboard and that no panel uses for a command. Shift with
# a digit is not used: its character differs between keyboard layouts, and on French ones it is the digit itself.
SHORTCUT_KEYS = "1234567890qwtyhjk"

_INVISIBLE_LETTERS = "\u115f\u1160\u2800\u3164\uffa0"  # fillers of Hangul, and the empty Braille pattern


@dataclass(frozen=True)
class ClassInfo:
    """Class of a project.

    Parameters
    ----------
    id : int
        1 or more. Ids are permanent and never reused, so annotations stay valid when a class is renamed.
    name : str
    color : str
        ``"#rrggbb"``.
    key : str
        Key that labels an object with this class, one of `SHORTCUT_KEYS`; ``""`` once all keys are used up.
    into : int
        Id of the class that this class was merged into, 0 for none. Annotations of a merged class count for that class.
    """

    id: int
    name: str
    color: str
    key: str
    into: int = 0


@dataclass(frozen=True, repr=False)
class ClassScheme:
    """Ordered, immutable set of classes, looked up by id or name.

    Looking up a merged class by its id or name returns the class that it was merged into.

    >>> classes = ClassScheme().with_added(["resting", "active"])
    >>> classes.names
    ('resting', 'active')
    >>> classes.by_name("active").key
    '2'
    >>> classes.with_merged("active", "resting").by_id(2).name
    'resting'

    Attributes
    ----------
    infos : tuple of ClassInfo
        All classes, including merged ones.
    last_id : int
        Highest id of a deleted class, 0 for none.
    """

    infos: tuple[ClassInfo, ...] = ()
    last_id: int = 0

    @cached_property
    def _by_id(self) -> dict[int, ClassInfo]:
        by_id = {info.id: info for info in self.infos}
        for class_id in by_id:
            while into := by_id[class_id].into:
                by_id[class_id] = by_id[into]
        return by_id

    @cached_property
    def _by_name(self) -> dict[str, ClassInfo]:
        exact = {info.name: self._by_id[info.id] for info in self.infos}
        return {unicodedata.normalize("NFC", name): info for name, info in exact.items()} | exact

    def __iter__(self) -> Iterator[ClassInfo]:
        return (info for info in self.infos if not info.into)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"ClassScheme({', '.join(map(repr, self.names))})"

    @property
    def ids(self) -> tuple[int, ...]:
        """Ids of the classes that are not merged."""
        return tuple(info.id for info in self)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes that are not merged."""
        return tuple(info.name for info in self)

    @property
    def merged(self) -> Mapping[int, int]:
        """Ids of the merged classes, mapped to the ids of the classes that they count as."""
        return {info.id: self._by_id[info.id].id for info in self.infos if info.into}

    def by_id(self, class_id: int) -> ClassInfo:
        """Return the class with this id; raise an `InputError` if there is none."""
        if class_id not in self._by_id:
            raise InputError(f"There is no class with id {class_id}. The classes are {self._list_names()}.")
        return self._by_id[class_id]

    def by_name(self, name: str) -> ClassInfo:
        """Return the class with this name; raise an `InputError` if there is none."""
        if not isinstance(name, str):
            raise InputError(f"{name!r} is not the name of a class. Pass one of {self._list_names()}.")
        info = self._by_name.get(name) or self._by_name.get(unicodedata.normalize("NFC", name))
        if info is None:
            raise InputError(
                f"There is no class {name!r}. The classes are {self._list_names()}. "
                f"Add it with project.classes.add({name!r})."
            )
        return info

    def by_shortcut(self, key: str) -> ClassInfo | None:
        """Return the class of a shortcut key, or None."""
        return next((info for info in self if info.key and info.key == key), None)

    def with_added(self, names: Iterable[str], color: str | None = None) -> ClassScheme:
        """Return a copy with a new class for each name that is not used yet.

        A merged class stays merged, so that running a notebook again does not separate it.
        """
        if isinstance(names, str):
            raise InputError(f"Expected a list of class names, got the text {names!r}. Pass [{names!r}].")
        if not isinstance(names, Iterable):
            raise InputError(f"Expected a list of class names, got {names!r}. Pass a list such as ['dim', 'bright'].")
        names = [check_class_name(name) for name in names]
        duplicates = ", ".join(sorted({repr(name) for name in names if names.count(name) > 1}))
        if duplicates:
            raise InputError(f"Class names must differ, but {duplicates} was given more than once.")
        infos = self.infos
        for name in names:
            if name not in self._by_name:
                new_id = max(self.last_id, *(info.id for info in infos), 0) + 1
                shown = check_color(color) if color else PALETTE[len(infos) % len(PALETTE)]
                infos += (ClassInfo(new_id, name, shown, _free_key(infos)),)
        return replace(self, infos=infos)

    def with_renamed(self, old: str, new: str) -> ClassScheme:
        """Return a copy with one class renamed; its id, color and key stay the same."""
        info = self._own(old)
        new = check_class_name(new)
        if any(unicodedata.normalize("NFC", other.name) == new for other in self.infos if other.id != info.id):
            raise InputError(f"There is a class {new!r} already. Choose another name.")
        return self._with_replaced(replace(info, name=new))

    def with_recolored(self, name: str, color: str) -> ClassScheme:
        """Return a copy with one class in another color."""
        return self._with_replaced(replace(self._own(name), color=check_color(color)))

    def with_merged(self, name: str, into: str) -> ClassScheme:
        """Return a copy in which a class is merged into another; its key becomes free."""
        info, other = self._own(name), self.by_name(into)
        if info == other:
            raise InputError(f"{name!r} and {into!r} count as one class already. Choose two different classes.")
        return self._with_replaced(replace(info, key="", into=other.id))

    def with_unmerged(self, name: str) -> ClassScheme:
        """Return a copy in which a merged class is a separate class again."""
        merged = {info.name: info for info in self.infos if info.into}
        if name not in merged:
            names = ", ".join(map(repr, merged)) or "none"
            raise InputError(f"{name!r} was not merged into another class. Merged classes: {names}.")
        return self._with_replaced(replace(merged[name], key=_free_key(self.infos), into=0))

    def with_deleted(self, name: str) -> ClassScheme:
        """Return a copy without a class, whose id is never used again."""
        info = self._own(name)
        if merged := [repr(other.name) for other in self.infos if other.into == info.id]:
            raise InputError(
                f"{', '.join(merged)} counts as {name!r}, so {name!r} cannot be deleted. Separate it first with "
                f"project.classes.split({merged[0]})."
            )
        kept = tuple(other for other in self.infos if other != info)
        return ClassScheme(kept, max(self.last_id, info.id))

    def _own(self, name: str) -> ClassInfo:
        info = self.by_name(name)
        if info.name not in (name, unicodedata.normalize("NFC", name)):
            raise InputError(f"{name!r} was merged into {info.name!r}. Separate it first, or use {info.name!r}.")
        return info

    def _with_replaced(self, info: ClassInfo) -> ClassScheme:
        return replace(self, infos=tuple(info if old.id == info.id else old for old in self.infos))

    def _list_names(self) -> str:
        return ", ".join(map(repr, self.names)) or "none yet"


def _free_key(infos: Iterable[ClassInfo]) -> str:
    taken = {info.key for info in infos}
    return next((key for key in SHORTCUT_KEYS if key not in taken), "")


def check_class_name(name: str) -> str:
    """Return a class name as it is stored.

    Raise an `InputError` if it is not text, has no visible character, or has line breaks, which would break tables.
    """
    if not isinstance(name, str) or not any(
        unicodedata.category(c)[0] not in "ZC" and c not in _INVISIBLE_LETTERS for c in name
    ):
        raise InputError(f"Class name {name!r} is not valid. Give text with at least one visible character.")
    name = unicodedata.normalize("NFC", name).strip()
    if any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in name):
        raise InputError(f"Class name {name!r} is not valid. Give text without line breaks or tabs.")
    return name


def check_color(color: str) -> str:
    """Return ``color`` in lower case; raise an `InputError` if it is not ``#rrggbb``."""
    if not isinstance(color, str) or not re.fullmatch(r"#[0-9a-fA-F]{6}", color):
        raise InputError(f"Color {color!r} is not valid. Give it as '#rrggbb', such as '#e69f00'.")
    return color.lower()


def resembles(name: str, other: str) -> bool:
    """Return whether a name may be a misspelling of another name.

    The two differ in case, or by one letter or two neighboring letters in one word of at least five letters. Digits,
    signs and single letters distinguish names.

    >>> [resembles(*pair) for pair in (("tumro", "tumor"), ("CD8+", "CD8-"), ("type A", "type B"))]
    [True, False, False]
    """
    words, others = (re.findall(r"[^\W\d_]+|.", text.casefold()) for text in (name, other))
    if len(words) != len(others):
        return False
    different = [pair for pair in zip(words, others) if pair[0] != pair[1]]
    return not different or (len(different) == 1 and _is_one_typo(*different[0]))


def _is_one_typo(word: str, other: str) -> bool:
    short, long = sorted((word, other), key=len)
    if len(long) < 5 or len(long) - len(short) > 1 or not (short + long).isalpha():
        return False
    same = next((i for i, (a, b) in enumerate(zip(short, long)) if a != b), len(short))
    if len(short) < len(long):
        return short[same:] == long[same + 1 :]
    swapped = short[same + 1 : same + 2] + short[same : same + 1] + short[same + 2 :]
    return short[same + 1 :] == long[same + 1 :] or swapped == long[same:]

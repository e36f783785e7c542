"""Classes of a project, which are saved in ``project.json``."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from svetlana_jupyter.core.classes import ClassInfo, ClassScheme, resembles
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from svetlana_jupyter.project.storage import Notify, ProjectFolder


class ProjectClasses:
    """Classes with stable ids, names, colors and keys; every edit is saved at once.

    The object can be read like a `ClassScheme`. Use the frozen `scheme` to store the classes, to compare them by
    identity or to pass them to another thread.

    Attributes
    ----------
    scheme : ClassScheme
        The current classes as an immutable object.
    on_edit : callable
        Called after every edit, inside the lock of the folder and before observers are notified.
    find_use : callable
        Returns a sentence about the labels and runs that need the class with an id, "" without any.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, folder: ProjectFolder, notify: Notify) -> None:
        self._folder, self._notify = folder, notify
        self.scheme = _from_json(folder.read_document())
        self.on_edit: Callable[[], None] = lambda: None
        self.find_use: Callable[[int], str] = lambda class_id: ""

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids of the classes that are not merged into another class."""
        return self.scheme.ids

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes that are not merged into another class."""
        return self.scheme.names

    @property
    def infos(self) -> tuple[ClassInfo, ...]:
        """All classes, including classes merged into another class."""
        return self.scheme.infos

    @property
    def merged(self) -> Mapping[int, int]:
        """Mapping from the id of each merged class to the id of its target class."""
        return self.scheme.merged

    def by_id(self, class_id: int) -> ClassInfo:
        """Return the class with the given id."""
        return self.scheme.by_id(class_id)

    def by_name(self, name: str) -> ClassInfo:
        """Return the class with the given name."""
        return self.scheme.by_name(name)

    def by_shortcut(self, key: str) -> ClassInfo | None:
        """Return the class that is assigned to a keyboard key, or None."""
        return self.scheme.by_shortcut(key)

    def __iter__(self) -> Iterator[ClassInfo]:
        return iter(self.scheme)

    def __len__(self) -> int:
        return len(self.scheme)

    def __contains__(self, name: object) -> bool:
        return name in self.scheme.names

    def __eq__(self, other: object) -> bool:
        return self.scheme == (other.scheme if isinstance(other, ProjectClasses) else other)

    def __repr__(self) -> str:
        return repr(self.scheme)

    def add(self, name: str, color: str | None = None) -> None:
        """Add a class; an existing class of that name stays unchanged."""
        if name in {info.name for info in self.infos if info.into}:
            raise InputError(
                f"Class {name!r} was merged into {self.by_name(name).name!r}. Separate it again with "
                f"project.classes.split({name!r}), or choose another name."
            )
        self._edit(lambda scheme: scheme.with_added([name], color))

    def extend(self, names: Iterable[str]) -> None:
        """Add the missing classes, and report them if the project has others.

        Raises
        ------
        InputError
            If a new name looks like a misspelling of an existing one; nothing is changed then.
        """
        before = self.names
        added = [name for name in self.scheme.with_added(names).names if name not in before]
        for name in added:
            if alike := [other for other in before if resembles(name, other)]:
                raise InputError(
                    f"The project has a class {alike[0]!r}, of which {name!r} may be a misspelling. Pass "
                    f"{alike[0]!r}, or add the other class with project.classes.add({name!r})."
                )
        if added:
            self._edit(lambda scheme: scheme.with_added(added))
        if added and before:
            self._notify.status(
                f"Added {', '.join(map(repr, added))} to the classes {', '.join(map(repr, before))}. "
                f"To take it back, call project.classes.delete({added[0]!r})."
            )

    def rename(self, old: str, new: str) -> None:
        """Rename a class, which keeps its annotations and predictions."""
        self._edit(lambda scheme: scheme.with_renamed(old, new))

    def delete(self, name: str) -> None:
        """Delete a class that was never used; `add` creates it again.

        Raises
        ------
        InputError
            If the class has labels, undo can bring back its labels, or a run was trained with it.
        """
        self.scheme.with_deleted(name)  # raises for an unknown or merged class
        with self._folder.lock:
            if use := self.find_use(self.by_name(name).id):
                raise InputError(
                    f"{use} Merge it into another class instead: project.classes.merge({name!r}, into=...)."
                )
            self._edit(lambda scheme: scheme.with_deleted(name))
        self._notify.status(f"Deleted the class {name}, which no label needs.")

    def recolor(self, name: str, color: str) -> None:
        """Change the color of a class, which is given as ``"#rrggbb"``."""
        self._edit(lambda scheme: scheme.with_recolored(name, color))

    def merge(self, name: str, into: str) -> None:
        """Merge a class into another class, in all annotations and predictions.

        The merge applies to existing and future annotations and predictions. No annotation is rewritten: the merged
        class stays in ``project.json``, and `split` separates it again. Undo and redo apply to annotations only, so
        they do not revert a merge.
        """
        self._edit(lambda scheme: scheme.with_merged(name, into))
        self._notify.status(f"{name} now counts as {self.by_name(into).name}.")

    def split(self, name: str) -> None:
        """Separate a merged class again, with the annotations that were made with it."""
        self._edit(lambda scheme: scheme.with_unmerged(name))
        self._notify.status(f"{name} is a separate class again.")

    def reload(self) -> None:
        """Read the classes again, after another `Project` object has changed them."""
        with self._folder.lock:
            self.scheme = _from_json(self._folder.read_document())
            self.on_edit()
        self._notify.changed("classes")

    def _edit(self, edit: Callable[[ClassScheme], ClassScheme]) -> None:
        with self._folder.lock:
            with self._folder.edit_document() as document:
                scheme = edit(_from_json(document))
                document["classes"] = [_to_json(info) for info in scheme.infos]
                if scheme.last_id:
                    document["last_class_id"] = scheme.last_id
            self.scheme = scheme
            self.on_edit()
        self._notify.changed("classes")


def _from_json(document: Mapping[str, Any]) -> ClassScheme:
    names = [field.name for field in fields(ClassInfo)]
    infos = (ClassInfo(**{name: info[name] for name in names if name in info}) for info in document["classes"])
    return ClassScheme(tuple(infos), document.get("last_class_id", 0))


def _to_json(info: ClassInfo) -> dict[str, Any]:
    """Return a class as written to ``project.json``.

    ``into`` is written for merged classes only.
    """
    return {key: value for key, value in vars(info).items() if key != "into" or value}

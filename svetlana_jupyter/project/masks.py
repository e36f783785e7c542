"""Segmentations that change under the annotations of a project: what would become of them, and the change itself."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from pathlib import Path

import pandas as pd

from svetlana_jupyter.core.annotations import ObjectId
from svetlana_jupyter.core.images import fingerprint
from svetlana_jupyter.project.catalog import Source
from svetlana_jupyter.project.imports import Imports
from svetlana_jupyter.project.replacement import STATUSES, Match, in_words, match_masks, save_mask, status_table


class Masks(Imports):
    """A `Dataset` whose images can be given other masks."""

    def __init__(self, path: str | Path, classes: Iterable[str] | None = None, annotator: str | None = None) -> None:
        super().__init__(path, classes, annotator)
        self._matched: tuple[Hashable, Match] | None = None

    def check_mask(self, name: str, mask: Source) -> pd.DataFrame:
        """Return what `replace_mask` would do with the annotations of an image; nothing changes.

        May be called on any thread. A `replace_mask` with the same mask right behind it has little left to do.

        Parameters
        ----------
        name : str
        mask : path or array

        Returns
        -------
        DataFrame
            As of `replace_mask`, without ``carried``.

        Raises
        ------
        InputError
            If the mask cannot be used.
        """
        return status_table(self._match(name, mask), self._said_in(name))

    def replace_mask(self, name: str, mask: Source) -> pd.DataFrame:
        """Give an image another segmentation; annotations go over to the objects that took the place of theirs.

        Nothing is deleted: the log stays as it is, with undo and redo, and so do the old mask and the predictions made
        on it, which are of other objects and no longer shown. An object takes over an annotation that more than half
        of it had, by the pixels it shares with old objects; of objects with different annotations that became one,
        none does. Where the old mask can no longer be read (its file was overwritten), the boxes that are kept with
        each annotation are compared instead.

        Parameters
        ----------
        name : str
        mask : path or array
            Of the same shape. A file is read where it lies, an array is copied into the project, outlines (GeoJSON) are
            drawn there.

        Returns
        -------
        DataFrame
            One row an annotated object, indexed by its old number: ``class``; ``fate`` ("kept", "moved" to another
            number, "split" into several, "merged" with others, "lost"); ``new`` (the objects in its place); ``share``
            (how much of it lies in them); ``carried`` (those of them that have its annotation now).
            ``attrs["matched_by"]`` is "pixels" or "boxes".

        Raises
        ------
        InputError
            If the mask cannot be used; then nothing has changed.
        """
        with self._lock:
            self._check_idle()
            self._store.check_writable()
            before = self._said_in(name)
            match = self._match(name, mask)
            if match.opened is not None:
                save_mask(self._store, self._catalog, match)
                self._matched = None
                self._read_again()
            report = status_table(match, before)
            after = self._said_in(name)
        report["carried"] = [
            tuple(one for one in new if after.get(one) == said) for new, said in zip(report["new"], report["class"])
        ]
        counts = report["fate"].value_counts()
        said = ", ".join(f"{counts[fate]} {fate}" for fate in STATUSES if fate in counts)
        self.status = f"{name} has a new mask. Annotated objects: {said or 'none'}"
        return report

    def _match(self, name: str, mask: Source) -> Match:
        """Return how the objects of a mask follow those of an image, looked into once."""
        entry = self._catalog.entry(name)
        key = entry, fingerprint(mask), self.annotations_version
        if self._matched is None or self._matched[0] != key:
            ids = [ObjectId(name, object) for object in self._said_in(name)]
            logs = list(self._labelling.logs.values())
            self._matched = key, match_masks(self._store, self._catalog, name, mask, ids, logs)
        return self._matched[1]

    def _said_in(self, name: str) -> dict[int, str]:
        """Return what stands for the objects of an image, as a class or a mark; what was only skipped is left out."""
        return in_words(dict(self._labelling.labels), name, dict(zip(self.classes.ids, self.classes.names)))

"""Held-out test set: random objects that are used only to measure accuracy.

The test set is written to a file of the project when it is drawn. Its objects are never used for training. The
prediction of each object is hidden until the object is annotated, so that it does not bias the annotator.
"""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from svetlana_jupyter.core.annotations import ObjectId, VersionedObjectId
from svetlana_jupyter.core.io.bounded_files import parse_json
from svetlana_jupyter.core.io.table_files import escape_formula, unescape_formula
from svetlana_jupyter.errors import InputError, ProjectError
from svetlana_jupyter.project.annotation_store import Annotations, object_index
from svetlana_jupyter.project.file_access import read_csv_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from svetlana_jupyter.project.image_collection import ImageCollection
    from svetlana_jupyter.project.storage import Notify, ProjectFolder

CSV_COLUMNS = ["drawn", "n", "per", "seed", "image", "object", "mask", "stands_for"]
# Accuracy is reported only if at least this number of objects is labeled and this fraction of the sample is annotated:
# otherwise, objects that are easy to annotate would be overrepresented.
MIN_ANNOTATED, MIN_ANNOTATED_FRACTION = 20, 0.8

SamplingFrame = tuple[str, int, "NDArray[np.int64]"]  # an image, the number of its mask, and objects to draw from


@dataclass(frozen=True)
class TestSetSample:
    """Random sample of objects that forms a held-out test set.

    Attributes
    ----------
    time : str
        Time of drawing (UTC, ISO 8601).
    n : int
        Number of objects requested per group.
    per : tuple of str
        Grouping columns; empty if all objects were drawn together.
    seed : int
    object_ids : tuple of VersionedObjectId
        The objects in random order, numbered as in the masks at the time of drawing.
    stands_for : tuple of float
        Number of objects that each drawn object represents: objects in its group divided by objects drawn from it.
    """

    time: str
    n: int
    per: tuple[str, ...]
    seed: int
    object_ids: tuple[VersionedObjectId, ...]
    stands_for: tuple[float, ...]


class TestSet:
    """Test set of a project; empty until it is drawn.

    If a mask is replaced after the draw, the new objects in place of the drawn objects belong to the test set.
    """

    def __init__(
        self, folder: ProjectFolder, images: ImageCollection, annotations: Annotations, notify: Notify
    ) -> None:
        self._folder, self._images, self._annotations, self._notify = folder, images, annotations, notify
        self._sample: TestSetSample | None = None
        self._weights: tuple[object, TestSetSample | None, Mapping[ObjectId, float]] = None, None, {}
        self._without_hidden: dict[tuple[str, str], tuple[pd.DataFrame, frozenset[int], pd.DataFrame]] = {}

    def draw(self, n: int, per: Sequence[str] | str | None = None, seed: int = 0) -> pd.DataFrame:
        """Draw a test set: random objects that are used only to measure accuracy.

        Objects of the test set are never used for training, model selection or calibration. The prediction of each
        object is hidden until the object is annotated. Annotate the objects with ``project.queue("test")``; once most
        of them are annotated, `Project.evaluate` scores runs on the test set. Only unlabeled objects are drawn, since
        a classifier is used to predict unlabeled objects. Drawing again with the same arguments changes nothing.

        Parameters
        ----------
        n : int
            Number of objects, per group if ``per`` is given.
        per : str or sequence of str, optional
            "image" or grouping columns, for example "well": the same number of objects is drawn from each image or
            group. Each object is then weighted by the number of objects that it represents.
        seed : int

        Returns
        -------
        DataFrame
            As returned by `table`.

        Raises
        ------
        ProjectError
            If another test set exists, since choosing among several test sets would bias the accuracy.
        """
        columns = (per,) if isinstance(per, str) else tuple(per or ())
        if not isinstance(n, int | np.integer) or n < 1:
            raise InputError(f"A test set cannot have n={n} objects. Draw at least {MIN_ANNOTATED}, preferably 100.")
        with self._folder.lock:
            existing = self._existing()
            if existing is None:
                sample = draw_sample(self._frames(columns), n, columns, seed)
                if len(sample.object_ids) < MIN_ANNOTATED:
                    raise InputError(
                        f"A test set of {len(sample.object_ids)} objects is too small. Draw at least {MIN_ANNOTATED}; "
                        "with 100 objects, the accuracy is known to within about 6 %."
                    )
                write_test_set(self._folder, sample)
                self._sample = sample
            elif (existing.n, existing.per, existing.seed) != (n, columns, seed):
                raise ProjectError(
                    f"A test set of {len(existing.object_ids)} objects exists already ({existing.time[:10]}, "
                    f"n={existing.n}, seed={existing.seed}), and choosing among several would bias the accuracy. "
                    f"To discard it and start over, remove {self._folder.test_set_file}."
                )
        self._notify.status(f"Test set of {len(self):,} objects drawn. Annotate it with the queue “test”.")
        self._notify.changed("predictions")
        return self.table()

    def table(self) -> pd.DataFrame:
        """Return the objects of the test set with their labels, in the order of drawing.

        Returns
        -------
        DataFrame
            Indexed by ``(image, object)``: ``stands_for`` (number of objects represented), ``action`` ("" if not
            annotated) and ``class``. The table is empty before a test set is drawn.
        """
        weights = self._object_weights()
        index = object_index(weights)
        labels = self._annotations.label_table().reindex(index)
        stands_for = pd.Series(list(weights.values()), index, "float64")
        names = labels["class"].where(labels["class"].notna(), None)
        return pd.DataFrame({"stands_for": stands_for, "action": labels["action"].fillna(""), "class": names})

    @property
    def objects(self) -> list[ObjectId]:
        """The objects in the order of drawing, numbered as in the current masks."""
        return list(self._object_weights())

    @property
    def per(self) -> tuple[str, ...]:
        """Columns of the groups that were drawn from separately."""
        sample = self._existing()
        return sample.per if sample else ()

    def __len__(self) -> int:
        return len(self._object_weights())

    def __contains__(self, object_id: object) -> bool:
        return object_id in self._object_weights()

    def hidden(self, image: str) -> frozenset[int]:
        """Return the objects of an image whose predictions are hidden.

        They are the objects of the test set that are not annotated yet.
        """
        return frozenset(
            object_id.label
            for object_id in self._object_weights()
            if object_id.image == image and self._annotations.label_of(*object_id).action in ("", "skip")
        )

    def hide(self, table: pd.DataFrame, image: str, run: str) -> pd.DataFrame:
        """Return the predictions of a run for an image, without `hidden` objects.

        Calls with the same table return the same object until the hidden objects change, because the viewer compares
        tables by identity.
        """
        hidden, key = self.hidden(image), (run, image)
        if not hidden:
            return table
        known = self._without_hidden.get(key)
        if known is None or known[0] is not table or known[1] != hidden:
            self._without_hidden[key] = known = table, hidden, table.drop(index=list(hidden), errors="ignore")
        return known[2]

    def training_labels(self) -> pd.DataFrame:
        """Return the labels that a classifier may be trained on.

        These are the labels of all objects with a class, except objects of the test set. The columns are described in
        `Annotations.label_table`.
        """
        labels = self._annotations.label_table()
        labels = labels[labels["action"] == "label"]
        return labels[~labels.index.isin(self.objects)] if len(self) else labels

    def _existing(self) -> TestSetSample | None:
        if self._sample is None:  # another kernel may have drawn one in the meantime
            self._sample = read_test_set(self._folder)
        return self._sample

    def _object_weights(self) -> Mapping[ObjectId, float]:
        """Return the number of objects that each object of the test set represents."""
        sample, mappings = self._existing(), self._annotations.mappings
        if self._weights[0] is not mappings or self._weights[1] is not sample:
            weights: dict[ObjectId, float] = {}
            for object_id, weight in zip(sample.object_ids, sample.stands_for) if sample else ():
                if object_id.image in self._images:
                    weights |= dict.fromkeys(self._annotations.current_objects(object_id), weight)
            self._weights = mappings, sample, weights
        return self._weights[2]

    def _frames(self, per: tuple[str, ...]) -> list[list[SamplingFrame]]:
        """Return the unlabeled objects to draw from, by group of images."""
        labeled: dict[str, list[int]] = {}
        for object_id, label in self._annotations.labels.items():
            if label.action != "skip":
                labeled.setdefault(object_id.image, []).append(object_id.label)
        groups: dict[tuple[str, ...], list[SamplingFrame]] = {}
        for name, entry in self._images.items():
            values = {**entry.groups, "image": name}
            if unknown := [column for column in per if column not in values]:
                known = ", ".join(values)
                raise InputError(f"Image {name!r} has no grouping column {unknown[0]!r}. Use one of {known}.")
            free = self._images.objects(name).index.difference(labeled.get(name, [])).to_numpy(np.int64)
            if len(free):
                group = groups.setdefault(tuple(values[column] for column in per), [])
                group.append((name, entry.mask_number, free))
        if not groups:
            raise ProjectError("There are no unlabeled objects to draw. Add images first.")
        return list(groups.values())


def draw_sample(groups: Iterable[Sequence[SamplingFrame]], n: int, per: tuple[str, ...], seed: int) -> TestSetSample:
    """Draw ``n`` objects per group uniformly at random, or all if there are fewer.

    The same groups and the same seed lead to the same objects.
    """
    rng = np.random.default_rng(seed)
    drawn: list[tuple[VersionedObjectId, float]] = []
    for group in groups:
        # A position is an index over the objects of all images of the group; `ends` determines its image.
        ends = np.cumsum([len(objects) for _, _, objects in group])
        chosen = rng.permutation(int(ends[-1]))[:n].tolist()
        for position in chosen:
            number = int(np.searchsorted(ends, position, side="right"))
            image, mask, objects = group[number]
            label = int(objects[position - int(ends[number])])  # the index is negative: it counts from the end
            drawn.append((VersionedObjectId(image, label, mask), int(ends[-1]) / len(chosen)))
    object_ids, weights = zip(*(drawn[position] for position in rng.permutation(len(drawn))))
    return TestSetSample(datetime.now(UTC).isoformat(timespec="seconds"), n, per, seed, object_ids, weights)


def read_test_set(folder: ProjectFolder) -> TestSetSample | None:
    """Read the test set of a project; return None if none was drawn."""
    file = folder.test_set_file
    if not os.path.lexists(file):
        return None
    line, row = 1, dict[str, str]()
    object_ids, weights = list[VersionedObjectId](), list[float]()
    try:
        (_, header), *lines = read_csv_rows(file)
        for number, cells in lines:
            line, row = number, dict(zip(header, cells, strict=True))
            image = unescape_formula(row["image"])
            object_ids.append(VersionedObjectId(image, int(row["object"]), int(row["mask"])))
            weights.append(float(row["stands_for"]))
            if not (0 <= object_ids[-1].label < 2**62 and 0 <= object_ids[-1].mask < 2**31 and 0 < weights[-1] < 1e18):
                raise ValueError("a number is out of range")
        datetime.fromisoformat(row["drawn"])
        per = tuple(map(str, parse_json(row["per"])))
        return TestSetSample(row["drawn"], int(row["n"]), per, int(row["seed"]), tuple(object_ids), tuple(weights))
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ProjectError(
            f"{file} is not a valid test set (line {line}: {error}). Restore it from a backup, or remove it to "
            "continue without a test set."
        ) from error


def write_test_set(folder: ProjectFolder, sample: TestSetSample) -> None:
    """Write a test set to its file atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for object_id, weight in zip(sample.object_ids, sample.stands_for, strict=True):
        image = escape_formula(object_id.image)
        row = [sample.time, sample.n, json.dumps(sample.per), sample.seed, image, *object_id[1:], repr(weight)]
        writer.writerow(row)
    folder.write_text(folder.test_set_file, text.getvalue())

"""A test set: objects that are scored alone, and whose predictions nobody sees before saying what they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from svetlana_jupyter.core.annotations import ObjectId
from svetlana_jupyter.errors import InputError, ProjectError
from svetlana_jupyter.project.masks import Masks
from svetlana_jupyter.project.testset import FEWEST, Drawn, SamplingFrame, draw, read_test_set, write_test_set


class Blind(Masks):
    """A `Dataset` that keeps objects apart which were drawn at random."""

    def __init__(self, path: str | Path, classes: Iterable[str] | None = None, annotator: str | None = None) -> None:
        super().__init__(path, classes, annotator)
        self._drawn: Drawn | None = None
        self._weights: tuple[object, Drawn | None, Mapping[ObjectId, float]] = None, None, {}

    def draw_test_set(self, n: int, per: Sequence[str] | str | None = None, seed: int = 0) -> pd.DataFrame:
        """Draw objects at random that the accuracy is measured on, and nothing else.

        They are never trained on, nor used to choose a recipe or to calibrate, whatever is said of them. What is
        predicted of them is not shown before a person has annotated them; ``project.queue("test")`` brings them, and
        once most are annotated, `evaluate` scores a run on them. They are drawn among the objects that nobody has
        annotated yet, as it is those that a classifier decides. Drawing again as before changes nothing.

        Parameters
        ----------
        n : int
            How many, in each group where ``per`` is given.
        per : str or sequence of str, optional
            "image" or grouping columns, for example "well": as many of each. Objects are then weighted by how many each
            stands for.
        seed : int

        Returns
        -------
        DataFrame
            As of `test_set`.

        Raises
        ------
        ProjectError
            If another test set was drawn already: to draw until the result pleases would make it worthless.
        """
        columns = (per,) if isinstance(per, str) else tuple(per or ())
        if n < 1:
            raise InputError(f"a test set needs objects, got n={n}.")
        with self._lock:
            known = self._drawn_before()
            if known is None:
                drawn = draw(self._pools(columns), n, columns, seed)
                if len(drawn.object_ids) < FEWEST:
                    raise InputError(
                        f"a test set of {len(drawn.object_ids)} objects would say little; draw at least {FEWEST}, better "
                        "100, which give an accuracy within some 6 %."
                    )
                write_test_set(self._store, drawn)
                self._drawn = drawn
            elif (known.n, known.per, known.seed) != (n, columns, seed):
                raise ProjectError(
                    f"a test set of {len(known.object_ids)} objects was drawn already ({known.time[:10]}, n={known.n}, "
                    f"seed={known.seed}), and a second one could be chosen by its result. To start over, which gives "
                    f"up what was kept apart, remove {self._store.test_set_file}."
                )
        count = len(self.test_objects)
        self.status = f"{count:,} objects are kept apart as a test set: annotate them with the queue “test”"
        return self.test_set()

    def test_set(self) -> pd.DataFrame:
        """Return the objects of the test set, in the order in which they were drawn, and what was said of them.

        Returns
        -------
        DataFrame
            Indexed by ``(image, object)``: ``stands_for`` (objects), ``action`` ("" where nothing was said yet) and
            ``class``. Without rows where no test set was drawn.
        """
        weights = self._test_weights()
        labels = [self.label_of(*id) for id in weights]
        names = dict(zip(self.classes.ids, self.classes.names))
        index = pd.MultiIndex.from_tuples(list(weights), names=["image", "object"]) if weights else _NO_OBJECTS
        columns = {
            "stands_for": pd.Series(list(weights.values()), index, "float64"),
            "action": pd.Series([label.action for label in labels], index, "object"),
            "class": pd.Series([names.get(label.class_id) for label in labels], index, "object"),
        }
        return pd.DataFrame(columns, index)

    @property
    def test_objects(self) -> list[ObjectId]:
        """The objects of the test set, in the order in which they were drawn, by their numbers of today."""
        return list(self._test_weights())

    def in_test_set(self, image: str, object: int) -> bool:
        """Whether an object is scored alone."""
        return ObjectId(image, object) in self._test_weights()

    def hidden(self, image: str) -> frozenset[int]:
        """Return the objects of an image whose predictions are not shown: of the test set, and not annotated yet."""
        mine = [id for id in self._test_weights() if id.image == image]
        return frozenset(id.object for id in mine if self.label_of(*id).action in ("", "skip"))

    def training_labels(self) -> pd.DataFrame:
        """Return the rows of `labels` that a classifier may learn from: with a class, and not of the test set."""
        labels = self.labels().query("action == 'label'")
        apart = labels.index.isin(self.test_objects) if self.test_objects else False
        return labels[~pd.Series(apart, labels.index)]

    def training_counts(self) -> pd.Series:
        """Return how many objects of each class a classifier may learn from, by name."""
        counts = self.class_counts()
        apart = Counter(self.label_of(*id).class_id for id in self.test_objects)
        return counts - pd.Series({info.name: apart[info.id] for info in self.classes}, counts.index, "int64")

    def _drawn_before(self) -> Drawn | None:
        if self._drawn is None:  # perhaps another notebook drew one meanwhile
            self._drawn = read_test_set(self._store)
        return self._drawn

    def _test_weights(self) -> Mapping[ObjectId, float]:
        """Return how many objects each of the test set stands for."""
        drawn = self._drawn_before()
        if self._weights[0] is not self._steps or self._weights[1] is not drawn:
            found: dict[ObjectId, float] = {}
            for subject, weight in zip(drawn.object_ids, drawn.stands_for) if drawn else ():
                if subject.image in self.images:
                    found |= dict.fromkeys(self._labelling.current_objects(subject), weight)
            self._weights = self._steps, drawn, found
        return self._weights[2]

    def _pools(self, per: tuple[str, ...]) -> list[list[SamplingFrame]]:
        """Return the objects that may be drawn, by the group of images that they are drawn from."""
        said: dict[str, list[int]] = {}
        for id, label in self._labelling.labels.items():
            if label.action != "skip":
                said.setdefault(id.image, []).append(id.object)
        groups: dict[tuple[str, ...], list[SamplingFrame]] = {}
        for name, entry in self.images.items():
            known = {**entry.groups, "image": name}
            unknown = [column for column in per if column not in known]
            if unknown:
                raise InputError(
                    f"image {name!r} has no column {unknown[0]!r} to draw by; choose among {', '.join(known)}."
                )
            free = self.objects(name).index.difference(said.get(name, [])).to_numpy(np.int64)
            if len(free):
                group = groups.setdefault(tuple(known[column] for column in per), [])
                group.append(SamplingFrame(name, entry.mask_number, free))
        if not groups:
            raise ProjectError("there is no object without annotation to draw; add images first.")
        return list(groups.values())


_NO_OBJECTS = pd.MultiIndex.from_arrays(
    [pd.Series([], dtype="object"), pd.Series([], dtype="int64")], names=["image", "object"]
)

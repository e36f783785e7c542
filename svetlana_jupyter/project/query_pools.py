"""Pools of objects for queries, from labels, features and predictions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from svetlana_jupyter.core.queries import FIRST_REGULARIZATION, QUERIES, Pool
from svetlana_jupyter.core.queue import QueuedObject
from svetlana_jupyter.errors import InputError, ProjectError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from svetlana_jupyter.core.annotations import ObjectId
    from svetlana_jupyter.project.image_collection import ImageCollection
    from svetlana_jupyter.project.live import Live
    from svetlana_jupyter.project.live_results import LiveResult
    from svetlana_jupyter.project.object_features import ObjectFeatures
    from svetlana_jupyter.project.project_classes import ProjectClasses
    from svetlana_jupyter.project.run_store import RunStore
    from svetlana_jupyter.project.test_set import TestSet

MAX_CANDIDATES = 4_000  # objects drawn for a query that compares all pairs, whose matrix then needs 64 MB


class QueryPools:
    """Objects that queries choose from.

    Parameters
    ----------
    images : ImageCollection
    test_set : TestSet
    classes : ProjectClasses
    runs : RunStore
    features : ObjectFeatures
    live : Live
    probabilities : callable
        Returns the predictions for an image by a run, None for the current one (`Project.probabilities`).
    """

    def __init__(
        self,
        images: ImageCollection,
        test_set: TestSet,
        classes: ProjectClasses,
        runs: RunStore,
        features: ObjectFeatures,
        live: Live,
        probabilities: Callable[[str, str | None], pd.DataFrame],
    ) -> None:
        self._images, self._test_set, self._classes, self._runs = images, test_set, classes, runs
        self._features, self._live, self._probabilities = features, live, probabilities

    def check(self, kind: str, classes: Sequence[str]) -> None:
        """Raise an `InputError` unless a query has as many classes as it needs."""
        needed = QUERIES[kind].classes if kind in QUERIES else 0
        if len(set(classes)) != needed or len(classes) != needed:
            example = ", ".join(repr(name) for name in self._classes.names[:needed])
            raise InputError(
                f"The queue {kind!r} needs {needed} different classes, got {list(classes)}. "
                + (f"Pass them, for example classes=[{example}]." if needed else "Leave out classes.")
            )
        for name in classes:
            self._classes.scheme.by_name(name)

    def choose(
        self,
        kind: str,
        names: Sequence[str],
        closed: Collection[ObjectId],
        count: int,
        rng: np.random.Generator,
        classes: Sequence[str] = (),
    ) -> list[QueuedObject]:
        """Choose objects by a query, the best first.

        Parameters
        ----------
        kind : one of `QUERIES`
        names : sequence of str
            Images to choose from.
        closed : collection of (image, object)
            Objects that cannot be chosen.
        count : int
            Largest number of objects.
        rng : Generator
            Draws the candidates of queries that compare all pairs.
        classes : sequence of str
            Classes that the user chose.

        Raises
        ------
        ProjectError
            If the query needs predictions and there are none. Without features the result is empty.
        """
        if QUERIES[kind].labeled:
            pool, index = self._labeled(names, closed)
        elif "features" in QUERIES[kind].needs:
            pool, index = self._with_features(names, closed, rng)
        else:
            pool, index = self._with_predictions(kind, names, closed, classes)
        picks = QUERIES[kind].function(pool, count) if len(index) else []
        return [QueuedObject(*index[i], reason) for i, reason in picks]

    def similar(self, image: str, label: int, names: Sequence[str], count: int) -> Iterator[QueuedObject]:
        """Yield objects of some images, those most similar to an object first."""
        table = self._features.similar(image, label, count)
        for other, number in table[table.index.isin(names, level="image")].index.tolist():
            yield QueuedObject(other, number, f"similar to object {label} of {image}")

    def _with_features(
        self, names: Sequence[str], closed: Collection[ObjectId], rng: np.random.Generator
    ) -> tuple[Pool, list[tuple[str, int]]]:
        matrix, result = self._features.matrix(), self._live_result()
        tables = {name: each for name in names if (each := matrix.images.get(name)) is not None}
        index = _object_pairs({name: each.labels[each.is_present] for name, each in tables.items()}, closed)
        total = len(index)
        index = index[np.sort(rng.permutation(total)[:MAX_CANDIDATES])]
        labels = self._test_set.training_labels()["class_id"]
        probabilities = None if result is None else result.probabilities(index)
        if probabilities is not None and np.isnan(probabilities).any():
            probabilities = None  # images or features were added after the last update
        pool = Pool(
            features=matrix.find(index)[1],
            labeled=matrix.find(labels.index)[1],
            probabilities=probabilities,
            regularization=FIRST_REGULARIZATION if result is None else result.regularization,
            total=total,
        )
        return pool, index.tolist()

    def _with_predictions(
        self, kind: str, names: Sequence[str], closed: Collection[ObjectId], classes: Sequence[str]
    ) -> tuple[Pool, list[tuple[str, int]]]:
        table = self._predictions(names, None, kind)
        table = table[~table.index.isin(list(closed))] if closed else table
        columns = [name for name in table.columns if name.startswith("p_")]
        ids = [int(name[2:]) for name in columns]
        others = None
        if "others" in QUERIES[kind].needs:
            other = self._predictions(names, self._other_run(), kind).reindex(table.index)
            others = other.reindex(columns=columns).to_numpy(np.float32)
            others[~np.isnan(others).all(axis=1)] = np.nan_to_num(others[~np.isnan(others).all(axis=1)])
        by_name = {self._classes.by_id(number).name: place for place, number in enumerate(ids)}
        if missing := [name for name in classes if name not in by_name]:
            raise ProjectError(
                f"No object is predicted as {missing[0]!r}, which has no label. Label objects of it first."
            )
        labels = self._test_set.training_labels()["class_id"].value_counts()
        pool = Pool(
            probabilities=table[columns].to_numpy(np.float32),
            others=others,
            names=list(by_name),
            chosen=[by_name[name] for name in classes],
            counts=labels.reindex(ids, fill_value=0).tolist(),
        )
        return pool, table.index.tolist()

    def _predictions(self, names: Sequence[str], run: str | None, kind: str) -> pd.DataFrame:
        tables = {name: self._probabilities(name, run) for name in names}
        table = pd.concat({name: each for name, each in tables.items() if len(each)} or {"": pd.DataFrame()})
        if not len(table):
            raise ProjectError(
                f"The queue {kind!r} needs predictions. Label objects of two classes and call project.live.update(), "
                "or call project.predict()."
            )
        return table

    def _other_run(self) -> str:
        """Return the run to compare with the current one: the newest, or the live one."""
        current = self._runs.current.name
        return next((run.name for run in reversed(list(self._runs)) if run.name != current), "live")

    def _labeled(self, names: Sequence[str], closed: Collection[ObjectId]) -> tuple[Pool, list[tuple[str, int]]]:
        result, labels = self._live_result(), self._test_set.training_labels()["class_id"]
        if result is None:
            raise ProjectError(
                "The queue 'suspect' compares labels with predictions by the others. Label objects of two classes and "
                "call project.live.update()."
            )
        learned, ids = result.labels, np.unique(result.labels)
        learned = learned[(labels.reindex(learned.index) == learned) & learned.index.isin(names, level="image")]
        learned = learned[~learned.index.isin(list(closed))] if closed else learned
        probabilities = result.probabilities(learned.index)
        is_known = np.asarray(~np.isnan(probabilities).any(axis=1))
        pool = Pool(
            probabilities=probabilities[is_known],
            codes=np.searchsorted(ids, learned[is_known]),
            names=[self._classes.by_id(int(number)).name for number in ids],
            counts=labels.value_counts().reindex(ids, fill_value=0).tolist(),
        )
        return pool, learned.index[is_known].tolist()

    def _live_result(self) -> LiveResult | None:
        """Return the live predictions of current masks."""
        result, masks = self._live.result, self._images.mask_numbers()
        if result is None:
            return None
        current = {name: image for name, image in result.images.items() if masks.get(name) == image.mask}
        return replace(result, images=current)


def _object_pairs(labels: dict[str, pd.Index], closed: Collection[ObjectId]) -> pd.MultiIndex:
    """Return the pairs (image, object) of all objects that are not closed."""
    names = np.repeat(np.array(list(labels), object), [len(each) for each in labels.values()])
    numbers = np.concatenate([np.empty(0, np.int64), *(each.to_numpy(np.int64) for each in labels.values())])
    index = pd.MultiIndex.from_arrays([names, numbers], names=["image", "object"])
    return index[~index.isin(list(closed))] if closed and len(index) else index

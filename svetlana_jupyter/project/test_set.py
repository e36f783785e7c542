"""Objects drawn at random for scoring alone, kept in a file of the project from the moment they are drawn."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from svetlana_jupyter.core.annotations import VersionedObjectId
from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.storage import ProjectFolder

COLUMNS = ["drawn", "n", "per", "seed", "image", "object", "mask", "stands_for"]
# What is needed before a figure is shown: so many classes given, and so much of the draw looked at, so that it is not
# the easy ones alone.
FEWEST, MIN_ANNOTATED_FRACTION = 20, 0.8


@dataclass(frozen=True)
class Drawn:
    """A test set as it was drawn.

    Attributes
    ----------
    time : str
        UTC, ISO 8601.
    n : int
        Objects asked for, in each group of ``per``.
    per : tuple of str
        Grouping columns; empty where all objects were drawn from together.
    seed : int
    subjects : tuple of Subject
        The objects, in random order, by their numbers in the mask of that time.
    stands_for : tuple of float
        How many objects each stands for: those that could be drawn, by those that were.
    """

    time: str
    n: int
    per: tuple[str, ...]
    seed: int
    object_ids: tuple[VersionedObjectId, ...]
    stands_for: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class SamplingFrame:
    """The objects of an image that may be drawn, by their numbers in one of its masks."""

    image: str
    mask: int
    objects: NDArray[np.int64]


def draw(pools: Iterable[Sequence[SamplingFrame]], n: int, per: tuple[str, ...], seed: int) -> Drawn:
    """Draw ``n`` objects of each group of images uniformly at random, all of a group that has fewer.

    The same groups and seed give the same objects.
    """
    rng = np.random.default_rng(seed)
    found: list[tuple[VersionedObjectId, float]] = []
    for group in pools:
        ends = np.cumsum([len(pool.objects) for pool in group])
        chosen = rng.permutation(int(ends[-1]))[:n].tolist()
        for place in chosen:
            pool = group[number := int(np.searchsorted(ends, place, side="right"))]
            label = int(pool.objects[place - int(ends[number]) + len(pool.objects)])
            found.append((VersionedObjectId(pool.image, label, pool.mask), int(ends[-1]) / len(chosen)))
    object_ids, weights = zip(*(found[place] for place in rng.permutation(len(found))))
    return Drawn(datetime.now(UTC).isoformat(timespec="seconds"), n, per, seed, object_ids, weights)


def read_test_set(store: ProjectFolder) -> Drawn | None:
    """Read the test set of a project, None where none was drawn."""
    file = store.test_set_file
    if not file.exists():
        return None
    rows = list(csv.DictReader(io.StringIO(file.read_text("utf-8"), newline="")))
    try:
        first = rows[0]
        return Drawn(
            time=first["drawn"],
            n=int(first["n"]),
            per=tuple(json.loads(first["per"])),
            seed=int(first["seed"]),
            object_ids=tuple(VersionedObjectId(row["image"], int(row["object"]), int(row["mask"])) for row in rows),
            stands_for=tuple(float(row["stands_for"]) for row in rows),
        )
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise ProjectError(f"{file} is no test set ({error}); restore it, or remove it to do without one.") from error


def write_test_set(store: ProjectFolder, drawn: Drawn) -> None:
    """Write a test set to its file, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for subject, weight in zip(drawn.object_ids, drawn.stands_for, strict=True):
        writer.writerow([drawn.time, drawn.n, json.dumps(drawn.per), drawn.seed, *subject, repr(weight)])
    store.write_text(store.test_set_file, text.getvalue())

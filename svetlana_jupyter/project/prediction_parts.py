"""Storage of predictions in parts, so that an interrupted prediction can resume.

The objects of an image are divided into parts. Each part is stored in a file such as
``predictions/<image>.<key>.parts/000017.parquet``. The key is a hash of everything that determines the predicted
probabilities: image, mask, objects, averaging and precision. Parts with another key are removed. When all parts are
finished, they are combined in ``predictions/<image>.parquet``, which contains the key, and the folder of the parts is
removed.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, Field, Strict

from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.file_access import make_folder, read_parquet
from svetlana_jupyter.project.project_document import validate_fields
from svetlana_jupyter.project.storage import atomic_write, file_name

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from svetlana_jupyter.learn.inference import PartFinished, PredictionBatch
    from svetlana_jupyter.project.runs import Run

VERSION = 1  # version of the division into parts and batches


class PredictionWriteError(ProjectError):
    """Error raised if predictions cannot be written to disk."""


@dataclass(frozen=True)
class PartPredictions:
    """Predictions of one part of the objects of an image.

    Parameters
    ----------
    objects : int64 of shape (n,)
    probabilities : float32 of shape (n, k)
    compared, outliers : int
        Number of objects that were compared with the reference distribution, and number of objects outside it.
    failed : mapping of int to str
        Objects without a prediction, each with the reason.
    """

    objects: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    compared: int
    outliers: int
    failed: Mapping[int, str]


class _PartAttributes(BaseModel):
    model_config = {"strict": True}
    count: Annotated[int, Field(ge=0)]
    asked: Annotated[int, Field(ge=0, lt=2**62)]
    beyond: Annotated[int, Field(ge=0, lt=2**62)]
    failed: list[Annotated[tuple[int, str], Strict(False)]]


def merge_batches(batches: Sequence[PredictionBatch], end: PartFinished, classes: Sequence[int]) -> PartPredictions:
    """Combine the predictions of all batches of a part."""
    novelty = np.concatenate([np.empty(0, np.float32), *(batch.novelty for batch in batches)])
    empty = np.empty((0, len(classes)), np.float32)
    return PartPredictions(
        objects=np.concatenate([np.empty(0, np.int64), *(batch.objects for batch in batches)]),
        probabilities=np.concatenate([empty, *(batch.probabilities for batch in batches)]),
        compared=len(novelty),
        outliers=int((novelty > 1).sum()),
        failed=end.failed,
    )


def prediction_key(image: str, mask: int, objects: pd.DataFrame, average: bool, precision: str) -> str:
    """Return a hash of everything that determines the predictions of an image.

    Parameters
    ----------
    image : str
        Hash of the pixels.
    mask : int
        Number of the mask.
    objects : DataFrame
        The object table.
    average : bool
        Whether predictions are averaged over views.
    precision : str
        Type in which the classifier computes. The keys of predictions in 32 bits do not contain it, so that they equal
        those of earlier versions.
    """
    bits = "" if precision == "float32" else f" {precision}"
    digest = hashlib.blake2b(f"{VERSION} {image} {mask} {average}{bits}".encode(), digest_size=8)
    digest.update(objects.index.to_numpy(np.int64).tobytes())
    digest.update(np.ascontiguousarray(objects.to_numpy(np.float64)).tobytes())
    return digest.hexdigest()


class ImageParts:
    """Stored parts of the predictions of one run for one image.

    Parameters
    ----------
    run : Run
    image : str
    key : str
        See `prediction_key`.
    classes : sequence of int
        Class ids, in the order of the columns of probabilities.
    """

    def __init__(self, run: Run, image: str, key: str, classes: Sequence[int]) -> None:
        self._run, self._image, self._key, self._classes = run, image, key, list(classes)
        self._columns = [f"p_{class_id}" for class_id in classes]
        self._folder = run.predictions_file(image).with_name(f"{file_name(image)}.{key}.parts")

    def is_complete(self) -> bool:
        """Return whether all objects of the image are predicted with this key."""
        stored = self._run.predictions_attributes(self._image)
        return stored.get("key") == self._key and not stored.get("failed")

    def finished_parts(self) -> dict[int, int]:
        """Return the number of predicted objects of each stored part."""
        finished = {}
        for file in self._folder.glob("*.parquet"):
            # An unreadable part is predicted again. Parts are read completely, since they are merged without a check.
            with suppress(OSError, ValueError, KeyError):
                finished[int(file.stem)] = self._read_part(file).attrs["count"]
        return finished

    def start(self, resume: bool) -> None:
        """Remove parts with another key, or all parts if ``resume`` is False."""
        own = re.compile(re.escape(file_name(self._image)) + r"\.[0-9a-f]+\.parts")
        for folder in self._folder.parent.glob("*.parts"):
            if own.fullmatch(folder.name) and not (resume and folder == self._folder):
                shutil.rmtree(folder, ignore_errors=True)

    def write_part(self, number: int, part: PartPredictions) -> None:
        """Write the predictions of one part atomically."""
        table = pd.DataFrame(part.probabilities, pd.Index(part.objects, name="object"), self._columns)
        failed = [[label, why] for label, why in sorted(part.failed.items())]
        table.attrs = {"count": len(table), "asked": part.compared, "beyond": part.outliers, "failed": failed}
        with _wrap_write_errors(self._image):
            make_folder(self._folder)
            with atomic_write(self._file(number)) as draft:
                table.to_parquet(draft)

    def merge(self, numbers: Iterable[int], attributes: Mapping[Hashable, Any]) -> pd.DataFrame:
        """Combine the parts with the given numbers into the predictions of the image.

        The predictions are written to disk. The parts are kept if some objects could not be predicted.

        Returns
        -------
        DataFrame
            Indexed by object: ``predicted`` (class id), ``probability`` and ``p_<class id>`` per class.
        """
        try:
            parts = [self._read_part(self._file(number)) for number in numbers]
        except (OSError, ValueError) as error:
            raise ProjectError(
                f"A part of the predictions of {self._image} cannot be read ({error}). Predict again with resume=False."
            ) from error
        empty = pd.DataFrame([], pd.Index([], dtype="int64", name="object"), self._columns, "float32")
        table = pd.concat([empty, *parts]).sort_index()
        p = table.to_numpy()
        table.insert(0, "predicted", np.array(self._classes)[p.argmax(axis=1)])
        table.insert(1, "probability", p.max(axis=1))
        compared, outliers = (sum(part.attrs[name] for part in parts) for name in ("asked", "beyond"))
        failed = sorted(row for part in parts for row in part.attrs["failed"])
        table.attrs = {**attributes, "key": self._key}
        if compared:
            table.attrs |= {"asked": compared, "unlike": outliers / compared}
        if failed:
            table.attrs["failed"] = failed
        with _wrap_write_errors(self._image):
            self._run.write_predictions(self._image, table)
        if not failed:
            shutil.rmtree(self._folder, ignore_errors=True)
        return table

    def _read_part(self, file: Path) -> pd.DataFrame:
        """Read a part; raise an `OSError` or `ValueError` if it is damaged."""
        table = read_parquet(file, self._columns)
        validate_fields(_PartAttributes, table.attrs)
        p = table.to_numpy()
        if list(table) != self._columns or ((p < 0) | (p > 1.001)).any() or table.attrs["count"] != len(table):
            raise ValueError(f"{file} is damaged")
        return table

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:06d}.parquet"


@contextmanager
def _wrap_write_errors(image: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PredictionWriteError(
            f"The predictions of {image} could not be written ({error.strerror or error}). Free some space or "
            "reconnect the folder, then predict again; finished parts are kept."
        ) from error

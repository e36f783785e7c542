"""What is predicted of an image, kept part after part until it is whole, so that nothing is done twice.

``predictions/<image>.<key>.parts/00017.parquet`` is one part. The key stands for all that decides its probabilities:
image, mask, objects and how they are predicted; parts of another key are of no use and are removed. When all parts are
there, ``predictions/<image>.parquet`` is written, which knows the key too, and the folder goes.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyarrow.parquet import read_schema

from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.runs import Run
from svetlana_jupyter.project.storage import atomic_write, file_name

VERSION = 1  # of how parts are split and batches filled


@dataclass(frozen=True)
class PartPredictions:
    """What was predicted of one part.

    Parameters
    ----------
    objects : int64 of shape (n,)
    probabilities : float32 of shape (n, k)
    asked, beyond : int
        Of how many objects it is known how they look, and how many of these look unlike all annotated ones.
    failed : dict of int to str
        Objects that could not be read, and why.
    """

    objects: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    asked: int
    beyond: int
    failed: Mapping[int, str]


class Found(Protocol):
    """What one batch found (`learn.inference.PredictionBatch`)."""

    @property
    def objects(self) -> NDArray[np.int64]: ...

    @property
    def probabilities(self) -> NDArray[np.float32]: ...

    @property
    def novelty(self) -> NDArray[np.float32]: ...


class PartSummary(Protocol):
    """What is to say behind the last batch (`learn.inference.PartFinished`)."""

    @property
    def failed(self) -> Mapping[int, str]: ...


def merge_batches(found: Sequence[Found], end: PartSummary, classes: Sequence[int]) -> PartPredictions:
    """Return what the batches of a part found as one table."""
    novelty = np.concatenate([np.empty(0, np.float32), *(one.novelty for one in found)])
    return PartPredictions(
        objects=np.concatenate([np.empty(0, np.int64), *(one.objects for one in found)]),
        probabilities=np.concatenate([np.empty((0, len(classes)), np.float32), *(one.probabilities for one in found)]),
        asked=len(novelty),
        beyond=int((novelty > 1).sum()),
        failed=end.failed,
    )


def prediction_key(image: str, mask: int, objects: pd.DataFrame, average: bool) -> str:
    """Return what stands for all that decides predictions of an image, besides the run.

    Parameters
    ----------
    image : str
        The fingerprint of the image.
    mask : int
        Which of its masks the image has.
    """
    digest = hashlib.blake2b(f"{VERSION} {image} {mask} {average}".encode(), digest_size=8)
    digest.update(objects.index.to_numpy(np.int64).tobytes())
    digest.update(np.ascontiguousarray(objects.to_numpy(np.float64)).tobytes())
    return digest.hexdigest()


class ImageParts:
    """The parts of one image that a run has predicted.

    Parameters
    ----------
    run : Run
    image : str
    key : str
    classes : sequence of int
        Class ids, in the order of the columns of probabilities.
    """

    def __init__(self, run: Run, image: str, key: str, classes: Sequence[int]) -> None:
        self._run, self._image, self._key, self._classes = run, image, key, list(classes)
        self._folder = run.predictions_file(image).with_name(f"{file_name(image)}.{key}.parts")

    def is_complete(self) -> bool:
        """Whether all objects of the image are predicted as the key says."""
        kept = self._kept()
        return kept.get("key") == self._key and not kept.get("failed")

    def image_changed(self, image: str) -> bool:
        """Whether there are predictions, but of other pixels than those that a fingerprint stands for."""
        return bool(self._kept().get("image", image) != image)

    def done(self) -> dict[int, int]:
        """Return the parts that are there, each with of how many objects it has predictions."""
        found = {}
        for file in self._folder.glob("*.parquet"):
            with suppress(OSError, ValueError):  # what cannot be read is predicted again
                kept = json.loads(read_schema(file).metadata[b"PANDAS_ATTRS"])
                found[int(file.stem)] = int(kept["count"])
        return found

    def start(self, resume: bool) -> None:
        """Remove parts of another key, or all."""
        of_this = re.compile(re.escape(file_name(self._image)) + r"\.[0-9a-f]+\.parts")
        for folder in self._folder.parent.glob("*.parts"):
            if of_this.fullmatch(folder.name) and not (resume and folder == self._folder):
                shutil.rmtree(folder, ignore_errors=True)

    def keep(self, number: int, part: PartPredictions) -> None:
        """Write one part, whole or not at all."""
        table = pd.DataFrame(part.probabilities, pd.Index(part.objects, name="object"), self._columns)
        failed = [[label, why] for label, why in sorted(part.failed.items())]
        table.attrs = {"count": len(table), "asked": part.asked, "beyond": part.beyond, "failed": failed}
        with _writing(self._image):
            self._folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._folder / f"{number:06d}.parquet") as beside:
                table.to_parquet(beside)

    def merge(self, numbers: Iterable[int], known: dict[str, Any]) -> pd.DataFrame:
        """Write the predictions of the image from all its parts, and remove these unless some objects are missing."""
        tables = [pd.read_parquet(self._folder / f"{number:06d}.parquet") for number in numbers]
        table = prediction_table(
            [part.index.to_numpy(np.int64) for part in tables],
            [part[self._columns].to_numpy(np.float32) for part in tables],
            tuple(self._classes),
        )
        asked, beyond = (sum(part.attrs[name] for part in tables) for name in ("asked", "beyond"))
        failed = [one for part in tables for one in part.attrs["failed"]]
        table.attrs |= known | {"key": self._key}
        if asked:
            table.attrs |= {"asked": asked, "unlike": beyond / asked}
        if failed:
            table.attrs["failed"] = sorted(failed)
        with _writing(self._image):
            self._run.write_predictions(self._image, table)
        if not failed:
            shutil.rmtree(self._folder, ignore_errors=True)
        return table

    @property
    def _columns(self) -> list[str]:
        return [f"p_{id}" for id in self._classes]

    def _kept(self) -> dict[str, Any]:
        return self._run.predictions_attributes(self._image)


def prediction_table(
    labels: list[NDArray[np.int64]], probabilities: list[NDArray[np.float32]], class_ids: tuple[int, ...]
) -> pd.DataFrame:
    """Return the table of an image: indexed by object, ``predicted``, ``probability`` and ``p_<class id>`` each."""
    p = np.concatenate([*probabilities, np.empty((0, len(class_ids)), np.float32)])
    index = pd.Index(np.concatenate([*labels, np.empty(0, np.int64)]), name="object")
    table = pd.DataFrame(p, index, [f"p_{id}" for id in class_ids])
    table.insert(0, "predicted", np.asarray(class_ids)[p.argmax(1)] if len(p) else np.empty(0, np.int64))
    table.insert(1, "probability", p.max(1) if len(p) else np.empty(0, np.float32))
    return table.sort_index()


@contextmanager
def _writing(image: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PredictionWriteError(
            f"the predictions of {image} could not be written ({error.strerror or error}). Make room or bring the "
            "folder back, and predict again: what is done is kept."
        ) from error


class PredictionWriteError(ProjectError):
    """Predictions cannot be kept, of this image or any other."""

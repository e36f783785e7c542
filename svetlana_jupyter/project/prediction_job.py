"""The prediction job: a run's classifier over the objects of images, part after part, of which none is done twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from svetlana_jupyter.core.io.image_pair import ImagePair
from svetlana_jupyter.core.normalization import set_image_statistics
from svetlana_jupyter.errors import InputError, SvetlanaError
from svetlana_jupyter.project.jobs import Progress, Stop
from svetlana_jupyter.project.prediction_parts import ImageParts, PredictionWriteError, merge_batches, prediction_key
from svetlana_jupyter.project.runs import Run

if TYPE_CHECKING:
    from torch.nn import Module

    from svetlana_jupyter.learn.classifier import Classifier
    from svetlana_jupyter.learn.novelty import ReferenceDistribution

SETTLING = 0.5  # seconds before a rate is told


@dataclass(frozen=True)
class ImagePredicted:
    """All objects of an image are predicted and on disk, but those that could not be read.

    Parameters
    ----------
    run, image : str
    count : int
        Objects that are predicted.
    failed : dict of int to str
        Objects that are not, and why.
    changed : bool
        Whether the image is another than when it was predicted before.
    """

    run: str
    image: str
    count: int
    failed: Mapping[int, str]
    changed: bool = False


@dataclass(frozen=True)
class AllPredicted:
    """Several images were predicted one after the other, and there are no more."""

    images: tuple[ImagePredicted, ...]


@dataclass(frozen=True)
class PredictionTask:
    """What is to be predicted.

    Parameters
    ----------
    images : sequence of str
    run : Run
    threads : int
    pair, objects, fingerprint : callables
        Give an image, its objects, and what stands for its pixels, by its name; each may raise a `SvetlanaError`.
    masks : mapping of str to int
        Which of its masks each image has: predictions are of the objects of that mask.
    network : Module, optional
        The user's own, where the run was trained with one that was given as an object.
    client : Client, optional
        Of a dask cluster, which does the work then.
    resume : bool
        Whether to leave out what is there already.
    average : bool
        Whether to average over all views that training declared equivalent.
    """

    images: Sequence[str]
    run: Run
    threads: int
    pair: Callable[[str], ImagePair]
    objects: Callable[[str], pd.DataFrame]
    fingerprint: Callable[[str], str]
    masks: Mapping[str, int]
    network: Module | None = None
    client: Any = None
    resume: bool = True
    average: bool = False


@dataclass(frozen=True)
class _Plan:
    """What is to be done of one image."""

    pair: ImagePair
    objects: pd.DataFrame
    fingerprint: str
    kept: ImageParts
    parts: list[pd.DataFrame]
    missing: Mapping[int, pd.DataFrame]
    changed: bool

    @property
    def count(self) -> int:
        return sum(map(len, self.missing.values()))


class ImagesFailedError(InputError):
    """Some images could not be predicted; the others are.

    Attributes
    ----------
    images : tuple of str
        Those that could not.
    """

    def __init__(self, sentence: str, images: tuple[str, ...]) -> None:
        super().__init__(sentence)
        self.images = images


def predict_images(task: PredictionTask, stop: Stop) -> Iterator[Progress | ImagePredicted | AllPredicted]:
    """Predict images one after the other; a stop keeps the parts that are done.

    Every image is checked against the classifier before the first one is predicted. One that is gone does not keep the
    others from being predicted: that is said at the end.

    Raises
    ------
    ClassifierError
        At once, if the classifier does not fit an image.
    ImagesFailedError
        At the end, if some images could not be predicted.
    """
    from svetlana_jupyter.learn.classifier import load_classifier
    from svetlana_jupyter.learn.device import limit_threads
    from svetlana_jupyter.learn.novelty import ReferenceDistribution

    yield Progress(0, 1, "opening")
    classifier, reference = load_classifier(task.run.path, task.network), ReferenceDistribution.load(task.run.path)
    if task.average:
        classifier = classifier.with_test_time_augmentation()
    limit_threads(task.threads)
    troubles: dict[str, SvetlanaError] = {}
    for _, pair in _each(task.images, task.pair, troubles):
        classifier.check(pair)
    plans = dict(_each(task.images, lambda name: _plan(task, name, classifier), troubles))
    total = sum(len(plan.objects) for plan in plans.values())
    pace = _Pace(total, total - sum(plan.count for plan in plans.values()))
    predicted: list[ImagePredicted] = []
    for name, plan in plans.items():
        if plan.kept.is_complete() and task.resume:
            continue
        try:
            for done in _predicted(task, plan, classifier, reference, stop):
                yield pace.after(done, name)
                if stop():
                    return
        except PredictionWriteError:
            raise
        except SvetlanaError as error:
            troubles[name] = error
            continue
        table = plan.kept.merge(range(len(plan.parts)), {"mask": task.masks[name], "image": plan.fingerprint})
        failed = {int(label): str(why) for label, why in table.attrs.get("failed", ())}
        predicted.append(ImagePredicted(task.run.name, name, len(table), failed, plan.changed))
        yield predicted[-1]
    if len(predicted) > 1:
        yield AllPredicted(tuple(predicted))
    if troubles:
        raise ImagesFailedError(_sentence(troubles, len(task.images)), tuple(troubles)) from next(
            iter(troubles.values())
        )


def describe_failures(image: str, failed: Mapping[int, str]) -> str:
    """Say how many objects have no prediction, and why."""
    why = next(iter(failed.values()))
    return f"{len(failed):,} objects of {image} could not be read and have no prediction: {why}"


def _each(
    names: Sequence[str], make: Callable[[str], Any], troubles: dict[str, SvetlanaError]
) -> Iterator[tuple[str, Any]]:
    """Yield what is made of each name, and keep what is in the way of the others."""
    for name in names:
        if name not in troubles:
            try:
                made = make(name)
            except SvetlanaError as error:
                troubles[name] = error
            else:
                yield name, made


def _plan(task: PredictionTask, name: str, classifier: Classifier) -> _Plan:
    from svetlana_jupyter.learn.inference import split_into_parts

    pair, objects, fingerprint = task.pair(name), task.objects(name), task.fingerprint(name)
    key = prediction_key(fingerprint, task.masks[name], objects, task.average)
    kept = ImageParts(task.run, name, key, classifier.classes)
    if changed := kept.image_changed(fingerprint):
        set_image_statistics(pair.image, None)
    kept.start(task.resume)
    parts = split_into_parts(pair, objects, classifier)
    done = kept.done() if task.resume else {}
    if task.resume and kept.is_complete():
        done = {number: len(part) for number, part in enumerate(parts)}
    missing = {number: part for number, part in enumerate(parts) if done.get(number) != len(part)}
    return _Plan(pair, objects, fingerprint, kept, parts, missing, changed)


def _predicted(
    task: PredictionTask, plan: _Plan, classifier: Classifier, reference: ReferenceDistribution | None, stop: Stop
) -> Iterator[int]:
    """Predict what is missing of an image and keep it; yield how many objects each step has done."""
    from svetlana_jupyter.learn.inference import PartFinished, PredictionBatch, predict_parts, sample_for_novelty

    asked = None if reference is None else sample_for_novelty(plan.objects)
    if not plan.missing:
        return
    if task.client is not None:
        from svetlana_jupyter.project.distributed import predict_on_cluster

        parts = predict_on_cluster(task.client, plan.pair, plan.missing, classifier, reference, asked, stop)
        with closing(parts):
            for number, part in parts:
                plan.kept.keep(number, part)
                yield len(plan.missing[number])
        return
    waiting: list[PredictionBatch] = []
    with closing(predict_parts(plan.pair, plan.missing, classifier, None, reference, asked)) as events:
        for event in events:
            if isinstance(event, PartFinished):
                plan.kept.keep(event.part, merge_batches(waiting, event, classifier.classes))
                waiting = []
                yield len(event.failed)
            else:
                waiting.append(event)
                yield len(event.objects)


class _Pace:
    """Counts objects of all images, and tells how many are done in a second."""

    def __init__(self, total: int, before: int) -> None:
        self._total, self._done, self._before, self._began = total, before, before, time.monotonic()

    def after(self, count: int, image: str) -> Progress:
        self._done += count
        seconds = time.monotonic() - self._began
        rate = (self._done - self._before) / seconds if seconds > SETTLING else 0
        told = f", {rate:,.0f} objects a second" if rate >= 1 else ""
        return Progress(self._done, self._total, f"predicting {image}{told}")


def _sentence(troubles: Mapping[str, SvetlanaError], count: int) -> str:
    told = " ".join(f"{error}" if name in str(error) else f"{name}: {error}" for name, error in troubles.items())
    others = " The others are done." if len(troubles) < count else ""
    number = "the image" if count == 1 else f"{len(troubles)} of {count} images"
    return f"{number} could not be predicted.{others} {told}"

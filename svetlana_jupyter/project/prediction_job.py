"""Prediction job, which classifies objects in parts and can be resumed."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from svetlana_jupyter.core.normalization import set_image_statistics
from svetlana_jupyter.errors import InputError, ProjectError, SvetlanaError
from svetlana_jupyter.project.evaluation import outlying_images
from svetlana_jupyter.project.jobs import Progress, Stop
from svetlana_jupyter.project.prediction_parts import ImageParts, PredictionWriteError, merge_batches, prediction_key

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

    import pandas as pd
    from distributed import Client
    from torch.nn import Module

    from svetlana_jupyter.core.features.feature_sources import FeatureSource
    from svetlana_jupyter.core.features.fitted_sources import FittedSources
    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.learn.classifier import Classifier
    from svetlana_jupyter.learn.novelty import ReferenceDistribution
    from svetlana_jupyter.project.runs import Run


@dataclass(frozen=True)
class ImagePredicted:
    """Event for an image whose predictions have been written to disk.

    Only unreadable objects, and objects with NaN or infinite pixels, have no prediction.

    Parameters
    ----------
    run, image : str
    count : int
        Number of predicted objects.
    failed : mapping of int to str
        Objects without a prediction, each with the reason.
    changed : bool
        Whether the image has changed since an earlier prediction.
    """

    run: str
    image: str
    count: int
    failed: Mapping[int, str]
    changed: bool = False


@dataclass(frozen=True)
class RunPredicted:
    """Event with a new run that has predicted the images of the shown run.

    Parameters
    ----------
    run : Run
    shown : str
        Name of the run that was shown when the training began.
    """

    run: Run
    shown: str


@dataclass(frozen=True)
class AllPredicted:
    """Event at the end of the prediction of several images."""

    images: tuple[ImagePredicted, ...]

    def messages(self, compared: pd.DataFrame) -> tuple[str, str]:
        """Return a summary of the predictions, and a message about objects without one.

        The message is "" if all objects have a prediction.

        Parameters
        ----------
        compared : DataFrame
            Out-of-distribution test of these images (`core.stats.outliers.flag_unfamiliar_images`).
        """
        count, events = len(self.images), self.images
        images = events[0].image if count == 1 else f"{count:,} images"
        sentences = [f"Predicted {sum(event.count for event in events):,} objects of {images}"]
        sentences += [f"{event.image} has changed and was predicted again" for event in events if event.changed]
        if compared["warn"].any():
            sentences.append(outlying_images(compared).removesuffix("."))
        failed = [
            f"{len(event.failed):,} objects of {event.image} have no prediction: {next(iter(event.failed.values()))}"
            for event in events
            if event.failed
        ]
        return ". ".join([*sentences, *failed]), ". ".join(failed)


@dataclass(frozen=True)
class PredictionTask:
    """Inputs of a prediction job.

    Parameters
    ----------
    images : sequence of str
    run : Run
    threads : int
    pair, objects, fingerprint : callables
        Functions that return an image pair, its object table and a hash of its files, by image name; each may raise a
        `SvetlanaError`.
    has_same_pixels : callable
        Returns whether an image, by name, still has the pixels of stored predictions, given their attributes.
    pixel_hash : callable
        Returns a hash of the pixels of an image by name, "" for a large image; reads the whole image.
    masks : mapping of str to int
        Number of the current mask of each image, whose objects are predicted.
    network : Module, optional
        The network that the user passed as an object, if the run was trained with it.
    client : Client, optional
        Client of the dask cluster that computes the predictions.
    resume : bool
        Whether to skip finished parts.
    average : bool
        Whether to average over the mirrored and rotated views that the run was trained with.
    encoders : mapping of str to FeatureSource
        The user's encoders, which a live classifier may use.
    cached : callable
        Returns sources of features that read from the cache of the project.
    """

    images: Sequence[str]
    run: Run
    threads: int
    pair: Callable[[str], ImagePair]
    objects: Callable[[str], pd.DataFrame]
    fingerprint: Callable[[str], str]
    has_same_pixels: Callable[[str, Mapping[str, Any]], bool]
    pixel_hash: Callable[[str], str]
    masks: Mapping[str, int]
    network: Module | None = None
    client: Client | None = None
    resume: bool = True
    average: bool = False
    encoders: Mapping[str, FeatureSource] = field(default_factory=dict)
    cached: Callable[[FittedSources], FittedSources] = lambda sources: sources


class ImagesFailedError(InputError):
    """Error raised at the end of a job if some images could not be predicted.

    Parameters
    ----------
    errors : mapping of image name to SvetlanaError
        The error of each failed image.
    count : int
        Number of all images of the job.

    Attributes
    ----------
    images : tuple of str
        The images that failed.
    """

    def __init__(self, errors: Mapping[str, SvetlanaError], count: int) -> None:
        texts = " ".join(str(error) if name in str(error) else f"{name}: {error}" for name, error in errors.items())
        failed = "The image" if count == 1 else f"{len(errors)} of {count} images"
        others = " The others are finished." if len(errors) < count else ""
        super().__init__(f"{failed} could not be predicted.{others} {texts}")
        self.images = tuple(errors)


def predict_images(task: PredictionTask, stop: Stop) -> Iterator[Progress | ImagePredicted | AllPredicted]:
    """Predict images one after the other; a stop keeps finished parts.

    Every image is checked against the classifier before the first image is predicted. A missing image does not prevent
    the prediction of other images; its error is raised at the end.

    Raises
    ------
    ClassifierError
        If the classifier does not fit an image; raised before any prediction.
    ImagesFailedError
        If some images could not be predicted; raised at the end.
    """
    import torch

    from svetlana_jupyter.learn.classifier import load_classifier
    from svetlana_jupyter.learn.live_classifier import LiveClassifier
    from svetlana_jupyter.learn.novelty import ReferenceDistribution

    yield Progress(0, 1, "opening")
    classifier, reference = (
        load_classifier(task.run.classifier_folder(), task.network, task.encoders),
        ReferenceDistribution.load(task.run.path),
    )
    if task.average:
        classifier = classifier.with_test_time_augmentation()
    if isinstance(classifier, LiveClassifier) and task.client is None:
        classifier.sources = task.cached(classifier.sources)
    torch.set_num_threads(task.threads)
    errors: dict[str, SvetlanaError] = {}
    pairs: dict[str, ImagePair] = {}
    plans: dict[str, _Plan] = {}
    for name in task.images:
        with _collect(errors, name):
            pairs[name] = task.pair(name)
    for pair in pairs.values():
        classifier.check(pair)
    for name, pair in pairs.items():
        with _collect(errors, name):
            plans[name] = _make_plan(task, name, pair, classifier)
    total = sum(len(plan.objects) for plan in plans.values())
    done = total - sum(len(part) for plan in plans.values() for part in plan.missing.values())
    yield Progress(done, total, "predicting", "objects")
    predicted: list[ImagePredicted] = []
    for name, plan in plans.items():
        if plan.complete:
            continue
        with _collect(errors, name):
            for count in _predict_missing(task, plan, classifier, reference, stop):
                done += count
                yield Progress(done, total, f"predicting {name}", "objects")
                if stop():
                    return
            table = _finish(task, name, plan, classifier.precision)
            failed = {int(label): str(why) for label, why in table.attrs.get("failed", ())}
            predicted.append(ImagePredicted(task.run.name, name, len(table), failed, plan.changed))
            yield predicted[-1]
    if len(predicted) > 1:
        yield AllPredicted(tuple(predicted))
    if errors:
        raise ImagesFailedError(errors, len(task.images)) from next(iter(errors.values()))


@dataclass(frozen=True)
class _Plan:
    """Parts of the objects of an image, and the parts that are not predicted yet."""

    pair: ImagePair
    objects: pd.DataFrame
    fingerprint: str
    files: str
    store: ImageParts
    parts: list[pd.DataFrame]
    missing: Mapping[int, pd.DataFrame]
    complete: bool
    changed: bool


@contextmanager
def _collect(errors: dict[str, SvetlanaError], name: str) -> Iterator[None]:
    """Add the error of an image to ``errors``, but raise a `PredictionWriteError`."""
    try:
        yield
    except PredictionWriteError:
        raise
    except SvetlanaError as error:
        errors[name] = error


def _make_plan(task: PredictionTask, name: str, pair: ImagePair, classifier: Classifier) -> _Plan:
    from svetlana_jupyter.learn.inference import split_into_parts

    objects, files = task.objects(name), task.fingerprint(name)
    stored = task.run.predictions_attributes(name)
    changed = not task.has_same_pixels(name, stored)
    # The fingerprint of a file that was copied may be another; predictions of the same pixels are kept.
    fingerprint = files if changed else str(stored.get("image", files))
    key = prediction_key(fingerprint, task.masks[name], objects, task.average, classifier.precision)
    store = ImageParts(task.run, name, key, classifier.classes)
    if changed:
        set_image_statistics(pair.image, None)
    store.start(task.resume)
    parts = split_into_parts(pair, objects, classifier)
    finished = store.finished_parts() if task.resume else {}
    complete = task.resume and store.is_complete()
    missing = {n: part for n, part in enumerate(parts) if not complete and finished.get(n) != len(part)}
    return _Plan(pair, objects, fingerprint, files, store, parts, missing, complete, changed)


def _finish(task: PredictionTask, name: str, plan: _Plan, precision: str) -> pd.DataFrame:
    """Store the predictions of an image, unless its files changed meanwhile."""
    pixels = task.pixel_hash(name)
    try:
        task.objects(name)
        if task.fingerprint(name) != plan.files:
            raise ProjectError(f"The image {name!r} changed while it was predicted. Predict it again.")
    except ProjectError:
        plan.store.start(resume=False)  # some parts are of one version, some of the other
        raise
    attributes: dict[Hashable, Any] = {"mask": task.masks[name], "image": plan.fingerprint, "pixels": pixels}
    attributes["precision"] = precision
    return plan.store.merge(range(len(plan.parts)), attributes)


def _predict_missing(
    task: PredictionTask, plan: _Plan, classifier: Classifier, reference: ReferenceDistribution | None, stop: Stop
) -> Iterator[int]:
    """Predict and store the missing parts of an image.

    Yield the number of objects that each step has processed.
    """
    from svetlana_jupyter.learn.inference import PartFinished, PredictionBatch, predict_parts, sample_for_novelty

    if not plan.missing:
        return
    to_compare = () if reference is None else sample_for_novelty(plan.objects)
    if task.client is not None:
        from svetlana_jupyter.project.distributed import predict_on_cluster

        parts = predict_on_cluster(task.client, plan.pair, plan.missing, classifier, reference, to_compare, stop)
        with closing(parts):
            for number, part in parts:
                plan.store.write_part(number, part)
                yield len(plan.missing[number])
        return
    batches: list[PredictionBatch] = []
    with closing(predict_parts(plan.pair, plan.missing, classifier, reference, to_compare)) as events:
        for event in events:
            if isinstance(event, PartFinished):
                plan.store.write_part(event.part, merge_batches(batches, event, classifier.classes))
                batches = []
                yield len(event.failed)
            else:
                batches.append(event)
                yield len(event.objects)

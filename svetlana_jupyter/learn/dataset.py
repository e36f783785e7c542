"""Training data: the inputs and labels of all annotated objects, in memory.

Each block of an image is read once, even if several trainings need different patches of the same objects.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from svetlana_jupyter.core.allowed_cues import restrict_to_allowed_cues
from svetlana_jupyter.core.features.compute import iter_features
from svetlana_jupyter.core.features.fitted_sources import FittedSources, fit_source, standard_sources
from svetlana_jupyter.core.groups import name_groups
from svetlana_jupyter.core.io.image_pair import ImagePair
from svetlana_jupyter.core.io.table_files import format_list
from svetlana_jupyter.core.objects import find_nonfinite_objects
from svetlana_jupyter.core.patch_geometry import resolve_patch_settings
from svetlana_jupyter.core.patches import cut_patches_for_each
from svetlana_jupyter.core.settings import FOREST, MeasureSettings, PatchSettings, TrainingSettings
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.learn.albumentations_adapter import build_pipeline
from svetlana_jupyter.learn.spatial import augmentation_margin
from svetlana_jupyter.learn.specification import ClassifierSpec

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping
    from pathlib import Path

    from torch import nn

    from svetlana_jupyter.core.features.feature_sources import FeatureSource

FEATURE_SAMPLE = 200  # objects that sources of features learn from before a training, which takes at most seconds
MAX_BYTES = 2 * 2**30  # memory that training patches may take

# An image, the table of all its objects, and the class ids of its annotated objects, indexed by object label.
AnnotatedImage = tuple[ImagePair, pd.DataFrame, pd.Series]


@dataclass(frozen=True)
class TrainingData:
    """Inputs, labels and settings of a training.

    Parameters
    ----------
    inputs : float32 of shape (n, ...)
        For a network, patches including the margin that augmentation needs; otherwise features (n, features).
    targets : int64 of shape (n,)
        Class ids.
    groups : str array of shape (n,)
        Group of each sample (value of the grouping columns, image, or region). A group is kept in one fold if possible.
    images : str array, objects : int64 array, of shape (n,)
        Image name and label of each sample.
    names : dict of int to str
        Class names by id; may be incomplete.
    ndim : 2 or 3
    channels : tuple of str
    settings : TrainingSettings
        Its automatic patch settings are resolved.
    edit_groups : str array of shape (n,)
        Name of the edit (one undo step, for example a lasso selection) that labeled the sample together with other
        samples; "" for a sample that was labeled individually.
    network : Module, optional
        The user's own module, which replaces the architecture of the settings.
    weights : Path, optional
        Initial weights: the folder of a run, or a file. By default ``settings.start_from`` is the path.
    sources : FittedSources, optional
        Sources of the features, for a live classifier.
    """

    inputs: NDArray[np.float32]
    targets: NDArray[np.int64]
    groups: NDArray[np.str_]
    images: NDArray[np.str_]
    objects: NDArray[np.int64]
    names: Mapping[int, str]
    ndim: int
    channels: tuple[str, ...]
    settings: TrainingSettings
    edit_groups: NDArray[np.str_]
    network: nn.Module | None = None
    weights: Path | None = None
    sources: FittedSources | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def classes(self) -> tuple[int, ...]:
        """The class ids of the samples, in ascending order."""
        return tuple(np.unique(self.targets).tolist())

    def subset(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> TrainingData:
        """Return the samples selected by a boolean mask or by positions."""
        names = ("inputs", "targets", "groups", "images", "objects", "edit_groups")
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})

    def with_edit_groups(self, edit_groups: pd.Series) -> TrainingData:
        """Return a copy with the edits of a series indexed by ``(image, object)``."""
        index = pd.MultiIndex.from_arrays([self.images, self.objects])
        return replace(self, edit_groups=edit_groups.reindex(index).fillna("").to_numpy(str))


@dataclass(frozen=True)
class WorkProgress:
    """Progress of a task: work done so far and total work, in arbitrary units.

    ``later`` is the work that is expected after the task, in the same units; None if it is not known.
    """

    done: float
    total: float
    text: str = ""
    later: float | None = 0.0


# Returns the sources of features for settings that are restricted to the allowed cues.
FeatureSupply = Callable[[TrainingSettings, Sequence[AnnotatedImage]], FittedSources]


def collect_for_each(
    parts: Iterable[AnnotatedImage],
    settings_list: Sequence[TrainingSettings],
    names: Mapping[int, str] | None = None,
    features: FeatureSupply | None = None,
) -> Iterator[WorkProgress | list[TrainingData]]:
    """Collect the data of several trainings, reading each image block only once.

    Parameters
    ----------
    parts : iterable of AnnotatedImage
        Images with their annotated objects.
    settings_list : sequence of TrainingSettings
        Settings of each training. Their automatic patch settings are resolved here.
    names : mapping of int to str, optional
        Class names by id, to be saved with the classifier.
    features : callable, optional
        Returns the sources of the features of live classifiers; by default, they learn from the objects of ``parts``.

    Yields
    ------
    WorkProgress
        After every block.
    list of TrainingData
        At the end, one per training.

    Raises
    ------
    InputError
        Before any pixel is read: if no objects or objects of only one class are annotated, if images differ in
        dimensions or channels, if a mask lacks an annotated object, or if the patches would not fit into memory. While
        pixels are read: if an annotated object has NaN or infinite pixels.
    SettingsError
        Before any pixel is read: if an augmentation pipeline fails on patches of this shape or changes their shape.
    """
    parts = _check_annotated(parts)
    frozen = resolve_settings(parts, settings_list)
    sources, fitted = _plan_sources(parts, frozen), dict[InputSettings, FittedSources]()
    for pair, objects, classes in parts:
        check_finite(pair, objects.loc[classes.index])
    sizes = [len(classes) for _, _, classes in parts]
    done, total = 0, len(sources) * sum(sizes)
    inputs = dict[InputSettings, NDArray[np.float32]]()
    for kinds, source in sources:
        if isinstance(kinds[0], FeatureSettings):
            yield WorkProgress(done, total)
            fitted[kinds[0]] = (features or fit_sources)(kinds[0].settings, parts)
            source = _each_alone(fitted[kinds[0]].compute)
        inputs |= yield from _cut_inputs(kinds, source, parts, done, total)
        done += sum(sizes)
    yield [_training_data(parts, settings, inputs, fitted, names or {}) for settings in frozen]


def _training_data(
    parts: Sequence[AnnotatedImage],
    settings: TrainingSettings,
    inputs: Mapping[InputSettings, NDArray[np.float32]],
    fitted: Mapping[InputSettings, FittedSources],
    names: Mapping[int, str],
) -> TrainingData:
    """Return the data of one training, given the inputs of all."""
    kind, n = _input_settings(settings), sum(len(classes) for _, _, classes in parts)
    return TrainingData(
        inputs=inputs[kind],
        targets=np.concatenate([classes.to_numpy(np.int64) for _, _, classes in parts]),
        groups=_name_groups(parts, settings),
        images=np.repeat([pair.name for pair, _, _ in parts], [len(classes) for _, _, classes in parts]),
        objects=np.concatenate([classes.index.to_numpy(np.int64) for _, _, classes in parts]),
        names=dict(names),
        ndim=parts[0][0].ndim,
        channels=tuple(map(str, parts[0][0].channels)),
        settings=settings,
        edit_groups=np.full(n, ""),
        sources=fitted.get(kind),
    )


def _cut_inputs(
    kinds: Sequence[InputSettings], source: Cut, parts: Sequence[AnnotatedImage], done: int, total: int
) -> Generator[WorkProgress, None, dict[InputSettings, NDArray[np.float32]]]:
    """Yield the progress after every block; return the inputs (n, ...) of each kind."""
    pieces, positions = list[list[NDArray[np.float32]]](), list[tuple[int, int]]()
    for number, (pair, objects, classes) in enumerate(parts):
        for labels, cut in source(pair, objects.loc[classes.index]):
            pieces.append(cut)
            positions += [(number, label) for label in labels.tolist()]
            yield WorkProgress(done + len(positions), total)
    # Objects were read in the order of the file's chunks. Sorting makes training independent of the chunk layout.
    order = np.lexsort(np.array(positions).T[::-1])
    return {kind: np.concatenate(column)[order] for kind, column in zip(kinds, zip(*pieces), strict=True)}


def fit_sources(
    settings: TrainingSettings, parts: Sequence[AnnotatedImage], sources: Sequence[FeatureSource] | None = None
) -> FittedSources:
    """Let the sources of features learn from the objects of annotated images.

    Parameters
    ----------
    settings : TrainingSettings
        Restricted to the allowed cues.
    parts : sequence of AnnotatedImage
    sources : sequence of FeatureSource, optional
        By default measurements and features of patches.
    """
    pairs = {pair.name: pair for pair, _, _ in parts}
    tables = {pair.name: objects for pair, objects, _ in parts}
    sources = sources or standard_sources(settings, parts[0][0].ndim, settings.threads or 1)
    found = [fit_source(source, tables, pairs.__getitem__, count=FEATURE_SAMPLE) for source in sources]
    return FittedSources(tuple(fitted for fitted, _ in filter(None, found)))


def resolve_settings(
    parts: Iterable[AnnotatedImage], settings_list: Sequence[TrainingSettings]
) -> list[TrainingSettings]:
    """Resolve the automatic patch settings of trainings, without reading pixels.

    Raises
    ------
    InputError
        If the annotations or images cannot be used for training; see `collect_for_each`.
    """
    parts = _check_annotated(parts)
    names = [str(number) for number in range(len(parts))]
    objects = pd.concat([objects for _, objects, _ in parts], keys=names)
    classes = pd.concat([classes for _, _, classes in parts], keys=names)
    resolve = partial(resolve_patch_settings, objects=objects, classes=classes, spacing=parts[0][0].spacing)
    return [
        settings.changed(patches=resolve(settings.patches, min_sampling=settings.min_patch_side))
        for settings in map(restrict_to_allowed_cues, settings_list)
    ]


def max_objects_in_memory(
    parts: Iterable[AnnotatedImage], settings_list: Sequence[TrainingSettings], nbytes: int
) -> int:
    """Return how many objects fit into ``nbytes`` of memory, without reading pixels.

    Raises
    ------
    InputError
        If the annotations or images cannot be used for training; see `collect_for_each`.
    """
    parts = _check_annotated(parts)
    pair = parts[0][0]
    return int(nbytes // max(1.0, _bytes_per_object(_margins(resolve_settings(parts, settings_list), pair), pair)))


def check_finite(pair: ImagePair, objects: pd.DataFrame) -> None:
    """Raise an error if objects contain NaN or infinite pixels.

    See `core.objects.find_nonfinite_objects`.

    Parameters
    ----------
    pair : ImagePair
    objects : DataFrame
        Rows of the object table (`core.objects.index_objects`).

    Raises
    ------
    InputError
        If there are such pixels. The message contains the image and the objects.
    """
    invalid = find_nonfinite_objects(pair.image, pair.mask, objects)
    if invalid:
        raise InputError(
            f"{pair.name!r} has NaN or infinite pixels inside the annotated objects {format_list(invalid)}. Flag these "
            "objects as bad segmentation, or replace these pixels, for example with numpy.nan_to_num(image), and add "
            "the image again."
        )


def check_several_classes(targets: NDArray[np.int64]) -> None:
    """Raise an `InputError` if all annotations are of one class."""
    if len(np.unique(targets)) < 2:
        raise InputError(
            "Training needs objects of at least 2 classes, but only one class is annotated. "
            "Annotate objects of another class."
        )


def make_classifier_spec(samples: TrainingData, history: tuple[Mapping[str, object], ...]) -> ClassifierSpec:
    """Return the specification of a classifier trained on these samples."""
    module = type(samples.network)
    return ClassifierSpec(
        classes=samples.classes,
        class_names=tuple(samples.names.get(class_id, f"class {class_id}") for class_id in samples.classes),
        ndim=samples.ndim,
        channels=samples.channels,
        settings=samples.settings,
        history=history,
        module=f"{module.__module__}:{module.__qualname__}" if samples.network is not None else "",
    )


@dataclass(frozen=True)
class FeatureSettings:
    """Settings that determine the features of a live classifier.

    Others are not compared.
    """

    may_use: frozenset[str]
    measurements: MeasureSettings
    unit: Literal["px", "um"]
    settings: TrainingSettings = field(compare=False)


# Settings that determine the inputs: for a network the patch settings, for a forest the measurements and their unit.
InputSettings = PatchSettings | tuple[MeasureSettings, Literal["px", "um"]] | FeatureSettings
Cut = Callable[[ImagePair, pd.DataFrame], Iterator[tuple[NDArray[np.int64], list[NDArray[np.float32]]]]]


def _input_settings(settings: TrainingSettings) -> InputSettings:
    if settings.has_network:
        return settings.patches
    measured = settings.measurements, settings.patches.unit
    return measured if settings.architecture == FOREST else FeatureSettings(settings.may_use, *measured, settings)


def _plan_sources(
    parts: Sequence[AnnotatedImage], frozen: Sequence[TrainingSettings]
) -> list[tuple[Sequence[InputSettings], Cut]]:
    """Plan the passes over the images that collect the inputs of all trainings.

    Each pass is a pair of input settings and a function that yields the inputs for these settings.

    Raises
    ------
    InputError
        If the inputs do not fit in memory.
    """
    pair = parts[0][0]
    margins = _margins(frozen, pair)
    _check_memory(sum(len(classes) for _, _, classes in parts), pair, margins)
    cut_patches = partial(cut_patches_for_each, settings_and_margins=list(margins.items()))
    sources: list[tuple[Sequence[InputSettings], Cut]] = [([*margins], cut_patches)] if margins else []
    for settings in dict.fromkeys(map(_input_settings, frozen)):
        if isinstance(settings, tuple):
            measurements, unit = settings
            sources.append(([settings], _each_alone(partial(iter_features, settings=measurements, unit=unit))))
        elif isinstance(settings, FeatureSettings):
            sources.append(([settings], _each_alone(iter_features)))  # the sources are fitted when they are needed
    return sources


def _each_alone(compute: Callable[..., Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]]) -> Cut:
    """Return a function that yields the inputs of a single kind as a list."""
    return lambda pair, objects: ((labels, [values]) for labels, values in compute(pair, objects))


def _margins(frozen: Sequence[TrainingSettings], pair: ImagePair) -> dict[PatchSettings, tuple[float, ...]]:
    """Return the distinct patch settings, each with the largest margin it needs."""
    margins: dict[PatchSettings, tuple[float, ...]] = {}
    for settings in frozen:
        if settings.has_network:
            build_pipeline(settings, pair.ndim, len(pair.channels))  # raises before any pixel is read
            margin = augmentation_margin(settings.augmentation, settings.patches)
            margins[settings.patches] = tuple(map(max, margin, margins.get(settings.patches, margin)))
    return margins


def _name_groups(parts: Sequence[AnnotatedImage], settings: TrainingSettings) -> NDArray[np.str_]:
    groups = []
    for pair, objects, classes in parts:
        names = name_groups(pair.name, pair.groups, objects, pair.mask.shape, len(parts) == 1, settings.hold_out_by)
        groups.append(names.loc[classes.index])
    return np.concatenate(groups)


def _check_annotated(parts: Iterable[AnnotatedImage]) -> list[AnnotatedImage]:
    """Return the images that have annotated objects, or raise an `InputError`.

    The images must agree in dimensions and channels, their masks must contain all annotated objects, and at least two
    classes must be annotated.
    """
    parts = [(pair, objects, classes.sort_index()) for pair, objects, classes in parts if len(classes)]
    if not parts:
        raise InputError(
            "Training needs annotated objects, but there are none yet. Annotate a few objects of each class first."
        )
    check_several_classes(np.concatenate([classes.to_numpy(np.int64) for _, _, classes in parts]))
    first = parts[0][0]
    for pair, objects, classes in parts:
        if pair.ndim != first.ndim or len(pair.channels) != len(first.channels):
            raise InputError(
                "All training images must have the same dimensions and channels, but "
                f"{first.name!r} is {first.ndim}D with {len(first.channels)} channels, and {pair.name!r} is "
                f"{pair.ndim}D with {len(pair.channels)}. Exclude one of these images from the training."
            )
        missing = classes.index.difference(objects.index)
        if len(missing):
            raise InputError(
                f"{pair.name!r} has no object {missing[0]}, which is annotated; its mask may have changed. "
                "Replace the mask with project.replace_mask(…), which carries the annotations over."
            )
    return parts


def _check_memory(count: int, pair: ImagePair, margins: Mapping[PatchSettings, tuple[float, ...]]) -> None:
    needed = count * _bytes_per_object(margins, pair)
    if needed > MAX_BYTES:
        sides = next(iter(margins)).shape
        raise InputError(
            f"The {count} training patches of {' × '.join(map(str, sides))} pixels would take "
            f"{needed / 2**30:.1f} GiB of memory, more than {MAX_BYTES / 2**30:.0f}. "
            f"Give the patches a smaller sampling, for example {max(8, min(sides) // 2)} pixels per side."
        )


def _bytes_per_object(margins: Mapping[PatchSettings, tuple[float, ...]], pair: ImagePair) -> float:
    needed = 0.0
    for patches, margin in margins.items():
        pixels = math.prod(side * factor for side, factor in zip(patches.shape, margin, strict=True))
        needed += 4 * pixels * (len(pair.channels) * (1 + patches.has_doubled_channels) + 1)
    return needed

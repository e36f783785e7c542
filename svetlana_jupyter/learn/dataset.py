"""The annotated objects as one block of training data in memory.

What a network begins with, beside what settings can hold.

Pixels that are not numbers: what is computed from an object that has some cannot be trusted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn

from svetlana_jupyter.core.allowed_cues import restrict_to_allowed_cues
from svetlana_jupyter.core.features.compute import iter_features
from svetlana_jupyter.core.groups import name_groups
from svetlana_jupyter.core.io.chunks import ArrayRegion, read_regions
from svetlana_jupyter.core.io.image_pair import ImagePair
from svetlana_jupyter.core.patch_geometry import resolve_patch_settings
from svetlana_jupyter.core.patches import cut_patches_for_each
from svetlana_jupyter.core.settings import MeasureSettings, PatchSettings, TrainingSettings
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.learn.albumentations_adapter import build_pipeline
from svetlana_jupyter.learn.spatial import augmentation_margin
from svetlana_jupyter.learn.specification import ClassifierSpec


@dataclass(frozen=True)
class InitialWeights:
    """A module of the user's, and where weights are.

    Parameters
    ----------
    network : Module, optional
        The user's own, instead of the architecture of the settings.
    weights : Path, optional
        What ``start_from`` of the settings means: a run's folder, or a file of weights. None: its own text is the path.
    """

    network: nn.Module | None = None
    weights: Path | None = None


NO_INITIAL_WEIGHTS = InitialWeights()


NAMED = 5  # objects that the sentence names


def check_finite(pair: ImagePair, objects: pd.DataFrame) -> None:
    """Refuse objects with pixels of their own that are NaN or infinite; of integer images nothing is read.

    Around the objects such pixels are common, beyond the border of a registered image for example, and count as 0.

    Parameters
    ----------
    objects : DataFrame
        Rows of `core.objects.index_objects`.

    Raises
    ------
    InputError
        With the image and the objects.
    """
    if not np.issubdtype(pair.image.dtype, np.inexact):
        return
    axes = "zyx"[-pair.ndim :]
    lows, highs = (objects[[f"{axis}{end}" for axis in axes]].to_numpy(np.int64).tolist() for end in (0, 1))
    windows = [ArrayRegion(tuple(low), tuple(high)) for low, high in zip(lows, highs, strict=True)]
    found = zip(objects.index, read_regions(pair.image, windows), read_regions(pair.mask, windows), strict=True)
    holes = [str(label) for label, pixels, mask in found if not np.isfinite(pixels[:, mask == label]).all()]
    if holes:
        more = f" and {len(holes) - NAMED} more" if len(holes) > NAMED else ""
        raise InputError(
            f"{pair.name!r} has pixels that are no numbers (NaN or infinite) inside the annotated objects "
            f"{', '.join(holes[:NAMED])}{more}. Mark these as bad segmentation, or replace such pixels and add the "
            "image again, for example numpy.nan_to_num(image)."
        )


MAX_BYTES = 2 * 2**30

AnnotatedImage = tuple[ImagePair, pd.DataFrame, pd.Series]


@dataclass(frozen=True)
class TrainingData:
    """What a classifier trains on.

    Parameters
    ----------
    inputs : float32 of shape (n, ...)
        Patches with the margin that augmentation needs, or for a forest measured properties (n, features).
    targets : int64 of shape (n,)
        Class ids.
    groups : str array of shape (n,)
        What must not be split between training and testing: the grouping columns, else the image, else a region.
    images : str array, objects : int64 array, of shape (n,)
        Whose sample it is.
    names : dict of int to str
        Names of the classes, as far as they are known.
    settings : TrainingSettings
        With concrete patches.
    edit_groups : str array of shape (n,)
        The edit (a lasso, a selection in the gallery) that named each sample among others, "" where it was alone.
    start : Start
        What a network begins with, beside what the settings say.
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
    edit_groups: NDArray[np.str_] = field(default_factory=lambda: np.empty(0, str))
    initial: InitialWeights = NO_INITIAL_WEIGHTS

    def __post_init__(self) -> None:
        if not len(self.edit_groups):
            object.__setattr__(self, "edit_groups", np.full(len(self.targets), ""))

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def classes(self) -> tuple[int, ...]:
        """The class ids that occur, ascending."""
        return tuple(int(id) for id in np.unique(self.targets))

    def subset(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> TrainingData:
        """Return some of the samples."""
        names = ("inputs", "targets", "groups", "images", "objects", "edit_groups")
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})

    def with_edit_groups(self, edit_groups: pd.Series) -> TrainingData:
        """Return these samples with the edit_groups that named them, as text indexed by ``(image, object)``."""
        index = pd.MultiIndex.from_arrays([self.images, self.objects])
        return replace(self, edit_groups=edit_groups.reindex(index).fillna("").to_numpy(str))


@dataclass(frozen=True)
class CollectionProgress:
    """Progress: so many of the annotated objects are cut."""

    done: int
    total: int


def collect_training_data(
    parts: Iterable[AnnotatedImage], settings: TrainingSettings, names: Mapping[int, str] | None = None
) -> TrainingData:
    """Cut all annotated objects; see `collect_with_progress`."""
    for event in collect_with_progress(parts, settings, names):
        if isinstance(event, TrainingData):
            return event
    raise AssertionError("gather ends with Samples")


def collect_with_progress(
    parts: Iterable[AnnotatedImage], settings: TrainingSettings, names: Mapping[int, str] | None = None
) -> Iterator[CollectionProgress | TrainingData]:
    """Cut all annotated objects once.

    Parameters
    ----------
    parts : iterable of (pair, objects, classes)
        An image, the table of all its objects, and the class ids of the annotated ones, indexed by object.
    settings : TrainingSettings
        Its patches become concrete here.
    names : mapping of int to str, optional
        Class names, to be saved with the classifier.

    Yields
    ------
    Gathering
        After every block.
    Samples
        At the end.

    Raises
    ------
    InputError
        Before any pixel is read: if no object or only one class is annotated, images do not fit each other, or the
        patches would not fit into memory. Before patches are cut: if objects have pixels that are no numbers.
    SettingsError
        Before any pixel is read: if the augmentation pipeline cannot work on such patches.
    """
    for event in collect_for_each(parts, [settings], names):
        yield event if isinstance(event, CollectionProgress) else event[0]


def collect_for_each(
    parts: Iterable[AnnotatedImage], several: Sequence[TrainingSettings], names: Mapping[int, str] | None = None
) -> Iterator[CollectionProgress | list[TrainingData]]:
    """Cut all annotated objects for several trainings, reading each block once for all networks.

    Trainings that see the same patches share them, cut as wide as any of them needs. Parameters and errors are those of
    `collect_with_progress`; the last thing that is yielded holds the samples of each training.
    """
    parts = _annotated(parts)
    frozen = resolve_settings(parts, several)
    sources = _sources(parts, frozen)
    for pair, objects, classes in parts:
        check_finite(pair, objects.loc[classes.index])
    done, total = 0, len(sources) * sum(len(classes) for _, _, classes in parts)
    inputs = dict[InputSettings, NDArray[np.float32]]()
    for source in sources:
        pieces, keys = list[list[NDArray[np.float32]]](), list[tuple[int, int]]()
        for number, (pair, objects, classes) in enumerate(parts):
            for labels, each in source.cut(pair, objects.loc[classes.index]):
                pieces.append(each)
                keys += [(number, label) for label in labels.tolist()]
                done += len(labels)
                yield CollectionProgress(done, total)
        # Block order follows the chunks of a file; training must not depend on how a file is stored.
        order = np.lexsort(np.array(keys).T[::-1])
        inputs |= {seen: np.concatenate(one)[order] for seen, one in zip(source.seen, zip(*pieces), strict=True)}
    known = [classes.sort_index() for _, _, classes in parts]
    targets = np.concatenate([classes.to_numpy(np.int64) for classes in known])
    images = np.repeat([pair.name for pair, _, _ in parts], [len(classes) for classes in known])
    labels = np.concatenate([classes.index.to_numpy(np.int64) for classes in known])
    channels = tuple(map(str, parts[0][0].channels))
    yield [
        TrainingData(
            inputs=inputs[_seen(settings)],
            targets=targets,
            groups=_groups(parts, settings),
            images=images,
            objects=labels,
            names=dict(names or {}),
            ndim=parts[0][0].ndim,
            channels=channels,
            settings=settings,
        )
        for settings in frozen
    ]


def resolve_settings(parts: Iterable[AnnotatedImage], several: Sequence[TrainingSettings]) -> list[TrainingSettings]:
    """Return the settings of several trainings on these objects, with concrete patches; nothing is read.

    Raises
    ------
    InputError
        As `collect_for_each` does before any pixel is read.
    """
    parts = _annotated(parts)
    return [settings.changed(patches=_freeze(parts, settings)) for settings in map(restrict_to_allowed_cues, several)]


def max_objects_in_memory(parts: Iterable[AnnotatedImage], several: Sequence[TrainingSettings], size: int) -> int:
    """Return the inputs of how many objects `collect_for_each` could hold in so many bytes; nothing is read.

    Raises
    ------
    InputError
        As `collect_for_each` does before any pixel is read.
    """
    parts = _annotated(parts)
    channels = len(parts[0][0].channels)
    margins = _margins(resolve_settings(parts, several), parts[0][0].ndim, channels)
    return int(size // max(1.0, _bytes_each(channels, margins)))


Unit = Literal["px", "um"]
InputSettings = PatchSettings | tuple[MeasureSettings, Unit]  # what decides the inputs of a training


@dataclass(frozen=True)
class _Source:
    """One pass over the images, which cuts the inputs of one training or of several."""

    seen: list[InputSettings]
    cut: Callable[[ImagePair, pd.DataFrame], Iterator[tuple[NDArray[np.int64], list[NDArray[np.float32]]]]]


def _seen(settings: TrainingSettings) -> InputSettings:
    forest = settings.architecture == "forest"
    return (settings.measurements, settings.patches.unit) if forest else settings.patches


def _sources(parts: Sequence[AnnotatedImage], frozen: Sequence[TrainingSettings]) -> list[_Source]:
    """Return the passes that all trainings together need, and make sure that what they cut fits."""
    channels = len(parts[0][0].channels)
    margins = _margins(frozen, parts[0][0].ndim, channels)
    _check_memory(sum(len(classes) for _, _, classes in parts), channels, margins)
    ways = list(margins.items())
    sources = [_Source([*margins], lambda pair, objects: cut_patches_for_each(pair, objects, ways))] if ways else []
    for seen in dict.fromkeys(map(_seen, frozen)):
        if isinstance(seen, tuple):
            sources.append(_Source([seen], partial(_measured, seen)))
    return sources


def _margins(frozen: Sequence[TrainingSettings], ndim: int, channels: int) -> dict[PatchSettings, tuple[float, ...]]:
    """Return the patches of all networks, with the widest margin that one of them needs."""
    margins: dict[PatchSettings, tuple[float, ...]] = {}
    for settings in frozen:
        if settings.architecture != "forest":
            build_pipeline(settings, ndim, channels)
            margin = augmentation_margin(settings.augmentation, settings.patches)
            margins[settings.patches] = tuple(map(max, margin, margins.get(settings.patches, margin)))
    return margins


def _measured(
    seen: tuple[MeasureSettings, Unit], pair: ImagePair, objects: pd.DataFrame
) -> Iterator[tuple[NDArray[np.int64], list[NDArray[np.float32]]]]:
    for labels, values in iter_features(pair, objects, *seen):
        yield labels, [values]


def _groups(parts: Sequence[AnnotatedImage], settings: TrainingSettings) -> NDArray[np.str_]:
    names = [
        name_groups(pair.name, pair.groups, objects, pair.mask.shape, len(parts) == 1, settings.hold_out_by)
        for pair, objects, _ in parts
    ]
    return np.concatenate([group.loc[part[2].sort_index().index] for group, part in zip(names, parts, strict=True)])


def _annotated(parts: Iterable[AnnotatedImage]) -> list[AnnotatedImage]:
    """Return the images with annotated objects, which can be trained on together."""
    parts = [part for part in parts if len(part[2])]
    if not parts:
        raise InputError(
            "training needs annotated objects, but there are none yet. Annotate a few of each class first."
        )
    ids = np.unique(np.concatenate([classes.to_numpy(np.int64) for _, _, classes in parts]))
    if len(ids) < 2:
        raise InputError(
            "training needs objects of at least 2 classes, but only one class has any. Annotate another class."
        )
    first = parts[0][0]
    for pair, objects, classes in parts:
        if pair.ndim != first.ndim or len(pair.channels) != len(first.channels):
            raise InputError(
                f"images trained on together must have the same dimensions and channels, but {first.name!r} is "
                f"{first.ndim}D with {len(first.channels)} and {pair.name!r} is {pair.ndim}D with {len(pair.channels)}."
            )
        missing = classes.index.difference(objects.index)
        if len(missing):
            raise InputError(
                f"{pair.name!r} has no object {missing[0]}, which is annotated; its mask may have changed."
            )
    return parts


def _freeze(parts: Sequence[AnnotatedImage], settings: TrainingSettings) -> PatchSettings:
    names = [str(number) for number in range(len(parts))]
    objects = pd.concat([objects for _, objects, _ in parts], keys=names)
    classes = pd.concat([classes for _, _, classes in parts], keys=names)
    return resolve_patch_settings(settings.patches, objects, classes, parts[0][0].spacing, settings.min_patch_side)


def _check_memory(count: int, channels: int, margins: Mapping[PatchSettings, tuple[float, ...]]) -> None:
    needed = count * _bytes_each(channels, margins)
    if needed > MAX_BYTES:
        sides = next(iter(margins)).sampling
        assert isinstance(sides, tuple)
        raise InputError(
            f"the {count} training patches of {' × '.join(map(str, sides))} pixels would take "
            f"{needed / 2**30:.1f} GiB of memory, more than {MAX_BYTES / 2**30:.0f}. "
            f"Give patches a smaller sampling, for example {max(8, min(sides) // 2)}."
        )


def _bytes_each(channels: int, margins: Mapping[PatchSettings, tuple[float, ...]]) -> float:
    """Return how much memory all patches of one object take."""
    needed = 0.0
    for patches, margin in margins.items():
        assert isinstance(patches.sampling, tuple)
        pixels = math.prod(side * wider for side, wider in zip(patches.sampling, margin, strict=True))
        needed += 4 * pixels * (channels * (2 if patches.has_doubled_channels else 1) + 1)
    return needed


def make_classifier_spec(samples: TrainingData, history: tuple[Mapping[str, object], ...]) -> ClassifierSpec:
    """Return the specification of a classifier trained on these samples."""
    own = type(samples.initial.network)
    return ClassifierSpec(
        classes=samples.classes,
        class_names=tuple(samples.names.get(id, f"class {id}") for id in samples.classes),
        ndim=samples.ndim,
        channels=samples.channels,
        settings=samples.settings,
        history=history,
        module=f"{own.__module__}:{own.__qualname__}" if samples.initial.network is not None else "",
    )

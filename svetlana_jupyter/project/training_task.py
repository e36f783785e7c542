"""Inputs of a training: settings, initial weights, and the selected labels.

A project may come from an untrusted source, so opening it and pressing Train must not import code or read files outside
the project. Names in ``training.json`` are therefore resolved only to runs of the project and to modules that are
already imported; a call of `Project.train` by the user may name any module and file.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from svetlana_jupyter.core.classes import ClassInfo, ClassScheme
from svetlana_jupyter.core.settings import AUTO_PRESET, FOREST, USER_ARCHITECTURE, TrainingSettings
from svetlana_jupyter.core.stats.metrics import exclusion_reasons
from svetlana_jupyter.errors import ProjectError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch.nn import Module

    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.learn.dataset import AnnotatedImage, FeatureSupply, TrainingData, WorkProgress
    from svetlana_jupyter.project.image_collection import ImageCollection
    from svetlana_jupyter.project.runs import Run

Size = tuple[float | None, float | None]


@dataclass(frozen=True)
class TrainingSetup:
    """Settings of a training, with their network and initial weights.

    Attributes
    ----------
    settings : TrainingSettings
    network : Module or None
        A network that the user passed as an object.
    weights : Path or None
        The file or folder that the setting ``start_from`` names.
    run : str
        The run of this project that ``start_from`` names; "" if it does not name a run.
    """

    settings: TrainingSettings
    network: Module | None = None
    weights: Path | None = None
    run: str = ""


def resolve_setup(
    stored: TrainingSettings,
    given: TrainingSettings | None,
    changes: Mapping[str, Any],
    network: Module | None,
    runs: Mapping[str, Run],
) -> TrainingSetup:
    """Combine the settings passed to a call with the settings in the project's file.

    Parameters
    ----------
    stored : TrainingSettings
        Settings in the project's file.
    given : TrainingSettings, optional
        Settings passed to the call, which are used instead of the stored settings.
    changes : mapping
        Individual settings passed to the call. A module that ``architecture`` names here is imported.
    network : Module, optional
    runs : mapping of str to Run

    Raises
    ------
    ProjectError
        If the file names weights that are not a run of this project.
    """
    settings = (given or stored).changed(**changes)
    if network is not None:
        settings = settings.changed(architecture=USER_ARCHITECTURE)
    elif ":" in str(changes.get("architecture", "")):
        from svetlana_jupyter.learn.build import import_network

        import_network(settings.architecture)
    name = settings.start_from
    if name is None:
        return TrainingSetup(settings, network)
    if name in runs:
        return TrainingSetup(settings, network, runs[name].classifier_folder(), name)
    if "start_from" not in changes and name == stored.start_from:
        raise ProjectError(
            f"training.json contains start_from={name!r}, but the file may only name runs of its project "
            f"({', '.join(runs) or 'none yet'}). If you trust these weights, call project.train(start_from={name!r})."
        )
    return TrainingSetup(settings, network, Path(name))


@dataclass(frozen=True)
class TrainingTask:
    """Inputs of a training run, copied at its start, so that annotation can continue.

    Attributes
    ----------
    pairs : mapping of image name to ImagePair
    objects : callable
        Returns the object table of an image.
    labels : Series of int
        Class ids, indexed by ``(image, object)``.
    explanation : str
        A sentence about annotations that are left out; "" if none is left out.
    masks : mapping of image name to int
        Number of the current mask of each image.
    edit_groups : Series of str
        Edit in which each object was labeled with others; "" for objects labeled one by one.
    classes : ClassScheme
    setup : TrainingSetup
        The settings as given, the initial network and the initial weights.
    settings : TrainingSettings
        The settings with the number of threads and, after model selection, a concrete preset.
    runs : tuple of Run
        Earlier runs, in which the preset may have been selected.
    folder : Path
        Folder of the runs.
    search : bool
        Whether to compare presets again, even if an earlier run has compared them.
    stores_first : bool
        Whether to store a forest to use while presets are compared.
    features : callable, optional
        Returns the sources of features for a live classifier (`learn.dataset.FeatureSupply`), which may be cached.
    check_masks : callable
        Raises a `ProjectError` if a mask is no longer the one whose objects are labeled.

    Raises
    ------
    ProjectError
        If ``search`` is True, but the settings name a preset.
    """

    pairs: Mapping[str, ImagePair]
    objects: Callable[[str], pd.DataFrame]
    labels: pd.Series[int]
    explanation: str
    masks: Mapping[str, int]
    edit_groups: pd.Series[str]
    classes: ClassScheme
    setup: TrainingSetup
    settings: TrainingSettings
    runs: tuple[Run, ...]
    folder: Path
    search: bool = False
    stores_first: bool = True
    features: FeatureSupply | None = None
    check_masks: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        if self.search and self.setup.settings.preset != AUTO_PRESET:
            preset = self.setup.settings.preset
            raise ProjectError(f'Presets cannot be compared: the settings use preset "{preset}". Pass preset="auto".')

    @property
    def class_names(self) -> dict[int, str]:
        """Class names by id."""
        return dict(zip(self.classes.ids, self.classes.names))

    def labels_table(self) -> pd.DataFrame:
        """Return the labels as `Run.training_labels` does."""
        table = self.labels.rename("class_id").reset_index()
        edit = self.edit_groups.reindex(self.labels.index).fillna("").to_numpy(str)
        return table.assign(mask=table["image"].map(self.masks).astype("int64"), edit=edit)

    def parts(self) -> list[AnnotatedImage]:
        """Return each annotated image, its object table, and the annotated classes."""
        parts, annotated = [], set(self.labels.index.unique("image"))
        for name, pair in self.pairs.items():
            if name in annotated:
                objects, labels = self.objects(name), self.labels.xs(name, level="image")
                parts.append((pair, objects, labels[labels.index.isin(objects.index)]))
        return parts

    def collect_for_each(
        self, several: Sequence[TrainingSettings], parts: Sequence[AnnotatedImage]
    ) -> Iterator[WorkProgress | list[TrainingData]]:
        """Cut patches or measure objects for several settings in one pass."""
        from svetlana_jupyter.learn.dataset import collect_for_each

        initial: dict[str, Any] = {"network": self.setup.network, "weights": self.setup.weights}
        for event in collect_for_each(parts, several, self.class_names, self.features):
            if not isinstance(event, list):
                yield event
                continue
            samples = [one.with_edit_groups(self.edit_groups) for one in event]
            yield [replace(one, **initial) if one.settings.has_network else one for one in samples]

    def collect_with_progress(self, settings: TrainingSettings) -> Iterator[WorkProgress | TrainingData]:
        """Cut patches of the annotated objects, or measure these objects."""
        for event in self.collect_for_each([settings], self.parts()):
            yield event[0] if isinstance(event, list) else event

    def samples(self, settings: TrainingSettings) -> TrainingData:
        """Return the training data, which are the last event of `collect_with_progress`."""
        *_, samples = self.collect_with_progress(settings)
        return samples  # type: ignore[return-value]

    def forest_data(self) -> Iterator[WorkProgress | TrainingData]:
        """Measure the annotated objects for a random forest."""
        return self.collect_with_progress(self.settings.changed(architecture=FOREST))


def check_masks(images: ImageCollection, names: Iterable[str], masks: Mapping[str, int]) -> None:
    """Raise a `ProjectError` if the mask of an image is not the one that was labeled.

    Parameters
    ----------
    images : ImageCollection
    names : iterable of str
    masks : mapping of image name to int
        Number of the mask of each image that was labeled.
    """
    current = images.mask_numbers()
    for name in names:
        if current.get(name) != masks[name]:
            raise ProjectError(f"the mask of image {name!r} was replaced after the training.")
    images.check(names)


def stored_task(
    run: Run,
    runs: Sequence[Run],
    images: ImageCollection,
    edit_groups: Callable[[], pd.Series[str]],
    folder: Path,
    features: FeatureSupply,
    network: Module | None = None,
) -> TrainingTask:
    """Return the inputs of the training of a stored run, to score it.

    Parameters
    ----------
    run : Run
    runs : sequence of Run
        All runs; initial weights are read from these only.
    images : ImageCollection
    edit_groups : callable
        Returns `Annotations.edit_groups`, for runs that did not store the edits.
    folder : Path
        Folder of the runs.
    features : callable
        Returns the sources of features for a live classifier.
    network : Module, optional
        The network of the run, if the user passed it as an object.

    Raises
    ------
    ProjectError
        If the labels are not stored, or belong to other masks, or if network or initial weights are not available.
    """
    table, settings = run.training_labels(), TrainingSettings(**run.settings)
    if table is None:
        raise ProjectError("its labels were not stored. Train again to get a score.")
    masks = dict(zip(table["image"], table["mask"].tolist()))
    check_masks(images, masks, masks)
    if settings.architecture == USER_ARCHITECTURE and network is None:
        raise ProjectError("its network was passed as an object in an earlier session. Train again to get a score.")
    start = next((each for each in runs if each.name == settings.start_from), None)
    if settings.start_from is not None and start is None:
        raise ProjectError(f"its training started from {settings.start_from}, which is no run of this project.")
    weights = None if start is None else start.classifier_folder()
    index = pd.MultiIndex.from_frame(table[["image", "object"]])
    return TrainingTask(
        pairs={name: images.pair(name) for name in masks},
        objects=images.objects,
        labels=pd.Series(table["class_id"].to_numpy("int64"), index),
        explanation="",
        masks=masks,
        edit_groups=pd.Series(table["edit"].to_numpy(str), index) if "edit" in table else edit_groups(),
        classes=ClassScheme(tuple(ClassInfo(class_id, name, "", "") for class_id, name in run.classes.items())),
        setup=TrainingSetup(settings, network, weights, start.name if start else ""),
        settings=settings,
        runs=(),
        folder=folder,
        features=features,
        check_masks=partial(check_masks, images, list(masks), masks),
    )


def label_digest(labels: pd.Series[int]) -> str:
    """Return a hash of labels that does not depend on their order."""
    images, objects = (labels.index.get_level_values(level) for level in ("image", "object"))
    rows = sorted(zip(images, objects.tolist(), labels.tolist()))
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]


def readiness(has_images: bool, counts: pd.Series[int], explanation: str = "") -> str:
    """Return a sentence about what is missing for training; "" if training can start.

    Parameters
    ----------
    has_images : bool
    counts : Series of int
        Number of annotations, by class name.
    explanation : str
        A sentence about annotations that are left out.
    """
    if not has_images:
        return "There are no images yet: add some, then annotate."
    if len(counts) < 2:
        return "Two classes are needed: add them, then annotate some objects of each."
    present = [str(name) for name in counts.index[counts > 0]]
    if len(present) >= 2:
        return ""
    nothing = "none has any" if explanation else "nothing is annotated yet"
    state = f"only {present[0]} has some" if present else nothing
    return f"At least 2 classes need examples; {state}. {explanation}".strip()


def select_training_objects(
    labels: pd.DataFrame, objects: Callable[[str], pd.DataFrame], exclude_border: bool, size: Size | None
) -> tuple[pd.DataFrame, str]:
    """Select the labels for training by the position and size of their objects.

    Parameters
    ----------
    labels : DataFrame
        Indexed by ``(image, object)``.
    objects : callable
        Returns the object table of an image.
    exclude_border : bool
        Whether to leave out objects that touch the border of their image.
    size : tuple of float or None, optional
        Smallest and largest size in pixels (voxels).

    Returns
    -------
    labels : DataFrame
    explanation : str
        A sentence about the objects that are left out; "" if none is left out.
    """
    if labels.empty or not (exclude_border or any(bound is not None for bound in size or ())):
        return labels, ""
    tables = [
        objects(str(image)).reindex(rows.index.get_level_values("object")).set_axis(rows.index)
        for image, rows in labels.groupby(level="image", sort=False)
    ]
    # All objects have a label, so border and size are the only possible reasons.
    table = pd.concat(tables).loc[labels.index, ["on_border", "size"]].assign(**{"class": "any"})
    reason = exclusion_reasons(table, exclude_border, size or (None, None))
    texts = {"border": "at the border of their image", "size": "by their size"}
    parts = [f"{n:,} {text}" for why, text in texts.items() if (n := int((reason == why).sum()))]
    return labels[reason == ""], f"Annotated objects left out of training: {' and '.join(parts)}." if parts else ""

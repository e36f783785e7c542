"""Which recipe a training uses where its settings leave that open: searched for, or as it was found before."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from svetlana_jupyter.core.candidates import SMALL, candidates
from svetlana_jupyter.core.recipes import AUTO_PRESET, DEFAULT
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.project.jobs import Progress, Stop
from svetlana_jupyter.project.tried import last_search, search_record

if TYPE_CHECKING:
    from svetlana_jupyter.learn.samples import Part, TrainingData
    from svetlana_jupyter.learn.search import Found
    from svetlana_jupyter.project.runs import Run
    from svetlana_jupyter.project.training import TrainingTask

GROWN = 2  # times as many annotations as the last search had ask for another
ROOM = 2**30  # bytes that the patches of all candidates may take together


@dataclass(frozen=True)
class PresetChoice:
    """The settings of a training, with a recipe that is named.

    Attributes
    ----------
    settings : TrainingSettings
    says : str
        How the recipe came about; "" where the settings named it.
    found : Found or None
        What a search found, where there was one.
    tried : mapping or None
        What is kept of it (`project.tried.search_record`).
    run : str
        The earlier run in which the recipe was chosen, "" where it is none.
    """

    settings: TrainingSettings
    says: str = ""
    found: Found | None = None
    tried: Mapping[str, Any] | None = None
    run: str = ""


def choose(task: TrainingTask, stop: Stop) -> Generator[Progress, None, PresetChoice | None]:
    """Settle the recipe of a training, by a search where there was none yet or too little was known; None if stopped.

    What is stored of a recipe that was chosen before is its name and its number of epochs: patches follow the objects
    that are annotated now.
    """
    settings = task.settings
    if settings.recipe != AUTO_PRESET:
        return PresetChoice(settings)
    recipes = candidates(settings)
    if settings.start_from is not None:
        return _as_begun(task, recipes)
    if len(recipes) == 1:
        forest = settings.architecture == "forest"
        return PresetChoice(recipes[DEFAULT], "" if forest else f"{_USED} with the architecture {SMALL} alone.")
    parts = task.parts()
    targets = np.concatenate([classes.to_numpy(np.int64) for _, _, classes in parts]) if parts else np.empty(0, int)
    known = None if task.search else previous_choice(task.runs, settings, np.unique(targets).tolist())
    if known is not None and len(targets) < GROWN * sum(known[0].labels.values()):
        run, chosen = known
        return PresetChoice(chosen, f"Recipe {chosen.recipe} was chosen in run {run.name}.", run=run.name)
    from svetlana_jupyter.learn.validate import FEWEST, describe_scarce_classes

    few = describe_scarce_classes(targets, dict(zip(task.classes.ids, task.classes.names)))
    if len(np.unique(targets)) < 2:
        return PresetChoice(recipes[DEFAULT])  # which refuses to train
    if few:
        return PresetChoice(recipes[DEFAULT], f"{_USED} from {FEWEST} annotated objects of each class on, but {few}.")
    return (yield from _searched(task, recipes, parts, stop))


def previous_choice(
    runs: Iterable[Run], settings: TrainingSettings, classes: Iterable[int]
) -> tuple[Run, TrainingSettings] | None:
    """Return what the last search for the same settings and classes chose, and its run; None if there was none.

    >>> previous_choice([], TrainingSettings(), [1, 2]) is None
    True
    """
    known = last_search(runs, settings, classes)
    recipes = candidates(settings)
    if known is None or known[1]["chosen"] not in recipes:
        return None
    run, tried = known
    return run, _for(recipes[tried["chosen"]], tried.get("epochs"))


def _searched(
    task: TrainingTask, recipes: Mapping[str, TrainingSettings], parts: Sequence[Part], stop: Stop
) -> Generator[Progress, None, PresetChoice | None]:
    """Try the recipes."""
    from svetlana_jupyter.learn.plan import affordable_candidates
    from svetlana_jupyter.learn.samples import CollectionProgress, max_objects_in_memory, resolve_settings
    from svetlana_jupyter.learn.search import MOST, SearchProgress, search

    began, keep_epochs = time.monotonic(), task.settings.epochs != TrainingSettings().epochs
    if not keep_epochs:
        frozen = dict(zip(recipes, resolve_settings(parts, list(recipes.values())), strict=True))
        n = min(MOST, sum(len(classes) for _, _, classes in parts))
        recipes = {name: recipes[name] for name in affordable_candidates(frozen, n, len(parts[0][0].channels))}
    settings = list(recipes.values())
    samples: list[TrainingData] = []
    few = _some(parts, min(MOST, max_objects_in_memory(parts, settings, ROOM)), task.settings.seed)
    for gathered in task.collect_for_each(settings, few):
        if isinstance(gathered, CollectionProgress):
            yield Progress(gathered.done, gathered.total, "cutting patches")
        else:
            samples = gathered
        if stop():
            return None
    yield Progress(0, 1, "trying recipes")
    found: Found | None = None
    for event in search(dict(zip(recipes, samples, strict=True)), keep_epochs, task.workers, stop):
        if isinstance(event, SearchProgress):
            yield Progress(event.done, event.total, event.text)
        else:
            found = event
    if found is None:
        return None
    chosen = _for(recipes[found.recipe], found.settings.epochs)
    return PresetChoice(
        settings=chosen,
        says=f"Recipe {found.recipe} was chosen of {len(recipes)} by {len(found.outer)} annotated objects.",
        found=found,
        tried=search_record(task.settings, found, time.monotonic() - began),
    )


def _as_begun(task: TrainingTask, recipes: Mapping[str, TrainingSettings]) -> PresetChoice:
    """Return the recipe of the run that a training begins with: its weights fit no other, and know the answers."""
    name = task.begins.run if task.begins is not None else ""
    recipe = next((run.settings["recipe"] for run in task.runs if run.name == name), DEFAULT)
    settings = recipes.get(recipe, recipes[DEFAULT])
    if not name or settings.architecture == "forest" or settings.recipe != recipe:
        return PresetChoice(recipes[DEFAULT], f"{_USED} where training begins anew.")
    return PresetChoice(settings, f"Recipe {recipe} is that of run {name}, with which training began.")


def _for(settings: TrainingSettings, epochs: int | None) -> TrainingSettings:
    """Return settings with as many epochs as were planned; a forest has none."""
    return settings if settings.architecture == "forest" or epochs is None else settings.changed(epochs=epochs)


def _some(parts: Sequence[Part], most: int, seed: int) -> list[Part]:
    """Return the annotated objects that recipes are tried on."""
    from svetlana_jupyter.learn.search import subsample_objects

    chosen = subsample_objects(np.concatenate([classes.to_numpy(np.int64) for _, _, classes in parts]), seed, most)
    ends = np.cumsum([len(classes) for _, _, classes in parts])
    pieces = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
    begins = [0, *ends[:-1].tolist()]
    return [
        (pair, objects, classes.iloc[piece - begin])
        for (pair, objects, classes), piece, begin in zip(parts, pieces, begins, strict=True)
    ]


_USED = "The default recipe was used: others are compared"

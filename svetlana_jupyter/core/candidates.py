"""The recipes that a search tries for given settings: what they leave open, within what may count."""

from __future__ import annotations

from typing import Any

from svetlana_jupyter.core.may_use import restrict_to_allowed_cues
from svetlana_jupyter.core.recipes import CANDIDATE_PRESETS, DEFAULT
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.core.validated import Settings

SMALL = "small_cnn"  # others take too long to be trained many times


def candidates(settings: TrainingSettings) -> dict[str, TrainingSettings]:
    """Return the settings of each recipe worth trying, by its name.

    What differs from the defaults stays as it was set; only the rest is tried. Recipes that come to the same are tried
    once, under the first name. Where a field of view is given and no sampling, that becomes *auto*: as fine as there is
    time for.

    >>> list(candidates(TrainingSettings(may_use=["brightness", "size"])))
    ['default', 'plain', 'texture', 'grain', 'forest']
    """
    own = non_default_values(settings)
    names = CANDIDATE_PRESETS if settings.architecture == SMALL else (DEFAULT,)
    if settings.architecture == SMALL and settings.patches.size != "auto" and settings.patches.sampling is None:
        own["patches"] = own["patches"] | {"sampling": "auto"}
    found: dict[str, TrainingSettings] = {}
    for name in names:
        candidate = restrict_to_allowed_cues(TrainingSettings(recipe=name).changed(**own))
        if name == "wide" and not (candidate.patches.context == "keep" and candidate.patches.size == "auto"):
            continue  # it would see nothing more
        if name == "grain" and ("surroundings" in settings.may_use or candidate.patches.normalize != "grain"):
            continue  # it takes its time, and surroundings tell more; or it would see as the others do
        if not any(_same(candidate, other) for other in found.values()):
            found[name] = candidate
    return found


def non_default_values(settings: Settings) -> dict[str, Any]:
    """Return what differs from the defaults, settings within settings key by key; recipes aside.

    >>> non_default_values(TrainingSettings(epochs=7, patches={"size": 40}))
    {'patches': {'size': 40.0}, 'epochs': 7}
    """
    changes: dict[str, Any] = {}
    for name, default in type(settings)():
        value = getattr(settings, name)
        if name == "recipe" or value == default:
            continue
        changes[name] = non_default_values(value) if isinstance(value, Settings) else value
    return changes


def _same(one: TrainingSettings, other: TrainingSettings) -> bool:
    """Tell whether two trainings are the same; a forest sees no patches."""
    left_out = {"recipe", "patches", "augmentation"} if one.architecture == "forest" else {"recipe"}
    return one.model_dump(exclude=left_out) == other.model_dump(exclude=left_out)

"""The presets that a search tries for given settings: what they leave open, within what may count.

What may count: the four kinds of evidence a person allows, and how settings keep out those that are not.

surroundings
    Not allowed: only the object's own pixels are shown, without a rim in which light from outside mixes, or without all
    that their outline explains ("grain"), and only they decide how they are normalised; nothing outside can change the
    patch.
brightness
    Not allowed: the object is standardised by its own pixels, and its surroundings by theirs, each channel on its own
    (so colour goes too), without the rim, which would tell how bright one is beside the other. What is left is varied
    while training.
orientation
    Not allowed: patches are mirrored and turned by any angle while training, in 3D about any axis.
size
    Not allowed: every object is shown as large, as coarse and as sharp as every other, without its mask, whose corners
    would tell; its size and sharpness are varied while training. How large neighbours look beside it belongs to its
    surroundings. In objects of a few pixels across some of it may still be told, most of all where there is no noise,
    or where a blur of the optics takes the detail of small objects alone.

What may count wins over single settings: `restrict_to_allowed_cues` changes those that would let in more, and `said`
names them.
Settings that keep out more than is asked stay as they are.
"""

from __future__ import annotations

from typing import Any

from svetlana_jupyter.core.features.catalog import CUES
from svetlana_jupyter.core.settings import CANDIDATE_PRESETS, DEFAULT_PRESET, Settings, TrainingSettings

BRIGHTNESS, NOISE, SCALE, BLUR = 0.3, 0.1, 0.3, 0.7  # the least that training varies
RIM, MIXED = 2, ("surroundings", "brightness", "size")  # pixels where light mixes, which tells of these
# Normalisations that see nothing beyond the object where its context is hidden.
OWN = ("none", "object", "both_raw", "grain")


def restrict_to_allowed_cues(settings: TrainingSettings) -> TrainingSettings:
    """Return settings under which nothing counts but what ``settings.may_use`` allows; doing so twice changes nothing.

    >>> from svetlana_jupyter.core.settings import TrainingSettings
    >>> restrict_to_allowed_cues(TrainingSettings(may_use=["brightness", "orientation", "size"])).patches.context
    'hide'
    """
    patches: dict[str, Any] = {}
    augmentation: dict[str, Any] = {}
    given, varied, allowed = settings.patches, settings.augmentation, settings.may_use
    alone = given.context == "hide"
    if "surroundings" not in allowed:
        alone = True
        patches |= {"context": "hide", "dilation": 0}
        if given.normalize != "grain":  # which takes away what mixes along the edge
            patches["rim"] = given.rim or "auto"
        if given.normalize not in OWN:
            patches["normalize"] = "both_raw"
    if "brightness" not in allowed:
        patches |= {"normalize": "object" if alone else "apart", "rim": given.rim or "auto"}
        augmentation |= {"brightness": max(varied.brightness, BRIGHTNESS), "noise": max(varied.noise, NOISE)}
    if "orientation" not in allowed:
        augmentation |= {"flips": True, "rotation": "free", "axes": "all", "share": 1.0}
    if "size" not in allowed:
        patches |= {"view": "object", "rim": given.rim or "auto", "mask_channel": False}
        augmentation |= {"scale": max(varied.scale, SCALE), "blur": max(varied.blur, BLUR), "share": 1.0}
    measured: dict[str, Any] = {"may_use": settings.measurements.may_use & allowed}
    if not allowed.issuperset(MIXED):
        measured["rim"] = max(settings.measurements.rim, RIM)
    return settings.changed(patches=patches, augmentation=augmentation, measurements=measured)


def said(settings: TrainingSettings) -> str:
    """Return a sentence about the settings that `restrict_to_allowed_cues` changes, "" where it changes none."""
    result = restrict_to_allowed_cues(settings)
    changes = [
        f"{part}.{name} is {value!r} instead of {getattr(getattr(settings, part), name)!r}"
        for part in ("patches", "augmentation")
        for name, value in getattr(result, part)
        if value != getattr(getattr(settings, part), name)
    ]
    if not changes:
        return ""
    kept_out = " and ".join(sorted(set(CUES) - settings.may_use))
    return f"Because {kept_out} may not count, {', '.join(changes)}."


SMALL = "small_cnn"  # others take too long to be trained many times


def candidates(settings: TrainingSettings) -> dict[str, TrainingSettings]:
    """Return the settings of each preset worth trying, by its name.

    What differs from the defaults stays as it was set; only the rest is tried. Presets that come to the same are tried
    once, under the first name. Where a field of view is given and no sampling, that becomes *auto*: as fine as there is
    time for.

    >>> list(candidates(TrainingSettings(may_use=["brightness", "size"])))
    ['default', 'plain', 'texture', 'grain', 'forest']
    """
    own = non_default_values(settings)
    names = CANDIDATE_PRESETS if settings.architecture == SMALL else (DEFAULT_PRESET,)
    if settings.architecture == SMALL and settings.patches.size != "auto" and settings.patches.sampling is None:
        own["patches"] = own["patches"] | {"sampling": "auto"}
    found: dict[str, TrainingSettings] = {}
    for name in names:
        candidate = restrict_to_allowed_cues(TrainingSettings(preset=name).changed(**own))
        if name == "wide" and not (candidate.patches.context == "keep" and candidate.patches.size == "auto"):
            continue  # it would see nothing more
        if name == "grain" and ("surroundings" in settings.may_use or candidate.patches.normalize != "grain"):
            continue  # it takes its time, and surroundings tell more; or it would see as the others do
        if not any(_same(candidate, other) for other in found.values()):
            found[name] = candidate
    return found


def non_default_values(settings: Settings) -> dict[str, Any]:
    """Return what differs from the defaults, settings within settings key by key; presets aside.

    >>> non_default_values(TrainingSettings(epochs=7, patches={"size": 40}))
    {'patches': {'size': 40.0}, 'epochs': 7}
    """
    changes: dict[str, Any] = {}
    for name, default in type(settings)():
        value = getattr(settings, name)
        if name == "preset" or value == default:
            continue
        changes[name] = non_default_values(value) if isinstance(value, Settings) else value
    return changes


def _same(one: TrainingSettings, other: TrainingSettings) -> bool:
    """Tell whether two trainings are the same; a forest sees no patches."""
    left_out = {"preset", "patches", "augmentation"} if one.architecture == "forest" else {"preset"}
    return one.model_dump(exclude=left_out) == other.model_dump(exclude=left_out)

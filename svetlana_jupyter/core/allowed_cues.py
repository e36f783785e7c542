"""Allowed cues of a classifier, and the presets of the model selection.

Cues that are not allowed are hidden from the classifier as follows.

surroundings
    Only the object's own pixels are shown and normalized, without the margin into which light from outside mixes, or
    without everything that the outline explains ("grain"). Nothing outside the object can change the patch.
brightness
    The object is standardized by its own pixels and its surroundings by theirs, each channel on its own (which removes
    color too), without the margin between them, which would reveal their relative brightness. Augmentation varies
    what remains.
orientation
    Augmentation mirrors patches and rotates them by any angle, in 3D about any axis.
size
    Every object is shown equally large, coarse and sharp, and without its mask, whose corners would reveal the size;
    augmentation varies size and sharpness. The relative size of neighbors belongs to the surroundings. Objects a few
    pixels wide may still reveal some of it, especially without noise, or if optical blur removes the detail of small
    objects only.

Allowed cues override single settings: `restrict_to_allowed_cues` changes settings that would reveal other cues, and
`explain_restrictions` lists them. Stricter settings stay as they are.
"""

from __future__ import annotations

from typing import Any

from svetlana_jupyter.core.features.catalog import CUES
from svetlana_jupyter.core.settings import CANDIDATE_PRESETS, DEFAULT_PRESET, Settings, TrainingSettings

MIN_AUGMENTATION = {"brightness": 0.3, "noise": 0.1, "scale": 0.3, "blur": 0.7}  # hides brightness or size
MIN_ERODED_MARGIN = 2  # pixels that a forest leaves out along the edge...
CUES_IN_MARGIN = ("surroundings", "brightness", "size")  # ...if the mixed light would reveal one of these cues
# Normalizations that use only the object itself if its context is hidden.
OBJECT_ONLY_NORMALIZATIONS = ("none", "object", "both_raw", "grain")
SMALL_CNN = "small_cnn"  # the only network that trains fast enough to compare presets


def restrict_to_allowed_cues(settings: TrainingSettings) -> TrainingSettings:
    """Return settings that reveal only the cues in ``settings.may_use``.

    Restricting twice changes nothing.

    >>> from svetlana_jupyter.core.settings import TrainingSettings
    >>> restrict_to_allowed_cues(TrainingSettings(may_use=["brightness", "orientation", "size"])).patches.context
    'hide'
    """
    patches: dict[str, Any] = {}
    augmentation: dict[str, Any] = {}
    given, allowed = settings.patches, settings.may_use
    enough = {name: max(getattr(settings.augmentation, name), least) for name, least in MIN_AUGMENTATION.items()}
    if "surroundings" not in allowed:
        # The dilation matters if the margin is 0: "auto" is 0 for objects about 3 pixels wide.
        patches |= {"context": "hide", "dilation": 0}
        if given.normalize != "grain":  # residual texture contains no mixed light
            patches["rim"] = given.rim or "auto"
        if given.normalize not in OBJECT_ONLY_NORMALIZATIONS:
            patches["normalize"] = "both_raw"
    if "brightness" not in allowed:
        object_only = given.context == "hide" or "surroundings" not in allowed
        patches |= {"normalize": "object" if object_only else "apart", "rim": given.rim or "auto"}
        augmentation |= {"brightness": enough["brightness"], "noise": enough["noise"]}
    if "orientation" not in allowed:
        augmentation |= {"flips": True, "rotation": "free", "axes": "all", "share": 1.0}
    if "size" not in allowed:
        patches |= {"view": "object", "rim": given.rim or "auto", "mask_channel": False}
        augmentation |= {"scale": enough["scale"], "blur": enough["blur"], "share": 1.0}
    measurements: dict[str, Any] = {"may_use": settings.measurements.may_use & allowed}
    if not allowed.issuperset(CUES_IN_MARGIN):
        measurements["rim"] = max(settings.measurements.rim, MIN_ERODED_MARGIN)
    return settings.changed(patches=patches, augmentation=augmentation, measurements=measurements)


def explain_restrictions(settings: TrainingSettings) -> str:
    """Return a note on the settings that allowed cues override, "" if there are none."""
    restricted = restrict_to_allowed_cues(settings)
    changes = [
        f"{part}.{name} is {value!r} instead of {getattr(getattr(settings, part), name)!r}"
        for part in ("patches", "augmentation")
        for name, value in getattr(restricted, part)
        if value != getattr(getattr(settings, part), name)
    ]
    if not changes:
        return ""
    forbidden = " and ".join(sorted(set(CUES) - settings.may_use))
    return f"The classifier must not use {forbidden}. Overridden settings: {', '.join(changes)}."


def candidate_presets(settings: TrainingSettings) -> dict[str, TrainingSettings]:
    """Return the settings of each candidate preset of the model selection, by name.

    Settings that differ from the defaults stay as they are in every candidate. Presets that lead to the same training
    appear once, under the first name. If a patch size is given without a sampling, the sampling becomes "auto",
    which limits the pixels per patch so that model selection stays fast.

    >>> list(candidate_presets(TrainingSettings(may_use=["brightness", "size"])))
    ['default', 'plain', 'texture', 'grain', 'forest']
    """
    given = non_default_values(settings)
    names = CANDIDATE_PRESETS if settings.architecture == SMALL_CNN else (DEFAULT_PRESET,)
    if settings.architecture == SMALL_CNN and settings.patches.size != "auto" and settings.patches.sampling is None:
        given["patches"] = given["patches"] | {"sampling": "auto"}
    candidates: dict[str, TrainingSettings] = {}
    for name in names:
        candidate = restrict_to_allowed_cues(TrainingSettings(preset=name).changed(**given))
        if name == "wide" and not (candidate.patches.context == "keep" and candidate.patches.size == "auto"):
            continue  # its wider patches would show nothing more
        if name == "grain" and ("surroundings" in settings.may_use or candidate.patches.normalize != "grain"):
            continue  # slow, and less informative than surroundings; or equal to another candidate
        if not any(_is_same_training(candidate, other) for other in candidates.values()):
            candidates[name] = candidate
    return candidates


def non_default_values(settings: Settings) -> dict[str, Any]:
    """Return the values that differ from the defaults, except the preset.

    Nested settings are compared key by key.

    >>> non_default_values(TrainingSettings(epochs=7, patches={"size": 40}))
    {'patches': {'size': 40.0}, 'epochs': 7}
    """
    return {
        name: non_default_values(value) if isinstance(value, Settings) else value
        for (name, value), (_, default) in zip(settings, type(settings)())
        if name != "preset" and value != default
    }


def _is_same_training(first: TrainingSettings, second: TrainingSettings) -> bool:
    ignored = {"preset", "patches", "augmentation"} if first.architecture == "forest" else {"preset"}
    return first.model_dump(exclude=ignored) == second.model_dump(exclude=ignored)

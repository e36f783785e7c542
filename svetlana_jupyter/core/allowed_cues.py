"""Allowed cues of a classifier, and candidate presets of the model selection.

A cue is a property that a classifier can use to tell classes apart: the surroundings, brightness, orientation or size
of an object. Cues that are not allowed are hidden from the classifier as follows.

surroundings
    Only the object's own pixels are shown and normalized, either without the eroded margin, which contains blurred
    light from outside, or as residual texture (normalization "grain"). Nothing outside the object can change the patch.
brightness
    The object and its surroundings are standardized separately, channel by channel, which removes color too. The margin
    between them is left out, because it would reveal their relative brightness. Augmentation varies any brightness that
    remains.
orientation
    Augmentation mirrors patches and rotates them by any angle, in 3D about any axis.
size
    All objects are resampled to the same size, coarseness and sharpness. The mask channel is left out, because the
    pixel corners of the mask would reveal the size. Augmentation varies size and sharpness. The relative size of
    neighbors counts as surroundings. Objects a few pixels wide may still reveal some of their size, especially in
    images without noise, or if optical blur removes the detail of small objects only.

Allowed cues override single settings: `restrict_to_allowed_cues` changes settings that would reveal a cue that is not
allowed, and `explain_restrictions` lists the changes. Settings that reveal even less stay as they are.
"""

from __future__ import annotations

from typing import Any

from svetlana_jupyter.core.features.catalog import CUES
from svetlana_jupyter.core.settings import CANDIDATE_PRESETS, DEFAULT_PRESET, Settings, TrainingSettings

MIN_AUGMENTATION = {"brightness": 0.3, "noise": 0.1, "scale": 0.3, "blur": 0.7}  # hide brightness or size
# Pixels along the edge that a forest leaves out unless all these cues are allowed, since light from outside, which is
# blurred into the edge, would reveal them.
MIN_ERODED_MARGIN = 2
CUES_IN_MARGIN = ("surroundings", "brightness", "size")
# Normalizations that use only the object itself if its surroundings are hidden.
OBJECT_ONLY_NORMALIZATIONS = ("none", "object", "both_raw", "grain")
SMALL_CNN = "small_cnn"  # the only network that trains fast enough to compare presets


def restrict_to_allowed_cues(settings: TrainingSettings) -> TrainingSettings:
    """Return settings that reveal only the cues in ``settings.may_use``.

    Restricting the result again does not change it.

    >>> from svetlana_jupyter.core.settings import TrainingSettings
    >>> restrict_to_allowed_cues(TrainingSettings(may_use=["brightness", "orientation", "size"])).patches.context
    'hide'
    """
    patches: dict[str, Any] = {}
    augmentation: dict[str, Any] = {}
    given, allowed = settings.patches, settings.may_use
    enough = {name: max(getattr(settings.augmentation, name), least) for name, least in MIN_AUGMENTATION.items()}
    if "surroundings" not in allowed:
        # A dilation would take effect if the margin is 0; "auto" is 0 for objects about 3 pixels wide.
        patches |= {"context": "hide", "dilation": 0}
        if given.normalize != "grain":  # residual texture contains no light from outside
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
    """Return a note that lists the settings which the allowed cues override.

    The note is "" if there are none.
    """
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
    ['default', 'plain', 'texture', 'grain', 'forest', 'live']
    """
    given = non_default_values(settings)
    names = CANDIDATE_PRESETS if settings.architecture == SMALL_CNN else (DEFAULT_PRESET,)
    if settings.architecture == SMALL_CNN and settings.patches.size != "auto" and settings.patches.sampling is None:
        given["patches"] = given["patches"] | {"sampling": "auto"}
    candidates: dict[str, TrainingSettings] = {}
    for name in names:
        candidate = restrict_to_allowed_cues(TrainingSettings(preset=name).changed(**given))
        if name == "wide" and not (candidate.patches.context == "keep" and candidate.patches.size == "auto"):
            continue  # wider patches would show nothing more, or the patch size is given
        if name == "grain" and ("surroundings" in settings.may_use or candidate.patches.normalize != "grain"):
            continue  # slow, and less informative than the surroundings; or equal to another candidate
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
    ignored = {"preset"} if first.has_network else {"preset", "patches", "augmentation"}
    return first.model_dump(exclude=ignored) == second.model_dump(exclude=ignored)

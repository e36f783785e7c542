"""What may count: the four kinds of evidence a person allows, and how settings keep out those that are not.

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

What may count wins over single settings: `restrict_to_allowed_cues` changes those that would let in more, and `said` names them.
Settings that keep out more than is asked stay as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from svetlana_jupyter.core.measures.table import CUES

if TYPE_CHECKING:
    from svetlana_jupyter.core.settings import TrainingSettings

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
    measured: dict[str, Any] = {"may_use": tuple(one for one in settings.measurements.may_use if one in allowed)}
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

"""Named recipes: what each changes of the default settings."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

DEFAULT = "default"
AUTO = "auto"  # the best of those that are tried; before it is known, the values of the default one

# What each recipe changes of the defaults. "default": whatever the patch shows may count, but not how it is turned.
# "oriented": so may orientation, but no direction. "plain": whatever there is, as it lies. "free": turned by any angle.
# "object": not the surroundings. "texture": neither the surroundings nor brightness. "wide": much of the surroundings.
# "forest": what is measured of the objects. "paper": as the paper describes it (section 4.1, Fig. 7).
RECIPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        DEFAULT: {},
        "oriented": {"augmentation": {"flips": False, "rotation": "half_turns"}},
        "plain": {"augmentation": {"flips": False, "rotation": "none", "brightness": 0.0, "noise": 0.0}},
        "free": {"augmentation": {"rotation": "free", "axes": "all"}},
        "object": {"patches": {"context": "hide"}},
        "texture": {
            "patches": {"context": "hide", "normalize": "object"},
            "augmentation": {"rotation": "free", "axes": "all"},
        },
        "wide": {"patches": {"margin": 3.0}},
        "forest": {"architecture": "forest"},
        "paper": {
            "patches": {"normalize": "minmax"},
            "width": 32,
            "optimizer": "adam",
            "learning_rate": 0.001,
            "weight_decay": 0.0,
            "schedule": "step",
            "epochs": 200,
            "steps": None,
            "batch_size": 8,
            "class_weights": "none",
            "augmentation": {"rotation": "none", "brightness": 0.0, "noise": 0.0},
        },
    }
)
# Those that a search tries; of equally good ones it takes the first.
CANDIDATES = (DEFAULT, "oriented", "free", "plain", "object", "texture", "wide", "forest")
RECIPE_NAMES = (AUTO, *RECIPES)

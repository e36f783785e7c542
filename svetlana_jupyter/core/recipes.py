"""Named recipes: what each changes of the default settings."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

DEFAULT = "default"
AUTO_PRESET = "auto"  # the best of those that are tried; before it is known, the values of the default one

# In the words of a person who sees which was chosen; what may not count stays varied whatever the recipe.
PRESET_DESCRIPTIONS: Mapping[str, str] = MappingProxyType(
    {
        DEFAULT: "turned by right angles and mirrored",
        "oriented": "turned by half turns alone",
        "plain": "as it lies, nothing varied",
        "free": "turned by any angle",
        "object": "without the surroundings",
        "texture": "without surroundings and brightness",
        "grain": "the faint texture of small objects",
        "wide": "with more of the surroundings",
        "forest": "measurements, no network",
        "paper": "as the paper describes it (section 4.1, Fig. 7)",
    }
)
# What each recipe changes of the defaults.
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
        "grain": {  # it is faint, so learning it takes many looks, and telling it several; it is local, so no depth
            "patches": {"context": "hide", "normalize": "grain"},
            "augmentation": {"rotation": "free", "axes": "all"},
            "depth": 2,
            "steps": 30,
            "batch_size": 48,
            "views": 48,
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
CANDIDATE_PRESETS = (DEFAULT, "oriented", "free", "plain", "object", "texture", "grain", "wide", "forest")
RECIPE_NAMES = (AUTO_PRESET, *RECIPES)

"""Named recipes: what each changes of the default settings."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

# What each recipe changes of the defaults. "default": whatever the patch shows may count, but not how it is turned.
# "oriented": so may orientation. "object": not the surroundings. "texture": neither the surroundings nor brightness.
# "paper": as the paper describes it (section 4.1, Fig. 7).
RECIPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "default": {},
        "oriented": {"augmentation": {"flips": False, "rotation": "half_turns"}},
        "object": {"patches": {"context": "hide"}},
        "texture": {
            "patches": {"context": "hide", "normalize": "object"},
            "augmentation": {"rotation": "free", "axes": "all"},
        },
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

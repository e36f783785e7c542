"""Names of the controls that do what a message tells a script to call.

Errors and notes of a project name calls. A panel displays them with the name of its button or tab instead, where there
is one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

REPAIR_TEXTS = {  # text and tooltip of the button for each repair of a mask
    "components": ("Number the pieces", "Each connected piece of equal numbers becomes one object"),
    "foreground": ("Number the areas", "Each connected area becomes one object, whatever its numbers"),
    "unsigned": ("Read as unsigned numbers", "Negative numbers become the large numbers that they were written as"),
}
_BUTTONS = {
    "stop()": "Stop",
    "train()": "Train",
    "predict()": "Predict all images",
    "evaluate()": "Compute the missing scores",
}
_QUEUES = {"random": "At random", "test": "Test set"}
_NAMED_BUTTON = rf"project\.({'|'.join(map(re.escape, _BUTTONS))})"
# In this order: what is called, and what the user does instead.
_RULES: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r" or with project\.train\(\)", ""),
    (
        r", for example with project\.train\(architecture=\"small_cnn\"\)",
        ' in the Train tab, for example with the preset "default" of its advanced settings',
    ),
    (r" and call project\.live\.update\(\)", ""),  # a panel follows the labels
    (r"Call project\.live\.update\(\) to compute them", "They are computed in the background"),
    (rf"\b([Cc])all (?={_NAMED_BUTTON})", lambda found: "Press " if found[1] == "C" else "press "),
    (_NAMED_BUTTON, lambda found: _BUTTONS[found[1]]),
    (
        r'project\.queue\(("|&quot;)(random|test)\1\)',
        lambda found: f"the queue {found[1]}{_QUEUES[found[2]]}{found[1]}",
    ),
    (r"with project\.add_images\(\.\.\.\)", "in the Images tab"),
    (r"Call project\.replace_mask\('[^']*'\)", "Press Replace mask in the Images tab"),
    (r"`project\.replace_mask\([^`]*repair='(\w+)'\)`", lambda found: REPAIR_TEXTS[found[1]][0]),
    (r"accept it with `project\.images\.accept_warning\([^`]*\)`", "press Accept the mask"),
    (r"with project\.classes\.add\([^)]*\)", "in the field below the classes"),
    (r": project\.classes\.merge\([^)]*\)", " with Merge"),
    (r"project\.classes\.split\([^)]*\)", "Split off, behind the pencil of the other class"),
)


def name_controls(text: str) -> str:
    """Return a message with the names of controls instead of calls.

    >>> name_controls("A training is running. Wait for it, or call project.stop().")
    'A training is running. Wait for it, or press Stop.'
    >>> name_controls('Label objects of project.queue("random").')
    'Label objects of the queue "At random".'
    """
    if "project." in text:
        for call, control in _RULES:
            text = re.sub(call, control, text)
    return text

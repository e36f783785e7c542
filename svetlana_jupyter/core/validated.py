"""Settings as validated, frozen data that goes to JSON and back and says in a sentence what it refuses."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from svetlana_jupyter.errors import SettingsError

NESTED_SETTINGS = ("patches", "augmentation", "measurements")  # settings within settings


class Settings(BaseModel):
    """Frozen settings that refuse unknown keys by name and speak in sentences.

    Raises
    ------
    SettingsError
        If a key is unknown (the nearest known one is named) or a value is out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError(_in_words(error)) from None

    @model_validator(mode="before")
    @classmethod
    def _know_every_key(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            for key in values:
                if key not in cls.model_fields:
                    raise ValueError(unknown_key_message(str(key), list(cls.model_fields)))
        return values

    def changed(self, **changes: Any) -> Self:
        """Return these settings with some values replaced; a mapping changes only the keys it names.

        >>> from svetlana_jupyter.core.settings import TrainingSettings
        >>> TrainingSettings().changed(epochs=5, patches={"size": 32}).patches.size
        32.0
        """
        return type(self)(**merged(self.model_dump(), changes))

    def to_json(self) -> str:
        """Return every setting, defaults included, as indented JSON."""
        return self.model_dump_json(indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote, perhaps edited by hand since."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise SettingsError(
                f"settings must be valid JSON, but line {error.lineno}, column {error.colno} is not: {error.msg}."
            ) from None
        if not isinstance(values, dict):
            raise SettingsError(f"settings must be a JSON object in braces, got {type(values).__name__}.")
        return cls(**values)


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values`` with ``changes``; where both hold settings, key by key."""
    result = dict(values)
    for key, change in changes.items():
        if isinstance(change, Settings):
            change = change.model_dump()
        if key in NESTED_SETTINGS and isinstance(change, Mapping):
            change = merged(result.get(key, {}), change)
        result[key] = change
    return result


def unknown_key_message(key: str, known: list[str], what: str = "setting") -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}."
    return f"there is no {what} {key!r}; {hint}"


def _in_words(error: ValidationError) -> str:
    """Return the first problem as one sentence that names the setting."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    # Members of a union appear in the location as type names; only field names mean something to the user.
    names = [str(part) for part in first["loc"] if isinstance(part, str) and part.isidentifier()]
    name = ".".join(names[: 2 if names and names[0] in NESTED_SETTINGS else 1])
    if first["type"] == "value_error":
        return message
    return f"the setting {name!r} cannot be {first['input']!r}: {message[:1].lower()}{message[1:]}."

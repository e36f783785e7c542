"""What a training may begin with: a person's call may name code and files anywhere, the project's own file may not.

A project can come from a stranger, so that opening it and pressing Train must import nothing and read nothing outside
it. What ``training.json`` names is therefore followed only into this project's runs and into modules that the session
has imported by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from svetlana_jupyter.core.settings import OWN, TrainingSettings
from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.runs import Run

if TYPE_CHECKING:
    from torch.nn import Module


@dataclass(frozen=True)
class TrainingSetup:
    """The settings of a training, and what they cannot hold.

    Attributes
    ----------
    settings : TrainingSettings
    network : Module or None
        The user's own, given as an object.
    weights : Path or None
        What ``start_from`` means.
    run : str
        The run of this project that it means, "" where it is none.
    """

    settings: TrainingSettings
    network: Module | None = None
    weights: Path | None = None
    run: str = ""


def resolve_training_setup(
    stored_settings: TrainingSettings,
    given: TrainingSettings | None,
    changes: Mapping[str, Any],
    network: Module | None,
    runs: Mapping[str, Run],
) -> TrainingSetup:
    """Put together what a call asks for and what the project's file says.

    Parameters
    ----------
    in_file : TrainingSettings
        The project's.
    given : TrainingSettings, optional
        Instead of these, as the call gives them.
    changes : mapping
        Single settings that the call names; a module that ``architecture`` names here is imported.

    Raises
    ------
    ProjectError
        If the file names weights that are no run of this project.
    """
    settings = (given or stored_settings).changed(**changes)
    if network is not None:
        settings = settings.changed(architecture=OWN)
    elif ":" in str(changes.get("architecture", "")):
        from svetlana_jupyter.learn.userland import import_network

        import_network(settings.architecture)
    name = settings.start_from
    if name is None:
        return TrainingSetup(settings, network)
    if name in runs:
        return TrainingSetup(settings, network, runs[name].path, name)
    if "start_from" not in changes and name == stored_settings.start_from:
        raise ProjectError(
            f"training.json says start_from={name!r}, but a file may only name runs of its project, which are "
            f"{', '.join(runs) or 'none yet'}. If you trust it, give it to the call: train(start_from={name!r})."
        )
    return TrainingSetup(settings, network, Path(name))

"""Taking over weights of another training as far as they fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from svetlana_jupyter.errors import ClassifierError, InputError
from svetlana_jupyter.learn.architectures import ClassificationNetwork
from svetlana_jupyter.learn.classifier import WEIGHTS_FILE, ClassifierSpec, read_classifier_spec, reject_pickles

SAID = 3  # names of weights that are listed; more are counted


def read_weights(path: Path) -> tuple[dict[str, Tensor], ClassifierSpec | None]:
    """Read a run's folder, with its specification, or a file of weights.

    Raises
    ------
    InputError
        If there is nothing at that place.
    ClassifierError
        If it cannot be read, is pickled, or is a forest.
    """
    if not path.exists():
        raise InputError(f"start_from must be a run or a file of weights, but there is no {str(path)!r}.")
    reject_pickles(path)
    specification = None
    if path.is_dir():
        kind, specification = read_classifier_spec(path)
        if kind == "forest":
            raise ClassifierError(f"{str(path)!r} is a forest, which has no weights to start a network from.")
        path = path / WEIGHTS_FILE
    try:
        return load_file(path), specification
    except (OSError, SafetensorError) as error:
        raise ClassifierError(f"the weights {str(path)!r} cannot be read: {error}.") from error


@torch.no_grad()
def copy_matching_weights(
    network: ClassificationNetwork,
    found: Mapping[str, Tensor],
    name: str,
    rgb: bool = False,
    classes: tuple[tuple[int, ...], tuple[int, ...]] | None = None,
) -> str:
    """Give a network the weights whose names and shapes it shares with those that were found, and say what it took.

    The layer that standardises patches keeps what it measured on the new ones. Filters of another number of channels
    are adapted (`adapt_filters`). Where the classes are known, each keeps its own row of the last layer.

    Parameters
    ----------
    found : mapping of str to Tensor
        By their names in the network, or in the module inside it.
    name : str
        Of where they come from, for the sentence.
    rgb : bool
        Whether the new channels are red, green and blue, perhaps more than once, and then others.
    classes : pair of tuple of int, optional
        The class ids of the weights that were found, and the network's own.

    Returns
    -------
    str
        A sentence.

    Raises
    ------
    InputError
        If no weight fits.
    """
    taken, left = 0, []
    last = {id(weight) for weight in network.last_layer.parameters()}
    for key, own in network.state_dict(keep_vars=True).items():
        if key.startswith("standardize.") or key.endswith("num_batches_tracked"):
            continue
        given = found.get(key, found.get(key.removeprefix("body.")))
        if given is not None and id(own) in last and classes is not None and given.shape[1:] == own.shape[1:]:
            _take_rows(own, given, *classes)
            taken += 1
        elif given is not None and given.shape == own.shape:
            own.copy_(given)
            taken += 1
        elif given is not None and key == network.first_conv_weight and _differ_in_channels(given, own):
            own.copy_(adapt_filters(given, own.shape[1], rgb))
            taken += 1
        else:
            left.append(key if given is None else f"{key} ({_shape(given)} there, {_shape(own)} here)")
    if not taken:
        raise InputError(
            f"none of the weights of {name} fits this network, which has {', '.join(left[:SAID])} and others. "
            "Choose the architecture, depth and width they were trained with, or leave start_from out."
        )
    more = f" and {len(left) - SAID} more" if len(left) > SAID else ""
    rest = f"; begun anew: {', '.join(left[:SAID])}{more}" if left else ""
    return f"Began with {taken} of {taken + len(left)} weights of {name}{rest}."


def adapt_filters(filters: Tensor, channels: int, rgb: bool) -> Tensor:
    """Return filters (out, channels, ...) made of such for another number of channels.

    Each new channel gets the mean filter, or where the first are red, green and blue, again and again, their own; the
    last, an object's mask, has the mean. All are scaled so that a patch that is the same in every channel gives the
    same as before.
    """
    adapted = filters.mean(dim=1, keepdim=True).repeat(1, channels, *(1 for _ in filters.shape[2:]))
    if rgb and filters.shape[1] == 3:
        for first in range(0, channels - 2, 3):
            adapted[:, first : first + 3] = filters
    return adapted * (filters.shape[1] / channels)


def _take_rows(own: Tensor, given: Tensor, before: tuple[int, ...], now: tuple[int, ...]) -> None:
    for position, id in enumerate(now):
        if id in before:
            own[position] = given[before.index(id)]


def _differ_in_channels(given: Tensor, own: Tensor) -> bool:
    return given.ndim == own.ndim and given.shape[:1] + given.shape[2:] == own.shape[:1] + own.shape[2:]


def _shape(values: Tensor) -> str:
    return " × ".join(map(str, values.shape)) or "a number"

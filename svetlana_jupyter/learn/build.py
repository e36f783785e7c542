"""The network that settings describe, whether it fits the patches, and the weights it begins with.

Networks of the user's own: a `torch.nn.Module` given as an object, or by the path it is imported from.

A file never makes this package import code: a path is followed only into modules that the user's session has imported,
or when a person gives it to a call (`import_network`).

Taking over weights of another training as far as they fit.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from svetlana_jupyter.core.settings import TORCHVISION_ARCHITECTURES, USER_ARCHITECTURE, TrainingSettings
from svetlana_jupyter.errors import ClassifierError, InputError, SettingsError
from svetlana_jupyter.learn.dataset import TrainingData
from svetlana_jupyter.learn.networks import (
    MEMORY_FORMATS,
    ClassificationNetwork,
    SmallCNN,
    Standardize,
    TorchvisionNetwork,
    download_weights,
)
from svetlana_jupyter.learn.optim import batch_norm_layers, replace_batch_norm
from svetlana_jupyter.learn.specification import WEIGHTS_FILE, ClassifierSpec, read_classifier_spec, reject_pickles

# What a class may ask for when it is built, by the names in use for it.
_GIVEN = {
    "ndim": ("ndim", "dimensions"),
    "channels": ("channels", "in_channels", "in_chans"),
    "classes": ("classes", "num_classes", "n_classes"),
}


class UserNetwork(ClassificationNetwork):
    """A module of the user's behind the layer that standardises patches.

    Parameters
    ----------
    module : Module
        Gives logits (n, classes) of patches (n, channels, [z,] y, x). It is copied, never written to.
    channels : int
        Of the input, the mask channel included.
    """

    def __init__(self, module: nn.Module, channels: int) -> None:
        super().__init__()
        self.standardize = Standardize(channels)
        self.body = copy.deepcopy(module)

    def forward(self, patches: Tensor) -> Tensor:
        """Return what the module makes of standardised patches."""
        logits: Tensor = self.body(self.standardize(patches))
        return logits

    @property
    def last_layer(self) -> nn.Module:
        """The last of its layers that has weights, in the order in which they were made."""
        *_, last = (layer for layer in self.body.modules() if any(True for _ in layer.parameters(recurse=False)))
        return last


def import_network(path: str) -> type[nn.Module]:
    """Import the module of ``"package.module:Name"`` and return the class; only for a path that a person gives.

    Raises
    ------
    InputError
        If the module cannot be imported or has no such class.
    """
    try:
        importlib.import_module(path.partition(":")[0])
    except ImportError as error:
        raise InputError(f"the network {path!r} cannot be imported: {error}.") from error
    return find_network(path)


def find_network(path: str) -> type[nn.Module]:
    """Return the class at ``"package.module:Name"``, whose module must have been imported before.

    Raises
    ------
    InputError
        If it was not, or has no such subclass of `torch.nn.Module`.
    """
    place, _, name = path.partition(":")
    module = sys.modules.get(place)
    if module is None:
        raise InputError(
            f"the network {path!r} is code of its own, and a file alone never imports code. If you trust it, "
            f"`import {place}` first, then try again."
        )
    found = vars(module).get(name)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise InputError(f"the network {path!r} must be a class of torch.nn.Module, but {place} has no such {name}.")
    return found


def build_user_network(path: str, ndim: int, channels: int, classes: int) -> nn.Module:
    """Build a network from its class, giving it dimensions, channels and classes as far as it asks for them.

    Raises
    ------
    InputError
        If its class cannot be found, or asks for something else.
    """
    kind = find_network(path)
    values = {"ndim": ndim, "channels": channels, "classes": classes}
    known = {alias: values[name] for name, aliases in _GIVEN.items() for alias in aliases}
    asked = inspect.signature(kind).parameters.values()
    named = [one for one in asked if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    strange = [one.name for one in named if one.name not in known and one.default is one.empty]
    if strange:
        raise InputError(
            f"the network {path!r} asks for {strange[0]!r}, but only channels, classes and ndim can be given to it. "
            "Build it yourself and give the object: network=…."
        )
    return kind(**{one.name: known[one.name] for one in named if one.name in known})


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


def build_network(
    settings: TrainingSettings, ndim: int, channels: int, classes: int, own: nn.Module | None = None
) -> ClassificationNetwork:
    """Build the network that the settings name, its weights drawn from the global torch generator.

    Parameters
    ----------
    channels : int
        Of the input, the mask channel included.
    own : Module, optional
        The user's own, which is copied; it stands in for the architecture, and is needed where that is "own".

    Raises
    ------
    SettingsError
        If the architecture does not exist in so many dimensions.
    InputError
        If a network of the user's own is not there or cannot be built.
    """
    name = settings.architecture
    network: ClassificationNetwork
    if own is not None:
        network = UserNetwork(own, channels)
    elif name == USER_ARCHITECTURE:
        raise InputError("the network is a module of your own: give the object as well, network=….")
    elif name in TORCHVISION_ARCHITECTURES:
        if ndim != 2:
            raise SettingsError(f'{name} is for 2D images only, but these are {ndim}D. Use architecture="small_cnn".')
        network = TorchvisionNetwork(name, channels, classes)
    elif ":" in name:
        network = UserNetwork(build_user_network(name, ndim, channels, classes), channels)
    else:
        network = SmallCNN(ndim, channels, classes, settings.depth, settings.width)
    if settings.norm == "group" and not isinstance(network, UserNetwork):
        replace_batch_norm(network)
    network.to(memory_format=MEMORY_FORMATS[ndim])  # type: ignore[call-overload]  # torch's stubs leave this keyword out
    return network


def init_network(samples: TrainingData, patches: Tensor, smallest: int) -> tuple[ClassificationNetwork, list[str]]:
    """Build the network that a training begins with, drawn by the seed, with the weights that the settings name.

    Parameters
    ----------
    patches : float32 of shape (n, C, [z,] y, x)
        Those that train, as the network will see them.
    smallest : int
        Patches in the smallest batch.

    Returns
    -------
    network : Classifying
    told : list of str
        What it took of weights that were named.

    Raises
    ------
    SettingsError, InputError, ClassifierError
        If the network cannot be built, does not fit the patches, or cannot begin with those weights.
    """
    settings, start, classes = samples.settings, samples.initial, len(samples.classes)
    channels, shape = patches.shape[1], tuple(patches.shape[2:])
    check_patch_shape(settings, shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = build_network(settings, samples.ndim, channels, classes, start.network)
        if isinstance(network, UserNetwork):
            check_logits(network, channels, shape, classes)
    if smallest == 1 and batch_norm_layers(network):
        raise SettingsError(
            "batch normalisation learns little from batches of a single patch, and nothing that holds for others. "
            'Give a batch_size of at least 2, or norm="group".'
        )
    told = []
    rgb = len(samples.channels) == 3
    if settings.pretrained:
        if not isinstance(network, TorchvisionNetwork):
            raise SettingsError(
                f"pretrained weights exist for {TORCHVISION_ARCHITECTURES[0]} and other published networks, not for "
                f"{settings.architecture!r}. Choose one of these, or name weights of your own in start_from."
            )
        told.append(
            copy_matching_weights(
                network, download_weights(settings.architecture), f"the published {settings.architecture}", rgb
            )
        )
    if settings.start_from:
        found, specification = read_weights(start.weights or Path(settings.start_from))
        ids = (specification.classes, samples.classes) if specification else None
        told.append(copy_matching_weights(network, found, settings.start_from, rgb, ids))
    network.standardize.measure(patches)
    return network, told


def check_patch_shape(settings: TrainingSettings, shape: tuple[int, ...]) -> None:
    """Refuse patches of which nothing is left after the network's strides.

    Raises
    ------
    SettingsError
        With the sampling that the network needs.
    """
    name, side = settings.architecture, settings.min_patch_side
    if name in TORCHVISION_ARCHITECTURES and min(shape) < side:
        needs, instead = f"{name} needs at least {side} along every side", "or another architecture"
    elif name == "small_cnn" and max(shape) < side:
        needs = f"{settings.depth} blocks halve them {settings.depth} times and need at least {side}"
        instead = f"or a depth of at most {max(shape).bit_length() - 1}"
    else:
        return
    raise SettingsError(
        f"the patches have {' × '.join(map(str, shape))} pixels, but {needs}. "
        f'Give patches={{"sampling": {side}}}, {instead}.'
    )


@torch.inference_mode()
def check_logits(network: ClassificationNetwork, channels: int, shape: tuple[int, ...], classes: int) -> None:
    """Refuse a network of the user's own that does not give one logit a class, before it trains.

    Raises
    ------
    InputError
        If it fails on patches of that shape, or gives something else.
    """
    network.eval()
    patches = torch.zeros(2, channels, *shape).to(memory_format=MEMORY_FORMATS[len(shape)])
    given = f"patches of shape {tuple(patches.shape)}"
    hint = 'Channels are those of the image, twice with normalize="both", and then the object\'s mask.'
    try:
        logits = network(patches)
    except Exception as error:  # whatever the user's own code makes of them
        raise InputError(f"your network fails on {given} (n, channels, …): {error}. {hint}") from error
    shown = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if shown != (2, classes):
        raise InputError(
            f"your network must give logits of shape {(2, classes)} for {given}, one for each of {classes} classes, "
            f"but it gives {shown}. Change its last layer."
        )
    if not any(weight.requires_grad for weight in network.parameters()):
        raise InputError("your network has no weights to train. Give one that has, with requires_grad=True.")

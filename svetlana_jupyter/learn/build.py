"""Construction of networks from settings, and their initial weights.

A network may be the user's own `torch.nn.Module`, passed as an object or by its import path. Opening a file never
imports code: an import path from a file is looked up only in modules that are already imported. Only a path that the
user passes as an argument is imported (`import_network`).
"""

from __future__ import annotations

import copy
import importlib
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from svetlana_jupyter.core.io.bounded_files import check_regular_file
from svetlana_jupyter.core.io.table_files import format_list
from svetlana_jupyter.core.settings import TORCHVISION_ARCHITECTURES, USER_ARCHITECTURE, TrainingSettings
from svetlana_jupyter.errors import ClassifierError, InputError, SettingsError
from svetlana_jupyter.learn.device import seeded_computation
from svetlana_jupyter.learn.networks import (
    MEMORY_FORMATS,
    ClassificationNetwork,
    SmallCNN,
    TorchvisionNetwork,
    download_weights,
)
from svetlana_jupyter.learn.optim import batch_norm_layers, replace_batch_norm
from svetlana_jupyter.learn.specification import WEIGHTS_FILE, ClassifierSpec, read_classifier_spec, reject_pickles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from svetlana_jupyter.learn.dataset import TrainingData

MAX_LISTED = 3  # maximum number of weight names in a note; the others are only counted
ClassIds = tuple[tuple[int, ...], tuple[int, ...]]  # class ids of the given weights, and class ids of the network


def init_network(
    samples: TrainingData, patches: Tensor, smallest_batch: int
) -> tuple[ClassificationNetwork, list[str]]:
    """Build the network of a training, with random, pretrained or given weights.

    Parameters
    ----------
    samples : TrainingData
    patches : float32 of shape (n, C, [z,] y, x)
        Training patches without margin. The network standardizes its input by their mean and standard deviation.
    smallest_batch : int
        Number of patches in the smallest batch.

    Returns
    -------
    network : ClassificationNetwork
    notes : list of str
        One sentence for each source of initial weights, with the number of copied weights.

    Raises
    ------
    SettingsError, InputError, ClassifierError
        If the network cannot be built or does not fit the patches, or if the initial weights do not fit the network.
    """
    settings, channels, shape = samples.settings, patches.shape[1], tuple(patches.shape[2:])
    check_patch_shape(settings, shape)
    with seeded_computation(torch.device("cpu"), settings.seed):
        network = build_network(settings, samples.ndim, channels, len(samples.classes), samples.network)
        if isinstance(network, UserNetwork):
            check_logits(network, channels, shape, len(samples.classes))
    if smallest_batch == 1 and batch_norm_layers(network):
        raise SettingsError(
            "Batch normalization cannot estimate its statistics from batches of a single patch. "
            'Set batch_size to at least 2, or norm="group".'
        )
    notes = _copy_named_weights(samples, network)
    network.standardize.measure(patches)
    return network, notes


def _copy_named_weights(samples: TrainingData, network: ClassificationNetwork) -> list[str]:
    settings, notes, rgb = samples.settings, [], len(samples.channels) == 3
    if settings.pretrained:
        if settings.architecture not in TORCHVISION_ARCHITECTURES:
            raise SettingsError(
                f"Pretrained weights exist for {TORCHVISION_ARCHITECTURES[0]} and other torchvision networks, not for "
                f"{settings.architecture!r}. Choose one of these, or pass your own weights as start_from."
            )
        weights = download_weights(settings.architecture)
        notes.append(copy_matching_weights(network, weights, f"the published {settings.architecture}", rgb))
    if settings.start_from:
        weights, specification = read_weights(samples.weights or Path(settings.start_from))
        ids = (specification.classes, samples.classes) if specification else None
        notes.append(copy_matching_weights(network, weights, settings.start_from, rgb, ids))
    return notes


def build_network(
    settings: TrainingSettings, ndim: int, channels: int, classes: int, user_module: nn.Module | None = None
) -> ClassificationNetwork:
    """Build the network that the settings describe.

    The global random generator of torch draws the weights.

    Parameters
    ----------
    settings : TrainingSettings
    ndim : 2 or 3
    channels : int
        Channels of the input, including the mask channel.
    classes : int
    user_module : Module, optional
        The user's own module. A copy of it replaces the architecture. Required if the architecture is "own".

    Raises
    ------
    SettingsError
        If the architecture does not exist for this number of dimensions.
    InputError
        If the user's module is required but missing, or cannot be built.
    """
    name = settings.architecture
    network: ClassificationNetwork
    if user_module is not None:
        network = UserNetwork(user_module, channels)
    elif name == USER_ARCHITECTURE:
        raise InputError(
            'The architecture "own" needs a user-defined torch module. Pass it, for example network=MyNetwork().'
        )
    elif ":" in name:
        network = UserNetwork(build_user_network(name, ndim, channels, classes), channels)
    elif name == "small_cnn":
        network = SmallCNN(ndim, channels, classes, settings.depth, settings.width)
    else:
        if ndim != 2:
            raise SettingsError(f'{name} is for 2D images only, but these are {ndim}D. Use architecture="small_cnn".')
        network = TorchvisionNetwork(name, channels, classes)
    if settings.norm == "group" and not isinstance(network, UserNetwork):
        replace_batch_norm(network)
    network.to(memory_format=MEMORY_FORMATS[ndim])  # type: ignore[call-overload]  # missing in torch's stubs
    return network


class UserNetwork(ClassificationNetwork):
    """User-supplied module, preceded by a standardization layer.

    Parameters
    ----------
    module : Module
        Maps patches (n, channels, [z,] y, x) to logits (n, classes). A copy of it is used; the original stays
        unchanged.
    channels : int
        Channels of the input, including the mask channel.
    """

    def __init__(self, module: nn.Module, channels: int) -> None:
        super().__init__(channels)
        self.body = copy.deepcopy(module)


def import_network(path: str) -> type[nn.Module]:
    """Import the module of ``"package.module:Name"`` and return the class.

    Call this only with a path that the user passed as an argument, never with a path read from a file.

    Raises
    ------
    InputError
        If the module cannot be imported or has no such class.
    """
    try:
        importlib.import_module(path.partition(":")[0])
    except ImportError as error:
        raise InputError(f"The network {path!r} cannot be imported: {error}. Check the import path.") from error
    return find_network(path)


def find_network(path: str) -> type[nn.Module]:
    """Return the class ``"package.module:Name"`` of an imported module.

    Raises
    ------
    InputError
        If the module is not imported yet, or has no such subclass of `torch.nn.Module`.
    """
    module_name, _, name = path.partition(":")
    module = sys.modules.get(module_name)
    if module is None:
        raise InputError(
            f"The network {path!r} is defined in a module that is not imported, and opening a file never imports code. "
            f"If you trust the module, run `import {module_name}` first, then try again."
        )
    network_class = vars(module).get(name)
    if not (isinstance(network_class, type) and issubclass(network_class, nn.Module)):
        raise InputError(
            f"The network {path!r} must be a subclass of torch.nn.Module, but {module_name} has no such class {name}. "
            "Check the name after the colon."
        )
    return network_class


def build_user_network(path: str, ndim: int, channels: int, classes: int) -> nn.Module:
    """Build a network from its class, passing dimensions, channels and classes.

    Each value is passed only if the constructor has a parameter for it.

    Raises
    ------
    InputError
        If the class is not found, or its constructor requires another argument.
    """
    network_class = find_network(path)
    # Common names of the constructor parameters.
    known = dict.fromkeys(("ndim", "dimensions"), ndim)
    known |= dict.fromkeys(("channels", "in_channels", "in_chans"), channels)
    known |= dict.fromkeys(("classes", "num_classes", "n_classes"), classes)
    parameters = [
        parameter
        for parameter in inspect.signature(network_class).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    for parameter in parameters:
        if parameter.name not in known and parameter.default is parameter.empty:
            raise InputError(
                f"The network {path!r} asks for {parameter.name!r}, but only channels, classes and ndim are passed "
                "automatically. Build the network yourself and pass the object: network=…."
            )
    return network_class(**{each.name: known[each.name] for each in parameters if each.name in known})


def check_patch_shape(settings: TrainingSettings, shape: tuple[int, ...]) -> None:
    """Raise an error if patches are too small for the strides of the network.

    Raises
    ------
    SettingsError
        If they are too small. The message contains the sampling that the network needs.
    """
    name, depth, least = settings.architecture, settings.depth, settings.min_patch_side
    if name == "small_cnn":
        problem = f"{depth} blocks halve them {depth} times and need at least {least} pixels per side"
        side, advice = max(shape), f"Set a depth of at most {max(shape).bit_length() - 1}"
    else:
        problem, side = f"{name} needs at least {least} pixels per side", min(shape)
        advice = "Choose another architecture"
    if side < least:
        patches = f"The patches have {_format_shape(shape)} pixels"
        raise SettingsError(f'{patches}, but {problem}. {advice}, or patches={{"sampling": {least}}}.')


@torch.inference_mode()
def check_logits(network: ClassificationNetwork, channels: int, shape: tuple[int, ...], classes: int) -> None:
    """Raise an error if the user's module does not return one logit per class.

    Raises
    ------
    InputError
        If the module fails on patches of this shape, returns another shape than (n, classes), or has no trainable
        weights.
    """
    network.eval()
    patches = torch.zeros(2, channels, *shape).to(memory_format=MEMORY_FORMATS[len(shape)])
    described = f"patches of shape {tuple(patches.shape)}"
    try:
        logits = network(patches)
    except Exception as error:  # the user's code may raise any exception
        raise InputError(
            f"Your network fails on {described} (n, channels, …): {error}. Change its first layer: the channels are "
            'those of the image, each twice with normalize="both", followed by the mask of the object.'
        ) from error
    result = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if result != (2, classes):
        raise InputError(
            f"Your network must return logits of shape {(2, classes)} for {described}, one per class, "
            f"but it returns {result}. Change its last layer."
        )
    if not any(weight.requires_grad for weight in network.parameters()):
        raise InputError("Your network has no weights to train. Pass a network with trainable weights.")


def read_weights(path: Path) -> tuple[dict[str, Tensor], ClassifierSpec | None]:
    """Read weights from a file, or weights and specification from a run's folder.

    Raises
    ------
    InputError
        If the path does not exist.
    ClassifierError
        If the weights cannot be read, are pickled, or belong to no network.
    """
    if not path.exists():
        raise InputError(
            f"There is no file or folder {str(path)!r}. Set start_from to a run or a .safetensors file of weights."
        )
    reject_pickles(path)
    specification = None
    if path.is_dir():
        kind, specification = read_classifier_spec(path)
        if kind != "network":
            raise ClassifierError(
                f"{str(path)!r} is a {kind} classifier, which has no network weights. Set start_from to a run of a "
                "network."
            )
        path = path / WEIGHTS_FILE
    return load_weights(path, "Choose another file or run."), specification


def load_weights(file: Path, advice: str) -> dict[str, Tensor]:
    """Read a file of weights, or raise a `ClassifierError` that ends with ``advice``."""
    try:
        check_regular_file(file)
        weights: dict[str, Tensor] = load_file(file)
        if not all(torch.isfinite(values).all() for values in weights.values()):
            raise ValueError("they contain values that are not finite")
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ClassifierError(f"The weights {str(file)!r} cannot be read: {error}. {advice}") from error
    return weights


@torch.no_grad()
def copy_matching_weights(
    network: ClassificationNetwork,
    given_weights: Mapping[str, Tensor],
    source: str,
    rgb: bool = False,
    classes: ClassIds | None = None,
) -> str:
    """Copy weights into a network where names and shapes match.

    The standardization layer is not changed. Filters for another number of channels are adapted (`adapt_filters`). With
    ``classes``, each row of the last layer is copied to the row of the same class.

    Parameters
    ----------
    network : ClassificationNetwork
    given_weights : mapping of str to Tensor
        Weights by name, with or without the prefix ``body.`` of the network.
    source : str
        Origin of the weights, for the message.
    rgb : bool
        True if the network's channels are red, green and blue, once or twice, possibly followed by the mask.
    classes : pair of tuple of int, optional
        Class ids of the given weights, and class ids of the network.

    Returns
    -------
    str
        A sentence with the number of copied weights and the names of the others.

    Raises
    ------
    InputError
        If none of the weights fits the network.
    """
    copied, new = 0, []
    last = {id(weight) for weight in network.last_layer.parameters()}
    for key, own in network.state_dict(keep_vars=True).items():
        if key.startswith("standardize.") or key.endswith("num_batches_tracked"):
            continue
        given = given_weights.get(key, given_weights.get(key.removeprefix("body.")))
        if given is None:
            new.append(key)
        elif _copy_weights(own, given, rgb, key == network.first_conv_weight, classes if id(own) in last else None):
            copied += 1
        else:
            new.append(f"{key} ({_format_shape(own.shape)} instead of {_format_shape(given.shape)})")
    if not copied:
        raise InputError(
            f"None of the weights of {source} fits this network, which has {', '.join(new[:MAX_LISTED])} and others. "
            "Choose the architecture, depth and width with which the weights were trained, or omit start_from."
        )
    rest = f"; newly initialized: {format_list(new, MAX_LISTED)}" if new else ""
    return f"Started from {copied} of {copied + len(new)} weights of {source}{rest}."


def _copy_weights(own: Tensor, given: Tensor, rgb: bool, is_first: bool, classes: ClassIds | None) -> bool:
    """Copy the weights of one layer; return False if they do not fit."""
    if classes is not None and given.shape[1:] == own.shape[1:]:
        for position, class_id in enumerate(classes[1]):
            if class_id in classes[0]:
                own[position] = given[classes[0].index(class_id)]
    elif given.shape == own.shape:
        own.copy_(given)
    elif is_first and given.shape[:1] + given.shape[2:] == own.shape[:1] + own.shape[2:]:
        own.copy_(adapt_filters(given, own.shape[1], rgb))
    else:
        return False
    return True


def adapt_filters(filters: Tensor, channels: int, rgb: bool) -> Tensor:
    """Adapt filters (out, channels, ...) to another number of channels.

    Each new channel gets the mean of the given filters. With ``rgb``, red, green and blue channels get the filter of
    their color instead, and only the mask of the object, the last channel, gets the mean. All filters are scaled so
    that the response to a patch with equal channels does not change.
    """
    adapted = filters.mean(dim=1, keepdim=True).repeat(1, channels, *(1 for _ in filters.shape[2:]))
    if rgb and filters.shape[1] == 3:
        for first in range(0, channels - 2, 3):
            adapted[:, first : first + 3] = filters
    return adapted * (filters.shape[1] / channels)


def _format_shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "a number"

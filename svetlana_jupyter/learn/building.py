"""The network that settings describe, whether it fits the patches, and the weights it begins with."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from svetlana_jupyter.core.settings import OWN, TORCHVISION_ARCHITECTURES, TrainingSettings
from svetlana_jupyter.errors import InputError, SettingsError
from svetlana_jupyter.learn.architectures import LAYOUTS, ClassificationNetwork, SmallCNN
from svetlana_jupyter.learn.averages import batch_norm_layers, replace_batch_norm
from svetlana_jupyter.learn.published import TorchvisionNetwork, download_weights
from svetlana_jupyter.learn.samples import TrainingData
from svetlana_jupyter.learn.transfer import copy_matching_weights, read_weights
from svetlana_jupyter.learn.userland import UserNetwork, build_user_network


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
    elif name == OWN:
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
    network.to(memory_format=LAYOUTS[ndim])  # type: ignore[call-overload]  # torch's stubs leave this keyword out
    return network


def begin(samples: TrainingData, patches: Tensor, smallest: int) -> tuple[ClassificationNetwork, list[str]]:
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
    settings, start, classes = samples.settings, samples.start, len(samples.classes)
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
    patches = torch.zeros(2, channels, *shape).to(memory_format=LAYOUTS[len(shape)])
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

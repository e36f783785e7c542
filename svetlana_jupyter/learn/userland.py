"""Networks of the user's own: a `torch.nn.Module` given as an object, or by the path it is imported from.

A file never makes this package import code: a path is followed only into modules that the user's session has imported,
or when a person gives it to a call (`import_network`).
"""

from __future__ import annotations

import copy
import importlib
import inspect
import sys

from torch import Tensor, nn

from svetlana_jupyter.errors import InputError
from svetlana_jupyter.learn.architectures import ClassificationNetwork, Standardize

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

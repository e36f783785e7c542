"""Albumentations pipelines as augmentation of training patches and volumes."""

from __future__ import annotations

import difflib
import inspect
import os
import random
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from svetlana_jupyter.core.settings import TRANSFORM, TrainingSettings, unknown_key_message
from svetlana_jupyter.errors import SettingsError
from svetlana_jupyter.learn.spatial import PatchLayout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

# Albumentations asks the package index for its newest version on import; nothing here may use the network unasked.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

SETTING_NAME = "augmentation.pipeline"
DEFAULT_SAMPLING = 24  # pixels per side of the patches for a trial, if their sampling is unknown
N_TRIALS = 8  # of a pipeline, and as many more per transform, because compositions choose among transforms
CONTENT_TARGETS = ("shown", "shown_again")  # targets for the mask of visible pixels of each copy of the image


class AlbumentationsPipeline:
    """Composed pipeline that is applied to each patch of a batch.

    Albumentations expects float32 images from 0 to 1: each channel of each patch is stretched to that range before, and
    back after. With ``normalize="both"`` the pipeline receives two copies of the image and transforms both alike.
    Transforms for images change all planes of a volume alike.

    Parameters
    ----------
    compose : albumentations.Compose
        From `learn.albumentations_adapter.build_compose`, which names the targets of this package.
    layout : PatchLayout
    """

    def __init__(self, compose: Any, layout: PatchLayout) -> None:
        self._compose, self._layout = compose, layout

    def __call__(self, patches: Tensor, generator: torch.Generator) -> Tensor:
        """Return augmented patches (n, C, [z,] y, x) of the same shape.

        Raises
        ------
        SettingsError
            If the pipeline fails, changes the shape, or gives values that are not finite.
        """
        seed = int(torch.randint(2**62, (), generator=generator))
        # One state for all transforms: seeded one by one they would draw the same, and flip along both axes or none.
        self._compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        visible = {
            target: mask[:, 0].cpu().numpy().astype(np.uint8)
            for target, mask in zip(CONTENT_TARGETS, self._layout.content_masks(patches))
            if mask is not None
        }
        augmented = [
            self._augment(patch, {target: masks[number] for target, masks in visible.items()})
            for number, patch in enumerate(patches.cpu().numpy())
        ]
        return torch.from_numpy(np.stack(augmented)).to(patches.device)

    def _augment(self, patch: NDArray[np.float32], visible: dict[str, NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Augment a patch (C, ...); pixels without content stay zero."""
        layout, image = self._layout, patch[: self._layout.image]
        axes = tuple(range(1, image.ndim))
        least, most = image.min(axes, keepdims=True), image.max(axes, keepdims=True)
        span = np.where(most > least, most - least, np.float32(1))
        stretched = np.moveaxis((image - least) / span, 0, -1)
        given = self._targets(stretched, patch[layout.image :].astype(np.uint8)) | visible
        names = [name for name in ("image", "volume", "again") if name in given]
        try:
            result = self._compose(**{name: np.ascontiguousarray(array) for name, array in given.items()})
        except Exception as error:  # transforms raise errors of any class
            reason = str(error).partition("\n")[0] or type(error).__name__
            reason = f"it asks for {reason}" if isinstance(error, KeyError) else reason
            raise SettingsError(
                f"{SETTING_NAME} fails on {_describe_shape(given[names[0]].shape)} of float32 ({reason})"
            ) from error
        for name in given:
            if name != "images" and result[name].shape != given[name].shape:
                shapes = _describe_shape(result[name].shape), _describe_shape(given[name].shape)
                raise SettingsError(f"{SETTING_NAME} changes {shapes[1]} to {shapes[0]}")
        values = np.concatenate([result[name] for name in names], axis=-1)
        if values.dtype != np.float32 or not np.isfinite(values).all():
            raise SettingsError(f"{SETTING_NAME} gives values that are not finite float32 numbers")
        back = np.split(np.moveaxis(values, -1, 0) * span + least, layout.copies)
        seen = [copy * (result[target] > 0) if target in given else copy for target, copy in zip(CONTENT_TARGETS, back)]
        masks = [result[name][None] > 0 for name in ("mask", "mask3d") if name in given]
        return np.concatenate([*seen, *masks], dtype=np.float32)

    def _targets(self, stretched: NDArray[np.float32], masks: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Return the inputs of the pipeline by the names of its targets."""
        volume = stretched.ndim == 4
        copies = np.split(stretched, self._layout.copies, axis=-1)
        targets = dict(zip(("volume" if volume else "image", "again"), copies))
        if volume:
            targets["images"] = copies[0][:1]  # some transforms read shape and range here, even of volumes
        if self._layout.has_mask:
            targets["mask3d" if volume else "mask"] = masks[0]
        return targets


def _describe_shape(shape: tuple[int, ...]) -> str:
    """Describe a shape whose last axis holds the channels.

    >>> _describe_shape((8, 6, 2))
    '8 × 6 pixels with 2 channels'
    """
    return f"{' × '.join(map(str, shape[:-1]))} pixels with {shape[-1]} channel{'s' * (shape[-1] > 1)}"


def build_pipeline(settings: TrainingSettings, ndim: int, colors: int) -> AlbumentationsPipeline | None:
    """Return the pipeline of the settings, None if there is none.

    Parameters
    ----------
    settings : TrainingSettings
        If the sampling of its patches is not known yet, the pipeline is tried on patches of 24 pixels per side.
    ndim : 2 or 3
    colors : int
        Number of channels of the image.

    Raises
    ------
    SettingsError
        If Albumentations does not know a transform or its arguments, or if the pipeline fails on such patches or
        changes their shape.
    """
    description = settings.augmentation.pipeline
    if description is None:
        return None
    patches, sampling, hint = settings.patches, settings.patches.sampling, ""
    layout = PatchLayout.from_settings(patches, (1 + patches.has_doubled_channels) * colors + patches.mask_channel)
    if not isinstance(sampling, int | tuple):
        sampling = DEFAULT_SAMPLING
        hint = f" If it depends on the shape, give patches a sampling: {DEFAULT_SAMPLING} is a guess."
    shape = sampling if isinstance(sampling, tuple) else (sampling,) * ndim
    problem = _problem(description["transform"], layout, shape)
    if problem:
        single = ((_name(each), _problem(each, layout, shape)) for each in _leaves(description["transform"]))
        problem = next((f"{name} {reason}" for name, reason in single if reason), f"it {problem}")
        raise SettingsError(
            f"{SETTING_NAME} must work on the patches and keep their shape, but {problem}. "
            f"Remove that transform, or add one that restores the shape.{hint}"
        )
    return AlbumentationsPipeline(build_compose(description["transform"], ndim), layout)


def build_compose(transform: Mapping[str, Any], ndim: int) -> Any:
    """Return an `albumentations.Compose` of a serialized transform.

    It has the targets of this package.

    Raises
    ------
    SettingsError
        If a transform is not part of Albumentations (the closest name is suggested), or its arguments are wrong.
    """
    import albumentations

    whole: Mapping[str, Any] = transform if _name(transform) == "Compose" else {"transforms": [transform]}
    share = whole.get("p", 1.0)
    if not isinstance(share, int | float) or not 0 <= share <= 1:
        raise SettingsError(f"{SETTING_NAME}: p of Compose must be from 0 to 1, got {share!r}.")
    compose = albumentations.Compose([_build_transform(inner) for inner in whole.get("transforms", [])], p=share)
    image, mask = ("volume", "mask3d") if ndim == 3 else ("image", "mask")
    compose.add_targets({"again": image} | dict.fromkeys(CONTENT_TARGETS, mask))
    return compose


def _build_transform(transform: Mapping[str, Any]) -> Any:
    from albumentations.core.composition import BaseCompose
    from albumentations.core.serialization import SERIALIZABLE_REGISTRY
    from albumentations.core.transforms_interface import BasicTransform

    # Transforms of other packages are registered too, with the name of their module.
    transforms = {
        name: kind
        for name, kind in SERIALIZABLE_REGISTRY.items()
        if "." not in name and issubclass(kind, BaseCompose | BasicTransform)
    }
    name = _name(transform)
    if name not in transforms:
        near = difflib.get_close_matches(name, transforms, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else "see the list in its documentation."
        raise SettingsError(f"{SETTING_NAME}: there is no Albumentations transform {name!r}; {hint}")
    values = {key: value for key, value in transform.items() if key != TRANSFORM}
    if issubclass(transforms[name], BaseCompose):
        values["transforms"] = [_build_transform(inner) for inner in values.get("transforms", [])]
    else:
        values = {"p": 0.5, **values}  # the default of the library
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about arguments, which are checked below
            made = transforms[name](**values)
    except Exception as error:  # constructors raise errors of any class
        lines = [line.strip() for line in str(error).splitlines()]
        raise SettingsError(f"{SETTING_NAME}: {name} does not accept its arguments: {' '.join(lines[:3])}") from error
    # The library ignores unknown arguments. Some transforms serialize more than the arguments of their constructors.
    names = {*inspect.signature(transforms[name]).parameters, *made.to_dict_private()}
    unknown = next((key for key in values if key not in names), None)
    if unknown is not None:
        raise SettingsError(
            f"{SETTING_NAME}: {unknown_key_message(unknown, sorted(names - {TRANSFORM}), f'argument of {name}')}"
        )
    return made


def _problem(transform: Mapping[str, Any], layout: PatchLayout, shape: tuple[int, ...]) -> str:
    """Try all transforms of a pipeline on patches; return the problem, "" if none."""
    generator = torch.Generator().manual_seed(0)
    patches = torch.rand(1, layout.image + layout.has_mask, *shape, generator=generator)
    if layout.has_mask:
        middle = torch.zeros(shape)
        middle[tuple(slice(side // 4, side - side // 4) for side in shape)] = 1
        patches[:, -1] = middle
    pipeline = AlbumentationsPipeline(build_compose(_always_applied(transform), len(shape)), layout)
    try:
        for _ in range(N_TRIALS * (1 + len(list(_leaves(transform))))):
            pipeline(patches, generator)
    except SettingsError as error:
        return str(error).removeprefix(f"{SETTING_NAME} ")
    return ""


def _always_applied(transform: Mapping[str, Any]) -> dict[str, Any]:
    """Return a transform with probability 1, and all transforms inside it."""
    inner = {"transforms": [*map(_always_applied, transform["transforms"])]} if "transforms" in transform else {}
    return {**transform, "p": 1.0, **inner}


def _leaves(transform: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if "transforms" not in transform:
        yield transform
    for inner in transform.get("transforms", []):
        yield from _leaves(inner)


def _name(transform: Mapping[str, Any]) -> str:
    return str(transform[TRANSFORM]).removeprefix("albumentations.").rpartition(".")[2]

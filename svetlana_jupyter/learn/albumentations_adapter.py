"""Adapter that applies Albumentations pipelines to training patches."""

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

from svetlana_jupyter.core.settings import SIMILAR, TRANSFORM, TrainingSettings, unknown_key_message
from svetlana_jupyter.errors import SettingsError
from svetlana_jupyter.learn.spatial import PatchLayout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

# On import, Albumentations looks up its latest version online. This package goes online only if the user asks for it.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

SETTING_NAME = "augmentation.pipeline"
DEFAULT_SAMPLING = 24  # pixels per side of the patches that test a pipeline, if the settings give no sampling
# Number of test runs of a pipeline, and of additional runs per transform, because a composition such as OneOf applies
# only some of its transforms.
N_TRIALS = 8
CONTENT_TARGETS = ("shown", "shown_again")  # Albumentations targets for the visible pixels of each copy of the image


class AlbumentationsPipeline:
    """Callable that applies an Albumentations pipeline to each patch of a batch.

    Albumentations expects float32 images with values from 0 to 1. So each channel of each patch is scaled to that range
    before the pipeline and scaled back afterward. With ``normalize="both"`` a patch contains two copies of the image,
    and the pipeline transforms both in the same way. 2D transforms change all planes of a volume in the same way.

    Parameters
    ----------
    compose : albumentations.Compose
        Built by `learn.albumentations_adapter.build_compose`, which adds the targets that this class uses.
    layout : PatchLayout
    """

    def __init__(self, compose: Any, layout: PatchLayout) -> None:
        self._compose, self._layout = compose, layout

    def __call__(self, patches: Tensor, generator: torch.Generator) -> Tensor:
        """Return augmented copies of patches (n, C, [z,] y, x), in the same shape.

        Raises
        ------
        SettingsError
            If the pipeline fails, changes the shape, or returns values that are not finite.
        """
        seed = int(torch.randint(2**62, (), generator=generator))
        # All transforms share one random state. With one state per transform and the same seed, they would draw the
        # same numbers, and horizontal and vertical flips would always occur together.
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
        """Augment a patch (C, ...); hidden pixels stay zero."""
        layout, image = self._layout, patch[: self._layout.image]
        axes = tuple(range(1, image.ndim))
        least, most = image.min(axes, keepdims=True), image.max(axes, keepdims=True)
        span = np.where(most > least, most - least, np.float32(1))
        stretched = np.moveaxis((image - least) / span, 0, -1)
        given = self._targets(stretched, patch[layout.image :].astype(np.uint8)) | visible
        names = [name for name in ("image", "volume", "again") if name in given]
        try:
            result = self._compose(**{name: np.ascontiguousarray(array) for name, array in given.items()})
        except Exception as error:  # transforms may raise any exception
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
            raise SettingsError(f"{SETTING_NAME} returns values that are not finite float32 numbers")
        back = np.split(np.moveaxis(values, -1, 0) * span + least, layout.copies)
        seen = [copy * (result[target] > 0) if target in given else copy for target, copy in zip(CONTENT_TARGETS, back)]
        masks = [result[name][None] > 0 for name in ("mask", "mask3d") if name in given]
        return np.concatenate([*seen, *masks], dtype=np.float32)

    def _targets(self, stretched: NDArray[np.float32], masks: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Return the inputs of the pipeline by target name."""
        volume = stretched.ndim == 4
        copies = np.split(stretched, self._layout.copies, axis=-1)
        targets = dict(zip(("volume" if volume else "image", "again"), copies))
        if volume:
            targets["images"] = copies[0][:1]  # some transforms read the shape and range of volumes here
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
    """Build and test the augmentation pipeline of the settings; None without one.

    Parameters
    ----------
    settings : TrainingSettings
        The pipeline is tested on random patches with the sampling of the settings, or with 24 pixels per side if the
        sampling is not known yet.
    ndim : 2 or 3
    colors : int
        Number of channels of the image.

    Raises
    ------
    SettingsError
        If Albumentations does not have a transform or does not accept its arguments, or if the pipeline fails on the
        test patches or changes their shape.
    """
    description = settings.augmentation.pipeline
    if description is None:
        return None
    patches, sampling, hint = settings.patches, settings.patches.sampling, ""
    layout = PatchLayout.from_settings(patches, (1 + patches.has_doubled_channels) * colors + patches.mask_channel)
    if not isinstance(sampling, int | tuple):
        sampling = DEFAULT_SAMPLING
        hint = (
            " If the transform depends on the patch shape, set the sampling of patches: it was tested with "
            f"{DEFAULT_SAMPLING} pixels per side."
        )
    shape = sampling if isinstance(sampling, tuple) else (sampling,) * ndim
    problem = _problem(description["transform"], layout, shape)
    if problem:
        single = ((_name(each), _problem(each, layout, shape)) for each in _leaves(description["transform"]))
        problem = next((f"{name} {reason}" for name, reason in single if reason), f"it {problem}")
        raise SettingsError(
            f"{SETTING_NAME} must work on the patches and keep their shape, but {problem}. "
            f"Remove that transform, or add a transform that restores the shape.{hint}"
        )
    return AlbumentationsPipeline(build_compose(description["transform"], ndim), layout)


def build_compose(transform: Mapping[str, Any], ndim: int) -> Any:
    """Build an `albumentations.Compose` from a serialized transform.

    It includes the additional targets of `AlbumentationsPipeline`: the second copy of the image, and the visible pixels
    of each copy.

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

    # The registry also contains transforms of other packages, under names that include their module.
    transforms = {
        name: kind
        for name, kind in SERIALIZABLE_REGISTRY.items()
        if "." not in name and issubclass(kind, BaseCompose | BasicTransform)
    }
    name = _name(transform)
    if name not in transforms:
        near = difflib.get_close_matches(name, transforms, n=1, cutoff=SIMILAR)
        hint = f"did you mean {near[0]!r}?" if near else "see the list in the documentation of Albumentations."
        raise SettingsError(f"{SETTING_NAME}: there is no Albumentations transform {name!r}; {hint}")
    values = {key: value for key, value in transform.items() if key != TRANSFORM}
    if issubclass(transforms[name], BaseCompose):
        values["transforms"] = [_build_transform(inner) for inner in values.get("transforms", [])]
    else:
        values = {"p": 0.5, **values}  # the default probability of Albumentations
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about unknown arguments, which are checked below
            made = transforms[name](**values)
    except Exception as error:  # constructors may raise any exception
        lines = [line.strip() for line in str(error).splitlines()]
        raise SettingsError(f"{SETTING_NAME}: {name} does not accept its arguments: {' '.join(lines[:3])}") from error
    # Albumentations ignores unknown arguments. Some transforms serialize values that are not constructor arguments.
    names = {*inspect.signature(transforms[name]).parameters, *made.to_dict_private()}
    unknown = next((key for key in values if key not in names), None)
    if unknown is not None:
        raise SettingsError(
            f"{SETTING_NAME}: {unknown_key_message(unknown, sorted(names - {TRANSFORM}), f'argument of {name}')}"
        )
    return made


def _problem(transform: Mapping[str, Any], layout: PatchLayout, shape: tuple[int, ...]) -> str:
    """Test a pipeline on random patches; return the problem, or "" if none."""
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
    """Return a copy of a transform in which every probability is 1."""
    inner = {"transforms": [*map(_always_applied, transform["transforms"])]} if "transforms" in transform else {}
    return {**transform, "p": 1.0, **inner}


def _leaves(transform: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if "transforms" not in transform:
        yield transform
    for inner in transform.get("transforms", []):
        yield from _leaves(inner)


def _name(transform: Mapping[str, Any]) -> str:
    return str(transform[TRANSFORM]).removeprefix("albumentations.").rpartition(".")[2]

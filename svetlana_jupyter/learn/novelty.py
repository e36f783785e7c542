"""Whether objects look like those that were annotated: how far they lie from them by what their patches show.

A classifier answers for any patch, also for one unlike all that it learned from. Here each patch is described by a few
numbers that no training decides (brightness, contrast and sharpness inside and outside the object, its size and edge;
for a forest by what it measures), and its distance from the nearest class is taken in units of how the objects of a
class vary (Mahalanobis, with a shrunken covariance: Ledoit and Wolf 2004; Lee et al., NeurIPS 2018, do so with a
network's features). What is usual is learned from groups that were left out, so that a new well is compared with how
new wells look, and not with objects that lie beside annotated ones.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from sklearn.covariance import LedoitWolf

from svetlana_jupyter.core.stats.outliers import HeldOutGroups
from svetlana_jupyter.learn.augmentation import center_crop
from svetlana_jupyter.learn.dataset import TrainingData
from svetlana_jupyter.learn.splits import split_folds

REFERENCE_FILE = "familiar.safetensors"
COVERAGE = 0.95  # of the objects that were left out lie within the limit
MIN_OBJECTS = 20  # annotated objects; with fewer, nothing can be said
N_FOLDS = 10  # left out in turn, at most
MAX_COMPARED = 400  # objects of an image, at random: more cost time and tell no more of the image
EPSILON = 1e-6

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ReferenceDistribution:
    """Where annotated objects lie among all that patches can show.

    Attributes
    ----------
    kept : int64 of shape (d,)
        The numbers of `describe_patches` that vary at all.
    center, scale : float64 of shape (d,)
        What brings each of them to a usual size.
    classes : float64 of shape (k, d)
        The centre of each class.
    precision : float64 of shape (d, d)
        The inverse of the covariance within classes.
    limit : float64 of shape (1,)
        The squared distance that 95 % of the objects of left-out groups lie within.
    shares, counts : float64 of shape (g,)
        For each group that was left out, the share of its objects beyond the limit, and how many objects it has.
    """

    kept: NDArray[np.int64]
    center: Floats
    scale: Floats
    classes: Floats
    precision: Floats
    limit: Floats
    shares: Floats
    counts: Floats

    @property
    def left_out(self) -> HeldOutGroups:
        return HeldOutGroups(tuple(self.shares.tolist()), tuple(self.counts.astype(int).tolist()))

    def novelty(self, inputs: NDArray[np.float32], has_mask: bool) -> NDArray[np.float32]:
        """Return how far objects (n,) are from all annotated ones; above 1, further than 95 % of those left out.

        Parameters
        ----------
        inputs : float32 of shape (n, ...)
            What the classifier sees of them.
        masked : bool
            Whether the last channel is the object's own mask.
        """
        return np.sqrt(self.distances(describe_patches(inputs, has_mask)) / self.limit).astype(np.float32)

    def distances(self, numbers: Floats) -> Floats:
        """Return the squared distances (n,) from the nearest class."""
        apart = _usual(numbers[:, self.kept], self.center, self.scale)[:, None] - self.classes
        return np.asarray(np.einsum("nki,ij,nkj->nk", apart, self.precision, apart, optimize=True).min(axis=1))

    def save(self, folder: Path) -> None:
        save_file({name: np.ascontiguousarray(values) for name, values in vars(self).items()}, folder / REFERENCE_FILE)

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Read what `save` wrote; None where there is nothing of the kind."""
        try:
            found = load_file(folder / REFERENCE_FILE)
            return cls(**{field.name: found[field.name] for field in fields(cls)})
        except (OSError, SafetensorError, KeyError):
            return None


def fit_reference(samples: TrainingData) -> ReferenceDistribution | None:
    """Learn how annotated objects look, None where they are too few to tell."""
    if len(samples) < MIN_OBJECTS:
        return None
    settings = samples.settings
    inputs = samples.inputs
    if inputs.ndim > 2:
        assert isinstance(settings.patches.sampling, tuple)
        inputs = center_crop(torch.from_numpy(inputs), settings.patches.sampling).numpy()
    numbers = describe_patches(inputs, settings.patches.mask_channel)
    if not (numbers.std(axis=0) > EPSILON).any():
        return None
    distances = np.empty(len(samples))
    for part in split_folds(samples, N_FOLDS).parts:
        rest = np.setdiff1d(np.arange(len(samples)), part)
        distances[part] = _placed(numbers[rest], samples.targets[rest]).distances(numbers[part])
    limit = np.quantile(distances, COVERAGE, keepdims=True)
    groups, place = np.unique(samples.groups, return_inverse=True)
    counts = np.bincount(place, minlength=len(groups)).astype(float)
    found = _placed(numbers, samples.targets)
    shares = np.bincount(place, distances > limit, len(groups)) / counts
    return ReferenceDistribution(**{**vars(found), "limit": limit, "shares": shares, "counts": counts})


def describe_patches(inputs: NDArray[np.float32], has_mask: bool) -> Floats:
    """Return a few numbers (n, d) on each patch (n, C, [z,] y, x): those that turning and mirroring leave as they are.

    For every channel of the image the mean and the logarithm of the deviation, inside the object and outside; the
    logarithm of the mean gradient and curvature; and of the mask its size and edge. Measured properties (n, features)
    are returned as they are.
    """
    if inputs.ndim == 2:
        return inputs.astype(np.float64)
    image = inputs[:, :-1] if has_mask else inputs
    n, channels = image.shape[:2]
    axes = tuple(range(2, inputs.ndim))
    middle = image.mean(axis=axes, keepdims=True)  # taken off first: squares of large values are not exact
    image = image - middle
    inside = inputs[:, -1:] > 0.5 if has_mask else np.ones_like(image[:, :1], bool)
    weights = np.stack([inside, ~inside] if has_mask else [inside]).astype(np.float32).reshape(-1, n, inside[0].size, 1)
    weights /= np.maximum(weights.sum(axis=2, keepdims=True), 1)
    columns = []
    for weight in weights:
        mean, square = (power.reshape(n, channels, -1) @ weight for power in (image, image**2))
        columns += [
            mean[..., 0] + middle.reshape(n, channels),
            0.5 * np.log(np.maximum(square - mean**2, 0) + EPSILON)[..., 0],
        ]
    gradients = [np.diff(image, axis=axis) for axis in axes]
    curvatures = [np.diff(gradient, axis=axis) for gradient, axis in zip(gradients, axes)]
    columns += [0.5 * np.log(sum(map(_mean_square, steps)) + EPSILON) for steps in (gradients, curvatures)]
    if has_mask:
        edge = sum(np.diff(inside, axis=axis).mean(axis=axes) for axis in axes)
        columns += [np.log(inside.mean(axis=axes) + EPSILON), np.asarray(edge)]
    return np.concatenate(columns, axis=1).astype(np.float64)


def _mean_square(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean square (n, C) of values (n, C, ...)."""
    flat = values.reshape(*values.shape[:2], -1)
    return np.asarray(np.einsum("ncp,ncp->nc", flat, flat) / flat.shape[2])


def _placed(numbers: Floats, targets: NDArray[np.int64]) -> ReferenceDistribution:
    """Return where the classes lie, as yet without a limit."""
    kept = np.flatnonzero(numbers.std(axis=0) > EPSILON)
    numbers = numbers[:, kept]
    center, scale = numbers.mean(axis=0), numbers.std(axis=0)
    usual = _usual(numbers, center, scale)
    ids, place = np.unique(targets, return_inverse=True)
    classes = np.stack([usual[place == number].mean(axis=0) for number in range(len(ids))])
    precision = LedoitWolf(assume_centered=True).fit(usual - classes[place]).precision_
    return ReferenceDistribution(kept, center, scale, classes, precision, np.ones(1), np.empty(0), np.empty(0))


def _usual(numbers: Floats, center: Floats, scale: Floats) -> Floats:
    """Bring numbers to a usual size; those far off less so, as some measurements have long tails."""
    return np.arcsinh((numbers - center) / scale)

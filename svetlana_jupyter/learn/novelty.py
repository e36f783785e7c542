"""Out-of-distribution detection by the distance from the annotated objects.

A classifier returns a class for any patch, even for a patch unlike all training patches. To detect such patches, each
patch is described by a few numbers that need no training (brightness, contrast and sharpness inside and outside the
object, and size and edge length of the object; for a forest, its features). The novelty of a patch is its Mahalanobis
distance from the nearest class, with a shrinkage estimate of the covariance within classes (Ledoit and Wolf 2004). Lee
et al. (NeurIPS 2018) compute the same distance from the features of a network. The limit of the distance is estimated
on held-out groups, so that it allows for the usual differences between groups such as wells.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from sklearn.covariance import LedoitWolf

from svetlana_jupyter.core.io.bounded_files import check_regular_file
from svetlana_jupyter.core.stats.outliers import HeldOutGroups
from svetlana_jupyter.learn.augmentation import center_crop
from svetlana_jupyter.learn.splits import split_folds

if TYPE_CHECKING:
    from pathlib import Path

    from svetlana_jupyter.learn.dataset import TrainingData

REFERENCE_FILE = "familiar.safetensors"
COVERAGE = 0.95  # share of the held-out objects within the limit
MIN_OBJECTS = 20  # annotated objects; with fewer there is no reference distribution
N_FOLDS = 10  # maximum number of folds
MAX_COMPARED = 400  # random objects per image; more would take longer and hardly improve the estimate
EPSILON = 1e-6

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ReferenceDistribution:
    """Distribution of the annotated objects, with the limit for outliers.

    Attributes
    ----------
    kept : int64 of shape (d,)
        The columns of `describe_patches` that are not constant.
    center, scale : float64 of shape (d,)
        Mean and standard deviation of these columns.
    classes : float64 of shape (k, d)
        The center of each class.
    precision : float64 of shape (d, d)
        The inverse of the covariance within classes.
    limit : float64 of shape (1,)
        The squared distance within which 95 % of the held-out objects lie.
    shares, counts : float64 of shape (g,)
        Fraction of objects beyond the limit, and number of objects, in each held-out group.
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
        """Fraction of outlying objects and number of objects in each held-out group."""
        return HeldOutGroups(tuple(self.shares.tolist()), tuple(self.counts.astype(int).tolist()))

    def novelty(self, inputs: NDArray[np.float32], has_mask: bool) -> NDArray[np.float32]:
        """Return the distances (n,) from the annotated objects; 1 is the limit.

        Parameters
        ----------
        inputs : float32 of shape (n, ...)
            Inputs of the classifier.
        has_mask : bool
            True if the last channel is the mask of the object.
        """
        return np.sqrt(self.distances(describe_patches(inputs, has_mask)) / self.limit).astype(np.float32)

    def distances(self, numbers: Floats) -> Floats:
        """Return the squared distances (n,) of numbers (n, d) from the nearest class."""
        offsets = _compress(numbers[:, self.kept], self.center, self.scale)[:, None] - self.classes
        return np.asarray(np.einsum("nki,ij,nkj->nk", offsets, self.precision, offsets, optimize=True).min(axis=1))

    def save(self, folder: Path) -> None:
        """Write the distribution into the folder of a run."""
        save_file({name: np.ascontiguousarray(values) for name, values in vars(self).items()}, folder / REFERENCE_FILE)

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Load a saved distribution; None if the file is missing or unreadable."""
        try:
            check_regular_file(folder / REFERENCE_FILE)
            arrays = load_file(folder / REFERENCE_FILE)
            loaded = cls(**{field.name: arrays[field.name] for field in fields(cls)})
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return None
        return loaded if loaded._is_valid() else None

    def _is_valid(self) -> bool:
        """Return whether the arrays fit together."""
        d = len(self.kept)
        shapes = {"center": (d,), "scale": (d,), "precision": (d, d), "limit": (1,), "counts": self.shares.shape}
        fit = all(getattr(self, name).shape == shape for name, shape in shapes.items())
        fit = fit and self.kept.dtype.kind == "i" and self.classes.ndim == 2 and self.classes.shape[1] == d
        finite = fit and all(np.isfinite(values).all() for values in vars(self).values())
        return bool(finite and d and (self.kept >= 0).all() and (self.scale > 0).all() and self.limit[0] > 0)


def fit_reference(samples: TrainingData) -> ReferenceDistribution | None:
    """Estimate the reference distribution; None if objects are too few or identical."""
    if len(samples) < MIN_OBJECTS:
        return None
    settings, inputs = samples.settings, samples.inputs
    if inputs.ndim > 2:
        inputs = center_crop(inputs, settings.patches.shape)
    numbers = describe_patches(inputs, settings.patches.mask_channel)
    if not (numbers.std(axis=0) > EPSILON).any():
        return None
    distances = np.empty(len(samples))
    for part in split_folds(samples, N_FOLDS).parts:
        rest = np.setdiff1d(np.arange(len(samples)), part)
        distances[part] = _fit_classes(numbers[rest], samples.targets[rest]).distances(numbers[part])
    limit = np.quantile(distances, COVERAGE, keepdims=True)
    groups, place = np.unique(samples.groups, return_inverse=True)
    counts = np.bincount(place, minlength=len(groups)).astype(float)
    shares = np.bincount(place, distances > limit, len(groups)) / counts
    return replace(_fit_classes(numbers, samples.targets), limit=limit, shares=shares, counts=counts)


def describe_patches(inputs: NDArray[np.float32], has_mask: bool) -> Floats:
    """Describe each patch (n, C, [z,] y, x) by numbers (n, d).

    The numbers do not depend on flips and right-angle rotations. For each image channel, they are the mean and the log
    standard deviation inside and outside the object, and the log root mean square of gradient and curvature. For the
    mask, they are the log area and the edge length. Features (n, features) are returned unchanged.
    """
    if inputs.ndim == 2:
        return inputs.astype(np.float64)
    image = inputs[:, :-1] if has_mask else inputs
    n, channels = image.shape[:2]
    axes = tuple(range(2, inputs.ndim))
    middle = image.mean(axis=axes, keepdims=True)  # subtracted, because squares of large values are inexact
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


def _fit_classes(numbers: Floats, targets: NDArray[np.int64]) -> ReferenceDistribution:
    """Estimate the distribution of each class; the limit is not estimated here."""
    kept = np.flatnonzero(numbers.std(axis=0) > EPSILON)
    numbers = numbers[:, kept]
    center, scale = numbers.mean(axis=0), numbers.std(axis=0)
    compressed = _compress(numbers, center, scale)
    ids, place = np.unique(targets, return_inverse=True)
    classes = np.stack([compressed[place == number].mean(axis=0) for number in range(len(ids))])
    precision = LedoitWolf(assume_centered=True).fit(compressed - classes[place]).precision_
    return ReferenceDistribution(kept, center, scale, classes, precision, np.ones(1), np.empty(0), np.empty(0))


def _compress(numbers: Floats, center: Floats, scale: Floats) -> Floats:
    """Standardize numbers and compress their tails, which are long for some features."""
    return np.arcsinh((numbers - center) / scale)

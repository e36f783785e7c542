"""Where a network looks when it classifies one object (Grad-CAM, the paper's section 3)."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from xarray import Dataset

from svetlana_jupyter.core.io.image_pair import ImagePair
from svetlana_jupyter.core.patch_geometry import patch_geometry, patch_settings_for_object
from svetlana_jupyter.core.patches import take_patch
from svetlana_jupyter.errors import ClassifierError, InputError
from svetlana_jupyter.learn.classifier import Classifier, NetworkClassifier
from svetlana_jupyter.learn.networks import MEMORY_FORMATS, load_grad_cam

# Names of grad-cam's classes; these work in 2D and in 3D.
CAM_METHODS = {"gradcam": "GradCAM", "gradcam++": "GradCAMPlusPlus", "layercam": "LayerCAM"}


def explain(
    pair: ImagePair,
    objects: pd.DataFrame,
    label: int,
    classifier: Classifier,
    class_id: int | None = None,
    method: str = "gradcam",
) -> Dataset:
    """Compute which parts of one object's patch speak for a class.

    Parameters
    ----------
    label : int
        Its label, a row of ``objects``.
    class_id : int, optional
        The class to explain; by default the one predicted.
    method : "gradcam", "gradcam++" or "layercam"

    Returns
    -------
    Dataset
        ``image`` (c, [z,] y, x), the pixels of the patch as they are in the image, ``mask`` of the object and ``cam``
        from 0 to 1, both ([z,] y, x); coordinates in pixels of the image. ``attrs`` hold object, class_id,
        probability and method.

    Raises
    ------
    ClassifierError
        If the classifier is a forest, or does not fit the image.
    InputError
        If there is no such object, class or method.
    """
    if not isinstance(classifier, NetworkClassifier):
        raise ClassifierError(
            "Grad-CAM needs a network, but this classifier is a forest. Train the small network to see it."
        )
    classifier.check(pair)
    if label not in objects.index:
        raise InputError(f"{pair.name!r} has no object {label}.")
    if class_id is not None and class_id not in classifier.classes:
        raise InputError(f"the classifier knows the class ids {classifier.classes}, not {class_id}.")
    if method not in CAM_METHODS:
        raise InputError(f"method must be one of {', '.join(CAM_METHODS)}, got {method!r}.")
    axes = list("zyx"[-pair.ndim :])
    center = np.asarray(objects.loc[label, axes], dtype=float)
    settings = patch_settings_for_object(classifier.patches, objects, label, pair.spacing)
    patch = take_patch(pair.image, pair.mask, center, settings, label)
    probabilities = classifier.classify(patch[None])[0]
    position = int(probabilities.argmax()) if class_id is None else classifier.classes.index(class_id)
    raw = settings.changed(normalize="none", context="keep", mask_channel=True)
    seen = take_patch(pair.image, pair.mask, center, raw, label)
    geometry = patch_geometry(settings, pair.spacing)
    places = {
        axis: first + step * np.arange(count)
        for axis, first, step, count in zip(
            axes, geometry.origin(center), geometry.sampling_step, geometry.shape, strict=True
        )
    }
    return Dataset(
        {
            "image": (["c", *axes], seen[:-1]),
            "mask": (axes, seen[-1] > 0),
            "cam": (axes, _cam(classifier, patch, position, method)),
        },
        coords={"c": list(pair.channels), **places},
        attrs={
            "object": label,
            "class_id": classifier.classes[position],
            "probability": float(probabilities[position]),
            "method": method,
        },
    )


def _cam(classifier: NetworkClassifier, patch: NDArray[np.float32], position: int, method: str) -> NDArray[np.float32]:
    """Return the map of one class on one patch, 0 to 1."""
    layer = classifier.module.gradcam_layer
    if layer is None:
        raise ClassifierError("Grad-CAM needs a network with a convolution, but this one has none.")
    grad_cam = load_grad_cam()
    target = _Logit(position)
    inputs = torch.from_numpy(patch[None]).to(classifier.device, memory_format=MEMORY_FORMATS[classifier.ndim])
    inputs.requires_grad_()  # so that gradients pass layers that were frozen
    # As a context manager it takes its hooks off the network again.
    with grad_cam.__dict__[CAM_METHODS[method]](model=classifier.module, target_layers=[layer]) as cam:
        result: NDArray[np.float32] = cam(input_tensor=inputs, targets=[target])[0]
    return np.nan_to_num(result)


class _Logit:
    """Picks one class's logit out of a network's output."""

    def __init__(self, position: int) -> None:
        self.position = position

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        return logits[..., self.position]

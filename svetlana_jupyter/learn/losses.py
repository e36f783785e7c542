"""What training makes small (the paper, section 4.1): losses of logits against classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor
from torch.nn import functional

from svetlana_jupyter.core.settings import TrainingSettings

Loss = Callable[[Tensor, Tensor], Tensor]

_OF_PROBABILITIES: Mapping[str, Loss] = MappingProxyType(
    {"l1": functional.l1_loss, "smooth_l1": functional.smooth_l1_loss, "mse": functional.mse_loss}
)


def build_loss(settings: TrainingSettings) -> Loss:
    """Return the loss that the settings name: of logits (n, classes) and positions of classes (n,), a mean over n.

    What is wanted is 1 for the right class and 0 for the others, or with label smoothing s among K classes
    1 - s + s / K and s / K. Binary cross entropy takes each class for a question of its own, yes or no; L1, smooth L1
    and mean squared error compare what is wanted with the probabilities that the softmax of the logits gives.
    """
    name, smoothing = settings.loss, settings.label_smoothing

    def loss(logits: Tensor, classes: Tensor) -> Tensor:
        logits = logits.float()  # 16 bits are too few for a loss
        if name == "cross_entropy":
            return functional.cross_entropy(logits, classes, label_smoothing=smoothing)
        wanted = functional.one_hot(classes, logits.shape[1]).to(logits)
        wanted = wanted * (1 - smoothing) + smoothing / logits.shape[1]
        if name == "binary_cross_entropy":
            return functional.binary_cross_entropy_with_logits(logits, wanted)
        return _OF_PROBABILITIES[name](logits.softmax(dim=1), wanted)

    return loss

"""Whether augmentation destroys what tells the classes apart: a sentence, from predictions of held-out objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import binomtest

from svetlana_jupyter.core.settings import AugmentSettings

MAX_P_VALUE, MIN_ACCURACY_LOSS = (
    0.01,
    0.1,
)  # how unlikely a difference must be by chance, and how large, to be spoken of
CHANCE_P_VALUE = 0.05
N_PERMUTATIONS = 1999


@dataclass(frozen=True)
class PairedComparison:
    """Two classifiers on the same objects.

    Parameters
    ----------
    n : int
        Number of objects.
    first, second : int
        How many each has right.
    only_first, only_second : int
        How many it alone has right.
    """

    n: int
    first: int
    second: int
    only_first_correct: int
    only_second_correct: int

    @property
    def p(self) -> float:
        """How likely a difference at least as large is where both are equally good.

        By the exact test of McNemar (1947), which takes objects as independent.
        """
        apart = self.only_first_correct + self.only_second_correct
        return float(binomtest(self.only_first_correct, apart).pvalue) if apart else 1.0


def compare(first: pd.DataFrame, second: pd.DataFrame) -> PairedComparison:
    """Compare two tables of predictions on the objects that both have.

    Parameters
    ----------
    first, second : DataFrame
        One row an object: image, object, truth and predicted class id.
    """
    both = first.merge(second, on=["image", "object"], suffixes=("_1", "_2"))
    one, other = (both[f"predicted_{n}"].to_numpy() == both[f"truth_{n}"].to_numpy() for n in (1, 2))
    return PairedComparison(
        len(both), int(one.sum()), int(other.sum()), int((one & ~other).sum()), int((other & ~one).sum())
    )


def permutation_p_value(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Return how likely guessing has a balanced accuracy at least as high: guesses are the predictions, shuffled.

    >>> permutation_p_value([1, 2] * 10, [1, 2] * 10)
    0.0005
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    _, classes, counts = np.unique(truth, return_inverse=True, return_counts=True)
    shares = (1 / counts / len(counts))[classes]  # of each right answer in the mean of the recalls
    found = (truth == predicted) @ shares
    rng = np.random.default_rng(0)
    guessed = np.array([(truth == rng.permutation(predicted)) @ shares for _ in range(N_PERMUTATIONS)])
    return float((1 + np.sum(guessed >= found - 1e-9)) / (1 + N_PERMUTATIONS))


def destroyed(augmentation: AugmentSettings, varied: pd.DataFrame, plain: pd.DataFrame | None = None) -> str:
    """Say whether augmentation destroys the classes; "" where nothing speaks for it.

    Parameters
    ----------
    augmentation : AugmentSettings
        That of the training.
    varied : DataFrame
        What it predicted for objects it was not trained on, one row an object: image, object, truth and predicted class
        id.
    plain : DataFrame, optional
        The same of a training without augmentation.

    Returns
    -------
    str
        A warning where the plain training is far better, by at least a tenth of the objects and beyond doubt
        (p < 0.01), or where the varied one cannot be told from guessing (p > 0.05).
    """
    if not augmentation.varies or varied.empty:
        return ""
    what = _in_words(augmentation)
    if plain is not None:
        pair = compare(plain, varied)
        if pair.n and pair.first - pair.second >= MIN_ACCURACY_LOSS * pair.n and pair.p < MAX_P_VALUE:
            return (
                f"Augmentation destroys the classes: without it {pair.first} of {pair.n} held-out objects are right, "
                f"with it {pair.second} (p {_plain_p(pair.p)}). It varies {what}; leave out what tells classes apart."
            )
    if permutation_p_value(varied["truth"], varied["predicted"]) <= CHANCE_P_VALUE:
        return ""
    right = int((varied["truth"] == varied["predicted"]).sum())
    said = f"The score, {right} of {len(varied)} right, cannot be told from guessing"
    if plain is not None and permutation_p_value(plain["truth"], plain["predicted"]) > CHANCE_P_VALUE:
        return (
            f"{said}, and neither can it without augmentation: patches may not show what tells the classes apart, or "
            "more annotations are needed."
        )
    return f"{said}. Augmentation may destroy what tells the classes apart: it varies {what}. Try without."


def _in_words(augmentation: AugmentSettings) -> str:
    """Say what is varied: "how objects are turned and mirrored, and their brightness"."""
    moved = augmentation.share > 0
    words = {
        "how objects are turned": moved and augmentation.rotation != "none",
        "how they are mirrored": moved and augmentation.flips,
        "their size": moved and augmentation.scale > 0,
        "where they lie": moved and augmentation.shift > 0,
        "brightness": augmentation.brightness > 0 or augmentation.gamma > 0,
        "color": augmentation.color > 0,
        "noise": augmentation.noise > 0,
        "sharpness": augmentation.blur > 0,
        "what the Albumentations pipeline does": augmentation.pipeline is not None,
    }
    said = [word for word, holds in words.items() if holds]
    return " and ".join([", ".join(said[:-1]), said[-1]]) if len(said) > 1 else said[0]


def _plain_p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"

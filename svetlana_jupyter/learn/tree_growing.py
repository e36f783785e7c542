"""Training of the trees of a random forest, in any thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from sklearn.tree import DecisionTreeClassifier


def grow_trees(
    features: NDArray[np.float32],
    classes: NDArray[np.int64],
    weights: NDArray[np.float64] | None,
    drawn: int,
    count: int,
    seed: int,
) -> Iterator[tuple[DecisionTreeClassifier, NDArray[np.int64]]]:
    """Train the trees of a random forest, one at a time.

    They are those of ``RandomForestClassifier`` of scikit-learn 1.9, whose own loop changes the warning filters of the
    whole process for every tree, and must not run in two threads.

    Parameters
    ----------
    features : float32 of shape (n, d)
    classes : int of shape (n,)
    weights : float64 of shape (n,), optional
        Objects are drawn in proportion to them.
    drawn, count : int
        Number of objects drawn for each tree, with replacement, and of trees.
    seed : int

    Yields
    ------
    tree : DecisionTreeClassifier
    chosen : int of shape (drawn,)
        Positions of the drawn objects.
    """
    from sklearn.tree import DecisionTreeClassifier

    n, states = len(features), np.random.RandomState(seed)
    for _ in range(count):
        state = states.randint(np.iinfo(np.int32).max)
        rng = np.random.RandomState(state)
        chosen = rng.randint(0, n, drawn) if weights is None else rng.choice(n, drawn, p=weights / weights.sum())
        tree = DecisionTreeClassifier(max_features="sqrt", random_state=state)
        yield tree.fit(features, classes, np.bincount(chosen, minlength=n)), chosen

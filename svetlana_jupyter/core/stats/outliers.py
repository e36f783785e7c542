"""Whether an image looks unlike those that were annotated, by how many of its objects do.

Each object comes with its distance from the annotated ones, in units that 95 % of the objects of left-out groups
(wells, images, regions) keep to. The share of an image's objects beyond is compared with the shares of these groups:
how much they differ among themselves says how much a new one may (a prediction interval, on the scale of arcsine roots,
where the variance of a share does not depend on it; Student's t for few groups).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t

# An image is told of when so much of it is unlike, five times what is expected, and chance alone is as improbable.
MIN_OUTLIER_SHARE, LEVEL = 0.25, 0.05


@dataclass(frozen=True)
class HeldOutGroups:
    """How groups look that were left out: the share of their objects beyond the limit, and how many these are.

    Parameters
    ----------
    shares : tuple of float
    counts : tuple of int
    """

    shares: tuple[float, ...]
    counts: tuple[int, ...]

    def p_value(self, share: float, n: int, usual: float = 0.0) -> float:
        """Return how probable it is that one more such group shows at least this share, among ``n`` objects.

        Parameters
        ----------
        share : float
        n : int
        usual : float
            The share in the annotated images themselves, where that is more than in the groups: whoever annotates may
            have chosen the clear objects.

        Examples
        --------
        >>> wells = HeldOutGroups((0.1, 0.05, 0.0, 0.0, 0.05, 0.1), (20,) * 6)
        >>> round(wells.p_value(0.08, 130), 2), round(wells.p_value(0.92, 130), 4)
        (0.32, 0.0002)
        """
        counts, groups = np.asarray(self.counts, float), len(self.counts)
        places = np.arcsin(np.sqrt(self.shares))
        middle = math.asin(math.sqrt(max(usual, float(np.average(self.shares, weights=counts)))))
        # What is left of the variance once that of counting is taken off.
        between = max(0.0, float(places.var(ddof=1) - np.mean(1 / (4 * counts)))) if groups > 1 else 0.0
        error = math.sqrt(between * (1 + 1 / groups) + 1 / (4 * counts.sum()) + 1 / (4 * n))
        return float(t.sf((math.asin(math.sqrt(share)) - middle) / error, max(1, groups - 1)))


def compare_images(shares: pd.DataFrame, annotated: Mapping[str, int], left_out: HeldOutGroups) -> pd.DataFrame:
    """Return which images look unlike those annotated, as a whole.

    Parameters
    ----------
    shares : DataFrame
        Indexed by image: ``asked`` (how many of its objects) and ``novelty`` (the share of them beyond the limit).
    annotated : mapping of image name to int
        How many objects of each image were learned from.
    left_out : LeftOut

    Returns
    -------
    DataFrame
        The same with ``annotated``, ``p`` (`HeldOutGroups.p_value`) and ``warn``; never of an image with annotations.

    Examples
    --------
    >>> shares = pd.DataFrame({"asked": [90, 80], "unlike": [0.06, 0.7]}, pd.Index(["A1", "A2"], name="image"))
    >>> compare_images(shares, {"A1": 30}, HeldOutGroups((0.1, 0.0, 0.05), (10, 10, 20)))["warn"].to_dict()
    {'A1': False, 'A2': True}
    """
    table = shares.copy()
    table["annotated"] = [int(annotated.get(image, 0)) for image in table.index]
    known = table[table["annotated"] > 0]
    usual = float(np.average(known["unlike"], weights=known["asked"])) if len(known) else 0.0
    rows = zip(table["unlike"].tolist(), table["asked"].tolist())
    table["p"] = [left_out.p_value(share, n, usual) for share, n in rows]
    table["warn"] = (table["annotated"] == 0) & (table["unlike"] >= MIN_OUTLIER_SHARE) & (table["p"] < LEVEL)
    return table

"""Out-of-distribution test per image, based on the fraction of outlying objects.

Each object has a distance from the annotated objects. An object is an outlier if its distance exceeds the 95th
percentile over the objects of held-out groups (wells, images, regions). The fraction of outliers in an image is
compared with the fractions in these groups. The threshold is the limit of a prediction interval for a new group,
computed with Student's t on the arcsine square root scale, where the variance does not depend on the fraction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

# An image is flagged if at least this fraction of its objects are outliers (five times the expected fraction), and the
# p-value is below this level.
MIN_OUTLIER_SHARE, LEVEL = 0.25, 0.05


@dataclass(frozen=True)
class HeldOutGroups:
    """Outlying objects of held-out groups.

    Parameters
    ----------
    shares : tuple of float
        Fraction of outlying objects per group.
    counts : tuple of int
        Number of objects per group.
    """

    shares: tuple[float, ...]
    counts: tuple[int, ...]

    def p_value(self, share: float, n: int, baseline_share: float = 0.0) -> float:
        """Return the p-value of the fraction of outliers in a new group.

        The p-value is the probability that a group of ``n`` objects has at least this fraction by chance.

        Parameters
        ----------
        share : float
            Fraction of outliers in the new group.
        n : int
            Number of objects in the new group.
        baseline_share : float
            Fraction of outliers among all objects of the annotated images. It replaces the mean fraction in the
            held-out groups if it is larger, which happens if the annotator chose unambiguous objects.

        Examples
        --------
        >>> wells = HeldOutGroups((0.1, 0.05, 0.0, 0.0, 0.05, 0.1), (20,) * 6)
        >>> round(wells.p_value(0.08, 130), 2), round(wells.p_value(0.92, 130), 4)
        (0.32, 0.0002)
        """
        from scipy.stats import t

        counts, groups = np.asarray(self.counts, float), len(self.counts)
        angles = np.arcsin(np.sqrt(self.shares))
        mean = math.asin(math.sqrt(max(baseline_share, float(np.average(self.shares, weights=counts)))))
        # Variance between groups: what remains after subtracting the binomial variance.
        between = max(0.0, float(angles.var(ddof=1) - np.mean(1 / (4 * counts)))) if groups > 1 else 0.0
        error = math.sqrt(between * (1 + 1 / groups) + 1 / (4 * counts.sum()) + 1 / (4 * n))
        return float(t.sf((math.asin(math.sqrt(share)) - mean) / error, max(1, groups - 1)))


def flag_unfamiliar_images(shares: pd.DataFrame, annotated: Mapping[str, int], groups: HeldOutGroups) -> pd.DataFrame:
    """Flag images whose objects differ from the annotated objects.

    Parameters
    ----------
    shares : DataFrame
        Indexed by image: ``asked`` (number of tested objects) and ``unlike`` (fraction of outliers among these).
    annotated : mapping of image name to int
        Number of training objects per image.
    groups : HeldOutGroups

    Returns
    -------
    DataFrame
        ``shares`` with the additional columns ``annotated``, ``p`` (`HeldOutGroups.p_value`) and ``warn`` (whether the
        image is flagged; always False for images with annotations).

    Examples
    --------
    >>> import pandas as pd
    >>> shares = pd.DataFrame({"asked": [90, 80], "unlike": [0.06, 0.7]}, pd.Index(["A1", "A2"], name="image"))
    >>> flag_unfamiliar_images(shares, {"A1": 30}, HeldOutGroups((0.1, 0.0, 0.05), (10, 10, 20)))["warn"].to_dict()
    {'A1': False, 'A2': True}
    """
    table = shares.copy()
    table["annotated"] = [int(annotated.get(image, 0)) for image in table.index]
    known = table[table["annotated"] > 0]
    baseline = float(np.average(known["unlike"], weights=known["asked"])) if len(known) else 0.0
    table["p"] = [groups.p_value(*row, baseline) for row in zip(table["unlike"].tolist(), table["asked"].tolist())]
    table["warn"] = (table["annotated"] == 0) & (table["unlike"] >= MIN_OUTLIER_SHARE) & (table["p"] < LEVEL)
    return table

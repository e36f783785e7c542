"""Out-of-distribution test: sensitivity and false positive rate."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from svetlana_jupyter.core.stats.outliers import HeldOutGroups, flag_unfamiliar_images


def simulate_groups(rng: np.random.Generator, groups: int, n: int, spread: float) -> HeldOutGroups:
    """Return groups whose true shares vary around 5 %."""
    true = rng.beta(0.05 / spread, 0.95 / spread, groups)
    return HeldOutGroups(tuple(rng.binomial(n, true) / n), (n,) * groups)


@pytest.mark.parametrize("groups", [2, 4, 16])
@pytest.mark.parametrize("spread", [0.001, 0.05])
def test_a_new_group_of_the_same_kind_is_rarely_flagged(groups: int, spread: float) -> None:
    rng = np.random.default_rng(0)
    flagged = []
    for _ in range(400):
        new = rng.binomial(200, rng.beta(0.05 / spread, 0.95 / spread)) / 200
        flagged.append(simulate_groups(rng, groups, 40, spread).p_value(new, 200) < 0.05)
    assert np.mean(flagged) < 0.09


def test_differing_groups_allow_a_new_one_to_differ() -> None:
    similar, different = (
        HeldOutGroups((0.05,) * 6, (200,) * 6),
        HeldOutGroups((0.0, 0.3, 0.02, 0.2, 0.0, 0.15), (200,) * 6),
    )
    assert similar.p_value(0.3, 200) < 0.001 < 0.05 < different.p_value(0.3, 200)


def test_few_groups_give_larger_p_values() -> None:
    p = [HeldOutGroups((0.0, 0.1) * count, (30,) * (2 * count)).p_value(0.4, 100) for count in (1, 2, 8)]
    assert p[0] > p[1] > p[2]


def test_one_group_is_compared_by_its_objects() -> None:
    left_out = HeldOutGroups((0.05,), (60,))
    assert left_out.p_value(0.05, 100) == pytest.approx(0.5)
    assert left_out.p_value(0.9, 100) < 0.05


def shares(**of_image: float) -> pd.DataFrame:
    return pd.DataFrame({"asked": 100, "unlike": list(of_image.values())}, pd.Index(list(of_image), name="image"))


def test_an_image_with_annotations_is_never_flagged_but_sets_the_baseline() -> None:
    left_out = HeldOutGroups((0.05,) * 5, (40,) * 5)
    table = flag_unfamiliar_images(shares(known=0.5, new=0.5), {"known": 20}, left_out)
    assert not table["warn"].any()
    assert table["annotated"].to_dict() == {"known": 20, "new": 0}
    assert flag_unfamiliar_images(shares(known=0.1, new=0.5), {"known": 20}, left_out)["warn"].to_dict() == {
        "known": False,
        "new": True,
    }


def test_a_small_share_is_not_flagged_even_if_significant() -> None:
    table = flag_unfamiliar_images(shares(new=0.2), {}, HeldOutGroups((0.01,) * 30, (1000,) * 30))
    assert table.loc["new", "p"] < 1e-6
    assert not table.loc["new", "warn"]

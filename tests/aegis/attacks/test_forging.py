from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aegis.attacks.hostile.forged_evidence import (
    ALIE_DEVIATIONS,
    Attack,
    alie,
    alie_largest_z,
    forge_of,
    ipm,
    scaled,
    sign_flip,
)

UPDATE = {"weight": np.array([[1.0, -2.0]], np.float32), "bias": np.array([0.5], np.float32)}
HONEST = [{"w": np.array(values, np.float32)} for values in ((1.0, 0.0), (3.0, 0.0), (5.0, 6.0))]

updates = st.integers(1, 6).flatmap(
    lambda width: st.lists(
        hnp.arrays(np.float32, width, elements=st.floats(-100, 100, width=32)).map(lambda values: {"w": values}),
        min_size=1,
        max_size=6,
    )
)


def test_a_sign_flip_is_as_long_and_points_the_other_way() -> None:
    flipped = sign_flip(UPDATE)
    assert flipped["weight"].tolist() == [[-1.0, 2.0]]
    assert flipped["bias"].tolist() == [-0.5]


def test_a_scaled_update_is_twenty_times_as_long_and_points_the_other_way() -> None:
    assert scaled(UPDATE)["weight"].tolist() == [[-20.0, 40.0]]
    assert scaled(UPDATE, 3.0)["bias"].tolist() == [1.5]


def test_alie_is_the_honest_mean_less_some_deviations() -> None:
    # Means 3 and 2; population deviations sqrt(8/3) = 1.632993 and sqrt(8) = 2.828427.
    forged = alie(HONEST, deviations=1.0)
    assert forged["w"] == pytest.approx([3 - 1.632993, 2 - 2.828427], rel=1e-6)


def test_alie_takes_its_own_number_of_deviations_where_none_is_given() -> None:
    assert alie(HONEST)["w"] == pytest.approx(alie(HONEST, deviations=ALIE_DEVIATIONS)["w"])


# With floor(n/2 + 1) - m supporters needed among n - m: the quantiles at 24/26, 9/16, 2/4 and 1.
LARGEST_Z = {(50, 24): 1.42608, (20, 4): 0.15731, (5, 1): 0.0, (3, 2): 0.0}


@pytest.mark.parametrize(("cohort", "z"), LARGEST_Z.items(), ids=str)
def test_the_largest_z_is_the_quantile_of_the_paper(cohort, z) -> None:
    assert alie_largest_z(*cohort) == pytest.approx(z, abs=1e-5)


def test_ipm_is_minus_half_of_the_honest_mean() -> None:
    assert ipm(HONEST)["w"].tolist() == [-1.5, -1.0]
    assert ipm(HONEST, strength=2.0)["w"].tolist() == [-6.0, -4.0]


@given(updates)
def test_without_deviations_alie_is_the_honest_mean(honest) -> None:
    mean = np.mean([update["w"] for update in honest], axis=0, dtype=np.float64)
    np.testing.assert_allclose(alie(honest, deviations=0.0)["w"], mean, rtol=1e-6, atol=1e-6)


@given(updates)
def test_the_inner_product_that_ipm_makes_with_the_honest_mean_is_never_positive(honest) -> None:
    mean = np.mean([update["w"] for update in honest], axis=0, dtype=np.float64)
    assert float(ipm(honest)["w"] @ mean) <= 0


@given(updates)
def test_every_forgery_has_the_names_shapes_and_type_of_an_honest_update(honest) -> None:
    for attack in Attack:
        forge = forge_of(attack)
        if forge is None:
            continue
        forged = forge(honest[0], honest)
        assert forged.keys() == honest[0].keys()
        assert forged["w"].shape == honest[0]["w"].shape
        assert forged["w"].dtype == np.float32
        assert np.isfinite(forged["w"]).all() == (attack is not Attack.NAN)


def test_a_label_flip_forges_nothing() -> None:
    assert forge_of(Attack.LABEL_FLIP) is None


def test_an_omniscient_attacker_without_anybody_to_look_at_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one honest update"):
        ipm([])

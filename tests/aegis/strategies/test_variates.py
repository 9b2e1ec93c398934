"""SCAFFOLD's variates against arithmetic written out, and what holds for all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aegis.strategies import correction, next_server_control, next_site_control

K, RATE = 2, 0.1


def one(value: float) -> dict[str, Any]:
    return {"w": np.array([value], np.float32)}


def of(arrays: dict[str, Any]) -> float:
    return float(arrays["w"][0])


def test_two_sites_over_two_rounds() -> None:
    """Losses ``(x - 1)^2 / 2`` and ``3 (x - 5)^2 / 2``, two steps of 0.1 a round, from 0; together least at 4.

    Round 1, no corrections. Site 1: 0 → 0.1 → 0.19. Site 2: 0 → 1.5 → 2.55. Mean: x = 1.37.
        c_1 = -0.19 / 0.2 = -0.95;  c_2 = -2.55 / 0.2 = -12.75;  c = -1.37 / 0.2 = -6.85, their mean
    Round 2. Site 1 adds -6.85 + 0.95 = -5.9 to its gradients, site 2 adds -6.85 + 12.75 = 5.9.
        Site 1: 1.37 → 1.37 + 0.553 = 1.923 → 1.923 + 0.4977 = 2.4207, an update of 1.0507
        Site 2: 1.37 → 1.37 + 0.499 = 1.869 → 1.869 + 0.3493 = 2.2183, an update of 0.8483
        c_1 = -0.95 + 6.85 - 5.2535 = 0.6465;  c_2 = -12.75 + 6.85 - 4.2415 = -10.1415
        c = -0.9495 / 0.2 = -4.7475, their mean
    """
    zero, steps_times_lr = one(0.0), K * RATE
    first = next_site_control(zero, zero, one(0.19), steps_times_lr=steps_times_lr)
    second = next_site_control(zero, zero, one(2.55), steps_times_lr=steps_times_lr)
    control = next_server_control(zero, one(1.37), share=1.0, steps_times_lr=steps_times_lr)
    assert [of(first), of(second), of(control)] == pytest.approx([-0.95, -12.75, -6.85], rel=1e-6)
    assert [of(correction(control, first)), of(correction(control, second))] == pytest.approx([-5.9, 5.9], rel=1e-6)

    after = [
        next_site_control(own, control, one(u), steps_times_lr=steps_times_lr)
        for own, u in ((first, 1.0507), (second, 0.8483))
    ]
    last = next_server_control(control, one(0.9495), share=1.0, steps_times_lr=steps_times_lr)
    assert [of(each) for each in (*after, last)] == pytest.approx([0.6465, -10.1415, -4.7475], rel=1e-5)


def test_with_two_of_four_sites_the_control_moves_half_the_way() -> None:
    # c = 2, the two sites' mean update is -0.6 over 0.2: 2 + 2/4 * (-2 + 3) = 2.5
    assert of(next_server_control(one(2.0), one(-0.6), share=0.5, steps_times_lr=0.2)) == pytest.approx(2.5)


UPDATES = st.lists(
    st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3), min_size=2, max_size=6
)  # one round: three sites, one weight


@settings(deadline=None)
@given(UPDATES)
def test_the_corrections_of_all_sites_cancel_as_long_as_all_take_part(rounds: list[list[float]]) -> None:
    control, own, largest = one(0.0), [one(0.0)] * 3, 0.0
    for updates in rounds:
        moved = [
            next_site_control(each, control, one(u), steps_times_lr=0.2) for each, u in zip(own, updates, strict=True)
        ]
        control = next_server_control(control, one(float(np.mean(updates))), share=1.0, steps_times_lr=0.2)
        own, largest = moved, max(largest, *(abs(of(each)) for each in moved))
        total = sum(of(correction(control, each)) for each in own)
        assert abs(total) <= 1e-5 * (1.0 + largest)


@given(st.floats(-1e9, 1e9, width=32), st.floats(1e-300, 1e4))
def test_a_variate_is_finite_whatever_was_admitted(update: float, steps_times_lr: float) -> None:
    own = next_site_control(one(3e38), one(-3e38), one(update), steps_times_lr=steps_times_lr)
    control = next_server_control(one(-3e38), one(update), share=1.0, steps_times_lr=steps_times_lr)
    assert np.isfinite([of(own), of(control), of(correction(control, own))]).all()

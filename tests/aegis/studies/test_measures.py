"""Intervals over persons, the words for an account, and the estimate behind the survival picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aegis.studies import measured, plot_survival
from aegis.studies.held_out import observed_survival
from aegis.studies.site_accounts import SiteAccount, why_they_differ
from coreason_enclave.schemas import Task


def test_interval_of_a_mean_error_is_that_of_the_normal_approximation() -> None:
    generator = np.random.default_rng(3)
    predicted = np.abs(generator.normal(size=2000)) + 1
    found = measured(predicted, np.zeros(2000, np.float32), Task.REGRESSION, None)["mae"]
    half = 1.96 * predicted.std() / np.sqrt(2000)
    assert found.low == pytest.approx(predicted.mean() - half, abs=half / 3)
    assert found.high == pytest.approx(predicted.mean() + half, abs=half / 3)


def test_rows_of_one_person_are_no_independent_evidence() -> None:
    generator = np.random.default_rng(4)
    errors = np.abs(generator.normal(size=50))
    predicted, labels, units = np.repeat(errors, 20), np.zeros(1000, np.float32), np.repeat(np.arange(50), 20)
    together = measured(predicted, labels, Task.REGRESSION, units)["mae"]
    apart = measured(predicted, labels, Task.REGRESSION, None)["mae"]
    assert together.value == apart.value
    assert None not in (together.low, together.high, apart.low, apart.high)
    assert together.high - together.low > 3 * (apart.high - apart.low)  # type: ignore[operator]


def test_account_whose_steps_did_not_all_run_is_explained_in_one_sentence() -> None:
    whole, half = SiteAccount("north", 3.0, 3.0, 30, 30), SiteAccount("south", 2.164, 2.999, 15, 30)
    assert why_they_differ([whole]) is None
    sentence = why_they_differ([whole, half])
    assert sentence is not None
    assert "south (15 of 30 steps)" in sentence
    assert "north" not in sentence


def test_kaplan_meier_is_the_textbook_product(tmp_path: Path) -> None:
    # four rows: an event in the first interval, one censored after it, an event in the second, one alive throughout
    labels = np.array([[0, 1], [1, 0], [1, 1], [2, 0]])
    estimate = observed_survival(labels, 2)
    assert estimate == pytest.approx([3 / 4, 3 / 4 * 1 / 2])
    plot_survival(tmp_path / "survival.png", [0.8, 0.5], estimate, [30, 90], title="rows")
    assert (tmp_path / "survival.png").read_bytes().startswith(b"\x89PNG")

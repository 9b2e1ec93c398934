"""A site that lies about its update, and a coordinator that lies about the correction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coreason_enclave.errors import EnclaveError, Reason
from coreason_enclave.wire.updates import with_correction
from tests.aegis.strategies.conftest import EVERYTHING
from tests.support.studies import Study, a_job, scaled, where

Federation = Any
POLICY = {"strategies": EVERYTHING}


def scaffold(federation: Federation, **changes: Any) -> Any:
    return a_job(federation, **{"strategy": "SCAFFOLD", "momentum": 0.0, **changes})


def a_run(federation: Federation, folder: Path, liar: float | None, **changes: Any) -> Study:
    """Five sites over one round; the first multiplies its update by ``liar``."""
    apart = type(federation)(folder, federation.signer, federation.now)
    sites = [apart.create(f"clinic-{n}", rows=n, policy=POLICY) for n in range(1, 6)]
    run = Study(apart, folder / "run", sites)
    adapt = None if liar is None else where(["clinic-1"], scaled(liar))
    run.run(scaffold(apart, rounds=1, **changes), adapt)
    return run


def test_a_liar_decides_over_its_own_variate_and_no_other_sites(federation: Federation, tmp_path: Path) -> None:
    rule = {"aggregator": "trimmed_mean", "num_byzantine": 1}
    honest, lied = (a_run(federation, tmp_path / str(k), k, **rule).state().strategy for k in (1.0, -50.0))
    differing = {site for site in honest.variates if honest.variates[site] != lied.variates[site]}
    assert differing == {"clinic-1"}


def test_a_liars_pull_on_the_control_ends_where_the_aggregators_bound_does(
    federation: Federation, tmp_path: Path
) -> None:
    rule = {"aggregator": "trimmed_mean", "num_byzantine": 1}
    runs = [a_run(federation, tmp_path / str(k), k, **rule) for k in (30.0, 300.0)]
    first, second = (run.store.load_strategy(str(run.state().strategy.control)) for run in runs)
    assert all(np.array_equal(first[name], second[name]) for name in first), "ten times the lie moves it no further"


def test_a_site_whose_update_is_refused_keeps_the_variate_that_it_had(federation: Federation, tmp_path: Path) -> None:
    run = a_run(federation, tmp_path, float("nan"))
    assert sorted(run.state().strategy.variates) == ["clinic-2", "clinic-3", "clinic-4", "clinic-5"]


def test_with_a_part_of_the_sites_the_control_moves_by_their_share(federation: Federation, tmp_path: Path) -> None:
    run = a_run(federation, tmp_path, float("nan"))
    state = run.state()
    base, model = (run.store.load_model(digest) for digest in state.models)
    control = run.store.load_strategy(str(state.strategy.control))
    for name, c in control.items():  # four of the five that enrolled; two steps at a learning rate of 0.5
        assert c == pytest.approx(-(4 / 5) * (model[name] - base[name]) / (2 * 0.5), rel=1e-5, abs=1e-6)


# --- a hostile coordinator ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1e4, 1e30, 3e38])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_an_enormous_correction_ends_at_the_airlock(size: float, sign: float, federation: Federation) -> None:
    site = federation.create(policy=POLICY)
    job = federation.job(strategy="SCAFFOLD", momentum=0.0)
    correction = {name: np.full_like(array, sign * size) for name, array in federation.weights().items()}
    opened = site.open(clock=federation.clock)
    with pytest.raises(EnclaveError) as refused:
        opened.session.run(federation.order(job, with_correction(federation.weights(), correction)))
    opened.close()
    assert refused.value.reason in (Reason.NORM_EXCEEDED, Reason.NON_FINITE)
    kinds = [entry["type"] for entry in site.ledger_entries()]
    assert (kinds.count("reserved"), kinds.count("committed")) == (1, 0), "what was reserved for it stays spent"


def test_a_second_correction_for_the_same_round_is_another_question_and_is_refused(federation: Federation) -> None:
    site = federation.create(policy=POLICY)
    job = federation.job(strategy="SCAFFOLD", momentum=0.0)
    opened = site.open(clock=federation.clock)
    weights = federation.weights()
    first = federation.order(job, with_correction(weights, federation.weights(0.01)))
    assert opened.session.run(first).arrays == opened.session.run(first).arrays
    with pytest.raises(EnclaveError) as refused:
        opened.session.run(federation.order(job, with_correction(weights, federation.weights(0.02))))
    opened.close()
    assert refused.value.reason is Reason.ROUND_CONFLICT

"""Each round computed again: every strategy, aggregator and server optimizer to the last bit, and no other one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aegis.errors import VerificationFailed
from aegis.federation.registry import FederationConfig, FederationFolder
from aegis.runs.folder import RunFolder
from aegis.runs.plan import RunPlan
from aegis.runs.runner import execute
from aegis.verification import Conclusion, Reference, verify_run
from aegis.verification.records import Records
from aegis.verification.replay import check_aggregation
from coreason_enclave.crypto.signing import write_private
from coreason_enclave.policy import Profile
from coreason_enclave.schemas import AggregationStrategy, Aggregator, ServerOptimizerConfig

JOBS: dict[str, dict[str, Any]] = {
    "scaffold, trimmed mean, adam": {
        "strategy": "SCAFFOLD",
        "momentum": 0.0,
        "aggregator": "trimmed_mean",
        "num_byzantine": 1,
        "server_optimizer": {"name": "adam", "learning_rate": 0.1},
    },
    "fedprox, krum, yogi, averaged": {
        "strategy": "FED_PROX",
        "aggregator": "krum",
        "num_byzantine": 1,
        "server_optimizer": {"name": "yogi", "learning_rate": 0.1},
        "average_last_rounds": 2,
    },
    "weighted mean of a perceptron": {
        "num_examples_cap": 15,
        "model_arch": "SimpleMLP",
        "model_args": {"in_features": 3, "hidden": 4},
    },
}
OTHER: dict[str, dict[str, Any]] = {
    "another aggregator": {"aggregator": Aggregator.MEDIAN},
    "another server optimizer": {"server_optimizer": ServerOptimizerConfig(name="sgd", learning_rate=0.5)},
    "another number of liars": {"num_byzantine": 2},
    "no control variates": {"strategy": AggregationStrategy.FED_AVG},
    "another step length": {"learning_rate": 0.25},
}


@pytest.fixture(scope="module")
def carried_out(
    federation_at: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Two rounds of a job at five clinics; each job once."""
    runs: dict[str, Path] = {}

    def carry_out(name: str) -> Path:
        if name in runs:
            return runs[name]
        folder = FederationFolder(tmp_path_factory.mktemp("replay") / "federation")
        sites = federation_at(folder.path / "sites")
        write_private(folder.path / "coordinator" / "signing.key", bytes([7]) * 32)
        allowed = {"strategies": ["FED_AVG", "FED_PROX", "SCAFFOLD"]}
        keys = {f"clinic-{n}": sites.create(f"clinic-{n}", rows=n, policy=allowed).public_key for n in (1, 2, 3, 4, 5)}
        folder.create(FederationConfig(profile=Profile.DEVELOPMENT, delta=1e-5, public_keys=keys))
        runs[name] = folder.path.parent / "run"
        job = sites.job(**{"rounds": 2, "local_steps": 2, "min_clients": 5, **JOBS[name]})
        execute(job, RunPlan(folder, RunFolder(runs[name])))
        return runs[name]

    return carry_out


@pytest.mark.parametrize("name", JOBS)
def test_every_round_is_computed_again_to_the_same_digests(carried_out: Callable[[str], Path], name: str) -> None:
    report = verify_run(carried_out(name))
    assert report.conclusion is Conclusion.VERIFIED, [f for f in report.findings if f.verdict != "holds"]


@pytest.mark.parametrize("change", OTHER.values(), ids=OTHER)
def test_another_rule_gives_another_model(carried_out: Callable[[str], Path], change: dict[str, Any]) -> None:
    records = Records(carried_out("scaffold, trimmed mean, adam"))
    vars(records)["job"] = records.job.model_copy(update=change)
    with pytest.raises(VerificationFailed, match=r"round [12]: "):
        list(check_aggregation(records, Reference()))


def test_an_update_left_out_gives_another_model(carried_out: Callable[[str], Path]) -> None:
    records = Records(carried_out("scaffold, trimmed mean, adam"))
    admitted = dict(records.trail.rounds[0].admitted)
    del admitted["clinic-3"]
    object.__setattr__(records.trail.rounds[0], "admitted", admitted)
    with pytest.raises(VerificationFailed, match="round 1: "):
        list(check_aggregation(records, Reference()))


def test_a_different_roll_call_gives_other_control_variates(carried_out: Callable[[str], Path]) -> None:
    """SCAFFOLD's denominator is the number of enrolled sites, which each round's record names."""
    records = Records(carried_out("scaffold, trimmed mean, adam"))
    first = records.state.history[0].model_copy(update={"enrolled": tuple(f"clinic-{n}" for n in range(1, 8))})
    vars(records)["state"] = records.state.model_copy(update={"history": (first, *records.state.history[1:])})
    with pytest.raises(VerificationFailed, match=r"round 2: .* signed that it received another model"):
        list(check_aggregation(records, Reference()))

"""One job gives one model, whatever carries the messages: in process, on Flower, on NVIDIA FLARE.

The fast half makes one run on each runtime; ``make test-all`` repeats it for every strategy and for more refusals.
No runtime reorders a sum: updates are aggregated in the order of the sites' names, so that equal means equal to the
last bit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aegis.runs.connect import RuntimeName
from aegis.runs.runner import execute
from coreason_enclave.schemas import FederationJob
from tests.conformance.runtimes import CarriedOut, carry_out, create, kill_in_round, plan, running
from tests.conformance.sites import OTHER_REFUSALS, OTHERS, QUICK, QUICK_EPSILON, QUICK_REFUSALS, SMUGGLED, WILLING

Carry = Callable[..., CarriedOut]
Small = Callable[[Path], Any]
BOTH_OTHERS = [RuntimeName.FLOWER, RuntimeName.NVFLARE]
ALL = [RuntimeName.IN_PROCESS, *BOTH_OTHERS]


def quick_job(federation_at: Small, **changes: Any) -> FederationJob:
    job: FederationJob = federation_at(Path()).job(
        **{"min_clients": 2, "rounds": 2, "round_deadline_s": 90.0, "momentum": 0.0, "local_steps": 2, **changes}
    )
    return job


@pytest.fixture
def quick(carried: Carry, federation_at: Small) -> Callable[[RuntimeName], CarriedOut]:
    """The run of the fast half: two sites that take part, and three that do not, each for a reason of its own."""
    job = quick_job(federation_at, privacy={"target_epsilon": QUICK_EPSILON})
    return lambda runtime: carried("quick", runtime, QUICK, job)


@pytest.mark.parametrize("runtime", ALL)
def test_every_runtime_finishes_with_the_sites_that_may_take_part(
    quick: Callable[[RuntimeName], CarriedOut], runtime: RuntimeName
) -> None:
    done = quick(runtime)
    assert done.error == ""
    assert [record.admitted for record in done.history] == [WILLING, WILLING]


@pytest.mark.parametrize("runtime", BOTH_OTHERS)
def test_the_job_is_the_same_to_the_last_byte(quick: Callable[[RuntimeName], CarriedOut], runtime: RuntimeName) -> None:
    here, there = quick(RuntimeName.IN_PROCESS), quick(runtime)
    assert (there.run.path / "job.yaml").read_bytes() == (here.run.path / "job.yaml").read_bytes()
    assert there.run.read_json("config.json")["job_digest"] == here.run.read_json("config.json")["job_digest"]
    assert there.run.state().job_digest == here.run.state().job_digest


@pytest.mark.parametrize("runtime", BOTH_OTHERS)
def test_every_round_ends_in_the_same_model_bit_for_bit(
    quick: Callable[[RuntimeName], CarriedOut], runtime: RuntimeName
) -> None:
    here, there = quick(RuntimeName.IN_PROCESS), quick(runtime)
    assert there.run.state().models == here.run.state().models
    assert there.model() == here.model()


@pytest.mark.parametrize("runtime", BOTH_OTHERS)
def test_every_ledger_holds_the_same_privacy_events(
    quick: Callable[[RuntimeName], CarriedOut], runtime: RuntimeName
) -> None:
    here, there = quick(RuntimeName.IN_PROCESS), quick(runtime)
    for site in QUICK:
        assert there.events(site) == here.events(site)
    assert [kind for kind, _ in there.events("clinic-1")] == ["reserved", "committed"] * 2
    assert there.run.read_json("outcome.json")["ledger_epsilon"] == here.run.read_json("outcome.json")["ledger_epsilon"]


@pytest.mark.parametrize("runtime", ALL)
def test_every_refusal_has_the_same_reason_code(
    quick: Callable[[RuntimeName], CarriedOut], runtime: RuntimeName
) -> None:
    done = quick(runtime)
    assert done.refused == QUICK_REFUSALS
    for site, reason in QUICK_REFUSALS.items():
        assert done.refusals(site)[0] == reason


@pytest.mark.parametrize("runtime", ALL)
def test_the_airlock_holds_and_no_log_quotes_what_it_refused(
    quick: Callable[[RuntimeName], CarriedOut], runtime: RuntimeName
) -> None:
    """What a hostile trainer put beside the weights is refused; the round was spent, and nothing was released."""
    done = quick(runtime)
    assert [kind for kind, _ in done.events("clinic-5")][:1] == ["reserved"]
    assert all(entry.get("update_digest") is None for entry in done.ledger("clinic-5"))
    assert [entry["type"] for entry in done.ledger("clinic-5")].count("committed") == 0

    refused = [line for line in done.log("clinic-5") if line["outcome"] == "refused"]
    assert refused
    for line in refused:  # the kind, the place and the reason: enough to look it up, and no word of the loop's
        assert (line["action"], line["reason"]) == ("round", "wrong_shapes")
        assert re.fullmatch(
            r"DataLeakageError in the training loop; raised at coreason_enclave/airlock\.py, line \d+",
            line["details"]["message"],
        )
    written = {path: path.read_bytes() for path in done.path.rglob("*") if path.is_file()}
    assert done.run.path / "audit.jsonl" in written
    assert [path for path, content in written.items() if SMUGGLED.encode() in content] == []
    told = (done.run.path / "audit.jsonl").read_text()
    assert "wrong_shapes" in told
    assert not any(word in told for word in ("DataLeakageError", "airlock.py"))  # where it failed stays at the site


@pytest.mark.parametrize("runtime", ALL)
def test_a_run_says_which_runtime_it_was_and_that_it_is_simulated(
    quick: Callable[[RuntimeName], CarriedOut], runtime: RuntimeName
) -> None:
    config = quick(runtime).run.read_json("config.json")
    assert config["options"]["runtime"] == runtime.value
    assert config["attestation"] == "simulated"
    assert "UNSAFE" in config["randomness"]


KILLED = [
    RuntimeName.NVFLARE,
    pytest.param(RuntimeName.IN_PROCESS, marks=pytest.mark.slow),
    pytest.param(RuntimeName.FLOWER, marks=pytest.mark.slow),
]
"""In the fast half, tests/aegis/runtimes/flower kills a coordinator, and tests/aegis/commands a run in one process."""


@pytest.mark.parametrize("runtime", KILLED)
def test_a_run_that_is_killed_in_a_round_ends_in_the_model_of_an_undisturbed_one(
    tmp_path: Path, federation_at: Small, runtime: RuntimeName
) -> None:
    job = quick_job(federation_at, rounds=3)
    create(tmp_path / "founded", federation_at, {site: {} for site in WILLING})
    undisturbed = carry_out(RuntimeName.IN_PROCESS, tmp_path / "founded", tmp_path / "undisturbed", job)

    again = CarriedOut(runtime, tmp_path / "founded")
    with running(runtime, again.path, job) as process:
        kill_in_round(process, again.path, 2)
    execute(job, plan(runtime, again.path))

    assert again.model() == undisturbed.model()
    for site in WILLING:
        reserved = [plan["round_number"] for kind, plan in again.events(site) if kind == "reserved"]
        assert reserved == [1, 2, 3]  # nothing twice


SCHEDULES = [
    {"strategy": "FED_PROX", "proximal_mu": 0.5, "momentum": 0.5},
    {"strategy": "SCAFFOLD"},
    {"server_optimizer": {"name": "adam", "learning_rate": 0.05}},
    {"strategy": "FED_PROX", "server_optimizer": {"name": "yogi", "learning_rate": 0.05}},
    {"average_last_rounds": 2, "model_arch": "SimpleMLP", "model_args": {"in_features": 3, "hidden": 4}},
]


@pytest.mark.slow
@pytest.mark.parametrize("runtime", BOTH_OTHERS)
@pytest.mark.parametrize("changes", SCHEDULES, ids=lambda changes: "-".join(map(str, changes)))
def test_every_strategy_gives_one_model_on_every_runtime(
    carried: Carry, federation_at: Small, changes: dict[str, Any], runtime: RuntimeName
) -> None:
    sites = {site: {"policy": {"strategies": ["FED_AVG", "FED_PROX", "SCAFFOLD"]}} for site in WILLING}
    job, name = quick_job(federation_at, **changes), f"strategy-{SCHEDULES.index(changes)}"
    here = carried(name, RuntimeName.IN_PROCESS, sites, job)
    there = carried(name, runtime, sites, job)
    assert there.run.state().models == here.run.state().models
    assert there.model() == here.model()


@pytest.mark.parametrize("runtime", [ALL[0], *(pytest.param(each, marks=pytest.mark.slow) for each in BOTH_OTHERS)])
def test_further_refusals_have_the_same_reason_codes(
    carried: Carry, federation_at: Small, runtime: RuntimeName
) -> None:
    job = quick_job(federation_at, rounds=1)
    done = carried("others", runtime, OTHERS, job)
    assert done.error == ""
    assert done.refused == OTHER_REFUSALS
    assert done.history[0].admitted == WILLING
    types = {site: [entry["type"] for entry in done.ledger(site)] for site in OTHERS}
    assert all("reserved" not in types[site] for site in OTHERS if site not in (*WILLING, *SPENDING))
    assert types["clinic-7"].count("reserved") == types["clinic-7"].count("committed") == 1
    (ran,) = [entry for entry in done.ledger("clinic-7") if entry["type"] == "committed"]
    assert ran["event"]["steps"] == job.local_steps  # what ran, and not the step too many
    assert ran["update_digest"] is None  # nothing of it left
    assert types["clinic-8"].count("reserved") == 1
    assert "committed" not in types["clinic-8"]  # what was reserved stays spent


SPENDING = ("clinic-4", "clinic-7", "clinic-8")
"""Sites whose refusal comes after the reservation: it shows on the rows, or in the training itself."""


BAD_JOBS = {
    "policy": {"model_arch": "SmallCNN", "model_args": {"in_channels": 1, "size": 8, "classes": 2}},
    "budget_exceeded": {"rounds": 400, "privacy": {"noise_multiplier": 2.0}},
    "lineage_unknown": {"dataset_id": "clinic/no-such-rows"},
}
"""Jobs that every site refuses, by the reason code that it gives."""


@pytest.mark.parametrize("runtime", [ALL[0], *(pytest.param(each, marks=pytest.mark.slow) for each in BOTH_OTHERS)])
@pytest.mark.parametrize("reason", BAD_JOBS)
def test_a_job_that_no_site_accepts_pauses_and_names_the_reason(
    carried: Carry, federation_at: Small, reason: str, runtime: RuntimeName
) -> None:
    done = carried(
        f"bad-{reason}", runtime, {site: {} for site in WILLING}, quick_job(federation_at, **BAD_JOBS[reason])
    )
    assert f"clinic-1: {reason}" in done.error
    assert not done.run.is_finished
    for site in WILLING:
        assert done.events(site) == []
        assert set(done.refusals(site)) == {reason}


@pytest.mark.parametrize("runtime", [ALL[0], *(pytest.param(each, marks=pytest.mark.slow) for each in BOTH_OTHERS)])
def test_a_model_that_cannot_be_built_is_refused_before_anybody_is_asked(
    carried: Carry, federation_at: Small, runtime: RuntimeName
) -> None:
    job = quick_job(federation_at, model_args={"in_features": 3, "depth": 2})
    done = carried("no-model", runtime, {site: {} for site in WILLING}, job)
    assert "model_args of LogisticRegression: got an unexpected keyword argument 'depth'" in done.error
    assert not done.run.has_state


def test_one_job_file_is_enough_for_all_runtimes(tmp_path: Path, federation_at: Small) -> None:
    """Nothing in a job names a runtime, a host or a path."""
    fields = json.dumps(quick_job(federation_at).model_dump(mode="json"))
    assert not any(word in fields.lower() for word in ("flower", "flare", "in-process", "in_process", "127.0.0.1"))

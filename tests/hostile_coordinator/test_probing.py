"""Probing by refusals: two sites whose rows differ refuse alike, in every bit that leaves them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coreason_enclave.errors import EnclaveError, Reason
from coreason_enclave.models import initial_weights
from tests.hostile_coordinator.conftest import job, send, what_left

Federation = Any
ROWS = "data/clinic/visits/rows.csv"


def rows_of(site: Any) -> Path:
    return Path(site.folder) / ROWS


def one_person_more(site: Any) -> None:
    path = rows_of(site)
    path.write_text(path.read_text() + "p999,1,2,3,1\n")


def one_label_changed(site: Any) -> None:
    path = rows_of(site)
    lines = path.read_text().splitlines()
    cells = lines[1].rsplit(",", 1)
    lines[1] = f"{cells[0]},{1 - int(cells[1])}"
    path.write_text("\n".join(lines) + "\n")


def one_person_less(site: Any) -> None:
    path = rows_of(site)
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if "p007" not in line))


NEIGHBOURS = {
    "one person more": one_person_more,
    "one label changed": one_label_changed,
    "one person less": one_person_less,
}

PROBES: dict[str, dict[str, Any]] = {
    "less noise": {"privacy": {"noise_multiplier": 0.49}},
    "an epsilon above the cap": {"privacy": {"target_epsilon": 10.5}},
    "more steps than epsilon affords": {"local_steps": 400},
    "everybody in each step": {"privacy": {"sample_rate": 1.0}},
    "a clipping norm close to nothing": {"privacy": {"max_grad_norm": 1e-9}, "local_steps": 400},
    "an unknown dataset": {"dataset_id": "clinic/visits2"},
    "a wider bound": {"max_update_norm": 1e6},
    "a model that is not listed": {"model_arch": "SmallCNN"},
    "a cohort that is not there": {"min_clients": 11},
    "a base model of another layout": {"model_args": {"in_features": 4}},
}


@pytest.fixture(params=NEIGHBOURS)
def neighbours(request: Any, federation: Federation, tmp_path: Path) -> Any:
    """Two sites of the same name, keys and history whose rows differ in one person."""
    return neighbouring(request.param, federation, tmp_path, {"min_clients": 2})


def neighbouring(how: str, federation: Federation, tmp_path: Path, policy: dict[str, Any]) -> Any:
    first = federation.create(policy=policy, lineage={"epsilon": 12.0})
    other = type(federation)(tmp_path / "other", federation.signer, federation.now)
    second = other.create(policy=policy, lineage={"epsilon": 12.0})
    NEIGHBOURS[how](second)
    assert rows_of(first).read_text() != rows_of(second).read_text()
    return first, second


def replies(site: Any, federation: Federation, messages: list[tuple[Any, str]]) -> list[tuple[Any, ...]]:
    opened = site.open(clock=federation.clock)
    try:
        return [what_left(send(opened.session, message, kind)) for message, kind in messages]
    finally:
        opened.close()


def test_neighbours_refuse_alike_at_both_doors(neighbours: Any, federation: Federation) -> None:
    messages = [
        *((federation.order(job(federation, **changes)), "train") for changes in PROBES.values()),
        *(
            (federation.invitation(job(federation, **changes)), "query.enrol")
            for changes in PROBES.values()
            if "model_args" not in changes and "min_clients" not in changes
        ),
    ]
    left = [replies(site, federation, messages) for site in neighbours]
    assert left[0] == left[1]
    assert [[entry["type"] for entry in site.ledger_entries()] for site in neighbours] == [
        ["founded", "registered"]
    ] * 2


def test_a_budget_runs_out_at_neighbours_in_the_same_round(neighbours: Any, federation: Federation) -> None:
    outcomes = []
    for site in neighbours:
        opened = site.open(clock=federation.clock)
        said = []
        for number in range(1, 5):
            part = job(federation, job_id=f"study-{number}", rounds=1, local_steps=20)
            reply = send(opened.session, federation.order(part))
            said.append(what_left(reply) if reply.has_error() else "answered")
        opened.close()
        outcomes.append(said)
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0] == "answered"
    assert outcomes[0][-1] != "answered"


def test_neighbours_take_the_same_steps_and_state_the_same_figures(neighbours: Any, federation: Federation) -> None:
    from coreason_enclave.crypto.envelope import KeyRing, open_envelope
    from coreason_enclave.wire.documents import UPDATE_TYPE, UpdateStatement

    stated = []
    for site in neighbours:
        opened = site.open(clock=federation.clock)
        answer = opened.session.run(federation.order(job(federation)))
        opened.close()
        keys = KeyRing({"clinic-1": site.public_key})
        statement = UpdateStatement.from_payload(open_envelope(answer.envelope, UPDATE_TYPE, keys).payload)
        drawn = {"update_digest", "ledger_head", "signed_head"}  # noise and a random ledger_id are in these
        stated.append((statement.model_dump(exclude=drawn), statement.ledger_head.seq, len(answer.arrays)))
    assert stated[0] == stated[1]


FAULTS: dict[str, Callable[[Any], None]] = {
    "a value that is no number": lambda site: one_cell(site, "ill"),
    "an empty cell": lambda site: one_cell(site, ""),
    "one person less than the site demands": one_person_less,
}


def one_cell(site: Any, value: str) -> None:
    path = rows_of(site)
    lines = path.read_text().splitlines()
    cells = lines[3].split(",")
    cells[1] = value
    lines[3] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")


def test_whatever_is_wrong_with_the_rows_one_and_the_same_answer_leaves(federation: Federation, tmp_path: Path) -> None:
    """That *something* is wrong does leave: one bit, once, paid for, at a threshold which no order can move."""
    left, entries = set(), []
    for number, spoil in enumerate(FAULTS.values()):
        root = type(federation)(tmp_path / str(number), federation.signer, federation.now)
        site = root.create(policy={"min_clients": 2, "min_units": 20})
        spoil(site)
        left |= set(replies(site, federation, [(federation.order(job(federation)), "train")]))
        entries.append([entry["type"] for entry in site.ledger_entries()])
    assert left == {(1000, "dataset_schema", False)}
    assert entries == [["founded", "registered", "reserved"]] * len(FAULTS)


def of_three_classes(site: Any) -> None:
    schema = rows_of(site).with_name("dataset.toml")
    schema.write_text(schema.read_text().replace("classes = 2", "classes = 3"))


def one_label_of_the_third_class(site: Any) -> None:
    lines = rows_of(site).read_text().splitlines()
    lines[1] = f"{lines[1].rsplit(',', 1)[0]},2"
    rows_of(site).write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("act", ["run", "validate"])
def test_a_model_with_too_few_outcomes_does_not_find_out_whether_somebody_has_the_missing_one(
    federation: Federation, tmp_path: Path, act: str
) -> None:
    """Trained, it would fail over that one row; refused by what the dataset declares, it fails without it, too."""
    few = job(federation, model_arch="SimpleMLP", model_args={"in_features": 3, "classes": 2}, rounds=1)
    base = initial_weights(few.model_arch, few.model_args)
    left = []
    for name in ("nobody", "somebody"):
        root = type(federation)(tmp_path / name, federation.signer, federation.now)
        site = root.create(policy={"min_clients": 2})
        of_three_classes(site)
        if name == "somebody":
            one_label_of_the_third_class(site)
        opened = site.open(clock=federation.clock)
        with pytest.raises(EnclaveError) as refused:
            getattr(opened.session, act)(federation.order(few, base))
        opened.close()
        left.append(refused.value.reason)
    assert left == [Reason.WRONG_SHAPES, Reason.WRONG_SHAPES]


@pytest.mark.parametrize("act", ["run", "validate"])
def test_enormous_weights_are_refused_whatever_the_rows_are(neighbours: Any, federation: Federation, act: str) -> None:
    refused = []
    for site in neighbours:
        opened = site.open(clock=federation.clock)
        with pytest.raises(EnclaveError) as refusal:
            getattr(opened.session, act)(federation.order(job(federation), federation.weights(1e38)))
        opened.close()
        refused.append((refusal.value.reason, str(refusal.value)))
    assert refused[0] == refused[1]


@pytest.mark.parametrize("how", NEIGHBOURS)
@pytest.mark.parametrize("act", ["run", "validate"])
def test_weights_that_overflow_on_one_row_do_not_find_out_whether_it_is_there(
    how: str, federation: Federation, tmp_path: Path, act: str
) -> None:
    """Where a policy lets enormous weights pass, they make infinities of some rows; either way the site answers."""
    policy = {"min_clients": 2, "max_base_weight": 3e38, "max_logit": 3e38}
    answered = []
    for site in neighbouring(how, federation, tmp_path, policy):
        opened = site.open(clock=federation.clock)
        answer = getattr(opened.session, act)(federation.order(job(federation), federation.weights(1e37)))
        opened.close()
        answered.append(None if answer is None else len(answer.arrays))
    assert answered[0] == answered[1]
    assert (answered[0] is None) == (act == "validate")

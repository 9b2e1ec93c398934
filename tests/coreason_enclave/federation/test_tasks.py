"""The five tasks on a real site whose session runs in FLARE's process, as FLARE's client runner calls them."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.dxo import DataKind, from_shareable
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from coreason_enclave.crypto.encryption import UnsafeDerivedKemKeys
from coreason_enclave.crypto.envelope import KeyRing, open_envelope
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.federation.executor import TASKS, CoreasonExecutor
from coreason_enclave.federation.nvflare.messages import message_in, sealed_reply
from coreason_enclave.site.opening import open_site
from coreason_enclave.wire.documents import ENROLMENT_TYPE, Enrolment
from coreason_enclave.wire.handler import RequestKind
from coreason_enclave.wire.updates import SealedMessage
from tests.coreason_enclave.federation.conftest import AfterLooks, Flare
from tests.coreason_enclave.session.conftest import OtherAttester
from tests.coreason_enclave.session.test_killed import in_child


def types(site: Any) -> list[str]:
    return [entry["type"] for entry in site.ledger_entries()]


def spent(site: Any) -> tuple[int, int]:
    opened = site.open()
    try:
        claim = opened.ledger.lineage_claim(site.lineage)
        return claim.spent_pico, claim.open_reservations
    finally:
        opened.close()


def test_an_invitation_is_answered_with_the_sites_signed_word(flare: Flare) -> None:
    answer = flare.ask("enrol", flare.federation.invitation(flare.federation.job()))

    keys = KeyRing({"clinic-1": flare.site.public_key})
    enrolment = Enrolment.from_payload(open_envelope(answer.envelope, ENROLMENT_TYPE, keys).payload)
    assert enrolment.job_digest == flare.federation.job().digest()


def test_an_order_is_answered_with_the_very_update_of_the_standard_trainer(
    flare: Flare, standard: Callable[..., str]
) -> None:
    job = flare.federation.job()
    said = flare.statement(flare.ask("train", flare.order(job)))
    flare.end()
    twin = flare.federation.__class__(flare.root / "twin", now=flare.federation.now)

    assert said.update_digest == standard(twin.create(), job)
    assert said.noise_source == "unsafe_seeded"
    assert types(flare.site)[-1] == "committed"


def test_without_a_seed_the_noise_is_the_sites_secret(flare: Flare) -> None:
    flare.configured(unsafe_seed=None)

    assert flare.statement(flare.ask("train", flare.order())).noise_source == "site_keystream"


def test_every_kind_of_request_is_a_task_of_one_name() -> None:
    assert sorted(TASKS.values()) == sorted(RequestKind)
    assert {kind.value for kind in RequestKind} - TASKS.keys() == {"submit"}  # FLARE's own name: submit_model


@pytest.mark.parametrize("name", ["", "Train", "train ", "train_and_send", "__init__", "abort"])
def test_another_task_is_unsupported(flare: Flare, name: str) -> None:
    assert flare.refused(name, SealedMessage(b"")) == ("TASK_UNSUPPORTED", "unsupported")


@pytest.mark.parametrize("task", TASKS)
def test_what_is_no_sealed_message_is_refused_before_the_site_is_opened(flare: Flare, task: str) -> None:
    reply = flare.execute(task, Shareable())

    assert (reply.get_return_code(), reply.get_header("aegis_reason")) == ("BAD_TASK_DATA", "malformed")
    assert flare.executor._open_handler is None


@pytest.mark.parametrize("task", TASKS)
def test_what_no_coordinator_signed_is_refused(flare: Flare, task: str) -> None:
    code, reason = flare.refused(task, SealedMessage(b"forged"))

    assert (code, reason) == ("BAD_TASK_DATA", "malformed")
    assert types(flare.site) == ["founded", "registered"]


def test_a_refusal_of_the_sites_policy_says_which_and_no_more(flare: Flare) -> None:
    job = flare.federation.job(aggregator="krum", num_byzantine=1, model_arch="SmallCNN")

    assert flare.refused("enrol", flare.federation.invitation(job)) == ("BAD_REQUEST_DATA", "policy")


def test_a_fault_of_the_executor_itself_says_internal(flare: Flare, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise ZeroDivisionError("patient p007")

    monkeypatch.setattr(flare.executor, "_opened", fails)

    assert flare.refused("train", SealedMessage(b"")) == ("EXECUTION_EXCEPTION", "internal")


# --- whose process this is ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{"sites": {"clinic-2": "/srv"}}, {"sites": {"clinic-1": "/nowhere"}}, {"version": 9}, {"runs": "agent"}],
    ids=repr,
)
def test_a_host_that_is_not_set_up_answers_nothing(flare: Flare, changes: dict[str, Any]) -> None:
    flare.configured(**changes)

    assert flare.refused("attest", SealedMessage(b"x")) == ("SERVICE_UNAVAILABLE", "configuration")


def test_a_client_is_given_no_other_sites_folder(flare: Flare) -> None:
    flare.configured(sites={"clinic-2": str(flare.site.folder)}).name = "clinic-2"

    assert flare.refused("attest", SealedMessage(b"x")) == ("SERVICE_UNAVAILABLE", "configuration")


def test_a_production_site_is_not_opened_in_flares_process(federation: Any, tmp_path: Path) -> None:
    policy = {"unsafe_unattested_coordinator": True}
    site = federation.create(profile="production", policy=policy, lineage={"public": False})
    flare = Flare(federation, site, tmp_path / "flare").configured(unsafe_seed=None)

    assert flare.refused("attest", SealedMessage(b"x")) == ("SERVICE_UNAVAILABLE", "configuration")
    assert not (site.folder / "audit.jsonl").exists()


def test_derived_keys_are_refused_to_a_production_site(federation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = {"unsafe_unattested_coordinator": True}
    site = federation.create(profile="production", policy=policy, lineage={"public": False})
    monkeypatch.setattr("coreason_enclave.site.opening.attester_named", lambda name: OtherAttester())
    open_site(site.folder).close()
    with pytest.raises(ConfigurationError, match="derived keys need profile development"):
        open_site(site.folder, kem_keys=UnsafeDerivedKemKeys(bytes(32)))


def test_at_the_end_of_a_run_the_site_is_free_for_the_next_executor(flare: Flare) -> None:
    order = flare.order()
    first = flare.statement(flare.ask("train", order))
    flare.end()
    other = Flare(flare.federation, flare.site, flare.root, executor=CoreasonExecutor())
    again = other.statement(other.ask("train", order))
    other.end()

    assert again.update_digest == first.update_digest
    assert types(flare.site).count("reserved") == 1


def test_a_process_for_each_task_spends_nothing_twice(flare: Flare, tmp_path: Path) -> None:
    """As a simulator does that has fewer threads than clients: nothing but the site's folder is left in between."""
    answers = tmp_path / "answer"

    def in_a_process(task: str, message: SealedMessage) -> SealedMessage:
        def answered() -> None:
            one = Flare(flare.federation, flare.site, flare.root, executor=CoreasonExecutor())
            answers.write_bytes(one.execute(task, sealed_reply(message)).to_bytes())

        assert in_child(answered) == 0
        return message_in(Shareable.from_bytes(answers.read_bytes()))

    flare.ask = in_a_process  # type: ignore[method-assign]
    order = flare.order()
    first, again = (flare.statement(in_a_process("train", order)) for _ in range(2))
    later = flare.statement(in_a_process("train", flare.order(round_number=2)))

    assert first.update_digest == again.update_digest
    assert [entry["event"]["steps"] for entry in flare.site.ledger_entries() if entry["type"] == "committed"] == [4, 4]
    assert first.epsilon is not None
    assert first.epsilon == again.epsilon < later.epsilon


# --- abort ----------------------------------------------------------------------------------------------------


def test_a_task_that_is_aborted_before_it_begins_is_not_begun(flare: Flare) -> None:
    order, signal = flare.order(), Signal()
    signal.trigger("stop")

    assert flare.refused("train", order, signal) == ("TASK_ABORTED", "aborted")
    assert "reserved" not in types(flare.site)


@pytest.mark.parametrize("looks", [1, 2, 3, 4])
def test_an_order_aborted_between_two_steps_is_answered_later_and_paid_once(flare: Flare, looks: int) -> None:
    order = flare.order()
    rehearsed = 4  # each run of the loop over synthetic rows looks once
    assert flare.refused("train", order, AfterLooks(rehearsed + looks)) == ("TASK_ABORTED", "aborted")
    assert types(flare.site)[-1] == "content_noted"

    said = flare.statement(flare.ask("train", order))
    flare.end()
    assert types(flare.site).count("reserved") == 1
    entries = flare.site.ledger_entries()
    assert spent(flare.site) == (4 * entries[2]["step_cost_pico"], 0)
    assert said.update_digest == entries[-1]["update_digest"]


# --- validate, submit_model -----------------------------------------------------------------------------------


def test_a_validation_is_for_the_sites_own_eyes(flare: Flare) -> None:
    order = flare.order(flare.federation.job(), base=flare.federation.weights(0.1))
    reply = flare.execute("validate", sealed_reply(order))

    told = from_shareable(reply)
    assert (reply.get_return_code(), told.data_kind, told.data, told.meta) == ("OK", DataKind.METRICS, {}, {})
    path = flare.site.folder / "validations.jsonl"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    [line] = map(json.loads, path.read_text().splitlines())
    assert (line["job"], line["round"], line["dataset"]) == ("study-1", 1, "clinic/visits")
    assert line["loss"] > 0
    assert 0 < line["accuracy"] < 1


def test_a_validation_spends_nothing_and_its_numbers_are_in_no_log(flare: Flare) -> None:
    flare.execute("validate", sealed_reply(flare.order()))

    assert types(flare.site) == ["founded", "registered"]
    last = flare.site.log()[-1]
    assert (last["action"], last["outcome"]) == ("validation", "kept")
    assert last["details"].keys().isdisjoint({"loss", "accuracy", "rows"})


@pytest.mark.parametrize("task", ["validate", "submit_model"])
def test_an_order_is_checked_for_them_as_for_training(flare: Flare, task: str) -> None:
    order = flare.order(flare.federation.job(), round_number=6)

    assert flare.refused(task, order) == ("BAD_TASK_DATA", "wrong_round")


def test_a_validation_that_others_could_read_is_not_written(flare: Flare) -> None:
    path = flare.site.folder / "validations.jsonl"
    path.touch(mode=0o644)
    path.chmod(0o644)

    assert flare.refused("validate", flare.order()) == ("SERVICE_UNAVAILABLE", "configuration")
    assert path.read_bytes() == b""


def test_a_released_update_is_submitted_again_and_nothing_is_spent(flare: Flare) -> None:
    order = flare.order()
    first = flare.statement(flare.ask("train", order))
    before = types(flare.site)

    assert flare.statement(flare.ask("submit_model", order)).update_digest == first.update_digest
    assert types(flare.site) == before


def test_what_was_never_released_is_not_computed_for_a_submission(flare: Flare) -> None:
    order = flare.order()

    assert flare.refused("submit_model", order) == ("BAD_TASK_DATA", "wrong_round")
    assert types(flare.site) == ["founded", "registered"]


def test_a_submission_for_another_base_model_conflicts_with_what_was_released(flare: Flare) -> None:
    flare.ask("train", flare.order())
    other = flare.order(flare.federation.job(), base=flare.federation.weights(0.5))

    assert flare.refused("submit_model", other)[1] == "round_conflict"


def test_a_kept_update_that_was_damaged_is_not_submitted(flare: Flare) -> None:
    order = flare.order()
    flare.ask("train", order)
    for path in (flare.site.folder / "released").glob("*/*.update"):
        path.write_bytes(path.read_bytes()[:-1])

    assert flare.refused("submit_model", order) == ("BAD_TASK_DATA", "wrong_round")

"""A job at a site draws from one content under one key: what is refused, what it costs, and what is said of it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coreason_enclave.crypto.encoding import sha256_hex
from coreason_enclave.crypto.envelope import KeyRing, open_envelope
from coreason_enclave.errors import EnclaveError, Reason
from coreason_enclave.privacy.training import LocalSgdTrainer
from coreason_enclave.wire.documents import UPDATE_TYPE, UpdateStatement
from coreason_enclave.wire.updates import SealedMessage

Federation = Any


def ask(site: Any, federation: Federation, order: SealedMessage, **options: Any) -> SealedMessage:
    opened = site.open(clock=federation.clock, **options)
    try:
        answer: SealedMessage = opened.session.run(order)
        return answer
    finally:
        opened.close()


def refused(site: Any, federation: Federation, order: SealedMessage, **options: Any) -> Reason:
    before = site.ledger_entries()
    with pytest.raises(EnclaveError) as refusal:
        ask(site, federation, order, **options)
    assert site.ledger_entries() == before
    assert site.log()[-1]["reason"] == refusal.value.reason
    return refusal.value.reason


def rows_of(site: Any) -> Path:
    return Path(site.folder) / "data/clinic/visits/rows.csv"


def one_row_more(site: Any) -> None:
    rows_of(site).write_text(rows_of(site).read_text() + "p999,1,2,3,1\n")


def one_cell_changed(site: Any) -> None:
    lines = rows_of(site).read_text().splitlines()
    cells = lines[1].split(",")
    lines[1] = ",".join([cells[0], "5.5", *cells[2:]])
    rows_of(site).write_text("\n".join(lines) + "\n")


def other_range(site: Any) -> None:
    schema = rows_of(site).with_name("dataset.toml")
    schema.write_text(schema.read_text().replace("high = 10.0", "high = 11.0", 1))


CHANGES: dict[str, Callable[[Any], None]] = {
    "a row appended": one_row_more,
    "a cell replaced": one_cell_changed,
    "a range declared otherwise": other_range,
}


def key_of(site: Any, job: Any) -> Path:
    return Path(site.folder) / "keys" / "jobs" / f"{job.digest()}.key"


def changed(site: Any, answer: SealedMessage) -> bool:
    keys = KeyRing({"clinic-1": site.public_key})
    return UpdateStatement.from_payload(open_envelope(answer.envelope, UPDATE_TYPE, keys).payload).content_changed


@pytest.mark.parametrize("how", CHANGES)
def test_changed_rows_are_refused_within_a_job_and_cost_nothing(how: str, federation: Federation) -> None:
    site, job = federation.create(), federation.job()
    assert not changed(site, ask(site, federation, federation.order(job)))
    folder = rows_of(site).parent
    before = {path: path.read_bytes() for path in folder.iterdir()}
    CHANGES[how](site)
    assert refused(site, federation, federation.order(job, round_number=2)) is Reason.CONTENT_CHANGED
    for path, data in before.items():
        path.write_bytes(data)
    assert not changed(site, ask(site, federation, federation.order(job, round_number=2)))


def test_another_job_may_draw_from_the_changed_rows(federation: Federation) -> None:
    site = federation.create()
    ask(site, federation, federation.order(federation.job()))
    one_row_more(site)
    answer = ask(site, federation, federation.order(federation.job(job_id="study-2")))
    assert not changed(site, answer)


def test_a_job_whose_lineages_may_grow_says_in_which_rounds_they_did(federation: Federation) -> None:
    site, job = federation.create(), federation.job(lineages_may_grow=True)
    said = []
    for number in range(1, 6):
        if number in (3, 5):
            one_row_more(site)
        said.append(changed(site, ask(site, federation, federation.order(job, round_number=number))))
    assert said == [False, False, True, False, True]
    again = ask(site, federation, federation.order(job, round_number=4))  # from the store
    assert not changed(site, again)


def test_the_sites_policy_may_refuse_changed_rows_all_the_same(federation: Federation) -> None:
    site = federation.create(policy={"refuse_changed_content": True})
    job = federation.job(lineages_may_grow=True)
    ask(site, federation, federation.order(job))
    one_row_more(site)
    assert refused(site, federation, federation.order(job, round_number=2)) is Reason.CONTENT_CHANGED
    assert "refuse_changed_content" in site.log()[-1]["details"]["message"]


def test_a_job_key_that_was_lost_is_not_replaced_by_another(federation: Federation) -> None:
    site, job = federation.create(), federation.job(lineages_may_grow=True)
    ask(site, federation, federation.order(job))
    key = key_of(site, job)
    kept = key.read_bytes()
    key.unlink()
    assert refused(site, federation, federation.order(job, round_number=2)) is Reason.JOB_KEY_CHANGED
    key.write_bytes(kept)
    assert ask(site, federation, federation.order(job, round_number=2)).arrays


def test_a_round_that_crashed_is_not_computed_again_under_another_key(federation: Federation) -> None:
    class Fails(LocalSgdTrainer):
        def train(self, task: Any) -> Any:
            super().train(task)
            raise OSError("the power went")

    site, job = federation.create(), federation.job()
    with pytest.raises(EnclaveError):
        ask(site, federation, federation.order(job), trainer=Fails())
    kept = key_of(site, job).read_bytes()
    key_of(site, job).unlink()
    assert refused(site, federation, federation.order(job)) is Reason.JOB_KEY_CHANGED
    key_of(site, job).write_bytes(kept)
    one_row_more(site)
    assert refused(site, federation, federation.order(job)) is Reason.CONTENT_CHANGED


def test_injected_keys_do_not_go_on_with_a_job_that_began_with_secret_ones(federation: Federation) -> None:
    site, job = federation.create(), federation.job()
    ask(site, federation, federation.order(job))
    reason = refused(site, federation, federation.order(job, round_number=2), seed=5)
    assert reason is Reason.JOB_KEY_CHANGED


def test_what_was_released_is_sent_again_without_rows_and_without_a_key(federation: Federation) -> None:
    site, job = federation.create(), federation.job()
    first = ask(site, federation, federation.order(job))
    one_row_more(site)
    key_of(site, job).unlink()
    assert ask(site, federation, federation.order(job)).arrays == first.arrays


def test_rows_that_change_after_they_were_hashed_are_refused_before_a_draw(federation: Federation) -> None:
    class Swaps:
        """A sentry whose rows are exchanged between the two looks at them."""

        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def open(self, dataset_id: str) -> Any:
            one_row_more(site)
            return self.inner.open(dataset_id)

    site, job = federation.create(), federation.job()
    ask(site, federation, federation.order(job))
    opened = site.open(clock=federation.clock)
    session = dataclasses.replace(opened.session, sentry=Swaps(opened.session.sentry))
    with pytest.raises(EnclaveError) as refusal:
        session.run(federation.order(job, round_number=2))
    opened.close()
    assert refusal.value.reason is Reason.CONTENT_CHANGED
    assert [entry["type"] for entry in site.ledger_entries()][-2:] == ["committed", "reserved"]


def test_marks_confirm_no_guess_of_rows_or_key(federation: Federation) -> None:
    site, job = federation.create(), federation.job()
    ask(site, federation, federation.order(job))
    key = key_of(site, job).read_bytes()
    opened = site.open(clock=federation.clock)
    export, digest = opened.ledger.export(), opened.session.sentry.open("clinic/visits").digest
    opened.close()
    (note,) = re.findall(rb"\{[^{}]*content_noted[^{}]*\}", export)
    assert note.count(b"_mark") == 2
    for guess in (digest, sha256_hex(bytes.fromhex(digest)), key.hex(), sha256_hex(key)):
        assert guess.encode() not in export

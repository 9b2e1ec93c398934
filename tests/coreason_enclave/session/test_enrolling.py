"""Before a job's first round: an invitation in, the site's signed word out or a refusal, and nothing spent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from coreason_enclave.crypto.signing import Signer
from coreason_enclave.errors import EnclaveError, Reason
from coreason_enclave.wire.documents import ORDER_TYPE, Enrolment
from coreason_enclave.wire.roll_call import encode_roll_call, open_enrolment, read_roll_call
from coreason_enclave.wire.updates import SealedMessage

Federation = Any


def invite(site: Any, federation: Federation, invitation: SealedMessage) -> SealedMessage:
    opened = site.open(clock=federation.clock)
    try:
        answer: SealedMessage = opened.session.enrol(invitation)
        return answer
    finally:
        opened.close()


def test_an_enrolment_says_who_takes_part_in_which_job_and_no_more(federation: Federation) -> None:
    site, job = federation.create(), federation.job()
    answer = invite(site, federation, federation.invitation(job))
    assert open_enrolment(answer.envelope) == Enrolment(
        site_id="clinic-1",
        public_key=site.public_key,
        profile="development",
        job_id="study-1",
        job_digest=job.digest(),
        enrolled_at=federation.now,
    )
    assert (answer.arrays, answer.roll_call) == (b"", b"")


def test_enrolling_spends_nothing_reads_nothing_and_leaves_one_line_in_the_log(federation: Federation) -> None:
    site = federation.create()
    (site.folder / "data/clinic/visits/rows.csv").unlink()
    invite(site, federation, federation.invitation(federation.job()))
    assert [entry["type"] for entry in site.ledger_entries()] == ["founded", "registered"]
    assert [(line["action"], line["outcome"]) for line in site.log()] == [("enrolment", "signed")]


def test_enrolments_of_three_sites_make_a_roll_call_that_each_of_them_accepts(federation: Federation) -> None:
    job = federation.job(min_clients=3)
    sites = {name: federation.create(name) for name in ("clinic-1", "clinic-2", "clinic-3")}
    enrolled = {
        name: invite(site, federation, federation.invitation(job, site_id=name)).envelope
        for name, site in sites.items()
    }
    roll_call = encode_roll_call(enrolled)
    assert [entry.site_id for entry in read_roll_call(roll_call, job.digest())] == sorted(sites)
    for name, site in sites.items():
        opened = site.open(clock=federation.clock)
        assert opened.session.run(federation.order(job, site_id=name, roll_call=roll_call)).arrays
        opened.close()


def invited(changes: dict[str, Any] | None = None, /, **invitation: Any) -> Callable[[Federation], SealedMessage]:
    return lambda federation: federation.invitation(federation.job(**(changes or {})), **invitation)


BAD_INVITATIONS: dict[str, tuple[Callable[[Federation], SealedMessage], Reason, str]] = {
    "by a coordinator that the policy does not name": (
        invited(signer=Signer.from_seed(bytes(32))),
        Reason.UNKNOWN_SIGNER,
        "unknown key",
    ),
    "that is an order": (invited(payload_type=ORDER_TYPE), Reason.WRONG_PAYLOAD_TYPE, "job-invitation"),
    "for another site": (invited(site_id="clinic-2"), Reason.NOT_ADDRESSED_TO_ME, "the order is for clinic-2"),
    "that has expired": (invited(issued_at=1_799_999_000, expires_at=1_799_999_999), Reason.EXPIRED, "has expired"),
    "from the future": (invited(issued_at=1_800_000_061), Reason.NOT_YET_VALID, "in the future"),
    "with a model": (
        lambda federation: SealedMessage(federation.invitation(federation.job()).envelope, b"model"),
        Reason.MALFORMED,
        "neither a model nor a roll-call",
    ),
    "with a roll-call": (
        lambda federation: SealedMessage(federation.invitation(federation.job()).envelope, b"", b"{}"),
        Reason.MALFORMED,
        "neither a model nor a roll-call",
    ),
    "to a dataset that is not registered": (
        invited({"dataset_id": "clinic/scans"}),
        Reason.LINEAGE_UNKNOWN,
        "has no lineage",
    ),
    "to a job with less noise than the site's least": (
        invited({"privacy": {"noise_multiplier": 0.49}}),
        Reason.POLICY,
        "min_noise_multiplier is 0.5",
    ),
    "to a job above the lineage's cap for one job": (
        invited({"privacy": {"target_epsilon": 10.5}}),
        Reason.POLICY,
        "job_epsilon of lineage clinic-1/visits is 10",
    ),
    "to a job that could never end within its own epsilon": (
        invited({"privacy": {"target_epsilon": 5.0}}),
        Reason.BUDGET_EXCEEDED,
        "nothing was reserved",
    ),
    "to a strategy that its policy does not list": (
        invited({"strategy": "SCAFFOLD", "momentum": 0.0}),
        Reason.POLICY,
        "strategies does not list the job's SCAFFOLD",
    ),
}


@pytest.mark.parametrize("which", BAD_INVITATIONS)
def test_an_invitation_is_refused(which: str, federation: Federation) -> None:
    make, reason, words = BAD_INVITATIONS[which]
    site = federation.create()
    with pytest.raises(EnclaveError) as refused:
        invite(site, federation, make(federation))
    assert refused.value.reason is reason
    assert words in str(refused.value)
    assert [entry["type"] for entry in site.ledger_entries()] == ["founded", "registered"]
    (line,) = site.log()
    assert (line["action"], line["outcome"], line["reason"]) == ("enrolment", "refused", reason.value)

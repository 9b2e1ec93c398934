"""An appraiser that breaks over one site's evidence: that site is refused as ``internal``, and the job goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from decimal import InvalidOperation
from typing import Any

import pytest

from aegis.errors import UpdateRefused
from coreason_enclave.attestation.appraisal import Appraiser
from coreason_enclave.attestation.binding import Binding
from coreason_enclave.attestation.endorsements.sources import missing
from coreason_enclave.attestation.evidence import Evidence
from coreason_enclave.errors import AttestationError, Reason
from coreason_enclave.schemas import AttestationReport
from tests.handshake.parties import NOW, SITE, Host, Pair, simulated_appraiser
from tests.support.studies import MakeStudy, a_job

PairOf = Callable[..., Pair]
ODD: tuple[Exception, ...] = (
    OverflowError("date value out of range"),
    RecursionError("maximum recursion depth exceeded"),
    UserWarning("an odd certificate"),
    MemoryError(),
    InvalidOperation(),
    KeyError("fmspc"),
    OSError(28, "No space left on device"),
    StopIteration(),
)


@dataclass(frozen=True)
class Broken(Appraiser):
    """Raises ``fault`` over the evidence of ``site``; over everybody else's it does its work."""

    site: str = SITE
    fault: Exception = ODD[0]

    def appraise(self, evidence: Evidence, binding: Binding, now: int) -> AttestationReport:
        if binding.subject == self.site:
            raise self.fault
        return super().appraise(evidence, binding, now)


def broken(fault: Exception, site: str = SITE) -> Broken:
    whole = simulated_appraiser()
    return Broken(whole.policy, whole.profile, whole.endorsements, site=site, fault=fault)


@pytest.mark.parametrize("fault", ODD, ids=lambda fault: type(fault).__name__)
def test_whatever_an_appraiser_raises_is_one_sites_refusal(pair: Pair, fault: Exception) -> None:
    pair.appraiser = broken(fault)
    pair.restart_coordinator()
    with pytest.raises(UpdateRefused) as refused:
        pair.attest()
    assert (refused.value.site_id, refused.value.reason) == (SITE, Reason.INTERNAL)
    assert type(fault).__name__ in str(refused.value)


@pytest.mark.parametrize("fault", ODD, ids=lambda fault: type(fault).__name__)
def test_whatever_a_sites_appraiser_raises_keeps_the_model_closed(pair_of: PairOf, fault: Exception) -> None:
    pair = pair_of(asks=broken(fault, "coordinator"))
    sent = pair.order(pair.attest())
    with pytest.raises(AttestationError, match="could not be appraised") as refused:
        pair.open(sent)
    assert refused.value.reason is Reason.INTERNAL


@pytest.mark.parametrize("fault", ODD, ids=lambda fault: type(fault).__name__)
def test_an_attester_of_the_coordinator_that_breaks_is_one_that_refuses(pair_of: PairOf, fault: Exception) -> None:
    pair = pair_of(coordinator_host=Host(fault=fault))
    with pytest.raises(AttestationError, match="could not be collected") as refused:
        pair.attest()
    assert refused.value.reason is Reason.INTERNAL


def test_one_site_that_breaks_the_appraiser_does_not_stop_the_job(study: MakeStudy) -> None:
    run = study(4)
    run.run(a_job(run.federation), appraiser=broken(OverflowError("date value out of range"), "clinic-2"))
    history = run.history()
    assert len(history) == 2
    assert [record.refused for record in history] == [{"clinic-2": "internal"}, {"clinic-2": "quarantined"}]
    assert all({"clinic-1", "clinic-3", "clinic-4"} == set(record.admitted) for record in history)


def test_a_vendor_that_does_not_answer_is_no_sites_offence(study: MakeStudy) -> None:
    """The site is asked again in the very next round: it had no part in it."""
    run = study(4)
    run.run(a_job(run.federation), appraiser=broken(missing("no answer", unavailable=True), "clinic-2"))
    assert [record.refused for record in run.history()] == [{"clinic-2": "attestation_unavailable"}] * 2


def test_a_policy_whose_dates_end_with_the_calendar_appraises(pair: Pair) -> None:
    value: dict[str, Any] = {
        "name": "agent",
        "kind": "sgx",
        "measurements": {"mr_enclave": "ab" * 32},
        "not_after": date.max,
    }
    pair.appraiser = simulated_appraiser(reference_values=[value], dcap={"out_of_date_until": date.max})
    pair.restart_coordinator()
    assert pair.attest().report.appraised_at == NOW
    policy = pair.appraiser.policy
    assert policy.reference_values[0].matches("sgx", {"mr_enclave": "ab" * 32}, NOW)
    assert policy.dcap.tolerates_out_of_date(NOW)

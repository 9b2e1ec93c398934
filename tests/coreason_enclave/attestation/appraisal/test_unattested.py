"""A statement in place of evidence: accepted by name under one profile, bound like evidence, and never attested."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from pydantic import ValidationError

from coreason_enclave.attestation.appraisal import NOT_ATTESTED, Appraiser
from coreason_enclave.attestation.attestation_policy import AttestationPolicy
from coreason_enclave.attestation.binding import Binding, Role, report_data
from coreason_enclave.attestation.endorsements import NoEndorsements
from coreason_enclave.attestation.evidence import CpuKind, CpuReport, Evidence, to_base64
from coreason_enclave.attestation.verify.verdict import VerificationRefused
from coreason_enclave.crypto.encoding import canonical_json
from coreason_enclave.errors import Reason
from coreason_enclave.hardware.simulated import SimulatedAttester, UnattestedAttester
from coreason_enclave.schemas import AttestationReport, Profile, Provenance
from tests.coreason_enclave.attestation.appraisal import hosts
from tests.coreason_enclave.attestation.appraisal.hosts import NOW, SUBJECT, binding

EVERY_KIND = AttestationPolicy(kinds=tuple(CpuKind))
LISTED = {SUBJECT: (binding().public_key,)}


def appraise(
    shown: Evidence, *, profile: Profile = Profile.UNATTESTED, asked: Binding | None = None, **options: Any
) -> AttestationReport:
    appraiser = Appraiser(EVERY_KIND, profile, NoEndorsements(), **{"unattested": LISTED, **options})
    return appraiser.appraise(shown, asked or binding(), NOW)


def refusal(shown: Evidence | None = None, **options: Any) -> tuple[str, Reason]:
    with pytest.raises(VerificationRefused) as refused:
        appraise(UnattestedAttester().produce(binding().context()) if shown is None else shown, **options)
    return refused.value.refusal.value, refused.value.reason


def test_a_listed_party_is_reported_as_claimed_and_nothing_was_checked() -> None:
    report = appraise(UnattestedAttester().produce(binding().context()))

    assert (report.provenance, report.kind, report.measurement) == (Provenance.CLAIMED, "unattested", None)
    assert (report.not_checked, report.platform_ids) == ((NOT_ATTESTED,), ())


@pytest.mark.parametrize("profile", [Profile.PRODUCTION, Profile.DEVELOPMENT])
def test_no_other_profile_accepts_the_statement_whatever_policy_and_lists_say(profile: Profile) -> None:
    assert refusal(profile=profile) == ("unattested", Reason.ATTESTATION_UNACCEPTABLE)


@pytest.mark.parametrize(
    "listed",
    [
        {},
        {"another-site": (binding().public_key,)},
        {SUBJECT: ()},
        {SUBJECT: ("55" * 32,)},
    ],
    ids=["nobody", "another site with this key", "the name without a key", "the name with another key"],
)
def test_a_party_is_accepted_only_by_its_name_with_its_key(listed: Any) -> None:
    assert refusal(unattested=listed) == ("unattested", Reason.ATTESTATION_UNACCEPTABLE)


def test_the_profile_accepts_neither_simulated_nor_verified_hardware_in_place_of_the_statement() -> None:
    simulated = SimulatedAttester().produce(binding().context())
    hardware = hosts.Host(CpuKind.SNP).produce(binding().context())
    verifiers = hosts.verifiers(CpuKind.SNP)

    assert refusal(simulated)[0] == "simulated"
    assert refusal(hardware, verifiers=verifiers)[0] == "kind_not_accepted"


@pytest.mark.parametrize("name", ["nonce", "public_key", "kem_key", "job_digest"])
def test_the_statement_is_bound_to_challenge_both_keys_and_job(name: str) -> None:
    shown = UnattestedAttester().produce(binding(**{name: "55" * 32}).context())
    assert refusal(shown) == ("report_data", Reason.ATTESTATION_INVALID)


def test_a_coordinators_statement_is_none_of_a_site() -> None:
    shown = UnattestedAttester().produce(binding(role=Role.COORDINATOR).context())
    assert refusal(shown)[0] == "report_data"


@pytest.mark.parametrize(
    "words", [{"unattested": False}, {"simulated": True}, {"attested": True}, {"unattested": True, "also": 1}, {}]
)
def test_other_words_in_the_statements_place_are_refused(words: dict[str, Any]) -> None:
    said = canonical_json({**words, "report_data": report_data(binding().context(), ()).hex()})
    shown = Evidence(cpu=CpuReport(kind=CpuKind.UNATTESTED, report=to_base64(said)))
    assert refusal(shown)[0] == "report_data"


def test_no_result_pairs_a_kind_with_the_provenance_of_another() -> None:
    right = appraise(UnattestedAttester().produce(binding().context())).model_dump(mode="json")
    kinds, values = ("unattested", "simulated", "snp"), ("claimed", "simulated", "attested")

    for kind, provenance in itertools.product(kinds, values):
        made = {**right, "kind": kind, "provenance": provenance}
        made |= {"measurement": "agent-1"} if provenance == "attested" else {}
        if kinds.index(kind) == values.index(provenance):
            AttestationReport.model_validate(made)
        else:
            with pytest.raises(ValidationError, match=r"provenance|measured"):
                AttestationReport.model_validate(made)

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreason_enclave.attestation.appraisal import EVERYTHING_UNCHECKED, Appraiser
from coreason_enclave.attestation.attestation_policy import AttestationPolicy, Unchecked
from coreason_enclave.attestation.binding import Binding, gpu_nonce, report_data
from coreason_enclave.attestation.endorsements import NoEndorsements
from coreason_enclave.attestation.evidence import CpuKind, CpuReport, Evidence, to_base64
from coreason_enclave.attestation.verify.verdict import VerificationRefused
from coreason_enclave.crypto.encoding import canonical_json
from coreason_enclave.errors import AttestationError, Reason
from coreason_enclave.hardware.simulated import SimulatedAttester
from coreason_enclave.schemas import Profile, Provenance
from tests.coreason_enclave.attestation.appraisal.hosts import MEASUREMENTS, NOW, SUBJECT, binding, gpu_report

ONLY_SIMULATED = AttestationPolicy.simulated_only()


def refusal(
    policy: AttestationPolicy, profile: Profile, evidence: Evidence | None = None, asked: Binding | None = None
) -> tuple[str, Reason]:
    asked = asked or binding()
    shown = evidence or SimulatedAttester().produce(asked.context())
    with pytest.raises(VerificationRefused) as refused:
        Appraiser(policy, profile, NoEndorsements()).appraise(shown, asked, NOW)
    return refused.value.refusal.value, refused.value.reason


def test_simulated_evidence_is_reported_as_simulated_under_a_development_profile() -> None:
    shown = SimulatedAttester().produce(binding().context())
    report = Appraiser(ONLY_SIMULATED, Profile.DEVELOPMENT, NoEndorsements()).appraise(shown, binding(), NOW)
    assert (report.provenance, report.kind, report.measurement) == (Provenance.SIMULATED, "simulated", None)
    assert (report.not_checked, report.platform_ids) == ((EVERYTHING_UNCHECKED,), ())
    assert report.expires_at == NOW + ONLY_SIMULATED.lifetime_s


def test_simulated_evidence_is_refused_under_a_production_profile_though_the_policy_lists_it() -> None:
    assert refusal(ONLY_SIMULATED, Profile.PRODUCTION) == ("simulated", Reason.ATTESTATION_UNACCEPTABLE)


def test_a_development_profile_accepts_simulated_evidence_only_where_the_policy_lists_it() -> None:
    outcome = refusal(AttestationPolicy(kinds=(CpuKind.SNP,)), Profile.DEVELOPMENT)
    assert outcome == ("kind_not_accepted", Reason.ATTESTATION_UNACCEPTABLE)
    assert refusal(AttestationPolicy(kinds=()), Profile.DEVELOPMENT)[0] == "kind_not_accepted"


@pytest.mark.parametrize("name", ["nonce", "public_key", "kem_key", "job_digest"])
def test_even_simulated_evidence_has_to_be_about_what_was_asked(name: str) -> None:
    shown = SimulatedAttester().produce(binding(**{name: "55" * 32}).context())
    assert refusal(ONLY_SIMULATED, Profile.DEVELOPMENT, shown)[0] == "report_data"


def test_simulated_evidence_has_no_gpus() -> None:
    context = binding().context()
    gpus = (gpu_report(gpu_nonce(context)),)
    report = canonical_json({"simulated": True, "report_data": report_data(context, gpus).hex()})
    shown = Evidence(cpu=CpuReport(kind=CpuKind.SIMULATED, report=to_base64(report)), gpus=gpus)
    assert refusal(ONLY_SIMULATED, Profile.DEVELOPMENT, shown)[0] == "malformed"
    wanted = AttestationPolicy(kinds=(CpuKind.SIMULATED,), gpus=1)
    assert refusal(wanted, Profile.DEVELOPMENT)[0] == "gpus_missing"


def reference_values() -> st.SearchStrategy[list[dict[str, Any]]]:
    kinds = st.lists(st.sampled_from(sorted(MEASUREMENTS)), max_size=4)
    return kinds.map(
        lambda found: [
            {"name": f"code-{number}", "kind": kind.value, "measurements": MEASUREMENTS[kind]}
            for number, kind in enumerate(found)
        ]
    )


POLICIES = st.builds(
    lambda **lines: AttestationPolicy.model_validate(lines),
    kinds=st.lists(st.sampled_from([kind.value for kind in CpuKind])),
    gpus=st.integers(0, 16),
    lifetime_s=st.integers(30, 600),
    accept_unchecked=st.lists(st.sampled_from([name.value for name in Unchecked])),
    reference_values=reference_values(),
    platforms=st.dictionaries(st.sampled_from([SUBJECT, "hospital-b"]), st.lists(st.just("simulated"), max_size=2)),
    unsafe_shared_platforms=st.just(["simulated"]),
)


@given(policy=POLICIES, junk=st.binary(min_size=1, max_size=64) | st.none())
def test_no_policy_makes_simulated_evidence_acceptable_in_production(
    policy: AttestationPolicy, junk: bytes | None
) -> None:
    shown = SimulatedAttester().produce(binding().context())
    if junk is not None:
        shown = Evidence(cpu=CpuReport(kind=CpuKind.SIMULATED, report=to_base64(junk)))
    with pytest.raises(AttestationError):
        Appraiser(policy, Profile.PRODUCTION, NoEndorsements()).appraise(shown, binding(), NOW)


@given(policy=POLICIES, kind=st.sampled_from(list(CpuKind)), report=st.binary(min_size=1, max_size=2048))
def test_bytes_that_no_processor_signed_are_never_accepted(
    policy: AttestationPolicy, kind: CpuKind, report: bytes
) -> None:
    shown = Evidence(cpu=CpuReport(kind=kind, report=to_base64(report)))
    for profile in Profile:
        with pytest.raises(VerificationRefused):
            Appraiser(policy, profile, NoEndorsements()).appraise(shown, binding(), NOW)

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from coreason_enclave.attestation.appraisal import PINNED, Appraiser
from coreason_enclave.attestation.attestation_policy import AttestationPolicy
from coreason_enclave.attestation.binding import Role, gpu_nonce, report_data
from coreason_enclave.attestation.endorsements import NoEndorsements
from coreason_enclave.attestation.evidence import CpuKind, CpuReport, Evidence, to_base64
from coreason_enclave.errors import AttestationError, Reason
from coreason_enclave.schemas import Profile, Provenance
from tests.coreason_enclave.attestation.appraisal.hosts import (
    KINDS,
    MEASUREMENTS,
    NOW,
    PLATFORM,
    SUBJECT,
    Host,
    Trial,
    binding,
    cpu_report,
    gpu_id,
    gpu_report,
    intel_of,
    policy,
    source,
    verifiers,
)
from tests.coreason_enclave.attestation.dcap import hierarchy as intel
from tests.coreason_enclave.attestation.nvidia import hierarchy as nvidia
from tests.coreason_enclave.attestation.snp import hierarchy as amd

SNP = Host(CpuKind.SNP)
TWO_GPUS = Host(CpuKind.SNP, ("", "second"))
INVALID, UNACCEPTABLE = Reason.ATTESTATION_INVALID, Reason.ATTESTATION_UNACCEPTABLE

every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
def test_what_the_policy_accepts_is_attested_and_says_what_when_and_for_how_long(kind: CpuKind) -> None:
    asked = binding()
    report = Trial(Host(kind), asked=asked).result()
    assert (report.provenance, report.kind, report.measurement) == (Provenance.ATTESTED, kind.value, "agent-1")
    assert (report.subject, report.public_key, report.kem_key) == (asked.subject, asked.public_key, asked.kem_key)
    assert (report.job_digest, report.nonce) == (asked.job_digest, asked.nonce)
    assert report.platform_ids == (PLATFORM[kind],)
    assert (report.appraised_at, report.expires_at, report.not_checked) == (NOW, NOW + 600, ())
    assert report.policy == policy(kind).digest()


def test_each_gpu_is_appraised_beside_the_processor_and_named() -> None:
    report = Trial(TWO_GPUS).result()
    assert report.platform_ids == (PLATFORM[CpuKind.SNP], gpu_id(""), gpu_id("second"))
    assert report.not_checked == ()


def test_a_host_may_show_more_gpus_than_the_policy_asks_for_if_they_are_enrolled() -> None:
    wanted = policy(CpuKind.SNP, ("", "second"), gpus=1)
    assert Trial(TWO_GPUS, policy=wanted).refusal() == "accepted"


def test_the_result_ends_when_the_policy_says() -> None:
    assert Trial(SNP, policy=policy(CpuKind.SNP, lifetime_s=30)).result().expires_at == NOW + 30


# --- bound to something else ----------------------------------------------------------------------------------------

OTHER = {
    "nonce": "11" * 32,
    "public_key": "22" * 32,
    "kem_key": "33" * 32,
    "subject": "hospital-b",
    "job_digest": "44" * 32,
    "role": Role.COORDINATOR,
}


@every_kind
@pytest.mark.parametrize("name", OTHER)
def test_evidence_about_another_nonce_key_subject_job_or_role_is_refused(kind: CpuKind, name: str) -> None:
    shown = binding(**{name: OTHER[name]})
    assert Trial(Host(kind), shown=shown).outcome() == ("report_data", INVALID)


@every_kind
def test_the_echo_is_looked_at_before_any_vendor_is_asked(kind: CpuKind) -> None:
    assert Trial(Host(kind), shown=binding(nonce="11" * 32), source=NoEndorsements()).refusal() == "report_data"
    assert Trial(Host(kind), source=NoEndorsements()).refusal() == "endorsements_missing"


def test_a_processor_beside_the_gpus_of_another_run_is_refused() -> None:
    host, context, earlier = Host(CpuKind.SNP, ("",)), binding().context(), binding(nonce="11" * 32).context()
    swapped = Evidence(cpu=host.produce(context).cpu, gpus=host.produce(earlier).gpus)
    assert Trial(host, evidence=swapped).outcome() == ("report_data", INVALID)


def test_gpus_of_another_run_are_refused_even_where_the_processor_covers_them() -> None:
    context, earlier = binding().context(), binding(nonce="11" * 32).context()
    gpus = (gpu_report(gpu_nonce(earlier)),)
    evidence = Evidence(cpu=cpu_report(CpuKind.SNP, report_data(context, gpus)), gpus=gpus)
    assert Trial(Host(CpuKind.SNP, ("",)), evidence=evidence).outcome() == ("nonce", INVALID)
    assert Trial(Host(CpuKind.SNP, ("",)), evidence=evidence, source=NoEndorsements()).refusal() == "nonce"


def test_gpus_put_beside_a_processor_that_was_alone_are_refused_and_so_are_gpus_left_out() -> None:
    with_gpu, context = Host(CpuKind.SNP, ("",)), binding().context()
    added = Evidence(cpu=SNP.produce(context).cpu, gpus=with_gpu.produce(context).gpus)
    removed = Evidence(cpu=with_gpu.produce(context).cpu)
    assert Trial(with_gpu, evidence=added).refusal() == "report_data"
    assert Trial(SNP, evidence=removed).refusal() == "report_data"


def test_gpus_in_another_order_are_refused() -> None:
    evidence = TWO_GPUS.produce(binding().context())
    turned = Evidence(cpu=evidence.cpu, gpus=evidence.gpus[::-1])
    assert Trial(TWO_GPUS, evidence=turned).refusal() == "report_data"


@pytest.mark.parametrize("name", ["nonce", "public_key", "kem_key", "job_digest"])
@pytest.mark.parametrize("text", ["", "ab" * 31, "AB" * 32, "not hex", "ab" * 33, " " * 64])
def test_a_binding_of_anything_but_32_byte_values_is_refused(name: str, text: str) -> None:
    evidence = SNP.produce(binding().context())
    with pytest.raises(AttestationError) as refused:
        Trial(SNP, asked=binding(**{name: text}), evidence=evidence).result()
    assert refused.value.reason is INVALID


@pytest.mark.parametrize("subject", ["", "../x", "a b", "x" * 200, "\ud800", "a\0"])
def test_a_subject_that_is_no_name_is_refused(subject: str) -> None:
    evidence = SNP.produce(binding().context())
    with pytest.raises(AttestationError, match="subject"):
        Trial(SNP, asked=binding(subject=subject), evidence=evidence).result()


# --- not authentic --------------------------------------------------------------------------------------------------


@every_kind
def test_a_flipped_bit_is_refused(kind: CpuKind) -> None:
    raw = bytearray(Host(kind).produce(binding().context()).cpu.report_bytes())
    raw[0x95 if kind is CpuKind.SNP else 48 + 70] ^= 1  # inside a measurement, which the signature covers
    evidence = Evidence(cpu=CpuReport(kind=kind, report=to_base64(bytes(raw))))
    assert Trial(Host(kind), evidence=evidence).outcome() == ("signature", INVALID)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("claimed", KINDS)
def test_a_report_that_poses_as_one_of_another_kind_is_refused(kind: CpuKind, claimed: CpuKind) -> None:
    if claimed is kind:
        return
    posing = replace_kind(Host(kind).produce(binding().context()), claimed)
    wanted = policy(claimed)
    refusal = Trial(Host(claimed), policy=wanted, evidence=posing).refusal()
    assert refusal in {"malformed", "wrong_kind", "oversized"}


def replace_kind(evidence: Evidence, kind: CpuKind) -> Evidence:
    return Evidence(cpu=CpuReport(kind=kind, report=evidence.cpu.report))


@every_kind
def test_the_product_believes_none_of_these_vendors(kind: CpuKind) -> None:
    """Everything is as the policy wants it, except that the roots are not those of the package."""
    evidence = Host(kind).produce(binding().context())
    with pytest.raises(AttestationError) as refused:
        Appraiser(policy(kind), Profile.PRODUCTION, source(kind)).appraise(evidence, binding(), NOW)
    assert getattr(refused.value, "refusal", None) == "chain"


def test_the_product_believes_no_gpu_of_these_vendors() -> None:
    host = Host(CpuKind.SNP, ("",))
    mixed = replace(verifiers(CpuKind.SNP), nvidia=PINNED.nvidia)
    appraiser = Appraiser(policy(CpuKind.SNP, ("",)), Profile.PRODUCTION, source(CpuKind.SNP), verifiers=mixed)
    with pytest.raises(AttestationError) as refused:
        appraiser.appraise(host.produce(binding().context()), binding(), NOW)
    assert getattr(refused.value, "refusal", None) == "chain"


# --- authentic, and not acceptable ----------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ({"kinds": []}, "kind_not_accepted"),
        ({"kinds": ["simulated"]}, "kind_not_accepted"),
        ({"reference_values": []}, "measurement"),
        ({"platforms": {}}, "platform_unknown"),
        ({"platforms": {SUBJECT: []}}, "platform_unknown"),
        ({"platforms": {SUBJECT: ["ab" * 64]}}, "platform_unknown"),
        ({"platforms": {"hospital-b": list(PLATFORM.values())}}, "platform_unknown"),
        ({"gpus": 1}, "gpus_missing"),
    ],
)
def test_a_policy_accepts_only_what_it_lists(kind: CpuKind, lines: dict[str, Any], code: str) -> None:
    assert Trial(Host(kind), policy=policy(kind, **lines)).outcome() == (code, UNACCEPTABLE)


@every_kind
def test_the_kind_of_another_policy_is_refused_before_anything_is_verified(kind: CpuKind) -> None:
    others = [other.value for other in KINDS if other is not kind]
    outcome = Trial(Host(kind), policy=policy(kind, kinds=others), source=NoEndorsements()).outcome()
    assert outcome == ("kind_not_accepted", UNACCEPTABLE)


def reference(name: str, kind: CpuKind, **changes: Any) -> dict[str, Any]:
    return {"name": name, "kind": kind.value, "measurements": MEASUREMENTS[kind], **changes}


@every_kind
def test_every_measurement_that_a_reference_value_names_has_to_agree(kind: CpuKind) -> None:
    for name, value in MEASUREMENTS[kind].items():
        other = f"{int(value[0], 16) ^ 1:x}{value[1:]}"
        wrong = reference("agent-1", kind, measurements={**MEASUREMENTS[kind], name: other})
        assert Trial(Host(kind), policy=policy(kind, reference_values=[wrong])).refusal() == "measurement"


@every_kind
def test_while_code_is_rolled_out_old_and_new_are_accepted_and_the_one_that_runs_is_named(kind: CpuKind) -> None:
    old = reference(
        "agent-0", kind, measurements={name: "0f" * (len(v) // 2) for name, v in MEASUREMENTS[kind].items()}
    )
    for values in ([old, reference("agent-1", kind)], [reference("agent-1", kind), old]):
        assert Trial(Host(kind), policy=policy(kind, reference_values=values)).result().measurement == "agent-1"


def test_a_reference_value_counts_until_the_end_of_its_last_day() -> None:
    today = datetime.fromtimestamp(NOW, UTC).date()
    midnight = int(datetime(today.year, today.month, today.day, tzinfo=UTC).timestamp())
    for day, moment, outcome in (
        (today, NOW, "accepted"),
        (today, midnight + 86_399, "accepted"),
        (today.replace(day=today.day - 1), midnight, "measurement"),
        (today.replace(day=today.day - 1), midnight - 1, "accepted"),
    ):
        wanted = policy(CpuKind.SNP, reference_values=[reference("agent-1", CpuKind.SNP, not_after=day.isoformat())])
        vendor = amd.Vendor()
        lists = (vendor.revocation_list(window=(NOW - 5 * 86_400, NOW + 5 * 86_400)),)
        endorsed = replace(source(CpuKind.SNP), chip=vendor.endorsements(lists=lists))
        assert Trial(SNP, policy=wanted, now=moment, source=endorsed).refusal() == outcome


def test_an_expired_value_does_not_stand_in_the_way_of_one_that_counts() -> None:
    gone = reference("agent-0", CpuKind.SNP, not_after="2020-01-01")
    wanted = policy(CpuKind.SNP, reference_values=[gone, reference("agent-1", CpuKind.SNP)])
    assert Trial(SNP, policy=wanted).result().measurement == "agent-1"


def test_a_reference_value_of_another_kind_does_not_count() -> None:
    wrong = {"name": "agent-1", "kind": "sgx", "measurements": {"mr_enclave": "aa" * 32}}
    assert Trial(SNP, policy=policy(CpuKind.SNP, reference_values=[wrong])).refusal() == "measurement"


def test_a_masked_machine_is_refused() -> None:
    """A VLEK signs for chips whose id the host masks; then nothing says which machine it is."""
    vendor = amd.Vendor(kind=amd.SigningKey.VLEK)
    data = report_data(binding().context(), ())
    raw = vendor.report(changes={0x50: data, 0x1A0: bytes(64)})
    evidence = Evidence(cpu=CpuReport(kind=CpuKind.SNP, report=to_base64(raw)))
    endorsed = replace(source(CpuKind.SNP), chip=vendor.endorsements(lists=(vendor.revocation_list(),)))
    for listed in (PLATFORM[CpuKind.SNP], "00" * 64):
        wanted = policy(CpuKind.SNP).model_copy(update={"platforms": {SUBJECT: (listed,)}})  # whatever was loaded
        outcome = Trial(SNP, policy=wanted, evidence=evidence, source=endorsed).outcome()
        assert outcome == ("platform_unknown", UNACCEPTABLE)


def test_a_machine_whose_identity_is_all_zero_is_nobodys() -> None:
    zero = intel_of("sgx").changed(pck_says=intel.Pck(ppid=bytes(16)))
    raw = zero.quote(intel.sgx_report(report_data=report_data(binding().context(), ())))
    evidence = Evidence(cpu=CpuReport(kind=CpuKind.SGX, report=to_base64(raw)))
    wanted = policy(CpuKind.SGX).model_copy(update={"platforms": {SUBJECT: ("00" * 16,)}})  # whatever was loaded
    assert Trial(Host(CpuKind.SGX), policy=wanted, evidence=evidence).refusal() == "platform_unknown"


# --- GPUs -----------------------------------------------------------------------------------------------------------


def test_fewer_gpus_than_the_policy_asks_for_are_refused() -> None:
    wanted = policy(CpuKind.SNP, ("", "second"))
    assert Trial(Host(CpuKind.SNP, ("",)), policy=wanted).outcome() == ("gpus_missing", UNACCEPTABLE)


def test_one_gpu_does_not_count_twice() -> None:
    host = Host(CpuKind.SNP, ("", ""))
    wanted = policy(CpuKind.SNP, ("",), gpus=2)
    assert Trial(host, policy=wanted).outcome() == ("duplicate_gpu", INVALID)


def test_a_gpu_that_the_subject_was_not_enrolled_with_is_refused() -> None:
    host = Host(CpuKind.SNP, ("", "stranger"))
    wanted = policy(CpuKind.SNP, ("",))
    assert Trial(host, policy=wanted).outcome() == ("platform_unknown", UNACCEPTABLE)


def test_gpus_are_refused_without_their_manifests_whatever_the_policy_says() -> None:
    host = Host(CpuKind.SNP, ("",))
    for manifests in ((), (nvidia.driver_manifest(),), (nvidia.vbios_manifest(),)):
        bare = replace(source(CpuKind.SNP), manifests=manifests)
        everything = [f"nvidia.{name}revocation" for name in ("", "driver_manifest_", "vbios_manifest_")]
        wanted = policy(CpuKind.SNP, ("",), accept_unchecked=everything)
        assert Trial(host, policy=wanted, source=bare).outcome() == ("unchecked", UNACCEPTABLE)


# --- unchecked ------------------------------------------------------------------------------------------------------


def test_revocation_that_was_not_checked_is_refused_unless_the_policy_names_it_and_then_the_result_says_so() -> None:
    vendor = amd.Vendor()
    bare = replace(source(CpuKind.SNP), chip=vendor.endorsements())
    assert Trial(SNP, source=bare).outcome() == ("unchecked", UNACCEPTABLE)
    lenient = policy(CpuKind.SNP, accept_unchecked=["snp.revocation"])
    assert Trial(SNP, policy=lenient, source=bare).result().not_checked == ("snp.revocation",)
    assert Trial(SNP, policy=lenient).result().not_checked == ()


def test_each_revocation_of_a_gpu_has_to_be_named() -> None:
    host, bare = Host(CpuKind.SNP, ("",)), replace(source(CpuKind.SNP), revocation=False)
    names = ["nvidia.revocation", "nvidia.driver_manifest_revocation", "nvidia.vbios_manifest_revocation"]
    for left_out in names:
        lenient = policy(CpuKind.SNP, ("",), accept_unchecked=[name for name in names if name != left_out])
        assert Trial(host, policy=lenient, source=bare).outcome() == ("unchecked", UNACCEPTABLE)
    lenient = policy(CpuKind.SNP, ("",), accept_unchecked=names)
    assert set(Trial(host, policy=lenient, source=bare).result().not_checked) == set(names)


def test_a_snp_platform_without_a_floor_for_its_tcb_is_refused() -> None:
    assert Trial(SNP, policy=policy(CpuKind.SNP, snp={})).outcome() == ("unchecked", UNACCEPTABLE)


@pytest.mark.parametrize(
    "name",
    ["measurements", "confidential_computing_mode", "developer_tools", "nvswitches", "firmware_identity", "nonce"],
)
def test_no_policy_can_even_say_that_a_gpu_need_not_be_checked(name: str) -> None:
    with pytest.raises(ValueError, match="accept_unchecked"):
        policy(CpuKind.SNP, accept_unchecked=[f"nvidia.{name}"])


@pytest.mark.parametrize(
    "name",
    [
        "snp.measurements",
        "snp.report_data",
        "snp.tcb_floor",
        "snp.platform_id",
        "sgx.measurements",
        "tdx.report_data",
        "revocation",
        "everything",
        "*",
    ],
)
def test_no_policy_can_even_say_that_a_processor_need_not_be_checked(name: str) -> None:
    with pytest.raises(ValueError, match="accept_unchecked"):
        AttestationPolicy.model_validate({"kinds": ["snp"], "accept_unchecked": [name]})


# --- time -----------------------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("moment", [0, NOW - 4000 * 86_400, NOW + 4000 * 86_400, (1 << 53) - 1000])
def test_nothing_counts_outside_the_windows_of_the_vendors(kind: CpuKind, moment: int) -> None:
    assert Trial(Host(kind), now=moment).outcome() == ("not_valid_now", INVALID)

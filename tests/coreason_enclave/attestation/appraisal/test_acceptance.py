"""One report against a policy, as the command line judges it, and as an appraisal does for each of a host's reports."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreason_enclave.attestation.appraisal import PINNED, appraise_report
from coreason_enclave.attestation.attestation_policy import AttestationPolicy, Unchecked
from coreason_enclave.attestation.endorsements import OfflineBundle
from coreason_enclave.attestation.endorsements.collateral import SnpAuthorities
from coreason_enclave.attestation.endorsements.requirements import collateral_of, key_certificates_of
from coreason_enclave.attestation.evidence import CpuKind, CpuReport, to_base64
from coreason_enclave.attestation.verify.dcap import DcapPlatformPolicy
from coreason_enclave.attestation.verify.nvidia import NvidiaEndorsements, NvidiaPlatformPolicy
from coreason_enclave.attestation.verify.snp import SigningKey, SnpEndorsements, SnpPlatformPolicy, parse_report
from coreason_enclave.attestation.verify.verdict import Authentic, VerificationRefused
from coreason_enclave.errors import Reason
from tests.coreason_enclave.attestation.appraisal.hosts import MEASUREMENTS, NOW, PLATFORM, SUBJECT, policy

RECORDED = Path(os.environ.get("AEGIS_EVIDENCE_DIR", "AEGIS_EVIDENCE_DIR is not set"))
recorded = [
    pytest.mark.recorded,
    pytest.mark.skipif(not os.environ.get("AEGIS_EVIDENCE_DIR"), reason="needs AEGIS_EVIDENCE_DIR"),
]


def verdict(
    kind: str = "snp",
    measurements: dict[str, str] = MEASUREMENTS[CpuKind.SNP],
    platform_id: str | None = PLATFORM[CpuKind.SNP],
    not_checked: tuple[str, ...] = ("measurements",),
) -> Authentic:
    return Authentic(kind, bytes(64), measurements, platform_id, {}, not_checked)


def refusal(authentic: Authentic, lines: AttestationPolicy, subject: str | None = SUBJECT, now: int = NOW) -> str:
    try:
        appraise_report(authentic, lines, subject=subject, now=now)
    except VerificationRefused as refused:
        return refused.refusal.value if refused.reason is Reason.ATTESTATION_UNACCEPTABLE else str(refused.reason)
    return "accepted"


def test_nothing_is_accepted_of_nobody_in_particular() -> None:
    assert refusal(verdict(), policy(CpuKind.SNP)) == "accepted"
    assert refusal(verdict(), policy(CpuKind.SNP), subject=None) == "platform_unknown"


@pytest.mark.parametrize("kind", list(MEASUREMENTS))
def test_a_kind_that_the_policy_does_not_list_is_refused_though_all_else_is_named(kind: CpuKind) -> None:
    found = verdict(kind.value, MEASUREMENTS[kind], PLATFORM[kind])
    assert refusal(found, policy(kind)) == "accepted"
    assert refusal(found, policy(kind, kinds=[])) == "kind_not_accepted"


def test_a_reference_value_is_for_evidence_of_its_own_kind() -> None:
    every = {name: value for measured in MEASUREMENTS.values() for name, value in measured.items()}
    of_sgx = {"name": "agent-1", "kind": "sgx", "measurements": MEASUREMENTS[CpuKind.SGX]}
    assert refusal(verdict("snp", every), policy(CpuKind.SNP, reference_values=[of_sgx])) == "measurement"


def test_a_report_that_was_held_against_no_challenge_is_refused() -> None:
    everything = policy(CpuKind.SNP, accept_unchecked=[name.value for name in Unchecked])
    assert refusal(verdict(not_checked=("report_data", "measurements")), everything) == "unchecked"


def test_measurements_of_a_gpu_that_met_no_manifest_are_refused_though_a_reference_value_would_match() -> None:
    lines = policy(CpuKind.SNP, platforms={SUBJECT: ["ab" * 32]}, kinds=["snp"])
    gpu = verdict("nvidia", MEASUREMENTS[CpuKind.SNP], "ab" * 32, ("measurements",))
    assert refusal(gpu, lines) == "unchecked"
    assert refusal(verdict("nvidia", {}, "ab" * 32, ()), lines) == "accepted"


def test_an_acceptance_says_what_was_accepted() -> None:
    lenient = policy(CpuKind.SNP, accept_unchecked=["snp.revocation"])
    accepted = appraise_report(verdict(not_checked=("revocation", "measurements")), lenient, subject=SUBJECT, now=NOW)
    assert (accepted.kind, accepted.measurement, accepted.platform_id) == ("snp", "agent-1", PLATFORM[CpuKind.SNP])
    assert accepted.not_checked == ("snp.revocation",)


MACHINES = [PLATFORM[CpuKind.SNP], PLATFORM[CpuKind.SGX], "ab" * 32, "00" * 64, None]
OPEN_ENDS = ["measurements", "report_data", "revocation", "tcb_floor", "platform_id", "nonce", "nvswitches"]


@given(
    kind=st.sampled_from(["sgx", "tdx", "snp", "nvidia"]),
    measured=st.sampled_from([*MEASUREMENTS.values(), {}]),
    machine=st.sampled_from(MACHINES),
    open_ends=st.sets(st.sampled_from(OPEN_ENDS)),
    kinds=st.sets(st.sampled_from(["sgx", "tdx", "snp", "simulated"])),
    references=st.sets(st.sampled_from(sorted(MEASUREMENTS))),
    enrolled=st.sets(st.sampled_from([machine for machine in MACHINES if machine])),
    unchecked=st.sets(st.sampled_from(list(Unchecked))),
    subject=st.sampled_from([SUBJECT, "hospital-b", None]),
)
def test_whatever_is_accepted_was_named_in_every_respect(
    kind: str,
    measured: dict[str, str],
    machine: str | None,
    open_ends: set[str],
    kinds: set[str],
    references: set[CpuKind],
    enrolled: set[str],
    unchecked: set[Unchecked],
    subject: str | None,
) -> None:
    lines = AttestationPolicy.model_validate(
        {
            "kinds": sorted(kinds),
            "reference_values": [
                {"name": k.value, "kind": k.value, "measurements": MEASUREMENTS[k]} for k in references
            ],
            "accept_unchecked": sorted(unchecked),
        }
    ).model_copy(update={"platforms": {SUBJECT: tuple(sorted(enrolled))}})  # ids of zeros, too, whatever was loaded
    may = subject == SUBJECT and machine in enrolled and machine is not None and machine.strip("0") != ""
    left = {f"{kind}.{name}" for name in open_ends}
    if kind != "nvidia":
        may = may and kind in kinds and kind in references and measured == MEASUREMENTS[CpuKind(kind)]
        left -= {f"{kind}.measurements"}
    may = may and left <= {name.value for name in unchecked}
    authentic = verdict(kind, measured, machine, tuple(sorted(open_ends)))
    assert (refusal(authentic, lines, subject) == "accepted") == may


# --- recorded ---


def bundled(folder: Path, contents: dict[str, bytes]) -> OfflineBundle:
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return OfflineBundle(folder)


class TestRecorded:
    """Real reports through a bundle under the pinned roots, and then against a policy made for them."""

    pytestmark = recorded

    @pytest.mark.parametrize(("line", "product"), [("milan", "Milan"), ("genoa", "Genoa")])
    def test_a_real_snp_report_is_accepted_where_everything_of_it_is_named(
        self, tmp_path: Path, line: str, product: str
    ) -> None:
        folder = RECORDED / "snp"
        raw = (folder / f"{line}_report.bin").read_bytes()
        parsed = parse_report(raw)
        (wanted,) = key_certificates_of(parsed)
        assert wanted.product.value == product
        (leaf,) = SnpEndorsements.from_files([(folder / f"{line}_vcek.pem").read_bytes()]).certificates
        chain = b"".join((folder / f"{line}_{name}.pem").read_bytes() for name in ("ask", "ark"))
        assert wanted.is_current(leaf, NOW)
        assert not wanted.is_current(leaf, 0)
        authorities = SnpAuthorities(wanted.product, SigningKey.VCEK)
        source = bundled(tmp_path, {wanted.name: leaf, authorities.name: chain})
        endorsements = source.snp(CpuReport(kind=CpuKind.SNP, report=to_base64(raw)), NOW)
        floor = {"boot_loader": 0, "tee": 0, "snp": 0, "microcode": 0}
        platform = SnpPlatformPolicy.model_validate({"tcb_floor": {product: floor}})
        found = PINNED.snp.verify(raw, endorsements, platform, NOW, report_data=parsed.report_data)
        reference = {"name": "real", "kind": "snp", "measurements": {"measurement": parsed.measurement.hex()}}
        lines = {"reference_values": [reference], "platforms": {SUBJECT: [parsed.chip_id.hex()]}}
        assert refusal(found, policy(CpuKind.SNP, **lines)) == "unchecked"
        assert refusal(found, policy(CpuKind.SNP, **lines, accept_unchecked=["snp.revocation"])) == "accepted"
        assert refusal(found, policy(CpuKind.SNP, accept_unchecked=["snp.revocation"])) == "measurement"

    def test_a_report_of_version_2_finds_its_line_by_its_certificate(self, tmp_path: Path) -> None:
        folder = RECORDED / "snp"
        raw = (folder / "milan_v2_report.bin").read_bytes()
        leaf = (folder / "milan_v2_vcek.der").read_bytes()
        wanted = next(key_certificates_of(parse_report(raw)))
        authorities = SnpAuthorities(wanted.product, SigningKey.VCEK)
        source = bundled(tmp_path, {authorities.name: (folder / "milan_ask_ark_bundle.pem").read_bytes()})
        brought = CpuReport(kind=CpuKind.SNP, report=to_base64(raw), certificates=(to_base64(leaf),))
        found = PINNED.snp.verify(raw, source.snp(brought, NOW), SnpPlatformPolicy(), NOW, report_data=None)
        assert found.claims["product"] == "Milan"

    def test_a_real_td_is_accepted_where_everything_of_it_is_named(self, tmp_path: Path) -> None:
        now = 1_751_624_191
        raw = (RECORDED / "tdx" / "quote_v4.bin").read_bytes()
        content = (RECORDED / "tdx" / "quote_v4_collateral.json").read_bytes()
        wanted = collateral_of(raw)
        assert wanted.is_current(content, now)
        assert not wanted.is_current(content, now + 10**8)
        source = bundled(tmp_path, {wanted.name: content})
        endorsements = source.dcap(CpuReport(kind=CpuKind.TDX, report=to_base64(raw)), now)
        platform = DcapPlatformPolicy(allow_dynamic_platform=True, allow_cached_keys=True, allow_smt=True)
        data = PINNED.dcap.verify("tdx", raw, endorsements, platform, now).report_data
        found = PINNED.dcap.verify("tdx", raw, endorsements, platform, now, report_data=data)
        named = {name: found.measurements[name] for name in ("mr_td", "rt_mr1", "rt_mr2")}
        reference = {"name": "real", "kind": "tdx", "measurements": named}
        lines = {"reference_values": [reference], "platforms": {SUBJECT: [found.platform_id]}}
        assert refusal(found, policy(CpuKind.TDX, **lines), now=now) == "accepted"
        assert refusal(found, policy(CpuKind.TDX), now=now) == "measurement"

    def test_collateral_of_another_platform_is_not_taken_for_this_ones(self) -> None:
        wanted = collateral_of((RECORDED / "tdx" / "quote_v4.bin").read_bytes())
        with pytest.raises(VerificationRefused):
            wanted.is_current((RECORDED / "sgx" / "collateral.json").read_bytes(), 1_751_624_191)

    def test_a_real_gpu_without_its_firmwares_manifest_is_refused(self) -> None:
        raw = (RECORDED / "nvidia" / "hopper_evidence.json").read_bytes()
        found = PINNED.nvidia.verify(raw, NvidiaEndorsements(), NvidiaPlatformPolicy(), NOW, nonce=None)
        lines = policy(
            CpuKind.SNP, platforms={SUBJECT: [found.platform_id]}, accept_unchecked=[name.value for name in Unchecked]
        )
        assert refusal(found, lines) == "unchecked"

    def test_a_real_vcek_is_taken_for_no_other_chips(self) -> None:
        (leaf,) = SnpEndorsements.from_files([(RECORDED / "snp" / "milan_vcek.pem").read_bytes()]).certificates
        (wanted,) = key_certificates_of(parse_report((RECORDED / "snp" / "genoa_report.bin").read_bytes()))
        with pytest.raises(VerificationRefused):
            wanted.is_current(leaf, NOW)

"""Hosts of our own vendors' make, each with what a relying party needs to accept it: nothing here is a fake verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from typing import Any

from coreason_enclave.attestation.appraisal import Appraiser, Verifiers
from coreason_enclave.attestation.attestation_policy import AttestationPolicy
from coreason_enclave.attestation.binding import Binding, Role, gpu_nonce, report_data
from coreason_enclave.attestation.evidence import CpuKind, CpuReport, Evidence, GpuReport, to_base64
from coreason_enclave.attestation.verify.dcap import DcapEndorsements
from coreason_enclave.attestation.verify.nvidia import NvidiaEndorsements, NvidiaRevocation
from coreason_enclave.attestation.verify.nvidia_chain import spki_sha256
from coreason_enclave.attestation.verify.snp import SnpEndorsements
from coreason_enclave.attestation.verify.verdict import VerificationRefused
from coreason_enclave.errors import Reason
from coreason_enclave.schemas import AttestationReport, Profile
from tests.coreason_enclave.attestation.dcap import hierarchy as intel
from tests.coreason_enclave.attestation.nvidia import hierarchy as nvidia
from tests.coreason_enclave.attestation.snp import hierarchy as amd

NOW = amd.NOW
SUBJECT = "hospital-a"
FLOOR = {"boot_loader": 3, "tee": 1, "snp": 9, "microcode": 211}


def binding(**changes: Any) -> Binding:
    """What the relying party asks about; the same for every host."""
    given = {name: sha256(name.encode()).hexdigest() for name in ("nonce", "public_key", "kem_key", "job_digest")}
    return Binding(**{"role": Role.SITE, "subject": SUBJECT, **given, **changes})


def _milan() -> amd.Vendor:
    return amd.Vendor()


@cache
def intel_of(kind: str) -> intel.Intel:
    """Our Intel, its collateral moved to the moment at which our AMD and NVIDIA are valid, too."""
    day = intel.DAY
    window = (NOW - day, NOW + 20 * day)
    return intel.Intel(kind=kind, tcb_window=window, qe_window=window, pck_crl_window=window, root_crl_window=window)


def gpu_id(who: str = "") -> str:
    """The device identity of the GPU called ``who``."""
    return spki_sha256(nvidia.chain(who)[1], "a boot ROM")


@dataclass(frozen=True)
class Vendors:
    """An endorsement source that has everything; a field set to None is missing from it."""

    collateral: DcapEndorsements | None = None
    chip: SnpEndorsements | None = None
    manifests: tuple[bytes, ...] = ()
    revocation: bool = True

    def dcap(self, report: CpuReport, now: int) -> DcapEndorsements:
        return self.collateral or DcapEndorsements()

    def snp(self, report: CpuReport, now: int) -> SnpEndorsements:
        return self.chip or SnpEndorsements(())

    def nvidia(self, gpus: Sequence[GpuReport], now: int) -> tuple[NvidiaEndorsements, ...]:
        return tuple(self._gpu(gpu) for gpu in gpus)

    def _gpu(self, gpu: GpuReport) -> NvidiaEndorsements:
        who = next((name for name in WHO if nvidia.pem(nvidia.chain(name)) == gpu.chain_bytes()), "")
        return NvidiaEndorsements(manifests=self.manifests, revocation=_answers(who) if self.revocation else None)


WHO = ("", "second", "stranger")


@cache
def _answers(who: str) -> NvidiaRevocation:
    answers = (*nvidia.device_answers(who), *nvidia.manifest_answers())
    return NvidiaRevocation.of_responses(*(answer.der() for answer in answers))


@cache
def vendors() -> Vendors:
    vendor = _milan()
    return Vendors(
        chip=vendor.endorsements(lists=(vendor.revocation_list(),)),
        manifests=(nvidia.driver_manifest(), nvidia.vbios_manifest()),
    )


def source(kind: CpuKind) -> Vendors:
    """Everything about the host of this kind."""
    if kind is CpuKind.SNP:
        return vendors()
    return replace(vendors(), collateral=_collateral(kind.value))


@cache
def _collateral(kind: str) -> DcapEndorsements:
    return intel_of(kind).endorsements()


@cache
def verifiers(kind: CpuKind) -> Verifiers:
    """Under the roots of our own vendors."""
    dcap = intel_of("sgx" if kind is CpuKind.SNP else kind.value).verifier
    return Verifiers(snp=amd.verifier(), dcap=dcap, nvidia=nvidia.verifier())


def cpu_report(kind: CpuKind, data: bytes) -> CpuReport:
    """A genuine report of our own processor over ``data``."""
    if kind is CpuKind.SNP:
        raw = _milan().report(changes={0x50: data})
    else:
        body = intel.sgx_report(report_data=data) if kind is CpuKind.SGX else intel.td_report(report_data=data)
        raw = intel_of(kind.value).quote(body)
    return CpuReport(kind=kind, report=to_base64(raw))


def gpu_report(nonce: bytes, who: str = "") -> GpuReport:
    """A genuine report of the GPU called ``who``."""
    return GpuReport(
        arch="HOPPER",
        report=to_base64(nvidia.report(nonce, who=who)),
        certificate_chain=to_base64(nvidia.pem(nvidia.chain(who))),
    )


@dataclass(frozen=True)
class Host:
    """A host that proves itself, its GPUs by name."""

    kind: CpuKind
    gpus: tuple[str, ...] = ()

    def produce(self, context: bytes) -> Evidence:
        """What its attester would."""
        gpus = tuple(gpu_report(gpu_nonce(context), who) for who in self.gpus)
        return Evidence(cpu=cpu_report(self.kind, report_data(context, gpus)), gpus=gpus)


MEASUREMENTS = {
    CpuKind.SNP: {"measurement": "aa" * 48},
    CpuKind.SGX: {"mr_enclave": sha256(b"enclave").hexdigest()},
    CpuKind.TDX: {
        name: (sha256(key).digest() + bytes(16)).hex()
        for name, key in (("mr_td", b"td"), ("rt_mr1", b"1"), ("rt_mr2", b"2"))
    },
}
PLATFORM = {
    CpuKind.SNP: amd.CHIP[amd.SnpProduct.MILAN].hex(),
    CpuKind.SGX: bytes(range(16)).hex(),
    CpuKind.TDX: bytes(range(16)).hex(),
}
KINDS = (CpuKind.SGX, CpuKind.TDX, CpuKind.SNP)


def policy(kind: CpuKind, enrolled: Sequence[str] = (), /, **changes: Any) -> AttestationPolicy:
    """What accepts the :class:`Host` of this kind with these GPUs, and nothing more."""
    lines = {
        "kinds": [kind.value],
        "gpus": len(enrolled),
        "snp": {"tcb_floor": {"Milan": FLOOR}},
        "reference_values": [{"name": "agent-1", "kind": kind.value, "measurements": MEASUREMENTS[kind]}],
        "platforms": {SUBJECT: [PLATFORM[kind], *(gpu_id(who) for who in enrolled)]},
        **changes,
    }
    return AttestationPolicy.model_validate(lines)


@dataclass(frozen=True)
class Trial:
    """One appraisal; every field stands for what one attack or one line of policy changes."""

    host: Host
    policy: AttestationPolicy | None = None
    asked: Binding = field(default_factory=binding)
    shown: Binding | None = None
    source: Any = None
    profile: Profile = Profile.PRODUCTION
    now: int = NOW
    evidence: Evidence | None = None

    def result(self) -> AttestationReport:
        """The report, or what the appraiser raises."""
        kind = self.host.kind
        appraiser = Appraiser(
            self.policy or policy(kind, self.host.gpus),
            self.profile,
            source(kind) if self.source is None else self.source,
            verifiers=verifiers(kind),
        )
        evidence = self.evidence or self.host.produce((self.shown or self.asked).context())
        return appraiser.appraise(evidence, self.asked, self.now)

    def outcome(self) -> tuple[str, Reason | None]:
        """``accepted``, or the code and the reason with which it was refused."""
        try:
            self.result()
        except VerificationRefused as refused:
            return refused.refusal.value, refused.reason
        return "accepted", None

    def refusal(self) -> str:
        """The code alone."""
        return self.outcome()[0]

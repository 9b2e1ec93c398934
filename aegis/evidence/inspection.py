"""``inspect``: describes a file of evidence without verifying any of its content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aegis.evidence.evidence_files import read_evidence
from aegis.evidence.evidence_kind import EvidenceKind
from coreason_enclave.attestation import IDENTIFYING, CpuKind, Evidence
from coreason_enclave.attestation.verify import Refusal, VerificationRefused, refusing
from coreason_enclave.attestation.verify.dcap import measurements_of as measured_by_quote
from coreason_enclave.attestation.verify.dcap import parse_quote
from coreason_enclave.attestation.verify.nvidia import NvidiaEvidence, parse_nvidia_evidence
from coreason_enclave.attestation.verify.nvidia import parse_report as parse_gpu_report
from coreason_enclave.attestation.verify.snp import (
    GUEST_POLICY_BITS,
    PLATFORM_BITS,
    REPORT_BYTES,
    bits_set,
    parse_report,
)
from coreason_enclave.attestation.verify.snp import measurements_of as measured_by_report

_QUOTES: Mapping[bytes, EvidenceKind] = {bytes(4): EvidenceKind.SGX, bytes.fromhex("81000000"): EvidenceKind.TDX}
_ECDSA_P256_KEY = bytes.fromhex("0200")
_SPDM_REQUEST = bytes.fromhex("11e0")


@dataclass(frozen=True)
class Inspection:
    """The description that evidence gives of itself. The author of the file chose every word.

    Attributes:
        what: description in words.
        kind: ``sgx``, ``tdx``, ``snp``, ``nvidia`` or ``simulated``.
        report_data: the data covered by the report, hex.
        measurements: hex by name, with the names of ``aegis evidence verify``.
        says: further fields of interest (JSON types).
        gpus: one entry for each GPU's report, if the file holds several reports or a host's evidence.
    """

    what: str
    kind: str
    report_data: str | None = None
    says: Mapping[str, object] = field(default_factory=dict)
    measurements: Mapping[str, str] = field(default_factory=dict)
    gpus: tuple[Inspection, ...] = ()

    def document(self) -> dict[str, object]:
        """Return JSON types; ``verified`` always holds false."""
        return {"verified": False, **vars(self), "gpus": [gpu.document() for gpu in self.gpus]}


def inspect(content: bytes) -> Inspection:
    """Describe a file of evidence.

    Raises:
        VerificationRefused: the content has no known form of evidence.
    """
    evidence = read_evidence(content)
    if isinstance(evidence, Evidence):
        return _host(evidence)
    return _READERS[_kind_of(evidence)](evidence)


def reference_values(inspection: Inspection) -> str:
    """Return the ``[[attestation.reference_values]]`` (TOML) of a policy that accepts this code.

    Raises:
        VerificationRefused: ``wrong_kind``: evidence of this kind has no reference values.
    """
    if inspection.kind not in {kind.value for kind in IDENTIFYING}:
        message = f"evidence of kind {inspection.kind} has no reference values, because no processor measured code"
        raise VerificationRefused(Refusal.WRONG_KIND, message)
    names = sorted(IDENTIFYING[CpuKind(inspection.kind)])
    others = [name for name in inspection.measurements if name not in names]
    lines = [
        *_warnings(inspection, names),
        "[[attestation.reference_values]]",
        f'name = "{inspection.kind}-{inspection.measurements[names[0]][:16]}"',
        f'kind = "{inspection.kind}"',
        "[attestation.reference_values.measurements]",
        *(_line(name, inspection.measurements[name]) for name in names),
        "# Also measured; remove the # from every register that has to match as well:",
        *(f'# {name} = "{inspection.measurements[name]}"' for name in others),
    ]
    return "\n".join(lines)


def _warnings(inspection: Inspection, names: Sequence[str]) -> list[str]:
    empty = [name for name in names if not inspection.measurements[name].strip("0")]
    if not empty:
        return []
    return [
        f"# WARNING: {', '.join(empty)} all zeros: this host measured no code there. A policy with zeros accepts",
        "# any code on another such host: none is proposed here, and none can be loaded. Use a measured image.",
    ]


def _line(name: str, value: str) -> str:
    return f'{name} = "{value}"' if value.strip("0") else f'# {name} = "" # zeros: no code was measured'


def _kind_of(content: bytes) -> EvidenceKind:
    """Return the kind, recognised by the first bytes of each form."""
    if (
        content.lstrip()[:1] == b"["
        or content[:2] == _SPDM_REQUEST
        or content[:4].lower() == _SPDM_REQUEST.hex().encode()
    ):
        return EvidenceKind.NVIDIA
    if content[2:4] == _ECDSA_P256_KEY and content[4:8] in _QUOTES:
        return _QUOTES[content[4:8]]
    if len(content) == REPORT_BYTES and content[1:4] == bytes(3):
        return EvidenceKind.SNP
    if content.lstrip().startswith((b"-----BEGIN", b"<", b"\x30")):
        message = "not evidence, but apparently an endorsement: give it to `aegis evidence verify` with --endorsements"
        raise VerificationRefused(Refusal.WRONG_KIND, message)
    message = "neither an SGX or TDX quote, a SEV-SNP report, an H100's report or list of them, nor a host's evidence"
    raise VerificationRefused(Refusal.MALFORMED, message)


def _quote(content: bytes) -> Inspection:
    quote = parse_quote(content)
    return Inspection(
        what=f"{quote.kind.upper()} quote, version {quote.version}",
        kind=quote.kind,
        report_data=quote.report_data.hex(),
        measurements=measured_by_quote(quote),
        says={
            name: quote.fields[name].hex()
            for name in ("cpu_svn", "tee_tcb_svn", "tee_tcb_svn2")
            if name in quote.fields
        },
    )


def _snp(content: bytes) -> Inspection:
    report = parse_report(content)
    return Inspection(
        what=f"SEV-SNP report, version {report.version}",
        kind=EvidenceKind.SNP,
        report_data=report.report_data.hex(),
        measurements=measured_by_report(report),
        says={
            "chip_id": report.chip_id.hex(),
            "signing_key": report.signing_key.value,
            "vmpl": report.vmpl,
            "guest_svn": report.guest_svn,
            "guest_policy": bits_set(report.policy, GUEST_POLICY_BITS),
            "platform": bits_set(report.platform_info, PLATFORM_BITS),
            "firmware": report.firmware,
            "tcb": {name: raw.hex() for name, raw in report.raw_tcbs.items()},
        },
    )


def _nvidia(content: bytes) -> Inspection:
    gpus = tuple(_gpu(gpu) for gpu in parse_nvidia_evidence(content))
    if len(gpus) == 1:
        return gpus[0]
    return Inspection(what=f"evidence of {len(gpus)} GPUs", kind=EvidenceKind.NVIDIA, gpus=gpus)


def _gpu(evidence: NvidiaEvidence) -> Inspection:
    report = parse_gpu_report(evidence.report)
    opaque = report.opaque
    with refusing(Refusal.MALFORMED, "a GPU's certificates"):
        names = [one.subject.rfc4514_string() for one in evidence.chain or ()]
    return Inspection(
        what="SPDM measurement report of a GPU",
        kind=EvidenceKind.NVIDIA,
        report_data=report.nonce.hex(),
        measurements={f"measurement_{n:02d}": value.hex() for n, value in enumerate(report.measurements)},
        says={
            "driver_version": opaque.driver_version,
            "vbios_version": opaque.vbios_version,
            "mode": opaque.mode.value if opaque.mode else None,
            "certificates": names,
        },
    )


def _host(evidence: Evidence) -> Inspection:
    """Describe a host's evidence: its processor's report, and its GPUs'."""
    gpus = tuple(_gpu(NvidiaEvidence.of(gpu)) for gpu in evidence.gpus)
    gpu_summary = f"{len(gpus)} GPUs" if gpus else "without GPUs"
    if evidence.kind in (CpuKind.SIMULATED, CpuKind.UNATTESTED):
        return Inspection(
            what=f"{evidence.kind.upper()} evidence proves nothing; {gpu_summary}", kind=evidence.kind.value, gpus=gpus
        )
    report = evidence.cpu.report_bytes()
    cpu = _READERS[EvidenceKind(evidence.kind.value)](report)
    if cpu.kind != evidence.kind.value:
        raise VerificationRefused(Refusal.MALFORMED, f"a report of kind {cpu.kind} in evidence of kind {evidence.kind}")
    return Inspection(
        what=f"a host's evidence: {cpu.what}, and {gpu_summary}",
        kind=cpu.kind,
        report_data=cpu.report_data,
        measurements=cpu.measurements,
        says={**cpu.says, "certificates_handed_over": len(evidence.cpu.certificates)},
        gpus=gpus,
    )


_READERS = {EvidenceKind.SGX: _quote, EvidenceKind.TDX: _quote, EvidenceKind.SNP: _snp, EvidenceKind.NVIDIA: _nvidia}

"""Run the checks of a SEV-SNP report in order, and describe an accepted report."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from coreason_enclave.attestation.verify.snp.certificates import KeyClaims, read_key_claims
from coreason_enclave.attestation.verify.snp.chain import Chain, Root, check_not_revoked, verify_chain
from coreason_enclave.attestation.verify.snp.endorsements import SnpEndorsements
from coreason_enclave.attestation.verify.snp.guest_policy import SnpPlatformPolicy, check_guest, check_tcb
from coreason_enclave.attestation.verify.snp.products import LINES, SnpProduct, SnpTcb, decode_tcb
from coreason_enclave.attestation.verify.snp.report import (
    GUEST_POLICY_BITS,
    PLATFORM_BITS,
    SigningKey,
    SnpReport,
    bits_set,
    parse_report,
)
from coreason_enclave.attestation.verify.snp.roots import load_pinned_roots
from coreason_enclave.attestation.verify.verdict import Authentic, Refusal, VerificationRefused

_MASKED = bytes(64)


class SnpVerifier:
    """A verifier under the given roots. The product uses :data:`PINNED` alone; tests bring their own."""

    def __init__(self, roots: Mapping[SnpProduct, Root]) -> None:
        self._roots = dict(roots)

    def verify(
        self,
        evidence: bytes | SnpReport,
        endorsements: SnpEndorsements,
        policy: SnpPlatformPolicy,
        now: int,
        *,
        report_data: bytes | None,
    ) -> Authentic:
        """Verify an attestation report (AMD 56860) up to AMD's pinned roots.

        Order of the checks:

        1. Size, format and report data.
        2. Chain, signature, same chip and revocation.
        3. TCB floor.
        4. Debug, migration, VMPL, signing key and platform bits.

        Args:
            evidence: The raw 1184-byte report. A parsed report is accepted, and parsed again from its bytes.
            endorsements: Certificates of VCEK or VLEK and of its ASK or ASVK; optionally the ARK and revocation lists.
            now: Unix seconds.
            report_data: The 64 bytes that the relying party computed itself. None skips the comparison and adds
                ``report_data`` to ``not_checked``.

        Raises:
            VerificationRefused: Carries the code of the first failed check.
        """
        report = parse_report(evidence.raw if isinstance(evidence, SnpReport) else evidence)
        if report_data is not None and not hmac.compare_digest(report.report_data, report_data):
            raise VerificationRefused(Refusal.REPORT_DATA, "the report covers other data than requested")
        chain = verify_chain(self._roots, endorsements, report.signing_key, now)
        _check_signature(report, chain)
        key = _check_same_platform(report, chain)
        check_not_revoked(chain, endorsements.revocation_lists, now)
        tcbs = {name: decode_tcb(chain.product, raw) for name, raw in report.raw_tcbs.items()}
        check_tcb(policy, chain.product, tcbs)
        check_guest(policy, report)
        return Authentic(
            kind="snp",
            report_data=report.report_data,
            measurements=measurements_of(report),
            platform_id=None if report.chip_id == _MASKED else report.chip_id.hex(),
            claims=_claims(report, chain, key, tcbs),
            not_checked=_not_checked(report, chain.product, endorsements, policy, report_data),
        )


PINNED = SnpVerifier(load_pinned_roots())
verify_snp = PINNED.verify
"""Verify a report up to AMD's pinned roots: see :meth:`SnpVerifier.verify`."""


def _check_signature(report: SnpReport, chain: Chain) -> None:
    try:
        chain.leaf_key.verify(report.signature(), report.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature as error:
        raise VerificationRefused(Refusal.SIGNATURE, f"report altered or not signed by {report.signing_key}") from error


def _check_same_platform(report: SnpReport, chain: Chain) -> KeyClaims:
    """Check that product, TCB and chip in the certificate match the report."""
    key = read_key_claims(chain.leaf, chain.product)
    line = LINES[chain.product]
    if not line.has_name(key.product_name) or (report.cpuid and not line.has_cpu(*report.cpuid[:2])):
        raise _mismatch(f"of {key.product_name!r} under the root of {chain.product}, the report of CPU {report.cpuid}")
    if key.tcb != report.raw_tcbs["reported"]:
        raise _mismatch(f"for TCB {key.tcb.hex()}, the report states {report.raw_tcbs['reported'].hex()}")
    if report.signing_key is SigningKey.VCEK:
        if key.chip_id is None or key.provider is not None or report.chip_id == _MASKED:
            raise _mismatch("for no chip, or the host masks the chip id, so that the chip is unknown")
        if key.chip_id != report.chip_id:
            raise _mismatch("for another chip")
    elif key.chip_id is not None or not key.provider:
        raise _mismatch("for no cloud provider")
    return key


def _mismatch(what: str) -> VerificationRefused:
    return VerificationRefused(Refusal.ENDORSEMENTS_MISMATCH, f"the key's certificate is {what}")


MEASURED_BYTES = {"measurement": 48, "host_data": 32, "id_key_digest": 48, "author_key_digest": 48}
"""Names in the result of :func:`measurements_of`, and the size of each value in bytes."""


def measurements_of(report: SnpReport) -> dict[str, str]:
    """Return the measurements in a report, verified or not, as hex by name."""
    values = {
        "measurement": report.measurement,
        "host_data": report.host_data,
        "id_key_digest": report.id_key_digest,
        "author_key_digest": report.author_key_digest,
    }
    return {name: value.hex() for name, value in values.items()}


def _claims(report: SnpReport, chain: Chain, key: KeyClaims, tcbs: dict[str, SnpTcb]) -> dict[str, object]:
    return {
        "report_version": report.version,
        "product": chain.product.value,
        "product_name": key.product_name,
        "cpuid": None
        if report.cpuid is None
        else dict(zip(("family", "model", "stepping"), report.cpuid, strict=True)),
        "signing_key": report.signing_key.value,
        "cloud_provider": key.provider,
        "certificate_expires_at": min(one.not_after for one in (chain.leaf, chain.authority, chain.root)),
        "vmpl": report.vmpl,
        "guest_svn": report.guest_svn,
        "guest_policy": bits_set(report.policy, GUEST_POLICY_BITS),
        "guest_abi": f"{report.policy >> 8 & 0xFF}.{report.policy & 0xFF}",
        "platform": bits_set(report.platform_info, PLATFORM_BITS),
        "firmware": report.firmware,
        "tcb": {name: tcb.as_claim() for name, tcb in tcbs.items()},
        "mitigations": None if report.mitigations is None else [f"{vector:016x}" for vector in report.mitigations],
        "author_key": report.author_key,
        "family_id": report.family_id.hex(),
        "image_id": report.image_id.hex(),
        "report_id": report.report_id.hex(),
    }


def _not_checked(
    report: SnpReport,
    product: SnpProduct,
    endorsements: SnpEndorsements,
    policy: SnpPlatformPolicy,
    report_data: bytes | None,
) -> tuple[str, ...]:
    left_out = {
        "report_data": report_data is None,
        "revocation": not endorsements.revocation_lists,
        "tcb_floor": product not in policy.tcb_floor,
        "platform_id": report.chip_id == _MASKED,
        "measurements": True,
    }
    return tuple(name for name, is_left_out in left_out.items() if is_left_out)

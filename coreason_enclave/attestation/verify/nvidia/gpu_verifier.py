"""Run the checks of GPU evidence in order. Pure: bytes, endorsements, policy and ``now`` in; a verdict out."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from coreason_enclave.attestation.verify.nvidia.endorsements import NvidiaEndorsements
from coreason_enclave.attestation.verify.nvidia.gpu_evidence import NvidiaEvidence, parse_nvidia_evidence
from coreason_enclave.attestation.verify.nvidia.gpu_policy import NvidiaPlatformPolicy
from coreason_enclave.attestation.verify.nvidia.identity import (
    CHAIN_LENGTH,
    DeviceIdentity,
    check_firmware_identity,
    device_identity,
)
from coreason_enclave.attestation.verify.nvidia.opaque import Field, GpuMode
from coreason_enclave.attestation.verify.nvidia.reference import DRIVER, VBIOS, assign, compare
from coreason_enclave.attestation.verify.nvidia.roots import NvidiaRoots, pinned_roots
from coreason_enclave.attestation.verify.nvidia.spdm import MeasurementReport, parse_report
from coreason_enclave.attestation.verify.nvidia_chain import Chain, load_pem_chain, public_key, verify_path
from coreason_enclave.attestation.verify.verdict import Authentic, Refusal, VerificationRefused
from coreason_enclave.system import unix_seconds

if TYPE_CHECKING:
    from coreason_enclave.attestation.verify.rim import Manifest

_NONCE_BYTES = 32
_MAX_MANIFESTS = 2
_WORDS = {
    "chip_sku_mod": Field.CHIP_SKU_MOD,
    "chip_sku": Field.CHIP_SKU,
    "project": Field.PROJECT,
    "project_sku": Field.PROJECT_SKU,
    "project_sku_mod": Field.PROJECT_SKU_MOD,
}


@dataclass(frozen=True)
class NvidiaVerifier:
    """A verifier under the given roots. The product uses the pinned roots only; tests make their own."""

    roots: NvidiaRoots

    def verify(
        self,
        evidence: bytes | NvidiaEvidence,
        endorsements: NvidiaEndorsements,
        policy: NvidiaPlatformPolicy,
        now: int,
        *,
        nonce: bytes | None,
    ) -> Authentic:
        """Verify the evidence of exactly one GPU.

        Args:
            now: Unix seconds.
            nonce: The 32 bytes that the verifier chose. None skips the comparison and adds ``nonce`` to
                ``not_checked``.

        Raises:
            VerificationRefused: Carries the code of the first failed check.
        """
        reports = parse_nvidia_evidence(evidence) if isinstance(evidence, bytes) else (evidence,)
        if len(reports) != 1:
            raise VerificationRefused(Refusal.MALFORMED, f"the evidence has {len(reports)} GPUs instead of one")
        return _Verification(self.roots, reports[0], endorsements, policy, now).run(nonce)

    def verify_all(
        self,
        evidence: bytes,
        endorsements: NvidiaEndorsements,
        policy: NvidiaPlatformPolicy,
        now: int,
        *,
        nonce: bytes | None,
    ) -> tuple[Authentic, ...]:
        """Verify the evidence of every GPU in a list, each a different device; raises :class:`VerificationRefused`."""
        reports = parse_nvidia_evidence(evidence)
        verdicts = tuple(_Verification(self.roots, one, endorsements, policy, now).run(nonce) for one in reports)
        if len({verdict.platform_id for verdict in verdicts}) != len(verdicts):
            raise VerificationRefused(Refusal.PLATFORM, "one GPU is in the list more than once")
        return verdicts


@dataclass(frozen=True)
class _Verification:
    """A single run over one GPU's evidence."""

    roots: NvidiaRoots
    evidence: NvidiaEvidence
    endorsements: NvidiaEndorsements
    policy: NvidiaPlatformPolicy
    now: int

    def run(self, nonce: bytes | None) -> Authentic:
        report = parse_report(self.evidence.report)
        _check_nonce(report, nonce, self.evidence.stated_nonce)
        chain = self._chain()
        verify_path(chain, self.roots.devices, self.now, "a GPU")
        identity = device_identity(chain)
        _check_signature(report, chain)
        certified = check_firmware_identity(chain, report.opaque.firmware_identity)
        unchecked = [*self._revocation("revocation", chain, first=1, what="a GPU")]
        self.policy.check(report.opaque)
        manifests = self._manifests(report, identity)
        compared = compare(report, manifests)
        unchecked += [name for name, is_open in _open_ends(report, manifests, nonce).items() if is_open]
        for kind, manifest in manifests.items():
            unchecked += self._revocation(
                f"{kind}_manifest_revocation", manifest.chain, first=0, what=f"the {kind} manifest"
            )
        return Authentic(
            kind="nvidia",
            report_data=report.nonce,
            measurements={f"measurement_{n:02d}": value.hex() for n, value in enumerate(report.measurements)},
            platform_id=identity.device,
            claims={
                **_claims(report, identity, certified),
                "manifests": {kind: _about(manifest) for kind, manifest in manifests.items()},
                "measurements_compared": list(compared),
            },
            not_checked=tuple(unchecked),
        )

    def _chain(self) -> Chain:
        chains = [self.evidence.chain] if self.evidence.chain else []
        if self.endorsements.chain is not None:
            chains.append(load_pem_chain(self.endorsements.chain, "a GPU's chain"))
        if not chains:
            raise VerificationRefused(Refusal.ENDORSEMENTS_MISSING, "the GPU's certificate chain is missing")
        if len({tuple(c.public_bytes(Encoding.DER) for c in chain) for chain in chains}) != 1:
            raise VerificationRefused(Refusal.ENDORSEMENTS_MISMATCH, "the endorsed chain is not the evidence's chain")
        if len(chains[0]) != CHAIN_LENGTH:
            message = f"a GPU's chain must have {CHAIN_LENGTH} certificates, not {len(chains[0])}"
            raise VerificationRefused(Refusal.CHAIN, message)
        return chains[0]

    def _revocation(self, name: str, chain: Chain, *, first: int, what: str) -> Sequence[str]:
        """Return ``name`` if revocation stays open.

        ``first``: index of the first certificate that the vendor answers for. A GPU's own boot ROM makes the leaf.
        """
        result = self.endorsements.revocation
        open_ends = True if result is None else result.check(chain, first, self.now, what)
        return [name] if open_ends else []

    def _manifests(self, report: MeasurementReport, identity: DeviceIdentity) -> dict[str, Manifest]:
        manifests = self.endorsements.manifests
        if not manifests:
            return {}
        if len(manifests) > _MAX_MANIFESTS:
            message = f"{len(manifests)} manifests; a GPU has at most {_MAX_MANIFESTS}"
            raise VerificationRefused(Refusal.ENDORSEMENTS_MISMATCH, message)
        try:
            from coreason_enclave.attestation.verify.rim import verify_manifest_under
        except ImportError as error:
            message = f"reading manifests needs {error.name}: install the extra 'attestation'"
            raise VerificationRefused(Refusal.LIBRARY_MISSING, message) from error
        verified = [verify_manifest_under(self.roots.manifests, manifest, self.now) for manifest in manifests]
        return assign(verified, report, identity.product)


def _check_nonce(report: MeasurementReport, nonce: bytes | None, stated: bytes | None) -> None:
    for expected, whose in ((nonce, "that was sent"), (stated, "that the evidence itself states")):
        if expected is not None and not (len(expected) == _NONCE_BYTES and hmac.compare_digest(expected, report.nonce)):
            raise VerificationRefused(Refusal.NONCE, f"the report covers another nonce than the nonce {whose}")


def _check_signature(report: MeasurementReport, chain: Chain) -> None:
    half = len(report.signature) // 2
    r, s = (int.from_bytes(part, "big") for part in (report.signature[:half], report.signature[half:]))
    key = public_key(chain[0], "the GPU's certificate")
    try:
        key.verify(encode_dss_signature(r, s), report.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        message = "the report is not signed by the key of the GPU's certificate"
        raise VerificationRefused(Refusal.SIGNATURE, message) from None


def _open_ends(report: MeasurementReport, manifests: dict[str, Manifest], nonce: bytes | None) -> dict[str, bool]:
    """Return, by name, True for each open check."""
    unmeasured = manifests.keys() != {DRIVER, VBIOS}
    return {
        "nonce": nonce is None,
        "firmware_identity": report.opaque.firmware_identity is None,
        "measurements": unmeasured,
        "confidential_computing_mode": unmeasured,
        "developer_tools": unmeasured,
        "nvswitches": report.opaque.mode is GpuMode.PROTECTED_PCIE,
    }


def _claims(report: MeasurementReport, identity: DeviceIdentity, certified: bytes) -> dict[str, object]:
    opaque = report.opaque
    return {
        "product": identity.product,
        "pdi": identity.pdi,
        "driver_version": opaque.driver_version,
        "vbios_version": opaque.vbios_version,
        "mode": opaque.mode.value if opaque.mode else None,
        "firmware_identity": certified.hex(),
        **{name: opaque.text(number) for name, number in _WORDS.items()},
        "board_id": opaque.fields.get(Field.BOARD_ID, b"").hex() or None,
    }


def _about(manifest: Manifest) -> dict[str, object]:
    return {
        "version": manifest.version,
        "tag_id": manifest.tag_id,
        "valid_until": unix_seconds(min(c.not_valid_after_utc for c in manifest.chain)),
    }


_PINNED = NvidiaVerifier(pinned_roots())
verify_nvidia = _PINNED.verify
"""Verify the evidence of one GPU under NVIDIA's pinned roots: see :meth:`NvidiaVerifier.verify`."""
verify_nvidia_list = _PINNED.verify_all
"""Verify the evidence of several GPUs under NVIDIA's pinned roots: see :meth:`NvidiaVerifier.verify_all`."""

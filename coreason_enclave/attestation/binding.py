"""Bind evidence to the verifier's nonce, the attester's two public keys, its name and role, and the job.

Evidence over this context resists four attacks:

- replay for another challenge;
- transfer to another host;
- pairing with another key;
- reflection by the other party.

The attester asks the GPUs first. The processor's report then covers the GPU reports, so an attacker cannot combine one
host's GPUs with another host's processor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from coreason_enclave.attestation.evidence import CpuKind, GpuReport, gpu_list
from coreason_enclave.crypto import canonical_json, frame

_VERSION = b"1"


class Role(StrEnum):
    """The end of a federation that shows the evidence."""

    SITE = "site"
    COORDINATOR = "coordinator"


@dataclass(frozen=True)
class Binding:
    """The facts behind a context. The relying party computes them, and never takes them from the evidence.

    Attributes:
        role: End of the federation that shows the evidence.
        nonce: The verifier's 32 bytes, hex.
        public_key: The attester's Ed25519 key, hex.
        kem_key: The attester's X25519 key, hex.
        subject: Name of the site or coordinator.
        job_digest: SHA-256 of the job, hex.
    """

    role: Role
    nonce: str
    public_key: str
    kem_key: str
    subject: str
    job_digest: str

    def context(self) -> bytes:
        """Return all fields under a domain tag, each part behind its length, and the keys as SHA-256 digests."""
        return frame(
            f"aegis/attestation/{self.role}".encode(),
            _VERSION,
            bytes.fromhex(self.nonce),
            hashlib.sha256(bytes.fromhex(self.public_key)).digest(),
            hashlib.sha256(bytes.fromhex(self.kem_key)).digest(),
            self.subject.encode(),
            bytes.fromhex(self.job_digest),
        )


def manual_context(nonce: bytes) -> bytes:
    """Return the context of evidence collected by hand with a nonce alone; no appraisal of a site accepts it."""
    return frame(b"aegis/attestation/manual", _VERSION, nonce)


def gpu_nonce(context: bytes) -> bytes:
    """Return the 32-byte nonce that every GPU's report must cover."""
    return hashlib.sha256(b"gpu" + context).digest()


def report_data(context: bytes, gpus: Sequence[GpuReport]) -> bytes:
    """Return the 64 bytes that the processor's report must cover, given the GPU reports."""
    return hashlib.sha512(b"cpu" + context + hashlib.sha256(gpu_list(gpus)).digest()).digest()


def report_without_hardware(kind: CpuKind, context: bytes) -> bytes:
    """Return the only report over ``context`` that a kind without hardware (``simulated``, ``unattested``) may show.

    No key signs the report itself: the envelope around the report has the signature of its party.
    """
    return canonical_json({kind.value: True, "report_data": report_data(context, ()).hex()})

"""What evidence is bound to: the verifier's nonce, both of the attester's public keys, who it is, and the job.

Evidence that covers this context cannot be replayed for another challenge, moved to another host, paired with another
key, or turned around and shown by the other party. The GPUs are asked first; the processor's report then covers what
they said, so that one host's GPUs cannot be shown beside another host's processor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from coreason_enclave.attestation.evidence import GpuReport, gpu_list
from coreason_enclave.crypto.encoding import frame

__all__ = ["Binding", "Role", "gpu_nonce", "manual_context", "report_data"]

_VERSION = b"1"


class Role(StrEnum):
    """Which end of a federation shows the evidence."""

    SITE = "site"
    COORDINATOR = "coordinator"


@dataclass(frozen=True)
class Binding:
    """What a relying party computed itself, never took from the evidence.

    Attributes:
        nonce: the verifier's 32 bytes, hex. public_key: the attester's Ed25519 key, hex. kem_key: its X25519 key, hex.
        subject: the name of the site, or of the coordinator. job_digest: SHA-256 of the job, hex.
    """

    role: Role
    nonce: str
    public_key: str
    kem_key: str
    subject: str
    job_digest: str

    def context(self) -> bytes:
        """Everything above under a domain tag, each part behind its length."""
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
    """The context of evidence that somebody collects by hand with a nonce alone; no appraisal of a site accepts it."""
    return frame(b"aegis/attestation/manual", _VERSION, nonce)


def gpu_nonce(context: bytes) -> bytes:
    """The 32 bytes that every GPU's report has to cover."""
    return hashlib.sha256(b"gpu" + context).digest()


def report_data(context: bytes, gpus: Sequence[GpuReport]) -> bytes:
    """The 64 bytes that the processor's report has to cover, the GPUs' reports being these."""
    return hashlib.sha512(b"cpu" + context + hashlib.sha256(gpu_list(gpus)).digest()).digest()

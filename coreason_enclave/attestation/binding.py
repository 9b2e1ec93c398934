"""What evidence is bound to: the verifier's nonce, the site's signing key, the site and the job.

A report that covers these 32 bytes cannot be replayed for another round, moved to another site, or paired with
another key.
"""

from __future__ import annotations

from coreason_enclave.encoding import digest

__all__ = ["report_data"]


def report_data(*, nonce: str, public_key: str, site_id: str, job_digest: str) -> bytes:
    """SHA-256 over the framed context, 32 bytes. ``nonce``, ``public_key`` and ``job_digest`` are 64 hex digits."""
    return digest(
        "aegis/attestation/report-data/v1",
        bytes.fromhex(nonce),
        bytes.fromhex(public_key),
        site_id.encode(),
        bytes.fromhex(job_digest),
    )

"""A job at a site draws from one content under one key: what a round may draw from, given what earlier rounds drew.

With each round the ledger notes two marks, which the site can recompute and nobody else can confirm a guess by:

- of the *content*: a signature over its digest, hashed, since the digest itself would tell a holder of the same rows;
- of the *job's key*: a pseudorandom function of the key at a point where no draw is made.

Before a round is reserved, both are compared with those of the job's last draw. Rows that were appended or replaced are
refused, unless the job declares that lineages may grow and the site's policy lets them. Another key is refused always:
under new noise, a round that is computed again would be a second release for one charge.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from coreason_enclave.crypto.encoding import frame, sha256_hex
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.errors import JobRejected, Reason
from coreason_enclave.ledger import Draw
from coreason_enclave.policy import SitePolicy
from coreason_enclave.session.acceptance import AcceptedJob

__all__ = ["mark_of_content", "mark_of_key", "require_same_content", "require_same_key"]


def mark_of_content(signer: Signer, content_digest: str) -> str:
    """What the ledger notes of a content (SHA-256, hex)."""
    return sha256_hex(signer.sign(frame(b"aegis/content-mark/v1", bytes.fromhex(content_digest))))


def mark_of_key(key: bytes) -> str:
    """What the ledger notes of a job's 32-byte key. Draws are made under other keys that are derived from it."""
    return hmac.digest(key, frame(b"aegis/job-key-mark/v1"), hashlib.sha256).hex()


def require_same_key(draws: Sequence[Draw], key_mark: str) -> None:
    """Raise :class:`JobRejected` (``job_key_changed``) where the job drew under another key before."""
    if draws and draws[-1].key_mark != key_mark:
        raise JobRejected(
            f"round {draws[-1].round_number} of this job drew under another key, which is gone: put the job's key back "
            "from a copy of this site's keys, or take part in another job",
            reason=Reason.JOB_KEY_CHANGED,
        )


def require_same_content(accepted: AcceptedJob, policy: SitePolicy, draws: Sequence[Draw], content_mark: str) -> None:
    """Raise :class:`JobRejected` (``content_changed``) where rows changed since the job's last draw, and may not."""
    if not draws or draws[-1].content_mark == content_mark:
        return
    since = f"dataset {accepted.job.dataset_id} changed since round {draws[-1].round_number} of this job"
    if not accepted.job.lineages_may_grow:
        raise JobRejected(
            f"{since}: put that content back until the job has ended, or run a job with lineages_may_grow",
            reason=Reason.CONTENT_CHANGED,
        )
    if policy.refuse_changed_content:
        raise JobRejected(f"site policy: refuse_changed_content, and {since}", reason=Reason.CONTENT_CHANGED)

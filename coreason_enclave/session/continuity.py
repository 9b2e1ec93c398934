"""Continuity of a job at a site: all rounds draw from the same content under the same key.

With each round the ledger records two marks. The site can recompute both; no one else can use a mark to confirm a
guess:

- *content* mark: a hashed signature over the content's digest. The bare digest would reveal the content to a holder of
  the same rows.
- *job key* mark: a pseudorandom function of the key, at a point that no draw uses.

Before reserving a round, the site compares both marks with the marks of the job's last draw:

- Changed content (rows appended or replaced): refused, unless the job declares that lineages may grow and the site's
  policy permits changes.
- Changed key: always refused. With new noise, recomputing a round would mean a second release for one charge.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from coreason_enclave.crypto import Signer, frame, sha256_hex
from coreason_enclave.errors import JobRejected, Reason
from coreason_enclave.ledger import Draw
from coreason_enclave.policy import SitePolicy
from coreason_enclave.session.acceptance import AcceptedJob


def mark_of_content(signer: Signer, content_digest: str) -> str:
    """Return the content's mark for the ledger (SHA-256, hex)."""
    return sha256_hex(signer.sign(frame(b"aegis/content-mark/v1", bytes.fromhex(content_digest))))


def mark_of_key(key: bytes) -> str:
    """Return the ledger's mark of a job's 32-byte key. Draws use other keys, derived from the job's key."""
    return hmac.digest(key, frame(b"aegis/job-key-mark/v1"), hashlib.sha256).hex()


def require_same_key(draws: Sequence[Draw], key_mark: str) -> None:
    """Raise :class:`JobRejected` (``job_key_changed``) if the job's last draw used another key."""
    if draws and draws[-1].key_mark != key_mark:
        raise JobRejected(
            f"round {draws[-1].round_number} of this job used another key: restore it from a copy, or join another job",
            reason=Reason.JOB_KEY_CHANGED,
        )


def require_same_content(accepted: AcceptedJob, policy: SitePolicy, draws: Sequence[Draw], content_mark: str) -> None:
    """Raise :class:`JobRejected` (``content_changed``) if rows changed since the job's last draw, and may not."""
    if not draws or draws[-1].content_mark == content_mark:
        return
    since = f"dataset {accepted.job.dataset_id} changed since round {draws[-1].round_number} of this job"
    if not accepted.job.lineages_may_grow:
        raise JobRejected(f"{since}: restore it, or run a job with lineages_may_grow", reason=Reason.CONTENT_CHANGED)
    if policy.refuse_changed_content:
        raise JobRejected(f"site policy: refuse_changed_content, and {since}", reason=Reason.CONTENT_CHANGED)

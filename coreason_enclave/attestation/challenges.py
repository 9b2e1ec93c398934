"""Challenges of a verifier: 32 random bytes each, answered once, within two minutes.

Each open challenge is a file, so neither a restart nor a second process accepts an answer twice. Redeeming a challenge
unlinks its file, and the file system lets the unlink succeed only once.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Protocol

from coreason_enclave.crypto import digest
from coreason_enclave.errors import AttestationError, ConfigurationError, Reason
from coreason_enclave.system import CLOCK_SKEW_S, sync_folder

CHALLENGE_S = 120
"""Lifetime of a challenge, in seconds."""


class Challenges(Protocol):
    """The open challenges of one verifier. Times are Unix seconds."""

    def issue(self, subject: str, now: float) -> str:
        """Return a new challenge for ``subject``: 64 hex digits, durable on return."""
        ...

    def redeem(self, nonce: str, subject: str, now: float) -> None:
        """Consume a challenge.

        Raises:
            AttestationError: ``attestation_required``: never issued to ``subject``, already used, or too old.
            ConfigurationError: The folder does not allow the operation.
        """
        ...


class FileChallenges:
    """:class:`Challenges` in a folder, created on first use.

    Each challenge is an empty file, named by a digest of nonce and subject.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def issue(self, subject: str, now: float) -> str:
        """See :class:`Challenges`."""
        nonce = secrets.token_hex(32)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._forget(now)
            os.close(os.open(self._path(nonce, subject), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            os.utime(self._path(nonce, subject), (now, now))
            sync_folder(self._folder)
        except OSError as error:
            raise self._unusable(error) from error
        return nonce

    def redeem(self, nonce: str, subject: str, now: float) -> None:
        """See :class:`Challenges`."""
        path = self._path(nonce, subject)
        try:
            issued = path.stat().st_mtime
            path.unlink()  # succeeds for only one caller
            sync_folder(self._folder)
        except FileNotFoundError as error:
            message = f"no open challenge to {subject} has this nonce: never issued, already used, or forgotten"
            raise AttestationError(message, reason=Reason.ATTESTATION_REQUIRED) from error
        except OSError as error:
            raise self._unusable(error) from error
        if not issued - CLOCK_SKEW_S <= now <= issued + CHALLENGE_S:
            message = f"the challenge to {subject} is older than {CHALLENGE_S} s"
            raise AttestationError(message, reason=Reason.ATTESTATION_REQUIRED)

    def _unusable(self, error: OSError) -> ConfigurationError:
        return ConfigurationError(f"challenges cannot be stored in {self._folder}: {error.strerror}")

    def _path(self, nonce: str, subject: str) -> Path:
        return self._folder / digest("aegis/challenge/v1", bytes.fromhex(nonce), subject.encode()).hex()

    def _forget(self, now: float) -> None:
        """Delete challenges that expired without an answer."""
        for path in self._folder.iterdir():
            try:
                if path.stat().st_mtime + CHALLENGE_S + CLOCK_SKEW_S < now:
                    path.unlink()
            except FileNotFoundError:  # another process redeemed the challenge
                continue

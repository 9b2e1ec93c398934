"""Challenges that a verifier sets: 32 bytes of its own choosing, answered once, within two minutes.

Open challenges are files, so that neither a restart nor a second process answers one twice: to redeem one is to unlink
its file, which the file system lets happen once.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Protocol

from coreason_enclave.crypto.encoding import digest
from coreason_enclave.errors import AttestationError, ConfigurationError, Reason
from coreason_enclave.system.files import sync_folder

__all__ = ["CHALLENGE_S", "Challenges", "FileChallenges"]

CHALLENGE_S = 120
"""How long a challenge may be answered."""

_CLOCK_STEPPED_S = 60


class Challenges(Protocol):
    """The open challenges of one verifier. Times are Unix seconds."""

    def issue(self, subject: str, now: float) -> str:
        """A new challenge to ``subject``: 64 hex digits, durable when this returns."""
        ...

    def redeem(self, nonce: str, subject: str, now: float) -> None:
        """Use a challenge up.

        Raises:
            AttestationError: ``attestation_required``: it was never set to ``subject``, is used, or too old.
            ConfigurationError: it cannot be used up here.
        """
        ...


class FileChallenges:
    """:class:`Challenges` in a folder, made on first use; one empty file each, named by a digest of what it is for."""

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
            path.unlink()  # whoever succeeds is the only one
            sync_folder(self._folder)
        except FileNotFoundError as error:
            message = f"no challenge to {subject} is open with this nonce: never set, used, or forgotten"
            raise AttestationError(message, reason=Reason.ATTESTATION_REQUIRED) from error
        except OSError as error:
            raise self._unusable(error) from error
        if not issued - _CLOCK_STEPPED_S <= now <= issued + CHALLENGE_S:
            message = f"the challenge to {subject} is older than {CHALLENGE_S} s"
            raise AttestationError(message, reason=Reason.ATTESTATION_REQUIRED)

    def _unusable(self, error: OSError) -> ConfigurationError:
        return ConfigurationError(f"challenges cannot be kept in {self._folder}: {error.strerror}")

    def _path(self, nonce: str, subject: str) -> Path:
        return self._folder / digest("aegis/challenge/v1", bytes.fromhex(nonce), subject.encode()).hex()

    def _forget(self, now: float) -> None:
        """Challenges that nobody answered in time."""
        for path in self._folder.iterdir():
            try:
                if path.stat().st_mtime + CHALLENGE_S + _CLOCK_STEPPED_S < now:
                    path.unlink()
            except FileNotFoundError:  # redeemed just now
                continue

"""What differs each time it is made, and is therefore made once and committed: ciphertexts, hardware's signatures."""

from __future__ import annotations

import json
from pathlib import Path

from coreason_enclave.attestation.evidence import CpuKind, Evidence, parse_evidence
from coreason_enclave.crypto.encryption import KemKey, encrypt_to
from coreason_enclave.errors import EnclaveError

__all__ = ["attest_once", "attested", "ciphertext", "encrypt_once"]


def ciphertext(path: Path) -> bytes:
    """What :func:`encrypt_once` left there."""
    return bytes.fromhex(path.read_text())


def encrypt_once(path: Path, key: KemKey, plaintext: bytes, info: bytes) -> None:
    """Encrypt, unless what is there decrypts to the same: the envelope beside it, which ``info`` covers, may differ."""
    try:
        if key.decrypt(ciphertext(path), info) == plaintext:
            return
    except (OSError, EnclaveError):
        path.parent.mkdir(exist_ok=True)
    path.write_text(encrypt_to(key.public_hex, plaintext, info).hex() + "\n")


def attested(path: Path) -> Evidence:
    """What :func:`attest_once` left there."""
    return parse_evidence(json.loads(path.read_text())["evidence"])


def attest_once(path: Path, kind: CpuKind, gpus: tuple[str, ...], context: bytes) -> None:
    """Ask a host of this repository's own vendors for evidence, unless what is there is about the same."""
    from tests.coreason_enclave.attestation.appraisal.hosts import Host  # its vendors' keys take a second to make

    if path.exists() and json.loads(path.read_text())["context"] == context.hex():
        return
    evidence = Host(kind, gpus).produce(context).model_dump(mode="json")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"context": context.hex(), "evidence": evidence}, indent=1, sort_keys=True) + "\n")

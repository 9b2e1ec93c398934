"""What travels encrypted decrypts by the letter of RFC 9180, and nowhere but beside its own envelope."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from coreason_enclave.crypto.encryption import OVERHEAD_BYTES, KemKey, encrypt_to, info_for
from coreason_enclave.errors import EnclaveError
from tests.coreason_enclave.wire import story
from tests.coreason_enclave.wire.golden import read

PURPOSES = ("model", "update")
KEM_SUITE = b"KEM" + bytes.fromhex("0020")
SUITE = b"HPKE" + bytes.fromhex("002000010002")


def _extract(suite: bytes, salt: bytes, label: bytes, secret: bytes) -> bytes:
    return hmac.digest(salt, b"HPKE-v1" + suite + label + secret, "sha256")


def _expand(suite: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    """One block is enough: nothing here is longer than 32 bytes."""
    return hmac.digest(key, length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info + b"\x01", "sha256")[:length]


def by_the_letter(ciphertext: bytes, private_key: bytes, info: bytes) -> bytes:
    """RFC 9180, SetupBaseR and Open of sequence number 0: sections 4.1, 5.1 and 5.2."""
    key, encapsulated = X25519PrivateKey.from_private_bytes(private_key), ciphertext[:32]
    shared = key.exchange(X25519PublicKey.from_public_bytes(encapsulated))
    kem_context = encapsulated + key.public_key().public_bytes_raw()
    secret = _expand(KEM_SUITE, _extract(KEM_SUITE, b"", b"eae_prk", shared), b"shared_secret", kem_context, 32)
    context = b"\x00" + _extract(SUITE, b"", b"psk_id_hash", b"") + _extract(SUITE, b"", b"info_hash", info)
    secret = _extract(SUITE, secret, b"secret", b"")
    nonce = _expand(SUITE, secret, b"base_nonce", context, 12)
    return AESGCM(_expand(SUITE, secret, b"key", context, 32)).decrypt(nonce, ciphertext[32:], b"")


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_golden_ciphertext_decrypts_by_the_letter_of_the_standard(purpose) -> None:
    vector = read(f"encrypted-{purpose}")
    envelope = vector["envelope"].encode()
    parts = (b"aegis/hpke/v1", purpose.encode(), envelope)
    info = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    data = bytes.fromhex(vector["ciphertext"])
    assert by_the_letter(data, bytes.fromhex(vector["TEST_KEY"]), info).hex() == vector["plaintext"]
    assert len(data) == len(bytes.fromhex(vector["plaintext"])) + OVERHEAD_BYTES == len(vector["plaintext"]) // 2 + 48


@pytest.mark.parametrize("purpose", PURPOSES)
def test_the_product_decrypts_a_golden_ciphertext_beside_its_own_envelope_alone(purpose) -> None:
    vector, other = read(f"encrypted-{purpose}"), read("encrypted-update" if purpose == "model" else "encrypted-model")
    key = KemKey(X25519PrivateKey.from_private_bytes(bytes.fromhex(vector["TEST_KEY"])))
    data, envelope = bytes.fromhex(vector["ciphertext"]), vector["envelope"].encode()
    assert key.decrypt(data, info_for(purpose, envelope)).hex() == vector["plaintext"]
    for info in (
        info_for(other["purpose"], envelope),
        info_for(purpose, other["envelope"].encode()),
        info_for(purpose, envelope + b" "),
        b"",
    ):
        with pytest.raises(EnclaveError):
            key.decrypt(data, info)


def test_what_the_product_encrypts_decrypts_by_the_letter_of_the_standard() -> None:
    seed = hashlib.sha256(b"a receiver").digest()
    key, info = KemKey(X25519PrivateKey.from_private_bytes(seed)), info_for("update", story.update())
    assert by_the_letter(encrypt_to(key.public_hex, b"weights", info), seed, info) == b"weights"

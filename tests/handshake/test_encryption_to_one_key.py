"""HPKE against a second implementation, written from RFC 9180 alone, and against whoever changes a byte of it."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from coreason_enclave.crypto.encryption import OVERHEAD_BYTES, KemKey, encrypt_to, info_for, require_receiver
from coreason_enclave.errors import EnvelopeError, Reason

TEXT, INFO = b"weights of a model", b"an order's envelope"

# --- RFC 9180, sections 4 and 5.1, base mode ------------------------------------------------------------------------

_DHKEM = b"KEM" + bytes.fromhex("0020")
_HKDF_SHA256 = bytes.fromhex("0001")


def _extract(suite: bytes, salt: bytes, label: bytes, key: bytes) -> bytes:
    return hmac.new(salt or bytes(32), b"HPKE-v1" + suite + label + key, hashlib.sha256).digest()


def _expand(suite: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.new(key, labelled + b"\x01", hashlib.sha256).digest()[:length]  # one block: length is 32 at most


@dataclass(frozen=True)
class Written:
    """The suite X25519, HKDF-SHA256, AES-GCM with keys of ``key_bytes``, whose AEAD has this id."""

    aead: int
    key_bytes: int

    @property
    def suite(self) -> bytes:
        return b"HPKE" + bytes.fromhex("0020") + _HKDF_SHA256 + self.aead.to_bytes(2, "big")

    def schedule(self, shared: bytes, enc: bytes, receiver: bytes, info: bytes) -> tuple[bytes, bytes]:
        prk = _extract(_DHKEM, b"", b"eae_prk", shared)
        secret = _expand(_DHKEM, prk, b"shared_secret", enc + receiver, 32)
        hashes = _extract(self.suite, b"", b"psk_id_hash", b"") + _extract(self.suite, b"", b"info_hash", info)
        context = b"\x00" + hashes
        master = _extract(self.suite, secret, b"secret", b"")
        key = _expand(self.suite, master, b"key", context, self.key_bytes)
        return key, _expand(self.suite, master, b"base_nonce", context, 12)

    def encrypt(
        self, ephemeral: X25519PrivateKey, receiver: bytes, text: bytes, info: bytes, aad: bytes = b""
    ) -> bytes:
        enc = ephemeral.public_key().public_bytes_raw()
        shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(receiver))
        key, nonce = self.schedule(shared, enc, receiver, info)
        return enc + AESGCM(key).encrypt(nonce, text, aad)

    def decrypt(self, own: X25519PrivateKey, sealed: bytes, info: bytes) -> bytes:
        enc, receiver = sealed[:32], own.public_key().public_bytes_raw()
        key, nonce = self.schedule(own.exchange(X25519PublicKey.from_public_bytes(enc)), enc, receiver, info)
        return AESGCM(key).decrypt(nonce, sealed[32:], b"")


AES_128, AES_256 = Written(1, 16), Written(2, 32)


def test_the_second_implementation_gives_the_vector_of_the_rfcs_appendix() -> None:
    """A.1.1, the appendix's suite that differs from ours in the length of the AEAD's key alone."""
    ephemeral = bytes.fromhex("52c4a758a802cd8b936eceea314432798d5baf2d7e9235dc084ab1b9cfa2f736")
    receiver = bytes.fromhex("3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d")
    info = bytes.fromhex("4f6465206f6e2061204772656369616e2055726e")
    text = bytes.fromhex("4265617574792069732074727574682c20747275746820626561757479")
    sealed = AES_128.encrypt(X25519PrivateKey.from_private_bytes(ephemeral), receiver, text, info, b"Count-0")
    assert sealed.hex() == (
        "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431"
        "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a"
    )


@given(text=st.binary(max_size=200), info=st.binary(max_size=200))
def test_each_implementation_reads_what_the_other_writes(text: bytes, info: bytes) -> None:
    private = X25519PrivateKey.generate()
    key = KemKey(private)
    assert AES_256.decrypt(private, encrypt_to(key.public_hex, text, info), info) == text
    written = AES_256.encrypt(X25519PrivateKey.generate(), bytes.fromhex(key.public_hex), text, info)
    assert key.decrypt(written, info) == text


def test_two_ciphertexts_of_one_text_have_nothing_in_common_and_their_stated_length() -> None:
    key = KemKey.generate()
    first, second = (encrypt_to(key.public_hex, TEXT, INFO) for _ in range(2))
    assert first[:32] != second[:32]
    assert first[32:] != second[32:]
    assert len(first) == len(TEXT) + OVERHEAD_BYTES


# --- whoever changes something --------------------------------------------------------------------------------------


def assert_undecryptable(key: KemKey, sealed: bytes, info: bytes = INFO) -> None:
    with pytest.raises(EnvelopeError) as refused:
        key.decrypt(sealed, info)
    assert refused.value.reason is Reason.UNDECRYPTABLE


def test_no_other_key_decrypts_and_no_other_info() -> None:
    key = KemKey.generate()
    sealed = encrypt_to(key.public_hex, TEXT, INFO)
    assert key.decrypt(sealed, INFO) == TEXT
    assert_undecryptable(KemKey.generate(), sealed)
    assert_undecryptable(key, sealed, INFO + b"\x00")
    assert_undecryptable(key, sealed, b"")


def test_no_byte_can_be_changed_taken_away_or_added() -> None:
    key = KemKey.generate()
    sealed = encrypt_to(key.public_hex, TEXT, INFO)
    for place in range(len(sealed)):
        assert_undecryptable(key, sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :])
        assert_undecryptable(key, sealed[:place])
    assert_undecryptable(key, sealed + b"\x00")


SMALL_ORDER = (
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
)


@pytest.mark.parametrize("point", SMALL_ORDER, ids=bytes.hex)
def test_a_key_whose_secret_everybody_knows_is_no_key(point: bytes) -> None:
    for use in (lambda: encrypt_to(point.hex(), TEXT, INFO), lambda: require_receiver(point.hex())):
        with pytest.raises(EnvelopeError, match="cannot encrypt to the key"):
            use()
    key = KemKey.generate()
    assert_undecryptable(key, point + encrypt_to(key.public_hex, TEXT, INFO)[32:])


@pytest.mark.parametrize("text", ["", "ab", "zz" * 32, "ab" * 31, "ab" * 33, "ä" * 64])
def test_what_is_no_key_is_refused_by_type(text: str) -> None:
    with pytest.raises(EnvelopeError):
        encrypt_to(text, TEXT, INFO)


def test_an_erased_key_decrypts_nothing_and_never_shows_its_private_half() -> None:
    private = X25519PrivateKey.generate()
    key = KemKey(private)
    sealed = encrypt_to(key.public_hex, TEXT, INFO)
    key.erase()
    assert_undecryptable(key, sealed)
    assert private.private_bytes_raw().hex() not in repr(key)
    assert private not in vars(key).values()


@given(st.sampled_from(["model", "update"]), st.sampled_from(["model", "update"]), st.binary(), st.binary())
def test_no_two_purposes_or_envelopes_share_an_info(first: str, second: str, one: bytes, other: bytes) -> None:
    same = (first, one) == (second, other)
    assert (info_for(first, one) == info_for(second, other)) == same
    assert info_for("model", b"x") != info_for("mode", b"lx")

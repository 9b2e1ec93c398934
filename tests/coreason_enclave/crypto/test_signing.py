from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from hypothesis import given
from hypothesis import strategies as st

from coreason_enclave.crypto.encoding import sha256_hex
from coreason_enclave.crypto.signing import (
    Signer,
    load_or_create_secret,
    load_or_create_signer,
    public_key_from_hex,
    write_private,
)
from coreason_enclave.errors import ConfigurationError

# RFC 8032, section 7.1: secret key, public key, message, signature.
RFC_8032 = {
    "TEST 1": (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    "TEST 2": (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    "TEST 3": (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
}


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC_8032.values(), ids=RFC_8032.keys())
def test_signatures_are_those_of_rfc_8032(seed: str, public: str, message: str, signature: str) -> None:
    signer = Signer.from_seed(bytes.fromhex(seed))
    assert signer.public_hex == public
    assert signer.sign(bytes.fromhex(message)).hex() == signature
    public_key_from_hex(public).verify(bytes.fromhex(signature), bytes.fromhex(message))


@given(st.binary(max_size=100), st.integers(0, 511))
def test_a_signature_with_a_flipped_bit_does_not_verify(message: bytes, bit: int) -> None:
    signer = Signer.from_seed(bytes(32))
    spoilt = bytearray(signer.sign(message))
    spoilt[bit // 8] ^= 1 << bit % 8
    with pytest.raises(InvalidSignature):
        public_key_from_hex(signer.public_hex).verify(bytes(spoilt), message)


def test_the_key_id_is_the_digest_of_the_public_key() -> None:
    signer = Signer.generate()
    assert signer.key_id == sha256_hex(bytes.fromhex(signer.public_hex))


def test_generated_keys_differ() -> None:
    assert Signer.generate().public_hex != Signer.generate().public_hex


def test_showing_a_signer_shows_no_secret() -> None:
    seed = bytes(range(32))
    assert seed.hex()[:8] not in repr(Signer.from_seed(seed))
    assert repr(Signer.from_seed(seed)).startswith("Signer(key_id=")


@pytest.mark.parametrize("text", ["", "0", "00" * 31, "00" * 33, "zz" * 32, "0x" + "00" * 31, "é"])
def test_what_is_no_public_key_is_a_configuration_error(text: str) -> None:
    with pytest.raises(ConfigurationError, match="64 hex digits"):
        public_key_from_hex(text)


def test_a_key_is_made_once_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "site.key"
    assert load_or_create_signer(path).public_hex == load_or_create_signer(path).public_hex
    assert len(path.read_bytes()) == 32


def test_a_key_file_and_its_folder_are_for_the_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "site.key"
    before = os.umask(0)
    try:
        load_or_create_secret(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o666, 0o610, 0o601, 0o777])
def test_a_key_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "site.key"
    load_or_create_secret(path)
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        load_or_create_secret(path)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_key_for_the_owner_alone_is_accepted(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "site.key"
    secret = load_or_create_secret(path)
    path.chmod(mode)
    assert load_or_create_secret(path) == secret


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_key_of_another_length_is_refused_and_kept(tmp_path: Path, length: int) -> None:
    path = tmp_path / "site.key"
    write_private(path, b"x" * length)
    with pytest.raises(ConfigurationError, match="must hold 32 bytes"):
        load_or_create_secret(path)
    assert path.read_bytes() == b"x" * length


@pytest.mark.parametrize("dangling", [True, False])
def test_a_link_in_place_of_a_key_is_refused_and_its_target_left_alone(tmp_path: Path, dangling: bool) -> None:
    target, path = tmp_path / "target", tmp_path / "site.key"
    if not dangling:
        write_private(target, bytes(32))
    path.symlink_to(target)
    with pytest.raises(ConfigurationError, match="regular file"):
        load_or_create_secret(path)
    assert target.exists() is not dangling


def test_a_folder_in_place_of_a_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "site.key").mkdir(mode=0o700)
    with pytest.raises(ConfigurationError, match="regular file"):
        load_or_create_secret(tmp_path / "site.key")


def test_writing_never_replaces_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "site.key"
    write_private(path, b"first")
    write_private(path, b"second")
    assert path.read_bytes() == b"first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["site.key"]


def test_a_write_that_fails_leaves_no_half_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        write_private(tmp_path / "site.key", bytes(32))
    assert list(tmp_path.iterdir()) == []


def test_starters_that_race_agree_on_one_key(tmp_path: Path) -> None:
    path, found = tmp_path / "keys" / "site.key", []
    barrier = threading.Barrier(8)

    def start() -> None:
        barrier.wait()
        found.append(load_or_create_secret(path))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert set(found) == {path.read_bytes()}

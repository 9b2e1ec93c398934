"""The documents of joining: who signed, and that nothing in them was changed or made up."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from coreason_enclave.crypto.encoding import canonical_json
from coreason_enclave.crypto.envelope import seal
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.errors import ConfigurationError, EnclaveError, Reason
from coreason_enclave.site.tls_keys import node_key_text
from coreason_enclave.wire.registration import (
    REQUEST_TYPE,
    WELCOME_TYPE,
    RegistrationGrant,
    RegistrationRequest,
    fingerprint,
    open_grant,
    open_request,
    parse_address,
    seal_grant,
    seal_request,
)

SITE, COORDINATOR, STRANGER = (Signer.from_seed(bytes([number]) * 32) for number in (1, 2, 3))
NODE_KEY = node_key_text(ec.derive_private_key(4711, ec.SECP384R1()))


def a_request(**changes: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "site_id": "clinic-1",
        "public_key": SITE.public_hex,
        "node_key": NODE_KEY,
        "tls_request": "a PEM",
        **changes,
    }


def a_welcome(**changes: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "site_id": "clinic-1",
        "public_key": SITE.public_hex,
        "coordinator_key": COORDINATOR.public_hex,
        "gateway": "gateway.example:9443",
        "server_name": "gateway.example",
        "ca_certificate": "a PEM",
        "client_certificate": "a PEM",
        "participants": {"clinic-1": SITE.public_hex},
        "issued_at": 1_800_000_000,
        **changes,
    }


def test_a_request_opens_as_it_was_sealed() -> None:
    request = RegistrationRequest.model_validate(a_request())

    assert open_request(seal_request(request, SITE)) == request


def test_a_request_that_another_key_signed_does_not_open() -> None:
    request = RegistrationRequest.model_validate(a_request())

    with pytest.raises(EnclaveError) as refused:
        open_request(seal_request(request, STRANGER))
    assert refused.value.reason is Reason.UNKNOWN_SIGNER


def test_a_request_that_was_changed_on_its_way_does_not_open() -> None:
    envelope = seal_request(RegistrationRequest.model_validate(a_request()), SITE)
    payload = base64.b64encode(canonical_json(a_request(site_id="clinic-2")))
    original = base64.b64encode(canonical_json(a_request()))
    assert original in envelope

    with pytest.raises(EnclaveError) as refused:
        open_request(envelope.replace(original, payload))
    assert refused.value.reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"site_id": "../clinic"},
        {"public_key": "AB" * 32},
        {"node_key": "no base64!"},
        {"node_key": base64.b64encode(b"no PEM").decode()},
        {"node_key": node_key_text(ec.generate_private_key(ec.SECP256R1()))},
        {"node_key": NODE_KEY + "\n"},
        {"tls_request": ""},
        {"tls_request": "x" * 20_000},
        {"more": 1},
    ],
)
def test_a_request_that_says_something_else_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(EnclaveError) as refused:
        open_request(seal(REQUEST_TYPE, canonical_json(a_request(**changes)), SITE))
    assert refused.value.reason is Reason.MALFORMED


def test_a_node_key_in_another_spelling_is_refused() -> None:
    """It is compared as text with the header of every request: two spellings would be two keys."""
    pem = base64.b64decode(NODE_KEY)
    der = serialization.load_pem_public_key(pem).public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for spelling in (pem + b"\n", pem.replace(b"\n", b"\r\n"), der):
        with pytest.raises(ValidationError):
            RegistrationRequest.model_validate(a_request(node_key=base64.b64encode(spelling).decode()))


def test_a_welcome_opens_under_the_key_that_a_person_was_told() -> None:
    grant = RegistrationGrant.model_validate(a_welcome())

    assert open_grant(seal_grant(grant, COORDINATOR), COORDINATOR.public_hex) == grant


def test_a_welcome_under_any_other_key_does_not_open() -> None:
    grant = RegistrationGrant.model_validate(a_welcome())

    with pytest.raises(EnclaveError) as refused:
        open_grant(seal_grant(grant, STRANGER), COORDINATOR.public_hex)
    assert refused.value.reason is Reason.UNKNOWN_SIGNER
    with pytest.raises(EnclaveError):
        open_grant(seal_grant(grant, COORDINATOR), STRANGER.public_hex)
    with pytest.raises(ConfigurationError):
        open_grant(seal_grant(grant, COORDINATOR), "no key")


def test_a_welcome_that_names_another_coordinator_than_the_one_that_signed_is_refused() -> None:
    grant = RegistrationGrant.model_validate(a_welcome(coordinator_key=STRANGER.public_hex))

    with pytest.raises(EnclaveError) as refused:
        open_grant(seal_grant(grant, COORDINATOR), COORDINATOR.public_hex)
    assert refused.value.reason is Reason.UNKNOWN_SIGNER


def test_a_request_is_no_welcome_and_a_welcome_no_request() -> None:
    with pytest.raises(EnclaveError):
        open_grant(seal(REQUEST_TYPE, canonical_json(a_welcome()), COORDINATOR), COORDINATOR.public_hex)
    with pytest.raises(EnclaveError):
        open_request(seal(WELCOME_TYPE, canonical_json(a_request()), SITE))


@pytest.mark.parametrize(
    "changes",
    [
        {"gateway": "gateway.example"},
        {"gateway": "https://gateway.example:9443"},
        {"gateway": "gateway.example:0"},
        {"gateway": "gateway.example:65536"},
        {"gateway": "a b:9443"},
        {"server_name": "*.example"},
        {"server_name": ""},
        {"participants": {"../x": SITE.public_hex}},
        {"participants": {"clinic-1": "no key"}},
        {"issued_at": -1},
        {"issued_at": "now"},
        {"client_certificate": ""},
    ],
)
def test_a_welcome_that_makes_no_sense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(EnclaveError) as refused:
        open_grant(seal(WELCOME_TYPE, canonical_json(a_welcome(**changes)), COORDINATOR), COORDINATOR.public_hex)
    assert refused.value.reason is Reason.MALFORMED


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("gateway.example:9443", ("gateway.example", 9443)),
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("[2001:db8::1]:65535", ("2001:db8::1", 65535)),
    ],
)
def test_addresses_are_read(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        host, port = parse_address(text)
    except ValueError:
        return
    assert 0 < port < 65536
    assert host


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    with pytest.raises(EnclaveError):
        open_request(data)


def test_fingerprints_of_two_keys_differ_and_can_be_read_out() -> None:
    assert fingerprint(SITE.public_hex) != fingerprint(STRANGER.public_hex)
    assert [len(group) for group in fingerprint(SITE.public_hex).split()] == [4] * 8


def test_participation_is_on_the_ground_floor() -> None:
    """The coordinator's side reads the same documents."""
    source = (Path(__file__).resolve().parents[3] / "pyproject.toml").read_text()

    assert '"aegis.** -> coreason_enclave.wire.**"' in source

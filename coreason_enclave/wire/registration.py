"""How a site joins a federation: the site signs a request, the coordinator signs a grant.

Both are DSSE envelopes and may travel by any means. A signature shows that the signer holds a key. To find out *whose*
key, two people compare the :func:`fingerprint` over another channel.

>>> from coreason_enclave.crypto import Signer
>>> print(fingerprint(Signer.from_seed(bytes(32)).public_hex))
139e 3940 e64b 5491 7220 88d9 a0d7 4162
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, ClassVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import AfterValidator, Field

from coreason_enclave.crypto import KeyRing, Signer, open_envelope, seal, sha256_hex, unverified_payload
from coreason_enclave.errors import EnvelopeError, Reason
from coreason_enclave.schemas import HexDigest, SafeId, UnixSeconds
from coreason_enclave.wire.addressed import SiteDocument

REQUEST_TYPE = "application/vnd.aegis.participation-request.v1+json"
WELCOME_TYPE = "application/vnd.aegis.participation-welcome.v1+json"

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f:]{2,45}")
_ADDRESS = re.compile(r"(?P<host>[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:]{2,45}\]):(?P<port>[1-9][0-9]{0,4})")


def parse_address(text: str) -> tuple[str, int]:
    """Split ``host:port`` or ``[IPv6]:port`` into host and port; raise ``ValueError`` for other text.

    >>> parse_address("[::1]:9443")
    ('::1', 9443)
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise ValueError(f"must be host:port, got {text[:80]!r}")
    return _a_host(match["host"].strip("[]")), int(match["port"])


def _a_host(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise ValueError(f"must be a host name or an IP address, got {text[:80]!r}")
    return text


def _an_address(text: str) -> str:
    parse_address(text)
    return text


def _a_node_key(text: str) -> str:
    try:
        pem = base64.b64decode(text, validate=True)
        key = serialization.load_pem_public_key(pem)
    except (binascii.Error, ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("must be the base64 of a PEM public key") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ValueError("must be an ECDSA key on P-384")
    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    if base64.b64encode(key.public_bytes(*form)).decode() != text:  # compared as text with a request's header
        raise ValueError("must be in Flower's canonical encoding")
    return text


Pem = Annotated[str, Field(min_length=1, max_length=1 << 14)]
NodeKey = Annotated[str, Field(max_length=1024), AfterValidator(_a_node_key)]
Address = Annotated[str, Field(max_length=300), AfterValidator(_an_address)]
Host = Annotated[str, AfterValidator(_a_host)]


class RegistrationRequest(SiteDocument):
    """A site's request to take part.

    Attributes:
        public_key: the Ed25519 key that signs this request and every update.
        node_key: the Flower node key, as the node sends it in ``flwr-public-key``: base64 of the PEM public key.
        tls_request: PKCS#10 certificate request (PEM) for the TLS client key. Only the key counts, names do not.
    """

    described: ClassVar[str] = "a participation request"

    public_key: HexDigest
    node_key: NodeKey
    tls_request: Pem


class RegistrationGrant(SiteDocument):
    """A coordinator's answer to one site: the gateway's address, and the certificates for the connection.

    Attributes:
        public_key: the site's own Ed25519 key, so that the site notices a grant for an earlier set-up.
        gateway: ``host:port``.
        server_name: the name that the gateway's certificate must bear.
        participants: every participant's Ed25519 key, including this site's. The site chooses from them for its own
            list.
    """

    described: ClassVar[str] = "a registration grant"

    public_key: HexDigest
    coordinator_key: HexDigest
    gateway: Address
    server_name: Host
    ca_certificate: Pem
    client_certificate: Pem
    participants: dict[SafeId, HexDigest]
    issued_at: UnixSeconds


def fingerprint(public_hex: str) -> str:
    """Return 128 bits of a public key's SHA-256, in eight groups that two people can read to each other."""
    digits = sha256_hex(bytes.fromhex(public_hex))[:32]
    return " ".join(digits[start : start + 4] for start in range(0, 32, 4))


def seal_request(request: RegistrationRequest, signer: Signer) -> bytes:
    """Return the request in an envelope; ``signer`` holds ``request.public_key``."""
    return seal(REQUEST_TYPE, request.canonical(), signer)


def open_request(envelope: bytes) -> RegistrationRequest:
    """Verify a request under the very key named in the request.

    Success means: the sender holds that key, and no one changed the request since.

    Raises:
        EnvelopeError: malformed, or not signed by that key.
    """
    claimed = RegistrationRequest.from_payload(unverified_payload(envelope))  # only to learn the claimed key
    opened = open_envelope(envelope, REQUEST_TYPE, KeyRing({claimed.site_id: claimed.public_key}))
    return RegistrationRequest.from_payload(opened.payload)


def seal_grant(grant: RegistrationGrant, signer: Signer) -> bytes:
    """Return the grant in an envelope; ``signer`` holds ``grant.coordinator_key``."""
    return seal(WELCOME_TYPE, grant.canonical(), signer)


def open_grant(envelope: bytes, coordinator_key: str) -> RegistrationGrant:
    """Verify a grant under the coordinator's key (hex) as reported to a person.

    Raises:
        EnvelopeError: malformed, signed by another key, or naming a key that differs from the signing key.
        ConfigurationError: ``coordinator_key`` does not parse.
    """
    keys = KeyRing({"coordinator": coordinator_key})
    try:
        opened = open_envelope(envelope, WELCOME_TYPE, keys)
    except EnvelopeError as error:
        if error.reason is not Reason.UNKNOWN_SIGNER:
            raise
        message = f"the grant is not signed with the given coordinator key ({error})"
        raise EnvelopeError(message, reason=error.reason) from error
    grant = RegistrationGrant.from_payload(opened.payload)
    if grant.coordinator_key != coordinator_key:
        raise EnvelopeError("the grant names another coordinator's key", reason=Reason.UNKNOWN_SIGNER)
    return grant

"""A GPU's identity in its certificates: product, device, and the firmware that holds the attestation key."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from coreason_enclave.attestation.verify.nvidia_chain import Chain, public_key, refusing, spki_sha256
from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused

CHAIN_LENGTH = 5
"""Number of certificates: attestation key, boot ROM (one key per device), provisioner, product line, root."""

_PRODUCTS = frozenset({"GH100"})
_DEVICE_INFO = x509.ObjectIdentifier("1.3.6.1.4.1.412.274.1")
_NAME = re.compile(rb"\x0c\x1dNVIDIA:([A-Z0-9]{5}):([0-9A-F]{16})")
_COMPOSITE_DEVICE_ID = x509.ObjectIdentifier("2.23.133.5.4.1")
_SHA384_BYTES = 48


@dataclass(frozen=True)
class DeviceIdentity:
    """The identity of a device.

    Attributes:
        product: Product name, such as ``GH100``.
        pdi: The device's own number, hex.
        device: SHA-256 of the boot ROM's public key, hex.
    """

    product: str
    pdi: str
    device: str


def device_identity(chain: Chain) -> DeviceIdentity:
    """Return the device identity in a verified chain; raises :class:`VerificationRefused` unless it is an H100's."""
    with refusing(Refusal.CHAIN, "the GPU's certificate"):
        extension = chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = extension.value.get_values_for_type(x509.OtherName)
        matches = [_NAME.fullmatch(name.value) for name in names if name.type_id == _DEVICE_INFO]
    if len(matches) != 1 or matches[0] is None:
        raise VerificationRefused(Refusal.CHAIN, "the GPU's certificate does not name its device")
    product = matches[0][1].decode()
    if product not in _PRODUCTS:
        raise VerificationRefused(Refusal.WRONG_KIND, f"a {product}, not one of {', '.join(sorted(_PRODUCTS))}")
    return DeviceIdentity(product, matches[0][2].decode().lower(), spki_sha256(chain[1], "the boot ROM's certificate"))


def check_firmware_identity(chain: Chain, reported: bytes | None) -> bytes:
    """Compare the firmware in the GPU's certificate with the firmware in the report (None: skip the comparison).

    The leaf carries a TCG composite device id (OID 2.23.133.5.4.1: version, key of the device, SHA-384 of the
    firmware). The boot ROM made this certificate for this firmware on this device.

    Returns:
        The firmware identity in the certificate, 48 bytes.

    Raises:
        VerificationRefused: ``chain``: the extension is missing, or belongs to another device; ``firmware_identity``:
            the identities differ.
    """
    with refusing(Refusal.CHAIN, "the GPU's certificate"):
        extension = chain[0].extensions.get_extension_for_oid(_COMPOSITE_DEVICE_ID).value
    spki = public_key(chain[1], "the boot ROM").public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    start = bytes.fromhex("3081ba020101") + spki + bytes.fromhex("303d06096086480165030402020430")
    value = extension.value if isinstance(extension, x509.UnrecognizedExtension) else b""
    certified = value[len(start) :]
    if not value.startswith(start) or len(certified) != _SHA384_BYTES:
        raise VerificationRefused(Refusal.CHAIN, "the GPU's certificate has no firmware identity from its device")
    if reported is not None and not hmac.compare_digest(certified, reported):
        message = "the report names another firmware than its certificate"
        raise VerificationRefused(Refusal.FIRMWARE_IDENTITY, message)
    return certified

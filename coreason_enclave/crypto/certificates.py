"""Certificates, requests, revocation lists and OCSP answers of strangers: the one place where they are loaded.

``cryptography`` warns of what it reads and a later release will refuse (serial numbers that are not positive, names of
an odd length, keys out of use). A warning on somebody's terminal is no answer to hostile bytes, and where an operator
turns warnings into errors it would pass every handler of a room. Here each such oddity is a ``ValueError``, like any
other bytes that cannot be read.

The library reads most fields only when they are asked for: every field is asked for here, so that nothing warns later.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable
from typing import TypeVar

from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509 import ocsp

__all__ = [
    "load_certificate",
    "load_ocsp_response",
    "load_pem_certificates",
    "load_pem_request",
    "load_revocation_list",
]

_T = TypeVar("_T")

_ODDITIES: tuple[tuple[str, type[Warning]], ...] = (
    ("", CryptographyDeprecationWarning),
    ("Attribute's length must be", UserWarning),
)
"""Message and category of what the library warns of. As narrow as can be: filters hold for all threads meanwhile."""

_LOCK = threading.RLock()
"""The interpreter's filters are replaced and put back: one thread at a time."""

_OF_CERTIFICATE = ("issuer", "subject", "extensions", "not_valid_before_utc", "not_valid_after_utc", "public_key")
_OF_REQUEST = ("subject", "extensions", "attributes", "public_key")
_OF_LIST = ("issuer", "extensions", "last_update_utc", "next_update_utc")
_OF_ENTRY = ("extensions", "revocation_date_utc")
_OF_ANSWER = ("responder_name", "extensions", "single_extensions", "produced_at_utc", "serial_number")


def load_certificate(der: bytes) -> x509.Certificate:
    """One certificate in DER, no byte more; raises ``ValueError``."""
    return _read(lambda: x509.load_der_x509_certificate(der), lambda found: [(found, _OF_CERTIFICATE)])


def load_pem_certificates(text: bytes) -> list[x509.Certificate]:
    """The certificates of a PEM text, at least one; raises ``ValueError``."""
    return _read(lambda: x509.load_pem_x509_certificates(text), lambda found: ((one, _OF_CERTIFICATE) for one in found))


def load_pem_request(text: bytes) -> x509.CertificateSigningRequest:
    """A certificate request (PKCS#10) in PEM; raises ``ValueError``."""
    return _read(lambda: x509.load_pem_x509_csr(text), lambda found: [(found, _OF_REQUEST)])


def load_revocation_list(der: bytes) -> x509.CertificateRevocationList:
    """A revocation list in DER; raises ``ValueError``."""
    return _read(lambda: x509.load_der_x509_crl(der), _parts_of_list)


def load_ocsp_response(der: bytes) -> ocsp.OCSPResponse:
    """An OCSP responder's answer in DER, of whatever status; raises ``ValueError``."""
    return _read(lambda: ocsp.load_der_ocsp_response(der), _parts_of_answer)


def _parts_of_list(found: x509.CertificateRevocationList) -> Iterable[tuple[object, tuple[str, ...]]]:
    yield found, _OF_LIST
    for entry in found:
        yield entry, _OF_ENTRY


def _parts_of_answer(found: ocsp.OCSPResponse) -> Iterable[tuple[object, tuple[str, ...]]]:
    if found.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL:
        yield found, _OF_ANSWER
        for certificate in found.certificates:
            yield certificate, _OF_CERTIFICATE


def _read(load: Callable[[], _T], parts: Callable[[_T], Iterable[tuple[object, tuple[str, ...]]]]) -> _T:
    with _LOCK, warnings.catch_warnings():
        for message, category in _ODDITIES:
            warnings.filterwarnings("error", message=message, category=category)
        try:
            found = load()
            _ask_for_everything(found, parts)
        except Warning as odd:
            raise ValueError(" ".join(str(odd).split())) from odd
        return found


def _ask_for_everything(found: _T, parts: Callable[[_T], Iterable[tuple[object, tuple[str, ...]]]]) -> None:
    """Whatever a field raises besides a warning, it will raise again for the room that needs the field."""
    try:
        for part, names in parts(found):
            for name in names:
                _ask_for(part, name)
    except Warning:
        raise
    except Exception:  # noqa: BLE001, S110 - see above: what the parser raises for hostile bytes is not documented
        pass


def _ask_for(part: object, name: str) -> None:
    try:
        value = getattr(part, name)
        if name == "public_key":
            value()
    except Warning:
        raise
    except Exception:  # noqa: BLE001, S110 - as above, and the next field is asked for all the same
        pass

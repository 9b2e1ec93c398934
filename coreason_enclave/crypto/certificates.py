"""Load certificates, certificate requests, revocation lists and OCSP responses from untrusted sources.

No other module loads them, for two reasons:

- ``cryptography`` only warns about some input that a later release will refuse: non-positive serial numbers, names of
  an odd length, obsolete keys. A warning on an operator's terminal does not stop hostile bytes. Where an operator turns
  warnings into errors, the error would pass every handler of a room. Here each such oddity becomes a ``ValueError``,
  like any other unreadable bytes.
- The library reads most fields lazily. The loaders here read every field at once, so that no later access warns.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable
from typing import TypeVar

from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509 import ocsp

_T = TypeVar("_T")

_ODDITIES: tuple[tuple[str, type[Warning]], ...] = (
    ("", CryptographyDeprecationWarning),
    ("Attribute's length must be", UserWarning),
)
"""Message and category of the library's warnings. The filters affect all threads meanwhile: keep them narrow."""

_LOCK = threading.RLock()
"""Lets one thread at a time replace and restore the interpreter's warning filters."""

_OF_CERTIFICATE = ("issuer", "subject", "extensions", "not_valid_before_utc", "not_valid_after_utc", "public_key")
_OF_REQUEST = ("subject", "extensions", "attributes", "public_key")
_OF_LIST = ("issuer", "extensions", "last_update_utc", "next_update_utc")
_OF_ENTRY = ("extensions", "revocation_date_utc")
_OF_ANSWER = ("responder_name", "extensions", "single_extensions", "produced_at_utc", "serial_number")


def load_certificate(der: bytes) -> x509.Certificate:
    """Load one certificate from DER; raise ``ValueError`` for malformed input or trailing bytes."""
    return _read(lambda: x509.load_der_x509_certificate(der), lambda found: [(found, _OF_CERTIFICATE)])


def load_pem_certificates(text: bytes) -> list[x509.Certificate]:
    """Load the certificates of a PEM text; raise ``ValueError`` for malformed input or no certificate."""
    return _read(lambda: x509.load_pem_x509_certificates(text), lambda found: ((one, _OF_CERTIFICATE) for one in found))


def load_pem_request(text: bytes) -> x509.CertificateSigningRequest:
    """Load a certificate request (PKCS#10) from PEM; raise ``ValueError`` for malformed input."""
    return _read(lambda: x509.load_pem_x509_csr(text), lambda found: [(found, _OF_REQUEST)])


def load_revocation_list(der: bytes) -> x509.CertificateRevocationList:
    """Load a revocation list from DER; raise ``ValueError`` for malformed input."""
    return _read(lambda: x509.load_der_x509_crl(der), _parts_of_list)


def load_ocsp_response(der: bytes) -> ocsp.OCSPResponse:
    """Load an OCSP response of any status from DER; raise ``ValueError`` for malformed input."""
    return _read(lambda: ocsp.load_der_ocsp_response(der), _parts_of_answer)


def _parts_of_list(revocation_list: x509.CertificateRevocationList) -> Iterable[tuple[object, tuple[str, ...]]]:
    yield revocation_list, _OF_LIST
    for entry in revocation_list:
        yield entry, _OF_ENTRY


def _parts_of_answer(response: ocsp.OCSPResponse) -> Iterable[tuple[object, tuple[str, ...]]]:
    if response.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL:
        yield response, _OF_ANSWER
        for certificate in response.certificates:
            yield certificate, _OF_CERTIFICATE


def _read(load: Callable[[], _T], parts: Callable[[_T], Iterable[tuple[object, tuple[str, ...]]]]) -> _T:
    with _LOCK, warnings.catch_warnings():
        for message, category in _ODDITIES:
            warnings.filterwarnings("error", message=message, category=category)
        try:
            parsed = load()
            _read_all_parts(parsed, parts)
        except Warning as odd:
            raise ValueError(" ".join(str(odd).split())) from odd
        return parsed


def _read_all_parts(parsed: _T, parts: Callable[[_T], Iterable[tuple[object, tuple[str, ...]]]]) -> None:
    """Read every named field of every part, so that the library warns now.

    Any exception except a warning is dropped: the room that needs the field gets the same exception again.
    """
    try:
        for part, names in parts(parsed):
            for name in names:
                _read_part(part, name)
    except Warning:
        raise
    except Exception:  # noqa: BLE001, S110 - see above: what the parser raises for hostile bytes is not documented
        pass


def _read_part(part: object, name: str) -> None:
    try:
        value = getattr(part, name)
        if name == "public_key":
            value()
    except Warning:
        raise
    except Exception:  # noqa: BLE001, S110 - as above, and the next field is asked for all the same
        pass

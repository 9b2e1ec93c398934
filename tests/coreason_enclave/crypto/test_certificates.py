"""Hostile certificates are refused by one error: nothing is printed, and nothing passes where warnings are errors."""

from __future__ import annotations

import ast
import base64
import subprocess
import sys
import threading
import warnings
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

import aegis
import coreason_enclave
from coreason_enclave.crypto.certificates import (
    load_certificate,
    load_ocsp_response,
    load_pem_certificates,
    load_pem_request,
    load_revocation_list,
)

KEY = ec.generate_private_key(ec.SECP256R1())
SERIAL = 0x5A5A5A5A5A
LONG = "A" * 64


def name(text: str = LONG) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate() -> bytes:
    built = (
        x509.CertificateBuilder()
        .subject_name(name())
        .issuer_name(name("B" * 64))
        .public_key(KEY.public_key())
        .serial_number(SERIAL)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2040, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DirectoryName(name("C" * 64))]), critical=False)
    )
    return built.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)


def revocation_list() -> bytes:
    built = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(name())
        .last_update(datetime(2020, 1, 1, tzinfo=UTC))
        .next_update(datetime(2040, 1, 1, tzinfo=UTC))
    )
    return built.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)


def request() -> bytes:
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name())
        .sign(KEY, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )


def lengthened(der: bytes, letter: bytes) -> bytes:
    """The common name of 64 letters as a country: an attribute of the wrong length, in a document of the same size."""
    at = der.index(letter * 64)
    return der[: at - 3] + b"\x06" + der[at - 2 :]


def with_serial(content: bytes) -> bytes:
    return certificate().replace(SERIAL.to_bytes(5, "big"), content, 1)


HOSTILE = {
    "a negative serial number": with_serial(b"\xda" + bytes(4)),
    "a subject of an odd length": lengthened(certificate(), b"A"),
    "an issuer of an odd length": lengthened(certificate(), b"B"),
    "a name of an odd length in an extension": lengthened(certificate(), b"C"),
}


def pem(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("action", ["error", "always"])
def test_an_odd_certificate_is_unreadable_and_warns_nobody(what: str, action: str) -> None:
    with warnings.catch_warnings(record=True) as printed:
        warnings.simplefilter(action)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"serial number|length"):
            load_certificate(HOSTILE[what])
        with pytest.raises(ValueError, match=r"serial number|length"):
            load_pem_certificates(pem(certificate()) + pem(HOSTILE[what]))
    assert printed == []


def test_odd_lists_and_requests_are_unreadable_too() -> None:
    with pytest.raises(ValueError, match="length"):
        load_revocation_list(lengthened(revocation_list(), b"A"))
    der = x509.load_pem_x509_csr(request()).public_bytes(Encoding.DER)
    text = pem(lengthened(der, b"A")).replace(b"CERTIFICATE", b"CERTIFICATE REQUEST")
    with pytest.raises(ValueError, match="length"):
        load_pem_request(text)


def test_ordinary_certificates_lists_and_requests_are_read() -> None:
    assert load_certificate(certificate()).serial_number == SERIAL
    assert len(load_pem_certificates(pem(certificate()) * 2)) == 2
    assert load_revocation_list(revocation_list()).issuer == name()
    assert load_pem_request(request()).subject == name()


@pytest.mark.parametrize("data", [b"", b"\x30", b"x" * 100, bytes(1000), b"\x30\x03\x0a\x01\x09"])
def test_what_is_none_at_all_is_one_error(data: bytes) -> None:
    for load in (load_certificate, load_pem_certificates, load_pem_request, load_revocation_list, load_ocsp_response):
        with pytest.raises(ValueError):  # noqa: PT011 - the library's words
            load(data)


def test_many_threads_leave_the_interpreters_filters_as_they_were() -> None:
    before = list(warnings.filters)
    hostile = list(HOSTILE.values())
    refused: list[str] = []

    def read_all() -> None:
        for der in hostile * 20:
            try:
                load_certificate(der)
            except ValueError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=read_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 4 * 20 * len(hostile)
    assert list(warnings.filters) == before


def test_a_process_that_turns_warnings_into_errors_refuses_like_any_other(tmp_path: Path) -> None:
    for number, der in enumerate(HOSTILE.values()):
        (tmp_path / f"{number}.der").write_bytes(der)
    code = (
        "import sys, pathlib\n"
        "from coreason_enclave.crypto.certificates import load_certificate\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).glob('*.der')):\n"
        "    try: load_certificate(path.read_bytes())\n"
        "    except ValueError: print('refused')\n"
    )
    for action in ("error", "default"):
        command = [sys.executable, "-W", action, "-c", code, str(tmp_path)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.split() == ["refused"] * len(HOSTILE)


def test_certificates_are_loaded_in_one_module_alone() -> None:
    for package in (aegis, coreason_enclave):
        for path in Path(str(package.__file__)).parent.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    loads = node.value.id in {"x509", "ocsp"} and node.attr.startswith("load_")
                    assert not loads or path.name == "certificates.py", f"{path}: {node.attr}"

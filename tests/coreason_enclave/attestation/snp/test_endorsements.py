"""Endorsements as files: PEM or DER, one or several a file, certificates and revocation lists told apart."""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coreason_enclave.attestation.verify.snp import SnpEndorsements, SnpPlatformPolicy
from coreason_enclave.attestation.verify.verdict import Authentic, Refusal, VerificationRefused
from tests.coreason_enclave.attestation.snp.hierarchy import DATA, NOW, Vendor, verifier

GIVEN = Vendor().endorsements(lists=(Vendor().revocation_list(),))
LEAF, AUTHORITY, ROOT = GIVEN.certificates
(LIST,) = GIVEN.revocation_lists
REPORT = Vendor().report()


def pem(der: bytes, label: str = "CERTIFICATE", end: str = "\n") -> bytes:
    lines = textwrap.wrap(base64.b64encode(der).decode(), 64)
    return end.join((f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", "")).encode()


LAYOUTS = {
    "DER": [LEAF, AUTHORITY, ROOT, LIST],
    "PEM": [pem(LEAF), pem(AUTHORITY), pem(ROOT), pem(LIST, "X509 CRL")],
    "mixed, another order": [LIST, pem(ROOT), LEAF, pem(AUTHORITY)],
    "all in one": [pem(LEAF) + pem(LIST, "X509 CRL") + b"\n\n" + pem(AUTHORITY) + pem(ROOT)],
    "Windows": [b"\n" + pem(LEAF, end="\r\n") + pem(AUTHORITY, end="\r\n") + pem(ROOT), LIST],
    "given twice": [LEAF, pem(LEAF), AUTHORITY, pem(AUTHORITY) + pem(ROOT), LIST, LIST],
}


@pytest.mark.parametrize("files", LAYOUTS.values(), ids=LAYOUTS)
def test_files_are_sorted_into_certificates_and_lists(verdict: Callable[..., Authentic], files: list[bytes]) -> None:
    found = SnpEndorsements.from_files(files)

    assert (set(found.certificates), found.revocation_lists) == ({LEAF, AUTHORITY, ROOT}, (LIST,))
    assert "revocation" not in verdict(REPORT, found).not_checked


def refused(files: list[bytes]) -> Refusal:
    with pytest.raises(VerificationRefused) as error:
        SnpEndorsements.from_files(files)
    return error.value.refusal


BROKEN_FILES = {
    "empty": b"",
    "text": b"no certificate",
    "text before": b"subject=AMD\n" + pem(LEAF),
    "text between": pem(LEAF) + b"subject=AMD\n" + pem(AUTHORITY),
    "a private key": pem(LEAF, "PRIVATE KEY"),
    "a label that ends otherwise": pem(LEAF).replace(b"END CERTIFICATE", b"END X509 CRL"),
    "no end": pem(LEAF)[:-20],
    "no base64": pem(LEAF).replace(b"\nM", b"\nM===", 1),
    "an empty block": pem(b""),
    "DER with a byte behind it": LEAF + b"\0",
    "DER twice": LEAF + AUTHORITY,
    "an indefinite length": b"\x30\x80" + LEAF[4:] + b"\0\0",
    "a length that is not minimal": b"\x30\x83\0" + LEAF[2:],
}


@pytest.mark.parametrize("content", BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_a_file_with_anything_else_in_it_is_refused(content: bytes) -> None:
    assert refused([content]) is Refusal.MALFORMED


def test_more_than_there_can_be_is_refused() -> None:
    many = tuple(bytes([number]) for number in range(9))
    for make in (
        lambda: SnpEndorsements.from_files([pem(LEAF) * 200]),
        lambda: SnpEndorsements(many),
        lambda: SnpEndorsements((), many),
        lambda: SnpEndorsements((bytes(8193),)),
        lambda: SnpEndorsements((), (bytes(65537),)),
    ):
        with pytest.raises(VerificationRefused) as error:
            make()
        assert error.value.refusal is Refusal.OVERSIZED


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=400), st.binary(max_size=80).map(pem)), max_size=3))
def test_arbitrary_files_are_refused_or_sorted_and_nothing_else(files: list[bytes]) -> None:
    try:
        SnpEndorsements.from_files(files)
    except VerificationRefused:
        return
    assert files == []


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from([0, 1, 2, 3]),
    st.lists(st.tuples(st.integers(0, 3000), st.binary(max_size=6), st.integers(0, 6)), min_size=1, max_size=4),
)
def test_endorsements_with_bytes_changed_added_or_removed_are_never_accepted(
    which: int, edits: list[tuple[int, bytes, int]]
) -> None:
    files = [LEAF, AUTHORITY, ROOT, LIST]
    good = files[which]
    for at, new, removed in edits:
        start = at % (len(files[which]) + 1)
        files[which] = files[which][:start] + new + files[which][start + removed :]
    try:
        endorsements = SnpEndorsements.from_files(files)
        verifier().verify(REPORT, endorsements, SnpPlatformPolicy(), NOW, report_data=DATA)
    except VerificationRefused:
        return
    assert files[which] == good

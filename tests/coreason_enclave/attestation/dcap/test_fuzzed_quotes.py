"""Whatever arrives: a refusal of ours, nothing else, and never an acceptance."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coreason_enclave.attestation.verify.dcap import DcapEndorsements
from coreason_enclave.attestation.verify.dcap.quote import parse_quote
from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused
from tests.coreason_enclave.attestation.dcap.hierarchy import Intel

Verdict = Callable[..., str]
SETTINGS = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

WORLD = Intel(kind="tdx")
QUOTE = WORLD.quote(version=5)
DOCUMENT = WORLD.document()
ENDORSEMENTS = WORLD.endorsements()

_edits = st.lists(
    st.tuples(st.integers(0, len(QUOTE)), st.integers(0, 64), st.binary(max_size=64)), min_size=1, max_size=4
)


@SETTINGS
@given(st.binary(max_size=6000))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(VerificationRefused):
        parse_quote(data)


@SETTINGS
@given(
    st.sampled_from([(3, 0), (4, 0x81), (5, 0x81)]),
    st.binary(max_size=4000),
    st.integers(0, (1 << 32) - 1) | st.integers(0, 4000),
)
def test_random_bytes_behind_a_good_header_are_refused(
    verdict: Verdict, version: tuple[int, int], data: bytes, length: int
) -> None:
    header = struct.pack("<HHI", version[0], 2, version[1]) + QUOTE[8:48]
    body = struct.pack("<HI", 2, 584) if version[0] == 5 else b""
    evidence = header + body + bytes(384 if version[1] == 0 else 584) + struct.pack("<I", length) + data
    assert verdict(WORLD, quote=evidence, endorsements=ENDORSEMENTS) != "authentic"


@SETTINGS
@given(_edits)
def test_an_edited_quote_is_refused(verdict: Verdict, edits: list[tuple[int, int, bytes]]) -> None:
    edited = QUOTE
    for at, count, replacement in edits:
        edited = edited[:at] + replacement + edited[at + count :]
    if edited != QUOTE:
        assert verdict(WORLD, quote=edited, endorsements=ENDORSEMENTS) != "authentic"


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@SETTINGS
@given(st.sampled_from(sorted(DOCUMENT)), _json | st.binary(max_size=200).map(bytes.hex))
def test_collateral_with_a_foreign_value_in_any_field_is_refused(verdict: Verdict, name: str, value: object) -> None:
    document = json.dumps({**DOCUMENT, name: value}).encode()
    assert verdict(WORLD, quote=QUOTE, endorsements=DcapEndorsements(document)) != "authentic"


@SETTINGS
@given(st.sampled_from(["tcb_info", "qe_identity"]), st.data())
def test_signed_documents_with_foreign_values_are_refused_even_under_a_good_signature(
    verdict: Verdict, name: str, data: st.DataObject
) -> None:
    """What Intel would never sign has to end as a refusal, too."""
    said = json.loads(DOCUMENT[name])
    key = data.draw(st.sampled_from(sorted(set(said) - {"tcbEvaluationDataNumber", "tcbType"})))
    value = data.draw(_json)
    text = json.dumps({**said, key: value})
    signature = WORLD.party("signing").sign(text.encode()).hex()
    document = {**DOCUMENT, name: text, f"{name}_signature": signature}
    said_back = verdict(WORLD, quote=QUOTE, endorsements=DcapEndorsements(json.dumps(document).encode()))
    assert said_back in {"authentic", *Refusal}


@SETTINGS
@given(st.binary(max_size=400))
def test_random_collateral_is_refused(verdict: Verdict, data: bytes) -> None:
    assert verdict(WORLD, quote=QUOTE, endorsements=DcapEndorsements(data)) == "malformed"

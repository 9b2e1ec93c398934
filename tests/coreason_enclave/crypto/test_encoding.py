from __future__ import annotations

import contextlib
import hashlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreason_enclave.crypto.encoding import canonical_json, digest, frame, parse_json, sha256_hex
from coreason_enclave.errors import EnvelopeError, Reason

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=20
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=5)


@given(OBJECTS)
def test_a_document_survives_encoding_and_parsing(document: dict[str, Any]) -> None:
    assert parse_json(canonical_json(document)) == document


@given(OBJECTS)
def test_the_encoding_does_not_depend_on_the_order_of_keys(document: dict[str, Any]) -> None:
    backwards = dict(reversed(document.items()))
    assert canonical_json(backwards) == canonical_json(document)


@given(OBJECTS)
def test_the_encoding_is_ascii_without_white_space_between_tokens(document: dict[str, Any]) -> None:
    encoded = canonical_json(document)
    assert encoded.isascii()
    assert b"\n" not in encoded
    assert json.dumps(json.loads(encoded), sort_keys=True, separators=(",", ":")).encode() == encoded


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_json_number_is_not_written(number: float) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json({"epsilon": number})


REFUSED: dict[str, bytes] = {
    "nothing": b"",
    "a list": b"[]",
    "a number": b"1",
    "null": b"null",
    "a key twice": b'{"a":1,"a":2}',
    "a key twice, deep inside": b'{"a":[{"b":1,"b":1}]}',
    "a key twice through an escape": b'{"a":1,"\\u0061":2}',
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":Infinity}',
    "-Infinity": b'{"a":-Infinity}',
    "a trailing comma": b'{"a":1,}',
    "a comment": b'{"a":1}//x',
    "two documents": b"{}{}",
    "single quotes": b"{'a':1}",
    "a byte that is not UTF-8": b'{"a":"\xff"}',
    "a nesting that exhausts the stack": b'{"a":' + b"[" * 200_000,
    "an integer too long to convert": b'{"a":' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_plain_object_is_refused_by_a_typed_error(data: bytes) -> None:
    with pytest.raises(EnvelopeError) as refused:
        parse_json(data)
    assert refused.value.reason is Reason.MALFORMED


def test_the_size_limit_is_exact_and_checked_before_parsing() -> None:
    assert parse_json(b"{}", limit=2) == {}
    with pytest.raises(EnvelopeError) as refused:
        parse_json(b"not json", limit=2)
    assert refused.value.reason is Reason.OVERSIZED


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_parsed_or_refused_and_never_crash(data: bytes) -> None:
    with contextlib.suppress(EnvelopeError):
        assert isinstance(parse_json(data), dict)


def _unframe(data: bytes) -> list[bytes]:
    parts = []
    while data:
        size = int.from_bytes(data[:8], "big")
        parts.append(data[8 : 8 + size])
        data = data[8 + size :]
    return parts


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_a_frame_can_be_taken_apart_again_so_no_two_sequences_share_one(parts: list[bytes]) -> None:
    assert _unframe(frame(*parts)) == parts


def test_the_frame_is_eight_big_endian_length_bytes_before_each_part() -> None:
    assert frame(b"ab", b"") == b"\0\0\0\0\0\0\0\x02ab\0\0\0\0\0\0\0\0"


@given(st.lists(st.binary(max_size=8), max_size=3), st.lists(st.binary(max_size=8), max_size=3))
def test_digests_agree_exactly_where_the_sequences_do(one: list[bytes], two: list[bytes]) -> None:
    assert (digest("d", *one) == digest("d", *two)) == (one == two)


def test_a_digest_belongs_to_its_domain_and_is_plain_sha256() -> None:
    assert digest("a", b"b") != digest("b", b"a")
    assert digest("a", b"b") == hashlib.sha256(bytes([0] * 7 + [1]) + b"a" + bytes([0] * 7 + [1]) + b"b").digest()
    # FIPS 180-4 example: SHA-256 of "abc"
    assert sha256_hex(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

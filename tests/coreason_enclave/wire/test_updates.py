from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from coreason_enclave.crypto.encoding import sha256_hex
from coreason_enclave.errors import EnvelopeError, Reason
from coreason_enclave.wire.updates import decode_arrays, encode_arrays, layout_of, model_digest

NAMES = st.from_regex(r"[a-z][a-z0-9_.]{0,20}", fullmatch=True)
ARRAYS = st.dictionaries(
    NAMES, hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)), max_size=4
)
LIMIT = 1 << 20


@given(ARRAYS)
def test_arrays_survive_the_wire_bit_for_bit(arrays: dict[str, Any]) -> None:
    decoded = decode_arrays(encode_arrays(arrays), limit=LIMIT)
    assert layout_of(decoded) == layout_of(arrays)
    assert all(decoded[name].tobytes() == arrays[name].tobytes() for name in arrays)
    assert all(array.dtype == np.float32 for array in decoded.values())


@given(ARRAYS)
def test_the_bytes_do_not_depend_on_order_or_memory_layout(arrays: dict[str, Any]) -> None:
    shuffled = {name: np.array(arrays[name], order="F") for name in reversed(arrays)}
    assert encode_arrays(shuffled) == encode_arrays(arrays)
    assert model_digest(shuffled) == model_digest(arrays) == sha256_hex(encode_arrays(arrays))


@given(ARRAYS.filter(lambda arrays: sum(array.size for array in arrays.values()) > 0), st.data())
def test_another_value_shape_or_name_is_another_model(arrays: dict[str, Any], data: Any) -> None:
    name = data.draw(st.sampled_from([name for name in arrays if arrays[name].size]))
    flipped = bytearray(arrays[name].tobytes())
    flipped[data.draw(st.integers(0, len(flipped) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    other = np.frombuffer(bytes(flipped), np.float32).reshape(arrays[name].shape)
    digest = model_digest(arrays)
    assert model_digest({**arrays, name: other}) != digest
    assert model_digest({**arrays, name: arrays[name][None]}) != digest
    assert model_digest({**{n: a for n, a in arrays.items() if n != name}, name + "!": arrays[name]}) != digest


def test_values_that_only_look_equal_are_told_apart() -> None:
    assert model_digest({"w": np.array([0.0], np.float32)}) != model_digest({"w": np.array([-0.0], np.float32)})


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.uint8, np.bool_])
def test_only_float32_is_read(dtype: Any) -> None:
    data = safetensors.numpy.save({"good": np.ones(1, np.float32), "bad": np.ones(1, dtype)})
    with pytest.raises(EnvelopeError, match="bad is not"):
        decode_arrays(data, limit=LIMIT)


def test_bfloat16_is_refused_by_a_typed_error() -> None:
    header = b'{"w":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    with pytest.raises(EnvelopeError):
        decode_arrays(len(header).to_bytes(8, "little") + header + b"\0\0", limit=LIMIT)


def test_the_size_limit_is_exact_and_comes_first() -> None:
    data = encode_arrays({"w": np.ones(3, np.float32)})
    assert decode_arrays(data, limit=len(data))
    with pytest.raises(EnvelopeError) as refused:
        decode_arrays(data, limit=len(data) - 1)
    assert refused.value.reason is Reason.OVERSIZED


class _Bomb:
    def __reduce__(self) -> Any:
        return pytest.fail, ("a pickle was executed",)


def test_a_pickle_is_never_executed() -> None:
    with pytest.raises(EnvelopeError):
        decode_arrays(pickle.dumps(_Bomb()), limit=LIMIT)


def _document(header: bytes, body: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + body


MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "a short length": b"\0\0\0",
    "a header longer than the file": (1 << 40).to_bytes(8, "little") + b"{}",
    "a header that is no JSON": _document(b"{w}"),
    "offsets outside the body": _document(b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'),
    "offsets that contradict the shape": _document(b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', bytes(4)),
    "overlapping arrays": _document(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        bytes(4),
    ),
    "bytes that belong to no array": _document(b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(8)),
    "a shape that overflows": _document(
        b'{"w":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,0]}}'
    ),
    "a negative shape": _document(b'{"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,0]}}'),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_bytes_are_refused_by_a_typed_error(data: bytes) -> None:
    with pytest.raises(EnvelopeError):
        decode_arrays(data, limit=LIMIT)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_by_a_typed_error_or_are_float32_arrays(data: bytes) -> None:
    try:
        arrays = decode_arrays(data, limit=LIMIT)
    except EnvelopeError:
        return
    assert all(array.dtype == np.float32 for array in arrays.values())


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_spoilt_byte_is_refused_or_changes_the_digest(at: int, mask: int) -> None:
    data = bytearray(encode_arrays({"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(1, np.float32)}))
    good = sha256_hex(bytes(data))
    data[at % len(data)] ^= mask
    try:
        decode_arrays(bytes(data), limit=LIMIT)
    except EnvelopeError:
        return
    assert sha256_hex(bytes(data)) != good

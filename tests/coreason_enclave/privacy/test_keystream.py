"""The keystream is ChaCha20, its draws share nothing, and its samples have the distribution that accounting assumes."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binomtest, kstest

from coreason_enclave.crypto.keystream import Keystream, Purpose

Make = Callable[..., Keystream]
MANY = 1_000_000


def chacha20(key: bytes, nonce: bytes, counter: int, length: int) -> bytes:
    """RFC 8439, section 2.3 and 2.4, word by word."""
    constants = [int.from_bytes(b"expand 32-byte k"[i : i + 4], "little") for i in range(0, 16, 4)]
    words = [int.from_bytes((key + bytes(4) + nonce)[i : i + 4], "little") for i in range(0, 48, 4)]
    stream = b""
    while len(stream) < length:
        words[8] = counter
        state = [*constants, *words]
        block = list(state)
        for _ in range(10):
            for a, b, c, d in ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)):
                quarter_round(block, a, b, c, d)
            for a, b, c, d in ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)):
                quarter_round(block, a, b, c, d)
        added = [(one + other) % 2**32 for one, other in zip(block, state, strict=True)]
        stream += b"".join(word.to_bytes(4, "little") for word in added)
        counter += 1
    return stream[:length]


def quarter_round(x: list[int], a: int, b: int, c: int, d: int) -> None:
    for target, source, changed, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        x[target] = (x[target] + x[source]) % 2**32
        mixed = x[changed] ^ x[target]
        x[changed] = (mixed << bits | mixed >> (32 - bits)) % 2**32


def test_the_reference_in_this_file_is_chacha20() -> None:
    """RFC 8439, section 2.4.2 (the key stream of the sunscreen message) and appendix A.1, vector 1."""
    sunscreen = chacha20(bytes(range(32)), bytes.fromhex("000000000000004a00000000"), 1, 32)

    assert sunscreen.hex() == "224f51f3401bd9e12fde276fb8631ded8c131f823d2c06e27e4fcaec9ef3cf78"
    assert chacha20(bytes(32), bytes(12), 0, 16).hex() == "76b8e0ada0f13d90405d6ae55386bd28"


def framed(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def test_a_draw_is_chacha20_under_a_key_made_of_its_whole_name(keystreams: Make) -> None:
    stream = keystreams(9, job_digest="aa" * 32, round_number=3, base_model_digest="bb", dataset_digest="cc")
    context = framed(b"aegis/keystream/v1", b"\xaa" * 32, (3).to_bytes(8, "big"), b"\xbb", b"\xcc")
    round_key = hmac.digest(bytes([9]) * 32, context, hashlib.sha256)
    draw_key = hmac.digest(round_key, framed(b"noise", (7).to_bytes(8, "big"), b"layer.weight"), hashlib.sha256)

    assert stream.bytes(200, Purpose.NOISE, 7, "layer.weight") == chacha20(draw_key, bytes(12), 0, 200)


DIFFERENT_NAMES = {
    "another key": ({"key": 1}, {}),
    "another job": ({"job_digest": "ff"}, {}),
    "another round": ({"round_number": 2}, {}),
    "another base model": ({"base_model_digest": "ff"}, {}),
    "another dataset": ({"dataset_digest": "ff"}, {}),
    "the same digests the other way round": ({"base_model_digest": "02", "dataset_digest": "01"}, {}),
    "another purpose": ({}, {"purpose": Purpose.SAMPLING}),
    "another step": ({}, {"step": 1}),
    "another tensor": ({}, {"tensor": "bias"}),
}


@pytest.mark.parametrize(("stream", "draw"), DIFFERENT_NAMES.values(), ids=DIFFERENT_NAMES)
def test_draws_of_different_names_are_independent(keystreams: Make, stream: dict, draw: dict) -> None:
    name = {"purpose": Purpose.NOISE, "step": 0, "tensor": "weight"}
    one = keystreams().normal(100_000, **name)
    other = keystreams(**stream).normal(100_000, **{**name, **draw})

    assert not np.isin(one, other).any()
    assert abs(np.corrcoef(one, other)[0, 1]) < 4.5 / np.sqrt(100_000)


def test_the_same_name_gives_the_same_bytes_in_another_process_life(keystreams: Make) -> None:
    assert keystreams(4).bytes(64, Purpose.NOISE, 5, "w") == keystreams(4).bytes(64, Purpose.NOISE, 5, "w")


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Keystream(bytes(length), job_digest="00", round_number=1, base_model_digest="00", dataset_digest="00")


def is_standard_normal(samples: np.ndarray) -> bool:
    """Kolmogorov and Smirnov at 1e-4; a million samples tell a scale of 2 % apart."""
    return bool(kstest(samples, "norm").pvalue > 1e-4)


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    stream = Keystream(bytes(32), job_digest="00", round_number=1, base_model_digest="01", dataset_digest="02")
    return stream.normal(MANY, Purpose.NOISE, 0, "weight")


@pytest.mark.parametrize(("scale", "accepted"), [(1.0, True), (0.98, False), (1.02, False)])
def test_gaussian_samples_have_scale_one_and_no_other(samples: np.ndarray, scale: float, accepted: bool) -> None:
    assert is_standard_normal(samples * scale) is accepted


def test_the_tails_are_gaussian_too(samples: np.ndarray) -> None:
    beyond = int((np.abs(samples) > 4).sum())

    assert binomtest(beyond, MANY, 6.334e-5).pvalue > 1e-4
    assert np.abs(samples).max() < 9.42


def test_the_two_samples_of_a_pair_are_independent(samples: np.ndarray) -> None:
    first, second = samples[: MANY // 2], samples[MANY // 2 :]
    bound = 4.5 / np.sqrt(MANY // 2)

    assert abs(np.corrcoef(first, second)[0, 1]) < bound
    assert abs(np.corrcoef(first**2, second**2)[0, 1]) < bound
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < bound


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_any_number_of_samples_can_be_drawn(keystreams: Make, count: int) -> None:
    assert keystreams().normal(count, Purpose.NOISE, 0).shape == (count,)


@pytest.mark.parametrize("probability", [0.001, 0.05, 0.5, 0.999])
def test_a_bernoulli_draw_has_its_probability(keystreams: Make, probability: float) -> None:
    drawn = int(keystreams().bernoulli(MANY, probability, 0).sum())

    assert binomtest(drawn, MANY, probability).pvalue > 1e-4
    assert binomtest(drawn, MANY, probability * 0.8).pvalue < 1e-4


def test_a_rate_of_one_takes_everybody(keystreams: Make) -> None:
    assert keystreams().bernoulli(1000, 1.0, 0).all()

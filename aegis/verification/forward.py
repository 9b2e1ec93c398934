"""Evaluates the agent's own architectures in NumPy: values in float64, with a bound on the error of float32.

A layer computed in float32 differs from the exact sum by at most ``(k + 2) u`` times the sum of absolute products, with
``k`` terms and ``u = 2**-24``, for any order of the sum (Higham, "Accuracy and Stability of Numerical Algorithms",
2002, section 3.1). tanh has an error of a few ``u``, and changes by no more than its steepest slope within a bound.
Each layer passes its bounds to the next layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aegis.errors import VerificationFailed
from coreason_enclave.wire import Arrays

_U = 2.0**-24
_TANH = 8 * _U

_Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Logits:
    """Values, and for each value the largest error of a float32 computation; both of the same shape."""

    value: _Float64
    bound: _Float64


def forward(arch: str, arrays: Arrays, features: _Float64) -> Logits:
    """Return logits of shape (n, classes) for an architecture in :data:`KNOWN`; a single logit z becomes (0, z).

    Raises:
        VerificationFailed: weights or features do not fit the architecture.
    """
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            return KNOWN[arch](arrays, Logits(features, np.zeros_like(features)))
    except (KeyError, ValueError, IndexError) as error:
        raise VerificationFailed(f"the model or the evaluation set does not fit {arch}: {error}") from error


def _linear(arrays: Arrays, name: str, given: Logits) -> Logits:
    weight, bias = (arrays[f"{name}.{part}"].astype(np.float64) for part in ("weight", "bias"))
    sizes = np.abs(given.value) @ np.abs(weight).T + np.abs(bias)
    bound = given.bound @ np.abs(weight).T + (weight.shape[1] + 2) * _U * sizes
    return Logits(given.value @ weight.T + bias, bound)


def _tanh(given: Logits) -> Logits:
    nearest = np.maximum(np.abs(given.value) - given.bound, 0.0)  # nearest to zero, where tanh is steepest
    return Logits(np.tanh(given.value), given.bound * (1.0 - np.tanh(nearest) ** 2) + _TANH)


def _flat(given: Logits) -> Logits:
    return Logits(given.value.reshape(len(given.value), -1), given.bound.reshape(len(given.bound), -1))


def _halving(arrays: Arrays, name: str, given: Logits) -> Logits:
    """Apply a convolution of 3 x 3 with stride 2 and padding 1, as a linear layer over patches."""
    weight, bias = arrays[f"{name}.weight"], arrays[f"{name}.bias"]
    patches = Logits(_patches(given.value), _patches(given.bound))
    n, rows, columns, width = patches.value.shape
    flat = Logits(patches.value.reshape(-1, width), patches.bound.reshape(-1, width))
    done = _linear({"c.weight": weight.reshape(len(weight), -1), "c.bias": bias}, "c", flat)
    value, bound = (part.reshape(n, rows, columns, -1).transpose(0, 3, 1, 2) for part in (done.value, done.bound))
    return Logits(value, bound)


def _patches(images: _Float64) -> _Float64:
    """Turn (n, channels, rows, columns) into (n, rows / 2, columns / 2, channels * 9), rounded up."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    n, channels, rows, columns = windows.shape[:4]
    return np.ascontiguousarray(windows.transpose(0, 2, 3, 1, 4, 5).reshape(n, rows, columns, channels * 9))


def _linear_alone(arrays: Arrays, given: Logits) -> Logits:
    return _classes(_linear(arrays, "linear", _flat(given)))


def _mlp(arrays: Arrays, given: Logits) -> Logits:
    hidden = _flat(given)
    for level in range(sum(name.startswith("layers.") for name in arrays) // 2):
        hidden = _tanh(_linear(arrays, f"layers.{level}", hidden))
    return _classes(_linear(arrays, "output", hidden))


def _cnn(arrays: Arrays, given: Logits) -> Logits:
    hidden = given
    for level in range(sum(name.startswith("layers.") for name in arrays) // 2):
        hidden = _tanh(_halving(arrays, f"layers.{level}", hidden))
    return _classes(_linear(arrays, "output", _flat(hidden)))


def _text_embedding(arrays: Arrays, given: Logits) -> Logits:
    table = arrays["embedding.weight"].astype(np.float64)
    features, last = _flat(given).value.astype(np.float32), len(table) - 1
    tokens = np.clip(np.rint((features + np.float32(1)) * np.float32(last / 2)).astype(np.int64), 0, last)
    words = (tokens > 0)[:, :, None]
    vectors, count = table[tokens] * words, np.maximum(words.sum(axis=1), 1)
    bound = (tokens.shape[1] + 3) * _U * np.abs(vectors).sum(axis=1) / count
    return _classes(_linear(arrays, "output", Logits(vectors.sum(axis=1) / count, bound)))


def _classes(one: Logits) -> Logits:
    """Return a logit for each class: a single logit z stands for (0, z)."""
    if one.value.shape[1] > 1:
        return one
    zero = np.zeros_like(one.value)
    return Logits(np.concatenate([zero, one.value], axis=1), np.concatenate([zero, one.bound], axis=1))


def _simple_mlp(arrays: Arrays, given: Logits) -> Logits:
    return _linear(arrays, "output", _tanh(_linear(arrays, "hidden", _flat(given))))


def _small_cnn(arrays: Arrays, given: Logits) -> Logits:
    hidden = _tanh(_halving(arrays, "conv2", _tanh(_halving(arrays, "conv1", given))))
    return _linear(arrays, "output", _flat(hidden))


KNOWN: Mapping[str, Callable[[Arrays, Logits], Logits]] = {
    "LogisticRegression": _linear_alone,
    "Linear": _linear_alone,
    "MLP": _mlp,
    "CNN": _cnn,
    "TextEmbedding": _text_embedding,
    "SimpleMLP": _simple_mlp,
    "SmallCNN": _small_cnn,
}
"""Architectures by their name in a job. A site's own code may use the same name for another; no run uses that one."""

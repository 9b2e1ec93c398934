"""Layers with per-row gradients; all other layers with parameters, or known to mix rows, are refused by name.

An attached layer changes its class to a subclass that computes the same function through
:mod:`~coreason_enclave.privacy.kernel.products`. The layer keeps its parameters, its names and its place in the model.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, ClassVar, Final

import torch
from torch import nn
from torch.nn import functional

from coreason_enclave.errors import UnsafeTrainingError
from coreason_enclave.privacy.kernel.products import affine, looked_up, product
from coreason_enclave.privacy.kernel.recording import Recorder

_REPLACED_BY: Final[dict[type[Any], str]] = {
    nn.modules.batchnorm._NormBase: (
        "statistics over the batch or over several batches: BatchNorm becomes GroupNorm or LayerNorm "
        "(opacus.validators.ModuleValidator.fix(model) replaces it), InstanceNorm becomes GroupNorm(channels, channels)"
    ),
    nn.modules.dropout._DropoutNd: "its mask depends on the row's position: leave the layer out; the noise regularises",
    nn.RNNBase: "recurrent layers are not supported yet: use convolutions or linear layers over a window",
    nn.RNNCellBase: "recurrent layers are not supported yet: use convolutions or linear layers over a window",
    nn.MultiheadAttention: "it uses weights outside a layer: build attention from Linear layers",
    nn.EmbeddingBag: "use Embedding and a mean over dimension 1",
    nn.modules.lazy.LazyModuleMixin: "run the model once on a row of zeros, so that the parameters get shapes",
}


class RecordedLayer:
    """Marks an attached layer. Copies and unpickled layers become plain layers again."""

    _plain: ClassVar[type[nn.Module]]
    _name: str
    _recorder: Recorder

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied = self._plain.__new__(self._plain)
        memo[id(self)] = copied
        copied.__dict__.update(deepcopy(self._own_state(), memo))
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _unpickled, (self._plain, self._own_state())

    def _own_state(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_recorder", "_name")}

    def _value(self, name: str) -> Any:
        """Return the parameter ``name``, or the rehearsal's replacement for the parameter."""
        own = getattr(self, name)
        if own is None or self._recorder.values is None:
            return own
        return self._recorder.values(self._name).get(name, own)

    def _entry(self, rows: int, positions: int) -> Any:
        return self._recorder.entry(self._name, rows, positions)


def _unpickled(kind: type[nn.Module], state: dict[str, Any]) -> nn.Module:
    layer = kind.__new__(kind)
    layer.__dict__.update(state)
    return layer


class RecordedLinear(RecordedLayer, nn.Linear):
    _plain = nn.Linear

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's own name
        if input.dim() < 2:
            raise UnsafeTrainingError(f"layer {self._name!r} received a tensor without a batch dimension")
        flat = input.reshape(-1, self.in_features)
        entry = self._entry(len(input), len(flat) // max(len(input), 1))
        output = product(flat, self._value("weight"), self._value("bias"), entry)
        return output.view(*input.shape[:-1], self.out_features)


class _Convolution(RecordedLayer):
    """Multiplies an image's patches by the kernel: one position per patch."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's own name
        layer: Any = self
        if input.dim() != len(layer.kernel_size) + 2:
            raise UnsafeTrainingError(f"layer {self._name!r} received a tensor without a batch dimension")
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        image = functional.pad(input, layer._reversed_padding_repeated_twice, mode=mode)
        flat = image.dim() == 3
        if flat:
            image = image.unsqueeze(2)
        spans = (layer.kernel_size, layer.stride, layer.dilation)
        kernel, stride, dilation = ((1, *span) if flat else span for span in spans)
        patches = functional.unfold(image, kernel, dilation, 0, stride).transpose(1, 2)
        rows, positions, inner = patches.shape
        entry = self._entry(rows, positions)
        weight = self._value("weight").reshape(layer.out_channels, -1)
        output = product(patches.reshape(rows * positions, inner), weight, self._value("bias"), entry)
        output = output.view(rows, positions, layer.out_channels).transpose(1, 2)
        axes = zip(image.shape[2:], kernel, stride, dilation, strict=True)
        sizes = [(size - apart * (width - 1) - 1) // step + 1 for size, width, step, apart in axes]
        return output.reshape(rows, layer.out_channels, *(sizes[1:] if flat else sizes))


class RecordedConv1d(_Convolution, nn.Conv1d):
    _plain = nn.Conv1d


class RecordedConv2d(_Convolution, nn.Conv2d):
    _plain = nn.Conv2d


class RecordedEmbedding(RecordedLayer, nn.Embedding):
    _plain = nn.Embedding

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's own name
        entry = self._entry(len(input), input.numel() // max(len(input), 1))
        return looked_up(input, self._value("weight"), entry)


class RecordedLayerNorm(RecordedLayer, nn.LayerNorm):
    _plain = nn.LayerNorm

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's own name
        normal = functional.layer_norm(input, self.normalized_shape, None, None, self.eps)
        positions = input[0].numel() // self.weight.numel() if len(input) else 0
        return affine(normal, self._value("weight"), self._value("bias"), self._entry(len(input), positions))


class RecordedGroupNorm(RecordedLayer, nn.GroupNorm):
    _plain = nn.GroupNorm

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's own name
        normal = functional.group_norm(input, self.num_groups, None, None, self.eps)
        shape = (-1, *([1] * (input.dim() - 2)))
        positions = input[0].numel() // self.num_channels if len(input) else 0
        entry = self._entry(len(input), positions)
        return affine(normal, self._value("weight").view(shape), self._value("bias").view(shape), entry)


_RECORDED: Final[dict[type[nn.Module], type[Any]]] = {
    kind._plain: kind
    for kind in (
        RecordedLinear,
        RecordedConv1d,
        RecordedConv2d,
        RecordedEmbedding,
        RecordedLayerNorm,
        RecordedGroupNorm,
    )
}


def attach_layers(model: nn.Module, recorder: Recorder) -> dict[str, nn.Module]:
    """Let every layer of ``model`` record its rows; return the layers with parameters, by name.

    Raises:
        UnsafeTrainingError: a layer has no per-row gradient, or two places share a parameter; no layer has changed.
    """
    require_recordable(model)
    layers = _with_parameters(model)
    for name, layer in layers.items():
        if not isinstance(layer, RecordedLayer):
            layer.__class__ = _RECORDED[type(layer)]
        layer.__dict__["_recorder"], layer.__dict__["_name"] = recorder, name
    return layers


def require_recordable(model: nn.Module) -> None:
    """Raise :class:`UnsafeTrainingError` for layers without per-row gradients; name them and their fix."""
    problems = [
        *(problem for name, module in model.named_modules() if (problem := _problem_of(name, module))),
        *_shared(_with_parameters(model)),
    ]
    if problems:
        raise UnsafeTrainingError(f"the model has layers without per-row gradients: {'; '.join(problems[:3])}")


def _with_parameters(model: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if list(module.parameters(recurse=False))}


def detach_layers(layers: dict[str, nn.Module], recorder: Recorder) -> None:
    """Restore each layer's original class, unless another guard has attached the layer since."""
    for layer in layers.values():
        if isinstance(layer, RecordedLayer) and layer._recorder is recorder:
            del layer.__dict__["_recorder"], layer.__dict__["_name"]
            plain: Any = layer._plain
            layer.__class__ = plain


def _problem_of(name: str, layer: nn.Module) -> str | None:
    kind = type(layer)
    called = f"{name or 'the model'!r} ({kind.__name__})"
    for refused, instead in _REPLACED_BY.items():
        if isinstance(layer, refused) and not _idle(layer):
            return f"{called}: {instead}"
    if not list(layer.parameters(recurse=False)):
        return None
    if kind not in _RECORDED and not isinstance(layer, RecordedLayer):
        known = ", ".join(sorted(one.__name__ for one in _RECORDED))
        return f"{called} has its own parameters: move them into the layers supported row by row ({known})"
    return f"{called}: {_option_of(layer)}" if _option_of(layer) else None


def _idle(layer: nn.Module) -> bool:
    """Return True for dropout of probability 0, which drops no value."""
    return isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p == 0.0


def _option_of(layer: Any) -> str | None:
    if isinstance(layer, nn.Conv1d | nn.Conv2d) and layer.groups != 1:
        return "groups is not supported row by row yet: use groups=1"
    if isinstance(layer, nn.Embedding):
        if layer.max_norm is not None:
            return "max_norm changes weights depending on the batch: leave max_norm out"
        if layer.scale_grad_by_freq:
            return "scale_grad_by_freq weights a row by other rows: leave scale_grad_by_freq out"
        if layer.sparse:
            return "sparse gradients are not supported row by row: leave sparse out"
    if any(parameter.dtype not in (torch.float32, torch.float64) for parameter in layer.parameters()):
        return "parameters must be float32 or float64"
    return None


def _shared(layers: dict[str, nn.Module]) -> list[str]:
    owner: dict[int, str] = {}
    return [
        f"{name!r} and {owner[id(parameter)]!r} share a parameter: give each layer its own parameter"
        for name, layer in layers.items()
        for parameter in layer.parameters(recurse=False)
        if owner.setdefault(id(parameter), name) != name
    ]

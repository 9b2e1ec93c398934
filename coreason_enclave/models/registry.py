"""Model architectures by name: a closed registry that a site extends in its own code, never from the wire.

A job names an architecture and gives it whole numbers. The registry looks the name up, never imports it, and refuses a
model larger than :data:`MAX_PARAMETERS` before allocating its memory.

Initial weights are public: they follow from the name and the arguments alone, and anyone can recompute them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from coreason_enclave.crypto import canonical_json, digest
from coreason_enclave.errors import ConfigurationError, JobRejected, Reason
from coreason_enclave.models.architectures import (
    CNN,
    MLP,
    Linear,
    LogisticRegression,
    SimpleMLP,
    SmallCNN,
    TabularResNet,
    TextEmbedding,
)
from coreason_enclave.models.tasks import TaskLoss, predicted
from coreason_enclave.schemas import Task, TaskConfig
from coreason_enclave.system import did_you_mean
from coreason_enclave.wire import Array, Arrays

MAX_PARAMETERS = 50_000_000

Builder = Callable[..., nn.Module]
Initialiser = Callable[[nn.Module, torch.Generator], None]


@dataclass(frozen=True)
class Model:
    """A built architecture. ``criterion(module(features), labels)`` is the mean loss over a batch."""

    name: str
    module: nn.Module
    task: TaskConfig
    criterion: nn.Module


@dataclass(frozen=True)
class _Architecture:
    builder: Builder
    task: Task
    initialise: Initialiser


_REGISTRY: dict[str, _Architecture] = {}


def register(name: str, builder: Builder, *, task: Task, initialise: Initialiser | None = None) -> None:
    """Add an architecture, from the site's own code.

    Args:
        name: the name for jobs to use.
        builder: takes whole numbers by keyword, returns the module; its keyword arguments are the job's ``model_args``.
        task: the task of a job that names none.
        initialise: fills the parameters in place; default: :func:`glorot_uniform`.

    Raises:
        ConfigurationError: another architecture already has the name.
    """
    entry = _Architecture(builder, task, glorot_uniform if initialise is None else initialise)
    if _REGISTRY.setdefault(name, entry) != entry:
        raise ConfigurationError(f"architecture {name!r} is already registered: choose another name")


def known_architectures() -> tuple[str, ...]:
    """Return the registered names, sorted."""
    return tuple(sorted(_REGISTRY))


def build(name: str, args: Mapping[str, int], task: TaskConfig | None = None) -> Model:
    """Return the architecture with allocated parameters, whose values are arbitrary until loaded.

    Args:
        task: the job's task; None: the architecture's own.

    Raises:
        JobRejected: unknown name, unsuitable arguments, or a model above :data:`MAX_PARAMETERS`.
    """
    entry = _checked(name, args)
    task = task_of(name, task)
    return Model(name, entry.builder(**args), task, TaskLoss(task))


def task_of(name: str, task: TaskConfig | None) -> TaskConfig:
    """Return a job's task, or the architecture's own if the job names none."""
    return TaskConfig(kind=_REGISTRY[name].task) if task is None else task


def layout(name: str, args: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the architecture's parameters, without allocating them."""
    _checked(name, args)
    return _skeleton(_REGISTRY[name].builder, args)


def initial_weights(name: str, args: Mapping[str, int]) -> dict[str, Array]:
    """Return the public starting point of a job: equal for all callers with the same name and arguments."""
    entry, module = _checked(name, args), build(name, args).module
    seed = digest("aegis.models.initial-weights.v1", name.encode(), canonical_json(dict(args)))
    generator = torch.Generator().manual_seed(int.from_bytes(seed[:8], "big") >> 1)
    with torch.no_grad():
        entry.initialise(module, generator)
    return weights_of(module)


def require_fits(
    name: str, args: Mapping[str, int], sample_shape: tuple[int, ...], outputs: int, task: TaskConfig | None = None
) -> None:
    """Raise unless the model takes examples of ``sample_shape`` and gives what the label's declaration needs.

    Both values must come from the dataset's declaration, not from its rows. A refusal based on rows would reveal
    whether a label without an output occurs in them.

    Args:
        outputs: classes, labels or intervals that the dataset declares; 1 for a number or a count.

    Raises:
        JobRejected: the model does not fit.
    """
    model = build(name, args, task)
    try:
        with torch.inference_mode():
            shape = tuple(model.module.eval()(torch.zeros(1, *sample_shape)).shape)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise _unfit(f"{name} with these model_args rejects examples of shape {sample_shape}: {error}") from error
    if len(shape) != 2 or not _suffices(model.task, given=shape[1], declared=outputs):
        raise _unfit(
            f"{name} with these model_args gives {shape[1:]} for a {model.task.kind} task, the dataset has {outputs}"
        )
    weights = model.task.class_weights
    if weights is not None and len(weights) != outputs:
        raise _unfit(f"class_weights has {len(weights)} numbers, the dataset declares {outputs} classes")


def _suffices(task: TaskConfig, *, given: int, declared: int) -> bool:
    match task.kind:
        case Task.BINARY:
            return declared == 2 and given in (1, 2)
        case Task.MULTICLASS:
            return given >= declared >= 2
        case Task.REGRESSION | Task.COUNT:
            return given == declared == 1
        case Task.MULTILABEL | Task.SURVIVAL:
            return given == declared


def weights_of(module: nn.Module) -> dict[str, Array]:
    """Return a copy of the module's ``state_dict`` as float32 arrays."""
    return {key: np.array(value.detach().cpu().numpy(), np.float32) for key, value in module.state_dict().items()}


def load_weights(module: nn.Module, arrays: Arrays) -> None:
    """Copy ``arrays`` into ``module``; raise :class:`ConfigurationError` on any other names or shapes."""
    try:
        module.load_state_dict({key: torch.tensor(value) for key, value in arrays.items()}, strict=True)
    except (RuntimeError, TypeError) as error:
        raise ConfigurationError(f"these weights do not fit the architecture: {error}") from error


def predict(
    name: str,
    args: Mapping[str, int],
    arrays: Arrays,
    features: npt.NDArray[np.float32],
    *,
    task: TaskConfig | None = None,
    batch: int = 8192,
) -> npt.NDArray[np.float64]:
    """Return the predictions on ``features`` of the model with these weights; see :func:`.predicted`.

    Raises:
        ConfigurationError: no examples, or weights of another architecture.
    """
    model = build(name, args, task)
    load_weights(model.module, arrays)
    model.module.eval()
    with torch.inference_mode():
        parts = [model.module(torch.tensor(features[at : at + batch])) for at in range(0, len(features), batch)]
        if not parts:
            raise ConfigurationError("there are no examples to predict: give at least one")
        return predicted(model.task, torch.cat(parts))


def glorot_uniform(module: nn.Module, generator: torch.Generator) -> None:
    """Apply Glorot and Bengio (2010) from two dimensions upwards, and zero to biases; leave the rest as built."""
    for name, parameter in sorted(module.named_parameters()):
        if parameter.dim() >= 2:
            nn.init.xavier_uniform_(parameter, generator=generator)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


def zeros(module: nn.Module, _generator: torch.Generator) -> None:
    """Set every parameter to zero, the natural start of a convex problem."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)


def _checked(name: str, args: Mapping[str, int]) -> _Architecture:
    entry = _REGISTRY.get(name)
    if entry is None:
        known = known_architectures()
        near = did_you_mean(name, known)
        raise _rejected(f"model_arch {name!r:.80} is unknown{near}; known architectures: {', '.join(known)}")
    wrong = sorted(key for key, value in args.items() if type(value) is not int or value < 1)
    if wrong:
        raise _rejected(f"model_args of {name} must be whole numbers of at least 1, but {', '.join(wrong)} is not")
    try:
        inspect.signature(entry.builder).bind(**args)
    except TypeError as error:
        raise _rejected(f"model_args of {name}: {error}; parameters: {inspect.signature(entry.builder)}") from error
    shapes = _skeleton(entry.builder, args)
    size = sum(int(np.prod(shape, dtype=np.float64)) for shape in shapes.values())
    if size > MAX_PARAMETERS:
        raise _rejected(f"{name} would have {size} parameters, but at most {MAX_PARAMETERS} are allowed")
    return entry


def _skeleton(builder: Builder, args: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    try:
        with torch.device("meta"):
            module = builder(**args)
    except (ValueError, RuntimeError, TypeError, OverflowError) as error:
        raise _rejected(f"no model can be built from model_args: {error}") from error
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def _rejected(message: str) -> JobRejected:
    return JobRejected(message, reason=Reason.UNSUPPORTED)


def _unfit(message: str) -> JobRejected:
    return JobRejected(message, reason=Reason.WRONG_SHAPES)


register("LogisticRegression", LogisticRegression, task=Task.BINARY, initialise=zeros)
register("SimpleMLP", SimpleMLP, task=Task.MULTICLASS)
register("SmallCNN", SmallCNN, task=Task.MULTICLASS)
register("Linear", Linear, task=Task.BINARY, initialise=zeros)
register("MLP", MLP, task=Task.BINARY)
register("CNN", CNN, task=Task.MULTICLASS)
register("TabularResNet", TabularResNet, task=Task.BINARY)
register("TextEmbedding", TextEmbedding, task=Task.BINARY)

"""Measures utility again: each round's model on the public evaluation set in the run folder.

The module evaluates models of the agent's own architectures in NumPy and float64, without PyTorch. :mod:`forward`
bounds the rounding of a float32 computation along the way, and a stated metric has to lie within the resulting range.
PyTorch evaluates any other architecture, if the architecture is installed here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from aegis.errors import AegisError, RunFolderError, VerificationFailed
from aegis.federation import EvaluationSet
from aegis.rounds import average
from aegis.runs import EVALUATION_SET
from aegis.verification.findings import Answers, Reference, fails, holds, is_missing, require, stays_open
from aegis.verification.forward import KNOWN, Logits, forward
from aegis.verification.records import Records
from coreason_enclave.errors import EnclaveError
from coreason_enclave.schemas import Task
from coreason_enclave.wire import Arrays

Range = tuple[float, float]
"""The smallest and the largest acceptable value of a metric."""
Measure = Callable[[Arrays], Mapping[str, Range]]

_SAME_BUILD = 1e-6  # between two runs of one framework with different batch splits
_ROUNDING = 1e-9  # rounding of sums in float64
_SATURATED, _VANISHED = 30.0, -700.0  # beyond, logits may differ and still give equal probabilities in float64


def check_utility(records: Records, _: Reference) -> Answers:
    """Check every round's metrics on the mean of the last ``average_last_rounds`` models, as for the release."""
    if records.config.evaluation_set is None:
        stated = [record.round_number for record in records.state.history if record.metrics]
        require(not stated, f"round {stated[:1]} states metrics, but the run had no evaluation set")
        yield stays_open("the federation declared no public evaluation set, so that no accuracy, loss or AUC is stated")
        return
    try:
        evaluation = EvaluationSet.from_bytes(records.data(EVALUATION_SET), EVALUATION_SET)
    except RunFolderError as error:
        raise VerificationFailed(str(error)) from error
    measure = _measure(records, evaluation)
    if isinstance(measure, str):
        yield is_missing(measure)
        return
    last, models = records.job.average_last_rounds, records.state.models
    for number, record in enumerate(records.state.history, start=1):
        tail = records.kept_models(models[1 : number + 1][-last:])
        differing = _differing(record.metrics, measure(average(tail)))
        if differing is not None:
            yield fails(f"round {number}: {differing}")
            return
    names = ", ".join(sorted(records.state.history[-1].metrics))
    yield holds(f"{names} of {len(records.state.history)} rounds, measured again on {len(evaluation.labels)} examples")


def _differing(stated: Mapping[str, float], measured: Mapping[str, Range]) -> str | None:
    for name in sorted(stated.keys() | measured.keys()):
        if name not in stated or name not in measured:
            return f"{name} is {'measured, but not stated' if name not in stated else 'stated, but cannot be measured'}"
        low, high = measured[name]
        if not (math.isfinite(stated[name]) and low <= stated[name] <= high):
            return f"{name} is stated as {stated[name]:.6g}, but the model reaches {(low + high) / 2:.6g}"
    return None


def _measure(records: Records, evaluation: EvaluationSet) -> Measure | str:
    """Return the measure for this job's models; or a text that names the missing software."""
    job = records.job
    if job.model_arch in KNOWN and (job.task is None or job.task.kind in (Task.BINARY, Task.MULTICLASS)):
        return lambda arrays: utility_range(
            forward(job.model_arch, arrays, evaluation.features.astype(np.float64)), evaluation.labels
        )
    try:
        from aegis.runtimes import public_evaluator
    except ImportError as error:
        return f"PyTorch ({error.name}), which the evaluation of a {job.model_arch} needs: install 'aegis-fl'"
    evaluate = public_evaluator(job, evaluation.features, evaluation.labels)
    try:
        evaluate(records.kept_model(records.state.models[-1]))
    except (AegisError, EnclaveError) as error:
        return f"the architecture {job.model_arch}, which the evaluation of its models needs ({error})"
    return lambda arrays: {name: (value - _SAME_BUILD, value + _SAME_BUILD) for name, value in evaluate(arrays).items()}


def utility_range(logits: Logits, labels: npt.NDArray[np.int64]) -> dict[str, Range]:
    """Return ranges of accuracy, loss and AUC, for an error of at most the bound in each logit.

    Args:
        logits: of shape (n, classes). labels: of shape (n,), integers below ``classes``.
    """
    require(int(labels.min()) >= 0 and int(labels.max()) < logits.value.shape[1], "the model lacks an evaluation label")
    bound = logits.bound.max(axis=1)
    ranges = {"accuracy": _accuracy(logits.value, bound, labels), "loss": _loss(logits.value, bound, labels)}
    if logits.value.shape[1] == 2 and 0 < int(labels.sum()) < len(labels):
        ranges["auc"] = _auc(logits.value[:, 1] - logits.value[:, 0], 2 * float(bound.max()), labels)
    return ranges


_Float64 = npt.NDArray[np.float64]


def _accuracy(values: _Float64, bound: _Float64, labels: npt.NDArray[np.int64]) -> Range:
    own = values[np.arange(len(labels)), labels]
    others = values.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    margin = own - others.max(axis=1)
    return float((margin > 2 * bound).mean()) - _ROUNDING, float((margin >= -2 * bound).mean()) + _ROUNDING


def _loss(values: _Float64, bound: _Float64, labels: npt.NDArray[np.int64]) -> Range:
    top = values.max(axis=1, keepdims=True)
    logs = values - top - np.log(np.exp(values - top).sum(axis=1, keepdims=True))
    least = -math.log(1e-12)  # the same floor as in aegis.evaluation
    loss = float(np.minimum(-logs[np.arange(len(labels)), labels], least).mean())
    slack = 2 * float(bound.mean()) + _ROUNDING * (1 + loss)
    return loss - slack, loss + slack


def _auc(scores: _Float64, slack: float, labels: npt.NDArray[np.int64]) -> Range:
    """Bound the share of pairs whose positive example scores above the negative: certain pairs, and possible pairs."""
    scores = np.clip(scores, _VANISHED, _SATURATED)
    positives, negatives = scores[labels == 1], np.sort(scores[labels == 0])
    pairs = len(positives) * len(negatives)
    surely = np.searchsorted(negatives, positives - slack, side="left")
    possibly = np.searchsorted(negatives, positives + slack, side="right")
    return float(surely.sum()) / pairs - _ROUNDING, float(possibly.sum()) / pairs + _ROUNDING

"""Flower's own aggregators, given the very updates that the product's coordinator was sent.

Flower's strategies average whole weights. So each update is added to a model of Flower's own, the strategy aggregates
the results, and that is its model for the next round. The updates were trained from the product's models, not from
Flower's: this compares how two implementations combine the same messages, not two complete runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, FedMedian, FedTrimmedAvg, Krum, MultiKrum

from coreason_enclave.schemas import Aggregator
from coreason_enclave.wire import Arrays

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.flower_sim.server import Updates

__all__ = ["Replayed", "flowers_strategy", "replay"]


@dataclass(frozen=True)
class Replayed:
    """Accuracy after each round, and what went wrong, if anything did: an exception, or a model that is not finite."""

    accuracy: tuple[float, ...]
    problem: str = ""


def flowers_strategy(aggregator: Aggregator, clients: int) -> FedAvg:
    """Flower's counterpart, told of one hostile client; the trimmed mean with its default share of 0.2 a side."""
    match aggregator:
        case Aggregator.KRUM:
            return Krum(num_malicious_nodes=1)
        case Aggregator.MULTI_KRUM:
            return MultiKrum(num_malicious_nodes=1, num_nodes_to_select=clients - 1)
        case Aggregator.TRIMMED_MEAN:
            return FedTrimmedAvg()
        case Aggregator.MEDIAN:
            return FedMedian()
        case Aggregator.MEAN:
            return FedAvg()


def replay(
    strategy: FedAvg, initial: Arrays, sent: Updates, evaluate: Callable[[Arrays], Mapping[str, float]]
) -> Replayed:
    """Let ``strategy`` aggregate every round of ``sent``, starting from ``initial``."""
    model = dict(initial)
    accuracy: list[float] = []
    for number, updates in sent.items():
        try:
            with _quiet():
                model = _aggregated(strategy, model, number, updates)
        except Exception as error:  # noqa: BLE001 - whatever Flower raises is the result that is reported
            return Replayed(tuple(accuracy), f"{type(error).__name__} in round {number}")
        accuracy.append(evaluate(model)["accuracy"])
        if not all(np.isfinite(array).all() for array in model.values()):
            return Replayed(tuple(accuracy), f"the model is not finite from round {number} on")
    return Replayed(tuple(accuracy))


def _aggregated(strategy: FedAvg, model: Arrays, number: int, updates: Mapping[str, Arrays]) -> dict[str, np.ndarray]:
    replies = [_reply(model, update, node) for node, update in enumerate(updates.values(), start=1)]
    record, _ = strategy.aggregate_train(number, replies)
    if record is None:
        raise RuntimeError("Flower aggregated nothing")
    return {name: np.asarray(array.numpy(), np.float32) for name, array in record.items()}


def _reply(model: Arrays, update: Arrays, node: int) -> Message:
    weights = ArrayRecord({name: FlowerArray(model[name] + update[name]) for name in model})
    content = RecordDict({"arrays": weights, "metrics": MetricRecord({"num-examples": 1})})
    asked = Message(content=RecordDict(), dst_node_id=node, message_type="train")
    return Message(content=content, reply_to=asked)


@contextmanager
def _quiet() -> Iterator[None]:
    """Flower logs every aggregation; here its results are reported by the caller."""
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with np.errstate(invalid="ignore", over="ignore"):
            yield
    finally:
        logger.setLevel(level)

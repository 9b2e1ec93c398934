"""However a loop ends, the site answers with a reason, and no log has a word of what the loop said."""

from __future__ import annotations

import asyncio
import io
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from coreason_enclave.agent.logs import AgentLog
from coreason_enclave.agent.order_queue import SerialHandler
from coreason_enclave.errors import DataLeakageError, EnclaveError, PrivacyBudgetExceededError, Reason
from coreason_enclave.federation.executor import CoreasonExecutor
from coreason_enclave.federation.nvflare.trainer import ExecutorTrainer
from coreason_enclave.sentry import DataSentry
from coreason_enclave.wire.handler import RequestKind
from tests.coreason_enclave.federation.attackers import Attacker
from tests.coreason_enclave.federation.conftest import Flare

ROW = "patient p007, age 41.5"


class TellsByItsReason(EnclaveError):
    """Of a loop's own making, with a reason that is none."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.reason = ROW  # type: ignore[assignment]


def raising(make: Callable[[], BaseException]) -> type[CoreasonExecutor]:
    def loop(self: Any, *_: Any) -> Any:
        raise make()

    return type("Raises", (CoreasonExecutor,), {"_execute_training": loop})


def of_a_file(name: str) -> type[CoreasonExecutor]:
    """A loop that fails, written in a file of that name."""
    space: dict[str, Any] = {}
    exec(compile(f"def loop(self, *_):\n    raise ValueError({ROW!r})\n", f"/tmp/{name}", "exec"), space)
    return type("FailsInItsFile", (CoreasonExecutor,), {"_execute_training": space["loop"]})


class FailsWhileItHandlesAnother(CoreasonExecutor):
    def _execute_training(self, *_: Any) -> Any:
        try:
            raise KeyError(ROW)
        except KeyError as error:
            raise RuntimeError(ROW) from error


class NamesAMetricAfterARow(Attacker):
    def metrics(self) -> dict[str, float]:
        return {ROW: 1.0}


class NamesAParameterAfterARow(Attacker):
    def returned(self) -> Any:
        return {"params": {ROW: next(iter(self.model.state_dict().values()))}}


class HidesALayerNamedAfterARow(Attacker):
    def before_attach(self) -> None:
        import torch

        self.model.add_module(ROW.replace(".", "_"), torch.nn.Linear(1, 1))
        self.original = self.make_optimizer()


class ReturnsWhatRaises(CoreasonExecutor):
    def _execute_training(self, *_: Any) -> Any:
        class Mapping(dict[str, Any]):
            def keys(self) -> Any:
                raise KeyboardInterrupt(ROW)

        return Mapping(params=1)


ENDS: dict[str, tuple[type[CoreasonExecutor], str]] = {
    "an exception": (raising(lambda: ValueError(ROW)), "internal"),
    "the interrupt of a keyboard": (raising(lambda: KeyboardInterrupt(ROW)), "internal"),
    "the end of a generator": (raising(lambda: GeneratorExit(ROW)), "internal"),
    "the end of the process": (raising(lambda: SystemExit(ROW)), "internal"),
    "the end of an iteration": (raising(lambda: StopIteration(ROW)), "internal"),
    "a cancelled task": (raising(lambda: asyncio.CancelledError(ROW)), "internal"),
    "a class that is called like a row": (raising(lambda: type(ROW, (Exception,), {})(ROW)), "internal"),
    "a group of exceptions": (raising(lambda: BaseExceptionGroup(ROW, [ValueError(ROW)])), "internal"),
    "a note on an exception": (raising(lambda: _noted(ValueError(ROW))), "internal"),
    "an exception of this package": (raising(lambda: DataLeakageError(ROW)), "leakage"),
    "one with a reason of its own": (raising(lambda: TellsByItsReason(ROW)), "internal"),
    "the budget's own exception": (raising(lambda: PrivacyBudgetExceededError(ROW)), "budget_exceeded"),
    "an exception from a file that is called like a row": (of_a_file(f"{ROW}.py"), "internal"),
    "two exceptions": (FailsWhileItHandlesAnother, "internal"),
    "a metric that is called like a row": (NamesAMetricAfterARow, "leakage"),
    "a parameter that is called like a row": (NamesAParameterAfterARow, "leakage"),
    "a layer that is called like a row": (HidesALayerNamedAfterARow, "unsafe_training"),
    "an object that raises when it is read": (ReturnsWhatRaises, "internal"),
}


def _noted(error: Exception) -> Exception:
    error.add_note(ROW)
    return error


@pytest.mark.parametrize("what", ENDS)
def test_flare_gets_a_reason_and_no_log_a_word_of(
    what: str, flare: Flare, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    kind, reason = ENDS[what]
    flare.executor = kind()
    with caplog.at_level(logging.DEBUG):
        assert flare.refused("train", flare.order())[1] == reason

    last = flare.site.log()[-1]
    assert (last["action"], last["outcome"], last["reason"]) == ("round", "refused", reason)
    written = [caplog.text, *capfd.readouterr(), (flare.site.folder / "audit.jsonl").read_text()]
    for part in (ROW, ROW.replace(".", "_"), "p007"):
        assert not any(part in text for text in written)
    assert "update" not in last["details"]


@pytest.mark.parametrize("what", ["an exception", "the interrupt of a keyboard", "the end of the process"])
def test_an_agent_answers_logs_and_takes_the_next_order_after(
    what: str, federation: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    kind, reason = ENDS[what]
    site, lines = federation.create(), io.StringIO()
    trainer = ExecutorTrainer(kind(), "clinic-1", DataSentry(site.folder / "data"))
    opened = site.open(clock=federation.clock, trainer=trainer)
    answering = SerialHandler(opened.session, AgentLog({"site": "clinic-1"}, stream=lines))
    reasons = []

    def ask() -> None:
        try:
            answering.handle(RequestKind.TRAIN, federation.order(federation.job()))
        except EnclaveError as refused:
            reasons.append(refused.reason)

    for _ in range(2):
        worker = threading.Thread(target=ask)
        worker.start()
        worker.join(timeout=60)
    opened.close()
    assert reasons == [Reason(reason)] * 2
    assert (answering.busy, answering.refused) == (False, 2)
    assert ROW not in lines.getvalue() + "".join(capfd.readouterr())


def test_the_log_says_where_in_the_loop_and_where_in_this_package(flare: Flare) -> None:
    flare.executor = ENDS["a metric that is called like a row"][0]()
    flare.refused("train", flare.order())
    message = flare.site.log()[-1]["details"]["message"]
    assert message.startswith("DataLeakageError in the training loop, at attackers.py, line ")
    assert "; raised at coreason_enclave/airlock.py, line " in message


class IsInterruptedByAPerson(CoreasonExecutor):
    """Control-C arrives while the loop runs."""

    def _execute_training(self, *_: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("unreachable")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises, even where a shell started these tests in its background and had the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_persons_interrupt_ends_the_process_and_is_logged(federation: Any) -> None:
    site = federation.create()
    trainer = ExecutorTrainer(IsInterruptedByAPerson(), "clinic-1", DataSentry(site.folder / "data"))
    opened = site.open(clock=federation.clock, trainer=trainer)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        opened.session.run(federation.order(federation.job()))
    opened.close()
    assert signal.getsignal(signal.SIGINT) is before
    assert (site.log()[-1]["outcome"], site.log()[-1]["reason"]) == ("refused", "aborted")

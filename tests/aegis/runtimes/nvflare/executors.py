"""Executors for the simulator: the product's, with a site that behaves as a test wants it to."""

from __future__ import annotations

from typing import Any

from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal

from coreason_enclave.federation.executor import CoreasonExecutor

ODD = "clinic-1"


class CannotProveItself(CoreasonExecutor):  # type: ignore[misc]
    """One site's evidence cannot be produced."""

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        if fl_ctx.get_identity_name() == ODD and task_name == "attest":
            return refuse("attestation_unavailable")
        return super().execute(task_name, shareable, fl_ctx, abort_signal)


class AnswersWhatEndsJobs(CoreasonExecutor):  # type: ignore[misc]
    """One site answers orders with the return code over which FLARE's server would end everybody's job."""

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        if fl_ctx.get_identity_name() == ODD and task_name == "train":
            return make_reply(ReturnCode.UNSAFE_JOB)
        return super().execute(task_name, shareable, fl_ctx, abort_signal)


class AllRefuse(CoreasonExecutor):  # type: ignore[misc]
    """Nobody trains."""

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        if task_name == "train":
            return refuse("policy")
        return super().execute(task_name, shareable, fl_ctx, abort_signal)


def refuse(reason: str) -> Any:
    reply = make_reply(ReturnCode.EXECUTION_EXCEPTION)
    reply.set_header("aegis_reason", reason)
    return reply

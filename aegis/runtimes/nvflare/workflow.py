"""Runs a coordinator inside FLARE's server process: adapts FLARE's workflow interface to code that uses a transport."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final

from nvflare.apis.client import Client
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.workflows.model_controller import ModelController

from aegis.errors import RunFolderError
from aegis.runtimes.nvflare.cell_gate import is_guarded
from aegis.runtimes.nvflare.liveness import FlareLiveness
from aegis.runtimes.nvflare.stream_budget import STREAMS
from aegis.runtimes.nvflare.transport import FlareTransport
from aegis.runtimes.nvflare.violations import OFFENCES

TASK_CHECK_S: Final = 0.1
"""Seconds between FLARE's cleanups of finished tasks. Results do not wait for a cleanup."""


class FlareWorkflow(ModelController, ABC):  # type: ignore[misc]  # FLARE ships no types
    """A FLARE workflow that runs :meth:`coordinate` once.

    An exception from :meth:`coordinate` ends FLARE's job as failed; no answer of a site can end the job.
    """

    def __init__(self) -> None:
        super().__init__(persistor_id="", ignore_result_error=True, task_check_period=TASK_CHECK_S)

    @abstractmethod
    def coordinate(self, local: Path) -> None:
        """Run the whole job. ``local`` is this server's site configuration directory of FLARE."""

    def run(self) -> None:
        """Start the workflow; called by FLARE."""
        tolerate_refusals(self.fl_ctx)
        self.coordinate(Path(self.engine.get_workspace().get_site_config_dir()))

    def transport(self, nodes: dict[str, int]) -> FlareTransport:
        """Return a transport to the clients of this job; ``nodes`` maps client names to node ids."""

        def aborted() -> bool:
            return bool(self.abort_signal.triggered)

        transport = FlareTransport(self, self.fl_ctx, nodes, aborted=aborted, expect=STREAMS.expect)
        OFFENCES.subscribe(transport.struck)
        return transport

    def liveness(self) -> FlareLiveness:
        """Return the liveness of this job's clients."""
        return FlareLiveness(
            lambda: [client.name for client in self.engine.get_clients()], self.get_client_disconnect_time
        )

    def process_result_of_unknown_task(
        self, client: Client, task_name: str, client_task_id: str, result: Shareable, fl_ctx: FLContext
    ) -> None:
        """Log and drop an answer to a closed task."""
        del client_task_id, result, fl_ctx
        logging.getLogger(__name__).info("%s answered a %s task that had ended", client.name, task_name)


def tolerate_refusals(fl_ctx: FLContext) -> None:
    """Stop one site's return code from ending the whole job.

    By default FLARE's server runner ends the job on three return codes.
    """
    runner = fl_ctx.get_prop(FLContextKey.RUNNER)
    if runner is not None:
        runner.ABORT_RETURN_CODES = []


def require_gate() -> None:
    """Refuse to coordinate if a site's process could end the job.

    Raises:
        RunFolderError: the server's kit names no gate.
    """
    if not is_guarded():
        raise RunFolderError("this FLARE server has no gate before its cells: see local/resources.json of its kit")

"""Runs the coordinator inside FLARE's server process. FLARE jobs name the class in this module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from aegis.coordination import Participant
from aegis.errors import AegisError, InvalidJob
from aegis.federation import FederationFolder, load_job
from aegis.runs.connect import ConnectedSites, RuntimeName
from aegis.runs.coordinate import coordinate, open_log
from aegis.runs.folder import RunFolder
from aegis.runs.nvflare_heartbeat import beating
from aegis.runs.nvflare_outcome import record_end
from aegis.runs.plan import RunPlan, prepare
from aegis.runtimes.nvflare import (
    JOB_FILE,
    FlareHosting,
    FlareOptions,
    FlareWorkflow,
    read_server_settings,
    require_gate,
)
from aegis.services import reading_local_sites
from coreason_enclave.errors import EnclaveError
from coreason_enclave.schemas import SafeId, StrictModel
from coreason_enclave.system import explain


class _Arguments(StrictModel):
    """The workflow's arguments in the FLARE job's configuration."""

    run: SafeId
    readmit: tuple[SafeId, ...] = ()


class CoordinatorWorkflow(FlareWorkflow):
    """Runs or resumes the job in FLARE's job folder, with a run folder on this host.

    ``aegis.json`` in the site configuration directory of FLARE's server names the federation and the parent of all run
    folders. A job gives only the name of a run folder. At the end, the workflow records the result in the run folder
    for a waiting command.

    Args:
        arguments: ``run``: the run folder's name. ``readmit``: sites to reinstate first, with their strikes cleared.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self._arguments = arguments

    def coordinate(self, local: Path) -> None:
        """See :class:`FlareWorkflow`. An exception ends FLARE's job as failed, with the exception's message."""
        settings, arguments = read_server_settings(local), _read(self._arguments)
        folder, federation = RunFolder(Path(settings.runs) / arguments.run), FederationFolder(Path(settings.federation))
        try:
            job = load_job(Path(self.get_app_dir()) / "config" / JOB_FILE)
            plan = RunPlan(
                federation,
                folder,
                _seed(folder),
                readmit=arguments.readmit,
                runtime=RuntimeName.NVFLARE,
                flare=FlareOptions(FlareHosting.STARTUP_KIT),  # recorded for a submitted job, which no command started
            )
            require_gate()
            job = prepare(job, plan)
            with beating(folder), reading_local_sites(federation) as sites, open_log(plan) as audit:
                coordinate(job, plan, self._opened(federation, sites), audit)
        except (AegisError, EnclaveError) as error:
            record_end(folder, error)
            raise
        record_end(folder, None)

    def _opened(self, federation: FederationFolder, sites: Any) -> ConnectedSites:
        """Map the registered sites to the FLARE clients of the same names."""
        keys = federation.config().public_keys
        nodes = {site: number for number, site in enumerate(sorted(keys), start=1)}
        participants = tuple(Participant(site, keys[site], node) for site, node in nodes.items())
        return ConnectedSites(sites, self.transport(nodes), participants, self.liveness())


def _read(arguments: dict[str, Any]) -> _Arguments:
    try:
        readmit = tuple(arguments.get("readmit") or ())
        return _Arguments.model_validate({**arguments, "readmit": readmit})
    except (TypeError, ValidationError) as error:
        raise InvalidJob(f"the FLARE job's arguments to the workflow: {explain(error)}") from error


def _seed(folder: RunFolder) -> int | None:
    """Return the injected seed of a run started on this host; a run started by a FLARE job injects none."""
    if not folder.is_started:
        return None
    seed = folder.read_json("config.json").get("options", {}).get("unsafe_seed")
    return seed if isinstance(seed, int) else None

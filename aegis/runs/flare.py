"""``aegis run`` over NVIDIA FLARE: have a FLARE job run, follow the run folder that its coordinator writes, end alike.

The coordinator is in FLARE's server process (:mod:`aegis.runs.on_flare`); this one starts what is to be started, shows
rounds as they complete, and ends with the very error that the coordinator ended with.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from pydantic import TypeAdapter, ValidationError

from aegis.errors import CarrierUnreachable, InvalidJob, RunAborted, RunFolderError
from aegis.federation import FederationFolder
from aegis.runs.execution import Execution, report_round
from aegis.runs.flare_outcome import forget_end, has_ended, raise_as_ended
from aegis.runs.following import RoundFollower
from aegis.runs.local_ledgers import reading_local_sites
from aegis.runtimes.nvflare.job_folder import FlareJob
from aegis.runtimes.nvflare.kits import read_admin_kit
from aegis.runtimes.nvflare.options import FlareHosting
from aegis.runtimes.nvflare.settings import ServerSettings, SiteSettings
from coreason_enclave.policy import Profile
from coreason_enclave.schemas import FederationJob, SafeId

__all__ = ["coordinate_on_flare", "require_flare", "run_name"]

LOG = "nvflare.log"
"""In the run folder: what FLARE prints."""
NOTE = "nvflare-run.json"
"""In the run folder, while a job goes on in a deployment: which."""

_POLL_S = 0.1


class Running(Protocol):
    """A FLARE job that was started."""

    @property
    def ended(self) -> bool:
        """Whether it is over, however."""
        ...

    def let_end(self) -> None:
        """Let it end by itself, now that its work is done, for as long as it may take."""
        ...

    def last_words(self) -> str:
        """What it complained of last."""
        ...


def coordinate_on_flare(job: FederationJob, execution: Execution) -> None:
    """Have a run that was prepared carried out, or gone on with, in a FLARE job; return once it has finished.

    Raises:
        AegisError: what the coordinator refused or paused with; or FLARE cannot be started, or ended before it did.
    """
    require_flare()
    folder = execution.folder
    if has_ended(folder) or not (folder.path / NOTE).exists():
        forget_end(folder)  # a job that goes on in a deployment may end any moment now
    with reading_local_sites(execution.federation) as sites, _hosted(job, execution) as running:
        follower = RoundFollower(folder, lambda record: report_round(execution, sites, job, record))
        while not has_ended(folder) and not running.ended:
            follower.look()
            time.sleep(_POLL_S)
        follower.look()
        if has_ended(folder):
            running.let_end()
        words = running.last_words()
    if not has_ended(folder):
        kind = RunAborted if folder.has_state else CarrierUnreachable
        raise kind(f"NVIDIA FLARE ended the job before the coordinator did: {words}")
    (folder.path / NOTE).unlink(missing_ok=True)
    try:
        raise_as_ended(folder)
    except RunAborted as error:
        raise RunAborted(f"{error}; FLARE's log said last: {words}") from error


def require_flare() -> None:
    """Refuse where FLARE is not installed.

    Raises:
        RunFolderError: says how it is.
    """
    if importlib.util.find_spec("nvflare") is None:
        raise RunFolderError("NVIDIA FLARE is not installed: pip install 'aegis-fl[nvflare]'")


def _hosted(job: FederationJob, execution: Execution) -> AbstractContextManager[Running]:
    """The FLARE job that ``execution`` asks for, about to be started."""
    match execution.flare.hosting:
        case FlareHosting.SIMULATOR:
            return _simulated(job, execution)
        case FlareHosting.POC:
            return _proof_of_concept(job, execution)
        case FlareHosting.STARTUP_KIT:
            return _deployed(job, execution)


def _simulated(job: FederationJob, execution: Execution) -> AbstractContextManager[Running]:
    from aegis.runtimes.nvflare.simulator import Simulation, simulating

    if execution.federation.config().profile is not Profile.DEVELOPMENT:
        raise InvalidJob("the simulator opens sites in FLARE's own processes: that needs profile development")
    sites = _local_sites(execution)
    return simulating(
        Simulation(
            folder=_own_folder(execution),
            log=execution.folder.path / LOG,
            job=_flare_job(job, execution, sites),
            server=_server_settings(execution),
            sites=SiteSettings(version=1, runs="session", sites=sites, unsafe_seed=execution.unsafe_seed),
            threads=min(execution.flare.threads or len(sites), len(sites)),
            import_from=Path.cwd(),
        )
    )


def _proof_of_concept(job: FederationJob, execution: Execution) -> AbstractContextManager[Running]:
    from aegis.runtimes.nvflare.poc import ProofOfConcept, proof_of_concept

    sites = _local_sites(execution)
    return proof_of_concept(
        ProofOfConcept(
            folder=_own_folder(execution),
            log=execution.folder.path / LOG,
            job=_flare_job(job, execution, sites),
            server=_server_settings(execution),
            sites=sites,
            unsafe_seed=execution.unsafe_seed,
        )
    )


def _deployed(job: FederationJob, execution: Execution) -> AbstractContextManager[Running]:
    from aegis.runtimes.nvflare.deployment import Submission, submitted

    if execution.flare.kit is None:
        raise InvalidJob("a run on a FLARE deployment needs an administrator's startup kit")
    return submitted(
        Submission(
            kit=read_admin_kit(execution.flare.kit),
            job=_flare_job(job, execution, _registered(execution.federation)),
            folder=_own_folder(execution),
            note=execution.folder.path / NOTE,
            log=execution.folder.path / LOG,
        )
    )


def _flare_job(job: FederationJob, execution: Execution, sites: Collection[str]) -> FlareJob:
    return FlareJob(
        job,
        run=run_name(execution.folder.path.absolute().name),
        sites=sites,
        executor=execution.flare.executor,
        readmit=execution.readmit,
    )


def _own_folder(execution: Execution) -> Path:
    return execution.folder.path.absolute() / "nvflare"


def _server_settings(execution: Execution) -> ServerSettings:
    runs, federation = execution.folder.path.absolute().parent, execution.federation.path.absolute()
    return ServerSettings(version=1, federation=str(federation), runs=str(runs))


def _registered(federation: FederationFolder) -> set[str]:
    config = federation.config()
    return config.public_keys.keys() - set(config.revoked)


def _local_sites(execution: Execution) -> dict[str, str]:
    """The folders of the registered sites that are on this host, by site id."""
    federation, wanted = execution.federation, _registered(execution.federation)
    found = {path.name: str(path.absolute()) for path in federation.site_folders() if path.name in wanted}
    if not found:
        raise RunFolderError(f"{federation.path}: no participant's folder is in sites/ on this host")
    return found


def run_name(name: str) -> str:
    """A run folder's name as a FLARE job says it.

    Raises:
        RunFolderError: it has other letters than a job may name.
    """
    try:
        return TypeAdapter[str](SafeId).validate_python(name)
    except ValidationError as error:
        raise RunFolderError(f"a FLARE job cannot name the run folder {name!r:.80}: letters, digits, . _ -") from error

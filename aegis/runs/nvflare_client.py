"""``aegis run`` over NVIDIA FLARE: have a FLARE job run, follow the run folder that its coordinator writes, end alike.

The coordinator is in FLARE's server process (:mod:`aegis.runs.nvflare_server`); this one starts what is to be started,
shows rounds as they complete, and ends with the very error that the coordinator ended with.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from pydantic import TypeAdapter, ValidationError

from aegis.errors import AegisError, CarrierUnreachable, InvalidJob, RunAborted, RunFolderError
from aegis.federation.registry import FederationFolder
from aegis.runs.local_ledgers import reading_local_sites
from aegis.runs.nvflare_heartbeat import PulseWatch
from aegis.runs.nvflare_outcome import forget_end, has_ended, raise_as_ended
from aegis.runs.nvflare_wait import Lost, Waiting
from aegis.runs.plan import Execution, report_round
from aegis.runs.round_follower import RoundFollower
from aegis.runtimes.nvflare.job_folder import FlareJob
from aegis.runtimes.nvflare.options import FlareHosting
from aegis.runtimes.nvflare.settings import ServerSettings, SiteSettings
from aegis.runtimes.nvflare.startup_kits import read_admin_kit
from coreason_enclave.policy import Profile
from coreason_enclave.schemas import FederationJob, SafeId

__all__ = ["coordinate_on_flare", "require_flare", "run_name"]

LOG = "nvflare.log"
"""In the run folder: what FLARE prints."""
NOTE = "nvflare-run.json"
"""In the run folder, while a job goes on in a deployment: which."""

_POLL_S = 0.1
_TRIES = 3


class Running(Protocol):
    """A FLARE job that was started."""

    @property
    def ended(self) -> bool:
        """Whether it is over, however."""
        ...

    @property
    def job_is_over(self) -> bool:
        """Whether it ended because FLARE says that the job did; not so where FLARE could not be asked."""
        ...

    def let_end(self) -> None:
        """Let it end by itself, now that its work is done, for as long as it may take."""
        ...

    def own_words(self) -> str | None:
        """Why it was given up, where that was this project's own decision and not FLARE's."""
        ...


def coordinate_on_flare(job: FederationJob, execution: Execution) -> None:
    """Have a run that was prepared carried out, or gone on with, in a FLARE job; return once it has finished.

    A FLARE job that is lost on the way (a server or a process that was killed, or hangs) is submitted anew: it goes on
    with the run's state. So it is for as long as rounds are completed, and twice more.

    Raises:
        AegisError: what the coordinator refused or paused with; or FLARE cannot be started, or ended before it did.
    """
    require_flare()
    folder = execution.folder
    if has_ended(folder) or not (folder.path / NOTE).exists():
        forget_end(folder)  # a job that goes on in a deployment may end any moment now
    with reading_local_sites(execution.federation) as sites:
        follower = RoundFollower(folder, lambda record: report_round(execution, sites, job, record))
        _see_through(job, execution, follower)
    (folder.path / NOTE).unlink(missing_ok=True)
    try:
        raise_as_ended(folder)
    except RunAborted as error:
        raise RunAborted(f"{error}; {_where_logs_lie(execution)}") from error


def _see_through(job: FederationJob, execution: Execution, follower: RoundFollower) -> None:
    """Have FLARE jobs run until a coordinator has ended by itself."""
    tries_left, began = _tries(execution), False
    while True:
        told, watch = follower.told, PulseWatch(execution.folder)
        with _hosted(job, execution) as running:
            lost = _wait(execution, follower, watch, running)
            words = running.own_words()
        if lost is None:
            return
        began = began or watch.began
        tries_left = _tries(execution) if follower.told > told else tries_left
        tries_left -= 1
        if tries_left <= 0 or not began:  # what never began has a reason that another try does not mend
            raise _given_up(execution, lost, words)
        execution.say(f"{lost.value}: it is submitted anew, and goes on after round {follower.told}")


def _wait(execution: Execution, follower: RoundFollower, watch: PulseWatch, running: Running) -> Lost | None:
    """Follow the run folder until the coordinator has ended (None), or there is no use in waiting for it."""
    folder, lost = execution.folder, None
    waiting = Waiting(watch, lambda: running.ended, execution.say)
    while not has_ended(folder) and lost is None:
        follower.look()
        lost = waiting.look()
        time.sleep(_POLL_S)
    follower.look()
    if has_ended(folder):
        running.let_end()
        return None
    # It may outlive its server: two must not write to one run folder. Behind a server that does not answer us for a
    # while, it may also be at work, and is found again.
    watch.end_coordinator(only_orphan=lost is Lost.ENDED and not running.job_is_over)
    if lost is Lost.SILENT:
        (folder.path / NOTE).unlink(missing_ok=True)
    return lost


def _tries(execution: Execution) -> int:
    """How many FLARE jobs may be lost one after the other; a simulator ends with whoever started it."""
    return 1 if execution.flare.hosting is FlareHosting.SIMULATOR else _TRIES


def _given_up(execution: Execution, lost: Lost, words: str | None) -> AegisError:
    kind = RunAborted if execution.folder.has_state else CarrierUnreachable
    return kind(f"{words or lost.value}; {_where_logs_lie(execution)}")


def _where_logs_lie(execution: Execution) -> str:
    log = execution.folder.path / LOG
    match execution.flare.hosting:
        case FlareHosting.SIMULATOR:
            return f"FLARE's own log: {log}"
        case FlareHosting.POC:
            return f"FLARE's own logs: {log} and {execution.folder.path / 'nvflare' / 'logs'}"
        case FlareHosting.STARTUP_KIT:
            return f"FLARE's own logs: {log}, and log.txt in the kits of its server and of its clients"


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
            clients=tuple(_registered(execution.federation)),
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

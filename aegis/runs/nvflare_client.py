"""``aegis run`` over NVIDIA FLARE: starts a FLARE job, follows its run folder, and ends with the coordinator's result.

The coordinator runs in FLARE's server process (:mod:`aegis.runs.nvflare_server`). This process

- starts the FLARE processes that the hosting option needs;
- reports rounds as they complete;
- raises the very error that ended the coordinator.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Collection
from contextlib import AbstractContextManager
from pathlib import Path

from pydantic import TypeAdapter

from aegis.errors import AegisError, InvalidJob, RunAborted, RunFolderError, TransportUnavailable
from aegis.federation import FederationFolder
from aegis.runs.nvflare_heartbeat import PulseWatch
from aegis.runs.nvflare_outcome import forget_end, has_ended, raise_as_ended
from aegis.runs.nvflare_wait import Lost, Waiting
from aegis.runs.plan import RunPlan, report_round
from aegis.runs.round_follower import RoundFollower
from aegis.runtimes.nvflare import FlareHosting, FlareJob, FlareProcess, ServerSettings, SiteSettings, read_admin_kit
from aegis.services import reading_local_sites
from coreason_enclave.schemas import FederationJob, Profile, SafeId, explained

LOG = "nvflare.log"
"""File in the run folder with FLARE's output."""
NOTE = "nvflare-run.json"
"""File in the run folder that identifies the job, while one runs in a deployment."""

_POLL_S = 0.1
_TRIES = 3


def coordinate_on_flare(job: FederationJob, plan: RunPlan) -> None:
    """Run or resume a prepared run in a FLARE job; return once the run has finished.

    A FLARE job may get lost: a server or a process hangs or dies. The client then submits the job again, and the run
    continues from its state. Limits:

    - two new submissions without a completed round; each completed round resets the count;
    - no new submission for the simulator, or before any job has started.

    Raises:
        AegisError: the coordinator refused or paused, FLARE cannot be started, or FLARE ended first.
    """
    require_flare()
    folder = plan.folder
    if has_ended(folder) or not (folder.path / NOTE).exists():
        forget_end(folder)  # not while a deployment runs a job, whose end note may appear any moment
    with reading_local_sites(plan.federation) as sites:
        follower = RoundFollower(folder, lambda record: report_round(plan, sites, job, record))
        _submit_until_ended(job, plan, follower)
    (folder.path / NOTE).unlink(missing_ok=True)
    try:
        raise_as_ended(folder)
    except RunAborted as error:
        aborted = RunAborted(f"{error}; {_describe_logs(plan)}")
        aborted.reasons = error.reasons
        raise aborted from error


def _submit_until_ended(job: FederationJob, plan: RunPlan, follower: RoundFollower) -> None:
    """Submit FLARE jobs until a coordinator ends by itself."""
    tries_left, began = _tries(plan), False
    while True:
        reported_before, watch = follower.reported, PulseWatch(plan.folder)
        with _hosted(job, plan) as running:
            lost = _wait(plan, follower, watch, running)
            log_line = running.own_words()
        if lost is None:
            return
        began = began or watch.began
        tries_left = _tries(plan) if follower.reported > reported_before else tries_left
        tries_left -= 1
        if tries_left <= 0 or not began:  # a job that never started fails for a lasting reason
            raise _failure(plan, lost, log_line)
        plan.say(f"{lost.value}: the job is submitted again, and continues after round {follower.reported}")


def _wait(plan: RunPlan, follower: RoundFollower, watch: PulseWatch, running: FlareProcess) -> Lost | None:
    """Follow the run folder until the coordinator ends (None), or return the reason to stop waiting."""
    folder, lost = plan.folder, None
    waiting = Waiting(watch, lambda: running.ended, plan.say)
    while not has_ended(folder) and lost is None:
        follower.look()
        lost = waiting.look()
        time.sleep(_POLL_S)
    follower.look()
    if has_ended(folder):
        running.wait_for_exit()
        return None
    # A coordinator may outlive its server, and two must not write to one run folder. Behind a server that stays silent
    # for a while the coordinator may still work: spare it, the next submission finds it again.
    watch.end_coordinator(only_orphan=lost is Lost.ENDED and not running.job_is_over)
    if lost is Lost.SILENT:
        (folder.path / NOTE).unlink(missing_ok=True)
    return lost


def _tries(plan: RunPlan) -> int:
    """Return how many lost FLARE jobs in a row end the run; a simulator ends with its parent process."""
    return 1 if plan.flare.hosting is FlareHosting.SIMULATOR else _TRIES


def _failure(plan: RunPlan, lost: Lost, log_line: str | None) -> AegisError:
    kind = RunAborted if plan.folder.has_state else TransportUnavailable
    return kind(f"{log_line or lost.value}; {_describe_logs(plan)}")


def _describe_logs(plan: RunPlan) -> str:
    log = plan.folder.path / LOG
    match plan.flare.hosting:
        case FlareHosting.SIMULATOR:
            return f"FLARE's own log: {log}"
        case FlareHosting.POC:
            return f"FLARE's own logs: {log} and {plan.folder.path / 'nvflare' / 'logs'}"
        case FlareHosting.STARTUP_KIT:
            return f"FLARE's own logs: {log}, and log.txt in the kits of its server and of its clients"


def require_flare() -> None:
    """Raise if FLARE is not installed.

    Raises:
        RunFolderError: names the command that installs FLARE.
    """
    if importlib.util.find_spec("nvflare") is None:
        raise RunFolderError("NVIDIA FLARE is not installed: pip install 'aegis-fl[nvflare]'")


def _hosted(job: FederationJob, plan: RunPlan) -> AbstractContextManager[FlareProcess]:
    """Return the FLARE job of ``plan``, to be started on entering the context."""
    match plan.flare.hosting:
        case FlareHosting.SIMULATOR:
            return _simulated(job, plan)
        case FlareHosting.POC:
            return _proof_of_concept(job, plan)
        case FlareHosting.STARTUP_KIT:
            return _deployed(job, plan)


def _simulated(job: FederationJob, plan: RunPlan) -> AbstractContextManager[FlareProcess]:
    from aegis.runtimes.nvflare import Simulation, simulating

    if plan.federation.config().profile is not Profile.DEVELOPMENT:
        raise InvalidJob("the simulator runs sites in FLARE's own processes, which needs profile development")
    sites = _local_sites(plan)
    return simulating(
        Simulation(
            folder=_own_folder(plan),
            log=plan.folder.path / LOG,
            job=_flare_job(job, plan, sites),
            server=_server_settings(plan),
            sites=SiteSettings(version=1, runs="session", sites=sites, unsafe_seed=plan.unsafe_seed),
            threads=min(plan.flare.threads or len(sites), len(sites)),
            import_from=Path.cwd(),
        )
    )


def _proof_of_concept(job: FederationJob, plan: RunPlan) -> AbstractContextManager[FlareProcess]:
    from aegis.runtimes.nvflare import ProofOfConcept, proof_of_concept

    sites = _local_sites(plan)
    return proof_of_concept(
        ProofOfConcept(
            folder=_own_folder(plan),
            log=plan.folder.path / LOG,
            job=_flare_job(job, plan, sites),
            server=_server_settings(plan),
            sites=sites,
            unsafe_seed=plan.unsafe_seed,
        )
    )


def _deployed(job: FederationJob, plan: RunPlan) -> AbstractContextManager[FlareProcess]:
    from aegis.runtimes.nvflare import Submission, submitted

    if plan.flare.kit is None:
        raise InvalidJob("a run on a FLARE deployment needs an administrator's startup kit")
    return submitted(
        Submission(
            kit=read_admin_kit(plan.flare.kit),
            job=_flare_job(job, plan, _registered(plan.federation)),
            folder=_own_folder(plan),
            note=plan.folder.path / NOTE,
            log=plan.folder.path / LOG,
            clients=tuple(_registered(plan.federation)),
        )
    )


def _flare_job(job: FederationJob, plan: RunPlan, sites: Collection[str]) -> FlareJob:
    return FlareJob(
        job,
        run=run_name(plan.folder.path.absolute().name),
        sites=sites,
        executor=plan.flare.executor,
        readmit=plan.readmit,
    )


def _own_folder(plan: RunPlan) -> Path:
    return plan.folder.path.absolute() / "nvflare"


def _server_settings(plan: RunPlan) -> ServerSettings:
    runs, federation = plan.folder.path.absolute().parent, plan.federation.path.absolute()
    return ServerSettings(version=1, federation=str(federation), runs=str(runs))


def _registered(federation: FederationFolder) -> set[str]:
    config = federation.config()
    return config.public_keys.keys() - set(config.revoked)


def _local_sites(plan: RunPlan) -> dict[str, str]:
    """Return the folders of the registered sites on this host, by site id."""
    federation, registered = plan.federation, _registered(plan.federation)
    folders = {path.name: str(path.absolute()) for path in federation.site_folders() if path.name in registered}
    if not folders:
        raise RunFolderError(f"{federation.path}: sites/ holds no participant's folder on this host")
    return folders


def run_name(name: str) -> str:
    """Return a run folder's name in the form that a FLARE job accepts.

    Raises:
        RunFolderError: the name has characters that a job may not use.
    """
    refused = f"a FLARE job cannot name the run folder {name!r:.80}: use only letters, digits, '.', '_' and '-'"
    with explained(lambda _: RunFolderError(refused)):
        return TypeAdapter[str](SafeId).validate_python(name)

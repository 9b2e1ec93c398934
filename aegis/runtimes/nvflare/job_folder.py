"""Writes a job as a folder for FLARE. The folder holds configuration only: no code, no key and no path of a host.

::

    meta.json                               name, sites, number of sites that FLARE awaits before the job's start
    coordinator/config/config_fed_server.json   the workflow, by its class; the run folder's name
    coordinator/config/job.yaml                 the job as ordered, for people and for the workflow
    site/config/config_fed_client.json          the executor, by its class

FLARE would treat a folder with code (``custom/``) as BYOC, which skips the list of allowed classes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aegis.errors import RunFolderError
from aegis.federation import dump_job
from aegis.runtimes.nvflare.settings import EXECUTOR, WORKFLOW
from coreason_enclave.schemas import FederationJob
from coreason_enclave.wire import RequestKind

JOB_FILE: Final = "job.yaml"

TASK_REQUEST_S: Final = 0.1
"""Seconds between a client's requests for its next task."""

_TASKS = ["submit_model" if kind is RequestKind.SUBMIT else kind.value for kind in RequestKind]


@dataclass(frozen=True)
class FlareJob:
    """The content of a FLARE job.

    Attributes:
        run: name of the run folder on the coordinator's host.
        sites: names of the FLARE clients that take part.
        executor: dotted path of the class that answers at a site.
        readmit: sites to reinstate; the coordinator removes their strikes.
        min_clients: FLARE starts the job at this number of connected clients, and continues with fewer.
    """

    job: FederationJob
    run: str
    sites: Collection[str]
    executor: str = EXECUTOR
    readmit: Collection[str] = ()
    min_clients: int = 1
    workflow: str = field(default=WORKFLOW)


def write_job_folder(folder: Path, flare_job: FlareJob) -> None:
    """Write the job folder. The folder's own name carries no meaning.

    Raises:
        RunFolderError: the folder exists or cannot be written.
    """
    if folder.exists():
        raise RunFolderError(f"{folder} exists: name a folder that does not exist yet")
    try:
        for name, document in _documents(flare_job).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"{json.dumps(document, indent=2)}\n", encoding="utf-8")
        (folder / "coordinator" / "config" / JOB_FILE).write_text(dump_job(flare_job.job), encoding="utf-8")
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise RunFolderError(f"{folder} cannot be written: {error.strerror}") from error


def _documents(flare_job: FlareJob) -> Mapping[str, dict[str, Any]]:
    filters: dict[str, Any] = {"task_data_filters": [], "task_result_filters": [], "components": []}
    arguments = {"run": flare_job.run, "readmit": sorted(flare_job.readmit)}
    workflow = {"id": "coordinator", "path": flare_job.workflow, "args": arguments}
    executor = {"tasks": _TASKS, "executor": {"path": flare_job.executor, "args": {}}}
    return {
        "meta.json": {
            "name": flare_job.job.job_id,
            "resource_spec": {},
            "min_clients": flare_job.min_clients,
            "deploy_map": {"coordinator": ["server"], "site": sorted(flare_job.sites)},
        },
        "coordinator/config/config_fed_server.json": {
            "format_version": 2,
            "server": {"task_request_interval": TASK_REQUEST_S},
            "workflows": [workflow],
            **filters,
        },
        "site/config/config_fed_client.json": {"format_version": 2, "executors": [executor], **filters},
    }

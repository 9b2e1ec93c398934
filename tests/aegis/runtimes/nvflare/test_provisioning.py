"""Startup kits: FLARE's own, with this project's guards in each; a name that FLARE refuses leaves nothing behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.fl_exception import UnsafeComponentError
from nvflare.apis.workspace import Workspace
from nvflare.app_common.widgets.component_path_authorizer import ComponentPathAuthorizer
from nvflare.fuel.sec.authz import AuthzContext, Person
from nvflare.fuel.sec.security_content_service import LoadResult, SecurityContentManager
from nvflare.security.security import FLAuthorizer

from aegis.errors import RunFolderError
from aegis.runtimes.nvflare.provisioning import Kits, Project, provision
from aegis.runtimes.nvflare.settings import EXECUTOR, GATE, WORKFLOW
from aegis.runtimes.nvflare.site_guards import guard_site, set_storage_root

GOOD: Mapping[str, Any] = {
    "name": "aegis",
    "server": "localhost",
    "port": 8002,
    "admin": "you@example.org",
    "sites": ("clinic-1", "clinic-2"),
}


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Kits:
    return provision(Project(**GOOD), tmp_path_factory.mktemp("provisioned") / "kits")


def local(kits: Kits, who: str, name: str) -> Any:
    kit = kits.server if who == "server" else kits.sites[who]
    return json.loads((kit / "local" / name).read_bytes())


@pytest.mark.parametrize("who", ["server", "clinic-1", "clinic-2"])
def test_nobody_brings_code_or_gets_a_shell(kits: Kits, who: str) -> None:
    permissions = local(kits, who, "authorization.json")["permissions"]

    for role, rights in permissions.items():
        assert rights.get("byoc", "none") == rights.get("shell_commands", "none") == "none", role


OWN_JOBS = ("submit_job", "abort_job", "delete_job", "download_job", "clone_job")
OTHERS = ("abort_job", "delete_job", "download_job", "clone_job", "configure_job_log")
PROCESSES = ("shutdown", "restart", "remove_client", "disable_client", "enable_client", "sys_info", "report_resources",
             "report_env", "configure_site_log", "call", "set_timeout", "cat", "ls", "byoc", "app_command")  # fmt: skip


@pytest.mark.parametrize("who", ["server", "clinic-1"])
def test_the_lead_has_its_own_jobs_and_no_hand_in_anybodys_processes(kits: Kits, who: str) -> None:
    """By FLARE's own authoriser, for a lead of the very organisation that a site is of."""
    authoriser = FLAuthorizer("federation", local(kits, who, "authorization.json"))

    def may(right: str, role: str = "lead", submitter: str = "you@example.org") -> bool:
        user, other = Person("you@example.org", "federation", role), Person(submitter, "federation", "lead")
        allowed, error = authoriser.authorize(AuthzContext(right=right, user=user, submitter=other))
        return bool(allowed) and not error

    assert [right for right in OWN_JOBS if not may(right)] == []
    assert [right for right in (*PROCESSES, *OTHERS) if may(right, submitter="them@example.org")] == []
    for role in ("project_admin", "org_admin", "member", ""):
        assert [right for right in (*OWN_JOBS, *PROCESSES, "list_jobs") if may(right, role)] == []


def test_the_servers_kit_has_a_gate_and_a_sites_has_none(kits: Kits) -> None:
    gates = {who: [each for each in local(kits, who, "resources.json")["components"] if each["path"] == GATE]
             for who in ("server", "clinic-1")}  # fmt: skip

    assert [len(found) for found in gates.values()] == [1, 0]


@pytest.mark.parametrize(("who", "own"), [("server", WORKFLOW), ("clinic-1", EXECUTOR)])
def test_flare_builds_the_one_class_of_ours_and_no_other(kits: Kits, who: str, own: str) -> None:
    kit = kits.server if who == "server" else kits.sites[who]
    workspace, judge = Workspace(str(kit), who), ComponentPathAuthorizer()

    judge.authorize_component_config({"path": own}, workspace=workspace)

    for other in (
        WORKFLOW if own == EXECUTOR else EXECUTOR,
        "subprocess.Popen",
        f"{own}Too",
        "coreason_enclave.site.opening.Site",
    ):
        with pytest.raises(UnsafeComponentError, match="not in allow_list"):
            judge.authorize_component_config({"path": other}, workspace=workspace)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("who", ["server", "clinic-1"])
def test_flare_verifies_what_it_generated_and_notices_any_change(tmp_path: Path, kits: Kits, who: str) -> None:
    """By FLARE's own reader, which lets neither server nor client start over a file that it refuses."""
    startup = tmp_path / "startup"
    shutil.copytree((kits.server if who == "server" else kits.sites[who]) / "startup", startup)
    names = {path.name for path in startup.iterdir()} - {"signature.json"}
    reader = SecurityContentManager(str(startup))

    assert reader.valid_config
    assert {name: reader.load_content(name)[1] for name in names} == dict.fromkeys(names, LoadResult.OK)
    for name in names:
        (startup / name).write_bytes((startup / name).read_bytes() + b"\n")
        assert reader.load_content(name)[1] == LoadResult.INVALID_SIGNATURE


def test_a_sites_log_is_not_streamed_away(kits: Kits) -> None:
    resources = local(kits, "clinic-1", "resources.json")

    assert resources["allow_log_streaming"] is False
    assert not [each for each in resources["components"] if "stream" in each["id"]]


def test_private_keys_are_in_folders_that_only_their_owner_enters(kits: Kits) -> None:
    assert kits.server.parents[2].stat().st_mode & 0o777 == 0o700


def test_a_servers_jobs_can_be_kept_out_of_the_shared_temporary_folder(kits: Kits, tmp_path: Path) -> None:
    set_storage_root(kits.server / "local", tmp_path)

    assert "/tmp/nvflare" not in json.dumps(local(kits, "server", "resources.json"))


BAD = {
    "a server that is no host name": {"server": "bad host!"},
    "a server that climbs": {"server": "../elsewhere"},
    "an administrator without an address": {"admin": "you"},
    "a site with a space": {"sites": ("clinic 1",)},
    "a site that climbs": {"sites": ("../clinic",)},
    "a site with the server's certificate": {"sites": ("localhost", "clinic-1")},
    "a site with the name of the server's cell": {"sites": ("server", "clinic-1")},
    "a site whose name is a path of cells": {"sites": ("clinic.1",)},
}


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD)
def test_a_name_that_flare_refuses_leaves_nothing_behind(
    tmp_path: Path, changes: Mapping[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RunFolderError, match="cannot provision"):
        provision(Project(**{**GOOD, **changes}), tmp_path / "kits")

    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_kits_are_never_made_over_others(tmp_path: Path) -> None:
    (tmp_path / "kits").mkdir()

    with pytest.raises(RunFolderError, match="exists"):
        provision(Project(**GOOD), tmp_path / "kits")


def test_a_folder_that_is_no_kit_is_not_guarded(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="not a startup kit"):
        guard_site(tmp_path)

    assert list(tmp_path.iterdir()) == []

"""``aegis federation …``, as typed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from aegis.cli import main
from aegis.commands import federation as commands
from aegis.coordination.quarantine import record_strike
from aegis.federation.registry import FederationFolder
from aegis.gateway.status import SiteStatus, StatusReport
from aegis.http.load import GatewayLoad
from aegis.runtimes.flower.supervisor import FederationHost
from aegis.stores.run_state import RunState
from aegis.stores.run_store import FileRunStore
from coreason_enclave.site.registration_grant import accept_grant
from coreason_enclave.site.registration_request import make_request
from coreason_enclave.wire.documents import FreeBudget
from tests.aegis.runtimes.flower.deployments import Deployment


def typed(*words: object) -> Result:
    return CliRunner().invoke(main, ["federation", *map(str, words)])


@pytest.fixture
def founded(tmp_path: Path) -> Path:
    folder = tmp_path / "six-sites"
    assert typed("init", folder, "--profile", "development").exit_code == 0
    return folder


def test_founding_admitting_and_joining_take_three_commands(founded: Path, federation: Any, tmp_path: Path) -> None:
    site = federation.create("clinic-1")
    request, grant = tmp_path / "request.json", tmp_path / "grant.json"
    request.write_bytes(make_request(site.folder))
    admitted = typed("admit", founded, request, "--out", grant)
    accept_grant(site.folder, grant.read_bytes(), FederationFolder(founded).signer().public_hex, now=time.time())

    assert admitted.exit_code == 0, admitted.output
    assert "admitted clinic-1; its key's fingerprint is" in admitted.output
    assert FederationFolder(founded).config().certificates.keys() == {"clinic-1"}


def test_founding_says_what_to_compare_by_telephone(tmp_path: Path) -> None:
    said = typed("init", tmp_path / "new", "--public-address", "fl.example.org:9443").output

    assert "profile production" in said
    assert "fl.example.org:9443" in said
    assert "fingerprint" in said


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["init", "{founded}"], "already holds a federation"),
        (["init", "{new}", "--host", "0.0.0.0"], "give --public-address, by which sites reach it"),
        (["init", "{new}", "--public-address", "nonsense"], "host:port"),
        (["init", "{new}", "--delta", "2"], "delta"),
        (["admit", "{founded}", "{nothing}"], "does not exist"),
        (["admit", "{founded}", "{founded}/federation.toml"], "JSON"),
        (["revoke", "{founded}", "nobody"], "nobody"),
        (["status", "{empty}"], "not a federation folder"),
        (["up", "{empty}"], "not a federation folder"),
        (["serve", "{empty}"], "not a federation folder"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(
    founded: Path, tmp_path: Path, words: list[str], complaint: str
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"founded": founded, "new": tmp_path / "new", "nothing": tmp_path / "nothing", "empty": tmp_path / "empty"}
    before = (founded / "federation.toml").read_bytes()
    done = typed(*(word.format(**places) for word in words))

    assert done.exit_code == 2, done.output
    assert complaint in done.output
    assert len(done.output.strip().splitlines()) == 1
    assert (founded / "federation.toml").read_bytes() == before
    assert not (tmp_path / "new" / "federation.toml").exists()


def test_status_of_what_is_not_served_is_exit_code_3(founded: Path) -> None:
    page, document = typed("status", founded), typed("status", founded, "--json")

    assert page.exit_code == document.exit_code == 3
    assert "NOT being served" in page.output
    assert "SIMULATED" in page.output
    assert json.loads(document.output)["serving"] is False


def test_ending_what_is_not_served_is_no_error(founded: Path) -> None:
    done = typed("down", founded)

    assert done.exit_code == 0
    assert "not being served" in done.output


def test_status_shows_each_site_its_budget_and_who_sits_out(
    deployment: Callable[..., Deployment], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = deployment()
    budget = FreeBudget(dataset_id="clinic/visits", epsilon_cap=20.0, epsilon_spent=5.0, delta=1e-5)
    seen = SiteStatus(
        connected=True, last_seen=1.8e9, last_poll=1.8e9, round_trip_s=0.0042, version="0.1.0", budgets=(budget,)
    )
    monkeypatch.setattr(FederationHost, "state", lambda self: {"serving": True, "gateway": "127.0.0.1:1", "pid": 5})
    monkeypatch.setattr(commands, "_report", lambda host: StatusReport(sites={"clinic-1": seen}))
    config = made.federation.config()
    admitted = {f"clinic-{number}": f"{number}" * 64 for number in (1, 2)}
    made.federation.create(config.model_copy(update={"certificates": admitted, "revoked": ("clinic-2",)}))
    struck = {"clinic-1": record_strike(None, "malformed", 3)}
    state = RunState(job_digest="0" * 64, models=("1" * 64,), rounds_ended=4, quarantine=struck)
    FileRunStore(made.run_folder.path / "state").save(state)
    page = typed("status", made.path, "--run", made.run_folder.path)
    document = json.loads(typed("status", made.path, "--run", made.run_folder.path, "--json").output)

    assert page.exit_code == 0, page.output
    assert "clinic-1: connected, seen 2027-01-15T08:00:00+00:00" in page.output
    assert "round trip 4.2 ms, agent 0.1.0, QUARANTINED: malformed" in page.output
    assert "clinic/visits: epsilon 15.000 of 20 left at delta 1e-05" in page.output
    assert "clinic-2: REVOKED" in page.output
    assert "clinic-3: registered, not admitted" in page.output
    assert document["sites"]["clinic-1"]["budgets"][0]["epsilon_cap"] == 20.0


@pytest.mark.parametrize(("seconds_ago", "full"), [(5, True), (3000, False)])
def test_status_names_a_full_gateway_and_who_fills_it(
    deployment: Callable[..., Deployment], monkeypatch: pytest.MonkeyPatch, seconds_ago: int, full: bool
) -> None:
    made = deployment()
    load = GatewayLoad(
        connections=512,
        max_connections=512,
        by_site={"clinic-3": 500},
        turned_away={"all connections are taken": 9},
        max_turned_away={"clinic-1": 9},
        crowded_at=time.time() - seconds_ago,
    )
    report = StatusReport(sites={"clinic-1": SiteStatus(oversized=("abc",))}, gateway=load)
    monkeypatch.setattr(FederationHost, "state", lambda self: {"serving": True, "gateway": "127.0.0.1:1", "pid": 5})
    monkeypatch.setattr(commands, "_report", lambda host: report)
    config = made.federation.config()
    made.federation.create(config.model_copy(update={"certificates": {"clinic-1": "1" * 64}}))
    page, document = typed("status", made.path), json.loads(typed("status", made.path, "--json").output)

    assert ("the gateway is FULL" in page.output) == full == document["full"]
    assert "512 of 512 connections (clinic-3 holds 500); turned away: all connections are taken: 9" in page.output
    assert (
        "clinic-1: NOT connected, seen never, asked never, SENT AN OVERSIZED REPLY and was disconnected" in page.output
    )
    assert document["load"]["by_site"] == {"clinic-3": 500}


@pytest.mark.parametrize("command", ["init", "admit", "revoke", "serve", "up", "status", "down"])
def test_every_command_has_help_with_an_example(command: str) -> None:
    done = typed(command, "--help")

    assert done.exit_code == 0
    assert f"Example: aegis federation {command}" in " ".join(done.output.split())

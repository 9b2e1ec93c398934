"""``site.toml: trainer``: a loop that the site installed itself, run by whatever opens the site."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from coreason_enclave.commands.doctor import examine
from coreason_enclave.errors import ConfigurationError, EnclaveError, Reason
from coreason_enclave.policy import SiteConfig
from coreason_enclave.site.opening import open_site
from tests.coreason_enclave.federation import loops
from tests.coreason_enclave.federation.conftest import Flare
from tests.coreason_enclave.federation.test_agent import agent

ROOT = Path(__file__).resolve().parents[3]
VERBATIM = "tests.coreason_enclave.federation.loops:SecureAgent"


@pytest.fixture
def found(federation: Any) -> Callable[..., Any]:
    return lambda trainer: federation.create(trainer=trainer)


@pytest.mark.parametrize(
    "name",
    ["module", "module:", ":Class", "a b:C", "module:Class()", "../x:C", "m:C:D", "m:C.D", "m;import os:C", "1:C", ""],
)
def test_what_is_no_name_of_a_class_is_no_configuration(federation: Any, name: str) -> None:
    fields = federation.create().config.model_dump(mode="json")
    with pytest.raises(ValidationError):
        SiteConfig.model_validate({**fields, "trainer": name})


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no.such.module:Class", "cannot be imported"),
        ("tests.coreason_enclave.federation.loops:NoSuchClass", "cannot be imported"),
        ("tests.coreason_enclave.federation.loops:ROW", "no subclass"),
        ("builtins:dict", "no subclass"),
        ("tests.coreason_enclave.federation.test_installed_trainers:NeedsAnArgument", "without arguments"),
        ("tests.coreason_enclave.federation.test_installed_trainers:FailsToBegin", "without arguments"),
    ],
)
def test_a_class_that_cannot_train_is_refused_when_the_site_is_opened(
    found: Callable[..., Any], name: str, why: str
) -> None:
    site = found(name)
    with pytest.raises(ConfigurationError, match=why):
        open_site(site.folder)
    assert any(finding.verdict == "FAIL" and why in finding.found for finding in examine(site.folder))


class NeedsAnArgument(loops.SecureAgent):
    def __init__(self, rate: float) -> None:
        super().__init__()


class FailsToBegin(loops.SecureAgent):
    def __init__(self) -> None:
        raise RuntimeError("no licence")


def test_it_trains_in_an_agent_and_in_process_as_in_flares_simulator(
    federation: Any, flare: Flare, standard: Callable[..., str]
) -> None:
    job = federation.job()
    flare.executor = loops.SecureAgent()
    simulated = flare.statement(flare.ask("train", flare.order(job)))
    flare.end()
    federation = replace(federation, root=federation.root / "others")
    site = federation.create(trainer=VERBATIM)
    deployed = Flare(federation, site, flare.root / "agent").configured(runs="agent", unsafe_seed=None)
    with agent(site):
        by_the_agent = deployed.statement(deployed.ask("train", deployed.order(job)))
    for kept in (site.folder / "released").glob("*/*.update"):
        kept.unlink()

    assert by_the_agent.update_digest == simulated.update_digest == standard(site, job)
    assert by_the_agent.metrics == simulated.metrics


def test_a_session_in_flares_process_honours_it(federation: Any, tmp_path: Path) -> None:
    flare = Flare(federation, federation.create(trainer=VERBATIM), tmp_path / "flare").configured()
    said = flare.statement(flare.ask("train", flare.order()))
    flare.end()

    assert said.metrics.keys() == {"epsilon"}


def test_two_different_loops_for_one_site_are_refused(federation: Any, tmp_path: Path) -> None:
    flare = Flare(federation, federation.create(trainer=VERBATIM), tmp_path / "flare", loops.FiveEpochs()).configured()

    assert flare.refused("attest", federation.order(federation.job())) == ("SERVICE_UNAVAILABLE", "configuration")


def test_its_failure_is_the_sites_and_says_internal(federation: Any) -> None:
    site = federation.create(trainer="tests.coreason_enclave.federation.loops:FailsWithARow")
    opened = site.open(clock=federation.clock)
    with pytest.raises(EnclaveError) as refused:
        opened.session.run(federation.order(federation.job()))
    opened.close()
    assert refused.value.reason is Reason.INTERNAL


def test_where_none_is_named_nothing_of_flare_is_loaded(federation: Any) -> None:
    site = federation.create()
    code = (
        "import sys; from pathlib import Path; from coreason_enclave.site.opening import open_site\n"
        "open_site(Path(sys.argv[1])).close(); print('nvflare' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(site.folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"

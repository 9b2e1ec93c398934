"""``aegis federation pin``, and ``admit --platform``: whole or not at all, and never over other machines unasked."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from aegis.errors import RunFolderError
from aegis.federation.registry import FederationConfig, FederationFolder
from aegis.services.participants import pin
from coreason_enclave.policy import Profile
from coreason_enclave.site.registration_request import make_request

Aegis = Callable[..., Result]

CPU, GPU, OTHER = "3f" * 64, "81" * 32, "77" * 64
POLICY = """
[attestation]
kinds = ["snp"]
gpus = 1

[[attestation.reference_values]]
name = "agent-1"
kind = "snp"
not_after = 2027-01-31
measurements = { measurement = "MEASURED" }

[attestation.snp.tcb_floor.Genoa]
boot_loader = 9
tee = 0
snp = 21
microcode = 72

[attestation.platforms]
clinic-2 = ["7777777777777777"]
""".replace("MEASURED", "aa55" * 24)


def listed(folder: Path) -> dict[str, tuple[str, ...]]:
    return dict(FederationFolder(folder).config().pinned())


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A federation with three participants, one of them revoked, and a policy."""
    keys = {f"clinic-{number}": f"{number}" * 64 for number in (1, 2, 3)}
    founded = FederationConfig(profile=Profile.PRODUCTION, delta=1e-5, public_keys=keys, revoked=("clinic-3",))
    FederationFolder(tmp_path).create(founded.model_copy(update=attestation()))
    return tmp_path


def attestation() -> dict[str, Any]:
    document = {"profile": "production", "delta": 1e-5, "public_keys": {}, **tomllib.loads(POLICY)}
    return {"attestation": FederationConfig.model_validate(document).attestation}


def test_a_site_is_pinned_and_everything_else_stays_as_it_was(aegis: Aegis, place: Path) -> None:
    before = FederationFolder(place).config()

    done = aegis("federation", "pin", place, "clinic-1", "--platform", CPU, "--platform", GPU)
    after = FederationFolder(place).config()

    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [f"clinic-1 is pinned to {CPU}, {GPU}", "before: nothing"]
    assert after.pinned() == {"clinic-1": (CPU, GPU), "clinic-2": ("7777777777777777",)}
    assert after.attestation is not None
    assert before.attestation is not None
    assert after.attestation.model_copy(update={"platforms": before.attestation.platforms}) == before.attestation
    assert after.model_copy(update={"attestation": None}) == before.model_copy(update={"attestation": None})


def test_the_answer_for_a_script_says_what_was_there(aegis: Aegis, place: Path) -> None:
    aegis("federation", "pin", place, "clinic-1", "--platform", OTHER)

    moved = aegis("federation", "pin", place, "clinic-1", "--platform", CPU, "--replace", "--json")
    again = aegis("federation", "pin", place, "clinic-1", "--platform", CPU, "--json")

    expected = {"site": "clinic-1", "platforms": [CPU], "before": [OTHER], "changed": True, "shared": {}}
    assert json.loads(moved.stdout) == expected
    assert json.loads(again.stdout) == {**expected, "before": [CPU], "changed": False}


def test_a_site_that_moved_is_pinned_anew_only_where_that_is_said(aegis: Aegis, place: Path) -> None:
    aegis("federation", "pin", place, "clinic-1", "--platform", OTHER)

    refused = aegis("federation", "pin", place, "clinic-1", "--platform", CPU)

    assert refused.exit_code == 2
    assert f"is pinned to {OTHER}" in refused.stderr
    assert "--replace" in refused.stderr
    assert listed(place)["clinic-1"] == (OTHER,)
    assert aegis("federation", "pin", place, "clinic-1", "--platform", CPU, "--replace").exit_code == 0
    assert listed(place)["clinic-1"] == (CPU,)


def test_the_same_machines_in_another_order_are_no_change(aegis: Aegis, place: Path) -> None:
    aegis("federation", "pin", place, "clinic-1", "--platform", CPU, "--platform", GPU)
    before = (place / "federation.toml").stat().st_ino

    done = aegis("federation", "pin", place, "clinic-1", "--platform", GPU, "--platform", CPU)

    assert "already listed" in done.output
    assert (place / "federation.toml").stat().st_ino == before


def test_a_machine_of_two_sites_is_pinned_only_where_that_is_said(aegis: Aegis, place: Path) -> None:
    asked = ("federation", "pin", place, "clinic-1", "--platform", "7777777777777777")
    before = (place / "federation.toml").read_bytes()

    refused = aegis(*asked)

    assert (refused.exit_code, (place / "federation.toml").read_bytes()) == (2, before)
    assert "is pinned to clinic-2" in refused.output
    done = aegis(*asked, "--unsafe-shared")
    assert done.exit_code == 0
    assert "also listed for clinic-2: 7777777777777777" in done.output
    policy = FederationFolder(place).config().attestation
    assert policy is not None
    assert policy.unsafe_shared_platforms == ("7777777777777777",)


BAD = {
    "a site that nobody admitted": (["clinic-9", "--platform", CPU], "clinic-9 is not a participant"),
    "a revoked site": (["clinic-3", "--platform", CPU], "clinic-3 is revoked"),
    "no platform": (["clinic-1"], "at least one platform"),
    "a platform twice": (["clinic-1", "--platform", CPU, "--platform", CPU], "named twice"),
    "capital letters, which no verdict has": (["clinic-1", "--platform", CPU.upper()], "lower-case hex"),
    "a prefix": (["clinic-1", "--platform", "0x" + CPU], "lower-case hex"),
    "too few digits": (["clinic-1", "--platform", "3f3f3f3"], "8 to 256"),
    "too many digits": (["clinic-1", "--platform", "3f" * 129], "8 to 256"),
    "a line break at the end": (["clinic-1", "--platform", CPU + "\n"], "lower-case hex"),
    "digits of another script": (["clinic-1", "--platform", "\u0663" * 16], "lower-case hex"),
    "an id that the host masks": (["clinic-1", "--platform", "00" * 64], "masks"),
    "one good and one bad": (["clinic-1", "--platform", CPU, "--platform", "zz"], "lower-case hex"),
}


@pytest.mark.parametrize(("words", "complaint"), BAD.values(), ids=BAD)
def test_what_cannot_be_pinned_is_one_line_and_changes_nothing(
    aegis: Aegis, place: Path, words: list[str], complaint: str
) -> None:
    before = (place / "federation.toml").read_bytes()

    done = aegis("federation", "pin", place, *words, "--replace")

    assert done.exit_code == 2, done.output
    assert complaint in done.stderr
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert (place / "federation.toml").read_bytes() == before
    assert [path.name for path in place.iterdir()] == ["federation.toml"]


def test_without_a_policy_there_is_nothing_to_pin_in(aegis: Aegis, study: Any) -> None:
    done = aegis("federation", "pin", study.federation, "clinic-1", "--platform", CPU)

    assert done.exit_code == 2
    assert "[attestation]" in done.stderr


def test_a_folder_that_is_no_federation_is_refused(aegis: Aegis, tmp_path: Path) -> None:
    done = aegis("federation", "pin", tmp_path, "clinic-1", "--platform", CPU)

    assert done.exit_code == 2
    assert "not a federation folder" in done.stderr


@given(st.text(max_size=64))
def test_whatever_is_accepted_as_an_id_could_be_one(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    place = FederationFolder(tmp_path_factory.mktemp("place"))
    config = FederationConfig(profile=Profile.PRODUCTION, delta=1e-5, public_keys={"clinic-1": "1" * 64})
    place.create(config.model_copy(update=attestation()))
    try:
        pin(place, "clinic-1", [text])
    except RunFolderError:
        assert "clinic-1" not in place.config().pinned()
    else:
        assert set(text) <= set("0123456789abcdef")
        assert place.config().pinned()["clinic-1"] == (text,)


@pytest.fixture
def founded(aegis: Aegis, tmp_path: Path) -> Path:
    """A federation that nobody takes part in, as ``init`` leaves it, with a policy written into it by hand."""
    folder = tmp_path / "founded"
    assert aegis("federation", "init", folder, "--profile", "production").exit_code == 0
    with (folder / "federation.toml").open("a", encoding="utf-8") as file:
        file.write(POLICY)
    return folder


@pytest.fixture
def request_file(federation: Any, tmp_path: Path) -> Path:
    path = tmp_path / "clinic-1.request.json"
    path.write_bytes(make_request(federation.create("clinic-1").folder))
    return path


def test_a_site_is_admitted_and_pinned_at_once(aegis: Aegis, founded: Path, request_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "grant.json"

    done = aegis("federation", "admit", founded, request_file, "--out", out, "--platform", CPU, "--platform", GPU)

    assert done.exit_code == 0, done.output
    assert f"the site is pinned to {CPU}, {GPU}" in done.output
    assert listed(founded)["clinic-1"] == (CPU, GPU)
    assert "clinic-1" in FederationFolder(founded).config().certificates


def test_a_site_that_is_admitted_without_a_machine_is_told_so(
    aegis: Aegis, founded: Path, request_file: Path, tmp_path: Path
) -> None:
    done = aegis("federation", "admit", founded, request_file, "--out", tmp_path / "grant.json")

    assert "NOT pinned" in done.output
    assert "clinic-1" not in listed(founded)


def test_renewing_a_certificate_leaves_the_machines_as_they_are(
    aegis: Aegis, founded: Path, request_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "grant.json"
    aegis("federation", "admit", founded, request_file, "--out", out, "--platform", CPU)
    aegis("federation", "admit", founded, request_file, "--out", out)

    assert listed(founded)["clinic-1"] == (CPU,)


@pytest.mark.parametrize("machine", ["zz", OTHER], ids=["no id", "another machine than the one that is listed"])
def test_a_site_whose_machine_cannot_be_pinned_is_not_admitted(
    aegis: Aegis, founded: Path, request_file: Path, tmp_path: Path, machine: str
) -> None:
    aegis("federation", "admit", founded, request_file, "--out", tmp_path / "first.json", "--platform", CPU)
    before = {path: path.read_bytes() for path in founded.rglob("*") if path.is_file()}

    done = aegis("federation", "admit", founded, request_file, "--out", tmp_path / "no.json", "--platform", machine)

    assert done.exit_code == 2, done.output
    assert not (tmp_path / "no.json").exists()
    assert {path: path.read_bytes() for path in founded.rglob("*") if path.is_file()} == before

"""A site's policy is edited with a reason, logged first, and nothing else of site.toml changes."""

from __future__ import annotations

import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from coreason_enclave.crypto import HashLog, Signer
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.ledger import SqliteLedger, verify_export
from coreason_enclave.main import main
from coreason_enclave.policy import load_site_config
from coreason_enclave.site import policy_edits
from tests.conftest import CLINICS, SmallSite, site_signer

KEY = Signer.from_seed(bytes([9]) * 32).public_hex
OPENING = "# our own words\nversion = 1"


@pytest.fixture
def small(federation: Any) -> SmallSite:
    site: SmallSite = federation.create()
    path = site.folder / "site.toml"
    path.write_text(path.read_text().replace("version = 1", OPENING, 1) + "\n# the last line\n")
    return site


def run(site: SmallSite, *arguments: object) -> Result:
    return CliRunner().invoke(main, ["policy", *map(str, arguments), "--config", str(site.folder)])


def document(site: SmallSite) -> dict[str, Any]:
    return tomllib.loads((site.folder / "site.toml").read_text())


EDITS = {
    "participant": ("add-participant", "newcomer", "--key", KEY),
    "model": ("allow-model", "MLP"),
    "cap": ("raise-cap", "clinic-1/visits", "--epsilon", 30, "--job-epsilon", 12),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edit_changes_one_thing_keeps_comments_and_is_logged(small: SmallSite, edit: tuple[object, ...]) -> None:
    before = document(small)
    result = run(small, *edit, "--reason", "the board agreed")
    assert result.exit_code == 0, result.output
    after = document(small)
    before["policy"]["participants"]["newcomer"] = KEY if edit[0] == "add-participant" else None
    if edit[0] != "add-participant":
        del before["policy"]["participants"]["newcomer"]
    if edit[0] == "allow-model":
        before["policy"]["model_archs"].append("MLP")
    if edit[0] == "raise-cap":
        before["lineages"][0].update(epsilon=30.0, job_epsilon=12.0)
    assert after == before
    text = (small.folder / "site.toml").read_text()
    assert text.startswith(OPENING)
    assert text.rstrip().endswith("# the last line")
    (entry,) = small.log()
    assert entry["details"]["why"] == "the board agreed"
    small.open().close()  # the ledger and site.toml still agree


REFUSED = {
    "no reason": (("allow-model", "MLP", "--reason", "  "), "--reason needs words"),
    "an unknown model": (("allow-model", "MLPs", "--reason", "x"), "did you mean 'MLP'?"),
    "the site itself": (("add-participant", "clinic-1", "--key", KEY, "--reason", "x"), "this site itself"),
    "a key of another": (
        ("add-participant", "new", "--key", site_signer(CLINICS[2]).public_hex, "--reason", "x"),
        "the key of participant clinic-3",
    ),
    "no key": (("add-participant", "new", "--key", "zz", "--reason", "x"), ""),
    "a lower cap": (("raise-cap", "clinic-1/visits", "--epsilon", 1, "--reason", "x"), "is spent"),
    "the same cap": (("raise-cap", "clinic-1/visits", "--epsilon", 20, "--reason", "x"), "already"),
    "an unknown lineage": (("raise-cap", "clinic-1/visit", "--epsilon", 30, "--reason", "x"), "did you mean"),
    "a job above the lineage": (
        ("raise-cap", "clinic-1/visits", "--epsilon", 21, "--job-epsilon", 40, "--reason", "x"),
        "job_epsilon",
    ),
    "no number": (("raise-cap", "clinic-1/visits", "--epsilon", "nan", "--reason", "x"), ""),
}


@pytest.mark.parametrize(("arguments", "words"), REFUSED.values(), ids=REFUSED)
def test_a_refused_edit_changes_and_logs_nothing(small: SmallSite, arguments: tuple[object, ...], words: str) -> None:
    before, ledger = (small.folder / "site.toml").read_bytes(), small.ledger_entries()
    result = run(small, *arguments)
    assert result.exit_code in (2, 3), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert words in result.output
    assert (small.folder / "site.toml").read_bytes() == before
    assert (small.log(), small.ledger_entries()) == ([], ledger)


def test_a_running_agent_and_a_symbolic_link_are_refused(small: SmallSite) -> None:
    log = HashLog(small.folder / "audit.jsonl")
    assert "agent is running" in run(small, "allow-model", "MLP", "--reason", "x").output
    log.close()
    path = small.folder / "site.toml"
    path.rename(small.folder / "other.toml")
    path.symlink_to("other.toml")
    assert "symbolic link" in run(small, "allow-model", "MLP", "--reason", "x").output


def test_a_raise_stands_in_the_ledger_and_survives_its_verification(small: SmallSite) -> None:
    run(small, "raise-cap", small.lineage, "--epsilon", 30, "--reason", "the board agreed")
    ledger = SqliteLedger(small.folder / "ledger.sqlite")
    (claim,) = verify_export(ledger.export()).lineages
    ledger.close()
    assert claim.caps.epsilon == 30
    assert [(each.former.epsilon, each.why) for each in claim.raised] == [(20.0, "the board agreed")]
    assert claim.budget_pico > claim.raised[0].former_budget_pico


def test_the_log_has_the_change_before_the_file(small: SmallSite, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    before = (small.folder / "site.toml").read_bytes()
    with monkeypatch.context() as broken:
        broken.setattr(policy_edits, "replace_file", fail)
        assert run(small, "raise-cap", small.lineage, "--epsilon", 30, "--reason", "x").exit_code == 2
    assert (small.folder / "site.toml").read_bytes() == before
    assert len(small.log()) == 1
    assert run(small, "raise-cap", small.lineage, "--epsilon", 30, "--reason", "again").exit_code == 0
    small.open().close()


def test_two_edits_at_once_both_stand(small: SmallSite) -> None:
    keys = {f"new-{n}": Signer.from_seed(bytes([50 + n]) * 32).public_hex for n in range(6)}
    threads = [
        threading.Thread(target=policy_edits.add_participant, args=(small.folder, name, key, "x"))
        for name, key in keys.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert keys.items() <= load_site_config(small.folder / "site.toml").policy.participants.items()
    assert len(small.log()) == len(keys)


def test_strange_quoting_is_edited_rightly_or_refused(small: SmallSite) -> None:
    path = small.folder / "site.toml"
    text = (
        path.read_text()
        .replace("[policy]", "['policy']", 1)
        .replace("[policy.participants]", '["policy"."participants"]')
    )
    path.write_text(text)
    before = document(small)
    try:
        policy_edits.add_participant(small.folder, "newcomer", KEY, "x")
    except ConfigurationError:
        assert path.read_text() == text
    else:
        before["policy"]["participants"]["newcomer"] = KEY
        assert document(small) == before


@pytest.mark.parametrize("root", ["../../../../etc", "data/../..", "..", ""])
def test_a_data_root_that_steps_out_of_the_site_is_refused(small: SmallSite, root: str) -> None:
    path = small.folder / "site.toml"
    path.write_text(path.read_text().replace('data_root = "data"', f'data_root = "{root}"'))
    with pytest.raises(ConfigurationError, match="write an absolute path"):
        load_site_config(path)
    path.write_text(path.read_text().replace(f'data_root = "{root}"', f'data_root = "{Path(small.folder).absolute()}"'))
    load_site_config(path)

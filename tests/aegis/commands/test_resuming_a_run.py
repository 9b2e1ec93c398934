"""A run goes on under the values that it began with, from whole records; otherwise no site is asked anything."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from aegis.federated_coordinator import GridTransport
from aegis.federation.registry import FederationFolder
from aegis.rounds.round_runner import RoundRunner
from aegis.runs import pins
from aegis.stores.run_store import FileRunStore
from aegis.verification import verify_run
from coreason_enclave.attestation.attestation_policy import AttestationPolicy
from coreason_enclave.crypto.hash_log import HashLog
from coreason_enclave.crypto.signing import Signer, write_private
from coreason_enclave.policy import Profile
from coreason_enclave.wire.checkpoints import sign_log
from tests.aegis.commands.conftest import SITES, found_study, invoke, public_examples

COORDINATOR = Signer.from_seed(bytes([7]) * 32)


@dataclass(frozen=True)
class Begun:
    """A run of three rounds that was interrupted when the updates of its second round were kept."""

    root: Path

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def federation(self) -> FederationFolder:
        return FederationFolder(self.root / "federation")

    def go_on(self, *options: str) -> Result:
        job = self.root / "study-1.yaml"
        return invoke("run", job, "--federation", self.federation.path, "--out", self.run, *options)

    def ledgers(self) -> dict[str, bytes]:
        """The bytes of both sites' ledgers, write-ahead files included."""
        found = sorted(self.federation.path.glob("sites/*/ledger.sqlite*"))
        return {str(path): path.read_bytes() for path in found if path.is_file() and path.suffix != ".sqlite-shm"}

    def change(self, name: str, change: Callable[[bytes], bytes]) -> None:
        path = self.run / name
        path.write_bytes(change(path.read_bytes()))


@pytest.fixture(scope="module")
def begun_once(tmp_path_factory: pytest.TempPathFactory, federation_at: Callable[[Path], Any]) -> Begun:
    root = tmp_path_factory.mktemp("begun")
    study = found_study(root, federation_at)
    FederationFolder(study.federation).save_evaluation_set(public_examples())
    study.write_job("study-1")
    settle, save, saved = RoundRunner.settle, FileRunStore.save, list[bytes]()

    def stop_in_round_two(turn: RoundRunner, attempt: Any) -> Any:
        if turn._journal.state.completed_rounds == 1:
            raise KeyboardInterrupt
        return settle(turn, attempt)

    def keep_every_state(store: FileRunStore, state: Any) -> str:
        saved.append(state.canonical())
        return save(store, state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RoundRunner, "settle", stop_in_round_two)
        patch.setattr(FileRunStore, "save", keep_every_state)
        assert Begun(root).go_on().exit_code == 130
    (root / "states").mkdir()
    for number, data in enumerate(saved):
        (root / "states" / f"{number:03d}.json").write_bytes(data)
    return Begun(root)


@pytest.fixture
def begun(begun_once: Begun, tmp_path: Path) -> Begun:
    """A copy of its own, run folder and sites."""
    return Begun(Path(shutil.copytree(begun_once.root, tmp_path / "copy")))


@pytest.fixture
def nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("a site was asked")

    monkeypatch.setattr(GridTransport, "push", refuse)


def refused(begun: Begun, *options: str) -> str:
    """What is said where going on is refused, in one line, with no ledger changed."""
    before = begun.ledgers()
    result = begun.go_on(*options)
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert begun.ledgers() == before
    return lines[0]


def test_an_interrupted_run_goes_on_and_verifies(begun: Begun) -> None:
    result = begun.go_on()
    assert result.exit_code == 0, result.output
    assert "round 1/3" not in result.stdout
    assert verify_run(begun.run).ok


def flipped(place: int) -> Callable[[bytes], bytes]:
    """One bit of the byte at ``place``, counted from the end where negative."""

    def flip(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[place] ^= 1
        return bytes(changed)

    return flip


def first_lines(number: int) -> Callable[[bytes], bytes]:
    return lambda data: b"".join(data.splitlines(keepends=True)[:number])


def another_digit(field: str) -> Callable[[bytes], bytes]:
    """The first digit behind a field's name, for another one: still a document of the same form."""

    def change(data: bytes) -> bytes:
        at = data.index(f'"{field}"'.encode())
        place = next(at + n for n, byte in enumerate(data[at:]) if chr(byte).isdigit())
        return data[:place] + (b"1" if data[place : place + 1] != b"1" else b"2") + data[place + 1 :]

    return change


def one_of(begun: Begun, pattern: str) -> str:
    return sorted(begun.run.glob(pattern))[0].relative_to(begun.run).as_posix()


def kept_of_the_open_round(begun: Begun, kind: str) -> str:
    state = json.loads((begun.run / "state" / "state.json").read_text())
    return f"state/updates/{state['received']['clinic-1']['envelope']}.{kind}"


def kept_of_round_one(begun: Begun, kind: str) -> str:
    state = json.loads((begun.run / "state" / "state.json").read_text())
    return f"state/updates/{state['history'][0]['envelopes']['clinic-1']}.{kind}"


def rechained(begun: Begun) -> None:
    """A log with another word in it, on a chain that holds; nobody signs it."""
    path = begun.run / "audit.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1]["details"]["remark"] = "rewritten"
    path.unlink()
    log = HashLog(path, clock=lambda: 1.8e9)
    for line in lines:
        log.append(**{name: line[name] for name in ("actor", "action", "outcome", "reason", "details")})
    log.close()


def signed_by_another(begun: Begun) -> None:
    log = HashLog(begun.run / "audit.jsonl")
    (begun.run / "state" / "checkpoint.json").write_bytes(sign_log(log, Signer.generate(), "aegis/run"))
    log.close()


DAMAGES: Mapping[str, tuple[Callable[[Begun], object], str]] = {
    "a log cut to 5 lines": (lambda run: run.change("audit.jsonl", first_lines(5)), "audit.jsonl"),
    "a log that is gone": (lambda run: (run.run / "audit.jsonl").unlink(), "audit.jsonl"),
    "an empty log": (lambda run: run.change("audit.jsonl", lambda _: b""), "audit.jsonl"),
    "a log of another run's words": (rechained, "audit.jsonl"),
    "a log cut in the middle of a line": (lambda run: run.change("audit.jsonl", lambda log: log[:3000]), "audit.jsonl"),
    "a state that is gone": (lambda run: (run.run / "state" / "state.json").unlink(), "state/state.json"),
    "another nonce in the state": (lambda run: run.change("state/state.json", another_digit("nonces")), "state.json"),
    "another number of steps in the state": (
        lambda run: run.change("state/state.json", another_digit("steps")),
        "state.json",
    ),
    "a state of the round before": (
        lambda run: shutil.copy(run.root / "states" / "003.json", run.run / "state" / "state.json"),
        "state.json",
    ),
    "one bit of the configuration": (lambda run: run.change("config.json", another_digit("versions")), "config.json"),
    "one more comment in the job": (lambda run: run.change("job.yaml", lambda job: job + b"# approved\n"), "job.yaml"),
    "one bit of the evaluation set": (
        lambda run: run.change("evaluation.safetensors", flipped(-1)),
        "evaluation.safetensors",
    ),
    "no evaluation set": (lambda run: (run.run / "evaluation.safetensors").unlink(), "evaluation.safetensors"),
    "one bit of the checkpoint": (lambda run: run.change("state/checkpoint.json", flipped(-20)), "checkpoint.json"),
    "no checkpoint": (lambda run: (run.run / "state" / "checkpoint.json").unlink(), "checkpoint.json"),
    "a checkpoint under another key": (signed_by_another, "checkpoint.json"),
    "one bit of a model": (lambda run: run.change(one_of(run, "state/models/*"), flipped(-1)), "state/models/"),
    "no model": (lambda run: (run.run / one_of(run, "state/models/*")).unlink(), "state/models/"),
    "one bit of an envelope of round 1": (
        lambda run: run.change(kept_of_round_one(run, "json"), flipped(200)),
        "state/updates/",
    ),
    "no envelope of round 1": (lambda run: (run.run / kept_of_round_one(run, "json")).unlink(), "state/updates/"),
    "one bit of an update of round 1": (
        lambda run: run.change(kept_of_round_one(run, "safetensors"), flipped(-1)),
        "state/updates/",
    ),
    "no update of round 1": (lambda run: (run.run / kept_of_round_one(run, "safetensors")).unlink(), "state/updates/"),
    "one bit of an envelope of the open round": (
        lambda run: run.change(kept_of_the_open_round(run, "json"), flipped(200)),
        "state/updates/",
    ),
    "no envelope of the open round": (
        lambda run: (run.run / kept_of_the_open_round(run, "json")).unlink(),
        "state/updates/",
    ),
    "one bit of an update of the open round": (
        lambda run: run.change(kept_of_the_open_round(run, "safetensors"), flipped(-1)),
        "state/updates/",
    ),
    "no update of the open round": (
        lambda run: (run.run / kept_of_the_open_round(run, "safetensors")).unlink(),
        "state/updates/",
    ),
}


@pytest.mark.usefixtures("nobody_is_asked")
@pytest.mark.parametrize(("damage", "named"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_run_is_refused_by_the_file_before_any_site_is_asked(
    begun: Begun, damage: Callable[[Begun], object], named: str
) -> None:
    damage(begun)
    said = refused(begun)
    assert named in said
    assert "backup" in said or "new run" in said


def test_every_shorter_log_is_refused_unless_a_crash_could_have_left_it(begun_once: Begun, tmp_path: Path) -> None:
    """A state may be ahead of its log by the lines of one act, and then the run goes on to the end; never behind it."""
    lines = len((begun_once.run / "audit.jsonl").read_bytes().splitlines())
    state = json.loads((begun_once.run / "state" / "state.json").read_text())
    outcomes = {}
    for number in range(lines + 1):
        begun = Begun(Path(shutil.copytree(begun_once.root, tmp_path / str(number))))
        begun.change("audit.jsonl", first_lines(number))
        outcomes[number] = begun.go_on().exit_code
        if outcomes[number] == 0:
            assert verify_run(begun.run).ok
        shutil.rmtree(begun.root)
    going_on = [number for number, code in outcomes.items() if code == 0]
    assert set(outcomes.values()) == {0, 2}
    assert going_on == list(range(state["log"]["size"], lines + 1))
    assert len(going_on) <= 4


def test_every_older_state_is_refused_unless_a_crash_could_have_left_it(begun_once: Begun, tmp_path: Path) -> None:
    states = sorted((begun_once.root / "states").iterdir())
    refused_states = 0
    for path in states[:-1]:
        begun = Begun(Path(shutil.copytree(begun_once.root, tmp_path / path.stem)))
        shutil.copy(path, begun.run / "state" / "state.json")
        refused_states += begun.go_on().exit_code == 2
        shutil.rmtree(begun.root)
    assert refused_states == len(states) - 1


def in_the_registry(**changes: Any) -> Callable[[Begun], None]:
    def change(begun: Begun) -> None:
        begun.federation.create(begun.federation.config().model_copy(update=changes))

    return change


def another_participants_key(begun: Begun) -> None:
    keys = dict(begun.federation.config().public_keys)
    in_the_registry(public_keys={**keys, SITES[0]: Signer.generate().public_hex})(begun)


def one_more_participant(begun: Begun) -> None:
    keys = dict(begun.federation.config().public_keys)
    in_the_registry(public_keys={**keys, "clinic-9": Signer.generate().public_hex})(begun)


def another_coordinator(begun: Begun) -> None:
    path = begun.federation.coordinator / "signing.key"
    path.unlink()
    write_private(path, bytes([8]) * 32)


def another_job(begun: Begun) -> None:
    path = begun.root / "study-1.yaml"
    path.write_text(path.read_text().replace("aggregator: mean", "aggregator: median"))


def another_evaluation_set(begun: Begun) -> None:
    examples = public_examples()
    examples.labels[:] = 1 - examples.labels
    begun.federation.save_evaluation_set(examples)


STRICTER = AttestationPolicy.simulated_only().model_copy(update={"lifetime_s": 60})

CHANGES: Mapping[str, tuple[Callable[[Begun], object], str, str]] = {
    "the profile": (
        in_the_registry(profile=Profile.PRODUCTION, attester=None, attestation=STRICTER),
        "profile",
        "production",
    ),
    "the attestation policy": (in_the_registry(attestation=STRICTER), "attestation policy", "[attestation]"),
    "a participant's key": (another_participants_key, "participants' keys", "clinic-1"),
    "one more participant": (one_more_participant, "participants' keys", "clinic-9"),
    "a claim that sites are disjoint": (in_the_registry(disjoint_units="the registry"), "disjoint_units", "none"),
    "the coordinator's key": (another_coordinator, "coordinator's key", COORDINATOR.public_hex[:16]),
    "no coordinator's key": (
        lambda run: (run.federation.coordinator / "signing.key").unlink(),
        "coordinator's key is missing",
        "restore",
    ),
    "the aggregator": (another_job, "the job changed", "new run"),
    "the evaluation set": (another_evaluation_set, "evaluation set", "restore"),
    "no evaluation set": (
        lambda run: (run.federation.path / "evaluation.safetensors").unlink(),
        "evaluation set",
        "it is now none",
    ),
}


@pytest.mark.usefixtures("nobody_is_asked")
@pytest.mark.parametrize(("change", "named", "told"), CHANGES.values(), ids=CHANGES)
def test_a_run_does_not_go_on_under_another_value_than_it_began_with(
    begun: Begun, change: Callable[[Begun], object], named: str, told: str
) -> None:
    change(begun)
    said = refused(begun)
    assert named in said
    assert told in said


@pytest.mark.usefixtures("nobody_is_asked")
def test_a_run_does_not_go_on_with_other_code(begun: Begun, monkeypatch: pytest.MonkeyPatch) -> None:
    other = {**pins.code_in_use(), "aegis": "ab" * 32}
    monkeypatch.setattr(pins, "code_in_use", lambda: other)
    said = refused(begun)
    assert "the code changed: the run began with aegis " in said
    assert "install the version that began the run" in said


@pytest.mark.usefixtures("nobody_is_asked")
def test_a_run_does_not_go_on_on_another_runtime(begun: Begun) -> None:
    said = refused(begun, "--runtime", "flower")
    assert "runtime in-process, it is now runtime flower" in said


def test_a_site_that_is_revoked_meanwhile_does_not_stop_the_others_from_resuming(begun: Begun) -> None:
    """Revocation is no pinned value: with too few sites left the run is refused, says so, and keeps its state."""
    in_the_registry(revoked=("clinic-2",))(begun)
    result = begun.go_on()
    assert result.exit_code == 3, result.output
    assert "revoked" in result.stderr
    in_the_registry(revoked=())(begun)
    assert begun.go_on().exit_code == 0


def test_a_missing_coordinators_key_is_not_replaced_by_a_new_one(begun: Begun) -> None:
    path = begun.federation.coordinator / "signing.key"
    path.unlink()
    refused(begun)
    assert not path.exists()


def test_the_code_pin_follows_every_source_file_of_both_packages(tmp_path: Path) -> None:
    named = dict(pins._sources("coreason_enclave"))
    assert {"session/secure_session.py", "ledger/sqlite.py"} <= named.keys()
    assert {"runs/pins.py", "cli.py"} <= dict(pins._sources("aegis")).keys()
    assert len(named) == len(set(named))

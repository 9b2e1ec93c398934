"""``aegis verify``: a real run holds, and every falsification of it has its own exit code."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import Result

from aegis.errors import RunFolderError
from aegis.federation.job_files import load_job
from aegis.rounds.round_runner import average
from aegis.verification import Check, Conclusion, Reference, Verdict, VerificationReport, verify_run
from aegis.verification.exports import check_ledgers
from aegis.verification.findings import INCOMPLETE
from aegis.verification.records import Records
from coreason_enclave.crypto.encoding import canonical_json, sha256_hex
from coreason_enclave.crypto.envelope import seal
from coreason_enclave.crypto.hash_log import HashLog
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.ledger.chain import make_link
from coreason_enclave.ledger.records import LedgerHead
from coreason_enclave.ledger.signed_heads import seal_export
from coreason_enclave.wire.checkpoints import open_witness, origin_of_run, sign_log
from coreason_enclave.wire.documents import UPDATE_TYPE
from coreason_enclave.wire.updates import Array, Arrays, decode_arrays, encode_arrays
from tests.attacked.forging import Owner
from tests.conftest import site_signer

Aegis = Callable[..., Result]
Falsify = Callable[[Path], None]

COORDINATOR = Signer.from_seed(bytes([7]) * 32)
CLINIC_1 = site_signer("clinic-1")


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def in_json(name: str, change: Callable[[dict[str, Any]], object]) -> Falsify:
    return lambda run: edit_json(run / name, change)


def in_text(name: str, old: str, new: str) -> Falsify:
    def falsify(run: Path) -> None:
        text = (run / name).read_text()
        assert old in text
        (run / name).write_text(text.replace(old, new, 1))

    return falsify


def flip_a_bit(name: str, position: int = -1) -> Falsify:
    def falsify(run: Path) -> None:
        data = bytearray((run / name).read_bytes())
        data[position] ^= 1
        (run / name).write_bytes(bytes(data))

    return falsify


def without(name: str) -> Falsify:
    return lambda run: (run / name).unlink()


def audit_lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "audit.jsonl").read_text().splitlines()]


def origin_of(run: Path) -> str:
    return origin_of_run(load_job(run / "job.yaml").digest())


def rewrite_audit(run: Path, change: Callable[[list[dict[str, Any]]], object], signer: Signer = COORDINATOR) -> None:
    """What somebody with the coordinator's key can do: a new chain over changed lines, signed again."""
    lines = audit_lines(run)
    change(lines)
    (run / "audit.jsonl").unlink()
    log = HashLog(run / "audit.jsonl", clock=lambda: 1_800_000_000.0)
    for line in lines:
        kept = {name: line[name] for name in ("actor", "action", "outcome", "reason", "details")}
        log.append(**kept)
    (run / "audit.checkpoint.json").write_bytes(sign_log(log, signer, origin_of(run)))
    log.close()


def audited(act: tuple[str, str], change: Callable[[dict[str, Any]], object]) -> Falsify:
    """Rewrite the details of the first line of one kind, with a stolen key."""

    def first(lines: list[dict[str, Any]]) -> None:
        change(next(line["details"] for line in lines if (line["action"], line["outcome"]) == act))

    return lambda run: rewrite_audit(run, first)


ADMITTED, FINISHED, STARTED = ("admit", "accepted"), ("run", "finished"), ("run", "started")


def rechain_ledger(run: Path, change: Callable[[list[dict[str, Any]]], object], site: str = "clinic-1") -> None:
    """What a site can do to its own ledger before it is exported: other entries, and a chain that holds."""
    path = run / "ledger" / f"{site}.json"
    document = json.loads(path.read_text())
    entries = [json.loads(row["payload"]) for row in document["entries"]]
    change(entries)
    head: LedgerHead | None = None
    rows = []
    for entry in entries:
        link = make_link(head, canonical_json(entry))
        head = link.head
        rows.append({"seq": link.seq, "prev": link.prev, "payload": link.payload.decode(), "hash": link.hash})
    assert head is not None
    document |= {"entries": rows, "head": {"seq": head.seq, "hash": head.hash}}
    path.write_bytes(canonical_json(document))
    signed = seal_export(path.read_bytes(), site, site_signer(site), now=1.8e9)
    (run / "ledger" / f"{site}.dsse").write_bytes(signed)


def and_the_coordinator_saw_it(falsify: Falsify, site: str = "clinic-1") -> Falsify:
    """A site and a coordinator that lie together: the log is rewritten to the heads of the falsified ledger."""

    def together(run: Path) -> None:
        falsify(run)
        rows = json.loads((run / "ledger" / f"{site}.json").read_text())["entries"]

        def adopt(lines: list[dict[str, Any]]) -> None:
            admitted = (line["details"] for line in lines if (line["action"], line["outcome"]) == ADMITTED)
            for details in (details for details in admitted if details["site"] == site):
                details["ledger_head"]["hash"] = rows[details["ledger_head"]["seq"]]["hash"]
            finished = next(line["details"] for line in lines if (line["action"], line["outcome"]) == FINISHED)
            finished["ledgers"][site] = {"seq": rows[-1]["seq"], "hash": rows[-1]["hash"]}

        rewrite_audit(run, adopt)

    return together


def committed(change: Callable[[dict[str, Any]], object]) -> Falsify:
    def last(entries: list[dict[str, Any]]) -> None:
        change([entry for entry in entries if entry["type"] == "committed"][-1])

    return and_the_coordinator_saw_it(lambda run: rechain_ledger(run, last))


def cut_ledger(run: Path) -> None:
    rechain_ledger(run, lambda entries: entries.__delitem__(slice(-2, None)))


def exchange_ledgers(run: Path) -> None:
    for kind in ("json", "dsse"):
        shutil.copy(run / "ledger" / f"clinic-2.{kind}", run / "ledger" / f"clinic-1.{kind}")


def another_model(run: Path) -> bytes:
    arrays = decode_arrays((run / "model.safetensors").read_bytes(), limit=1 << 20)
    data = encode_arrays({name: (array + 1).astype(np.float32) for name, array in arrays.items()})
    (run / "model.safetensors").write_bytes(data)
    return data


def another_model_released_and_signed(run: Path) -> None:
    """A stolen key can release any model; that it does not follow from the rounds' models still shows."""
    digest = sha256_hex(another_model(run))
    audited(FINISHED, lambda details: details.update(model=digest))(run)
    edit_json(run / "outcome.json", lambda outcome: outcome.update(model=digest))


def another_job(change: Callable[[dict[str, Any]], object]) -> Falsify:
    def falsify(run: Path) -> None:
        job = yaml.safe_load((run / "job.yaml").read_text())
        change(job)
        (run / "job.yaml").write_text(yaml.safe_dump(job))

    return falsify


def cut_the_log(run: Path) -> None:
    lines = (run / "audit.jsonl").read_bytes().splitlines(keepends=True)
    (run / "audit.jsonl").write_bytes(b"".join(lines[:-1]))


def add_to_the_log(run: Path) -> None:
    log = HashLog(run / "audit.jsonl")
    log.append(actor="coordinator", action="note", outcome="added", details={"profile": "development"})
    log.close()


def lose_a_round(lines: list[dict[str, Any]]) -> None:
    lines[:] = [line for line in lines if line["details"].get("round") != 2]


def epsilon_cell(value: str) -> Falsify:
    """Replace the epsilon of clinic-1 after the last round in metrics.csv."""

    def falsify(run: Path) -> None:
        heading, *rows = (run / "metrics.csv").read_text().splitlines()
        cells = rows[-1].split(",")
        cells[heading.split(",").index("epsilon:clinic-1")] = value
        (run / "metrics.csv").write_text("\n".join([heading, *rows[:-1], ",".join(cells)]) + "\n")

    return falsify


def understated_epsilon(outcome: dict[str, Any]) -> None:
    outcome["epsilon"]["clinic-2"] *= 0.99


def overstated_epsilon(outcome: dict[str, Any]) -> None:
    outcome["epsilon"]["clinic-2"] *= 1.01


def envelope_of(run: Path, site: str = "clinic-1") -> str:
    """The first envelope of a site that the log names."""
    admitted = (line["details"] for line in audit_lines(run) if (line["action"], line["outcome"]) == ADMITTED)
    digest = next(details["envelope"] for details in admitted if details["site"] == site)
    return f"state/updates/{digest}.json"


def arrays_of(run: Path) -> str:
    return envelope_of(run).replace(".json", ".safetensors")


def signed_again(signer: Signer, **changes: Any) -> Falsify:
    """Replace what clinic-1 signed in round 1, and rewrite the log with a stolen key so that it names the new one."""

    def falsify(run: Path) -> None:
        name = envelope_of(run)
        statement = json.loads(base64.b64decode(json.loads((run / name).read_bytes())["payload"]))
        envelope = seal(UPDATE_TYPE, canonical_json({**statement, **changes}), signer)
        (run / "state" / "updates" / f"{sha256_hex(envelope)}.json").write_bytes(envelope)
        named_before = Path(name).stem

        def rename(lines: list[dict[str, Any]]) -> None:
            for details in (line["details"] for line in lines if line["details"].get("envelope") == named_before):
                details["envelope"] = sha256_hex(envelope)

        rewrite_audit(run, rename)

    return falsify


def change_of_rows_in_state_and_log(run: Path) -> None:
    """In outcome, state and the log's record of the round, with a stolen key; no admission says so."""
    owner, changed = Owner(run, COORDINATOR), {"content_changed": ["clinic-1"]}
    owner.edit_state(lambda state: state["history"][1].update(changed))
    entries = owner.entries()
    for details in (entry["details"] for entry in entries if entry["action"] == "round"):
        if (record := details.get("record")) is not None and record["round_number"] == 2:
            record.update(changed)
    owner.rewrite_log(entries)
    owner.edit("outcome.json", lambda outcome: outcome.update(content_changed={"clinic-1": [2]}))


def another_last_model(change: Callable[[Arrays], Arrays], released: bool = False) -> Falsify:
    """Replace the last round's model; state and log name the new one, and the released average follows if asked."""

    def falsify(run: Path) -> None:
        owner, models = Owner(run, COORDINATOR), run / "state" / "models"
        before, old = json.loads((run / "state" / "state.json").read_text())["models"][-2:]
        data = encode_arrays(change(arrays_at(models / f"{old}.safetensors")))
        (models / f"{sha256_hex(data)}.safetensors").write_bytes(data)

        def renamed(state: dict[str, Any]) -> None:
            state["models"][-1] = state["history"][-1]["model_digest"] = sha256_hex(data)

        owner.edit_state(renamed)
        owner.replace_everywhere(old, sha256_hex(data))
        if released:
            last_two = [arrays_at(models / f"{digest}.safetensors") for digest in (before, sha256_hex(data))]
            release_instead(owner, encode_arrays(average(last_two)))

    return falsify


def release_instead(owner: Owner, model: bytes) -> None:
    """Another released model, named so in outcome and log."""
    old = sha256_hex((owner.run / "model.safetensors").read_bytes())
    (owner.run / "model.safetensors").write_bytes(model)
    owner.edit("outcome.json", lambda outcome: outcome.update(model=sha256_hex(model)))
    owner.replace_everywhere(old, sha256_hex(model))
    owner.sign_again()


def arrays_at(path: Path) -> dict[str, Array]:
    return decode_arrays(path.read_bytes(), limit=1 << 20)


def with_other_names(arrays: Arrays) -> Arrays:
    return {f"other.{name}": array for name, array in arrays.items()}


def half_as_large_again(arrays: Arrays) -> Arrays:
    return {name: (array * 1.5).astype(np.float32) for name, array in arrays.items()}


def other_rows_in_round_2(entries: list[dict[str, Any]]) -> None:
    """The ledger records changed content for round 2, of which the site's updates say nothing."""
    next(e for e in entries if e["type"] == "content_noted" and e["round_number"] == 2).update(content_mark="00" * 32)


def forget_a_participant(run: Path) -> None:
    Owner(run, COORDINATOR).edit_config(lambda config: config["participants"].pop("clinic-1"))


def circle_among_the_witnesses(run: Path) -> None:
    (run / "witness" / "clinic-3.json").symlink_to("clinic-3.json")


def rewritten_after_the_run(position: int) -> Falsify:
    """A remark in one line of the log, every chain and signature that the coordinator's key gives made anew."""

    def falsify(run: Path) -> None:
        owner = Owner(run, COORDINATOR)
        entries = owner.entries()
        entries[position]["details"]["remark"] = "rewritten"
        owner.rewrite_log(entries)
        owner.sign_again()

    return falsify


CENTRAL = {"unit": "client", "epsilon": 1, "delta": 0.001, "noise_multiplier": 1, "clip_norm": 1, "sample_rate": 0.5}
FALSIFICATIONS: Mapping[str, tuple[Check, Falsify]] = {
    # files
    "no outcome": (Check.FILES, without("outcome.json")),
    "no metrics": (Check.FILES, without("metrics.csv")),
    "no model": (Check.FILES, without("model.safetensors")),
    "no checkpoint": (Check.FILES, without("audit.checkpoint.json")),
    "no job": (Check.FILES, without("job.yaml")),
    "an outcome that is no JSON": (Check.FILES, lambda run: (run / "outcome.json").write_text("{")),
    "an outcome that states NaN": (Check.FILES, in_text("outcome.json", '"rounds": 3', '"rounds": NaN')),
    "a configuration without the coordinator's key": (
        Check.FILES,
        in_json("config.json", lambda config: config.pop("coordinator_key")),
    ),
    # audit
    "one bit of the log": (Check.AUDIT, flip_a_bit("audit.jsonl", 200)),
    "a log that is torn in its last line": (Check.AUDIT, lambda run: os.truncate(run / "audit.jsonl", 3000)),
    "an empty line in the log": (Check.AUDIT, in_text("audit.jsonl", "\n", "\n\n")),
    "an admitted event that nobody can account for": (
        Check.AUDIT,
        audited(ADMITTED, lambda details: details["event"].update(type="laplace")),
    ),
    "a resumption that skips a round": (
        Check.AUDIT,
        lambda run: rewrite_audit(
            run,
            lambda lines: lines.insert(2, {**lines[1], "outcome": "resumed", "details": {"completed_rounds": 2}}),
        ),
    ),
    # checkpoint
    "a log whose last line was cut off": (Check.CHECKPOINT, cut_the_log),
    "a line that was added after the run": (Check.CHECKPOINT, add_to_the_log),
    "a checkpoint signed by somebody else": (
        Check.CHECKPOINT,
        lambda run: rewrite_audit(run, lambda lines: None, Signer.generate()),
    ),
    "one bit of the checkpoint": (Check.CHECKPOINT, flip_a_bit("audit.checkpoint.json", 40)),
    "another key in the configuration": (
        Check.CHECKPOINT,
        in_json("config.json", lambda config: config.update(coordinator_key=Signer.generate().public_hex)),
    ),
    # job
    "a stricter epsilon in the job file": (
        Check.JOB,
        another_job(lambda job: job["privacy"].update(target_epsilon=1.0)),
    ),
    "more noise in the job file": (
        Check.JOB,
        another_job(lambda job: job["privacy"].update(noise_multiplier=4.0)),
    ),
    "a field in the job file that no job has": (Check.JOB, another_job(lambda job: job.update(note="harmless"))),
    "a log that started another job": (
        Check.JOB,
        audited(STARTED, lambda details: details.update(job_digest="00" * 32)),
    ),
    "a state of another job": (
        Check.JOB,
        in_json("state/state.json", lambda state: state.update(job_digest="00" * 32)),
    ),
    # rounds
    "a round that the log does not tell of": (Check.ROUNDS, lambda run: rewrite_audit(run, lose_a_round)),
    "one round less in the outcome": (Check.ROUNDS, in_json("outcome.json", lambda outcome: outcome.update(rounds=2))),
    "a better metric in the outcome": (
        Check.ROUNDS,
        in_json("outcome.json", lambda outcome: outcome.update(metrics={"auc": 0.99})),
    ),
    "a refusal that metrics.csv invents": (
        Check.ROUNDS,
        in_text("metrics.csv", ",2,,", ",2,clinic-3=late,"),
    ),
    "a round less in metrics.csv": (
        Check.ROUNDS,
        lambda run: (run / "metrics.csv").write_text(
            "\n".join((run / "metrics.csv").read_text().split("\n")[:-2]) + "\n"
        ),
    ),
    "a site that the state forgot": (
        Check.ROUNDS,
        in_json("state/state.json", lambda state: state["history"][1].update(admitted=["clinic-1"])),
    ),
    "another model for a round in the state": (
        Check.ROUNDS,
        in_json("state/state.json", lambda state: state["models"].__setitem__(2, "00" * 32)),
    ),
    # model
    "one bit of the model": (Check.MODEL, flip_a_bit("model.safetensors")),
    "another model in the outcome": (
        Check.MODEL,
        in_json("outcome.json", lambda outcome: outcome.update(model="00" * 32)),
    ),
    "a log that releases another model": (
        Check.MODEL,
        audited(FINISHED, lambda details: details.update(model="00" * 32)),
    ),
    "a log that releases nothing": (
        Check.MODEL,
        lambda run: rewrite_audit(run, lambda lines: lines.pop()),
    ),
    "another model, released with a stolen key": (Check.MODEL, another_model_released_and_signed),
    "a round's model of other arrays": (Check.MODEL, another_last_model(with_other_names)),
    # ledgers
    "a participant without a key": (Check.LEDGERS, forget_a_participant),
    "no ledger of a site that was admitted": (Check.LEDGERS, without("ledger/clinic-2.json")),
    "one bit of a ledger": (Check.LEDGERS, flip_a_bit("ledger/clinic-1.json", 300)),
    "a ledger whose last round was cut off": (Check.LEDGERS, cut_ledger),
    "the ledger of another site": (Check.LEDGERS, exchange_ledgers),
    "a ledger that records a step as cheaper than its noise allows": (
        Check.LEDGERS,
        and_the_coordinator_saw_it(
            lambda run: rechain_ledger(
                run,
                lambda entries: [e.update(step_cost_pico=1) for e in entries if e["type"] == "reserved"],
            )
        ),
    ),
    # events
    "a committed round of fewer steps": (
        Check.EVENTS,
        committed(lambda entry: entry["event"].update(steps=entry["event"]["steps"] - 1)),
    ),
    "a committed round with another update": (
        Check.EVENTS,
        committed(lambda entry: entry.update(update_digest="00" * 32)),
    ),
    "a round that was never committed": (
        Check.EVENTS,
        and_the_coordinator_saw_it(
            lambda run: rechain_ledger(
                run,
                lambda entries: entries.__setitem__(
                    -1,
                    {
                        "type": "content_noted",
                        "version": 1,
                        "time": 0,
                        "lineage": "clinic-1/visits",
                        **{name: entries[-2][name] for name in ("job_id", "round_number", "key_mark")},
                        "content_mark": "00" * 32,
                    },
                ),
            )
        ),
    ),
    "an admitted update of another digest": (
        Check.EVENTS,
        audited(ADMITTED, lambda details: details.update(update="00" * 32)),
    ),
    "an admitted event of fewer steps": (
        Check.EVENTS,
        audited(ADMITTED, lambda details: details["event"].update(steps=1)),
    ),
    "an admitted update in a smaller unit": (
        Check.EVENTS,
        audited(ADMITTED, lambda details: details.update(unit="record")),
    ),
    "an admitted update at another delta": (
        Check.EVENTS,
        audited(ADMITTED, lambda details: details.update(delta=1e-6)),
    ),
    # epsilon
    "an understated epsilon in the outcome": (Check.EPSILON, in_json("outcome.json", understated_epsilon)),
    "an overstated epsilon in the outcome": (Check.EPSILON, in_json("outcome.json", overstated_epsilon)),
    "no epsilon where there is one": (
        Check.EPSILON,
        in_json("outcome.json", lambda outcome: outcome["epsilon"].update({"clinic-1": None})),
    ),
    "an epsilon for a site that took no part": (
        Check.EPSILON,
        in_json("outcome.json", lambda outcome: outcome["epsilon"].update({"clinic-9": 0.1})),
    ),
    "a smaller epsilon in metrics.csv": (Check.EPSILON, epsilon_cell("0.5")),
    "no epsilon in metrics.csv": (Check.EPSILON, epsilon_cell("")),
    "NaN for an epsilon in metrics.csv": (Check.EPSILON, epsilon_cell("nan")),
    "a word for an epsilon in metrics.csv": (Check.EPSILON, epsilon_cell("little")),
    "a smaller epsilon in the state": (
        Check.ROUNDS,
        in_json("state/state.json", lambda state: state["history"][0]["epsilon"].update({"clinic-1": 0.01})),
    ),
    # labels
    "simulated evidence called attested": (
        Check.LABELS,
        in_json("outcome.json", lambda outcome: outcome.update(provenance=["attested"])),
    ),
    "a development run called production": (
        Check.LABELS,
        in_json("config.json", lambda config: config.update(profile="production")),
    ),
    "simulated attestation that is not mentioned": (
        Check.LABELS,
        in_json("config.json", lambda config: config.update(attestation="required")),
    ),
    "a configuration with other versions than the log recorded": (
        Check.LABELS,
        in_json("config.json", lambda config: config["versions"].update(torch="1.0")),
    ),
    "a seed that nobody injected": (
        Check.LABELS,
        in_json("config.json", lambda config: config["options"].update(unsafe_seed=1)),
    ),
    "a promise about whole sites that the job does not make": (
        Check.CLIENT_PRIVACY,
        in_json("outcome.json", lambda outcome: outcome.update(client_privacy=CENTRAL)),
    ),
    "a change of rows that never was": (
        Check.CONTENT,
        in_json("outcome.json", lambda outcome: outcome.update(content_changed={"clinic-1": [2]})),
    ),
    "a change of rows that only the state knows": (
        Check.ROUNDS,
        in_json("state/state.json", lambda state: state["history"][1].update(content_changed=["clinic-1"])),
    ),
    "a change of rows that state and round tell, and no site": (Check.CONTENT, change_of_rows_in_state_and_log),
    "one bit of what a site signed": (Check.SIGNATURES, lambda run: flip_a_bit(envelope_of(run), 200)(run)),
    "an update that a stranger signed": (Check.SIGNATURES, signed_again(Signer.generate())),
    "an update that was signed for another round": (
        Check.SIGNATURES,
        signed_again(CLINIC_1, round_number=3),
    ),
    "an update whose evidence covers another nonce": (Check.SIGNATURES, signed_again(CLINIC_1, nonce="ab" * 32)),
    "an update whose evidence covers another key": (Check.SIGNATURES, signed_again(CLINIC_1, kem_key="ab" * 32)),
    "an update without evidence": (Check.SIGNATURES, signed_again(CLINIC_1, evidence={})),
    "no envelope of an admitted update": (Check.SIGNATURES, lambda run: (run / envelope_of(run)).unlink()),
    "a ledger that its site did not sign": (Check.LEDGERS, without("ledger/clinic-1.dsse")),
    "a ledger signed by the coordinator": (
        Check.LEDGERS,
        lambda run: (run / "ledger" / "clinic-1.dsse").write_bytes(
            seal_export((run / "ledger" / "clinic-1.json").read_bytes(), "clinic-1", COORDINATOR, now=1.8e9)
        ),
    ),
    "an epsilon of the federation that no composition gives": (
        Check.EPSILON,
        in_json("outcome.json", lambda outcome: outcome["federation_epsilon"].update(epsilon=4.3)),
    ),
    "a claim of disjoint sites that the federation does not make": (
        Check.EPSILON,
        in_json("outcome.json", lambda outcome: outcome["federation_epsilon"].update(claimed_disjoint_by="somebody")),
    ),
    "a smaller epsilon in the ledger's name": (
        Check.EPSILON,
        in_json("outcome.json", lambda outcome: outcome["ledger_epsilon"].update({"clinic-1": 0.1})),
    ),
    "another comment in the job file": (
        Check.LABELS,
        lambda run: (run / "job.yaml").write_text((run / "job.yaml").read_text() + "# approved\n"),
    ),
    "another evaluation set": (Check.LABELS, flip_a_bit("evaluation.safetensors")),
    "one bit of an update": (Check.AGGREGATION, lambda run: flip_a_bit(arrays_of(run))(run)),
    "a last round's model that no update led to, and its release": (
        Check.AGGREGATION,
        another_last_model(half_as_large_again, released=True),
    ),
    "an update without its arrays": (Check.AGGREGATION, lambda run: (run / arrays_of(run)).unlink()),
    "a better accuracy wherever it stands": (
        Check.UTILITY,
        lambda run: Owner(run, COORDINATOR).boast(accuracy=0.97),
    ),
    "a file that nobody signed": (Check.MANIFEST, lambda run: (run / "approval.txt").write_text("approved")),
    "a folder of files that nobody signed": (
        Check.MANIFEST,
        lambda run: shutil.copytree(run / "state", run / "state-2"),
    ),
    "a link in place of a file": (Check.MANIFEST, lambda run: (run / "more").symlink_to("state")),
    "one bit of the signed list of files": (Check.MANIFEST, flip_a_bit("manifest.json", 40)),
    "a last checkpoint that is gone": (Check.MANIFEST, without("state/checkpoint.json")),
    # witness
    "a first line of the log that is not the one the sites saw": (Check.WITNESS, rewritten_after_the_run(0)),
    "a last line of the log that is not the one the sites saw": (Check.WITNESS, rewritten_after_the_run(-1)),
    "a folder in place of what a site stated": (
        Check.WITNESS,
        lambda run: (run / "witness" / "clinic-3.json").mkdir(parents=True),
    ),
    "a link in a circle in place of what a site stated": (Check.MANIFEST, circle_among_the_witnesses),
}


def test_a_real_run_holds_in_every_check(finished_run: Path) -> None:
    report = verify_run(finished_run)

    assert report.ok, [finding for finding in report.findings if finding.verdict is Verdict.FAILS]
    answered = {finding.subject for finding in report.findings if finding.verdict is Verdict.HOLDS}
    assert answered == {check.label for check in Check}


@pytest.mark.parametrize(("check", "falsify"), FALSIFICATIONS.values(), ids=FALSIFICATIONS)
def test_a_falsified_run_does_not_verify(aegis: Aegis, run_copy: Path, check: Check, falsify: Falsify) -> None:
    falsify(run_copy)

    result = aegis("verify", run_copy, "--json")

    document = json.loads(result.stdout)
    assert document["failed"][0] == check.label, [f for f in document["findings"] if f["verdict"] == "fails"]
    assert (result.exit_code, document["exit_code"], document["ok"]) == (check.value, check.value, False)
    assert result.stderr.count("\n") == 1
    assert f"does not verify: {check.label}: " in result.stderr


def test_a_change_of_rows_that_only_a_ledger_notes_is_found(run_copy: Path) -> None:
    """The signed updates name the ledger's heads, so another ledger never falsifies one check alone."""
    and_the_coordinator_saw_it(lambda run: rechain_ledger(run, other_rows_in_round_2))(run_copy)

    assert Check.CONTENT in verify_run(run_copy).failed


def test_every_check_can_fail_and_has_an_exit_code_of_its_own() -> None:
    assert {check for check, _ in FALSIFICATIONS.values()} == set(Check)
    assert len({check.value for check in Check}) == len(Check)
    assert min(Check) >= 10


def test_a_log_rewritten_with_the_stolen_key_is_contradicted_by_the_updates_without_any_checkpoint_from_elsewhere(
    run_copy: Path,
) -> None:
    rewritten_after_the_run(0)(run_copy)
    owner = Owner(run_copy, COORDINATOR)
    owner.silence_witnesses()
    owner.sign_again()
    assert verify_run(run_copy).failed == (Check.WITNESS,)

    shutil.rmtree(run_copy / "state" / "updates")
    owner.sign_again()
    assert Check.SIGNATURES in verify_run(run_copy).failed, "the updates cannot be taken away"


def test_a_last_line_that_no_update_saw_passes_rewritten_until_an_older_checkpoint_or_a_site_tells(
    run_copy: Path, finished_run: Path
) -> None:
    """The last updates came before that line: only the copies of the sites' statements, in the owner's hands, tell."""
    kept_elsewhere = (finished_run / "audit.checkpoint.json").read_bytes()
    of_a_site = open_witness((finished_run / "witness" / "clinic-1.json").read_bytes())
    rewritten_after_the_run(-1)(run_copy)
    owner = Owner(run_copy, COORDINATOR)
    owner.silence_witnesses()
    owner.sign_again()

    assert verify_run(run_copy).ok
    assert verify_run(run_copy, Reference(checkpoint=kept_elsewhere)).failed[0] is Check.CHECKPOINT
    assert verify_run(run_copy, Reference(witnesses=(of_a_site,))).failed == (Check.WITNESS,)


def test_an_older_checkpoint_of_the_same_log_agrees(aegis: Aegis, finished_run: Path, tmp_path: Path) -> None:
    early = tmp_path / "audit.jsonl"
    early.write_bytes(b"".join((finished_run / "audit.jsonl").read_bytes().splitlines(keepends=True)[:3]))
    log = HashLog(early)
    (tmp_path / "checkpoint.json").write_bytes(sign_log(log, COORDINATOR, origin_of(finished_run)))
    log.close()

    result = aegis("verify", finished_run, "--checkpoint", tmp_path / "checkpoint.json")

    assert result.exit_code == 0, result.stdout
    assert "agrees with the older checkpoint, signed at line 3" in result.stdout


def test_the_coordinators_key_from_elsewhere_is_used_instead_of_the_folders_own(
    aegis: Aegis, finished_run: Path
) -> None:
    right = aegis("verify", finished_run, "--coordinator-key", COORDINATOR.public_hex)
    wrong = aegis("verify", finished_run, "--coordinator-key", Signer.generate().public_hex)

    assert right.exit_code == 0
    assert "from the run folder: compare" not in right.stdout
    assert wrong.exit_code == Check.CHECKPOINT
    assert "unknown key" in wrong.stderr


def subjects(report: VerificationReport, verdict: Verdict) -> set[str]:
    return {finding.subject for finding in report.findings if finding.verdict is verdict}


def test_what_no_run_folder_can_show_is_said(finished_run: Path) -> None:
    assert subjects(verify_run(finished_run), Verdict.NOT_CHECKED) == {
        "coordinator's key",
        "external checkpoint",
        "witnesses",
        "attestation",
        "participants' keys",
        "evaluation set",
        "ledgers",
    }


def test_a_simulated_run_says_so_before_any_number(aegis: Aegis, finished_run: Path) -> None:
    assert aegis("verify", finished_run).stdout.startswith("! SIMULATED attestation")


def test_a_check_that_the_records_bring_down_fails_and_hides_no_other(
    aegis: Aegis, finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a check did not foresee is a failure: never a traceback, never a pass."""

    def unforeseen(*_: object) -> str:
        raise KeyError("clinic-1")

    monkeypatch.setattr(Records, "key_of", unforeseen)
    result = aegis("verify", finished_run)

    assert result.exit_code == Check.LEDGERS, result.output
    assert "which no run writes (KeyError: 'clinic-1')" in result.stderr
    assert "ok       manifest" in result.stdout


def test_too_little_memory_says_nothing_about_the_run(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> str:
        raise MemoryError

    monkeypatch.setattr(Records, "key_of", exhausted)
    with pytest.raises(RunFolderError, match="too little memory"):
        verify_run(finished_run)


def test_nothing_that_a_folder_holds_is_obeyed_by_a_terminal_or_stops_the_page(aegis: Aegis, run_copy: Path) -> None:
    edit_json(run_copy / "config.json", lambda config: config.update(profile="\ud800\x1b[2J"))
    (run_copy / "x\nok       files").touch()

    result = aegis("verify", run_copy, "--files")

    assert result.exit_code == Check.LABELS, result.output
    assert "\\ud800\\u001b[2J profile" in result.stdout
    assert result.stdout.count("\nok       files") + result.stdout.startswith("ok       files") == 1
    assert "\x1b" not in result.output


def test_a_check_whose_ground_is_gone_is_not_answered(run_copy: Path) -> None:
    flip_a_bit("audit.jsonl", 200)(run_copy)

    report = verify_run(run_copy)

    assert report.failed == (Check.AUDIT, Check.MANIFEST)
    assert subjects(report, Verdict.HOLDS) == {"files"}
    assert {check.label for check in Check} - {"files", "audit", "manifest"} <= subjects(report, Verdict.NOT_CHECKED)


def test_one_bad_ledger_does_not_hide_what_the_others_say(run_copy: Path) -> None:
    flip_a_bit("ledger/clinic-1.json", 300)(run_copy)

    report = verify_run(run_copy)

    held = [finding.detail for finding in report.findings if finding.verdict is Verdict.HOLDS]
    assert any(detail.startswith("clinic-2: 3 updates") for detail in held)
    assert not any(detail.startswith("clinic-1: 3 updates") for detail in held)


def test_models_that_were_cleared_away_are_missed(run_copy: Path) -> None:
    shutil.rmtree(run_copy / "state" / "models")

    assert set(verify_run(run_copy).failed) == {Check.MODEL, Check.AGGREGATION, Check.UTILITY, Check.MANIFEST}


def test_verifying_writes_nothing(run_copy: Path) -> None:
    shutil.rmtree(run_copy / "state" / "models")
    before = {path: path.stat().st_mtime_ns for path in [run_copy, *run_copy.rglob("*")]}

    verify_run(run_copy)

    assert {path: path.stat().st_mtime_ns for path in [run_copy, *run_copy.rglob("*")]} == before


UNUSABLE = {
    "a folder that is not there": ("missing", "does not exist"),
    "a folder that holds no run": ("empty", "is not a run folder"),
    "a file": ("file", "is not a run bundle"),
}


@pytest.mark.parametrize(("name", "said"), UNUSABLE.values(), ids=UNUSABLE)
def test_what_is_no_run_folder_is_refused_as_input(aegis: Aegis, tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()

    result = aegis("verify", tmp_path / name)

    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


def test_a_run_that_goes_on_is_not_verified_yet(aegis: Aegis, run_copy: Path) -> None:
    for name in ("outcome.json", "audit.checkpoint.json", "manifest.json", "manifest.dsse"):
        (run_copy / name).unlink()
    assert aegis("verify", run_copy).exit_code == Check.FILES, "the log says that it has finished"
    cut_the_log(run_copy)

    result = aegis("verify", run_copy)

    assert result.exit_code == 2
    assert "has not finished" in result.stderr


def test_a_run_whose_site_keeps_its_ledger_cannot_be_verified_until_the_site_sends_it(
    run_copy: Path, finished_run: Path
) -> None:
    """As the coordinator of a site on another host writes it: without that site's ledger, and honest otherwise."""
    owner, sent = Owner(run_copy, COORDINATOR), ("clinic-2.json", "clinic-2.dsse")
    owner.edit_config(lambda config: config.update(local_sites=["clinic-1"]))
    for name in sent:
        (run_copy / "ledger" / name).unlink()

    def not_exported(lines: list[dict[str, Any]]) -> None:
        del next(line["details"] for line in lines if (line["action"], line["outcome"]) == FINISHED)["ledgers"][
            "clinic-2"
        ]

    rewrite_audit(run_copy, not_exported)
    in_json("outcome.json", lambda outcome: outcome["ledger_epsilon"].pop("clinic-2"))(run_copy)
    owner.sign_again()

    # The log was rewritten for this, which the sites' updates tell: the check of witnesses fails throughout.
    before = verify_run(run_copy)
    assert (before.failed, _ledger_verdicts(run_copy)["clinic-2"]) == ((Check.WITNESS,), Verdict.MISSING)
    assert "the ledger export of clinic-2" in before.missing[0]
    assert replace(before, failed=()).conclusion is Conclusion.CANNOT_BE_VERIFIED
    assert replace(before, failed=()).exit_code == INCOMPLETE
    shutil.copy(finished_run / "ledger" / sent[0], run_copy / "ledger")
    assert Check.MANIFEST in verify_run(run_copy).failed, "an export that nobody signed"
    shutil.copy(finished_run / "ledger" / sent[1], run_copy / "ledger")
    after = verify_run(run_copy)
    assert (after.failed, after.missing) == ((Check.WITNESS,), ())
    assert _ledger_verdicts(run_copy)["clinic-2"] is Verdict.HOLDS


NO_REFERENCES: Mapping[str, tuple[str, str]] = {
    "a key that is too short": ("--coordinator-key", "abcd"),
    "a key that is no hex": ("--coordinator-key", "zz" * 32),
    "a key with white space": ("--coordinator-key", "ab " * 32),
    "a site without a key": ("--participant-key", "clinic-1"),
    "a site with a key that is none": ("--participant-key", "clinic-1=1234"),
    "the log in place of a checkpoint": ("--checkpoint", "audit.jsonl"),
    "the model in place of a checkpoint": ("--checkpoint", "model.safetensors"),
    "another signed document": ("--checkpoint", "manifest.dsse"),
}


@pytest.mark.parametrize(("option", "value"), NO_REFERENCES.values(), ids=NO_REFERENCES)
def test_what_is_no_key_and_no_checkpoint_says_nothing_about_the_run(
    aegis: Aegis, finished_run: Path, option: str, value: str
) -> None:
    given = finished_run / value if option == "--checkpoint" else value

    result = aegis("verify", finished_run, option, given)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")


@pytest.mark.parametrize("name", ["audit.jsonl", "job.yaml", "evaluation.safetensors", "ledger/clinic-1.json"])
def test_a_file_that_may_not_be_read_says_nothing_about_the_run(
    aegis: Aegis, finished_run: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    read = Path.read_bytes

    def denied(path: Path) -> bytes:
        if path == finished_run / name:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", denied)
    result = aegis("verify", finished_run)

    assert result.exit_code == 2, result.output
    assert name in result.stderr


def test_every_file_is_listed_as_covered_or_not(aegis: Aegis, run_copy: Path) -> None:
    (run_copy / "nvflare.log").write_text("what another program printed")
    document = json.loads(aegis("verify", run_copy, "--json").stdout)
    page = aegis("verify", run_copy, "--files").stdout

    assert document["conclusion"] == "verified"
    assert {name for name, covered in document["files"].items() if not covered} == {"nvflare.log"}
    assert set(document["files"]) == {
        path.relative_to(run_copy).as_posix() for path in run_copy.rglob("*") if path.is_file()
    }
    assert "NOT COVERED  nvflare.log" in page
    assert "covered      model.safetensors" in page


CONCLUSIONS: Mapping[str, tuple[Falsify, str]] = {
    "an honest run": (lambda run: None, "VERIFIED. Every figure was recomputed"),
    "a falsified run": (flip_a_bit("model.safetensors"), "NOT VERIFIED. Do not rely on this run"),
}


@pytest.mark.parametrize(("falsify", "said"), CONCLUSIONS.values(), ids=CONCLUSIONS)
def test_the_last_line_is_for_a_reader_who_is_no_programmer(
    aegis: Aegis, run_copy: Path, falsify: Falsify, said: str
) -> None:
    falsify(run_copy)
    assert said in aegis("verify", run_copy).stdout.splitlines()[-1]


def test_a_participants_key_from_elsewhere_is_compared(aegis: Aegis, finished_run: Path) -> None:
    right = aegis("verify", finished_run, "--participant-key", f"clinic-1={CLINIC_1.public_hex}")
    wrong = aegis("verify", finished_run, "--participant-key", f"clinic-1={COORDINATOR.public_hex}")

    assert (right.exit_code, wrong.exit_code) == (0, Check.SIGNATURES)
    assert "of clinic-2: taken from config.json" in right.stdout


def _ledger_verdicts(run: Path) -> dict[str, Verdict]:
    answers = check_ledgers(Records(run), Reference())
    return {
        site: answer.verdict for answer in answers for site in ("clinic-1", "clinic-2") if site in answer.detail[:30]
    }

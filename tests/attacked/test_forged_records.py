"""Nobody who holds the coordinator's key alone makes a finished run say something else and verify.

The owner of a study holds that key, and every file of the run folder. What the owner does not hold is the sites' keys.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aegis.coordination.privacy_spend import across_sites, epsilon_so_far
from aegis.federation.registry import FederationFolder
from aegis.runs.folder import metrics_csv
from aegis.runs.manifest import sign_manifest
from aegis.stores.run_state import RunState
from aegis.verification import Check, Conclusion, Verdict, verify_run
from coreason_enclave.accounting import PoissonSampledGaussian
from coreason_enclave.crypto.encoding import canonical_json, parse_json, sha256_hex
from coreason_enclave.crypto.envelope import seal
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.ledger.pricing import step_cost_pico
from coreason_enclave.ledger.records import NoiseSource, RoundPlan
from coreason_enclave.ledger.signed_heads import EXPORT_TYPE, seal_export
from coreason_enclave.schemas import PrivacyUnit
from coreason_enclave.wire.updates import decode_arrays, encode_arrays
from tests.aegis.commands.conftest import SITES, found_study, invoke, public_examples
from tests.attacked.forging import Owner

OWNER = Signer.from_seed(bytes([7]) * 32)
MODEL = "model.safetensors"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, federation_at: Callable[[Path], Any]) -> Path:
    """Three rounds at two clinics, with a public evaluation set. Never to be written to."""
    study = found_study(tmp_path_factory.mktemp("forged"), federation_at)
    FederationFolder(study.federation).save_evaluation_set(public_examples())
    job = study.write_job("study-1", average_last_rounds=2)
    result = invoke("run", job, "--federation", study.federation, "--out", study.root / "run")
    assert result.exit_code == 0, result.output
    return study.root / "run"


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy for the owner to falsify."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def failing(run: Path) -> set[Check]:
    return set(verify_run(run).failed)


def test_an_honest_run_is_verified(finished: Path) -> None:
    report = verify_run(finished)
    assert report.conclusion is Conclusion.VERIFIED, [f for f in report.findings if f.verdict is not Verdict.HOLDS]
    assert all(report.files.values())


def test_the_owners_tools_make_records_that_verify_where_nothing_is_changed(copy: Path) -> None:
    """The forgeries below fail for what they say, and not for how they were written."""
    owner = Owner(copy, OWNER)
    owner.rewrite_log(owner.entries())
    owner.edit_state(lambda state: None)
    owner.edit_config(lambda config: None)
    owner.sign_again()
    assert verify_run(copy).conclusion is Conclusion.VERIFIED


CLAIMED_NOISE = 9.0


def claim_more_noise(owner: Owner) -> None:
    """Noise multiplier 9 in job, log and ledgers, chains and checkpoint made anew, every epsilon to match."""
    job = owner.order_another_job(lambda fields: fields["privacy"].update(noise_multiplier=CLAIMED_NOISE))
    hashes = {site: owner.rewrite_ledger(site, lambda entries: less_spent(entries, job.digest())) for site in SITES}
    log = owner.entries()
    for details in owner.accepted(log):
        details["event"]["noise_multiplier"] = CLAIMED_NOISE
        details["ledger_head"]["hash"] = hashes[details["site"]][details["ledger_head"]["seq"]]
    owner.rewrite_log(log)

    def restated(state: dict[str, Any]) -> None:
        for record in state["history"]:
            record["epsilon"] = epsilon_so_far(job, record["steps"])

    owner.edit_state(restated)
    state = RunState.model_validate(parse_json((owner.run / "state" / "state.json").read_bytes()))
    log = owner.entries()
    for entry in log:
        if (entry["action"], entry["outcome"]) == ("round", "completed"):
            entry["details"]["record"] = state.history[entry["details"]["round"] - 1].model_dump(mode="json")
        if entry["outcome"] == "finished":
            for site, head in entry["details"]["ledgers"].items():
                head["hash"] = hashes[site][head["seq"]]
    owner.rewrite_log(log)
    (owner.run / "metrics.csv").write_text(metrics_csv(state.history))
    last = state.history[-1]
    owner.edit(
        "outcome.json",
        lambda outcome: outcome.update(
            epsilon=last.epsilon, ledger_epsilon=last.epsilon, federation_epsilon=across_sites(job, last.steps, None)
        ),
    )


def less_spent(entries: list[dict[str, Any]], job_digest: str) -> None:
    """A ledger's entries as if the job had had that noise, at the price that such noise has."""
    order = next(entry["registration"]["filter_order"] for entry in entries if entry["type"] == "registered")
    for entry in entries:
        if entry["type"] == "reserved":
            entry["plan"].update(noise_multiplier=CLAIMED_NOISE, job_digest=job_digest)
            words = {
                "unit": PrivacyUnit(entry["plan"]["unit"]),
                "noise_source": NoiseSource(entry["plan"]["noise_source"]),
            }
            plan = RoundPlan(**{**entry["plan"], **words})
            entry["step_cost_pico"] = step_cost_pico(plan, order)
        if entry["type"] == "committed":
            entry["event"]["noise_multiplier"] = CLAIMED_NOISE


def without_envelopes(owner: Owner) -> None:
    """What the sites signed is deleted, and the log names none of it."""
    shutil.rmtree(owner.run / "state" / "updates")
    log = owner.entries()
    for details in owner.accepted(log):
        del details["envelope"]
    owner.rewrite_log(log)


def signed_by_nobody(owner: Owner) -> None:
    for site in SITES:
        (owner.run / "ledger" / f"{site}.dsse").unlink()


def signed_by_the_owner(owner: Owner) -> None:
    for site in SITES:
        export = (owner.run / "ledger" / f"{site}.json").read_bytes()
        (owner.run / "ledger" / f"{site}.dsse").write_bytes(seal_export(export, site, OWNER, now=1.8e9))


def sites_said_to_be_elsewhere(owner: Owner) -> None:
    owner.edit_config(lambda config: config.update(local_sites=[]))


COVERS: dict[str, tuple[Callable[[Owner], None], ...]] = {
    "as it is": (),
    "with what the sites signed deleted": (without_envelopes, signed_by_nobody),
    "with the ledgers signed by the owner": (without_envelopes, signed_by_the_owner),
    "with sites that are said to be elsewhere": (without_envelopes, signed_by_nobody, sites_said_to_be_elsewhere),
    "with the envelopes left": (signed_by_the_owner, sites_said_to_be_elsewhere),
}


@pytest.mark.parametrize("cover", COVERS.values(), ids=COVERS)
def test_an_epsilon_that_the_owner_forged_is_found(copy: Path, cover: tuple[Callable[[Owner], None], ...]) -> None:
    owner = Owner(copy, OWNER)
    claim_more_noise(owner)
    for act in cover:
        act(owner)
    owner.sign_again()

    report = verify_run(copy)

    assert json.loads((copy / "outcome.json").read_text())["epsilon"]["clinic-1"] < 1  # 4.3 is true
    assert report.conclusion is Conclusion.NOT_VERIFIED
    assert Check.SIGNATURES in report.failed
    assert Check.MANIFEST not in report.failed, "the owner signs that again"
    assert {Check.AUDIT, Check.CHECKPOINT, Check.JOB, Check.EPSILON}.isdisjoint(report.failed), (
        "the forgery is thorough"
    )


def test_without_any_word_of_the_sites_no_run_is_verified(copy: Path) -> None:
    """The owner says that all sites are elsewhere and deletes whatever they signed, changing nothing else."""
    owner = Owner(copy, OWNER)
    for act in (signed_by_nobody, sites_said_to_be_elsewhere):
        act(owner)
    owner.silence_witnesses()
    owner.sign_again()
    report = verify_run(copy)
    assert report.failed == (Check.WITNESS,), (
        "the log was rewritten, which the updates tell; what is missing is told, too"
    )
    assert {name for name in SITES if any(name in missing for missing in report.missing)} == set(SITES)


def test_an_accuracy_that_the_owner_edited_everywhere_is_found(copy: Path) -> None:
    """In log, state, metrics.csv and outcome.json together, all signed again."""
    owner = Owner(copy, OWNER)
    owner.boast(accuracy=0.97)
    owner.silence_witnesses()
    owner.sign_again()
    assert failing(copy) == {Check.UTILITY, Check.WITNESS}  # each update says up to where its site was shown the log


def test_another_model_that_the_owner_released_is_found(copy: Path) -> None:
    """A better round model, which the state, the log and the released average follow."""
    owner = Owner(copy, OWNER)
    state = json.loads((copy / "state" / "state.json").read_text())
    old = state["models"][-1]
    arrays = decode_arrays((copy / "state" / "models" / f"{old}.safetensors").read_bytes(), limit=1 << 20)
    data = encode_arrays({name: (array * 1.5).astype(np.float32) for name, array in arrays.items()})
    (copy / "state" / "models" / f"{old}.safetensors").unlink()
    (copy / "state" / "models" / f"{sha256_hex(data)}.safetensors").write_bytes(data)

    def renamed(document: dict[str, Any]) -> None:
        document["models"][-1] = document["history"][-1]["model_digest"] = sha256_hex(data)

    owner.edit_state(renamed)
    owner.replace_everywhere(old, sha256_hex(data))
    owner.sign_again()
    assert Check.AGGREGATION in failing(copy)


def test_an_update_that_the_owner_replaced_is_found(copy: Path) -> None:
    path = next((copy / "state" / "updates").glob("*.safetensors"))
    arrays = decode_arrays(path.read_bytes(), limit=1 << 20)
    path.write_bytes(encode_arrays({name: array + np.float32(1) for name, array in arrays.items()}))
    Owner(copy, OWNER).sign_again()
    assert failing(copy) == {Check.AGGREGATION}


def test_a_whole_federation_of_the_owners_own_keys_is_found_by_one_key_from_elsewhere(copy: Path) -> None:
    from aegis.verification import Reference

    real = Signer.generate().public_hex
    assert verify_run(copy, Reference(participants={"clinic-1": real})).failed[0] is Check.SIGNATURES


def files_of(run: Path) -> list[str]:
    return sorted(path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file())


def test_every_file_that_is_deleted_is_missed_whether_the_owner_signs_again_or_not(finished: Path, copy: Path) -> None:
    for name in files_of(finished):
        for signs_again in (False, True):
            (copy / name).unlink()
            if signs_again and name != "config.json":
                Owner(copy, OWNER).sign_again()
            found = verify_run(copy)
            told = f"{name}, {'signed again' if signs_again else 'not signed again'}"
            optional = name in {"state/checkpoint.json", "manifest.json", "manifest.dsse"} or name.startswith(
                "witness/"
            )
            allowed = signs_again and optional  # made anew, or kept by the sites and given as --witness
            assert found.conclusion is not Conclusion.VERIFIED or allowed, told
            restore(finished, copy, name)


def restore(finished: Path, copy: Path, name: str) -> None:
    for each in (name, "manifest.json", "manifest.dsse"):
        shutil.copy(finished / each, copy / each)


def test_a_changed_byte_in_any_file_is_found(finished: Path, copy: Path) -> None:
    """At the beginning, in the middle and at the end of each; the bit that changes a letter's case is one of them."""
    for name in files_of(finished):
        data = (finished / name).read_bytes()
        for place in (0, len(data) // 2, len(data) - 1):
            for bit in (0x01, 0x20):
                changed = bytearray(data)
                changed[place] ^= bit
                (copy / name).write_bytes(bytes(changed))
                report = verify_run(copy)
                assert report.conclusion is Conclusion.NOT_VERIFIED, (name, place, bit)
        restore(finished, copy, name)


def test_what_is_added_to_the_folder_is_found(copy: Path) -> None:
    (copy / "state" / "notes.txt").write_text("nothing to see")
    report = verify_run(copy)
    assert report.failed == (Check.MANIFEST,)
    assert report.files["state/notes.txt"] is False


EDITS = 50


@pytest.mark.parametrize("seed", range(2))
def test_random_edits_by_the_owner_are_found(finished: Path, tmp_path: Path, seed: int) -> None:
    """A number, word or digest somewhere in a document that carries a claim, the manifest signed again each time."""
    chance, missed = random.Random(seed), []
    names = ["outcome.json", "metrics.csv", "state/state.json", "job.yaml", "config.json"]
    names += [f"ledger/{site}.json" for site in SITES]
    for number in range(EDITS // 2):
        run = Path(shutil.copytree(finished, tmp_path / str(number)))
        name = chance.choice(names)
        edited = one_edit((run / name).read_text(), chance)
        (run / name).write_text(edited)
        Owner(run, OWNER).sign_again() if name != "config.json" else None
        if verify_run(run).conclusion is Conclusion.VERIFIED:
            missed.append((name, edited))
        shutil.rmtree(run)
    assert not missed


def one_edit(text: str, chance: random.Random) -> str:
    """One digit or letter of the text for another."""
    places = [place for place, letter in enumerate(text) if letter.isdigit()]
    place = chance.choice(places)
    digit = chance.choice([each for each in "0123456789" if each != text[place]])
    return text[:place] + digit + text[place + 1 :]


ODD_VALUES: tuple[Any, ...] = (None, -1, 1 << 70, 1e308, "", "\ud800", "00" * 32, [], {}, True, {"x": 1}, ["x"])


def test_records_of_any_shape_are_answered_and_never_end_in_a_traceback(finished: Path, tmp_path: Path) -> None:
    """A field deleted, renamed or exchanged for something else, anywhere in a document, is answered by a finding."""
    chance, unforeseen = random.Random(7), []
    names = ["outcome.json", "state/state.json", "config.json", "ledger/clinic-1.json", "manifest.json"]
    names += [f"witness/{site}.json" for site in SITES]
    for number in range(EDITS):
        run = Path(shutil.copytree(finished, tmp_path / str(number)))
        name = chance.choice(names)
        document = json.loads((run / name).read_text())
        reshape(document, chance)
        (run / name).write_text(json.dumps(document))
        told = [finding.detail for finding in verify_run(run).findings]
        unforeseen += [(name, detail) for detail in told if "which no run writes" in detail]
        shutil.rmtree(run)
    assert not unforeseen


def reshape(document: Any, chance: random.Random) -> None:
    """One edit of the structure, at any depth."""
    holder, key = chance.choice(list(fields_of(document)))
    match chance.choice(["delete", "rename", "exchange"]):
        case "delete":
            del holder[key]
        case "rename" if isinstance(holder, dict):
            holder[chance.choice(["clinic-9", "x"])] = holder.pop(key)
        case _:
            holder[key] = chance.choice(ODD_VALUES)


def fields_of(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a JSON document: what holds it, and under which key or number."""
    for key in document if isinstance(document, dict) else range(len(document)):
        yield document, key
        if isinstance(document[key], dict | list):
            yield from fields_of(document[key])


@pytest.mark.parametrize("site", SITES)
def test_a_site_that_the_configuration_does_not_know_is_a_finding(copy: Path, site: str) -> None:
    owner = Owner(copy, OWNER)
    owner.edit_config(lambda config: config["participants"].update({"clinic-9": config["participants"].pop(site)}))
    owner.sign_again()
    report = verify_run(copy)
    assert {Check.LEDGERS, Check.SIGNATURES} <= set(report.failed)
    assert any(f"{site} is not among the participants" in finding.detail for finding in report.findings)


def test_an_outcome_that_is_not_the_one_in_the_log_is_found(copy: Path) -> None:
    """A field that nothing computes again, and a manifest signed over it; the log names the outcome's digest."""
    Owner(copy, OWNER).edit("outcome.json", lambda outcome: outcome.update(remark="approved by the board"))
    job_digest = json.loads((copy / "config.json").read_text())["job_digest"]
    sign_manifest(copy, job_digest, OWNER, pending={})
    assert failing(copy) == {Check.MANIFEST}


def test_a_ledger_signature_moved_to_another_site_or_export_does_not_count(copy: Path) -> None:
    shutil.copy(copy / "ledger" / "clinic-2.dsse", copy / "ledger" / "clinic-1.dsse")
    Owner(copy, OWNER).sign_again()
    assert Check.LEDGERS in failing(copy)


def test_a_ledger_signature_over_another_head_does_not_count(copy: Path) -> None:
    """Even under the site's own key: the head that it names is the export's."""
    clinic = Signer.from_seed(bytes.fromhex(sha256_hex(b"clinic-1")))
    export = (copy / "ledger" / "clinic-1.json").read_bytes()
    payload = {
        "version": 1,
        "site_id": "clinic-1",
        "head": {"seq": 0, "hash": "00" * 32},
        "export_digest": sha256_hex(export),
        "exported_at": 0,
    }
    (copy / "ledger" / "clinic-1.dsse").write_bytes(seal(EXPORT_TYPE, canonical_json(payload), clinic))
    Owner(copy, OWNER).sign_again()
    assert Check.LEDGERS in failing(copy)


def test_the_event_that_a_site_signed_is_the_one_that_is_charged(finished: Path) -> None:
    """The claim of 9 is far from the truth: what the sites signed is the job's own mechanism."""
    line = next(
        json.loads(text)
        for text in (finished / "audit.jsonl").read_text().splitlines()
        if json.loads(text)["action"] == "admit"
    )
    event = line["details"]["event"]
    assert PoissonSampledGaussian(event["noise_multiplier"], event["sample_rate"], event["steps"]).noise_multiplier == 2

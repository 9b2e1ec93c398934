"""The table of all checks, with the checks that need no module of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from aegis.errors import VerificationFailed
from aegis.rounds import average
from aegis.runs import RECORDED_FILES, metrics_csv
from aegis.verification.client_privacy import check_client_privacy
from aegis.verification.content import check_content
from aegis.verification.coverage import check_manifest
from aegis.verification.epsilon import check_epsilon, is_epsilon
from aegis.verification.exports import check_events, check_ledgers
from aegis.verification.findings import Answers, Check, Reference, holds, require, stays_open
from aegis.verification.ledgers import SiteLedger
from aegis.verification.measuring import check_utility
from aegis.verification.records import EXPECTED_FILES, Records, read_rows
from aegis.verification.replay import check_aggregation
from aegis.verification.signatures import check_signatures
from aegis.verification.witness import check_witnesses
from coreason_enclave.crypto import KeyRing, sha256_hex, verify_lines
from coreason_enclave.ledger import NoiseSource
from coreason_enclave.schemas import Profile, Provenance
from coreason_enclave.wire import model_digest, verify_checkpoint


def check_files(records: Records, _: Reference) -> Answers:
    """Check that every expected file exists, and that the two unsigned documents can be read."""
    missing = [name for name in EXPECTED_FILES if not records.exists(name)]
    require(not missing, f"missing: {', '.join(missing)}")
    yield holds(f"{len(EXPECTED_FILES)} files; {records.config.profile} profile, {records.outcome.rounds} rounds")


def check_audit(records: Records, _: Reference) -> Answers:
    """Check the hash chain from the first line to the last, and that the lines form one consistent history."""
    head = verify_lines(records.audit)
    yield holds(f"{head.size} lines, {len(records.trail.updates)} admitted updates, head {head.head[:16]}…")


def check_checkpoint(records: Records, reference: Reference) -> Answers:
    """Check that the folder's own checkpoint covers the whole log, and an older one from outside its beginning."""
    key = records.config.coordinator_key if reference.coordinator_key is None else reference.coordinator_key
    keys, data = KeyRing({"coordinator": key}), records.data("audit.jsonl")
    signed = verify_checkpoint(data, records.data("audit.checkpoint.json"), keys)
    beyond = data.count(b"\n") - signed.size
    require(beyond == 0, f"{beyond} lines follow the signed head: they were added after the run")
    yield holds(f"signed at line {signed.size} by key {key[:16]}…")
    if reference.checkpoint is not None:
        older = verify_checkpoint(data, reference.checkpoint, keys)
        yield holds(f"agrees with the older checkpoint, signed at line {older.size}")


def check_job(records: Records, _: Reference) -> Answers:
    """Check that job.yaml, log, configuration and state name one job."""
    digest = records.job.digest()
    audited = ", ".join(sorted(records.trail.jobs)) or "none"
    require(records.trail.jobs == {digest}, f"job.yaml has digest {digest[:16]}…, the log started job {audited[:80]}")
    require(records.config.job_digest == digest, "config.json names another job")
    require(records.state.job_digest == digest, "state/state.json belongs to another job")
    yield holds(f"{records.job.job_id}, digest {digest[:16]}…")


def check_rounds(records: Records, _: Reference) -> Answers:
    """Check the state against the log's end, and compare the records of each round with metrics and outcome."""
    rounds, history, released = records.trail.rounds, records.state.history, records.trail.released
    expected = list(range(1, records.job.rounds + 1))
    require([each.number for each in rounds] == expected, f"the log's rounds are not exactly 1 to {len(expected)}")
    require([each.round_number for each in history] == expected, "state/state.json and the log record different rounds")
    require(len(records.state.models) == len(history) + 1, "state/state.json does not name one model for each round")
    for audited, record, model in zip(rounds, history, records.state.models[1:], strict=True):
        message = f"round {audited.number}: state/state.json differs from the log"
        require(
            set(audited.admitted) == set(record.admitted) and audited.model == record.model_digest == model, message
        )
        require(audited.record == record, message)
    if released is not None:
        state = sha256_hex(records.data("state/state.json"))
        require(released.state == state, "state/state.json is not the state that the log's last line names")
        require(released.metrics == history[-1].metrics, "the log's last line and last round state different metrics")
    require(
        records.outcome.rounds == len(history),
        f"outcome.json says {records.outcome.rounds} rounds, state/state.json has {len(history)}",
    )
    require(records.outcome.metrics == history[-1].metrics, "outcome.json and the last round state different metrics")
    _require_same_cells(records.metrics, read_rows(metrics_csv(history)))
    yield holds(f"{len(history)} rounds")


def _require_same_cells(stated: tuple[Mapping[str, str], ...], recorded: list[dict[str, str]]) -> None:
    require(len(stated) == len(recorded), f"metrics.csv has {len(stated)} rows for {len(recorded)} rounds")
    for number, (mine, theirs) in enumerate(zip(stated, recorded, strict=True), start=1):
        differing = sorted(
            name for name in mine.keys() | theirs.keys() if not is_epsilon(name) and mine.get(name) != theirs.get(name)
        )
        require(not differing, f"metrics.csv, round {number}: {', '.join(differing)} differs from state/state.json")


def check_model(records: Records, _: Reference) -> Answers:
    """Check the model file's digest against log and outcome, and against the average of the rounds' own models."""
    digest, released = sha256_hex(records.data("model.safetensors")), records.trail.released
    if released is None:
        raise VerificationFailed("the log does not end with the release of a model")
    require(digest == released.model, f"model.safetensors is {digest[:16]}…, the log released {released.model[:16]}…")
    require(digest == records.outcome.model, "outcome.json names another model")
    yield holds(f"digest {digest[:16]}…")
    require(released.averaged_rounds == records.job.average_last_rounds, "log and job differ in average_last_rounds")
    models = records.kept_models(records.state.models[1:][-released.averaged_rounds :])
    same = model_digest(average(models)) == digest
    require(same, f"model.safetensors is not the average of the last {len(models)} rounds' models")
    yield holds(f"the average of the last {len(models)} rounds' models, to the last bit")


def check_labels(records: Records, _: Reference) -> Answers:
    """Check provenance, profile and randomness in the documents against log and ledgers."""
    config, outcome = records.config, records.outcome
    audited = {update.provenance for each in records.trail.rounds for update in each.admitted.values()}
    require(
        audited == set(outcome.provenance),
        f"outcome.json says provenance {_names(outcome.provenance)}, the log says {_names(audited)}",
    )
    _require_recorded(records)
    require(records.trail.profiles == {config.profile}, f"config.json says profile {config.profile}, the log does not")
    noise = "an injected seed" if config.options.unsafe_seed is not None else "secret keys"
    if not records.trail.updates:
        yield stays_open("no update was admitted: no record shows the sites' attestation or the source of their noise")
        return
    simulated = Provenance.SIMULATED in audited
    require(simulated == (config.attestation == "simulated"), "config.json and updates differ on simulated attestation")
    _require_unattested_as_such(records)
    seeded = _seeded_sites(records)
    require(
        bool(seeded) == (config.options.unsafe_seed is not None), f"ledgers contradict config.json: noise from {noise}"
    )
    yield holds(f"provenance {_names(audited)}, noise from {noise}")


def _require_recorded(records: Records) -> None:
    """Require that the configuration files match the digests recorded by every start of the run."""
    for field, name in RECORDED_FILES.items():
        digest = sha256_hex(records.data(name)) if records.exists(name) else None
        recorded = {getattr(each, field) for each in records.trail.configurations}
        require(recorded == {digest}, f"{name} differs from the file that the log recorded")
    evaluation = records.config.evaluation_set
    released = records.trail.released
    evaluation_sets = {records.outcome.evaluation_set, None if released is None else released.evaluation_set}
    evaluation_sets |= {each.evaluation_set for each in records.trail.configurations}
    require(evaluation_sets == {evaluation}, "log, config.json and outcome.json name different evaluation sets")


def _require_unattested_as_such(records: Records) -> None:
    """Require one answer to "attested?" from profile, configuration, rounds, updates and the sites' own ledgers."""
    unattested = records.config.profile == Profile.UNATTESTED
    told = "not attested" if unattested else "attested or simulated"
    named = (records.config.attestation == "not attested") == unattested
    require(named, f"config.json: attestation {records.config.attestation!r:.60} contradicts its profile")
    for update in records.trail.updates:
        claimed = update.provenance is Provenance.CLAIMED
        message = f"line {update.line}: provenance {update.provenance}, but every update of this profile is {told}"
        require(claimed == unattested, message)
    for record in records.state.history:
        wrong = [each for each in record.provenance.values() if (each is Provenance.CLAIMED) != unattested]
        require(not wrong, f"state/state.json, round {record.round_number}: a provenance contradicts the profile")
    for site, ledger in records.ledgers.items():
        same = not isinstance(ledger, SiteLedger) or ledger.findings.unattested == unattested
        require(same, f"the ledger of {site} began under another profile than config.json states")


def _seeded_sites(records: Records) -> list[str]:
    digest = records.job.digest()
    unsafe = {update.site for update in records.trail.updates if update.noise_source == NoiseSource.UNSAFE_SEEDED}
    for site, ledger in records.ledgers.items():
        if isinstance(ledger, SiteLedger) and NoiseSource.UNSAFE_SEEDED in ledger.noise_sources(digest):
            unsafe.add(site)
    return sorted(unsafe)


def _names(values: Iterable[str]) -> str:
    return ", ".join(sorted(values)) or "nothing"


@dataclass(frozen=True)
class _Step:
    """A check: its function, and the checks that must hold first for the answer to mean anything."""

    run: Callable[[Records, Reference], Answers]
    needs: tuple[Check, ...] = ()


CHECKS: Mapping[Check, _Step] = {
    Check.FILES: _Step(check_files),
    Check.AUDIT: _Step(check_audit),
    Check.CHECKPOINT: _Step(check_checkpoint, needs=(Check.AUDIT,)),
    Check.JOB: _Step(check_job, needs=(Check.AUDIT,)),
    Check.ROUNDS: _Step(check_rounds, needs=(Check.AUDIT, Check.JOB)),
    Check.MODEL: _Step(check_model, needs=(Check.AUDIT, Check.ROUNDS)),
    Check.LEDGERS: _Step(check_ledgers, needs=(Check.AUDIT,)),
    Check.EVENTS: _Step(check_events, needs=(Check.AUDIT, Check.JOB)),
    Check.EPSILON: _Step(check_epsilon, needs=(Check.AUDIT, Check.JOB)),
    Check.LABELS: _Step(check_labels, needs=(Check.AUDIT, Check.JOB)),
    Check.SIGNATURES: _Step(check_signatures, needs=(Check.AUDIT, Check.JOB)),
    Check.AGGREGATION: _Step(check_aggregation, needs=(Check.AUDIT, Check.JOB, Check.ROUNDS, Check.SIGNATURES)),
    Check.UTILITY: _Step(check_utility, needs=(Check.AUDIT, Check.JOB, Check.ROUNDS, Check.LABELS)),
    Check.CLIENT_PRIVACY: _Step(check_client_privacy, needs=(Check.AUDIT, Check.JOB, Check.ROUNDS)),
    Check.CONTENT: _Step(check_content, needs=(Check.AUDIT, Check.JOB, Check.ROUNDS)),
    Check.MANIFEST: _Step(check_manifest),
    Check.WITNESS: _Step(check_witnesses, needs=(Check.AUDIT, Check.JOB, Check.CHECKPOINT)),
}

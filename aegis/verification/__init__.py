"""Offline verification of a run folder: what it claims against its own records, trusting none of its numbers.

::

    report = verify_run(Path("runs/latest"))
    report.ok, report.exit_code
    for finding in report.findings: ...

Reads and never writes; needs no framework and no network. A run folder cannot vouch for itself: what only somebody
outside can know, such as the coordinator's key or an older checkpoint of its log, is given as a :class:`Reference`,
and listed as not checked where it is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aegis.errors import AegisError, RunFolderError, VerificationFailed
from aegis.verification.checks import CHECKS
from aegis.verification.findings import Answer, Check, Finding, Reference, Report, Verdict
from aegis.verification.ledgers import SiteLedger
from aegis.verification.records import Records
from coreason_enclave.errors import EnclaveError
from coreason_enclave.schemas import Mechanism, Provenance

__all__ = ["Check", "Finding", "Reference", "Report", "Verdict", "verify_run"]


def verify_run(path: Path, reference: Reference | None = None) -> Report:
    """Make every check of a finished run folder.

    Args:
        path: the run folder.
        reference: what the caller knows from elsewhere.

    Raises:
        RunFolderError: there is no run folder at ``path``, or its run has not finished.
    """
    records, reference = Records(path), reference or Reference()
    if not records.exists("job.yaml") and not records.exists("config.json"):
        raise RunFolderError(f"{path} is not a run folder: it has neither job.yaml nor config.json")
    if not records.exists("outcome.json") and not records.exists("audit.checkpoint.json"):
        raise RunFolderError(f"the run in {path} has not finished: the command that started it goes on with it")
    findings: list[Finding] = []
    failed: list[Check] = []
    for check in CHECKS:
        answers = _answers(check, records, reference, failed)
        findings += [Finding(check.label, answer.verdict, answer.detail) for answer in answers]
        if any(answer.verdict is Verdict.FAILS for answer in answers):
            failed.append(check)
    findings += [Finding(what, Verdict.NOT_CHECKED, why) for what, why in _beyond(records, reference)]
    return Report(tuple(findings), tuple(failed), tuple(_notices(records)))


def _answers(check: Check, records: Records, reference: Reference, failed: list[Check]) -> list[Answer]:
    lacking = [need for need in CHECKS[check].needs if need in failed]
    if lacking:
        return [Answer(Verdict.NOT_CHECKED, f"needs the check {lacking[0].label}, which failed")]
    answers: list[Answer] = []
    try:
        answers.extend(CHECKS[check].run(records, reference))
    except (AegisError, EnclaveError) as error:
        answers.append(Answer(Verdict.FAILS, " ".join(str(error).split())))
    return answers


def _beyond(records: Records, reference: Reference) -> Iterator[tuple[str, str]]:
    """What these records cannot establish, or could only with something from elsewhere."""
    if reference.coordinator_key is None:
        yield "coordinator's key", "taken from the run folder: compare it with one that you know (--coordinator-key)"
    if reference.checkpoint is None:
        yield "external checkpoint", "none given: a log rewritten with the coordinator's key would pass (--checkpoint)"
    yield "attestation", _attestation(records)
    yield "participants' keys", "taken from config.json, which the log names: compare them with the sites' own word"
    yield "aggregation", "updates are not kept: how a round's model came of them is not computed again"
    yield "utility", "accuracy, loss and AUC are not measured again: the evaluation set is not part of the records"
    if _promises_clients(records):
        yield (
            "sampling of sites",
            "this folder tells whom each round asked: to its readers no site was hidden by chance",
        )
    yield "overlap of sites", "epsilon is each site's own; it composes where one person's data is at several sites"
    for open_question in sorted(_open_at_ledgers(records)):
        yield "ledgers", open_question


def _promises_clients(records: Records) -> bool:
    try:
        return records.job.client_privacy is not None
    except (AegisError, EnclaveError):
        return False


def _attestation(records: Records) -> str:
    if Provenance.SIMULATED in _provenance(records):
        return "SIMULATED: nothing vouches for the code that ran at the sites"
    return "evidence was appraised when its update was admitted; its binding is checked here, it is not appraised again"


def _open_at_ledgers(records: Records) -> set[str]:
    try:
        ledgers = [ledger for ledger in records.ledgers.values() if isinstance(ledger, SiteLedger)]
    except (VerificationFailed, EnclaveError):
        return set()
    return {question for ledger in ledgers for question in ledger.findings.not_checked}


def _notices(records: Records) -> Iterator[str]:
    try:
        config, job = records.config, records.job
    except (AegisError, EnclaveError):
        return
    if Provenance.SIMULATED in _provenance(records):
        yield "SIMULATED attestation: a development run; nothing vouches for the code that ran at the sites"
    if config.options.unsafe_seed is not None:
        yield "UNSAFE injected noise: whoever knows the seed can undo it; no epsilon below protects anybody"
    if config.declared_attackers:
        yield f"simulated attackers, as declared: {', '.join(sorted(config.declared_attackers))}"
    if job.privacy.mechanism is Mechanism.NON_PRIVATE:
        yield "NON-PRIVATE training: no epsilon holds"


def _provenance(records: Records) -> set[Provenance]:
    try:
        return {update.provenance for update in records.trail.updates}
    except (VerificationFailed, EnclaveError):
        return set()

"""Runs every check on a run folder, and collects findings, open questions and notices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from aegis.errors import AegisError, RunFolderError
from aegis.runs import MANIFEST, SIGNATURE, files_of
from aegis.verification.checks import CHECKS
from aegis.verification.coverage import coverage
from aegis.verification.findings import Answer, Check, Finding, Reference, Verdict, VerificationReport
from aegis.verification.ledgers import SiteLedger
from aegis.verification.records import Records
from coreason_enclave.errors import EnclaveError
from coreason_enclave.schemas import Mechanism, Profile, Provenance

_T = TypeVar("_T")


def verify_run(path: Path, reference: Reference | None = None) -> VerificationReport:
    """Run every check on a finished run folder.

    Args:
        path: the run folder.
        reference: the caller's knowledge from outside the folder.

    Raises:
        RunFolderError: ``path`` holds no run folder, the run has not finished, or a file may not be read.
    """
    records, reference = Records(path), reference or Reference()
    if not records.exists("job.yaml") and not records.exists("config.json"):
        raise RunFolderError(f"{path} is not a run folder: it has neither job.yaml nor config.json")
    if not _has_finished(records):
        raise RunFolderError(f"the run in {path} has not finished: repeat the command that started the run")
    findings: list[Finding] = []
    failed: list[Check] = []
    for check in CHECKS:
        answers = _answers(check, records, reference, failed)
        findings += [Finding(check.label, answer.verdict, answer.detail) for answer in answers]
        if any(answer.verdict is Verdict.FAILS for answer in answers):
            failed.append(check)
    findings += [Finding(subject, Verdict.NOT_CHECKED, why) for subject, why in _beyond(records, reference)]
    return VerificationReport(tuple(findings), tuple(failed), tuple(_notices(records)), _files(records, reference))


def _has_finished(records: Records) -> bool:
    """Return True if any record shows the end of the run; deleting one file must not make a run look unfinished."""
    if any(records.exists(name) for name in ("outcome.json", "audit.checkpoint.json", MANIFEST, SIGNATURE)):
        return True
    return (
        records.exists("audit.jsonl") and b'"outcome":"finished"' in records.data("audit.jsonl").rpartition(b"\n{")[2]
    )


def _files(records: Records, reference: Reference) -> dict[str, bool]:
    covered = _read_or(lambda: dict(sorted(coverage(records, reference).items())), None)
    return dict.fromkeys(files_of(records.folder), False) if covered is None else covered


def _read_or(read: Callable[[], _T], default: _T) -> _T:
    """Return a value read outside the checks, or ``default`` if the records are unreadable; the checks report why."""
    try:
        return read()
    except Exception:  # noqa: BLE001 - the checks have looked at the same records, and say what is wrong with them
        return default


def _answers(check: Check, records: Records, reference: Reference, failed: list[Check]) -> list[Answer]:
    failed_needs = [need for need in CHECKS[check].needs if need in failed]
    if failed_needs:
        return [Answer(Verdict.NOT_CHECKED, f"needs the check {failed_needs[0].label}, which failed")]
    answers: list[Answer] = []
    try:
        answers.extend(CHECKS[check].run(records, reference))
    except RunFolderError:
        raise  # an unreadable file is no evidence about the run
    except MemoryError as error:
        raise RunFolderError(f"{records.folder} could not be verified: this machine has too little memory") from error
    except (AegisError, EnclaveError) as error:
        answers.append(Answer(Verdict.FAILS, " ".join(str(error).split())))
    except Exception as error:  # noqa: BLE001 - a folder that brings a check down must not pass, nor hide what others find
        problem = " ".join(f"{type(error).__name__}: {error}".split())
        answers.append(Answer(Verdict.FAILS, f"unreadable records, which no run writes ({problem[:200]})"))
    return answers


def _beyond(records: Records, reference: Reference) -> Iterator[tuple[str, str]]:
    """Yield the questions that these records cannot answer, or only with data from outside."""
    if reference.coordinator_key is None:
        yield ("coordinator's key", "from the run folder: compare with a key from another source (--coordinator-key)")
    if reference.checkpoint is None:
        yield ("external checkpoint", "none given: the coordinator could rewrite and re-sign the log (--checkpoint)")
    if not reference.witnesses:
        yield ("witnesses", "no site's statement given: only the log's keeper states what sites received (--witness)")
    yield from _attestation(records)
    yield from _about_config(records, reference)
    if _read_or(lambda: records.job.client_privacy is not None, False):
        yield ("sampling of sites", "the folder names each cohort: client-level privacy does not hold for its readers")
    for open_question in sorted(_open_at_ledgers(records)):
        yield "ledgers", open_question


def _about_config(records: Records, reference: Reference) -> Iterator[tuple[str, str]]:
    """Yield claims of config.json that no other record in the folder confirms."""
    config = _read_or(lambda: records.config, None)
    if config is None:
        return
    taken = sorted(config.participants.keys() - reference.participants.keys())
    if taken:
        detail = f"of {', '.join(taken)}: taken from config.json, compare them with the keys that the sites state"
        yield "participants' keys", f"{detail} (--participant-key)"
    if config.evaluation_set is not None:
        yield ("evaluation set", f"chosen by the coordinator, digest {config.evaluation_set[:16]}…: judge its fairness")
    if config.disjoint_units is not None:
        yield "overlap of sites", f"that no unit has data at two sites is a claim: {config.disjoint_units}"


def _attestation(records: Records) -> Iterator[tuple[str, str]]:
    if _is_unattested(records):
        yield "hardware", "not attested, by the profile: no evidence shows which code ran at the sites"
    elif Provenance.SIMULATED in _provenance(records):
        yield "attestation", "SIMULATED: no evidence shows which code ran at the sites"
    else:
        appraised = "the coordinator appraised evidence when it admitted each update; verify checks only the binding"
        yield "attestation", appraised


def _is_unattested(records: Records) -> bool:
    config = _read_or(lambda: records.config, None)
    stated = config is not None and config.profile == Profile.UNATTESTED
    return stated or Provenance.CLAIMED in _provenance(records)


def _open_at_ledgers(records: Records) -> set[str]:
    ledgers: list[SiteLedger | str] = _read_or(lambda: list(records.ledgers.values()), [])
    return {each for ledger in ledgers if isinstance(ledger, SiteLedger) for each in ledger.findings.not_checked}


def _notices(records: Records) -> Iterator[str]:
    config, job = _read_or(lambda: records.config, None), _read_or(lambda: records.job, None)
    if config is None or job is None:
        return
    if Provenance.SIMULATED in _provenance(records):
        yield "SIMULATED attestation: a development run; no evidence shows which code ran at the sites"
    if _is_unattested(records):
        yield "NOT ATTESTED: real sites without hardware evidence; which code ran there is their claim"
    if config.options.unsafe_seed is not None:
        yield "UNSAFE injected noise: anyone who knows the seed can subtract it; no epsilon below protects anyone"
    if config.declared_attackers:
        yield f"simulated attackers, as declared: {', '.join(sorted(config.declared_attackers))}"
    if job.privacy.mechanism is Mechanism.NON_PRIVATE:
        yield "NON-PRIVATE training: no epsilon holds"


def _provenance(records: Records) -> set[Provenance]:
    return _read_or(lambda: {update.provenance for update in records.trail.updates}, set())

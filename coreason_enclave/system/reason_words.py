"""What every reason code means: in words, who can do what, and whether waiting helps.

One table for both programs: a site sends a code alone, so this table is all that the coordinator's person can read
about a refusal by a remote site. A code whose cause ends by itself (a site is down, a quarantine runs out) lets a run
pause; any other code needs a person, so the same command again would end the same way.

>>> from coreason_enclave.errors import Reason
>>> from coreason_enclave.system import REASONS
>>> REASONS[Reason.NO_REPLY].waiting_helps, REASONS[Reason.POLICY].waiting_helps
(True, False)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coreason_enclave.errors import ConfigurationError, Reason
from coreason_enclave.system.validation_words import did_you_mean


@dataclass(frozen=True)
class ReasonWords:
    """The explanation of one code.

    Attributes:
        means: the cause, in one sentence.
        site: what the site's operator can do; empty if nothing.
        coordinator: what the coordinator's operator can do; empty if nothing.
        waiting_helps: True if the cause may end without any person's act.
    """

    means: str
    site: str = ""
    coordinator: str = ""
    waiting_helps: bool = False


_NEW_JOB = "run the corrected job under another job_id"
_DOCTOR = "run coreason-enclave doctor, which names file and remedy"
_LOG = "read the site's audit log (audit in site.toml), which has the whole message"
_UPGRADE = "install the same version of the product at both ends"
_DEFECT = "if the versions agree, report the audit log's line as a defect"
_CLOCK = "set the clock of this host (NTP)"
_EVIDENCE = "run coreason-enclave attest and aegis evidence verify on the result"
_ATTESTATION = "compare [attestation] in federation.toml with the site's evidence: aegis evidence appraise"

REASONS: Mapping[Reason, ReasonWords] = {
    Reason.CONFIGURATION: ReasonWords(
        "A file, key or option at the site is missing or unusable.", _DOCTOR, "ask the site's operator"
    ),
    Reason.MALFORMED: ReasonWords("A message is not written as the wire format requires.", _LOG, _UPGRADE),
    Reason.OVERSIZED: ReasonWords(
        "A message or model is larger than the receiver accepts.", _LOG, "choose a smaller model (model_args)"
    ),
    Reason.UNKNOWN_SIGNER: ReasonWords(
        "The signer's key is not among the keys that the receiver trusts.",
        "compare coordinator_keys in site.toml with the coordinator's key, as told over another channel",
        "compare public_keys in federation.toml with the site's key; a new key needs a new admission",
    ),
    Reason.BAD_SIGNATURE: ReasonWords(
        "A signature does not match the message: the message was changed, or signed by another key.",
        "look for a proxy or software that rewrites messages",
        "the same; then compare the keys at both ends",
    ),
    Reason.WRONG_PAYLOAD_TYPE: ReasonWords("A signed document of one kind arrived in place of another.", "", _UPGRADE),
    Reason.WRONG_DIGEST: ReasonWords(
        "The content does not have the digest that was signed: it was damaged or exchanged on the way.",
        _LOG,
        "look for a damaged disk or connection, then run again",
    ),
    Reason.EXPIRED: ReasonWords(
        "The order or evidence was too old on arrival.",
        _CLOCK,
        "set the clocks, or raise round_deadline_s; a slow connection may recover by itself",
        waiting_helps=True,
    ),
    Reason.NOT_YET_VALID: ReasonWords(
        "The order or evidence is dated in the future: the two clocks differ.", _CLOCK, _CLOCK, waiting_helps=True
    ),
    Reason.NOT_ADDRESSED_TO_ME: ReasonWords(
        "The document names another site or coordinator as its reader.",
        "compare site_id in site.toml with the name under which the federation admitted the site",
        "compare public_keys in federation.toml with the sites' own names",
    ),
    Reason.POLICY: ReasonWords(
        "The job asks for something that a line of [policy] or [[lineages]] in the site's site.toml does not allow.",
        "the audit log names the line; change it only if the site means to allow the job",
        f"ask the site which line refused, then lower what the job asks for: {_NEW_JOB}",
    ),
    Reason.UNSUPPORTED: ReasonWords("The receiver's version cannot do what is asked.", _UPGRADE, _UPGRADE),
    Reason.ATTESTATION_UNAVAILABLE: ReasonWords(
        "A host could not collect evidence, or could not reach what appraises the evidence.",
        "run coreason-enclave doctor, then coreason-enclave attest",
        "look whether the vendor's service or the given endorsements can be reached",
        waiting_helps=True,
    ),
    Reason.ATTESTATION_INVALID: ReasonWords(
        "The evidence is not what the hardware's vendor signed.", _EVIDENCE, _ATTESTATION, waiting_helps=True
    ),
    Reason.ATTESTATION_UNACCEPTABLE: ReasonWords(
        "The evidence is genuine, but the reader's policy does not accept the host that it describes.",
        _EVIDENCE,
        f"{_ATTESTATION}; waiting helps only where a platform is out of date and gets updated",
        waiting_helps=True,
    ),
    Reason.ATTESTATION_REQUIRED: ReasonWords(
        "The two ends have to attest again: one was started again, or the earlier evidence ran out.",
        "",
        "give the same command again",
        waiting_helps=True,
    ),
    Reason.UNDECRYPTABLE: ReasonWords(
        "A message was encrypted to a key that the receiver no longer has.",
        "",
        "give the same command again: both ends make new keys",
        waiting_helps=True,
    ),
    Reason.DATASET_UNKNOWN: ReasonWords(
        "The site has no dataset with the job's dataset_id.",
        "put dataset.toml and its rows under data_root, and a [[lineages]] entry into site.toml",
        f"correct dataset_id: {_NEW_JOB}",
    ),
    Reason.DATASET_PATH: ReasonWords(
        "The dataset's path is missing, or leads out of the site's data_root.",
        "move the files below data_root; links out of it are refused",
        "ask the site's operator",
    ),
    Reason.DATASET_SCHEMA: ReasonWords(
        "The site's rows do not fit their declaration, or the declaration does not fit the job.",
        "run coreason-enclave doctor: it names column and remedy",
        "give the sites the data dictionary that the job was written for",
    ),
    Reason.LEAKAGE: ReasonWords(
        "The site's airlock stopped something that could hold private content.",
        f"{_LOG}; a trainer of the site's own is the likely cause",
        "nothing: this protects the site's persons",
    ),
    Reason.NO_PRIVACY_EVENT: ReasonWords(
        "An update carries no account of the privacy that it cost, so nothing releases or admits it.",
        "mend the trainer named in site.toml: all steps have to run in the session's loop",
        "ask the site's operator",
    ),
    Reason.NORM_EXCEEDED: ReasonWords(
        "The update, or the noise alone, is longer than the job's max_update_norm.",
        "",
        f"lower learning_rate or local_steps, or raise max_update_norm: {_NEW_JOB}",
    ),
    Reason.BUDGET_EXCEEDED: ReasonWords(
        "The next round would cost more privacy than the job's cap, or the lineage's lifetime budget, still has.",
        "coreason-enclave ledger show says what is spent and left; the audit log says how many rounds would fit; a "
        "spent budget never comes back",
        "aegis plan names the changes that fit the job's own cap and the sites on this host; ask any other site what "
        f"is left; then use more noise, a smaller sample_rate, fewer rounds or fewer local_steps: {_NEW_JOB}",
    ),
    Reason.ACCOUNTING: ReasonWords(
        "No honest epsilon can be stated for the job's numbers.",
        "",
        f"aegis privacy epsilon computes a schedule before it runs; correct [privacy]: {_NEW_JOB}",
    ),
    Reason.UNSAFE_TRAINING: ReasonWords(
        "The training loop, its loader or the model would void the guarantee.",
        f"{_LOG}; a trainer of the site's own is the likely cause",
        f"choose a model of this product's registry: {_NEW_JOB}",
    ),
    Reason.LINEAGE_UNKNOWN: ReasonWords(
        "The site registered no budget for the persons behind the dataset.",
        "add a [[lineages]] entry with caps to site.toml",
        "ask the site's operator, or correct dataset_id",
    ),
    Reason.LEDGER: ReasonWords(
        "The site's privacy ledger refuses the act, or cannot be opened.",
        "run coreason-enclave ledger verify; one process at a time may write to the ledger",
        "ask the site's operator",
        waiting_helps=True,
    ),
    Reason.LEDGER_CORRUPTED: ReasonWords(
        "The chain of the site's privacy ledger does not verify; every operation refuses.",
        "run coreason-enclave ledger verify, then restore the newest backup (docs/OPERATIONS.md, Ledger backups)",
        "ask the site's operator; a run with fewer sites needs a smaller min_clients in another job",
    ),
    Reason.LEDGER_ROLLED_BACK: ReasonWords(
        "The site's ledger is older than the head that the coordinator last saw: a backup was restored, or the file "
        "was exchanged.",
        "put the newest ledger back; if the newest is lost, coreason-enclave ledger acknowledge accepts the "
        "restored copy in writing",
        "nothing: the newest head stays stored, so that no budget is spent twice",
    ),
    Reason.LEDGER_FORKED: ReasonWords(
        "The site signed two ledgers under one number: two copies of one ledger are in use.",
        "stop one of the two agents, and keep the ledger with the coordinator's newest head",
        "ask the site which copy counts; the older head stays stored",
    ),
    Reason.ROUND_CONFLICT: ReasonWords(
        "The site's ledger already holds this job_id, or this round of it, with other terms: another learning rate, "
        "noise, model or data. A round is released once only, else its noise could be averaged away.",
        "coreason-enclave ledger show lists the jobs that the ledger knows",
        "give the job another job_id (its budget counts anew), or go on in the first run's folder with the first job",
    ),
    Reason.CONTENT_CHANGED: ReasonWords(
        "The rows differ from those of the job's last round.",
        "restore the rows, or set refuse_changed_content = false",
        "declare in the job that lineages may grow, or start another job",
    ),
    Reason.JOB_KEY_CHANGED: ReasonWords(
        "The secret key from which the site draws batches and noise for this job is another than before.",
        "restore the folder named by keys in site.toml from its backup",
        f"otherwise {_NEW_JOB}",
    ),
    Reason.ROLL_CALL: ReasonWords(
        "Fewer sites that the receiver knows take part than its min_clients requires.",
        "list the other sites' keys under participants in site.toml",
        "tell every site the keys of all others (public_keys in federation.toml), and bring missing sites back",
    ),
    Reason.LOG_UNPROVEN: ReasonWords(
        "The coordinator has not proved that its log continues the log that the site saw.",
        "",
        "give the same command again: the proof is sent with the next attestation",
        waiting_helps=True,
    ),
    Reason.LOG_FORKED: ReasonWords(
        "The coordinator's log contradicts a checkpoint that the site holds: the log was lost or rewritten.",
        "coreason-enclave checkpoints show; acknowledge accepts the new log in writing",
        "restore the newest copy of the run folder's audit.jsonl",
    ),
    Reason.UNKNOWN_SITE: ReasonWords(
        "The sender is no participant of the federation.", "send a request: coreason-enclave request", "admit the site"
    ),
    Reason.REVOKED: ReasonWords(
        "The federation has revoked the site.", "ask the coordinator", "readmit the site if the revocation was an error"
    ),
    Reason.WRONG_PROFILE: ReasonWords(
        "Site and coordinator are under different profiles.",
        "join another federation, or create a new site: no site changes its profile",
        "run the job in a federation of the sites' profile",
    ),
    Reason.WRONG_ROUND: ReasonWords("The reply belongs to another round.", "", _DEFECT, waiting_helps=True),
    Reason.WRONG_NONCE: ReasonWords(
        "The reply answers another request: a late or repeated message.", "", _DEFECT, waiting_helps=True
    ),
    Reason.REPLAYED: ReasonWords(
        "The site answered one order twice, differently.",
        "look whether two agents run under one site_id",
        "ask the site's operator",
        waiting_helps=True,
    ),
    Reason.LATE: ReasonWords(
        "The site answered after its round was closed.",
        "look for a slow host or connection: coreason-enclave status",
        "raise round_deadline_s or straggler_grace_s in another job",
        waiting_helps=True,
    ),
    Reason.QUARANTINED: ReasonWords(
        "The site sits out some rounds after earlier violations; the line names the violation.",
        "mend the violation's cause",
        "wait, or readmit the site at once: aegis run --readmit SITE",
        waiting_helps=True,
    ),
    Reason.EVENT_EXCEEDS_PLAN: ReasonWords(
        "The update states more privacy than the round was to cost.", _LOG, "ask the site's operator"
    ),
    Reason.WRONG_SHAPES: ReasonWords(
        "The update's arrays are not those of the model.", "mend the trainer named in site.toml", _UPGRADE
    ),
    Reason.NON_FINITE: ReasonWords(
        "The update holds infinite or undefined numbers.", _LOG, f"lower learning_rate: {_NEW_JOB}", waiting_helps=True
    ),
    Reason.NO_REPLY: ReasonWords(
        "The site did not answer in time.",
        "look whether the agent runs: coreason-enclave status",
        "aegis federation status shows each site's last sign of life",
        waiting_helps=True,
    ),
    Reason.TRANSPORT: ReasonWords(
        "The message could not be delivered.",
        "look whether the agent is connected: coreason-enclave doctor",
        "aegis federation status",
        waiting_helps=True,
    ),
    Reason.ABORTED: ReasonWords(
        "A person, or a signal, stopped the training. Completed steps stay accounted.",
        "",
        "give the same command again",
        waiting_helps=True,
    ),
    Reason.INTERNAL: ReasonWords(
        "The sender failed in a way that it has no code for.", _LOG, "ask the site's operator", waiting_helps=True
    ),
}
"""The explanation of every code."""


def waiting_helps(code: str) -> bool:
    """Return True if the cause behind a code may end without a person's act; an unknown code counts so."""
    return REASONS[Reason(code)].waiting_helps if code in set(Reason) else True


def explanation(code: str | None) -> str:
    """Return the explanation of ``code`` in a few lines; without a code, one line for every code.

    Raises:
        ConfigurationError: no such code; names the nearest.
    """
    if code is None:
        width = max(len(each) for each in Reason)
        return "\n".join(f"{each.value:<{width}}  {REASONS[each].means}" for each in Reason)
    known = {each.value: each for each in Reason}
    wanted = code.strip().lower().replace("-", "_")
    if wanted not in known:
        parts = [each for each in known if wanted and wanted in each][:3]
        near = f", did you mean {' or '.join(map(repr, parts))}?" if parts else did_you_mean(wanted, known)
        near = near or "; without a code, the command lists all"
        raise ConfigurationError(f"{code!r:.80} is no reason code{near}")
    words = REASONS[known[wanted]]
    waiting = "may help: the same command goes on" if words.waiting_helps else "does not help: a person has to act"
    return "\n".join(
        (
            f"{wanted}: {words.means}",
            f"  waiting      {waiting}",
            f"  site         {words.site or 'nothing to do'}",
            f"  coordinator  {words.coordinator or 'nothing to do'}",
        )
    )

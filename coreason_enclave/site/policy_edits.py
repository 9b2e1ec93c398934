"""Edits ``site.toml`` for its owner: one change at a time, with a reason, logged before the file changes.

An edit runs under a lock, in this order; a failure of one step leaves the later steps undone:

1. ``site.toml`` is a file of this user, no link, and valid.
2. The change is acceptable: see the functions of this module.
3. The edited text, comments and order kept, reads as exactly the changed configuration and no other.
4. No agent writes to the site's log, hence none runs on the old policy.
5. The site's log records the change, its reason, and the digests of both texts.
6. The ledger records raised caps.
7. The new text replaces the old one atomically.

A crash between 5 and 7 leaves a logged change that was not made, never a change without a log entry; the same command
again completes the change.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from coreason_enclave.configuration import MAX_BYTES, parse_toml
from coreason_enclave.crypto import HashLog, load_or_create_signer, public_key_from_hex, sha256_hex
from coreason_enclave.errors import ConfigurationError, EnclaveError, Reason
from coreason_enclave.ledger import LineageCaps, PrivacyLedger, SqliteLedger
from coreason_enclave.policy import LineagePolicy, SiteConfig
from coreason_enclave.schemas import explained
from coreason_enclave.system import did_you_mean, file_lock, is_locked, replace_file

CONFIG_FILE = "site.toml"
LOCK_FILE = ".site.toml.lock"
_MAX_REASON = 1000


class SiteBusy(EnclaveError):
    """The site's agent runs, or another command edits the site: nothing was changed."""

    default_reason = Reason.CONFIGURATION


@dataclass(frozen=True)
class PolicyEdit:
    """One change of ``site.toml``.

    Attributes:
        action: the change in a word, for the log.
        details: what changes, for the log; JSON types.
        config: the configuration that the edited text has to read as.
        write: makes the change in the parsed text.
        raised: the caps to raise in the ledger, by lineage.
    """

    action: str
    details: Mapping[str, Any]
    config: SiteConfig
    write: Callable[[tomlkit.TOMLDocument], None]
    raised: Mapping[str, LineageCaps] = field(default_factory=dict)


def add_participant(folder: Path, site_id: str, key: str, reason: str) -> SiteConfig:
    """Count another site's key in roll-calls from now on.

    Raises:
        ConfigurationError: the site itself, a known site, another participant's key, or no Ed25519 key.
    """

    def decide(config: SiteConfig) -> PolicyEdit:
        known = config.policy.participants
        if site_id == config.site_id:
            raise ConfigurationError(f"{site_id} is this site itself, which always counts in a roll-call")
        if site_id in known:
            same = (
                "with this key" if known[site_id] == key else "with another key: edit site.toml if the site changed it"
            )
            raise ConfigurationError(f"{site_id} is listed already, {same}")
        for name, other in known.items():
            if other == key:
                raise ConfigurationError(f"this key is the key of participant {name}: compare fingerprints again")
        public_key_from_hex(key)
        own = folder / config.keys / "signing.key"
        if own.exists() and load_or_create_signer(own).public_hex == key:
            raise ConfigurationError("this key is this site's own, which would count twice in a roll-call")
        changed = _with(config, policy={"participants": {**known, site_id: key}})

        def write(document: tomlkit.TOMLDocument) -> None:
            document["policy"]["participants"][site_id] = key

        return PolicyEdit("participant_added", {"participant": site_id, "key": key}, changed, write)

    return edit_site(folder, decide, reason)


def allow_model(folder: Path, name: str, known: tuple[str, ...], reason: str) -> SiteConfig:
    """Accept jobs of another model architecture from now on.

    Args:
        known: every architecture of this installation.

    Raises:
        ConfigurationError: the architecture is unknown, or allowed already.
    """

    def decide(config: SiteConfig) -> PolicyEdit:
        if name not in known:
            raise ConfigurationError(
                f"there is no architecture {name!r:.140}{did_you_mean(name, known)}; known: {', '.join(known)}"
            )
        if name in config.policy.model_archs:
            raise ConfigurationError(f"model_archs lists {name} already")
        changed = _with(config, policy={"model_archs": [*config.policy.model_archs, name]})

        def write(document: tomlkit.TOMLDocument) -> None:
            document["policy"]["model_archs"].append(name)

        return PolicyEdit("model_allowed", {"model_arch": name}, changed, write)

    return edit_site(folder, decide, reason)


def raise_cap(folder: Path, lineage: str, caps: Mapping[str, float], reason: str) -> SiteConfig:
    """Raise the caps of a lineage in ``site.toml`` and in the ledger.

    Args:
        caps: new values of ``epsilon`` and ``job_epsilon``; what is left out stays.

    Raises:
        ConfigurationError: the lineage is unknown, a cap would fall (the message says how much is spent), or no cap
            would rise.
    """

    def decide(config: SiteConfig) -> PolicyEdit:
        place, entry = _entry_of(config, lineage)
        _require_raise(folder / config.ledger, entry, caps)
        rows = [each.model_dump(mode="json") for each in config.lineages]
        rows[place].update(caps)
        changed = _with(config, lineages=rows)
        new = changed.lineages[place]

        def write(document: tomlkit.TOMLDocument) -> None:
            document["lineages"][place].update(caps)

        before = {name: getattr(entry, name) for name in caps}
        raised = LineageCaps(epsilon=new.epsilon, delta=new.delta, job_epsilon=new.job_epsilon, job_delta=new.job_delta)
        details = {"lineage": lineage, "before": before, "after": dict(caps)}
        return PolicyEdit("cap_raised", details, changed, write, {lineage: raised})

    return edit_site(folder, decide, reason)


def add_lineage(folder: Path, entry: LineagePolicy, reason: str) -> SiteConfig:
    """Register a dataset in ``site.toml``; the ledger takes the lineage up with the next ``init`` or start.

    Raises:
        ConfigurationError: the lineage or the dataset is registered already, or contradicts the profile.
    """

    def decide(config: SiteConfig) -> PolicyEdit:
        for known in config.lineages:
            if known.lineage == entry.lineage:
                raise ConfigurationError(
                    f"site.toml registers lineage {entry.lineage} already: choose another --lineage"
                )
            if known.dataset_id == entry.dataset_id:
                raise ConfigurationError(f"site.toml registers dataset {entry.dataset_id} already, as {known.lineage}")
        row = entry.model_dump(mode="json")
        changed = _with(config, lineages=[*(each.model_dump(mode="json") for each in config.lineages), row])

        def write(document: tomlkit.TOMLDocument) -> None:
            if not document.get("lineages"):  # absent, or lineages = []
                document.pop("lineages", None)
                document.append("lineages", tomlkit.aot())
            table = tomlkit.item(row)
            document["lineages"].append(table)

        return PolicyEdit("dataset_registered", row, changed, write)

    return edit_site(folder, decide, reason)


def edit_site(folder: Path, decide: Callable[[SiteConfig], PolicyEdit], reason: str) -> SiteConfig:
    """Make one change as the module says, and return the new configuration.

    Args:
        decide: returns the change of the configuration in force, or raises.

    Raises:
        ConfigurationError: the reason is empty, ``site.toml`` cannot be edited, or ``decide`` refuses.
        SiteBusy: the site's agent runs.
    """
    why = _reason(reason)
    path = folder / CONFIG_FILE
    _require_own_file(path)
    with file_lock(folder / LOCK_FILE):
        mode, data = _read(path)
        config = _validated(data, str(path))
        edit = decide(config)
        new = _edited(data, edit, path)
        with _log_of(folder, config) as log:
            ledger = _ledger_of(folder, config) if edit.raised else None
            try:
                if path.read_bytes() != data:
                    raise SiteBusy(f"{path} changed during the edit: run the command again")
                digests = {"before": sha256_hex(data), "after": sha256_hex(new)}
                details = {**edit.details, "why": why, "site_toml": digests}
                log.append(actor="owner", action=edit.action, outcome="ok", details=details)
                for lineage, caps in edit.raised.items():
                    if ledger is not None:
                        _raise_in(ledger, lineage, caps, why)
            finally:
                if ledger is not None:
                    ledger.close()
            replace_file(path, new, mode=mode)
    return edit.config


def _reason(text: str) -> str:
    why = " ".join(text.split())
    if not why or not why.isprintable() or len(why) > _MAX_REASON:
        raise ConfigurationError(f"--reason needs words for the site's log, at most {_MAX_REASON} printable characters")
    return why


def _require_own_file(path: Path) -> None:
    if path.is_symlink():
        raise ConfigurationError(f"{path} is a symbolic link: edit the file itself, in the site's own folder")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise ConfigurationError(f"{path} is not a file with one name: keep a site.toml for this site alone")
    if status.st_uid != os.geteuid():
        raise ConfigurationError(f"{path} belongs to another user (uid {status.st_uid}): run the command as that user")


def _read(path: Path) -> tuple[int, bytes]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return stat.S_IMODE(os.fstat(descriptor).st_mode), file.read(MAX_BYTES + 1)


def _validated(data: bytes, name: str) -> SiteConfig:
    document = parse_toml(data, name)
    with explained(lambda why: ConfigurationError(f"{name}: {why}")):
        return SiteConfig.model_validate(document)


def _edited(data: bytes, edit: PolicyEdit, path: Path) -> bytes:
    by_hand = f"{path} is written in a way that this command cannot edit: make the change by hand"
    try:
        document = tomlkit.parse(data if data.endswith(b"\n") else data + b"\n")  # a new table needs a line of its own
        edit.write(document)
        new = tomlkit.dumps(document).encode()
    except (TOMLKitError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(by_hand) from error
    try:
        same = _validated(new, CONFIG_FILE) == edit.config
    except ConfigurationError as error:
        raise ConfigurationError(by_hand) from error
    if not same:
        raise ConfigurationError(by_hand)
    return new


@contextmanager
def _log_of(folder: Path, config: SiteConfig) -> Iterator[HashLog]:
    path = folder / config.audit
    if is_locked(path):
        raise SiteBusy("the site's agent is running and read the old site.toml: stop the agent, repeat, start it again")
    with closing(HashLog(path)) as log:
        yield log


def _ledger_of(folder: Path, config: SiteConfig) -> PrivacyLedger | None:
    path = folder / config.ledger
    return SqliteLedger(path, must_exist=True) if path.exists() else None  # absent: the first caps are still open


def _raise_in(ledger: PrivacyLedger, lineage: str, caps: LineageCaps, why: str) -> None:
    try:
        ledger.registration(lineage)
    except EnclaveError as error:
        if error.reason is not Reason.LINEAGE_UNKNOWN:
            raise
        return
    ledger.raise_caps(lineage, caps, why)


def _require_raise(ledger: Path, entry: LineagePolicy, caps: Mapping[str, float]) -> None:
    for name, new in caps.items():
        old = getattr(entry, name)
        if new < old:
            spent = _spent(ledger, entry.lineage)
            raise ConfigurationError(
                f"{name} of {entry.lineage} is {old:g}, and epsilon {spent:.3f} is spent: a cap is never lowered; "
                f"to stop spending, take the dataset out of the data root"
            )
    if all(new == getattr(entry, name) for name, new in caps.items()):
        raise ConfigurationError(f"these are the caps of {entry.lineage} already: nothing was changed")


def _spent(path: Path, lineage: str) -> float:
    if not path.exists():
        return 0.0
    with closing(SqliteLedger(path, must_exist=True)) as ledger:
        try:
            return ledger.lineage_claim(lineage).spent_epsilon
        except EnclaveError as error:
            if error.reason is not Reason.LINEAGE_UNKNOWN:
                raise
            return 0.0


def _entry_of(config: SiteConfig, lineage: str) -> tuple[int, LineagePolicy]:
    for place, entry in enumerate(config.lineages):
        if entry.lineage == lineage:
            return place, entry
    names = [entry.lineage for entry in config.lineages]
    near = did_you_mean(lineage, names)
    raise ConfigurationError(f"site.toml has no lineage {lineage!r:.140}{near}; it has {', '.join(names) or 'none'}")


def _with(config: SiteConfig, *, policy: Mapping[str, Any] | None = None, **fields: Any) -> SiteConfig:
    """Return the configuration with changed fields, validated as a whole."""
    document = config.model_dump(mode="json", exclude_none=True)
    document["policy"].update(policy or {})
    document.update(fields)
    with explained(lambda why: ConfigurationError(f"site.toml would be refused: {why}")):
        return SiteConfig.model_validate(document)

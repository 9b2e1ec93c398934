"""Opens the handler behind an executor, by this host's own settings: the site's agent or a session in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coreason_enclave.errors import ConfigurationError
from coreason_enclave.federation.nvflare.settings import Runs, load_local_settings
from coreason_enclave.ipc import AgentClient
from coreason_enclave.policy import SiteConfig, load_site_config
from coreason_enclave.schemas import Profile
from coreason_enclave.wire import Handler

if TYPE_CHECKING:
    from coreason_enclave.federation.nvflare.trainer import ExecutorHooks


@dataclass(frozen=True)
class OpenHandler:
    """An open handler, and the function that closes it."""

    handler: Handler
    close: Callable[[], None]


def open_handler(settings_folder: Path, name: str, executor: ExecutorHooks, trainer: str | None) -> OpenHandler:
    """Open the handler for the client ``name``.

    Args:
        settings_folder: holds ``coreason.json``.
        trainer: ``package.module:Class`` of an executor with its own training loop; None for the standard loop.

    Raises:
        ConfigurationError: missing settings, an unknown site, or a loop that would not run here.
        LedgerError: a session's ledger does not verify.
    """
    settings = load_local_settings(settings_folder)
    folder = settings.folder_of(name)
    config = load_site_config(folder / "site.toml")
    if config.site_id != name:
        raise ConfigurationError(f"the client {name} has the folder of another site, {config.site_id}")
    if settings.runs is Runs.SESSION:
        return _session(folder, config, settings.unsafe_seed, executor, trainer)
    if trainer is not None:
        raise ConfigurationError(f"the site's agent trains: name {trainer} as trainer in site.toml, not in the job")
    return OpenHandler(AgentClient(folder), lambda: None)


def _session(
    folder: Path, config: SiteConfig, seed: int | None, executor: ExecutorHooks, trainer: str | None
) -> OpenHandler:
    """Open a session in this process.

    FLARE's simulator may start a new process per task, so keys are derived from a file rather than kept in memory.
    """
    if config.profile is not Profile.DEVELOPMENT:
        raise ConfigurationError("a session in FLARE's own process needs profile development: run the site's agent")
    if trainer is not None and config.trainer not in (None, trainer):
        raise ConfigurationError(f"site.toml names the trainer {config.trainer}, but the job names {trainer}")
    from coreason_enclave.crypto import UnsafeDerivedKemKeys, load_or_create_secret, unsafe_seeded_keys
    from coreason_enclave.federation.nvflare.trainer import ExecutorTrainer  # loads the frameworks
    from coreason_enclave.privacy import train_on_one_thread
    from coreason_enclave.sentry import DataSentry
    from coreason_enclave.site import open_site

    train_on_one_thread()
    own = None
    if trainer is not None:
        own = ExecutorTrainer(executor, config.site_id, DataSentry(folder / config.data_root))
    site = open_site(
        folder,
        trainer=own,
        job_keys=None if seed is None else unsafe_seeded_keys(seed, config.site_id),
        kem_keys=UnsafeDerivedKemKeys(load_or_create_secret(folder / config.keys / "unsafe-kem.secret")),
    )
    return OpenHandler(site.session, site.close)

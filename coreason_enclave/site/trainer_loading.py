"""Load the training loop named in ``site.toml``: ``trainer = "package.module:Class"``.

The site itself installs the class on this host; no coordinator can bring one. This package finds the class by name and
asks for a trainer, and therefore needs no framework. ``CoreasonExecutor`` offers a trainer, and so may any other class
with a method ``as_trainer``.
"""

from __future__ import annotations

import importlib
from typing import Any, Protocol, runtime_checkable

from coreason_enclave.errors import ConfigurationError
from coreason_enclave.privacy import Trainer
from coreason_enclave.sentry import DataSentry


@runtime_checkable
class OffersTrainer(Protocol):
    """An object that can act as the trainer of one site."""

    def as_trainer(self, site_id: str, sentry: DataSentry) -> Trainer:
        """Return the trainer; ``sentry`` guards the site's data and releases."""
        ...


def load_trainer(name: str, site_id: str, sentry: DataSentry) -> Trainer:
    """Import the class ``name``, make an instance and return its trainer.

    Args:
        name: ``package.module:Class``.
        site_id: name of the opened site.
        sentry: guards the opened site's data and releases.

    Raises:
        ConfigurationError: the class cannot be imported, offers no trainer, or cannot be made without arguments.
    """
    kind = _imported(name)
    if not (isinstance(kind, type) and issubclass(kind, OffersTrainer)):
        raise ConfigurationError(f"trainer {name} is no subclass of CoreasonExecutor, and has no method as_trainer")
    try:
        instance = kind()
    except Exception as error:
        message = f"trainer {name} cannot be constructed without arguments: {type(error).__name__}: {error}"
        raise ConfigurationError(message) from error
    return instance.as_trainer(site_id, sentry)


def _imported(name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("nvflare"):
            raise _cannot_be_imported(name, error) from error
        message = f"trainer {name} needs {error.name}, which is not installed: pip install 'aegis-fl[nvflare]'"
        raise ConfigurationError(message) from error
    except Exception as error:  # importing runs the site's own code
        raise _cannot_be_imported(name, error) from error


def _cannot_be_imported(name: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(f"trainer {name} cannot be imported: {type(error).__name__}: {error}")

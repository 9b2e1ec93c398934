"""Model metrics on a site's own rows and warnings about them, for the site only, in a file that never leaves the site.

Loss, accuracy and numbers of clipped cells come from private rows without any noise. Neither the coordinator nor the
site's log gets them, since an auditor may see the log.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from coreason_enclave.crypto import canonical_json
from coreason_enclave.errors import ConfigurationError


class LocalMetricsLog:
    """A file with one JSON object per line, mode 0600, made on first use."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, entry: Mapping[str, object]) -> None:
        """Append ``entry``, durable before this method returns.

        Raises:
            ConfigurationError: the file cannot be written, or others can read the file.
        """
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    raise ConfigurationError(f"only the owner may have access to {self._path}: run chmod 600 on it")
                file.write(canonical_json(dict(entry)) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ConfigurationError(f"local metrics cannot be written to {self._path}: {error.strerror}") from error

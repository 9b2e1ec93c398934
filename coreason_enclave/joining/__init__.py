"""Founding a site from a ``site.toml`` that a person wrote, and joining a federation with it.

:func:`make_request` and :func:`accept_welcome` are what the commands ``request`` and ``join`` do.
"""

from coreason_enclave.joining.requests import make_request
from coreason_enclave.joining.welcomes import accept_welcome

__all__ = ["accept_welcome", "make_request"]

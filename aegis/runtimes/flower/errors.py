"""What the carrier can fail with, besides not being reached."""

from __future__ import annotations

from aegis.errors import CarrierUnreachable

__all__ = ["RunEnded"]


class RunEnded(CarrierUnreachable):
    """SuperLink has ended the Flower run: its messages are lost, and a new run has to be started."""

"""Examples are judged by their outcome, not by the speed of a machine that other tests share."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

"""``aegis evidence``: verify, appraise and read evidence of hardware, offline, from files."""

from aegis.commands.evidence.group import evidence

__all__ = ["evidence"]

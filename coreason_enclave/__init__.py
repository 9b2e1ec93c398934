"""The agent at a data holder's site: it attests, validates, trains under differential privacy and sanitises.

Importing this package imports nothing heavy; each room imports what it needs (see ``docs/ARCHITECTURE.md``).
"""

__version__ = "0.1.0"
__all__ = ["__version__"]

"""A federation on disk: its registry, its folder, and job files.

Enters: ``federation.toml``, job YAML, a public evaluation set. Leaves: validated configuration, paths, jobs.
Never: opens a connection, starts a process, or decides who takes part.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

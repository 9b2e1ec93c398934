"""Run folders: the records of one run, and every step from its plan to its signed results.

Enters: a job, a federation folder, a choice of runtime. Leaves: rounds, a final global model, a signed run folder.
Never: decides who takes part or whose update counts, or implements a transport.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""The round engine: takes a run through one turn, from invitation to aggregation, without naming any framework.

Enters: a job, the registered sites, a transport. Leaves: a completed round on disk, or a pause with its reason.
Never: imports a federation framework; sends a model to a site without a current attestation.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""A study of one's own: created from its owner's files, run, measured, drawn.

Enters: the owner's rows, her job, the records of a run. Leaves: simulated sites, results, pictures.
Never: reads the rows of a real site; overwrites a file of an earlier run.

>>> from aegis.studies import Curve
>>> Curve("private job", rounds=[1, 2], values=[0.6, 0.7]).label
'private job'
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

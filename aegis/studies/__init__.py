"""A study of one's own: figures of a run.

Enters: the records of a run, and predictions on public rows. Leaves: pictures.
Never: draws a private row.

>>> from aegis.studies import Curve
>>> Curve("private job", rounds=[1, 2], values=[0.6, 0.7]).label
'private job'
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Datasets at a site: their declaration (``schema``), their location (``paths``) and their reader (``reading``).

Enters: a dataset id below the data root. Leaves: checked, scaled arrays, or a refusal with a reason code.
Never: follows a link; guesses a type; scales by a statistic of the rows; quotes a cell in a message.

``schema`` belongs to the ground floor: the platform scales its public evaluation set by the same ranges.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

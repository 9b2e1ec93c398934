"""Datasets at a site: declaration (``schema``), location (``paths``), readers (``reading``, ``tables``, ``tensors``).

Enters: a dataset id below the data root. Leaves: checked, scaled arrays, or a refusal with a reason code.
Never: follows a link; guesses a type; scales by a statistic of the rows; quotes a cell in a message.

``schema`` and the tables of ``dataset.toml`` behind it belong to the ground floor: the platform scales its public
evaluation set by the same ranges. ``sniffing`` and ``hints`` look at a file after its refusal, for the words alone.

>>> from coreason_enclave.datasets import parse_schema
>>> declaration = [
...     'version = 1',
...     'dataset_id = "clinic/visits"',
...     'format = "csv"',
...     'file = "rows.csv"',
...     'public = false',
...     'label = { column = "visited", classes = 2 }',
...     'features = [{ name = "age", low = 0, high = 100 }]',
... ]
>>> parse_schema("\\n".join(declaration).encode()).sample_shape
(1,)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

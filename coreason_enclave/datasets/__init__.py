"""Datasets at a site: their declaration (``schema``), their location (``paths``) and their reader (``reading``).

Enters: a dataset id below the data root. Leaves: checked, scaled arrays, or a refusal with a reason code.
Never: follows a link; guesses a type; scales by a statistic of the rows; quotes a cell in a message.

``schema`` belongs to the ground floor: the platform scales its public evaluation set by the same ranges.

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> from coreason_enclave.datasets import open_dataset
>>> declaration = '''version = 1
... dataset_id = "visits"
... format = "csv"
... file = "rows.csv"
... public = false
... label = { column = "ill", classes = 2 }
... features = [{ name = "age", low = 0, high = 100 }]'''
>>> with TemporaryDirectory() as root:
...     folder = Path(root, "visits")
...     folder.mkdir()
...     _ = (folder / "dataset.toml").write_text(declaration)
...     _ = (folder / "rows.csv").write_text("age,ill\\n0,0\\n75,1")
...     open_dataset(Path(root), "visits").features.ravel()
array([-1. ,  0.5], dtype=float32)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

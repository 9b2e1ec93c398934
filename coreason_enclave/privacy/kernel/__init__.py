"""The gradient kernel: makes a unit's contribution depend on the unit and the public model alone, bit for bit.

Enters: a model, and the rows of a sampled batch. Leaves: the sum of the units' clipped gradients, in float64.
Never: sums gradients before clipping; lets one row's bits depend on another row; reads private rows in a check.

Clipping bounds a unit's own gradient. On a computer, the clip bounds the unit's effect on the sum only if no other
unit's gradient changes with the unit. An ordinary forward pass breaks this condition: the last bit of a row's values
depends on the number of rows and on the row's place, and weights that cancel turn the last bit into another sign. The
kernel restores the condition:

- Batches have a public number of rows (:mod:`~coreason_enclave.privacy.kernel.blocks`).
- Products use shapes that round a row the same in any place (:mod:`~coreason_enclave.privacy.kernel.products`), in a
  library mode that ignores memory addresses (:mod:`~coreason_enclave.privacy.kernel.arithmetic`).
- Norms, clipping and sums use float64, with a slack for every rounding (:mod:`~coreason_enclave.privacy.kernel.slack`).
- Before any real row, the model, the loss and the loop run on synthetic rows next to varying other rows
  (:mod:`~coreason_enclave.privacy.kernel.probe`, :mod:`~coreason_enclave.privacy.kernel.rehearsal`). A refusal names
  the culprit that mixes rows.

One forward and one backward pass yield all gradients: the kernel computes no gradient twice and clips before summing.

>>> from coreason_enclave.privacy.kernel import require_recordable
>>> from torch import nn
>>> require_recordable(nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2)))
>>> require_recordable(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)))
Traceback (most recent call last):
coreason_enclave.errors.UnsafeTrainingError: the model has layers without per-row gradients: '1' (BatchNorm1d): ...
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

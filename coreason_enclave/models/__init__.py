"""Models by name: a closed registry of architectures, their losses and their public initial weights.

Enters: an architecture name, whole-number arguments, weights. Leaves: a model and its loss, or a typed refusal.
Never: imports a name from the wire; allocates a model above ``MAX_PARAMETERS``; initialises from private data.

>>> from coreason_enclave.models import initial_weights, predict
>>> import numpy as np
>>> args = {"in_features": 3}
>>> weights = initial_weights("LogisticRegression", args)
>>> {name: array.shape for name, array in weights.items()}
{'linear.weight': (1, 3), 'linear.bias': (1,)}
>>> predict("LogisticRegression", args, weights, np.ones((1, 3), np.float32))
array([[0.5, 0.5]])
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

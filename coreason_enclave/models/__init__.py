"""Models by name: a closed registry of architectures, their losses and their public initial weights.

Enters: an architecture name, whole-number arguments, weights. Leaves: a model and its loss, or a typed refusal.
Never: imports a name from the wire; allocates a model above ``MAX_PARAMETERS``; initialises from private data.

>>> from coreason_enclave.models import initial_weights, predict_probabilities
>>> import numpy as np
>>> args = {"in_features": 3}
>>> weights = initial_weights("LogisticRegression", args)
>>> {name: array.shape for name, array in weights.items()}
{'linear.weight': (1, 3), 'linear.bias': (1,)}
>>> predict_probabilities("LogisticRegression", args, weights, np.ones((1, 3), np.float32))
array([[0.5, 0.5]])
"""

from coreason_enclave.models.architectures import LogisticRegression, SimpleMLP, SmallCNN
from coreason_enclave.models.evaluation import Evaluation, evaluate
from coreason_enclave.models.registry import (
    MAX_PARAMETERS,
    Loss,
    Model,
    build,
    glorot_uniform,
    initial_weights,
    known_architectures,
    layout,
    load_weights,
    make_criterion,
    predict_probabilities,
    register,
    require_fits,
    weights_of,
    zeros,
)

__all__ = [
    "MAX_PARAMETERS",
    "Evaluation",
    "LogisticRegression",
    "Loss",
    "Model",
    "SimpleMLP",
    "SmallCNN",
    "build",
    "evaluate",
    "glorot_uniform",
    "initial_weights",
    "known_architectures",
    "layout",
    "load_weights",
    "make_criterion",
    "predict_probabilities",
    "register",
    "require_fits",
    "weights_of",
    "zeros",
]

register("LogisticRegression", LogisticRegression, loss=Loss.BINARY, initialise=zeros)
register("SimpleMLP", SimpleMLP, loss=Loss.CATEGORICAL)
register("SmallCNN", SmallCNN, loss=Loss.CATEGORICAL)

"""Client-level differential privacy: bounds how much the released models reveal about any single site.

Enters: a job with ``client_privacy``, admitted updates. Leaves: the sites to ask, a noised mean, a guarantee.
Never: samples before the charge is durable; divides by the number of answers; releases two models for one charge.

Source: DP-FedAvg with a fixed denominator (McMahan et al., "Learning Differentially Private Recurrent Language Models",
2018). In each round the coordinator:

1. charges the round to its own ledger;
2. samples the sites by independent coins;
3. clips each admitted update to one norm, and adds Gaussian noise to their sum;
4. divides by the expected number of sites, however many answered.

>>> from aegis.client_privacy import clipped_sum, noised_mean
>>> import numpy as np
>>> from coreason_enclave.crypto import Keystream
>>> two = [{"w": np.array([3.0, 4.0], np.float32)}, {"w": np.array([0.0, 0.5], np.float32)}]
>>> clipped_sum(two, {"w": (2,)}, clip_norm=1.0)["w"]  # the first has norm 5, the second less than 1
array([0.6, 1.3])
>>> noise = Keystream(bytes(32), job_digest="", round_number=1, base_model_digest="", dataset_digest="")
>>> released = noised_mean({"w": np.array([0.6, 1.3])}, noise, draw=1, deviation=0.5, expected_sites=2.0)
>>> released["w"].dtype, bool(abs(released["w"] - [0.3, 0.65]).max() < 1.5)
(dtype('float32'), True)

The guarantee is central. It protects a site from all readers of the released models, other sites included. Limits:

- The coordinator sees every update and holds the key.
- Readers of the coordinator's log or network see which sites it asked, so sampling hides nothing from them.
- Enrolment is public: the roll-call names every enrolled site.
- A site's own, local guarantee protects the people in its data from the coordinator, too; this guarantee is no
  substitute. The two have different types, and no code adds them up.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

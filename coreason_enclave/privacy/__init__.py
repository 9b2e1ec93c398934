"""Differential privacy for an ordinary PyTorch loop: clipping, noise, sampling and the step budget.

Enters: a model, an optimizer and a data loader. Leaves: a private loop whose steps a ledger reservation covers.
Never: lets another room import Opacus; overruns the reservation; trains on rows before a passed rehearsal.

>>> from coreason_enclave.privacy import PrivacyGuard
>>> import torch
>>> from torch.utils.data import DataLoader, TensorDataset
>>> from coreason_enclave.ledger import EphemeralLedger, LineageCaps, LineageRegistration
>>> from coreason_enclave.schemas import NeighboringRelation, PrivacyConfig, PrivacyUnit
>>> ledger = EphemeralLedger()
>>> ledger.register(LineageRegistration.with_best_order(
...     lineage="experiment", unit=PrivacyUnit.RECORD, neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
...     nominal_units=1000, public=True,
...     caps=LineageCaps(epsilon=10.0, delta=1e-5, job_epsilon=5.0, job_delta=1e-5)))
>>> config = PrivacyConfig(mechanism="DP_SGD", target_epsilon=3.0, noise_multiplier=1.0, max_grad_norm=1.0)
>>> model = torch.nn.Linear(2, 1)
>>> data = DataLoader(TensorDataset(torch.randn(1000, 2), torch.randn(1000, 1)))
>>> with PrivacyGuard(config, ledger=ledger, lineage="experiment") as guard:
...     private, optimizer, loader = guard.attach(
...         model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), data_loader=data)
...     for features, targets in loader:
...         optimizer.zero_grad()
...         torch.nn.functional.mse_loss(private(features), targets).backward()
...         optimizer.step()
...         guard.check_budget()
...     print(guard.steps_taken, guard.steps_affordable, round(guard.get_current_epsilon(), 2))
20 68 1.99
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

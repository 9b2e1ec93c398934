"""A data scientist's own training loop, as a site installs it: docs/TUTORIAL.md goes through it line by line."""

from __future__ import annotations

from typing import Any

from torch import optim

from coreason_enclave.federation import CoreasonExecutor
from coreason_enclave.privacy import PrivacyGuard

__all__ = ["SecureAgent"]


class SecureAgent(CoreasonExecutor):
    """One private pass over the site's rows in each round."""

    def _execute_training(self, shareable: Any, fl_ctx: Any, abort_signal: Any) -> Any:
        self._check_hardware_trust()
        job_config = self._parse_job_config(shareable)

        privacy_guard = PrivacyGuard(config=job_config.privacy)
        model, optimizer, loader = privacy_guard.attach(
            model=self.model,
            optimizer=optim.SGD(self.model.parameters(), lr=0.5),
            data_loader=self.loader,
        )
        for features, labels in loader:
            if abort_signal.triggered:
                break
            optimizer.zero_grad()
            loss = self.criterion(model(features), labels)
            loss.backward()
            optimizer.step()
            privacy_guard.check_budget()

        return self.sentry.sanitize_output(
            {"params": model.state_dict(), "metrics": {"epsilon": privacy_guard.get_current_epsilon()}}
        )

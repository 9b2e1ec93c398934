from .errors import (
    EnclaveError as EnclaveError,
)
from .errors import (
    PrivacyBudgetExceededError as PrivacyBudgetExceededError,
)
from .errors import (
    Reason as Reason,
)
from .federation.executor import CoreasonExecutor as CoreasonExecutor
from .policy import SiteConfig as SiteConfig
from .privacy import PrivacyGuard as PrivacyGuard
from .schemas import (
    AggregationStrategy as AggregationStrategy,
)
from .schemas import (
    AttestationReport as AttestationReport,
)
from .schemas import (
    FederationJob as FederationJob,
)
from .schemas import (
    PrivacyConfig as PrivacyConfig,
)
from .sentry import DataSentry as DataSentry
from .session import SecureSession as SecureSession

__version__: str

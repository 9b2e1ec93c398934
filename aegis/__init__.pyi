from .errors import AegisError as AegisError
from .federated_coordinator import FederatedCoordinator as FederatedCoordinator
from .privacy_engine import DifferentialPrivacyEngine as DifferentialPrivacyEngine
from .verification import verify_run as verify_run

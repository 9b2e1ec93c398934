from .handshake import SiteHandshake as SiteHandshake
from .local_metrics import LocalMetricsLog as LocalMetricsLog
from .secure_session import SecureSession as SecureSession
from .update_store import StoredUpdate as StoredUpdate
from .update_store import UpdateStore as UpdateStore

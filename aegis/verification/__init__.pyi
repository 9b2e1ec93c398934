from .findings import INCOMPLETE as INCOMPLETE
from .findings import Check as Check
from .findings import Conclusion as Conclusion
from .findings import Finding as Finding
from .findings import Reference as Reference
from .findings import Verdict as Verdict
from .findings import VerificationReport as VerificationReport
from .run_checks import verify_run as verify_run

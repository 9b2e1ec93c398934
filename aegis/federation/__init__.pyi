from .job_files import dump_job as dump_job
from .job_files import load_job as load_job
from .job_files import resolve as resolve
from .registry import ClientBudget as ClientBudget
from .registry import EvaluationSet as EvaluationSet
from .registry import FederationConfig as FederationConfig
from .registry import FederationFolder as FederationFolder

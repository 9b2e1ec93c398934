from .blocks import declared_blocks as declared_blocks
from .blocks import filled as filled
from .gradient_kernel import GradientKernel as GradientKernel
from .layers import require_recordable as require_recordable
from .rehearsal import COMPANY as COMPANY
from .rehearsal import Rehearsal as Rehearsal
from .rehearsal import RehearsalEnded as RehearsalEnded

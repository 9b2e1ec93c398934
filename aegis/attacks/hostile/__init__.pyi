from .byzantine import SimulatedAttacker as SimulatedAttacker
from .byzantine import SimulatedForger as SimulatedForger
from .eavesdropper import Overheard as Overheard
from .forged_evidence import Attack as Attack
from .forged_evidence import forge_of as forge_of
from .insider import Insider as Insider

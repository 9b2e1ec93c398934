from .executor import CoreasonExecutor as CoreasonExecutor

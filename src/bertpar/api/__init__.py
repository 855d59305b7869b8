"""What `import bertpar` gives: the functions under the command line, for scripts and notebooks."""

from bertpar.api.run import Run
from bertpar.api.starting import attach, plan, sweep, sweeps
from bertpar.api.sweeping import Sweep

__all__ = ["Run", "Sweep", "attach", "plan", "sweep", "sweeps"]

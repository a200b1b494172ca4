"""Every error a user can meet, with the exit code of the command line.

    VrTrtError            1   something this project did wrong
    ├── UsageError        2   bad usage, unsupported input, unusable output
    ├── ModelError        3   model or engine missing, broken or foreign
    ├── MemoryBudgetError 4   refused before work: it would not fit in memory
    ├── DamagedInputError 5   input damaged beyond use
    └── InterruptedRun  130   stopped by the user

A message is one line: what happened, to which file or tensor, and what to do next.
"""


class VrTrtError(Exception):
    """Base of all errors raised on purpose; `exit_code` is the process's."""

    exit_code = 1


class UsageError(VrTrtError):
    """Bad usage, an unsupported input, or an output that cannot be written."""

    exit_code = 2


class ModelError(VrTrtError):
    """A model, weights file or engine is missing, broken, foreign or unknown."""

    exit_code = 3


class MemoryBudgetError(VrTrtError):
    """The work would not fit in memory; raised before it starts."""

    exit_code = 4


class DamagedInputError(VrTrtError):
    """The input cannot be read far enough to restore anything."""

    exit_code = 5


class InterruptedRun(VrTrtError):
    """The user stopped the run."""

    exit_code = 130

"""Users' mistakes. Every one prints as a single line and ends the command with exit code 2.

A message says what was wrong, where, and what to do about it. `assert` is for invariants only.
"""


class UserError(ValueError):
    """Something the user can mend. ``str(error)`` is the one line that the command line prints."""


class ConfigError(UserError):
    """A config or flag with an unknown key, a value of the wrong type, or keys that contradict."""


class DataError(UserError):
    """An input text, data set or prepared data directory that cannot be used."""


class CheckpointError(UserError):
    """A model or checkpoint directory that is missing, truncated, of another shape, or unsafe to load."""


class OutputError(UserError):
    """An output that cannot be written: no space, no permission, or something is in the way."""


class NumericsError(UserError):
    """A loss or gradient that stopped being a finite number."""


class MemoryLimitError(UserError):
    """The machine has less memory than the job needs."""


class RankError(UserError):
    """A rank of a distributed run that hangs: the run can go on from its last checkpoint."""

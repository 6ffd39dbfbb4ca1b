"""How processes ended."""

import signal


def signal_name(number: int) -> str:
    """``SIGKILL``; ``signal 40`` for one that has no name, such as a real-time signal."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

"""What a tick works on, and who is told about it. The engine fills these records; a ledger reads them."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

from tickwise.core.stages import Marker

Phase = Literal["prefill", "decode"]


class RowWork(NamedTuple):
    """One row's part of a tick."""

    request_id: str
    n_new: int
    """Tokens that the model reads in this tick."""
    n_cached: int
    """Tokens before them whose state is stored."""
    phase: Phase
    """``decode`` once the row has written a token and reads on from there, else ``prefill``."""
    n_logits: int = 1
    """For how many of the last new tokens the next token is asked; 0 in the middle of a prompt."""
    together: int = 1
    """How many rows attention read as one batch with this one, padded to the longest. They stand side by side."""
    gathered: bool = False
    """Whether its stored state lay scattered, and every layer copied it together."""
    n_source: int = 0
    """How many of the row's first tokens are the source of an encoder–decoder."""


class TickWork:
    """All rows of one tick; or how to make them, since making them in the tick would take microseconds of it."""

    __slots__ = ("_rows",)

    def __init__(self, rows: tuple[RowWork, ...] | Callable[[], tuple[RowWork, ...]]) -> None:
        self._rows = rows

    @property
    def rows(self) -> tuple[RowWork, ...]:
        if callable(self._rows):
            self._rows = self._rows()
        return self._rows

    def __repr__(self) -> str:
        return f"TickWork({self.rows})"

    @property
    def phase(self) -> Phase:
        """``prefill`` when any row reads a piece of a prompt."""
        return "prefill" if any(row.phase == "prefill" for row in self.rows) else "decode"

    @property
    def batch(self) -> int:
        """Rows."""
        return len(self.rows)

    @property
    def kv_tokens(self) -> int:
        """Tokens that the tick's attention looks at, the new ones included, summed over rows."""
        return sum(row.n_cached + row.n_new for row in self.rows)


class TickToken(NamedTuple):
    """A token that a tick wrote."""

    request_id: str
    position: int
    """Index in the text, the prompt included."""
    token_id: int
    text: str
    """What became certain of the text with this token; empty inside a character or a possible stop string."""


class TickListener(Marker, Protocol):
    """Somebody who records ticks, such as a ledger. Calls come in this order, all in the thread of ``step``."""

    def begin_tick(self) -> None:
        """The tick's wall time starts; ``SCHEDULE`` is marked right after."""

    def tick_work(self, work: TickWork) -> None:
        """What the tick will run. Not called when it only ends requests: then there was no tick to record."""

    def end_tick(self, tokens: Sequence[TickToken]) -> None:
        """The tick's wall time ends."""

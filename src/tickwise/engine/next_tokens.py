"""From a tick's logits to the next tokens of its rows."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from tickwise.core.errors import UserError
from tickwise.engine.requests import RequestState, Row
from tickwise.engine.sampling import Choice, LogitsError, TokenChooser, choose
from tickwise.engine.scheduler import ScheduledRow
from tickwise.engine.speculative import accept

Chosen = dict[Row, list[Choice]]
Failed = dict[RequestState, UserError]


class NextTokens(NamedTuple):
    """What a tick's logits say."""

    chosen: Chosen
    """The next tokens of every row whose text was read to its end: one, or what a guess brings."""
    beams: dict[RequestState, dict[Row, Tensor]]
    """Logits (V,) of the rows of every beam that was read to its end."""
    failed: Failed
    """Requests with a row that cannot choose."""


ReadAlone = Callable[[ScheduledRow], Tensor]
"""Reads a row again, without others; returns its logits (1, V)."""


def next_tokens(items: Sequence[ScheduledRow], logits_RV: Tensor | None, read_alone: ReadAlone) -> NextTokens:
    """What follows in every row whose text was read to its end.

    ``logits_RV`` is what the runner gave for these rows. Rows of a prompt that was just read begin from the same
    logits. Where logits are not finite and the row was read in one batch with others, the padding may be to blame:
    the row is read again by ``read_alone`` before it counts as failed.
    """
    chosen: Chosen = {}
    failed: Failed = {}
    beams: dict[RequestState, dict[Row, Tensor]] = {}
    if logits_RV is None:
        return NextTokens(chosen, beams, failed)
    rows: list[Row] = []
    places: list[int] = []
    guesses: list[tuple[Row, Sequence[int], int]] = []
    padded: dict[int, ScheduledRow] = {}
    at = 0
    for item in items:
        n_logits, row = item.input.n_logits, item.row
        request = row.request
        if item.input.together > 1:
            padded[at] = item
        if n_logits > 1 and row.proposer is not None and row.proposer.guess.probabilities is not None:
            _accept_drawn(row, logits_RV[at : at + n_logits], chosen, failed)
        elif n_logits and request.beam is not None:
            if at in padded and not bool(logits_RV[at].isfinite().all()):
                logits_RV[at] = read_alone(item)[0]
            beams.setdefault(request, {})[row] = logits_RV[at]
        elif n_logits:
            writers = [row] if request.forked else request.rows
            rows += writers
            places += [at] * len(writers)
            if n_logits > 1:
                guesses.append((row, item.input.ids[1:], at))
        at += n_logits
    if rows:
        _choose(rows, places, logits_RV, chosen, failed, padded, read_alone)
    depth = 0
    while guesses := [guess for guess in guesses if _holds(*guess[:2], depth, chosen)]:
        depth += 1
        places = [at + depth for _, _, at in guesses]
        _choose([row for row, _, _ in guesses], places, logits_RV, chosen, failed, {}, read_alone)
    for request in failed:
        for row in request.rows:
            chosen.pop(row, None)
    return NextTokens(chosen, beams, failed)


def _holds(row: Row, guess: Sequence[int], depth: int, chosen: Chosen) -> bool:
    """Whether the row's guess came true at ``depth``, so that the position behind it counts as well."""
    if row not in chosen or depth >= len(guess) or chosen[row][depth].token_id != guess[depth]:
        return False
    return row.chooser is not None and row.chooser.end is None


def _accept_drawn(row: Row, logits_GV: Tensor, chosen: Chosen, failed: Failed) -> None:
    """The next tokens of a row whose guess was drawn."""
    assert row.proposer is not None
    assert row.chooser is not None
    try:
        chosen[row] = accept(logits_GV, row.proposer.guess, row.chooser)
    except UserError as problem:
        failed[row.request] = problem


def _choose(rows: list[Row], places: list[int], logits_RV: Tensor, chosen: Chosen, failed: Failed,
            padded: dict[int, ScheduledRow], read_alone: ReadAlone) -> None:
    """One more token of each row, from the logits at its place; of ``padded`` places, once more if they are bad."""
    ready: list[tuple[Row, TokenChooser, int]] = []
    for row, place in zip(rows, places, strict=True):
        assert row.chooser is not None
        try:
            row.chooser.prepare()
            ready.append((row, row.chooser, place))
        except UserError as problem:
            failed[row.request] = problem
    choices: list[Choice] = []
    while ready and not choices:
        wanted = [place for _, _, place in ready]
        whole = wanted == list(range(logits_RV.shape[0]))
        try:
            choices = choose(logits_RV if whole else logits_RV[wanted], [chooser for _, chooser, _ in ready])
        except UserError as problem:
            bad = set(problem.rows) if isinstance(problem, LogitsError) else set(range(len(ready)))
            again = {wanted[i] for i in bad if wanted[i] in padded} if isinstance(problem, LogitsError) else set()
            for place in again:
                logits_RV[place] = read_alone(padded.pop(place))[0]
            if again:
                continue
            failed.update((ready[i][0].request, problem) for i in bad)
            ready = [entry for i, entry in enumerate(ready) if i not in bad]
    for (row, _, _), choice in zip(ready, choices, strict=True):
        chosen.setdefault(row, []).append(choice)

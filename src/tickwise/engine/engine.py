"""The engine: requests in, text out, one tick after the other.

``Engine.step`` is one tick: schedule → run → commit. Many threads may ``submit`` and ``cancel``; one thread calls
``step``. Prompts are tokenised by the thread that submits, so that they never hold a tick up.
"""

import itertools
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from tickwise.core.console import SayOnce
from tickwise.core.errors import ConfigError, NumericsError, UserError
from tickwise.core.stages import Stage, mark, marking
from tickwise.engine.admission import Admission
from tickwise.engine.beam import Hypothesis
from tickwise.engine.blocks import BlockPool
from tickwise.engine.next_tokens import NextTokens, next_tokens
from tickwise.engine.options import EngineOptions
from tickwise.engine.requests import (
    Event,
    Failure,
    FinishReason,
    QueueFullError,
    Request,
    RequestState,
    Row,
    TextPiece,
    WrittenText,
)
from tickwise.engine.sampling import Choice
from tickwise.engine.scheduler import Plan, ScheduledRow, Scheduler
from tickwise.engine.serving import LanguageModule, runner_for
from tickwise.engine.speculative import TickTimes, check_draft
from tickwise.engine.work import TickListener, TickToken
from tickwise.models.decoder import Decoder

if TYPE_CHECKING:
    from torch import Tensor

    from tickwise.tokenizers.tokenizer import Tokenizer


class Engine:
    """Serves requests from one model.

    >>> engine = Engine(model.module, model.tokenizer)                                    # doctest: +SKIP
    >>> engine.submit(Request(prompt="Once upon"))                                        # doctest: +SKIP
    'request-1'
    >>> while not engine.idle:                                                            # doctest: +SKIP
    ...     for event in engine.step(): ...

    A request ends with a ``Generation`` per sample (of a greedy request only one: its samples are all equal) or with a
    ``Failure``; from then on its id is not ``in`` the engine.
    """

    def __init__(
        self, module: LanguageModule, tokenizer: "Tokenizer", *, options: EngineOptions | None = None,
        ledger: TickListener | None = None, draft: Decoder | None = None, model_id: str = "",
    ) -> None:
        """``draft`` is the draft model; ``model_id`` keeps stored prefixes apart where engines could share them."""
        self.options = options if options is not None else EngineOptions()
        self.tokenizer = tokenizer
        self._ledger = ledger
        if (self.options.speculate == "draft") != (draft is not None):
            raise ConfigError("speculate: 'draft' and a draft model go together; give both or neither")
        if draft is not None and isinstance(module, Decoder):  # others are refused with their options
            check_draft(module, draft)
        if tokenizer.vocab_size > module.config.vocab_size:
            raise ConfigError(
                f"the tokenizer has {tokenizer.vocab_size} tokens and the model {module.config.vocab_size}; "
                "give the tokenizer that the model was trained with"
            )
        self.runner = runner_for(module, self.options)
        block_size = self.runner.block_size
        # A state that has one block as long as the context cannot be shared: a text goes on behind it.
        shares = self.options.prefix_cache and self.options.use_cache and block_size < self.runner.context_length
        tick_tokens = self.options.tick_tokens
        if self.runner.sources is not None:  # a source is read in one tick, whatever else is in it
            tick_tokens = max(tick_tokens, self.runner.sources.longest + 1 + self.options.max_rows)
        self.scheduler = Scheduler(
            BlockPool(self.runner.n_blocks, lane=-(-self.runner.context_length // block_size)),
            block_size=block_size, max_rows=self.options.max_rows, tick_tokens=tick_tokens,
            prefix_cache=shares,
        )
        self.n_ticks = 0
        self._requests: dict[str, RequestState] = {}
        self._submitted: list[RequestState] = []
        self._cancelled: list[RequestState] = []
        self._with_deadline: set[RequestState] = set()
        self._events: list[Event] = []
        """Not yet handed out: what a tick said before it raised comes with the next one."""
        self._say_once = SayOnce()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._numbers = itertools.count(1)
        self._times = TickTimes()
        self._admission = Admission(
            tokenizer, self.options, self.runner, prefix_cache=shares, draft=draft, times=self._times,
            model_id=model_id, say_once=self._say_once,
        )
        self._written: list[TickToken] = []
        self._inference = torch.inference_mode()  # one for all ticks: making one costs more than entering it

    # ---------------------------------------------------------------- any thread

    def submit(self, request: Request, *, since: float | None = None) -> str:
        """Let a request wait for its turn; returns its id. Its times count from ``since`` (``time.perf_counter``).

        ``ConfigError`` for a request that can never be served, ``QueueFullError`` when too many wait already.
        """
        if not isinstance(request, Request):
            raise ConfigError(f"submit: give a Request(prompt=…), not {type(request).__name__}")
        submitted_at = time.perf_counter() if since is None else since
        if self._n_waiting >= self.options.max_waiting:
            raise self._queue_full()
        request_id = request.id if request.id is not None else self._new_id()
        state = self._admission.state(request, request_id, submitted_at)
        with self._lock:
            if self._n_waiting >= self.options.max_waiting:
                raise self._queue_full()
            if request_id in self._requests:
                raise ConfigError(f"request id {request_id!r} is in use; give another one")
            self._requests[request_id] = state
            self._submitted.append(state)
        self._wake.set()
        return request_id

    def cancel(self, request_id: str) -> None:
        """End a request with what it has; its slot and blocks are free in the next tick. Unknown ids are ignored."""
        with self._lock:
            state = self._requests.get(request_id)
            if state is not None:
                self._cancelled.append(state)
                self._wake.set()

    def __contains__(self, request_id: str) -> bool:
        """Whether a request waits or is written."""
        return request_id in self._requests

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits."""
        return not (self.scheduler.has_work or self._submitted or self._events)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Sleep until there is something to do; says whether there is."""
        if self.idle:
            self._wake.wait(timeout_s)
        self._wake.clear()
        return not self.idle

    @property
    def _n_waiting(self) -> int:
        return len(self._submitted) + self.scheduler.n_waiting

    def _queue_full(self) -> QueueFullError:
        return QueueFullError(f"{self.options.max_waiting} requests wait already; try again later")

    def _new_id(self) -> str:
        return next(name for i in self._numbers if (name := f"request-{i}") not in self._requests)

    # ---------------------------------------------------------------- the thread that steps

    def step(self) -> list[Event]:
        """One tick: what was written in it. Without work, nothing happens.

        An error of one request ends that request with a ``Failure``. An error that concerns all of them, such as no
        memory for the tick, is raised; the tick can be repeated, and no event is lost.
        """
        if self.idle:
            return []
        if self._ledger is None:
            self._tick()
        else:
            self._ledger.begin_tick()
            with marking(self._ledger):
                self._tick()
            self._ledger.end_tick(self._written)
        events, self._events = self._events, []
        return events

    def run_until_idle(self) -> list[Event]:
        """All ticks until nothing is left to do."""
        events: list[Event] = []
        while not self.idle:
            events += self.step()
        return events

    def _tick(self) -> None:
        mark(Stage.SCHEDULE)
        self._written = []
        if self._submitted or self._cancelled:
            self._take_messages()
        if self._with_deadline:
            self._end_late_ones()
        plan = self.scheduler.schedule()
        if plan.copies:
            self.runner.copy_blocks(plan.copies)
        if plan.items:
            if self._ledger is not None:
                self._ledger.tick_work(plan)
            self.n_ticks += 1
            started = time.perf_counter()
            with self._inference:
                logits_RV = self.runner.run([item.input for item in plan.items])
                mark(Stage.SAMPLE)
                result = next_tokens(plan.items, logits_RV, self._read_alone)
            if self.options.speculate != "off":
                self._weigh_guesses(plan, result.chosen, time.perf_counter() - started)
            mark(Stage.DETOKENIZE)
            self._commit(plan, result)
        mark(Stage.HOST)

    def _read_alone(self, item: ScheduledRow) -> "Tensor":
        """Logits (1, V) of a row whose batch gave numbers that are not finite. Whoever was cancelled before that was
        seen may have left them behind: what nobody holds is overwritten."""
        pool = self.scheduler.pool
        unheld = [block for block in range(pool.n_blocks) if not pool.holders(block)]
        for block in unheld:
            pool.forget(block)
        self.runner.clear_blocks(unheld)
        logits_1V = self.runner.run([item.input])
        assert logits_1V is not None
        mark(Stage.SAMPLE)
        return logits_1V

    def _take_messages(self) -> None:
        """Requests that were submitted or cancelled."""
        with self._lock:
            submitted, self._submitted = self._submitted, []
            cancelled, self._cancelled = self._cancelled, []
            # Still in the lock: whoever submits must count them as waiting all the time.
            for state in submitted:
                self.scheduler.add(state)
        self._with_deadline.update(state for state in submitted if state.deadline is not None)
        for state in cancelled:
            self._end(state, "cancelled")

    def _end_late_ones(self) -> None:
        now = time.perf_counter()
        for state in [state for state in self._with_deadline if state.deadline is not None and state.deadline <= now]:
            self._end(state, "deadline")

    def _weigh_guesses(self, plan: Plan, chosen: dict[Row, list[Choice]], seconds: float) -> None:
        """Tell rows with guesses what they cost and gained; only ticks without prompts can be compared."""
        n_rows = len(plan.items)
        n_guessed = sum(max(0, item.input.n_logits - 1) for item in plan.items)
        plain_s = None
        if all(item.phase == "decode" for item in plan.items):
            if not n_guessed:
                self._times.observe(n_rows, seconds)
            plain_s = self._times.plain_s(n_rows)
        for item in plan.items:
            own = item.input.n_logits - 1
            if own > 0 and item.row in chosen and item.row.proposer is not None:
                accepted = len(chosen[item.row]) - 1
                if plain_s is None:
                    item.row.proposer.verified(own, accepted, plain_s=0.0, paid_s=0.0)
                else:
                    paid_s = (seconds - plain_s) * own / n_guessed
                    item.row.proposer.verified(own, accepted, plain_s=plain_s / n_rows, paid_s=paid_s)

    def _commit(self, plan: Plan, result: NextTokens) -> None:
        """Enter what was read and chosen into texts, blocks and events."""
        now = time.perf_counter()
        for request, problem in result.failed.items():
            self._fail(request, problem)
        for item in plan.items:
            row = item.row
            request = row.request
            if request.ended:
                continue
            choices = result.chosen.get(row, ())
            # The last chosen token has not been read; of a guess, what did not come true does not count.
            n_read = len(choices) if item.phase == "decode" and choices else len(item.input.ids)
            self.scheduler.commit(row, n_read, sound=item.input.n_logits > 0)
            if not item.input.n_logits or request.beam is not None:
                continue
            try:
                if request.forked:
                    self._write(row, choices, now)
                else:
                    self.scheduler.fork(request)
                    for writer in tuple(request.rows):
                        self._write(writer, result.chosen[writer], now)
            except UserError as problem:
                self._fail(request, problem)
        for request, logits in result.beams.items():
            try:
                self._advance_beam(request, torch.stack([logits[row] for row in request.read_rows]), now)
            except UserError as problem:
                self._fail(request, problem)

    def _write(self, row: Row, choices: Sequence[Choice], now: float) -> None:
        """Append tokens to a row's text, and end it if that ends it."""
        request = row.request
        assert row.chooser is not None
        if row.first_token_at is None:
            row.first_token_at = now
        row.last_token_at = now
        for index, choice in enumerate(choices, 1):
            row.tokens.append(choice.token_id)
            text = row.text.push(choice.token_id, row.chooser.end if index == len(choices) else None)
            logged = () if choice.logprob is None else (choice,)
            row.choices += logged
            if text or logged:
                self._events.append(TextPiece(row.index, text, logged, request.id))
            if self._ledger is not None:
                self._written.append(TickToken(request.id, len(row.tokens) - 1, choice.token_id, text))
            if row.text.finish_reason is not None:
                break
        else:
            self._keep_within_context(row)
        if row.text.finish_reason is not None:
            self._finish(row)

    def _keep_within_context(self, row: Row) -> None:
        """Stop or slide when the text has outgrown the model's context."""
        if len(row.tokens) - row.window_start <= row.request.context_length:
            return
        if row.request.request.past_context == "stop":
            text = row.text.finish("length")
            if text:
                self._events.append(TextPiece(row.index, text, (), row.request.id))
            return
        self._slide(row)

    def _slide(self, row: Row) -> None:
        context = self.runner.context_length
        kept = max(1, context // 2)
        self._say_once(
            f"the text is longer than the model's context of {context} tokens: "
            f"going on from its last {kept} tokens whenever the context is full", "text",
        )
        self.scheduler.release(row)
        row.window_start = len(row.tokens) - kept

    def _advance_beam(self, request: RequestState, logits_WV: "Tensor", now: float) -> None:
        """All rows of a beam were read: keep the most likely texts, each with the state of the one it continues."""
        assert request.beam is not None
        steps = request.beam.advance(logits_WV[:, : self.tokenizer.vocab_size])
        before = request.rows
        request.rows = []
        for index, (parent, token_id) in enumerate(steps):
            row = before[parent].continued(index, token_id, now)
            self.scheduler.share(before[parent], row)
            request.rows.append(row)
        for row in before:
            self.scheduler.release(row)
        request.rows = request.rows or before
        request.forked = True
        full = len(request.prompt_ids) + request.beam.length > request.context_length if steps else True
        if full and not request.beam.done:
            request.beam.stop()
        if request.beam.done:
            self._end(request, "length")

    def _finish(self, row: Row) -> None:
        """Report a finished sample; its slot and blocks are free."""
        request = row.request
        self._events.append(request.finished(row))
        self.scheduler.release(row)
        request.rows.remove(row)
        if not request.rows:
            self._forget(request)

    def _end(self, request: RequestState, reason: FinishReason) -> None:
        """End all samples of a request where they are, unless it has ended already."""
        if request.ended:
            return
        events: list[Event] = []
        written: list[TickToken] = []
        try:
            for row in list(request.rows) if request.beam is None else self._beam_results(request, written):
                text = row.text.finish(reason) if row.text.finish_reason is None else ""
                if request.beam is not None:
                    text = "".join(row.text.pieces)
                if text:
                    events.append(TextPiece(row.index, text, (), request.id))
                events.append(request.finished(row))
        except UserError as problem:
            self._fail(request, problem)
            return
        self._events += events
        if self._ledger is not None:
            self._written += written
        self._forget(request)

    def _fail(self, request: RequestState, problem: UserError) -> None:
        """End a request because of an error."""
        if isinstance(problem, NumericsError):
            # Others may read these blocks as padding, with weight 0, which only mutes finite numbers.
            blocks = self.scheduler.own_blocks(request)
            for block in blocks:
                self.scheduler.pool.forget(block)
            self.runner.clear_blocks(blocks)
        self._events.append(Failure(problem, request.id))
        self._forget(request)

    def _beam_results(self, request: RequestState, written: list[TickToken]) -> list[Row]:
        """The best texts of a beam as rows, best first. Their tokens, which only now are certain, join ``written``."""
        assert request.beam is not None
        if not request.beam.done:
            request.beam.stop()
        rows = []
        hypotheses = request.beam.finished[: request.settings.n] or [Hypothesis(0.0, (), ended=False)]
        for index, hypothesis in enumerate(hypotheses):
            text = WrittenText(self.tokenizer, request.settings, request.continued_ids)
            row = Row(request, index, None, text)
            row.tokens += hypothesis.token_ids
            row.first_token_at, row.last_token_at = request.rows[0].first_token_at, request.rows[0].last_token_at
            for token_id in hypothesis.token_ids:
                if row.text.finish_reason is None:
                    position = len(request.prompt_ids) + len(row.text.token_ids)
                    written.append(TickToken(request.id, position, token_id, row.text.push(token_id)))
            if hypothesis.ended and row.text.finish_reason is None:
                row.text.finish("eos")
            rows.append(row)
        return rows

    def _forget(self, request: RequestState) -> None:
        request.ended = True
        self._with_deadline.discard(request)
        self.scheduler.remove(request)
        del self._requests[request.id]

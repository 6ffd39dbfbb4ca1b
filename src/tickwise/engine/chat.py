"""A conversation with a model: its turns so far, and the next answer, piece by piece."""

import dataclasses
from collections.abc import Iterator, Sequence

from tickwise.core.console import say
from tickwise.core.errors import ConfigError
from tickwise.engine.engine import Engine
from tickwise.engine.language_model import LanguageModel
from tickwise.engine.options import EngineOptions
from tickwise.engine.requests import Failure, Generation, Request, TextPiece
from tickwise.engine.settings import GenerationSettings
from tickwise.tokenizers.chat import answer_ends, encode_chat, has_chat


class Conversation:
    """What was said, and who says what next. The engine keeps the state of earlier turns, so that an answer reads only
    what is new.

    >>> talk = Conversation(tickwise.load("out/chat"))                                    # doctest: +SKIP
    >>> for piece in talk.reply("What is your name?"):                                    # doctest: +SKIP
    ...     print(piece, end="", flush=True)
    """

    def __init__(self, model: LanguageModel, settings: GenerationSettings | None = None, system: str | None = None,
                 ) -> None:
        """``system`` is an instruction that stays before all turns. Raises ``ConfigError`` for a model that was not
        fine-tuned on conversations, and for settings that an answer cannot have."""
        if model.has_source:
            raise ConfigError("this model reads a source and writes a target; talk to it with tickwise run "
                              "text-to-text")
        if not has_chat(model.tokenizer):
            raise ConfigError("this model knows no turns: its tokenizer has no chat template; fine-tune it first: "
                              "tickwise adapt MODEL --task chat --train FILE --out DIRECTORY")
        self.settings = settings if settings is not None else GenerationSettings()
        if self.settings.n != 1 or self.settings.beam_width != 1:
            raise ConfigError("a conversation goes on from one answer: leave n and beam_width at 1")
        if self.settings.speculate != "off":
            raise ConfigError("speculate: a conversation guesses no tokens; leave it off")
        self.settings = dataclasses.replace(self.settings, stop_token_ids=tuple(dict.fromkeys(
            [*self.settings.stop_token_ids, *answer_ends(model.tokenizer)])))
        self._model, self._system = model, system
        context = model.config.context_length
        block_size = EngineOptions.block_size
        # Room for the conversation twice: the answer's own state, and what is stored of the turns before.
        self._engine = Engine(model.module, model.tokenizer, ledger=model.ledger, options=EngineOptions(
            max_rows=1, tick_tokens=max(2, context), n_blocks=2 * -(-context // block_size), speculate="off"))
        self.messages: list[dict[str, str]] = []
        """All turns so far, those that no longer fit the context included."""
        self.last: Generation | None = None
        """The last answer, with its figures."""
        self._n_dropped = 0
        self.reset()

    def reset(self) -> None:
        """Forget all turns; the instruction stays."""
        self.messages = [] if self._system is None else [{"role": "system", "content": self._system}]
        self._n_dropped = 0

    def reply(self, text: str) -> Iterator[str]:
        """The answer to ``text`` in pieces. Afterwards both belong to the conversation; not so when this is given up
        half-way.

        When turns do not fit the model's context together with the longest answer, the oldest are left out, which is
        said. Raises ``ConfigError`` for a text that is blank or does not fit alone.
        """
        if not text.strip():
            raise ConfigError("say something: the text is empty")
        asked = [*self.messages, {"role": "user", "content": text}]
        prompt_ids, self._n_dropped = self._fitting(asked)
        room = self._model.config.context_length + 1 - len(prompt_ids)  # the last token is not read
        settings = dataclasses.replace(self.settings, max_tokens=min(self.settings.max_tokens, room))
        request_id = self._engine.submit(Request(prompt=prompt_ids, settings=settings))
        answer: Generation | None = None
        try:
            while not self._engine.idle:
                for event in self._engine.step():
                    if isinstance(event, Failure):
                        raise event.error
                    if isinstance(event, TextPiece) and event.text:
                        yield event.text
                    elif isinstance(event, Generation):
                        answer = event
        finally:
            if answer is None:
                self._engine.cancel(request_id)
                self._engine.run_until_idle()
        assert answer is not None
        self.last = answer
        self.messages = [*asked, {"role": "assistant", "content": answer.text.strip()}]

    @property
    def cut(self) -> str | None:
        """Why the last answer ends where it does, if not by itself."""
        if self.last is None or self.last.finish_reason != "length":
            return None
        n = len(self.last.token_ids)
        return (f"the answer was cut after {n:,} tokens, the most it may have" if n == self.settings.max_tokens else
                f"the answer was cut after {n:,} tokens: the model's context is full")

    def _fitting(self, messages: Sequence[dict[str, str]]) -> tuple[list[int], int]:
        """The prompt of as many of the last turns as fit, and how many were left out."""
        head = [message for message in messages[:1] if message["role"] == "system"]
        turns, longest = messages[len(head) :], self._model.config.context_length
        dropped = min(self._n_dropped, len(turns) - 1)
        while True:
            ids = encode_chat(self._model.tokenizer, [*head, *turns[dropped:]], reply=True)
            # The last token that is written is not read.
            if len(ids) + min(self.settings.max_tokens, longest // 2) <= longest + 1:
                break
            if dropped == len(turns) - 1:
                if len(ids) <= longest:
                    break
                raise ConfigError(f"the text has {len(ids):,} tokens with its marks, the model reads {longest:,}; "
                                  "shorten it")
            dropped = min(dropped + 2, len(turns) - 1)  # a question and its answer
        if dropped > self._n_dropped:
            say(f"the conversation is longer than the model's context of {longest:,} tokens: leaving out the oldest "
                f"{dropped} of {len(turns)} turns")
        return ids, dropped

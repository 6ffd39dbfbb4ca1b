"""A model with its tokenizer, ready to write and to score text."""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from tickwise.core.config import closest
from tickwise.core.console import say
from tickwise.core.errors import ConfigError
from tickwise.engine.generation import Answer, Generation, TextPiece, all_samples, generate_batch, generate_events
from tickwise.engine.requests import encode_source
from tickwise.engine.settings import GenerationSettings
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.models.encoder_decoder import EncoderDecoder

if TYPE_CHECKING:
    from tickwise.engine.work import TickListener
    from tickwise.tokenizers.tokenizer import Tokenizer

_NEUTRAL = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0}


@dataclass(frozen=True)
class Score:
    """How well a model predicts a text."""

    nats: float
    """Negative log-likelihood of the scored tokens, in total."""
    tokens: int
    """Tokens that were scored."""
    token_ids: tuple[int, ...]
    """The scored tokens."""
    token_log_probabilities: tuple[float, ...]
    """Natural logarithm of each scored token's probability, in order."""
    n_bytes: int
    """UTF-8 bytes of the text that the scored tokens stand for."""

    @property
    def perplexity(self) -> float:
        """``exp`` of the mean loss per token; infinite when that overflows."""
        mean = self.nats / self.tokens
        return math.exp(mean) if mean < 700 else math.inf

    @property
    def bits_per_byte(self) -> float:
        """Loss in bits per byte of text: comparable between tokenizers."""
        return self.nats / math.log(2) / self.n_bytes


class LanguageModel:
    """A decoder and its tokenizer. ``load`` makes one from a model directory.

    >>> model = tickwise.load("runs/shakespeare")            # doctest: +SKIP
    >>> model.generate("To be", max_tokens=5, seed=1).text   # doctest: +SKIP
    ', or not to be'
    """

    def __init__(self, module: Decoder, tokenizer: "Tokenizer", path: Path | None = None) -> None:
        """``path`` is the model directory that it came from, if it came from one."""
        self.module = module.eval()
        self.tokenizer = tokenizer
        self.path = path
        self.ledger: TickListener | None = None
        """Who is told about the ticks of ``generate``, ``stream`` and ``events``."""
        self.draft: LanguageModel | None = None
        """A smaller model with the same tokenizer, whose guesses ``speculate="draft"`` checks."""

    @property
    def config(self) -> DecoderConfig:
        """Shape and options of the model."""
        return self.module.config

    @property
    def has_source(self) -> bool:
        """Whether a prompt is the source of what it writes, as for an encoder–decoder, not its beginning."""
        return isinstance(self.module, EncoderDecoder)

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.module.parameters()).dtype

    def events(self, prompt: str, settings: GenerationSettings) -> Iterator[TextPiece | Generation]:
        """Pieces of text of all samples as they are written, and each ``Generation`` when it is done.

        At temperature 0 all ``n`` samples are equal, and only sample 0 appears here.
        """
        _say_what_has_no_effect(settings)
        return generate_events(
            self.module, self.tokenizer, prompt, settings, ledger=self.ledger, draft=self._draft_module(settings))

    def generate_batch(self, prompts: Iterable[str], **settings: Any) -> Iterator[Answer]:
        """Continue many prompts together, several times as fast as one by one, with the same texts.

        Yields each prompt's ``Answer`` as soon as it is whole, in any order. A prompt that cannot be served has an
        ``error`` in place of samples. Raises ``ConfigError`` for settings that cannot be.

        >>> for answer in model.generate_batch(["Once", "There"], max_tokens=20, seed=7):  # doctest: +SKIP
        ...     print(answer.index, answer.text)
        """
        asked = generation_settings(settings)
        _say_what_has_no_effect(asked)
        return generate_batch(
            self.module, self.tokenizer, prompts, asked, ledger=self.ledger, draft=self._draft_module(asked))

    def _draft_module(self, settings: GenerationSettings) -> Decoder | None:
        if settings.speculate != "draft":
            return None
        if self.draft is None:
            raise ConfigError(
                "speculate: 'draft' needs a draft model; set model.draft to a smaller one with the same tokenizer")
        if self.draft.tokenizer.fingerprint != self.tokenizer.fingerprint:
            raise ConfigError("speculate: the draft model has another tokenizer; its guesses would mean other text")
        return self.draft.module

    def generate(self, prompt: str, **settings: Any) -> Generation | list[Generation]:
        """Continue ``prompt``; the keywords are those of ``GenerationSettings``.

        Returns one ``Generation``, or a list of ``n`` of them when ``n`` is above 1. Raises ``ConfigError``
        for settings that cannot be.

        >>> model.generate("Once", max_tokens=20, temperature=0.8, top_p=0.9, seed=7)     # doctest: +SKIP
        >>> [g.text for g in model.generate("Once", n=3, stop=["\\n"])]                    # doctest: +SKIP
        """
        asked = generation_settings(settings)
        done = [event for event in self.events(prompt, asked) if isinstance(event, Generation)]
        samples = all_samples(done, asked)
        return samples[0] if asked.n == 1 else samples

    def stream(self, prompt: str, **settings: Any) -> Iterator[str]:
        """Continue ``prompt``, yielding text as soon as it is certain not to be part of a stop string.

        >>> for text in model.stream("Once upon a time", max_tokens=50):                   # doctest: +SKIP
        ...     print(text, end="", flush=True)
        """
        asked = generation_settings(settings)
        if asked.n != 1:
            raise ConfigError(f"n: {asked.n} samples cannot be streamed as one text; use generate")
        events = self.events(prompt, asked)
        return (event.text for event in events if isinstance(event, TextPiece))

    def score(self, text: str, source: str | None = None) -> Score:
        """Log-probability of every token of ``text``.

        An encoder–decoder scores it as the target of ``source``, with its end mark; other models take no source.

        The text is read as the beginning of a document: after the tokenizer's beginning-of-text token, else
        its end-of-text token. Without either, its first token has no context and is not scored. A text
        longer than the context is scored in windows that overlap by half. Raises ``ConfigError`` when there
        is nothing to score.

        >>> model.score("The cat sat.").bits_per_byte                                       # doctest: +SKIP
        """
        if isinstance(self.module, EncoderDecoder):
            return self._target_score(self.module, text, source)
        if source is not None:
            raise ConfigError("source: only an encoder–decoder has one; put it at the beginning of the text")
        ids = self.tokenizer.encode(text)
        first = self.tokenizer.bos_id if self.tokenizer.bos_id is not None else self.tokenizer.eos_id
        n_bytes = len(text.encode("utf-8"))
        if first is not None and (not ids or ids[0] != first):
            ids = [first, *ids]
        elif first is None and ids:
            n_bytes -= len(self.tokenizer.decode(ids[:1]).encode("utf-8"))
        if len(ids) < 2:
            raise ConfigError("the text has no token to score; give a longer one")
        log_probabilities = self._token_log_probabilities(torch.tensor(ids, device=self.device))
        values = log_probabilities.tolist()
        return Score(-math.fsum(values), len(values), tuple(ids[1:]), tuple(values), n_bytes)

    @torch.inference_mode()
    def _target_score(self, module: EncoderDecoder, text: str, source: str | None) -> Score:
        if source is None:
            raise ConfigError("an encoder–decoder scores a text as the target of a source; give source")
        config = module.config
        source_ids = [*encode_source(self.tokenizer, source), config.eos_id]
        ids = [*self.tokenizer.between_marks(self.tokenizer.encode_plain([text])[0]), config.eos_id]
        for name, length, longest in (("source", len(source_ids), config.source_length),
                                      ("text", len(ids), config.context_length)):
            if length > longest:
                raise ConfigError(f"the {name} has {length} tokens with its end mark and the model takes {longest}; "
                                  "shorten it")
        source_1S, target_1T = (torch.tensor([side], device=self.device)
                                for side in (source_ids, [config.start_id, *ids[:-1]]))
        logits_TV = module(source_1S, None, target_1T)[0].float()
        values = (-F.cross_entropy(logits_TV, torch.tensor(ids, device=self.device), reduction="none")).tolist()
        return Score(-math.fsum(values), len(values), tuple(ids), tuple(values), len(text.encode("utf-8")))

    @torch.inference_mode()
    def _token_log_probabilities(self, ids_T: torch.Tensor) -> torch.Tensor:
        """Natural log-probabilities of ``ids_T[1:]`` given what is before them, float32."""
        context = self.config.context_length
        stride = max(1, context // 2)
        pieces = []
        scored, start = 0, 0
        while scored < len(ids_T) - 1:
            stop = min(len(ids_T) - 1, start + context)
            hidden_1TC = self.module.hidden_states(ids_T[None, start:stop])
            logits_TV = self.module.logits(hidden_1TC[:, scored - start :])[0].float()
            pieces.append(-F.cross_entropy(logits_TV, ids_T[scored + 1 : stop + 1], reduction="none"))
            scored, start = stop, start + stride
        return torch.cat(pieces)


def _say_what_has_no_effect(settings: GenerationSettings) -> None:
    greedy = settings.temperature == 0 and settings.beam_width == 1
    if greedy and settings.n > 1:
        say(f"temperature 0 makes all {settings.n} samples equal: computing one")
    idle = [name for name, neutral in _NEUTRAL.items() if getattr(settings, name) != neutral]
    if idle and (greedy or settings.beam_width > 1):
        what = "temperature 0 always takes the most likely token" if greedy else "a beam search draws nothing"
        say(f"{what}: {', '.join(idle)} without effect")


def generation_settings(settings: dict[str, Any]) -> GenerationSettings:
    """Keyword arguments as checked settings; ``ConfigError`` for an unknown one."""
    known = [f.name for f in dataclasses.fields(GenerationSettings)]
    for name in settings:
        if name not in known:
            raise ConfigError(f"generate: no setting '{name}'{closest(name, known)}")
    return GenerationSettings(**settings)


def load(path: str | Path, device: str = "auto", dtype: str | None = None) -> LanguageModel:
    """The model in a model directory or a run directory (then its best or newest model).

    ``dtype`` is ``"fp32"`` (also the default) or ``"bf16"``. Raises ``CheckpointError`` in one line for a
    directory that is missing or damaged.

    >>> import tickwise
    >>> model = tickwise.load("runs/shakespeare", dtype="bf16")                           # doctest: +SKIP
    """
    from tickwise.interop.directory import load_model, resolve_model_path

    folder = resolve_model_path(Path(path))
    module, tokenizer = load_model(folder, device=device, dtype=dtype or "fp32")
    return LanguageModel(module, tokenizer, folder)

"""The words that a text goes on with, by any language model that continues texts, and how often they are right."""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tickwise.core.errors import ConfigError, DataError, NumericsError
from tickwise.engine.language_model import load
from tickwise.engine.options import EngineOptions
from tickwise.engine.requests import encode_prompt
from tickwise.engine.runner import RowInput
from tickwise.engine.serving import runner_for
from tickwise.evaluation.classification import Score
from tickwise.evaluation.perplexity import refuse_sources
from tickwise.evaluation.ranking import reciprocal_rank
from tickwise.evaluation.results import mean_score, results_json, share_score, table
from tickwise.tasks.word_search import LETTER, MOST_TOKENS, WORD, FoundWord, SpelledTokens, Start, likeliest_words
from tickwise.text.segment import HAN_PATTERN, HAN_RUN, cut_chinese
from tickwise.tokenizers.tokenizer import Tokenizer

_WIDTH = 8
_MOST_READS = 100
_RANKED = 10
_MOST_CHARACTERS = 8_000
"""Of the text before a word that is scored."""
_ENDS_WITH_LETTER = re.compile(rf"{LETTER}\Z")
_BETWEEN_BLANKS = re.compile(r"\S+")
_WORDS = re.compile(rf"(?<=\s){WORD}|{HAN_PATTERN}+")


@dataclass(frozen=True)
class NextWordScores:
    """How high the word that really follows stands among those that a model expects, over ``n`` places of a text."""

    task: str
    model: str
    n: int
    n_words: int
    """Words of the text that could be asked for; ``n`` of them were drawn."""
    top_1: Score
    """Share of the places at which the likeliest word is right."""
    top_5: Score
    """Share at which it is among the five likeliest."""
    mrr: Score
    """Mean of 1 / its place among the ten likeliest, 0 where it is not among them (mean reciprocal rank)."""
    seed: int
    longest: int
    """Characters of the text before a word that are read, at most."""

    @property
    def metrics(self) -> dict[str, Score]:
        return {"top_1_accuracy": self.top_1, "top_5_accuracy": self.top_5, f"mrr@{_RANKED}": self.mrr}

    def to_json(self) -> dict[str, Any]:
        """lm-evaluation-harness's result layout, with ``intervals`` besides."""
        return results_json({self.task: self.metrics}, {self.task: self.n}, model=self.model, seed=self.seed,
                            output_type="ranking", original={self.task: self.n_words},
                            settings={"characters_before": self.longest})

    def __str__(self) -> str:
        return table(self.metrics, "words", self.n)


class Place(NamedTuple):
    """A word of a text, from character ``start`` on."""

    start: int
    word: str


class NextWords:
    """Names the words that texts go on with. Any language model will do that continues texts: n-grams, factors,
    recurrent models and decoders, whatever their tokens are (``word_search`` says how words are made of them).

    >>> NextWords.load("out/wikitext").predict("the cat sat on the")[0].word    # doctest: +SKIP
    """

    def __init__(self, module: nn.Module, tokenizer: Tokenizer, path: Path | None = None) -> None:
        """Raises ``ConfigError`` for a model that the engine does not continue texts with."""
        self.module, self.tokenizer, self.path = module.eval(), tokenizer, path
        block_size = EngineOptions.block_size
        longest: int = module.config.context_length  # type: ignore[union-attr, assignment]
        lane = -(-longest // block_size)
        self._n_own = min(lane, -(-MOST_TOKENS // block_size) + 1)
        self._runner = runner_for(module, EngineOptions(
            max_rows=1 + _WIDTH, block_size=block_size, n_blocks=lane + _WIDTH * self._n_own))
        self._lane = -(-longest // self._runner.block_size)
        self._n_own = min(self._lane, self._n_own)
        self._room = max(1, min(MOST_TOKENS, longest // 2))
        self._spelled = SpelledTokens(tokenizer, self._runner.vocab_size)

    @classmethod
    def load(cls, path: str | Path, device: str = "auto") -> "NextWords":
        """Of a model or run directory; ``CheckpointError`` when it is damaged or no language model, ``ConfigError`` for
        one that needs a source."""
        model = load(path, device)
        refuse_sources(model)
        return cls(model.module, model.tokenizer, model.path)

    def predict(self, text: str, n: int = 5) -> list[FoundWord]:
        """The ``n`` likeliest words behind ``text``, best first, each with the probability that the text goes on with
        it. They add up to less than 1: other words, punctuation and the end of the text have the rest.

        Words are runs of letters and digits; of text that is split by spaces already, what stands between them; of
        Chinese, the words of a vocabulary of words, else single characters. A text that ends with a letter or a blank
        goes on with a new word. What does not fit into the model's context before it is not read.
        """
        if n < 1:
            raise ConfigError(f"--n: must be at least 1, got {n}")
        kept = text.rstrip(" \t")
        start: Start = "blank" if kept and (kept != text or _ENDS_WITH_LETTER.search(kept)) else "anything"
        ids = encode_prompt(self.tokenizer, kept)[-max(1, self._runner.context_length - self._room) :]
        return likeliest_words(self._spelled, self._reader(ids), n, start=start, width=_WIDTH, most_tokens=self._room,
                               most_reads=_MOST_READS)

    def _reader(self, ids: Sequence[int]) -> Callable[[Sequence[tuple[int, ...]]], Tensor]:
        """Reads beginnings of words behind the tokens ``ids``, which are read once."""
        size, runner = self._runner.block_size, self._runner
        lane = list(range(self._lane))
        n_shared = len(ids) // size
        behind_text = self._log_probabilities([RowInput(ids, 0, lane, 1)])

        def read(beginnings: Sequence[tuple[int, ...]]) -> Tensor:
            if not beginnings[0]:
                return behind_text
            rows, copies = [], []
            for row, tokens in enumerate(beginnings):
                own = [self._lane + row * self._n_own + block for block in range(self._n_own)]
                if len(ids) % size:
                    copies.append((lane[n_shared], own[0]))
                rows.append(RowInput(tokens, len(ids), [*lane[:n_shared], *own], 1))
            runner.copy_blocks(copies)
            return self._log_probabilities(rows)

        return read

    @torch.inference_mode()
    def _log_probabilities(self, rows: list[RowInput]) -> Tensor:
        """(R, V), float32 on the CPU."""
        logits_RV = self._runner.run(rows)
        assert logits_RV is not None
        logits_RV = logits_RV.float().cpu()
        if bool(logits_RV.isnan().any()):
            raise NumericsError("the model's logits are not finite; its weights are damaged, train it again")
        return logits_RV.log_softmax(-1)

    # ---------------------------------------------------------------- scores

    def places(self, text: str) -> list[Place]:
        """The words of ``text`` that can be asked for: behind a blank, where ``predict`` begins a word; not the
        first, before which nothing stands."""
        if self._spelled.are_between_blanks:
            return [Place(match.start(), match[0]) for match in _BETWEEN_BLANKS.finditer(text) if match.start()]
        found: list[Place] = []
        for match in _WORDS.finditer(text):
            if not HAN_RUN.match(match[0]):
                found.append(Place(match.start(), self._normalised(match[0])))
                continue
            start = match.start()
            for word in cut_chinese(match[0]) if self._spelled.are_words else match[0]:
                found.append(Place(start, word))
                start += len(word)
        return [place for place in found if place.start]

    def _normalised(self, word: str) -> str:
        """As the tokenizer reads it (in lower case, say)."""
        normaliser = self.tokenizer.backend.normalizer
        return word if normaliser is None else normaliser.normalize_str(word).strip(" ▁")

    def evaluate(self, text: str, task: str = "next-word", *, most: int | None = 500, seed: int = 0,
                 on_scored: Callable[[int], None] = lambda n: None) -> NextWordScores:
        """How often the words of held-out ``text`` are those that are predicted, each given what stands before it: the
        last 8,000 characters, or eight for each token of the model's context where these are fewer. Of more than
        ``most`` words so many are drawn by ``seed``; intervals are those of resampled words.

        Raises ``ConfigError`` for ``most`` below 1, ``DataError`` for a text without a word behind a blank, and for
        characters that the tokenizer cannot read.
        """
        if most is not None and most < 1:
            raise ConfigError(f"--most: must be at least 1, got {most}")
        places = self.places(text)
        if not places:
            raise DataError("no word stands behind another one in the text; give a longer one")
        n_words = len(places)
        if most is not None and n_words > most:
            places = sorted(random.Random(seed).sample(places, most))
        longest = min(_MOST_CHARACTERS, 8 * self._runner.context_length)
        rankings: list[list[str]] = []
        for place in places:
            before = text[max(0, place.start - longest) : place.start]
            if place.start > longest and " " in before.rstrip(" "):
                before = before[before.index(" ") :]  # not from the middle of a word
            rankings.append([found.word for found in self.predict(before, _RANKED)])
            on_scored(1)
        right = [[place.word] for place in places]
        pairs = list(zip(rankings, right, strict=True))
        top_1, top_5 = (share_score([own[0] in ranking[:k] for ranking, own in pairs], seed=seed) for k in (1, 5))
        mrr = mean_score([reciprocal_rank(ranking, own) for ranking, own in pairs], seed=seed)
        name = str(self.path or type(self.module).__name__)
        return NextWordScores(task, name, len(places), n_words, top_1, top_5, mrr, seed,
                              longest)

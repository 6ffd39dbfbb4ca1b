"""Two language models on the same text: by how much the one predicts it better, and whether that is more than chance.

Both give the text a probability as a whole, so their nats can be taken from each other whatever their tokens are, as
long as neither hides words behind ``<unk>`` or reads the text changed, as in lower case: then only models of the same
vocabulary compare. Resampled are runs of text, each with what both models made of it (paired bootstrap; Efron 1979,
blocks: Künsch 1989).
"""

import math
import re
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy
from numpy.typing import NDArray

from tickwise.core.errors import ConfigError
from tickwise.engine.language_model import LanguageModel
from tickwise.evaluation.bootstrap import interval, resample_sums, two_sided
from tickwise.evaluation.corpus import Corpus
from tickwise.evaluation.perplexity import Metric, PerplexityResult, loss_blocks, n_unknown, with_start_token

_FINE = 16
"""Tokens between the places of the text at which both models' nats are known exactly."""
_Floats = NDArray[numpy.float64]


@dataclass(frozen=True)
class ModelComparison:
    """Of ``model`` against ``against``: below 0, and ratios below 1, where ``model`` predicts the text better."""

    model: str
    against: str
    nats_per_word: Metric
    """Difference of the losses."""
    bits_per_byte: Metric
    """Likewise."""
    word_perplexity_ratio: Metric
    p: float | None
    """Two-sided, that there is no difference; None for a text too short to resample."""
    blocks: int
    samples: int
    same_tokenizer: bool

    def to_json(self) -> dict[str, Any]:
        """Values with their intervals; ``None`` where there is none."""
        shown: dict[str, Any] = {"model": self.model, "against": self.against}
        for name in ("nats_per_word", "bits_per_byte", "word_perplexity_ratio"):
            metric: Metric = getattr(self, name)
            known = metric.interval
            value = metric.value if math.isfinite(metric.value) else None
            shown[name] = {"value": value, "interval": [known.low, known.high] if known else None,
                           "stderr": known.stderr if known else None}
        return shown | {"p": self.p, "blocks": self.blocks, "bootstrap_iters": self.samples,
                        "same_tokenizer": self.same_tokenizer}


def check_comparable(corpora: tuple[Corpus, Corpus], models: tuple[LanguageModel, LanguageModel]) -> None:
    """``ConfigError`` where one of the two has it easier: other tokens, some of which hide words, or stand for another
    text, which a tokenizer that lower-cases or normalises gives back. Each has its tokens of the same text."""
    if models[0].tokenizer.fingerprint == models[1].tokenizer.fingerprint:
        return
    names = [str(model.path or type(model.module).__name__) for model in models]
    for corpus, model, name in zip(corpora, models, names, strict=True):
        if unknown := n_unknown(model, with_start_token(corpus, model)[1:]):
            raise ConfigError(
                f"--against: the models have different vocabularies, and {unknown:,} tokens of this text are "
                f"<unk> for {name}, which hides what word it was; compare models of one vocabulary, or of "
                "characters or bytes")
    read = [_text_read(corpus, model) for corpus, model in zip(corpora, models, strict=True)]
    for one, other in zip_longest(*(text.split("\n") for text in read), fillvalue=""):
        if one != other:
            at = max(0, next(i for i, (a, b) in enumerate(zip_longest(one, other)) if a != b) - 10)
            raise ConfigError(
                f"--against: the models do not read the same text: {one[at : at + 20]!r} of {names[0]} is "
                f"{other[at : at + 20]!r} of {names[1]}, and a text that is changed (lower-cased, normalised) may "
                "be easier to predict; compare models whose tokenizers keep the text, or of one vocabulary")


def _text_read(corpus: Corpus, model: LanguageModel) -> str:
    """What the tokens of the text stand for, every run of white space as one space or line end."""
    text = model.tokenizer.decode(corpus.tokens.tolist()).strip()
    return re.sub(r"\s+", lambda run: "\n" if "\n" in run[0] else " ", text)


def compare_models(first: PerplexityResult, second: PerplexityResult, models: tuple[LanguageModel, LanguageModel], *,
                   samples: int = 1000, seed: int = 0, checked: bool = False) -> ModelComparison:
    """``second`` is what the first is compared against; both are of the same text and ``models``, which made them.
    ``ConfigError`` where their tokens do not compare, unless that was ``checked``."""
    if not checked:
        check_comparable((first.corpus, second.corpus), models)
    courses = [_course(result, model) for result, model in zip((first, second), models, strict=True)]
    # A first token that one of them leaves unscored is left out of both.
    begin = max(course[0, 2] for course in courses)
    # Pieces end where the model of the longer tokens has its places, whichever of the two it is; each is as long as the
    # longer of their blocks, as a share of the text.
    coarse = min(courses, key=lambda course: (len(course), course[:, 2].sum()))
    longest = max(result.block_tokens / len(result.losses) for result in (first, second))
    places = coarse[:: max(1, round(longest * (len(coarse) - 1))), 2]
    edges = numpy.unique(numpy.concatenate([[begin], places[places > begin], coarse[-1:, 2]]))
    nats = [numpy.diff(numpy.interp(edges, course[:, 2], course[:, 0])) for course in courses]
    words = numpy.diff(numpy.interp(edges, coarse[:, 2], coarse[:, 1]))
    blocks = numpy.stack([nats[0] - nats[1], words, numpy.diff(edges)], axis=1)
    totals = _figures(blocks.sum(0, keepdims=True))
    spread = _figures(resample_sums(blocks, samples, seed)) if len(blocks) > 1 else {}
    found = {name: Metric(float(value[0]), interval(spread[name]) if spread and numpy.isfinite(spread[name]).all()
                          else None) for name, value in totals.items()}
    return ModelComparison(
        first.model, second.model, **found, p=two_sided(spread["nats_per_word"]) if spread else None,
        blocks=len(blocks), samples=samples,
        same_tokenizer=models[0].tokenizer.fingerprint == models[1].tokenizer.fingerprint)


def _course(result: PerplexityResult, model: LanguageModel) -> _Floats:
    """(n, 3): nats and words up to a place of the text, and the place in bytes, at every ``_FINE``-th token. White
    space at a token's border may count to either side of it."""
    corpus = result.corpus
    blocks = loss_blocks(result.losses, corpus, model, _FINE, result.word_rule)[:, [0, 2, 3]]
    unscored = model.tokenizer.decode(corpus.tokens[: len(corpus.tokens) - len(result.losses)].tolist())
    start = numpy.array([[0.0, 0.0, len(unscored.encode("utf-8"))]])
    return numpy.concatenate([start, start + numpy.cumsum(blocks, axis=0)])


def _figures(sums: _Floats) -> dict[str, _Floats]:
    nats, words, n_bytes = sums.T
    with numpy.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return {"nats_per_word": nats / words, "bits_per_byte": nats / n_bytes / math.log(2),
                "word_perplexity_ratio": numpy.exp(nats / words)}

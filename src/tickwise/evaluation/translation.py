"""BLEU and chrF of translations, by sacrebleu, with the signatures that make them comparable.

Sources: Papineni et al. 2002 (BLEU), Popović 2015 (chrF), Post 2018 (sacreBLEU).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tickwise.core.errors import ConfigError, DataError
from tickwise.evaluation.bootstrap import Interval
from tickwise.evaluation.classification import Score
from tickwise.evaluation.results import results_json
from tickwise.text.segment import has_chinese

Tokenize = Literal["auto", "13a", "intl", "zh", "char", "none"]


@dataclass(frozen=True)
class TranslationScores:
    """Scores between 0 and 100; ``signatures`` say in sacrebleu's words how each was computed. Intervals are over
    resampled texts (None without resampling, and where all resamples score 0)."""

    bleu: Score
    chrf: Score
    signatures: dict[str, str]
    brevity_penalty: float
    """BLEU's factor for translations that are shorter than the references, in [0, 1]."""
    n: int
    """Texts."""

    def to_json(self, task: str, model: str = "") -> dict[str, Any]:
        """In lm-evaluation-harness's layout, with the signatures beside it."""
        shown = results_json({task: {"bleu": self.bleu, "chrf": self.chrf}}, {task: self.n}, model=model)
        return shown | {"signatures": self.signatures, "brevity_penalty": self.brevity_penalty}


def need_sacrebleu() -> None:
    """``ConfigError`` where the library is not installed."""
    try:
        import sacrebleu  # noqa: F401
    except ImportError:
        raise ConfigError("BLEU and chrF need the sacrebleu library: pip install 'tickwise[eval]'") from None


def has_sacrebleu() -> bool:
    """Whether the library is installed."""
    try:
        need_sacrebleu()
    except ConfigError:
        return False
    return True


def are_sentences(references: Sequence[str]) -> bool:
    """Whether most references have the four words that BLEU looks for, or four characters where they are Chinese; of
    labels and names it says nothing."""
    long = sum(len(text) >= 4 if has_chinese(text) else len(text.split()) >= 4 for text in references)
    return 2 * long > len(references)


def tokenization_for(references: Sequence[str]) -> Tokenize:
    """sacrebleu's tokenization of that language: ``zh`` when most references have Chinese characters, else ``13a``."""
    chinese = sum(map(has_chinese, references))
    return "zh" if 2 * chinese > len(references) else "13a"


def translation_scores(translations: Sequence[str], references: Sequence[Sequence[str]], *, lowercase: bool = False,
                       tokenize: Tokenize = "auto", samples: int = 1000) -> TranslationScores:
    """Score ``translations`` against one or several sequences of ``references``, text by text.

    lowercase: compare without regard to case, BLEU and chrF alike. tokenize: how BLEU splits texts into words; ``auto``
    goes by the references. samples: resamples behind the intervals, 0 for none.

    Raises ``DataError`` for sequences of different lengths, no text, or an empty reference; ``ConfigError`` without
    the sacrebleu library.
    """
    need_sacrebleu()
    from sacrebleu.metrics import BLEU, CHRF

    if not translations:
        raise DataError("BLEU: there are no translations to score")
    for stream in references:
        if len(stream) != len(translations):
            raise DataError(f"BLEU: {len(translations):,} translations but {len(stream):,} references; each "
                            "translation needs one")
        empty = next((i for i, text in enumerate(stream) if not text.strip()), None)
        if empty is not None:
            raise DataError(f"BLEU: reference {empty + 1:,} is empty; leave that text out")
    if tokenize == "auto":
        tokenize = tokenization_for(references[0])
    bleu, chrf = BLEU(lowercase=lowercase, tokenize=tokenize, force=True), CHRF(lowercase=lowercase)
    n_bootstrap = samples if samples and len(translations) > 1 else 1
    scores = [metric.corpus_score(list(translations), [list(stream) for stream in references], n_bootstrap=n_bootstrap)
              for metric in (bleu, chrf)]
    signatures = [str(metric.get_signature()) for metric in (bleu, chrf)]
    return TranslationScores(_score(scores[0]), _score(scores[1]), dict(zip(("bleu", "chrf"), signatures, strict=True)),
                             float(scores[0].bp), len(translations))


def _score(score: Any) -> Score:
    said = json.loads(score.format(width=6, is_json=True, signature="nrefs:1"))
    spread = None
    if "confidence_mean" in said:
        mean, half = said["confidence_mean"], said["confidence_var"]
        spread = Interval(mean - half, mean + half, half / 1.96)
    return Score(float(score.score), spread)


def table(scores: TranslationScores) -> str:
    """The scores for people, each with its signature."""
    lines = []
    for name, score, signature in (("BLEU", scores.bleu, scores.signatures["bleu"]),
                                   ("chrF2", scores.chrf, scores.signatures["chrf"])):
        between = f"  (95 % interval {score.interval.low:.2f} to {score.interval.high:.2f})" if score.interval else ""
        lines.append(f"{name:<6} {score.value:6.2f}{between}  {signature}")
    return "\n".join([*lines, f"{scores.n:,} texts; brevity penalty {scores.brevity_penalty:.3f}"])

"""Answering questions with spans of a passage: fine-tune an encoder, load it, answer, evaluate."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tickwise.core.console import say
from tickwise.core.errors import CheckpointError, DataError
from tickwise.data.cloze import cloze_questions
from tickwise.data.span_windows import LONG_PASSAGE, N_SEGMENTS, SpanWindows, shown_progress
from tickwise.data.spans import SpanQuestion, fingerprint, read_span_questions
from tickwise.evaluation.answers import AnswerScores, Rule, answer_scores, f1
from tickwise.evaluation.span_baseline import best_sentence, fit_window
from tickwise.interop.directory import load_module, read_run, resolve_model_path, save_model
from tickwise.interop.warm_start import headed_encoder
from tickwise.models.encoder_heads import SpanReader, SpanReaderConfig
from tickwise.tasks.answer_options import AnswerOptions
from tickwise.tasks.fine_tune_options import FineTuneOptions
from tickwise.text.segment import mostly_chinese
from tickwise.tokenizers.tokenizer import END_OF_TEXT, Tokenizer
from tickwise.training.config import AdaptLoopConfig
from tickwise.training.distributed.ranks import is_leader
from tickwise.training.run import TrainResult, check_outputs, train_module
from tickwise.training.span_reading import (
    FoundSpan,
    SpanReading,
    balanced,
    best_threshold,
    find_spans,
    in_blocks,
)

_DEV_SHARE = 0.1
_TOKENS_AT_ONCE = 1 << 18
"""Of windows that exist at the same time."""
_ODDS_SCALE = 4.0
"""Nats of ``Answer.odds`` that bring ``Answer.support`` from a half to 0.73."""


@dataclass(frozen=True, kw_only=True)
class AnswerConfig(AdaptLoopConfig):
    """One fine-tuning of a reader."""

    encoder: Path
    """Model or run directory to start from."""
    train: tuple[str, ...]
    dev: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    tuning: FineTuneOptions = field(default_factory=FineTuneOptions)
    answer: AnswerOptions = field(default_factory=AnswerOptions)


@dataclass(frozen=True)
class Answer:
    """A span of a passage, the characters that it is, and how likely the reader finds just this one (where ``text`` is
    empty, the best of those that it did not give). ``margin``: the logarithm of how much likelier a span of the passage
    is than that it has none; ``odds``: the log-odds that the passage has an answer, wherever it stands; both -inf for a
    passage without a token."""

    text: str
    start: int
    end: int
    probability: float
    margin: float
    odds: float

    @property
    def support(self) -> float:
        """How much speaks for an answer in this passage, from 0 to 1, by which answers in several passages are told
        apart: a half where the passage is just as likely to have an answer as none. The margin of the best span
        would not do: it is lower in a passage that has the answer twice."""
        return 1 / (1 + math.exp(min(-self.odds / _ODDS_SCALE, 700.0)))

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {name: value if math.isfinite(value) else None
                                           for name, value in (("margin", self.margin), ("odds", self.odds))}


@dataclass(frozen=True)
class AnswerEvaluation:
    """``answerable``: over the questions that have an answer, each of which the reader must answer. ``overall``: over
    all of them, "none" being right where there is none (None where every question has one). ``baselines``: by name,
    programs that answer the answerable ones by the words that passage and question share."""

    answerable: AnswerScores
    overall: AnswerScores | None
    baselines: dict[str, AnswerScores]
    rule: Rule

    def to_json(self) -> dict[str, Any]:
        def plain(scores: AnswerScores) -> dict[str, Any]:
            return {"exact_match": scores.exact_match.value, "f1": scores.f1.value, "n": scores.n}

        return {"answerable": plain(self.answerable), "overall": plain(self.overall) if self.overall else None,
                "baselines": {name: plain(scores) for name, scores in self.baselines.items()}, "rule": self.rule}


class Reader:
    """A trained span reader on text.

    >>> reader = Reader.load("out/reader")                                        # doctest: +SKIP
    >>> reader.answer("Who wrote it?", "It was written by Ada Lovelace.").text    # doctest: +SKIP
    """

    neutral = 0.5
    """The ``support`` that an answer needs in a passage that is just likely enough to be about the question: that of
    one that is as likely to have an answer as none."""

    def __init__(self, module: SpanReader, tokenizer: Tokenizer) -> None:
        if tokenizer.vocab_size > module.config.vocab_size:
            raise CheckpointError(f"the tokenizer has {tokenizer.vocab_size:,} tokens, the model "
                                  f"{module.config.vocab_size:,}; they do not belong together")
        self.module, self.tokenizer = module.eval(), tokenizer
        self.windows = SpanWindows(tokenizer, module.config.context_length, module.config.stride)
        self.device = next(module.parameters()).device
        self._told_of_cuts = False

    @classmethod
    def load(cls, path: str | Path, device: str = "auto") -> "Reader":
        """Of a model or run directory; ``CheckpointError`` when it is missing, damaged or no reader."""
        folder = resolve_model_path(Path(path))
        module = load_module(folder, device=device)
        if not isinstance(module, SpanReader):
            raise CheckpointError(f"{folder}: not a span reader; make one with tickwise adapt ENCODER --task answer "
                                  "--train FILE --out DIRECTORY")
        return cls(module, Tokenizer.load(folder))

    def find(self, questions: Sequence[SpanQuestion],
             advance: Callable[[float], None] = lambda n_windows: None) -> list[FoundSpan]:
        """The best span for each question; ``advance`` is told how many windows were read. That of long questions the
        end alone is read is said once."""
        self.windows.n_cut = 0
        blocks = in_blocks(self.windows.each(questions), _TOKENS_AT_ONCE)
        found = find_spans(self.module, blocks, len(questions), self.windows.pad, self.device, advance)
        if not self._told_of_cuts:
            self._told_of_cuts = _say_cuts(self.windows)
        return found

    def answer_all(self, pairs: Sequence[tuple[str, str]], *, must_answer: bool = False) -> list[Answer]:
        """An answer to each (question, passage). ``DataError`` for an empty question or passage."""
        for number, pair in enumerate(pairs, start=1):
            _check(*pair, f"number {number}: ")
        questions = [SpanQuestion(str(i), q, p, (), ()) for i, (q, p) in enumerate(pairs)]
        return [self._as_answer(span, passage, must_answer)
                for span, (_, passage) in zip(self.find(questions), pairs, strict=True)]

    def answer(self, question: str, passage: str, *, must_answer: bool = False) -> Answer:
        """The answer that stands in the passage; without ``must_answer`` it may be none. The tokens of a passage are
        kept for the next question about it; of a long one it is shown how far it has been read."""
        _check(question, passage)
        asked = SpanQuestion("0", question, passage, (), ())
        with shown_progress("read", self.windows.count(asked), "windows", len(passage) > LONG_PASSAGE) as advance:
            return self._as_answer(self.find([asked], advance)[0], passage, must_answer)

    def _as_answer(self, span: FoundSpan, passage: str, must_answer: bool) -> Answer:
        margin = self.module.config.null_margin
        if not must_answer and margin is not None and span.margin < -margin:
            return Answer("", 0, 0, span.probability, span.margin, span.odds)
        return Answer(passage[span.start : span.end], span.start, span.end, span.probability, span.margin,
                      span.odds)

    def evaluate(self, questions: Sequence[SpanQuestion], training: Sequence[SpanQuestion] = ()) -> AnswerEvaluation:
        """Exact match and F1, as SQuAD or (for Chinese) CMRC 2018 define them; with ``training`` questions also of
        word-overlap baselines, whose window is fitted on them."""
        rule = rule_for(questions)
        answerable = [i for i, q in enumerate(questions) if q.references]
        if not answerable:
            raise DataError("no question has an answer; there is nothing to compare with")
        found = self.find(questions)
        forced = [self._as_answer(span, q.passage, True).text for span, q in zip(found, questions, strict=True)]
        own = [questions[i] for i in answerable]
        scores = answer_scores([forced[i] for i in answerable], [q.references for q in own], rule)
        overall = None
        if len(answerable) < len(questions):
            free = [self._as_answer(span, q.passage, False).text for span, q in zip(found, questions, strict=True)]
            overall = answer_scores(free, [q.references for q in questions], rule)
        baselines = {}
        if training:
            window = fit_window(training, rule)
            programs = {f"window of {window.length} words": window.answer, "best sentence": best_sentence}
            baselines = {name: answer_scores([program(q) for q in own], [q.references for q in own], rule)
                         for name, program in programs.items()}
        return AnswerEvaluation(scores, overall, baselines, rule)


def _check(question: str, passage: str, where: str = "") -> None:
    """``DataError`` where there is nothing to read."""
    for what, text in (("question", question), ("passage", passage)):
        if not text or text.isspace():
            raise DataError(f"{where}the {what} is empty")


def _say_cuts(maker: SpanWindows) -> bool:
    """Say that questions of the windows that were made were cut, and return whether."""
    if maker.n_cut:
        say(f"{maker.n_cut:,} questions are longer than {maker.longest_question:,} tokens, half of what is read at "
            "once; only their end is read")
    return bool(maker.n_cut)


def rule_for(questions: Sequence[SpanQuestion]) -> Rule:
    """CMRC's rule for mostly Chinese questions, else SQuAD's."""
    return "cmrc" if mostly_chinese(q.text for q in questions) else "squad"


def split_by_passage(questions: Sequence[SpanQuestion], share: float) -> tuple[list[SpanQuestion], list[SpanQuestion]]:
    """(rest, part): the last passages in order make the part, with all of their questions."""
    passages = list(dict.fromkeys(q.passage for q in questions))
    part = set(passages[len(passages) - max(1, round(share * len(passages))) :])
    return [q for q in questions if q.passage not in part], [q for q in questions if q.passage in part]


def without_passages_of(questions: Sequence[SpanQuestion], held: Sequence[SpanQuestion]) -> list[SpanQuestion]:
    """The questions whose passage, white space aside, is none of ``held``'s: a reader that was trained on a passage
    knows it."""
    seen = {"".join(passage.split()) for passage in {q.passage for q in held}}
    return [q for q in questions if "".join(q.passage.split()) not in seen]


@dataclass(frozen=True)
class AnswerResult:
    """What one fine-tuning gave; of several ranks the leading one alone evaluates."""

    trained: TrainResult
    dev: AnswerEvaluation | None
    test: AnswerEvaluation | None


def train_reader(config: AnswerConfig) -> AnswerResult:
    """Fine-tune ``config.encoder`` on questions with passages, keep the model with the best F1 on the development
    part (the last tenth of the passages where none is given), fit on it from when on a question has no answer, and
    evaluate. What is about a passage of the test part is in neither other part, and what is about one of the
    development part is not trained on. Raises a ``UserError`` for data and settings that cannot work."""
    check_outputs(config)
    training = read_span_questions(config.train)
    developing = read_span_questions(config.dev, "validation") if config.dev else []
    testing = read_span_questions(config.test, "test") if config.test else []
    parts = [("test", testing, training), ("test", testing, developing), ("development", developing, training)]
    for name, held, part in parts:
        kept = without_passages_of(part, held)
        if len(kept) < len(part):
            what = "training" if part is training else "development"
            say(f"{len(part) - len(kept):,} {what} questions are about passages of the {name} part; left out")
            part[:] = kept
    if not developing:
        training, developing = split_by_passage(training, _DEV_SHARE)
    training = [q for q in training if q.answers or not q.references]
    if not any(q.answers for q in training):
        raise DataError(f"{', '.join(config.train)}: no question with an answer in its passage is left to train on")
    source = resolve_model_path(config.encoder)
    tokenizer = Tokenizer.load(source)
    window = {} if config.answer.window is None else {"context_length": config.answer.window}
    module = headed_encoder(
        SpanReader, SpanReaderConfig, source, config.seed, fresh=config.tuning.fresh, n_segments=N_SEGMENTS,
        dropout=config.tuning.dropout, longest_answer=config.answer.longest_answer, stride=config.answer.stride,
        **window,
    )
    if config.answer.cloze:
        practised = _practise(config, module, tokenizer)
        if practised.interrupted:
            return AnswerResult(practised, None, None)
        if config.max_seconds is not None:
            config = dataclasses.replace(config, max_seconds=max(1e-3, config.max_seconds - practised.seconds))
        load = load_module(practised.model, device="cpu").state_dict()
        module = SpanReader(module.config)
        module.load_state_dict(load)
    trained = _train(config, module, tokenizer, training, developing, ", ".join(config.train), config.tuning.epochs)
    if trained.interrupted or not is_leader():
        return AnswerResult(trained, None, None)
    reader = _with_null_margin(Reader.load(trained.model, config.device), developing, trained.model)
    dev = reader.evaluate(developing, training) if any(q.references for q in developing) else None
    test = reader.evaluate(testing, training) if testing else None
    return AnswerResult(trained, dev, test)


def _practise(config: AnswerConfig, module: SpanReader, tokenizer: Tokenizer) -> TrainResult:
    """One pass over questions made from plain text, in a run directory of its own; takes at most half of the time."""
    options = config.answer
    texts = [piece for name in options.cloze for piece in _texts(Path(name))]
    made = cloze_questions(texts, options.cloze_questions, passage_words=options.cloze_words, seed=config.seed)
    held = max(1, len(made) // 50)
    say(f"practice: {len(made):,} questions made from {', '.join(options.cloze)}, such as: {made[0].text!r} "
        f"(answer: {made[0].references[0]!r})")
    most = None if config.max_seconds is None else config.max_seconds / 2
    part = dataclasses.replace(config, out=config.out / "practice", max_seconds=most)
    return _train(part, module, tokenizer, made[held:], made[:held], ", ".join(options.cloze), 1.0)


def _texts(path: Path) -> list[str]:
    """The documents of a text file: what stands between blank lines or ``<|endoftext|>`` marks."""
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as problem:
        raise DataError(f"{path}: cannot read it: {problem.strerror or problem}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8; convert it first") from None
    return [piece for document in content.split(END_OF_TEXT) for piece in document.split("\n\n") if piece.strip()]


def _train(config: AnswerConfig, module: SpanReader, tokenizer: Tokenizer, training: Sequence[SpanQuestion],
           developing: Sequence[SpanQuestion], source: str, epochs: float) -> TrainResult:
    maker = SpanWindows(tokenizer, module.config.context_length, module.config.stride)
    windows, development = balanced(maker.make(training), config.seed), maker.make(developing)
    _say_cuts(maker)
    options = config.tuning
    objective = SpanReading(windows, development, developing, pad=maker.pad, batch_size=options.batch_size,
                            seed=config.seed)
    steps = max(1, round(epochs * objective.steps_per_epoch))
    loop = {f.name: getattr(config, f.name) for f in dataclasses.fields(AdaptLoopConfig)} | options.loop_settings()
    if loop["max_steps"] is None:
        loop["max_steps"] = steps
    loop["evaluate_every"] = config.evaluate_every or max(1, min(objective.steps_per_epoch, steps // 8))
    answerable = sum(bool(q.answers) for q in training)
    return train_module(
        AdaptLoopConfig(**loop), module, objective, tokenizer,
        data={"source": source, "fingerprint": fingerprint(training), "questions": len(training)},
        lines=[f"{len(training):,} questions ({answerable:,} with an answer) in {len(windows):,} windows of at most "
               f"{module.config.context_length} tokens; {len(developing):,} questions to choose the model by"],
    )


def _with_null_margin(reader: Reader, developing: Sequence[SpanQuestion], model: Path) -> Reader:
    """The reader with the margin below "none" at which F1 over all development questions is best, saved; the reader
    itself where each of them has an answer."""
    if all(q.references for q in developing):
        return reader
    rule = rule_for(developing)
    found = reader.find(developing)
    margins = np.array([span.margin for span in found])
    answered = np.array([f1(q.passage[s.start : s.end], q.references, rule)
                         for s, q in zip(found, developing, strict=True)])
    threshold, _ = best_threshold(margins, answered, np.array([not q.references for q in developing]))
    module = SpanReader(dataclasses.replace(reader.module.config, null_margin=-threshold))
    module.load_state_dict(reader.module.state_dict(), assign=True)
    save_model(model, module, reader.tokenizer, run=read_run(model), card=_card(module.config))
    return Reader(module.requires_grad_(False), reader.tokenizer)


def _card(config: SpanReaderConfig) -> str:
    return (f"# A reader that answers with spans of a passage\n\nAn encoder of {config.n_layers} layers of width "
            f"{config.width}, fine-tuned; see run.json for the data and the exact command.\n\n```\ntickwise run answer "
            "DIRECTORY \"a question\" --passage FILE\n```\n")

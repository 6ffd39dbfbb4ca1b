"""The jobs: what each is tested on, which programs and which models do it."""

import gzip
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tickwise.compare import generated
from tickwise.compare.cases import NEW, NOISY, SEEN, Case, Material, drawn, in_typing_errors
from tickwise.compare.contestants import Classical, Contestant, Labeller, Writer
from tickwise.compare.measure import Score, exact
from tickwise.compare.models import (
    ANSWERS,
    LOOP,
    Budget,
    retraining,
    trained_labeller,
    trained_translator,
    trained_writer,
)
from tickwise.compare.programs import Adder, Extractor, Sorter, Table
from tickwise.compare.text_programs import (
    MORE_SPAM_PATTERNS,
    SPAM_PATTERNS,
    Dictionary,
    Lexicon,
    NaiveBayes,
    PassageSearch,
    Rules,
)
from tickwise.core.errors import DataError

_TRANSLATION_PAIRS = 12_000
_NEXT_VOCABULARY, _NEXT_CONTEXT, _NEXT_WORDS = 2048, 64, 24
_MOST_DRAWS = 100


class MissingDataError(DataError):
    """A job's data are not there."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a comparison is told."""

    n: int
    """Cases of each kind."""
    seed: int
    data_dir: Path | None


@dataclass(frozen=True)
class Prepared:
    """A job that is ready: its material, its programs, and how its model is trained in a folder."""

    material: Material
    programs: tuple[Contestant, ...]
    train: Callable[[Path, Budget], Writer | Labeller]
    score: Score = exact
    template: str = "{}"
    """Prompt of a model that writes and that is given."""
    most_tokens: int = 40


@dataclass(frozen=True)
class Job:
    """``prepare(setting, folder)`` raises ``MissingDataError`` where its data are not there."""

    name: str
    title: str
    scored: str
    """What a score of 1 is."""
    prepare: Callable[[Setting, Path], Prepared]


def _writing(make: Callable[[int, int], Material], programs: Callable[[int], Sequence[Classical]],
             context: int, backwards: bool = False) -> Callable[[Setting, Path], Prepared]:
    """A generated job, whose model is a decoder that is trained on lines."""

    def prepare(setting: Setting, folder: Path) -> Prepared:
        material = make(setting.n, setting.seed)
        return Prepared(
            material, tuple(programs(setting.seed)),
            lambda where, budget: trained_writer(material.training, where, budget, context=context,
                                                 backwards=backwards), template=ANSWERS)

    return prepare


def _file(setting: Setting, *names: str) -> Path:
    """The first of the files that is there."""
    if setting.data_dir is None:
        raise MissingDataError("needs --data-dir with " + names[0])
    for name in names:
        if (setting.data_dir / name).is_file():
            return setting.data_dir / name
    raise MissingDataError(f"{setting.data_dir / names[0]} is not there")


def _labelled(training: list[Case], test: list[Case], setting: Setting, about: str) -> Material:
    rng = random.Random(setting.seed)
    new = drawn(test, setting.n, rng)
    return Material(tuple(training), {SEEN: drawn(training, setting.n, rng), NEW: new,
                                      NOISY: in_typing_errors(new, rng)}, about)


def _spam(setting: Setting, folder: Path) -> Prepared:
    lines = _file(setting, "sms_spam/SMSSpamCollection", "SMSSpamCollection").read_text(encoding="utf-8").splitlines()
    cases = [Case(text, label) for label, _, text in (line.partition("\t") for line in lines) if text]
    random.Random(setting.seed).shuffle(cases)
    known = {case.text for case in cases[: len(cases) * 7 // 10]}
    training, test = cases[: len(cases) * 7 // 10], [case for case in cases[len(cases) * 7 // 10 :]
                                                     if case.text not in known]
    material = _labelled(training, test, setting, "short messages, wanted or not")
    rules = Rules(SPAM_PATTERNS, "spam", "ham", 2, MORE_SPAM_PATTERNS)
    return Prepared(material, (Classical(rules), Classical(NaiveBayes(training))),
                    lambda where, budget: trained_labeller(training, where, budget))


def _sentiment(setting: Setting, folder: Path) -> Prepared:
    parts = []
    for part in ("train", "test"):
        lines = _file(setting, f"sst2/stsa.binary.{part}", f"stsa.binary.{part}").read_text(encoding="utf-8")
        parts.append([Case(text, label) for label, _, text in (line.partition(" ") for line in lines.splitlines())])
    training, test = parts
    return Prepared(_labelled(training, test, setting, "sentences of film reviews, for (1) or against (0)"),
                    (Classical(Lexicon("1", "0")), Classical(NaiveBayes(training))),
                    lambda where, budget: trained_labeller(training, where, budget))


def _translate(setting: Setting, folder: Path) -> Prepared:
    def pairs(part: str) -> list[Case]:
        sides = []
        for language in ("en", "de"):
            path = _file(setting, f"multi30k/{part}.{language}.gz", f"multi30k/{part}.{language}")
            data = path.read_bytes()
            text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
            sides.append(text.lower().splitlines())
        return [Case(source, target) for source, target in zip(*sides, strict=True)]

    training = pairs("train")[:_TRANSLATION_PAIRS]
    material = _labelled(training, pairs("test_2016_flickr"), setting, "descriptions of pictures, English to German")
    return Prepared(material, (Classical(Dictionary(training)),),
                    lambda where, budget: trained_translator(training, where, budget), score=shared_words,
                    most_tokens=80)


def shared_words(answer: str, case: Case) -> float:
    """F1 of the words and signs that an answer shares with the reference, each as often as both have it."""
    from collections import Counter

    from tickwise.compare.text_programs import words_of

    found, wanted = Counter(words_of(answer)), Counter(words_of(case.answer))
    return 2 * (found & wanted).total() / max(1, found.total() + wanted.total())


def _passages(setting: Setting, folder: Path) -> Prepared:
    """Questions and their paragraphs. A model learns whose sentence is whose (a differentiable search index, Tay et al.
    2022)."""
    from tickwise.data.passages import Passage, read_questions, sentence_spans
    from tickwise.tasks.passage_index import build_index

    path = _file(setting, "xquad/xquad.en.json", "xquad.en.json")
    questions = read_questions([str(path)])
    paragraphs = list(dict.fromkeys(question.context for question in questions))
    number = {paragraph: str(place) for place, paragraph in enumerate(paragraphs)}
    sentences = [Case(paragraph[start:end], number[paragraph]) for paragraph in paragraphs
                 for start, end in sentence_spans(paragraph)]
    asked = [Case(question.text, number[question.context]) for question in questions]
    rng = random.Random(setting.seed)
    asked = list(drawn(asked, setting.n, rng))
    material = Material(tuple(sentences), {SEEN: drawn(sentences, setting.n, rng), NEW: tuple(asked),
                                           NOISY: in_typing_errors(asked, rng)},
                        f"the one of {len(paragraphs)} paragraphs that answers a question (seen: that has a sentence)")
    index = build_index(Passage(paragraph, number[paragraph], "") for paragraph in paragraphs)
    size = sum(len(paragraph.encode()) for paragraph in paragraphs)
    return Prepared(material, (Classical(PassageSearch(index, size), counts=False),),
                    lambda where, budget: trained_labeller(sentences, where, budget))


def _next_word(setting: Setting, folder: Path) -> Prepared:
    """The next token of a story, by a count of n-grams and by a decoder that has the same tokens."""
    import dataclasses

    from tickwise.engine.language_model import load
    from tickwise.training.config import ModelOptions, TrainConfig
    from tickwise.training.run import open_data, train
    from tickwise.training.tables import NgramTrainConfig, train_ngram

    text = _file(setting, "tinystories/tinystories_lowercase.txt", "tinystories_lowercase.txt", "train.txt")
    config = TrainConfig(data=text, tokenizer="bpe", vocab_size=_NEXT_VOCABULARY, context=_NEXT_CONTEXT, depth=3,
                         batch_size=32, model=ModelOptions(width=128, tie_embeddings=True), seed=setting.seed, **LOOP)
    data = open_data(config)
    rng = random.Random(setting.seed)

    def cases(split: str) -> tuple[Case, ...]:
        tokens = data.split(split).tokens
        found: list[Case] = []
        for _ in range(_MOST_DRAWS * setting.n if len(tokens) > 2 * _NEXT_WORDS else 0):
            if len(found) == setting.n:
                break
            start = rng.randrange(len(tokens) - _NEXT_WORDS - 1)
            ids = [int(token) for token in tokens[start : start + _NEXT_WORDS + 1]]
            answer = data.tokenizer.decode(ids[-1:])
            context = data.tokenizer.decode(ids[:-1])
            same = data.tokenizer.encode(context)[-4:] == ids[-5:-1]
            if same and answer.startswith(" ") and answer.strip().isalpha():
                found.append(Case(context, answer.strip()))
        if not found:
            raise DataError(f"{text}: too short, or without words between spaces; give a longer story")
        return tuple(found)

    new = cases("validation")
    material = Material((), {SEEN: cases("train"), NEW: new, NOISY: in_typing_errors(new, rng)},
                        "the next token of children's stories, where it begins a word")
    counted = folder / "ngram"
    if not (counted / "config.json").exists():
        train_ngram(NgramTrainConfig(data=text, out=counted, tokenizer="bpe", vocab_size=_NEXT_VOCABULARY,
                                     overwrite=True))
    ngram = Writer(load(counted, device="cpu"), "5-gram (Kneser–Ney)", most_tokens=1, kind="classical",
                   retraining=retraining(counted))

    def trained(where: Path, budget: Budget) -> Writer:
        train(dataclasses.replace(config, out=where / "run", max_seconds=budget.seconds))
        return Writer(load(where / "run", device="cpu"), "decoder", most_tokens=1, retraining=retraining(where / "run"))

    return Prepared(material, (ngram,), trained, most_tokens=1)


JOBS: dict[str, Job] = {job.name: job for job in (
    Job("add", "Adding numbers", "the right sum",
        _writing(generated.adding, lambda seed: [Classical(Adder())], 64, backwards=True)),
    Job("sort", "Sorting letters", "the right order",
        _writing(generated.sorting, lambda seed: [Classical(Sorter())], 64)),
    Job("lookup", "Exact look-up", "the stored value, ? where there is none",
        _writing(generated.looking_up, lambda seed: [Classical(Table(generated.stored_table(seed)))], 64)),
    Job("extract", "Finding dates and addresses", "both found",
        _writing(generated.extracting, lambda seed: [Classical(Extractor())], 128)),
    Job("next", "The next word", "the story's own next token", _next_word),
    Job("spam", "Filtering messages", "the right class", _spam),
    Job("sentiment", "Telling sentiment", "the right class", _sentiment),
    Job("translate", "Translating", "F1 of the words shared with the reference", _translate),
    Job("passages", "Finding the passage that answers", "the right passage", _passages),
)}

"""The jobs: what each is tested on, which programs and which models do it."""

import gzip
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tickwise.compare import generated
from tickwise.compare.cases import NEW, NOISY, SEEN, Case, Material, drawn, in_typing_errors, same, split_off
from tickwise.compare.contestants import Classical
from tickwise.compare.learners import ANSWERS, Translators, WordClassifiers, line_writer
from tickwise.compare.next_word import next_word
from tickwise.compare.programs import Adder, Extractor, Program, Sorter, Table
from tickwise.compare.search_programs import PassageSearch
from tickwise.compare.setting import Prepared, Setting
from tickwise.compare.spelling import corrected
from tickwise.compare.text_programs import SPAM_PATTERNS, Dictionary, Lexicon, NaiveBayes, Rules, words_of
from tickwise.core.errors import DataError

_TRANSLATION_PAIRS, _TRANSLATION_TOKENS = 12_000, 80
_DEVELOPMENT_SHARE = 0.05
_FEWEST_OF_A_LABEL = 3


class MissingDataError(DataError):
    """A job's data are not there."""


@dataclass(frozen=True)
class Job:
    """``prepare`` is given the setting, the job's folder and its files."""

    name: str
    title: str
    scored: str
    """What a score of 1 is."""
    prepare: Callable[..., Prepared]
    files: tuple[tuple[str, ...], ...] = ()
    """Names below the data folder, of each file any that is there."""

    def inputs(self, setting: Setting) -> list[Path]:
        """Its files; ``MissingDataError`` where one is not there."""
        return [_file(setting, names) for names in self.files]

    def prepared(self, setting: Setting, folder: Path) -> Prepared:
        """``DataError`` for files with too few texts."""
        paths = self.inputs(setting)
        found = self.prepare(setting, folder, *paths)
        material = found.material
        if not all((material.training, material.development, *material.cases.values())):
            raise DataError(f"{paths[0]}: too few different texts to train on, to choose by and to test on")
        return found


def _file(setting: Setting, names: Sequence[str]) -> Path:
    if setting.data_dir is None:
        raise MissingDataError("needs --data-dir with " + names[0])
    for name in names:
        if (setting.data_dir / name).is_file():
            return setting.data_dir / name
    raise MissingDataError(f"{setting.data_dir / names[0]} is not there")


def _generated(make: Callable[[int, int], Material], program: Callable[[int], Adder | Sorter | Table | Extractor],
               context: int, backwards: bool = False) -> Callable[[Setting, Path], Prepared]:
    """A generated job, whose model is a decoder that is trained on lines."""

    def prepare(setting: Setting, folder: Path) -> Prepared:
        material, one = make(setting.n, setting.seed), program(setting.seed)
        return Prepared(material, (Classical(one, one.edited),), template=ANSWERS, learner=line_writer(
            material, context=context, seed=setting.seed, backwards=backwards))

    return prepare


def _in_words(program: Program, texts: Sequence[str]) -> Classical:
    """A program for texts with words, behind a corrector of these once it is changed."""
    return Classical(program, lambda: corrected(program, texts))


def _held_out(training: Sequence[Case], test: Sequence[Case], setting: Setting, about: str,
              keeps: int = 0) -> Material:
    """Real texts: a part of the training is for the development, and the test has no text of either."""
    rng = random.Random(setting.seed)
    training, development = split_off(training, _DEVELOPMENT_SHARE, rng, keeps)
    known = {same(case.text) for case in (*training, *development)}
    new = drawn([case for case in test if same(case.text) not in known], setting.n, rng)
    return Material(training, development, {SEEN: drawn(training, setting.n, rng), NEW: new,
                                            NOISY: in_typing_errors(new, rng)},
                    in_typing_errors(training, rng), in_typing_errors(development, rng), about)


def _labelling(material: Material, programs: Sequence[Program]) -> Prepared:
    texts = [case.text for case in material.training]
    return Prepared(material, tuple(_in_words(program, texts) for program in programs), WordClassifiers(material))


def _spam(setting: Setting, folder: Path, path: Path) -> Prepared:
    lines = path.read_text(encoding="utf-8").splitlines()
    cases = [Case(text, label) for label, _, text in (line.partition("\t") for line in lines) if text]
    random.Random(setting.seed).shuffle(cases)
    n = len(cases) * 7 // 10
    material = _held_out(cases[:n], cases[n:], setting, "short messages, wanted or not", _FEWEST_OF_A_LABEL)
    return _labelling(material, (Rules.chosen(SPAM_PATTERNS, material.training, "spam", "ham"),
                                 NaiveBayes(material.training)))


def _sentiment(setting: Setting, folder: Path, train: Path, test: Path) -> Prepared:
    training, tested = ([Case(text, label) for label, _, text in (line.partition(" ") for line in lines)]
                        for lines in (path.read_text(encoding="utf-8").splitlines() for path in (train, test)))
    material = _held_out(training, tested, setting, "sentences of film reviews, for (1) or against (0)",
                         _FEWEST_OF_A_LABEL)
    return _labelling(material, (Lexicon(material.training, "1", "0"), NaiveBayes(material.training)))


def _translate(setting: Setting, folder: Path, *paths: Path) -> Prepared:
    sides = []
    for path in paths:
        data = path.read_bytes()
        sides.append((gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8").lower().splitlines())
    training, test = ([Case(source, target) for source, target in zip(*pair, strict=True)]
                      for pair in (sides[:2], sides[2:]))
    material = _held_out(training[:_TRANSLATION_PAIRS], test, setting, "descriptions of pictures, English to German")
    return Prepared(
        material, (_in_words(Dictionary(material.training), [case.text for case in material.training]),),
        Translators(material, _TRANSLATION_TOKENS), score=shared_words, most_tokens=_TRANSLATION_TOKENS)


def shared_words(answer: str, case: Case) -> float:
    """F1 of the words and signs that an answer shares with the reference, each as often as both have it."""
    found, wanted = Counter(words_of(answer)), Counter(words_of(case.answer))
    return 2 * (found & wanted).total() / max(1, found.total() + wanted.total())


def _passages(setting: Setting, folder: Path, path: Path) -> Prepared:
    """Questions and their paragraphs, which program and model both have. A model learns whose sentence is whose (a
    differentiable search index, Tay et al. 2022); half of the questions choose, the others test."""
    from tickwise.data.passages import read_questions, sentence_spans

    questions = read_questions([str(path)])
    paragraphs = list(dict.fromkeys(question.context for question in questions))
    number = {paragraph: str(place) for place, paragraph in enumerate(paragraphs)}
    sentences = [Case(paragraph[start:end], number[paragraph]) for paragraph in paragraphs
                 for start, end in sentence_spans(paragraph)]
    rng = random.Random(setting.seed)
    testing, choosing = split_off([Case(question.text, number[question.context]) for question in questions], 0.5, rng)
    new, development = drawn(testing, setting.n, rng), drawn(choosing, setting.n, rng)
    material = Material(
        tuple(sentences), development,
        {SEEN: drawn(sentences, setting.n, rng), NEW: new, NOISY: in_typing_errors(new, rng)},
        in_typing_errors(sentences, rng), in_typing_errors(development, rng),
        f"the one of {len(paragraphs)} paragraphs that answers a question (seen: that has a sentence)")
    search = PassageSearch({name: paragraph for paragraph, name in number.items()})
    return Prepared(material, (_in_words(search, paragraphs),), WordClassifiers(material))


JOBS: dict[str, Job] = {job.name: job for job in (
    Job("add", "Adding numbers", "the right sum", _generated(generated.adding, lambda seed: Adder(), 64, True)),
    Job("sort", "Sorting letters", "the right order", _generated(generated.sorting, lambda seed: Sorter(), 64)),
    Job("lookup", "Exact look-up", "the stored value, ? where there is none",
        _generated(generated.looking_up, lambda seed: Table(generated.stored_table(seed)), 64)),
    Job("extract", "Finding dates and addresses", "both found",
        _generated(generated.extracting, lambda seed: Extractor(), 128)),
    Job("next", "The next word", "the story's own next token", next_word,
        (("tinystories/tinystories_lowercase.txt", "tinystories_lowercase.txt", "train.txt"),)),
    Job("spam", "Filtering messages", "the right class", _spam,
        (("sms_spam/SMSSpamCollection", "SMSSpamCollection"),)),
    Job("sentiment", "Telling sentiment", "the right class", _sentiment,
        tuple((f"sst2/stsa.binary.{part}", f"stsa.binary.{part}") for part in ("train", "test"))),
    Job("translate", "Translating", "F1 of the words shared with the reference", _translate,
        tuple((f"multi30k/{part}.{language}.gz", f"multi30k/{part}.{language}")
              for part in ("train", "test_2016_flickr") for language in ("en", "de"))),
    Job("passages", "Finding the passage that answers", "the right passage", _passages,
        (("xquad/xquad.en.json", "xquad.en.json"),)),
)}

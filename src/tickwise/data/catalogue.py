"""Named public data sets: what they are, where their files lie, how to read them.

Nothing is shipped. A set is read from ``<data-dir>/<folder>/`` in its original file format, else downloaded from the
Hugging Face hub. Licences are those that the publishers state; look at them before you publish a model.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tickwise.core.config import closest
from tickwise.core.errors import DataError
from tickwise.core.paths import cache_directory
from tickwise.data import rows
from tickwise.data.inputs import Input
from tickwise.data.prepared import SPLIT_NAMES, file_hash
from tickwise.data.rows import Row
from tickwise.text.sources import CHUNK_BYTES, Chunk, ChunkReader, ReadSettings, SourceRead

Reader = Callable[[Sequence[Path]], Iterator[Row]]


@dataclasses.dataclass(frozen=True)
class Hub:
    """Where the set is on the Hugging Face hub: repository, configuration, and the split names used there."""

    path: str
    configuration: str | None = None
    train: str = "train"
    validation: str | None = "validation"
    test: str | None = "test"

    def split(self, name: str) -> str | None:
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]


@dataclasses.dataclass(frozen=True)
class DataSet:
    """One entry.

    files: for each split its files inside ``folder``; read: how; fields: what of a row is its text, joined by line
    feeds. in_order: the files are running text, not a collection of documents.
    """

    name: str
    folder: str
    task: str
    language: str
    licence: str
    description: str
    files: dict[str, tuple[str, ...]]
    read: Reader
    fields: tuple[str, ...] = ("text",)
    hub: Hub | None = None
    hub_fields: tuple[str, ...] | None = None
    in_order: bool = False

    def local_files(self, data_dir: Path | None, split: str) -> list[Path] | None:
        """The files of a split, None when one of them is not there; empty when the set has no such split."""
        folder = data_directory(data_dir) / self.folder
        paths = [folder / name for name in self.files.get(split, ())]
        return paths if all(path.is_file() for path in paths) else None

    def is_local(self, data_dir: Path | None) -> bool:
        return all(self.local_files(data_dir, split) is not None for split in self.files)

    def rows(self, split: str, data_dir: Path | None = None) -> Iterator[Row]:
        """The rows of ``split`` as published, from local files or else from the hub.

        Raises ``DataError`` when the set has no such split or is nowhere to be had.
        """
        if self.is_local(data_dir):
            files = self.local_files(data_dir, split)
            if not files:
                raise DataError(f"{self.name}: no {split} split; it has {', '.join(self.files)}")
            yield from self.read(files)
            return
        if self.hub is None:
            raise DataError(f"{self.name}: not in {data_directory(data_dir)} and not on the hub; put its files in "
                            f"{data_directory(data_dir) / self.folder} or name another folder with --data-dir")
        remote = self.hub.split(split)
        if remote is None:
            raise DataError(f"{self.name}: no {split} split on the hub")
        yield from rows.hub_rows(
            self.hub.path, remote, **({"name": self.hub.configuration} if self.hub.configuration else {})
        )

    def documents(self, split: str, data_dir: Path | None = None) -> Iterator[str]:
        """The text of each row."""
        fields = self.fields if self.is_local(data_dir) or self.hub_fields is None else self.hub_fields
        for row in self.rows(split, data_dir):
            parts = (row.get(field) for field in fields)
            text = "\n".join("\n".join(p) if isinstance(p, list) else str(p) for p in parts if p)
            if text.strip():
                yield text


def data_directory(data_dir: Path | None) -> Path:
    """``--data-dir``, else ``$TICKWISE_DATA``, else ``datasets`` in the cache."""
    if data_dir is not None:
        return data_dir
    named = os.environ.get("TICKWISE_DATA")
    return Path(named) if named else cache_directory() / "datasets"


def _split_files(**files: str) -> dict[str, tuple[str, ...]]:
    return {split: tuple(names.split()) for split, names in files.items()}


_BLIMP = (
    "adjunct_island", "anaphor_gender_agreement", "animate_subject_passive", "determiner_noun_agreement_1",
    "distractor_agreement_relational_noun", "ellipsis_n_bar_1", "existential_there_object_raising",
    "existential_there_quantifiers_1", "irregular_past_participle_adjectives",
    "matrix_question_npi_licensor_present", "principle_A_c_command", "wh_questions_object_gap",
)
_POEMS = " ".join(f"poet.tang.{number}.json" for number in range(0, 10_000, 1_000))
_MULTI30K = {
    split: " ".join(f"{stem}.{language}.gz" for language in ("en", "de", "fr"))
    for split, stem in (("train", "train"), ("validation", "val"), ("test", "test_2016_flickr"))
}

DATA_SETS: dict[str, DataSet] = {entry.name: entry for entry in (
    DataSet(
        "tiny_shakespeare", "tiny_shakespeare", "language modelling (characters)", "en", "public domain",
        "plays of Shakespeare, 1.1 MB, 65 characters", _split_files(train="input.txt"), rows.plain,
        hub=Hub("karpathy/tiny_shakespeare"), in_order=True,
    ),
    DataSet(
        "wikitext2", "wikitext2", "language modelling (words)", "en", "CC BY-SA",
        "Wikipedia articles, tokenized, vocabulary 33,278 (use --tokenizer word --word-style spaces --min-frequency 1)",
        _split_files(train="train.txt", validation="valid.txt", test="test.txt"), rows.plain,
        hub=Hub("Salesforce/wikitext", "wikitext-2-v1"), in_order=True,
    ),
    DataSet(
        "ptb", "ptb", "language modelling (words)", "en", "research only (LDC)",
        "Wall Street Journal, tokenized, vocabulary 10,000",
        _split_files(train="ptb.train.txt", validation="ptb.valid.txt", test="ptb.test.txt"), rows.plain,
        in_order=True,
    ),
    DataSet(
        "tinystories", "tinystories", "language modelling (stories)", "en", "CDLA-Sharing-1.0",
        "short stories in simple words (2 MB sample; the hub has all 2 GB)",
        _split_files(train="tinystories_sample.txt"), rows.plain, hub=Hub("roneneldan/TinyStories", test=None),
        in_order=True,
    ),
    DataSet(
        "image_coco", "image_coco", "unconditional generation", "en", "MIT (captions: COCO)",
        "10,000 + 10,000 image captions", _split_files(train="image_coco.txt", test="test_coco.txt"), rows.lines,
    ),
    DataSet(
        "tang_poems", "tang_poems", "language modelling (characters)", "zh", "MIT",
        "10,008 Tang poems in traditional characters", _split_files(train=_POEMS), rows.json_array,
        fields=("paragraphs",),
    ),
    DataSet(
        "multi30k", "multi30k", "translation en-de, en-fr", "en de fr", "non-commercial research",
        "image captions in three languages", _split_files(**_MULTI30K), rows.parallel, fields=("en", "de"),
        hub=Hub("bentrevett/multi30k"),
    ),
    DataSet(
        "cmn_eng", "cmn_eng", "translation en-zh", "en zh", "CC BY 2.0 FR",
        "29,155 sentence pairs of Tatoeba", _split_files(train="cmn.txt"),
        functools.partial(rows.tabbed, columns=("en", "zh")), fields=("en", "zh"),
    ),
    DataSet(
        "xdailydialog", "xdailydialog", "open dialogue", "en", "CC BY-NC-SA 4.0",
        "8,096 everyday dialogues",
        _split_files(train="dialogues_text_En.txt", validation="en_dev_human.txt", test="en_test_human.txt"),
        rows.dialogues,
    ),
    DataSet(
        "xdailydialog_zh", "xdailydialog", "open dialogue", "zh", "CC BY-NC-SA 4.0",
        "the same dialogues in Chinese",
        _split_files(train="dialogues_text_Zh.txt", validation="zh_dev_human.txt", test="zh_test_human.txt"),
        rows.dialogues,
    ),
    DataSet(
        "ag_news", "ag_news", "classification (4 topics)", "en", "not stated",
        "news descriptions (17,601 rows; the hub has the 120,000 training rows)",
        _split_files(train="dev.tsv", test="test.tsv"), functools.partial(rows.tabbed, columns=("text", "label")),
        hub=Hub("fancyzhx/ag_news", validation=None),
    ),
    DataSet(
        "trec", "trec", "classification (6 or 50 question types)", "en", "not stated", "5,452 + 500 questions",
        _split_files(train="TREC.train", test="TREC.test"), functools.partial(rows.labelled, encoding="iso-8859-1"),
        hub=Hub("CogComp/trec", validation=None),
    ),
    DataSet(
        "sst2", "sst2", "classification (sentiment)", "en", "not stated", "9,613 sentences of film reviews",
        _split_files(train="stsa.binary.train", validation="stsa.binary.dev", test="stsa.binary.test"), rows.labelled,
        hub=Hub("stanfordnlp/sst2"), hub_fields=("sentence",),
    ),
    DataSet(
        "chnsenticorp", "chnsenticorp_htl", "classification (sentiment)", "zh", "not stated",
        "7,766 hotel reviews", _split_files(train="ChnSentiCorp_htl_all.csv"), rows.table, fields=("review",),
    ),
    DataSet(
        "thucnews_titles", "thucnews_titles", "classification (10 topics)", "zh", "research only",
        "40,000 + 10,000 news titles", _split_files(train="train_40k.txt", test="test.txt"),
        functools.partial(rows.tabbed, columns=("text", "label")),
    ),
    DataSet(
        "sms_spam", "sms_spam", "classification (spam)", "en", "free to use", "5,574 text messages",
        _split_files(train="SMSSpamCollection"), functools.partial(rows.labelled, separator="\t"),
        hub=Hub("ucirvine/sms_spam", validation=None, test=None), hub_fields=("sms",),
    ),
    DataSet(
        "conll2003", "conll2003", "named entities (4 types)", "en", "research only (Reuters)",
        "20,744 tagged sentences", _split_files(train="eng.train", validation="eng.testa", test="eng.testb"),
        rows.tagged,
    ),
    DataSet(
        "wnut17", "wnut17", "named entities (6 types)", "en", "CC BY 4.0", "5,690 tagged noisy sentences",
        _split_files(train="wnut17train.conll", validation="emerging.dev.conll", test="emerging.test.annotated"),
        functools.partial(rows.tagged, separator="\t"),
    ),
    DataSet(
        "resume_ner", "resume_ner", "named entities (8 types)", "zh", "not stated", "4,761 tagged sentences of CVs",
        _split_files(train="train.char.bmes", validation="dev.char.bmes", test="test.char.bmes"),
        functools.partial(rows.tagged, joint=""),
    ),
    DataSet(
        "xquad_en", "xquad", "question answering", "en", "CC BY-SA 4.0", "1,190 questions on 240 paragraphs",
        _split_files(validation="xquad.en.json"), rows.squad, fields=("context", "question"),
        hub=Hub("google/xquad", "xquad.en", train="validation", test=None),
    ),
    DataSet(
        "xquad_zh", "xquad", "question answering", "zh", "CC BY-SA 4.0", "the same questions in Chinese",
        _split_files(validation="xquad.zh.json"), rows.squad, fields=("context", "question"),
        hub=Hub("google/xquad", "xquad.zh", train="validation", test=None),
    ),
    DataSet(
        "cmrc2018", "cmrc2018", "question answering", "zh", "CC BY-SA 4.0", "4,221 questions on 1,104 paragraphs",
        _split_files(train="cmrc2018_dev.json", test="cmrc2018_trial.json"), rows.squad,
        fields=("context", "question"), hub=Hub("hfl/cmrc2018"),
    ),
    DataSet(
        "subjqa", "subjqa", "question answering (reviews)", "en", "not stated", "1,908 questions on electronics",
        _split_files(train="electronics/train.csv", validation="electronics/dev.csv", test="electronics/test.csv"),
        rows.table, fields=("review", "question"),
    ),
    DataSet(
        "dialogsum", "dialogsum", "summarisation", "en", "CC BY-NC-SA 4.0", "13,460 dialogues with summaries",
        _split_files(train="dialogsum.train.jsonl.gz", validation="dialogsum.dev.jsonl", test="dialogsum.test.jsonl"),
        rows.json_lines, fields=("dialogue", "summary"), hub=Hub("knkarthick/dialogsum"),
    ),
    DataSet(
        "alpaca_demo", "instruct_demo", "instructions", "en", "not stated", "999 instructions with answers",
        _split_files(train="alpaca_en_demo.json"), rows.json_array, fields=("instruction", "input", "output"),
    ),
    DataSet(
        "alpaca_demo_zh", "instruct_demo", "instructions", "zh", "not stated", "1,000 instructions with answers",
        _split_files(train="alpaca_zh_demo.json"), rows.json_array, fields=("instruction", "input", "output"),
    ),
    DataSet(
        "dpo_demo", "instruct_demo", "preference pairs", "en", "not stated", "300 pairs of answers",
        _split_files(train="dpo_en_demo.json"), rows.preferences, fields=("prompt", "chosen"),
    ),
    DataSet(
        "gsm8k", "gsm8k", "reasoning (mathematics)", "en", "MIT", "8,792 grade-school problems",
        _split_files(train="train.jsonl", test="test.jsonl"), rows.json_lines, fields=("question", "answer"),
        hub=Hub("openai/gsm8k", "main", validation=None),
    ),
    DataSet(
        "blimp", "blimp_12", "grammar (minimal pairs)", "en", "CC BY", "12 of 67 phenomena, 1,000 pairs each",
        _split_files(test=" ".join(f"{name}.jsonl" for name in _BLIMP)), rows.json_lines, fields=("sentence_good",),
        hub=Hub("nyu-mll/blimp", "adjunct_island", test="train"),
    ),
)}


def find(name: str) -> DataSet | None:
    """The entry of that name; ``DataError`` with the nearest name when it looks like a misspelt one."""
    if name in DATA_SETS:
        return DATA_SETS[name]
    suggestion = closest(name, DATA_SETS) if "/" not in name and "." not in name else ""
    if suggestion:
        raise DataError(f"{name}: no such file or folder, and no data set of that name{suggestion}")
    return None


class DocumentChunks:
    """The documents of one split of a data set, as chunks."""

    def __init__(self, entry: DataSet, split: str, data_dir: Path | None) -> None:
        self.sources: list[SourceRead] = []
        self._entry, self._split, self._data_dir = entry, split, data_dir

    def __iter__(self) -> Iterator[Chunk]:
        origin = f"{self._entry.name} ({self._split})"
        parts: list[bytes] = []
        size = 0
        for document in self._entry.documents(self._split, self._data_dir):
            parts.append(document.encode("utf-8", "replace"))
            size += len(parts[-1])
            if size >= CHUNK_BYTES:
                yield Chunk(b"".join(parts), "rows", origin, lengths=tuple(map(len, parts)))
                parts, size = [], 0
        if parts:
            yield Chunk(b"".join(parts), "rows", origin, lengths=tuple(map(len, parts)))
        for file in self._entry.local_files(self._data_dir, self._split) or ():
            self.sources.append(SourceRead(str(file), file.stat().st_size, file_hash(file)))


def inputs_of(entry: DataSet, read: ReadSettings, data_dir: Path | None) -> list[Input]:
    """The published splits of a data set, or its only one to be split."""
    local = entry.is_local(data_dir)
    if local:
        names = [split for split in SPLIT_NAMES if split in entry.files]
    elif entry.hub is not None:
        names = [split for split in SPLIT_NAMES if entry.hub.split(split) is not None]
    else:
        names = ["train"]  # reading it will say what is missing
    if names[0] != "train":
        names = names[:1]  # there is nothing to train on but a test set: split it
    result = []
    for name in names:
        files = tuple(str(file) for file in entry.local_files(data_dir, name) or ()) if local else ()
        number = SPLIT_NAMES.index(name) if len(names) > 1 else 0
        if local and entry.in_order:
            in_order = read.documents == "auto"
            settings = dataclasses.replace(read, documents="file") if in_order else read
            chunks: ChunkReader | DocumentChunks = ChunkReader(files, settings)
            result.append(Input(entry.name, chunks, settings, in_order, number, files, published=True))
        else:
            chunks = DocumentChunks(entry, name, data_dir)
            settings = dataclasses.replace(read, documents="file")
            result.append(Input(entry.name, chunks, settings, False, number, files, published=True))
    return result

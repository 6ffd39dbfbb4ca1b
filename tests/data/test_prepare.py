import dataclasses
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from small_documents import distinct_paragraphs, sentence, texts_of
from tickwise.core.errors import ConfigError, DataError, OutputError
from tickwise.data.config import PrepareConfig
from tickwise.data.prepare import open_or_prepare, prepare
from tickwise.data.prepared import PreparedData
from tickwise.data.spool import safe_cut
from tickwise.tokenizers.train import train_tokenizer


def test_workers_and_one_process_give_the_same_files(documents_with_copies, tmp_path):
    file, _ = documents_with_copies
    config = PrepareConfig(sources=(str(file),), documents="line", vocab_size=300, test_fraction=0.1)
    results = [prepare(dataclasses.replace(config, out=tmp_path / str(n), workers=n)) for n in (0, 2)]
    assert results[0].fingerprint == results[1].fingerprint
    assert results[0].info.duplicates == results[1].info.duplicates


@pytest.mark.parametrize("kind", ["bpe", "word"])
def test_long_document_has_the_ids_of_the_whole_text(tmp_path, kind):
    """Blocks are cut where no token can cross."""
    rng = random.Random(2)
    text = "\n".join(f"{sentence(rng, 12)}, don't  {n}\u3000「我喜欢」 " for n in range(12_000))
    assert len(text) > 3 * (1 << 18)
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    data = prepare(PrepareConfig(
        sources=(str(tmp_path / "a.txt"),), out=tmp_path / "out", tokenizer=kind,
        vocab_size=500 if kind == "bpe" else None, validation_fraction=0.0,
    ))
    assert data.split("train").tokens.tolist() == data.tokenizer.encode(text)
    assert data.split("train").document_starts.tolist() == [0]


def test_bpe_of_a_text_with_paragraphs_cut_out_has_the_ids_of_what_is_left(tmp_path):
    texts = distinct_paragraphs(100)
    late = [*distinct_paragraphs(10, 12), *texts[7:12], *distinct_paragraphs(10, 13), texts[3], "end"]
    whole = "\n\n".join([*texts, *late])
    (tmp_path / "a.txt").write_text(whole, encoding="utf-8")
    data = prepare(PrepareConfig(
        sources=(str(tmp_path / "a.txt"),), out=tmp_path / "out", vocab_size=400,
        validation_fraction=(len("\n\n".join(late)) - 0.5) / len(whole),
    ))
    left = "\n\n".join([text for text in late if text not in texts])
    assert data.split("validation").tokens.tolist() == data.tokenizer.encode(left)
    assert data.split("validation").document_starts.tolist() == [0]


def test_safe_cut_falls_back_to_a_character_border():
    data = ("我" * 3000).encode()
    cut = safe_cut(data[:-1])
    assert data[:cut].decode()
    assert 0 < cut < len(data)
    assert data[: safe_cut(b"one two" + data)]
    assert safe_cut(b"one two\n three") == 8 - 1


def test_published_word_counts_of_wikitext2(shared_data, tmp_path):
    folder = shared_data / "wikitext2"
    data = prepare(PrepareConfig(
        train=(str(folder / "train.txt"),), validation=(str(folder / "valid.txt"),), test=(str(folder / "test.txt"),),
        out=tmp_path / "out", tokenizer="word", word_style="spaces", min_frequency=1,
    ))
    assert [len(data.split(name)) for name in data.splits] == [2_088_628, 217_646, 245_569]
    assert data.tokenizer.vocab_size == 33_278


def test_marks_in_the_text_separate_documents(tmp_path):
    (tmp_path / "a.txt").write_text("".join(f"story {n}\n<|endoftext|>\n" for n in range(20)), encoding="utf-8")
    data = prepare(PrepareConfig(sources=(str(tmp_path / "a.txt"),), out=tmp_path / "out", duplicates="exact"))
    assert len(texts_of(data, "train")) + len(texts_of(data, "validation")) == 20


def test_tokenizer_of_another_folder_is_used_as_it_is(tmp_path):
    tokenizer = train_tokenizer("bpe", iter(["some other text " * 9]), vocab_size=270)
    tokenizer.save(tmp_path / "tokenizer")
    (tmp_path / "a.txt").write_text("some text", encoding="utf-8")
    data = prepare(PrepareConfig(
        sources=(str(tmp_path / "a.txt"),), out=tmp_path / "out", tokenizer_from=tmp_path / "tokenizer"
    ))
    assert data.tokenizer.fingerprint == tokenizer.fingerprint


def test_large_vocabulary_takes_four_bytes(tmp_path):
    text = "".join(chr(point) for point in range(0x10000, 0x10000 + 66_000))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    data = prepare(PrepareConfig(
        sources=(str(tmp_path / "a.txt"),), out=tmp_path / "out", tokenizer="char", clean=False
    ))
    assert data.info.dtype == "uint32"
    assert data.tokenizer.decode(data.split("validation").tokens[:3].tolist()) == text[59400:59403]


@pytest.mark.parametrize("text", ["x", "x\n", "ab", "a\n\nb"])
@pytest.mark.parametrize("kind", ["char", "bpe", "word"])
def test_tiny_text_is_prepared(tmp_path, text, kind):
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    config = PrepareConfig(sources=(str(tmp_path / "a.txt"),), out=tmp_path / "out", tokenizer=kind, min_frequency=1)
    data = prepare(config)
    pieces = [data.tokenizer.decode(data.split(name).tokens.tolist()) for name in data.splits]
    assert data.splits[0] == "train"
    if kind != "word":  # the words of the validation part may be unknown
        assert "".join(pieces) == text


def test_prepared_source_in_the_cache_is_used_again(tmp_path, monkeypatch):
    monkeypatch.setenv("TICKWISE_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "a.txt"
    file.write_text("abc " * 100, encoding="utf-8")
    config = PrepareConfig(tokenizer="char")
    first = open_or_prepare(file, config)
    made = (first.path / "dataset.json").stat().st_mtime_ns
    assert open_or_prepare(str(file), config).path == first.path
    assert (first.path / "dataset.json").stat().st_mtime_ns == made
    assert open_or_prepare(first.path, config).fingerprint == first.fingerprint
    assert open_or_prepare(file, dataclasses.replace(config, validation_fraction=0.2)).path != first.path
    file.write_text("abd " * 100, encoding="utf-8")
    assert open_or_prepare(file, config).path != first.path


def test_damaged_copy_in_the_cache_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("TICKWISE_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "a.txt"
    file.write_text("abc " * 100, encoding="utf-8")
    data = open_or_prepare(file, PrepareConfig(tokenizer="char"))
    (data.path / "train.bin").write_bytes(b"")
    assert len(open_or_prepare(file, PrepareConfig(tokenizer="char")).split("train")) == 360


@pytest.mark.parametrize(("change", "message"), [
    ({"validation_fraction": 0.6, "test_fraction": 0.5}, "must leave text to train on"),
    ({"validation_fraction": -0.1}, "must not be negative"),
    ({"near_threshold": 0.1}, "--near-threshold"),
    ({"documents": ""}, "--documents"),
    ({"remove_leaks": True}, "--remove-leaks"),
    ({"train": ("b.txt",)}, "not both"),
    ({"sources": ()}, "say what to prepare"),
    ({"sources": (), "validation": ("b.txt",)}, "need --train"),
    ({"out": None}, "--out"),
])
def test_settings_that_contradict(tmp_path, change, message):
    (tmp_path / "a.txt").write_text("text")
    config = PrepareConfig(sources=(str(tmp_path / "a.txt"),), out=tmp_path / "out")
    with pytest.raises(ConfigError, match=message):
        prepare(dataclasses.replace(config, **change))
    assert not (tmp_path / "out").exists()


def test_folder_with_other_files_is_not_overwritten(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("precious")
    with pytest.raises(OutputError, match="choose another --out"):
        prepare(PrepareConfig(sources=(str(tmp_path / "a.txt"),), out=tmp_path / "out"))
    assert (tmp_path / "out" / "thesis.tex").read_text() == "precious"


def test_prepared_data_is_replaced_only_when_asked(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("some text " * 20)
    config = PrepareConfig(sources=(str(file),), out=tmp_path / "out", tokenizer="char")
    first = prepare(config).fingerprint
    file.write_text("other text " * 20)
    with pytest.raises(OutputError, match=r"out: has prepared data in it; .*--overwrite"):
        prepare(config)
    assert PreparedData.open(tmp_path / "out").fingerprint == first
    again = prepare(dataclasses.replace(config, overwrite=True))
    assert again.fingerprint != first
    assert "overwrite" not in again.info.settings


@pytest.mark.parametrize("documents", ["auto", "file", "line", "<|endoftext|>"])
def test_a_split_of_blank_lines_only_is_an_error(tmp_path, documents):
    (tmp_path / "a.txt").write_text("some text")
    (tmp_path / "b.txt").write_text(" \n\n\t\u3000\n")
    with pytest.raises(DataError, match=r"b.txt: no text in it"):
        prepare(PrepareConfig(
            train=(str(tmp_path / "a.txt"),), validation=(str(tmp_path / "b.txt"),), out=tmp_path / "out",
            documents=documents, min_frequency=1,
        ))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_input_in_the_middle_leaves_nothing_behind_and_old_data_alone(tmp_path, workers):
    file, out = tmp_path / "a.txt", tmp_path / "out"
    file.write_bytes(b"good text\n" * 100)
    before = prepare(PrepareConfig(sources=(str(file),), out=out, tokenizer="char")).fingerprint
    file.write_bytes(b"good text\n" * 100_000 + b"\xff\n")
    with pytest.raises(DataError, match="byte 1000000"):
        prepare(PrepareConfig(sources=(str(file),), out=out, workers=workers, overwrite=True))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "out"]
    assert PreparedData.open(out).fingerprint == before


def test_interrupt_leaves_nothing_behind(tmp_path):
    rng = random.Random(0)
    with (tmp_path / "a.txt").open("w") as file:
        for _ in range(40_000):
            file.write(sentence(rng, 100) + "\n\n")
    command = [sys.executable, "-m", "tickwise", "data", "prepare", str(tmp_path / "a.txt"), "--out",
               str(tmp_path / "out"), "--documents", "paragraph", "--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not list(tmp_path.glob("out.tmp-*/spool")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130, errors
    assert b"Traceback" not in errors
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_left_overs_of_a_killed_run_are_removed_but_not_those_of_a_running_one(tmp_path):
    (tmp_path / "a.txt").write_text("some text")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / f"out.tmp-{ended.pid}-abc123").mkdir()
    running, other = tmp_path / f"out.tmp-{os.getpid()}-abc123", tmp_path / f"out.tmp-{ended.pid}-notes"
    running.mkdir()
    other.mkdir()
    prepare(PrepareConfig(sources=(str(tmp_path / "a.txt"),), out=tmp_path / "out", tokenizer="char"))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["a.txt", "out", running.name, other.name]
    )


def test_nothing_here_imports_torch():
    modules = "sys, tickwise.data.prepare, tickwise.data.catalogue, tickwise.data.jobs"
    script = f"import {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, env=dict(os.environ))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_text(tmp_path):
    """Resident memory over all processes for 60 and 240 MB; near-duplicate search and bpe on."""
    import psutil

    def peak(n_bytes: int) -> int:
        rng = random.Random(1)
        file = tmp_path / f"{n_bytes}.txt"
        with file.open("w") as stream:
            while stream.tell() < n_bytes:
                stream.write("\n\n".join(sentence(rng, 90) for _ in range(200)) + "\n\n")
        command = [sys.executable, "-m", "tickwise", "data", "prepare", str(file), "--out", str(tmp_path / "out"),
                   "--documents", "paragraph", "--overwrite", "--quiet"]
        process = psutil.Popen(command, stdout=subprocess.DEVNULL)
        highest = 0
        while process.poll() is None:
            try:
                family = [process, *process.children(recursive=True)]
                highest = max(highest, sum(one.memory_info().rss for one in family))
            except psutil.NoSuchProcess:
                pass
            time.sleep(0.05)
        assert process.returncode == 0
        return highest

    small, large = peak(60_000_000), peak(240_000_000)
    assert large < 1_000_000_000
    assert large < 1.25 * small

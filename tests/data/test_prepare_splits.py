"""Where prepared text is cut into training, validation and test, and that no part has copies of another's text."""

import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import pytest

from small_documents import distinct_paragraphs, sentence, texts_of
from tickwise.core.errors import DataError
from tickwise.data.config import PrepareConfig
from tickwise.data.prepare import prepare
from tickwise.data.remarks import DEFAULT_CONTEXT
from tickwise.text.shingles import jaccard


def test_one_text_is_cut_like_nanogpt(tmp_path):
    rng = random.Random(0)
    text = "".join(rng.choice("abc é我\n") for _ in range(1234))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    data = prepare(PrepareConfig(sources=(str(tmp_path / "a.txt"),), out=tmp_path / "out", tokenizer="char"))
    characters = sorted(set(text))
    assert data.tokenizer.vocab_size == len(characters)
    ids = [characters.index(c) for c in text]
    boundary = int(0.9 * len(text))
    assert data.split("train").tokens.tolist() == ids[:boundary]
    assert data.split("validation").tokens.tolist() == ids[boundary:]
    assert data.split("train").n_bytes == len(text[:boundary].encode())
    assert list(data.splits) == ["train", "validation"]


def test_tiny_shakespeare_is_the_data_set_of_nanogpt(shared_data, tmp_path):
    file = shared_data / "tiny_shakespeare" / "input.txt"
    data = prepare(PrepareConfig(sources=(str(file),), out=tmp_path / "out", tokenizer="char"))
    assert data.tokenizer.vocab_size == 65
    assert (len(data.split("train")), len(data.split("validation"))) == (1_003_854, 111_540)


def test_test_fraction_takes_the_end(tmp_path):
    (tmp_path / "a.txt").write_text("a" * 80 + "b" * 10 + "c" * 10, encoding="utf-8")
    data = prepare(PrepareConfig(
        sources=(str(tmp_path / "a.txt"),), out=tmp_path / "out", tokenizer="char", test_fraction=0.1
    ))
    assert texts_of(data, "validation") == ["b" * 10]
    assert texts_of(data, "test") == ["c" * 10]


def test_documents_end_with_the_end_of_text_token_and_their_starts_are_known(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"text {n}"}) + "\n" for n in range(50)))
    config = PrepareConfig(sources=(str(tmp_path / "a.jsonl"),), out=tmp_path / "out", duplicates="exact")
    data = prepare(config)
    train = data.split("train")
    eos = data.tokenizer.eos_id
    assert np.flatnonzero(train.tokens == eos).tolist() == [*(train.document_starts[1:] - 1).tolist(), len(train) - 1]
    found = texts_of(data, "train") + texts_of(data, "validation")
    assert sorted(found) == sorted(f"text {n}" for n in range(50))
    assert train.n_bytes == sum(map(len, texts_of(data, "train")))
    assert train.n_words == 2 * len(train.document_starts)


@pytest.mark.parametrize("duplicates", ["near", "keep"])
def test_no_copy_is_in_two_splits(documents_with_copies, tmp_path, duplicates):
    file, texts = documents_with_copies
    data = prepare(PrepareConfig(
        sources=(str(file),), out=tmp_path / "out", documents="line", duplicates=duplicates, tokenizer="char",
        validation_fraction=0.3, test_fraction=0.2,
    ))
    parts = {name: texts_of(data, name) for name in data.splits}
    assert sum(map(len, parts.values())) == (300 if duplicates == "near" else len(texts))
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        pairs = [(a, b) for a in parts[one] for b in parts[other] if a.split()[:3] == b.split()[:3]]
        if pairs:
            assert jaccard([a for a, _ in pairs], [b for _, b in pairs]).max() < 0.8


def test_exact_removal_keeps_near_copies_but_on_one_side(documents_with_copies, tmp_path):
    file, _ = documents_with_copies
    data = prepare(PrepareConfig(
        sources=(str(file),), out=tmp_path / "out", documents="line", duplicates="exact", tokenizer="char",
        validation_fraction=0.5,
    ))
    assert data.info.duplicates["removed"] == 60
    beginnings = [{text[:60] for text in texts_of(data, name)} for name in ("train", "validation")]
    assert sum(map(len, beginnings)) == 300
    assert not beginnings[0] & beginnings[1]


@pytest.mark.parametrize(("sizes", "share"), [
    ((400, 300, 200, 100), 0.1), ((50, 350, 350, 250), 0.05), ((300, 310, 320, 70), 0.07),
    ((60, 40, 450, 450), 0.1), (tuple(range(1, 31)), 0.1),
])
def test_few_files_are_chosen_to_come_near_the_share(tmp_path, sizes, share, capfd):
    (tmp_path / "texts").mkdir()
    for number, size in enumerate(sizes):
        text = sentence(random.Random(number), 2_000)[: 10 * size]
        (tmp_path / "texts" / f"{number}.txt").write_text(text, encoding="utf-8")
    config = PrepareConfig(sources=(str(tmp_path / "texts"),), tokenizer="char")
    data = prepare(dataclasses.replace(config, out=tmp_path / "out"))
    held_out = data.split_info["validation"].bytes
    assert held_out / (held_out + data.split_info["train"].bytes) == pytest.approx(share, abs=0.002)
    said = capfd.readouterr().err
    assert "instead of" not in said
    for number in range(len(sizes)):  # names and order do not matter
        (tmp_path / "texts" / f"{number}.txt").rename(tmp_path / "texts" / f"z{100 - number}.txt")
    assert sorted(texts_of(prepare(dataclasses.replace(config, out=tmp_path / "again")), "validation")) == sorted(
        texts_of(data, "validation"))


def test_a_share_that_whole_files_cannot_make_is_said(tmp_path, capfd):
    (tmp_path / "texts").mkdir()
    for number in range(2):
        text = "\n\n".join(distinct_paragraphs(60, number))
        (tmp_path / "texts" / f"{number}.txt").write_text(text, encoding="utf-8")
    config = PrepareConfig(sources=(str(tmp_path / "texts"),), tokenizer="char")
    prepare(dataclasses.replace(config, out=tmp_path / "out"))
    said = capfd.readouterr().err
    assert "instead of 10 %, because documents are not cut; --documents paragraph" in said
    assert said.count("instead of") == 1
    prepare(dataclasses.replace(config, out=tmp_path / "again", documents="paragraph"))
    assert "instead of" not in capfd.readouterr().err


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_every_split_gets_a_document_while_there_are_enough(tmp_path, n):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in distinct_paragraphs(n)))
    data = prepare(PrepareConfig(
        sources=(str(tmp_path / "a.jsonl"),), out=tmp_path / "out", tokenizer="char", validation_fraction=0.5,
        test_fraction=0.4,
    ))
    assert list(data.splits) == ["train", "validation", "test"][:n]


def test_a_split_shorter_than_a_context_is_said(tmp_path, capfd):
    (tmp_path / "a.txt").write_text("x" * 3000)
    config = PrepareConfig(sources=(str(tmp_path / "a.txt"),), tokenizer="char")
    prepare(dataclasses.replace(config, out=tmp_path / "out"))
    assert "context" not in capfd.readouterr().err
    prepare(dataclasses.replace(config, out=tmp_path / "few", validation_fraction=0.001))
    assert "validation: 3 tokens, 1 documents, 3 bytes (no more than a context of 256" in capfd.readouterr().err


def test_context_is_that_of_training():
    from tickwise.training.config import TrainConfig

    assert TrainConfig(data=Path(), out=Path()).context == DEFAULT_CONTEXT


def test_splits_are_stable_when_documents_are_added(tmp_path):
    rng = random.Random(9)
    texts = [sentence(rng) for _ in range(200)]

    def split_of(part: list[str], name: str) -> dict[str, str]:
        (tmp_path / f"{name}.txt").write_text("\n".join(part), encoding="utf-8")
        data = prepare(PrepareConfig(
            sources=(str(tmp_path / f"{name}.txt"),), out=tmp_path / name, documents="line", tokenizer="char",
            validation_fraction=0.3,
        ))
        return {text: split for split in data.splits for text in texts_of(data, split)}

    few, many = split_of(texts[:100], "few"), split_of(texts[::-1], "many")
    assert all(many[text] == split for text, split in few.items())


def test_paragraphs_of_a_long_text_are_counted_once(tmp_path):
    rng = random.Random(4)
    paragraphs = [sentence(rng, 30) for _ in range(6000)]
    text = "\n\n".join([*paragraphs, paragraphs[7], paragraphs[4000]])
    assert len(text) > 2 * (1 << 18)
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    data = prepare(PrepareConfig(
        sources=(str(tmp_path / "a.txt"),), out=tmp_path / "out", tokenizer="char", duplicates="keep"
    ))
    assert data.info.duplicates["units"] == 6002
    assert (data.info.duplicates["exact"], data.info.duplicates["removed"]) == (2, 0)
    assert data.info.duplicates["leaks"]["validation"] == 2
    assert len(data.split("train")) == int(0.9 * len(text))


@pytest.mark.parametrize("joint", ["\n\n", "\n"])
def test_one_text_shares_no_long_paragraph_between_its_splits(tmp_path, joint, capfd):
    """Copies (exact and near) of training paragraphs are cut out of validation and test; the rest keeps its order."""
    texts = distinct_paragraphs(200)
    texts[150:150] = ["SCENE II."]
    near = " ".join([*texts[5].split()[:-1], "changed"])
    late = [texts[3], *distinct_paragraphs(20, 12), "SCENE II.", texts[7], texts[8], near, "end"]
    later = [*distinct_paragraphs(20, 13), late[5], texts[9]]
    whole = joint.join([*texts, *late, *later]) + "\n"
    validation, test = joint.join(late) + joint, joint.join(later) + "\n"
    (tmp_path / "a.txt").write_text(whole, encoding="utf-8")
    fractions = {"validation_fraction": len(validation) / len(whole), "test_fraction": (len(test) - 0.5) / len(whole)}
    config = PrepareConfig(sources=(str(tmp_path / "a.txt"),), out=tmp_path / "out", tokenizer="char", **fractions)
    data = prepare(config)
    assert texts_of(data, "train") == [joint.join(texts) + joint]
    assert texts_of(data, "validation") == [joint.join([*late[1:22], "end"]) + joint]
    assert [text.rstrip() for text in texts_of(data, "test")] == [joint.join(later[:20])]
    assert data.info.duplicates["removed"] == 6
    cut = {name: len(part) - data.split_info[name].bytes for name, part in (("validation", validation), ("test", test))}
    assert data.info.duplicates["removed_from"] == {
        "validation": {"paragraphs": 4, "bytes": cut["validation"]}, "test": {"paragraphs": 2, "bytes": cut["test"]},
    }
    assert data.info.duplicates["leaks"] == {"validation": 1, "test": 0}
    said = capfd.readouterr().err
    assert f"validation: 4 paragraphs ({cut['validation']} bytes) removed" in said
    assert "validation: 1 paragraphs of less than 64 bytes are also in train and stay" in said


def test_exact_copies_only_or_none_are_removed_from_one_text(tmp_path):
    texts = distinct_paragraphs(100)
    near = " ".join([*texts[5].split()[:-1], "changed"])
    late = [*distinct_paragraphs(10, 12), texts[7], near]
    whole = "\n\n".join([*texts, *late])
    (tmp_path / "a.txt").write_text(whole, encoding="utf-8")
    config = PrepareConfig(sources=(str(tmp_path / "a.txt"),), tokenizer="char",
                           validation_fraction=(len("\n\n".join(late)) - 0.5) / len(whole))
    exact = prepare(dataclasses.replace(config, out=tmp_path / "exact", duplicates="exact"))
    assert texts_of(exact, "validation") == ["\n\n".join([*late[:10], near])]
    assert exact.info.duplicates["leaks"]["validation"] == 1
    kept = prepare(dataclasses.replace(config, out=tmp_path / "kept", duplicates="keep"))
    assert texts_of(kept, "validation") == ["\n\n".join(late)]


@pytest.mark.parametrize("n", [7, 40])
def test_a_paragraph_across_the_cut_is_no_leak_either(tmp_path, n):
    """The cut falls into the copy of a training paragraph, whose end goes too."""
    texts = distinct_paragraphs(40)
    own = distinct_paragraphs(3, 14)
    whole = "\n\n".join([*texts, texts[n - 1], *own])
    (tmp_path / "a.txt").write_text(whole, encoding="utf-8")
    data = prepare(PrepareConfig(
        sources=(str(tmp_path / "a.txt"),), out=tmp_path / "out", tokenizer="char",
        validation_fraction=(len("\n\n".join(["", *own])) + 90) / len(whole),
    ))
    assert texts_of(data, "validation") == ["\n\n".join(own)]


def test_one_text_pasted_twice_has_nothing_to_validate_on(tmp_path):
    """Headings too short to be removed are nothing to validate on either."""
    text = "\n\n".join(f"PART {n}\n\n{one}" for n, one in enumerate(distinct_paragraphs(100))) + "\n\n"
    (tmp_path / "a.txt").write_text(text + text, encoding="utf-8")
    config = PrepareConfig(sources=(str(tmp_path / "a.txt"),), out=tmp_path / "out", tokenizer="char")
    with pytest.raises(DataError, match="all of its validation part is also in the text before it"):
        prepare(config)
    assert not (tmp_path / "out").exists()
    split = prepare(dataclasses.replace(config, documents="paragraph"))
    assert len(texts_of(split, "train")) + len(texts_of(split, "validation")) == 200


def test_copies_are_found_across_the_chunks_of_a_file_with_spaces_in_its_blank_lines(tmp_path):
    text = " \n \n".join(one.replace(" ", " \n ") for one in distinct_paragraphs(1900)) + " \n \n"
    assert len(text) > 1.2 * (1 << 18)
    (tmp_path / "a.txt").write_text(text + text, encoding="utf-8")
    with pytest.raises(DataError, match="all of its validation part is also in the text before it"):
        prepare(PrepareConfig(sources=(str(tmp_path / "a.txt"),), out=tmp_path / "out", tokenizer="char"))


def test_large_files_of_a_folder_are_a_document_each(tmp_path):
    (tmp_path / "texts").mkdir()
    texts = [sentence(random.Random(n), 70_000) for n in range(3)]
    for number, text in enumerate([*texts, texts[1]]):
        (tmp_path / "texts" / f"{number}.txt").write_text(text, encoding="utf-8")
    data = prepare(PrepareConfig(
        sources=(str(tmp_path / "texts"),), out=tmp_path / "out", tokenizer="char", validation_fraction=0.4
    ))
    assert sorted(texts_of(data, "train") + texts_of(data, "validation")) == sorted(texts)
    assert data.info.duplicates["exact"] == 1


def test_given_splits_and_what_they_share(tmp_path):
    for name, texts in {"train": ["one two three", "four five six", "seven"], "validation": ["four five six"],
                        "test": ["unseen text here"]}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    files = {name: (str(tmp_path / f"{name}.jsonl"),) for name in ("train", "validation", "test")}
    config = PrepareConfig(**files, out=tmp_path / "out", tokenizer="char")
    data = prepare(config)
    assert data.info.duplicates["leaks"] == {"validation": 1, "test": 0}
    assert len(texts_of(data, "train")) == 3
    cleaned = prepare(dataclasses.replace(config, remove_leaks=True, overwrite=True))
    assert texts_of(cleaned, "train") == ["one two three", "seven"]
    assert texts_of(cleaned, "validation") == ["four five six"]


def test_empty_split_is_said(tmp_path, capfd):
    (tmp_path / "a.jsonl").write_text('{"text": "only one"}\n')
    data = prepare(PrepareConfig(sources=(str(tmp_path / "a.jsonl"),), out=tmp_path / "out"))
    assert list(data.splits) == ["train"]
    assert "validation: empty" in capfd.readouterr().err
    with pytest.raises(DataError, match="no validation split"):
        data.split("validation")

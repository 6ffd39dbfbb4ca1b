"""The bench that prints facts of real sentences for a reader."""

import importlib.util
import json
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "bench" / "triples_of_text.py"
spec = importlib.util.spec_from_file_location("triples_of_text", BENCH)
triples_of_text = importlib.util.module_from_spec(spec)
spec.loader.exec_module(triples_of_text)


def corpus(folder):
    """One paragraph in each of the two formats, and lines of WikiText that are not read."""
    (folder / "xquad").mkdir()
    (folder / "wikitext2").mkdir()
    article = {"data": [{"paragraphs": [{"context": "Ada Lovelace lived in London. She died in London in 1852."}]}]}
    (folder / "xquad" / "xquad.en.json").write_text(json.dumps(article), encoding="utf-8")
    (folder / "wikitext2" / "test.txt").write_text(
        " = A heading about the town = \n\n"
        " The well @-@ known \" Tower \" was built in 1,900 , 5 m from Rome 's walls . \n"
        " The man <unk> was born in Ulm in 1900 . \n", encoding="utf-8")
    return folder


def test_spaces_of_tokens_are_taken_out(tmp_path):
    assert list(triples_of_text.paragraphs(corpus(tmp_path)))[1:] == [
        'The well-known "Tower" was built in 1,900, 5 m from Rome\'s walls.']


def test_a_seed_draws_the_same_sentences_with_their_own_facts(tmp_path):
    folder = corpus(tmp_path)
    drawn = list(triples_of_text.drawn(folder, 0))
    assert drawn == list(triples_of_text.drawn(folder, 0))
    assert dict(drawn)["She died in London in 1852."] == [
        ("Ada Lovelace", "die in", "London"), ("Ada Lovelace", "die in", "1852")]


def test_a_part_of_wikitext_is_drawn_alone(tmp_path):
    folder = corpus(tmp_path)
    (folder / "wikitext2" / "valid.txt").write_text(" Smith was born in Rome in 1900 . \n", encoding="utf-8")
    assert list(triples_of_text.paragraphs(folder, "validation")) == ["Smith was born in Rome in 1900."]
    assert len(list(triples_of_text.paragraphs(folder, "test"))) == 1


def test_so_many_facts_are_printed_as_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["triples_of_text.py", str(corpus(tmp_path)), "--facts", "2"])
    triples_of_text.main()
    out = capsys.readouterr().out
    assert "    2. " in out
    assert "    3. " not in out
    assert out.splitlines()[-1].startswith("2 facts of ")

"""Tagged text in every scheme, and the line numbers of what is wrong with it."""

import pytest

from tickwise.core.errors import DataError
from tickwise.data.tagged import Span, chunks, detect_scheme, entity_types, read_tagged, to_tags

PER, LOC = "PER", "LOC"
ENTITIES = [Span(0, 1, PER), Span(1, 3, PER), Span(4, 7, LOC), Span(7, 8, PER)]
WRITTEN = {
    "iob1": "I-PER B-PER I-PER O I-LOC I-LOC I-LOC I-PER O",
    "bio": "B-PER B-PER I-PER O B-LOC I-LOC I-LOC B-PER O",
    "iobes": "S-PER B-PER E-PER O B-LOC I-LOC E-LOC S-PER O",
    "bmes": "S-PER B-PER E-PER O B-LOC M-LOC E-LOC S-PER O",
    "bilou": "U-PER B-PER L-PER O B-LOC I-LOC L-LOC U-PER O",
}


@pytest.mark.parametrize("scheme", WRITTEN)
def test_each_scheme_writes_and_reads_the_same_entities(scheme, tmp_path):
    tags = WRITTEN[scheme].split()
    assert to_tags(9, ENTITIES, scheme) == tags
    assert chunks(tags) == ENTITIES
    assert detect_scheme([tags]) == scheme
    path = tmp_path / "data.conll"
    path.write_text("".join(f"w{i} {tag}\n" for i, tag in enumerate(tags)), encoding="utf-8")
    (sentence,) = read_tagged(path)
    assert list(sentence.entities) == ENTITIES
    assert sentence.tokens == tuple(f"w{i}" for i in range(9))


def test_one_single_entity_after_another_in_iob1():
    spans = [Span(0, 1, PER), Span(1, 2, PER), Span(2, 3, LOC)]
    assert to_tags(3, spans, "iob1") == ["I-PER", "B-PER", "I-LOC"]
    assert chunks(["I-PER", "B-PER", "I-LOC"]) == spans


@pytest.mark.parametrize(("tags", "expected"), [
    # by hand from conlleval.pl's startOfChunk and endOfChunk
    ("I-A I-A O I-B", [Span(0, 2, "A"), Span(3, 4, "B")]),
    ("I-A I-B", [Span(0, 1, "A"), Span(1, 2, "B")]),
    ("B-A I-B I-B", [Span(0, 1, "A"), Span(1, 3, "B")]),
    ("O E-A E-A", [Span(1, 2, "A"), Span(2, 3, "A")]),
    ("B-A E-A I-A", [Span(0, 2, "A"), Span(2, 3, "A")]),
    ("S-A I-A", [Span(0, 1, "A"), Span(1, 2, "A")]),
    ("B-A S-A", [Span(0, 1, "A"), Span(1, 2, "A")]),
    ("O O", []),
])
def test_chunks_of_tags_that_follow_no_scheme_are_conlleval_s(tags, expected):
    assert chunks(tags.split()) == expected


def write(tmp_path, text, name="data.conll"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_columns_documents_and_breaks(tmp_path):
    text = ("-DOCSTART- -X- O O\n\nEU NNP I-NP I-ORG\nrejects VBZ I-VP O\n \t \nPeter NNP I-NP I-PER\n\n\n"
            "-DOCSTART- -X- O O\n\nBonn NNP I-NP I-LOC\n")
    sentences = read_tagged(write(tmp_path, text))
    assert [s.tokens for s in sentences] == [("EU", "rejects"), ("Peter",), ("Bonn",)]
    assert [s.document for s in sentences] == [0, 0, 1]
    assert [s.line for s in sentences] == [3, 6, 11]
    assert entity_types(sentences) == ("LOC", "ORG", "PER")
    chunked = read_tagged(write(tmp_path, text), tag_column=2)
    assert chunked[0].entities == (Span(0, 1, "NP"), Span(1, 2, "VP"))


def test_json_lines(tmp_path):
    path = write(tmp_path, '{"tokens": ["Ada", "sang"], "tags": ["B-PER", "O"]}\n', "data.jsonl")
    assert read_tagged(path)[0].entities == (Span(0, 1, PER),)


def test_windows_line_ends_byte_order_mark_emoji_and_right_to_left(tmp_path):
    path = tmp_path / "data.conll"
    path.write_bytes("\ufeff😀 O\r\nירושלים B-LOC\r\n\r\nشمس O\r\n".encode())
    sentences = read_tagged(path)
    assert [s.tokens for s in sentences] == [("😀", "ירושלים"), ("شمس",)]
    assert sentences[0].entities == (Span(1, 2, LOC),)


@pytest.mark.parametrize(("text", "said"), [
    ("", "empty"),
    ("\n\n", "empty"),
    ("a B-PER\nb O\nc I-PER\n", "line 3: I-PER follows O; in bio"),
    ("a B-PER\nb O\n\nc I-PER\nd B-LOC\n", "line 4: I-PER follows the start of a sentence"),
    ("a B-PER\nb I-LOC\nc O\nd B-LOC\n", "line 2: I-LOC follows B-PER"),
    ("a S-PER\nb B-PER\nc O\n", "line 3: O follows B-PER, which iobes does not allow"),
    ("a B-PER\nb M-PER\n", "line 2: M-PER ends a sentence, and bmes ends an entity with E-PER"),
    ("a B-PER\nb PER\n", "line 2: the tag 'PER' is none of bio's"),
    ("a O\nb x O\n", "line 2: 3 columns, the lines before have 2"),
    ("a\nb\n", "line 1: one column"),
    ("a\tO\n\tO\n", "line 2: an empty token"),
])
def test_mistakes_are_one_line_with_the_place(tmp_path, text, said):
    with pytest.raises(DataError, match=said.replace("'", ".")) as problem:
        read_tagged(write(tmp_path, text))
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize("separator", [" ", "\t"])
def test_spaces_of_other_kinds_are_tokens(tmp_path, separator):
    path = tmp_path / "a.conll"
    rows = [("李", "B-PER"), ("\u3000", "I-PER"), ("明", "I-PER"), ("\u00a0", "O")]
    path.write_text("".join(f"{token}{separator}{tag}\n" for token, tag in rows) + "\u3000\n\n好" + separator + "O \n",
                    encoding="utf-8")
    first, second = read_tagged(path)
    assert first.tokens == tuple(token for token, _ in rows)
    assert first.entities == (Span(0, 3, "PER"),)
    assert second.tokens == ("好",)


def test_lenient_reads_what_follows_no_scheme(tmp_path):
    (sentence,) = read_tagged(write(tmp_path, "a B-PER\nb O\nc I-PER\n"), scheme="lenient")
    assert sentence.entities == (Span(0, 1, PER), Span(2, 3, PER))


@pytest.mark.parametrize(("row", "said"), [
    ('{"tokens": ["a", "b"], "tags": ["O"]}', "line 1: 2 tokens and 1 tags"),
    ('{"tokens": ["a"]}', "line 1: each row must be like"),
    ("{", "line 1: not valid JSON"),
])
def test_mistakes_in_json_lines(tmp_path, row, said):
    with pytest.raises(DataError, match=said):
        read_tagged(write(tmp_path, row + "\n", "data.jsonl"))


def test_a_column_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"there is no column 7 for the tag; give --options\.tag-column"):
        read_tagged(write(tmp_path, "a O\n"), tag_column=7)


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_tagged(tmp_path / "nowhere.conll")


def test_the_real_data_has_the_published_counts(shared_data):
    english = read_tagged(shared_data / "conll2003" / "eng.testb")
    assert (len(english), sum(len(s.entities) for s in english)) == (3453, 5648)  # Tjong Kim Sang & De Meulder 2003
    chinese = read_tagged(shared_data / "resume_ner" / "test.char.bmes")
    assert (len(chinese), sum(len(s.entities) for s in chinese)) == (477, 1630)
    noisy = read_tagged(shared_data / "wnut17" / "emerging.test.annotated")
    assert (len(noisy), sum(len(s.entities) for s in noisy)) == (1287, 1079)


def test_one_wrong_tag_does_not_make_another_scheme(tmp_path):
    """The line that breaks the scheme of the rest is named, not the first that breaks one guessed by a prefix."""
    lines = ["Ada B-PER", "Byron I-PER", "sleeps O", ""] * 20 + ["Oslo S-LOC", ""]
    with pytest.raises(DataError, match=r"line 81: .*S-LOC.* is none of bio's"):
        read_tagged(write(tmp_path, "\n".join(lines) + "\n"))

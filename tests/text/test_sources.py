import gzip
import io
import json

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tickwise.core.errors import DataError
from tickwise.text.documents import chunk_documents
from tickwise.text.sources import ChunkReader, ReadSettings, find_files

DOCUMENTS = ["First one.", "Ein zweites, mit ü.", "第三个文件。", 'with "quotes", commas', "last"]


def read(path, **settings) -> list[str]:
    return read_documents([str(path)], ReadSettings(**settings))


def read_documents(sources, settings) -> list[str]:
    chunks = ChunkReader(find_files(sources), settings)
    return [text for chunk in chunks for text in chunk_documents(chunk, settings).texts]


@pytest.mark.parametrize("documents", ["line", "paragraph", "---"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_documents_of_a_text_file(tmp_path, documents, line_end):
    separator = {"line": "\n", "paragraph": "\n\n", "---": "\n---\n"}[documents]
    file = tmp_path / "a.txt"
    file.write_bytes(separator.join(DOCUMENTS).replace("\n", line_end).encode())
    assert read(file, documents=documents) == DOCUMENTS


def test_every_format_gives_the_same_documents(tmp_path):
    rows = [{"body": text, "n": 1} for text in DOCUMENTS]
    lines = "\n".join(json.dumps(row) for row in rows) + "\n"
    (tmp_path / "a.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    with gzip.open(tmp_path / "b.jsonl.gz", "wt", encoding="utf-8") as stream:
        stream.write(lines)
    quoted = "".join('1,"{}"\n'.format(text.replace('"', '""')) for text in DOCUMENTS)
    (tmp_path / "a.csv").write_text("n,body\n" + quoted, encoding="utf-8-sig")
    tabbed = ("n,body\n" + quoted).replace(",\"", "\t\"").replace("n,b", "n\tb")
    (tmp_path / "a.tsv").write_text(tabbed, encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.table({"body": DOCUMENTS}), tmp_path / "a.parquet")
    for file in sorted(tmp_path.iterdir()):
        assert read(file, field="body") == DOCUMENTS, file.name


@settings(max_examples=60, deadline=None)
@example(text="aaé我\r\n", size=4, documents="file")
@given(
    text=st.text(alphabet="ab é我\n \r", max_size=200), size=st.integers(4, 40),
    documents=st.sampled_from(["file", "line", "paragraph", "a"]),
)
def test_chunk_size_does_not_matter(tmp_path_factory, text, size, documents):
    file = tmp_path_factory.mktemp("chunks") / "a.txt"
    file.write_bytes((text + "x").encode())
    settings = ReadSettings(documents=documents)

    def documents_of(chunk_bytes: int) -> list[str]:
        reader = ChunkReader([str(file)], settings, chunk_bytes)
        texts = [t for chunk in reader for t in chunk_documents(chunk, settings).texts]
        return ["".join(texts)] if documents == "file" else texts

    assert documents_of(size) == documents_of(1 << 20)


def test_many_small_files_are_a_document_each_and_big_ones_continue(tmp_path):
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text(f"file {number}\n" * (1 if number else 300), encoding="utf-8")
    settings = ReadSettings()
    chunks = list(ChunkReader(find_files([str(tmp_path)]), settings, chunk_bytes=1000))
    assert [chunk.kind for chunk in chunks[-1:]] == ["rows"]
    assert chunks[1].continues
    assert chunk_documents(chunks[-1], settings).texts == [f"file {n}\n" for n in range(1, 5)]


def test_standard_input(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(b"one\ntwo\n"))
    monkeypatch.setattr("sys.stdin", stream)
    assert read_documents(["-"], ReadSettings(documents="line")) == ["one", "two"]


def test_sources_carry_size_and_hash_of_the_file_as_it_lies_on_disk(tmp_path):
    from tickwise.data.prepared import file_hash

    file = tmp_path / "a.txt.gz"
    file.write_bytes(gzip.compress(b"text\n" * 1000))
    reader = ChunkReader([str(file)], ReadSettings())
    assert sum(len(chunk.data) for chunk in reader) == 5000
    (source,) = reader.sources
    assert (source.bytes, source.xxh3_128) == (file.stat().st_size, file_hash(file))


@pytest.mark.parametrize("order", ["le", "be"])
def test_utf16_with_its_mark_is_read(tmp_path, order):
    text = "".join(f"{i} 第三, ü 😀\n" for i in range(60_000))
    (tmp_path / "a.txt").write_bytes(f"\ufeff{text}".encode(f"utf-16-{order}"))
    assert read(tmp_path / "a.txt", documents="line") == text.splitlines()
    (tmp_path / "a.csv").write_bytes("\ufefftext,n\r\nein ü,1\r\n".encode(f"utf-16-{order}"))
    assert read(tmp_path / "a.csv") == ["ein ü"]


BAD_INPUT = {
    "empty": ("a.txt", b"", {}, "a.txt: empty"),
    "binary": ("a.txt", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", {}, "looks like a binary file"),
    "utf-16 without a mark": ("a.txt", "text".encode("utf-16-le"), {}, "iconv -f UTF-16LE"),
    "cut utf-16": ("a.txt", "text".encode("utf-16")[:-1], {}, "a.txt: not valid UTF-16"),
    "latin-1": ("a.txt", b"line\n" * 300_000 + b"caf\xe9\n", {}, "not valid UTF-8 at byte 1500003 (0xe9)"),
    "cut character": ("a.txt", "我".encode()[:2], {}, "not valid UTF-8 at byte 0"),
    "missing field": ("a.jsonl", b'{"text": "x"}\n\n{"body": "y"}\n', {}, "line 3: no field 'text' (it has body)"),
    "field of a wrong type": ("a.jsonl", b'{"text": 3}\n', {}, "line 1: field 'text' is not text but int"),
    "broken json": ("a.jsonl", b'{"text": "x"}\n{"text": \n', {}, "line 2: not valid JSON"),
    "not an object": ("a.jsonl", b"[1]\n", {}, "line 1: not a JSON object"),
    "broken json list": ("a.json", b'[{"text": "x"},', {}, "a.json: not valid JSON"),
    "json number": ("a.json", b"5", {}, "a.json: not a list of JSON objects but 5"),
    "json null": ("a.json", b"null", {}, "a.json: not a list of JSON objects but null"),
    "json text": ("a.json", b'"text"', {}, "a.json: not a list of JSON objects"),
    "invalid json byte": ("a.json", b'[{"text": "caf\xe9"}]', {}, "not valid UTF-8 at byte 14 (0xe9)"),
    "invalid json byte after a mark": ("a.json", b'\xef\xbb\xbf{"text": "caf\xe9"}', {}, "not valid UTF-8 at byte 16"),
    "missing column": ("a.csv", b"n,body\n1,x\n", {}, "no column 'text' (it has n, body)"),
    "short row": ("a.csv", b"n,text\n1,x\n2\n", {}, "line 3: 1 columns"),
    "invalid csv byte": ("a.csv", b"text\nab\n\xff\n", {}, "not valid UTF-8 at byte 8"),
    "parquet": ("a.parquet", b"PAR1 not really", {}, "not a valid parquet file"),
    "gz by name": ("a.txt.gz", b"plain text", {}, "not a gzip file"),
    "truncated gz": ("a.txt.gz", gzip.compress(b"text\n" * 10_000)[:40], {}, "ends too early"),
    "corrupt gz": ("a.txt.gz", gzip.compress(b"text\n" * 10_000)[:-8] + b"\0" * 8, {}, "not a valid gzip file"),
    "no border": ("a.txt", b"x" * 17_000_000, {"documents": "line"}, "choose another --documents"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_with_file_and_place(tmp_path, case):
    name, content, settings, message = BAD_INPUT[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(tmp_path / name, **settings)
    assert message in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "content"), [
    ("a.txt", b"caf\xe9 au lait"), ("a.csv", b"text\ncaf\xe9 au lait\n"),
    ("a.json", b'[{"text": "caf\xe9 au lait"}]'), ("a.jsonl", b'{"text": "caf\xe9 au lait"}'),
])
def test_replacing_invalid_bytes(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert read(tmp_path / name, errors="replace") == ["caf\ufffd au lait"]


def test_missing_sources(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        find_files([str(tmp_path / "nowhere.txt")])
    with pytest.raises(DataError, match="no text files"):
        find_files([str(tmp_path)])

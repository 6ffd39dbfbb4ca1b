import sys

import pytest

from tickwise.core.errors import DataError, OutputError
from tickwise.demo import corpus
from tickwise.demo.run import run_demo


@pytest.fixture
def library(tmp_path):
    """A standard library of four modules, one of them a test and one that does not parse."""
    long = "Do something that takes at least eighty characters to describe, as a careful author would do."
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "inside.py").write_text(f'"""{long}"""')
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "alpha.py").write_text(f'"""Alpha.\n\n\n\n\tIndented.   \n"""\nraise SystemExit\n'
                                       f'def act(x, *, y=1):\n    """{long}"""\n'
                                       f'def _hidden():\n    """{long} hidden"""\n'
                                       f'class Box:\n    def open(self):\n        """{long} Box."""\n')
    (tmp_path / "copy.py").write_text("x = 1\n")
    return tmp_path


def test_docstrings_are_gathered_without_running_the_modules(library):
    documents = dict(corpus.standard_library_docstrings(library))
    assert list(documents) == ["module alpha"]
    text = documents["module alpha"]
    assert "act(x, *, y=1)\n    Do something" in text
    assert "Box.open(self)" in text
    assert "hidden" not in text


def test_the_text_is_clean(library, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    text = corpus.gather(10**6, library)
    assert "\t" not in text
    assert " \n" not in text
    assert text.startswith("alpha\n=====\n\nAlpha.\n\nIndented.")


def test_without_the_language_reference_the_docstrings_are_enough(library, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    assert list(corpus.reference_topics()) == []
    assert corpus.gather(10**6, library)


def test_without_any_documentation_one_line_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(DataError, match="tickwise train FILE"):
        corpus.gather(10**6, tmp_path)


def test_the_text_is_bounded_and_the_same_every_time(library):
    first = corpus.gather(100_000, library)
    assert len(first.encode()) <= 100_000
    assert corpus.gather(100_000, library) == first
    assert corpus.gather(200_000, library).startswith(first.rstrip("\n"))


def test_a_text_of_the_users_own_is_not_overwritten(library, tmp_path_factory, monkeypatch):
    gather = corpus.gather
    monkeypatch.setattr(corpus, "gather", lambda limit: gather(limit, library))
    path = tmp_path_factory.mktemp("out") / "text.txt"
    corpus.write_corpus(path, 10**6, replace=False)
    corpus.write_corpus(path, 10**6, replace=False)  # its own, from a demo that was stopped early
    path.write_text("my diary")
    with pytest.raises(OutputError, match="choose another --out"):
        run_demo(path.parent, 1, "tickwise demo")
    assert path.read_text() == "my diary"
    assert [p.name for p in path.parent.iterdir()] == ["text.txt"]
    corpus.write_corpus(path, 10**6)
    assert path.read_text() != "my diary"

"""What a table of runs may look like, and what is said when it does not."""

import json

import numpy
import pyarrow
import pyarrow.parquet
import pytest

from known_laws import write_runs
from tickwise.core.errors import DataError
from tickwise.scaling.runs import Columns, list_excluded, read_runs

_HEADER = ("parameters", "tokens", "loss")
_ROWS = [(1e7, 1e9, 3.0), (1e8, 1e9, 2.9), (1e7, 1e10, 2.8)]


def test_formats_and_names_of_columns_give_the_same_runs(tmp_path):
    plain = read_runs(write_runs(tmp_path / "runs.csv", _HEADER, _ROWS))
    flops = read_runs(write_runs(tmp_path / "flops.csv", ("Model Size", "Training FLOP", "Loss"),
                                 [(n, 6 * n * d, loss) for n, d, loss in _ROWS]))
    lines = tmp_path / "runs.jsonl"
    lines.write_text("".join(json.dumps(dict(zip(_HEADER, row, strict=True))) + "\n" for row in _ROWS))
    pyarrow.parquet.write_table(pyarrow.table({name: [row[i] for row in _ROWS] for i, name in enumerate(_HEADER)}),
                                tmp_path / "runs.parquet")
    for other in (flops, read_runs(lines), read_runs(tmp_path / "runs.parquet")):
        for name in ("parameters", "tokens", "flops", "losses"):
            numpy.testing.assert_allclose(getattr(other, name), getattr(plain, name))


def test_columns_may_be_named(tmp_path):
    path = write_runs(tmp_path / "runs.csv", ("size", "tokens", "nats"), _ROWS)
    runs = read_runs(path, Columns(parameters="size", loss="nats"))
    numpy.testing.assert_allclose(runs.parameters, [1e7, 1e8, 1e7])
    with pytest.raises(DataError, match="no column 'sise'; did you mean 'size'"):
        read_runs(path, Columns(parameters="sise", loss="nats"))


def test_trials_without_a_loss_are_excluded_and_listed(tmp_path):
    rows = [*_ROWS, (1e8, 1e10, "nan"), (1e8, 2e10, ""), (1e9, 1e10, "inf")]
    runs = read_runs(write_runs(tmp_path / "runs.csv", _HEADER, rows))
    assert len(runs) == 3
    assert list_excluded(runs.excluded) == ["excluded: loss nan (row 4)", "excluded: no loss (row 5)",
                                            "excluded: loss inf (row 6)"]


def test_the_highest_losses_are_dropped_with_their_ties(tmp_path):
    rows = [*_ROWS, (1e8, 1e10, 2.9)]
    runs = read_runs(write_runs(tmp_path / "runs.csv", _HEADER, rows), drop_highest=2)
    assert runs.losses.tolist() == [2.8]
    assert len(runs.excluded) == 3


def test_compute_is_six_times_parameters_times_tokens_however_a_table_counts(tmp_path):
    counted = [(n, d, loss, 1.4 * 6 * n * d) for n, d, loss in _ROWS]
    runs = read_runs(write_runs(tmp_path / "runs.csv", (*_HEADER, "flops"), counted))
    assert runs.flops.tolist() == [6 * n * d for n, d, _ in _ROWS]


@pytest.mark.parametrize(("header", "rows", "message"), [
    (("parameters", "tokens"), [(1, 2)], "no column of loss"),
    (("tokens", "loss"), [(1, 2)], "no column of parameters"),
    (("parameters", "loss"), [(1e7, 2)], "no column of tokens or FLOPs"),
    (_HEADER, [], "no rows"),
    (_HEADER, [*_ROWS, (1e8, 1e10, -0.1)], "row 4: loss is -0.1; it must be a positive number"),
    (_HEADER, [*_ROWS, (1e8, 1e10, 0)], "row 4: loss is 0; it must be"),
    (_HEADER, [*_ROWS, (0, 1e10, 2)], "row 4: parameters is 0; it must be"),
    (_HEADER, [*_ROWS, ("", 1e10, 2)], "row 4: parameters is missing"),
    (_HEADER, [*_ROWS, ("big", 1e10, 2)], "row 4: parameters is 'big'; it must be a number"),
    (_HEADER, [*_ROWS, _ROWS[1]], "row 4: the same run and loss as row 2"),
    (_HEADER, [(n, d, 3.0) for n, d, _ in _ROWS], "every run has the same loss, 3"),
    (_HEADER, [(n, d, "nan") for n, d, _ in _ROWS], "none of its 3 runs has a loss"),
    (_HEADER, [(n / 1e6, d, loss) for n, d, loss in _ROWS], "a model of 10 parameters; are they counted in millions"),
    ((*_HEADER, "flops"), [(n, d, loss, 6e-6 * n * d) for n, d, loss in _ROWS],
     "1 × 10⁻⁶ times 6 × parameters × tokens"),
    (_HEADER, [(n, d / 1e9, loss) for n, d, loss in _ROWS], "are tokens counted in millions or billions"),
    (("parameters", "flops", "loss"), [(n, 6e-9 * n * d, loss) for n, d, loss in _ROWS],
     "are FLOPs counted in millions or billions"),
    (_HEADER, [*_ROWS, (1e8, 1e10, 3, 4, 5)], "row 4: 5 cells under 3 headings"),
    ((*_HEADER, "loss"), [(*row, 2.0) for row in _ROWS], "2 columns are named 'loss'"),
    ((*_HEADER, "Loss"), [(*row, 2.0) for row in _ROWS],
     "2 columns could be meant: 'loss', 'Loss'; name one with --columns.loss"),
])
def test_what_cannot_be_fitted_is_refused_in_one_line(tmp_path, header, rows, message):
    with pytest.raises(DataError) as refused:
        read_runs(write_runs(tmp_path / "runs.csv", header, rows))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("name", "content", "message"), [
    ("runs.txt", b"x", "ends in .csv"), ("runs.jsonl", b"{", "line 1: not valid JSON"),
    ("runs.jsonl", b"[1]", "line 1: not a"),
    ("runs.parquet", b"PAR", "not a readable Parquet file"), ("runs.csv", b"\xff\xfe,", "not UTF-8"),
    ("runs.csv", b"parameters;tokens;loss\n1e7;1e9;3\n", "separated by semicolons"),
    ("runs.csv", b"parameters\ttokens\tloss\n1e7\t1e9\t3\n", "separated by tabs;.* name it .tsv"),
    ("runs.tsv", b"parameters,tokens,loss\n1e7,1e9,3\n", "separated by commas;.* name it .csv"),
])
def test_files_that_are_no_tables_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_runs(tmp_path / name)
    with pytest.raises(DataError, match="no such file"):
        read_runs(tmp_path / "missing.csv")
    with pytest.raises(DataError, match="a folder; give a table"):
        read_runs(tmp_path)


def test_the_vocabulary_is_that_of_all_runs(tmp_path):
    header = ("parameters", "tokens", "loss", "vocab_size")
    rows = [(1e6 * i, 1e9, 3 - i / 10, 512) for i in range(1, 4)]
    table = write_runs(tmp_path / "a.csv", header, rows)
    assert read_runs(table).vocab_size == read_runs(table, drop_highest=1).vocab_size == 512
    assert read_runs(write_runs(tmp_path / "b.csv", header[:3], [row[:3] for row in rows])).vocab_size is None
    with pytest.raises(DataError, match=r"different vocabularies, 512 \(row 1\), 600 \(row 4\)"):
        read_runs(write_runs(tmp_path / "c.csv", header, [*rows, (5e6, 1e9, 2.0, 600)]))

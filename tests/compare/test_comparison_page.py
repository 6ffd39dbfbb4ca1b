"""The page says what the conclusions say, job by job."""

import re

import pytest

from tickwise.compare.cases import NEW, NOISY, SEEN
from tickwise.compare.conclusions import conclude
from tickwise.compare.page import comparison_page

KINDS = (SEEN, NEW, NOISY)


def estimate(value, p):
    return {"value": value, "low": 0.9 * value, "high": 1.1 * value, "p": p, "test": ""}


def contestant(name, kind, score, steps):
    found = {"value": score, "low": score - 0.05, "high": score + 0.05, "n": 100}
    return {"kind": kind, "name": name, "operations": "", "steps": steps, "accuracy": dict.fromkeys(KINDS, found),
            "costs": {"processor_s": 2e-3, "wall_s": 3e-3, "ledger_s": 4e-3, "operations": 1.5e6, "bytes_moved": None,
                      "energy_j": 1e-3, "energy_source": "modelled from time"},
            "memory_bytes": 1000, "deterministic": 1.0, "training": None if steps else {"seconds": 60, "flops": 2e9}}


def job(title, p_learnt):
    changed = {"what": "an edit <b>", "bar": 0.8, "before": 0.3, "after": 0.9, "passed": True, "seconds": 2e-3,
               "not_yet_s": 0.0, "accuracy": {key: {"value": 0.95, "low": 0.9, "high": 1.0} for key in KINDS}}
    return {
        "job": title.lower(), "title": title, "about": "a job", "score": "right", "plain": NEW, "given": False,
        "cases": dict.fromkeys(KINDS, 100), "examples": {NEW: {"input": "1<2", "answer": "3"}},
        "constant": {"name": "always “x”", "score": 0.1}, "development": {"rules": 0.9, "naive Bayes": 0.8},
        "contestants": [contestant("rules", "classical", 0.9, {"hash probes": 3.0}),
                        contestant("naive Bayes", "classical", 0.8, {"additions": 7.0}),
                        contestant("decoder", "language model", 0.6, None)],
        "changes": {"program": changed, "model": changed | {"passed": False, "seconds": 61.0}},
        "evidence": {
            "program": "rules", "model": "decoder", "constant": "x",
            "differences": {SEEN: estimate(-0.3, 1e-9), NEW: estimate(-0.3, 1e-9), NOISY: estimate(0.4, 1e-9)},
            "learnt": {"program": estimate(0.8, 1e-9), "model": estimate(0.5, p_learnt)},
            "time": estimate(1000.0, 1e-9), "timed": 40, "memory": 50.0, "after_changes": estimate(-0.1, 0.5),
            "turning_share": {"value": 0.43, "low": 0.37, "high": 0.5}, "prices": {}}}


@pytest.fixture(scope="module")
def page():
    jobs = {"one": job("Learnt", 1e-9), "two": job("Unlearnt", 0.9)}
    conclusions, n = conclude(jobs)
    return comparison_page({"jobs": {name: one | {"conclusion": conclusions[name]} for name, one in jobs.items()},
                            "tests": n, "skipped": {"translate": "no data"}}, "tickwise compare")


def rows(page, heading):
    """Cells of the table under a heading, by row."""
    section = next(part for part in page.split("<section>") if part.startswith(f"<h2>{heading}"))
    return {cells[0]: cells[1:] for cells in (re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)
                                              for row in section.split("<tr>")[1:])}


def test_factors_and_turning_points_are_those_of_jobs_that_were_learnt(page):
    found = rows(page, "What it costs")
    assert found["Learnt"] == ["program", "model", "43 % (37–50)", "1,000 × (900–1,100)", "50 ×"]
    assert found["Unlearnt"] == ["program", "model", "n/a", "n/a (model)", "n/a"]
    assert "no factor" in page


def test_a_change_is_shown_for_both(page):
    found = rows(page, "What a change takes")
    assert found["Learnt"] == ["2 ms", "not within 61 s", "95.0 %", "95.0 %", "none shown"]
    assert found["Unlearnt"] == ["2 ms", "n/a", "95.0 %", "n/a", "n/a"]


def test_units_of_operations_have_rows_of_their_own(page):
    found = rows(page, "Learnt: the figures")
    assert found["FLOPs of an answer (counted)"] == ["n/a", "n/a", "1.5M"]
    assert found["hash probes for an answer (counted)"] == ["3", "n/a", "n/a"]
    assert found["additions for an answer (counted)"] == ["n/a", "7", "n/a"]
    assert found["energy of an answer (modelled from time)"] == ["1 mJ"] * 3
    assert found["bytes moved (counted)"] == ["n/a"] * 3
    assert found["time of the change (measured)"] == ["2 ms", "n/a", "not within 61 s"], "of the program compared"


def test_texts_are_escaped_and_what_was_left_out_is_said(page):
    assert "1&lt;2" in page
    assert "an edit &lt;b&gt;" in page
    assert "translate was left out: no data" in page
    assert "All 14 tests of this page are corrected together" in page

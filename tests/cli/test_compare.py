"""tickwise compare: a job from training to page, what goes on, what is refused."""

import json
import shutil

import pytest

from tickwise.compare import learners


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Sorting, with a model of two seconds."""
    from tickwise.cli import main

    out = tmp_path_factory.mktemp("compare")
    words = ["compare", "--jobs", "sort", "translate", "--seconds", "2", "--cases", "12", "--timed", "3", "--out",
             str(out), "-q"]
    assert main(words) == 0
    return out, words


def test_every_figure_is_there_or_said_to_be_unknown(compared):
    out, _ = compared
    found = json.loads((out / "compare.json").read_text())
    assert found["skipped"] == {"translate": "needs --data-dir with multi30k/train.en.gz"}
    job = found["jobs"]["sort"]
    program, model = job["contestants"]
    assert [program["kind"], model["kind"]] == ["classical", "language model"]
    assert program["accuracy"]["seen"]["value"] == 1
    for one in (program, model):
        assert min(one["costs"][name] for name in ("processor_s", "wall_s", "ledger_s")) > 0
        assert one["costs"]["operations"] > 0
        assert one["costs"]["bytes_moved"] > 0
        assert one["costs"]["energy_source"] in ("measured", "modelled from time")
        assert one["memory_bytes"] > 0
        assert one["deterministic"] == 1
    assert program["steps"]["comparisons"] >= 5
    assert model["training"]["flops"] > 1e9
    assert job["changes"]["program"]["passed"] is True
    assert job["evidence"]["time"]["value"] == pytest.approx(
        model["costs"]["processor_s"] / program["costs"]["processor_s"])
    assert job["conclusion"]["able"] == {"program": True, "model": False}, "two seconds teach it nothing"
    assert (job["conclusion"]["time"], job["conclusion"]["memory"]) == (None, None)
    assert any("not shown that the model has learnt" in line for line in job["conclusion"]["sentences"])
    lines = [json.loads(line) for line in (out / "sort" / "answers.jsonl").read_text().splitlines()]
    assert len(lines) == sum(job["cases"].values())
    assert all(line["answers"]["Timsort"]["answer"] == line["wanted"] for line in lines if line["kind"] == "new")


def test_the_traces_are_traces(compared, tickwise_cli):
    out, _ = compared
    for name in ("trace-program-1", "trace-model"):
        code, shown, err = tickwise_cli("trace", "show", out / "sort" / name, "--json")
        assert code == 0, err
        assert json.loads(shown)


def test_what_is_done_is_not_done_again_and_other_settings_are_refused(compared, tickwise_cli, monkeypatch):
    out, words = compared
    before = (out / "sort" / "result.json").stat().st_mtime_ns
    monkeypatch.setattr(learners.Decoders, "train", None)
    code, shown, _ = tickwise_cli(*words, "--json")
    assert code == 0
    assert (out / "sort" / "result.json").stat().st_mtime_ns == before
    assert json.loads(shown)["jobs"]["sort"]["job"] == "sort"
    code, _, err = tickwise_cli(*words, "--seed", 2)
    assert code == 2
    assert "begun with other settings (seed)" in err


def test_other_data_in_the_same_place_are_not_done(tickwise_cli, tmp_path, monkeypatch):
    data, out = tmp_path / "data", tmp_path / "out"
    (data / "sms_spam").mkdir(parents=True)
    messages = data / "sms_spam" / "SMSSpamCollection"
    lines = [f"ham\tsee you at {i}" for i in range(30)] + [f"spam\twin {i} in cash now" for i in range(30)]
    messages.write_text("\n".join(lines))
    words = ("compare", "--jobs", "spam", "--seconds", 1, "--cases", 9, "--timed", 2, "--data-dir", data, "--out", out)
    assert tickwise_cli(*words)[0] == 0
    monkeypatch.setattr(learners.WordClassifiers, "train", None)
    assert tickwise_cli(*words)[0] == 0
    messages.write_text("\n".join([*lines, "ham\tone more"]))
    code, _, err = tickwise_cli(*words)
    assert code == 2
    assert "begun with other settings (data)" in err


def test_the_page_loads_nothing_and_has_its_pictures(compared):
    page = (compared[0] / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 3
    assert "modelled from time" in page or "(measured)" in page
    assert "Sorting letters" in page
    assert "translate was left out: needs --data-dir" in page
    assert "http-equiv" in page
    assert "n/a" in page


def test_a_browser_shows_the_page_without_complaint(compared, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs a Chromium on this machine, e.g. Debian's package chromium")
    problems, asked = [], []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1000, "height": 800})
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((compared[0] / "report.html").as_uri())
        assert page.locator("h1").inner_text() == "Language models and classical programs"
        assert page.locator("figure svg").count() == 3
        assert page.locator("table").count() == 3
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "nothing sticks out"
        browser.close()
    assert problems == []
    assert len(asked) == 1


@pytest.mark.parametrize(("words", "message"), [
    (("--jobs", "sotr"), "no job 'sotr'; did you mean 'sort'?"), (("--seconds", 0), "--seconds: must be positive"),
    (("--model", "sort"), "give JOB=DIRECTORY"), (("--model", "sort=nowhere"), "no such directory"),
    (("--jobs", "add", "--model", "sort=."), "--jobs leaves sort out"), (("--data-dir", "nowhere"), "no such folder"),
    (("--jobs", "spam", "passages"), "nothing is left to compare; spam: left out: needs --data-dir with sms_spam"),
])
def test_it_refuses_in_one_line(tickwise_cli, tmp_path, words, message):
    code, out, err = tickwise_cli("compare", "--out", tmp_path / "compare", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "compare").exists()

"""The verbs of scale: what they write, print and refuse."""

import json
import re
import shlex

import pytest

_ROWS = "\n".join(f"{n:g},{d:g},{1.7 + 400 / n**0.33 + 900 / d**0.3:.5f}" for n in (1e7, 4e7, 1.6e8, 6.4e8)
                  for d in (1e9, 4e9, 1.6e10, 6.4e10))


@pytest.fixture
def runs_csv(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("parameters,tokens,loss\n" + _ROWS + "\n", encoding="utf-8")
    return path


def test_fit_writes_a_law_a_page_and_pictures(tickwise_cli, runs_csv, tmp_path):
    code, out, _ = tickwise_cli("scale", "fit", runs_csv, "--out", tmp_path / "fit", "--resamples", 40, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["parametric"]["coefficients"]["alpha"]["value"] == pytest.approx(0.33, rel=0.02)
    written = {path.name for path in (tmp_path / "fit").iterdir()}
    assert {"fit.json", "report.html", "frontier.svg", "residuals.svg", "loss.svg", "iso_flop.svg"} <= written
    page = (tmp_path / "fit" / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == len([name for name in written if name.endswith(".svg")])
    assert "<image" not in page, "a picture inside a picture is not shown"
    assert not re.search(r"(src|href)=\"https?://", page.replace('xlink:href="#', "")), "nothing is loaded"


def test_fit_prints_tables_and_notes(tickwise_cli, runs_csv, tmp_path):
    runs_csv.write_text(runs_csv.read_text() + "1e9,1e9,nan\n", encoding="utf-8")
    code, out, err = tickwise_cli("scale", "fit", runs_csv, "--out", tmp_path / "fit", "--resamples", 0)
    assert code == 0
    assert "Parametric law" in out
    assert "n/a" in out, "without resamples there are no intervals"
    assert "excluded: loss nan (row 17)" in err


def test_coefficients_beyond_all_numbers_are_refused_before_anything_is_written(tickwise_cli, tmp_path):
    """The six runs of Chinchilla's table that were stopped first: the best fit takes an exponent beyond 30."""
    table = tmp_path / "six.csv"
    table.write_text("parameters,tokens,loss\n6795600349,245105957.9,5.005582\n2979521172,516164661.5,4.665232\n"
                     "2638630840,616042128.0,3.765618\n2282804341,702550210.8,3.793872\n"
                     "2006673381,811602861.0,3.446995\n1730543416,875041997.0,3.395738\n", encoding="utf-8")
    code, out, err = tickwise_cli("scale", "fit", table, "--out", tmp_path / "fit", "--resamples", 20)
    assert (code, out) == (2, "")
    assert "A grows beyond all numbers; add runs" in err
    assert len(err.strip().splitlines()) == 1, "and no warning of numpy's"
    assert not (tmp_path / "fit").exists()


@pytest.mark.parametrize(("words", "message"), [
    (("--drop-highest", 16), "--drop-highest 16"), (("--resamples", 3), "--resamples 3"), (("--seed", -1), "--seed"),
    (("--columns.loss", "lost"), "no column 'lost'; did you mean 'loss'?"), (("--drop-highest", 12), "4 runs cannot"),
])
def test_fit_refuses_in_one_line(tickwise_cli, runs_csv, tmp_path, words, message):
    code, out, err = tickwise_cli("scale", "fit", runs_csv, "--out", tmp_path / "fit", *words)
    assert code == 2
    assert out == ""
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "fit").exists()


@pytest.fixture
def models_csv(tmp_path):
    path = tmp_path / "models.csv"
    rows = [f"m{i},{2010 + i}-03-0{1 + i % 9},{1e18 * 4.0**i:g},{1e6 * 2.0**i:g}" for i in range(15)]
    path.write_text("model,date,flops,parameters\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_history_tells_growth_and_forecasts(tickwise_cli, models_csv, tmp_path):
    words = ("scale", "history", models_csv, "--forecast", "2030-01-01", "--out", tmp_path / "history")
    code, out, err = tickwise_cli(*words, "--json")
    assert code == 0, err
    found = json.loads(out)["trends"]
    assert found["compute"]["least_squares"]["factor_per_year"] == pytest.approx(4, rel=0.01)
    assert found["parameters"]["least_squares"]["doubling_months"] == pytest.approx(12, rel=0.01)
    band = found["compute"]["forecast"]
    assert band["low"] < band["line_low"] < band["value"] < band["line_high"] < band["high"]
    assert band["value"] == pytest.approx(1e18 * 4.0 ** (2030 - 2010.17), rel=0.1)
    assert {"report.html", "history.json", "growth.svg", "compute.svg"} <= {
        path.name for path in (tmp_path / "history").iterdir()}
    code, out, _ = tickwise_cli(*words)
    assert code == 0
    assert "Forecast for 2030-01-01" in out


def test_chips_beyond_the_date_have_no_forecast_and_the_models_have_theirs(tickwise_cli, models_csv, tmp_path):
    chips = tmp_path / "chips.csv"
    chips.write_text("name,date,transistors\n" + "\n".join(f"c{i},{2000 + i},{1e6 * 1.4**i:g}" for i in range(29)),
                     encoding="utf-8")
    code, out, err = tickwise_cli("scale", "history", models_csv, "--chips", chips, "--forecast", "2026-01-01", "--out",
                                  tmp_path / "out", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert "transistors on a chip: the values go on to 2028-01-01, so there is no forecast" in found["skipped"]
    found = found["trends"]
    assert found["transistors"]["forecast"] is None
    assert found["compute"]["forecast"]["value"] == pytest.approx(1e18 * 4.0 ** (2026 - 2010.17), rel=0.1)


@pytest.mark.parametrize(("words", "message"), [
    (("--forecast", "soon"), "--forecast: 'soon' is not a date"), (("--since", "2030"), "nothing to follow"),
    (("--since", "2015", "--until", "2012"), "--until 2012-01-01: must be after"),
    (("--chips", "no.csv"), "no such file"), (("--forecast", "9999-12-31"), "training compute would be beyond 10"),
    (("--forecast", "2015"), "the values of training compute go on to 2024-03-06"),
])
def test_history_refuses_in_one_line(tickwise_cli, models_csv, tmp_path, words, message):
    code, _, err = tickwise_cli("scale", "history", models_csv, "--out", tmp_path / "history", *words)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "history").exists()


def test_history_names_outliers_by_their_year_and_chips_only_where_there_are_some(tickwise_cli, models_csv, tmp_path):
    models_csv.write_text(models_csv.read_text() + "late,2016-11-20,1e30,1e9\n", encoding="utf-8")
    code, out, _ = tickwise_cli("scale", "history", models_csv, "--out", tmp_path / "history")
    assert code == 0
    assert "outliers of training compute: late (2016)" in out
    page = (tmp_path / "history" / "report.html").read_text(encoding="utf-8")
    assert "chips" not in page
    assert "2016-11-20" in page


@pytest.fixture(scope="module")
def law_json(tmp_path_factory):
    """A law of small models, fitted to runs without noise."""
    from tickwise.cli import main

    folder = tmp_path_factory.mktemp("law")
    (folder / "runs.csv").write_text("parameters,tokens,loss\n" + _ROWS + "\n", encoding="utf-8")
    assert main(["scale", "fit", str(folder / "runs.csv"), "--out", str(folder), "--resamples", "20", "-q"]) == 0
    return folder / "fit.json"


@pytest.fixture
def slow_machine(tmp_path):
    path = tmp_path / "slow.json"
    path.write_text(json.dumps({"memory_bytes": 10**10, "read_bandwidth_bytes_per_s": 2e10, "power_w": 50,
                                "flops_per_s": {"fp32": 1e11, "bf16": 1e11}}), encoding="utf-8")
    return path


def _plan(tickwise_cli, law_json, slow_machine, *words):
    code, out, err = tickwise_cli("scale", "plan", "--law", law_json, "--hardware", slow_machine, "--vocab-size", 512,
                                  "--context", 64, *words, "--json")
    assert code == 0, err
    return json.loads(out)


def test_a_plan_spends_its_budget_and_says_what_to_run(tickwise_cli, law_json, slow_machine):
    from tickwise.cli.dispatch import parse

    found = _plan(tickwise_cli, law_json, slow_machine, "--flops", 1e16)
    assert found["flops"] == pytest.approx(1e16, rel=1e-6)
    assert found["parameters"] == pytest.approx(found["optimum_by_the_law"]["parameters"], rel=0.15)
    low, high = found["loss"]["interval_95"]
    assert low <= found["loss"]["value"] <= high
    assert found["energy_j"] == pytest.approx(50 * found["time_s"])
    words = found["command"].removeprefix("tickwise train ").split()
    asked = parse("train", words)
    assert (asked.depth, asked.model.width, asked.max_tokens) == (found["depth"], found["width"], found["tokens"])
    from tickwise.models.decoder import Decoder
    from tickwise.training.dial import decoder_from_dial

    assert found["parameters"] == Decoder(
        decoder_from_dial(asked.depth, asked.context, asked.vocab_size, asked.model)).n_parameters()


def test_a_plan_takes_the_vocabulary_of_the_law(tickwise_cli, law_json, slow_machine, tmp_path):
    def notes(law, *words):
        code, out, err = tickwise_cli("scale", "plan", "--law", law, "--hardware", slow_machine, "--context", 64,
                                      "--flops", 1e16, *words, "--json")
        assert code == 0, err
        found = json.loads(out)
        vocabulary = re.search(r"--vocab-size (\d+)", found["command"])[1]
        return vocabulary, [line for line in found["notes"] if "vocabulary" in line]

    assert notes(law_json)[0] == "4096"
    assert "does not say the vocabulary" in notes(law_json)[1][0]
    known = tmp_path / "law.json"
    known.write_text(json.dumps(json.loads(law_json.read_text()) | {"vocab_size": 700}))
    assert notes(known) == ("700", [])
    vocabulary, (line,) = notes(known, "--vocab-size", 512)
    assert (vocabulary, "the expected loss does not hold" in line) == ("512", True)


def test_the_command_of_a_plan_names_the_optimizer_of_its_rate(tickwise_cli, law_json, slow_machine):
    from tickwise.cli.dispatch import parse

    for flops, name in ((1e16, "muon"), (2e17, "adamw")):
        found = _plan(tickwise_cli, law_json, slow_machine, "--flops", flops, "--data", "my texts/a.txt")
        asked = parse("train", shlex.split(found["command"].removeprefix("tickwise train ")))
        assert asked.optimizer.name == name
        assert asked.optimizer.lr == pytest.approx(found["learning_rate"], rel=1e-2)
        assert asked.batch_size * asked.context == found["batch_tokens"]
        assert str(asked.data) == "my texts/a.txt"


def test_budgets_of_time_energy_and_money_agree(tickwise_cli, law_json, slow_machine):
    hours = _plan(tickwise_cli, law_json, slow_machine, "--hours", 3)
    assert hours["time_s"] == pytest.approx(3 * 3600, rel=1e-6)
    joules = _plan(tickwise_cli, law_json, slow_machine, "--joules", 3 * 3600 * 50)
    money = _plan(tickwise_cli, law_json, slow_machine, "--budget-usd", 6, "--price-per-hour", 2)
    for other in (joules, money):
        assert (other["depth"], other["width"]) == (hours["depth"], hours["width"])
        assert other["tokens"] == pytest.approx(hours["tokens"], rel=1e-6)
    assert money["cost_usd"] == pytest.approx(6)
    used = _plan(tickwise_cli, law_json, slow_machine, "--hours", 3, "--inference-tokens", 3 * hours["tokens"])
    assert used["parameters"] < hours["parameters"]
    assert used["time_s"] < hours["time_s"], "the rest of the budget is for its use"
    assert used["parameters"] == pytest.approx(used["optimum_by_the_law"]["parameters"], rel=0.3)


def test_the_weights_of_a_plan_are_updated_once_for_each_batch(tickwise_cli, law_json, slow_machine):
    """As ``tickwise estimate`` counts a recipe with as many micro-batches."""
    found = _plan(tickwise_cli, law_json, slow_machine, "--flops", 2e17)
    assert found["accumulate"] > 2
    recipe = slow_machine.with_name("recipe.yaml")
    recipe.write_text(json.dumps({
        "depth": found["depth"], "context": 64, "vocab_size": 512, "batch_size": found["batch_size"],
        "accumulate": found["accumulate"], "model": {"width": found["width"]}, "optimizer": {"name": "adamw"}}))
    code, out, err = tickwise_cli("estimate", recipe, "--for", "train", "--hardware", slow_machine, "--dtype",
                                  found["dtype"], "--json")
    assert code == 0, err
    step = json.loads(out)
    steps = found["tokens"] / found["batch_tokens"]
    assert found["time_s"] == pytest.approx(steps * step["time_s"]["total"], rel=1e-3)
    assert found["energy_j"] == pytest.approx(steps * step["energy_j"], rel=1e-3)
    assert not [line for line in found["notes"] if "micro-batch" in line]


def test_a_budget_of_hours_pays_an_update_once_for_each_batch():
    from tickwise.cli import scale_plan

    asked = []

    def step(model, optimizer, accumulate):
        asked.append((optimizer, accumulate))
        return {"hours": 1e-3 * accumulate + 2e-3}

    arguments = scale_plan.Arguments(law="law.json", hours=1000.0, vocab_size=512)
    model = scale_plan._Model(10**8, 8, 512)
    cost = scale_plan._cost_per_token(arguments, "hours", 1000.0, model, step)
    optimizer, accumulate = asked[-1]
    tokens = 1000.0 / cost
    assert optimizer == "adamw"
    assert accumulate > 2
    assert scale_plan._recipe(arguments, model, 6 * 1e8 * tokens, tokens)[1] == accumulate, "cost and batch agree"
    updates = tokens / (accumulate * scale_plan._batch_tokens(arguments))
    assert updates * (1e-3 * accumulate + 2e-3) == pytest.approx(1000.0)


@pytest.mark.parametrize(("words", "message"), [
    ((), "give one budget"), (("--flops", "1e15", "--hours", "1"), "not --flops and --hours"),
    (("--flops", "-1"), "--flops: must be positive"), (("--budget-usd", "5"), "give --price-per-hour"),
    (("--flops", "1e3"), "--flops 1000: below the smallest model"), (("--hours", "1e-9"), "below the smallest model"),
    (("--flops", "1e11"), "the best size would be"),
    (("--hours", "1", "--inference-tokens", "1e15"), "--inference-tokens"),
    (("--flops", "1e15", "--law", "no.json"), "no.json: the fitted law is missing"),
    (("--hours", "1e-9"), " hours; give more"), (("--flops", "1e5"), " FLOP; give more"),
])
def test_plan_refuses_in_one_line(tickwise_cli, law_json, slow_machine, words, message):
    code, out, err = tickwise_cli("scale", "plan", "--law", law_json, "--hardware", slow_machine, "--vocab-size", 512,
                                  "--context", 64, *words)
    assert code == 2
    assert out == ""
    assert message in err
    assert len([line for line in err.splitlines() if line.startswith("tickwise: ")]) == 1


def test_a_best_size_that_gets_no_step_is_not_called_the_smallest(tickwise_cli, law_json, slow_machine, tmp_path):
    """By a law for which size is all, the budget's best model is large, and does not see one batch."""
    law = json.loads(law_json.read_text())
    coefficients = {"E": 1.0, "A": 1e6, "B": 10.0, "alpha": 0.9, "beta": 0.1}
    law["parametric"]["coefficients"] = {name: {"value": value} for name, value in coefficients.items()}
    steep = tmp_path / "steep.json"
    steep.write_text(json.dumps(law))
    code, _, err = tickwise_cli("scale", "plan", "--law", steep, "--hardware", slow_machine, "--vocab-size", 512,
                                "--context", 64, "--flops", 2e10)
    assert code == 2
    size, need = re.search(r"best size of ([\d,]+) parameters .*: one step of it takes (.+) × 10¹¹ FLOP", err).groups()
    assert float(need) * 1e11 == pytest.approx(6 * int(size.replace(",", "")) * 64 * 64, rel=0.01)
    assert "smallest" not in err


@pytest.mark.parametrize(("words", "message"), [
    (("--hardware", "nosuch"), "nosuch"), (("--price-per-hour", "-2"), "--price-per-hour: must be positive"),
    (("--price-per-kwh", "nan"), "--price-per-kwh: must be positive"), (("--context", "0"), "--context: must be"),
    (("--vocab-size", "99999999"), "--vocab-size: estimate looks no further"),
])
def test_a_plan_s_flags_are_checked_before_anything_is_counted(tickwise_cli, law_json, monkeypatch, words, message):
    from tickwise.cli import scale_plan

    monkeypatch.setattr(scale_plan, "_ladder", lambda arguments: pytest.fail("models were counted"))
    code, _, err = tickwise_cli("scale", "plan", "--law", law_json, "--flops", "1e16", *words)
    assert code == 2
    assert message in err


def test_a_deep_model_costs_what_its_layers_add(slow_machine):
    from tickwise.cli import scale_plan
    from tickwise.profiling.predict import find_machine

    arguments = scale_plan.Arguments(law="law.json", hours=1.0, vocab_size=512, context=16, dtype="fp32",
                                     hardware=str(slow_machine))

    def step(model, optimizer, accumulate):
        return scale_plan._update(arguments, find_machine(str(slow_machine)), model, optimizer, accumulate)

    for model, accumulate in ((scale_plan._Model(0, 7, 64), 2), (scale_plan._Model(0, 24, 768), 1)):
        about, true = scale_plan._by_few_layers(step, model, "muon", accumulate), step(model, "muon", accumulate)
        assert [about["hours"], about["joules"]] == pytest.approx([true["hours"], true["joules"]], rel=1e-6)


def test_energy_that_is_not_known_is_no_budget(tickwise_cli, law_json, tmp_path):
    path = tmp_path / "silent.json"
    path.write_text(json.dumps({"memory_bytes": 10**10, "read_bandwidth_bytes_per_s": 2e10,
                                "flops_per_s": {"fp32": 1e11}}), encoding="utf-8")
    code, _, err = tickwise_cli("scale", "plan", "--law", law_json, "--hardware", path, "--joules", 1e6)
    assert code == 2
    assert "power_w" in err

"""A sweep's folder: what runs, what never runs again, what the table says."""

import dataclasses
import json
import math
import signal
import sys
import types
from concurrent.futures import Future
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from tickwise.cli import scale_sweep
from tickwise.core.errors import ConfigError, OutputError
from tickwise.core.signals import TerminatedError, handled_by
from tickwise.profiling.machine import cores
from tickwise.scaling import sweep
from tickwise.scaling.runs import list_excluded, read_runs
from tickwise.scaling.study import as_json, study, write_law
from tickwise.scaling.sweep_grid import Grid, trials
from tickwise.scaling.sweep_trial import run_trial
from tickwise.scaling.sweep_workers import Ended, check_ray, check_room, local_workers, ray_workers
from tickwise.training.config import OptimizerOptions, TrainConfig

DATA = sweep.Data(fingerprint="f00d", train_tokens=30_000, vocab_size=97)
GRID = Grid(sizes=("1x16", "1x32"), tokens=(10_000, 20_000, 40_000, 80_000))


@pytest.fixture
def planned():
    return trials(GRID, TrainConfig(data=Path("data"), context=16), 50, DATA.train_tokens)


class Trainer:
    """Stands for the processes that train: writes results by a law, and remembers what it was asked."""

    def __init__(self, outcomes=None):
        self.asked, self.outcomes = [], outcomes or {}

    def __call__(self, folder):
        spec = json.loads((folder / "trial.json").read_text())
        self.asked.append(spec["name"])
        outcome = self.outcomes.get(spec["name"], "done")
        done = Future()
        if isinstance(outcome, Ended):
            done.set_result(outcome)
            return done
        loss = 1 + 30 / spec["parameters"] ** 0.5 + 90 / spec["tokens"] ** 0.5
        (folder / "run").mkdir(exist_ok=True)
        (folder / "result.json").write_text(json.dumps({
            "status": outcome, "loss": loss if outcome == "done" else None, "seconds": 2.0,
            "why": None if outcome == "done" else "the loss is nan"}))
        done.set_result(Ended(0, ""))
        return done


def go(out, planned, trainer):
    sweep.lay_out(out, planned, DATA)
    return sweep.run(out, planned, trainer, {trial.name: trial.flops for trial in planned})


def test_every_trial_runs_once_and_the_table_is_what_fit_reads(tmp_path, planned):
    trainer = Trainer()
    assert go(tmp_path, planned, trainer) == []
    assert sorted(trainer.asked) == sorted(trial.name for trial in planned)
    again = Trainer()
    assert go(tmp_path, planned, again) == []
    assert again.asked == []
    runs = read_runs(tmp_path / "runs.parquet")
    assert runs.parameters.tolist() == [trial.parameters for trial in planned]
    assert runs.tokens.tolist() == [trial.tokens for trial in planned]
    assert runs.unique_tokens.max() == DATA.train_tokens, "longer trials repeat their data"


def test_diverged_trials_are_kept_listed_and_left_out_of_fits(tmp_path, planned):
    name = planned[3].name
    go(tmp_path, planned, Trainer({name: "diverged"}))
    found = {row["trial"]: row for row in sweep.rows(tmp_path)}
    assert math.isnan(found[name]["loss"])
    assert found[name]["why"] == "the loss is nan"
    runs = read_runs(tmp_path / "runs.parquet")
    assert len(runs) == len(planned) - 1
    assert list_excluded(runs.excluded) == ["excluded: loss nan (row 4)"]
    again = Trainer()
    go(tmp_path, planned, again)
    assert again.asked == [], "its seed would diverge again"


def test_failed_trials_are_told_and_tried_again(tmp_path, planned):
    name = planned[0].name
    failed = go(tmp_path, planned, Trainer({name: Ended(-9, "x\nout of memory\n")}))
    assert failed == [f"{name} was killed (SIGKILL): out of memory"]
    assert len(read_runs(tmp_path / "runs.parquet")) == len(planned) - 1
    again = Trainer()
    assert go(tmp_path, planned, again) == []
    assert again.asked == [name]


def test_ctrl_c_in_a_trial_stops_the_sweep(tmp_path, planned):
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, planned, Trainer({planned[0].name: Ended(130, "")}))


def test_other_settings_or_data_under_the_same_name_are_refused(tmp_path, planned):
    sweep.lay_out(tmp_path, planned, DATA)
    changed = [dataclasses.replace(trial, config=dataclasses.replace(
        trial.config, seed=2, optimizer=OptimizerOptions(lr=0.5), out=Path("elsewhere"))) for trial in planned]
    with pytest.raises(ConfigError, match=r"begun with another optimizer.lr, seed; take"):
        sweep.lay_out(tmp_path, changed, DATA)
    with pytest.raises(ConfigError, match=r"begun with another data.fingerprint; take"):
        sweep.lay_out(tmp_path, planned, dataclasses.replace(DATA, fingerprint="beef"))
    sweep.lay_out(tmp_path, planned, DATA)


def test_new_trials_are_of_the_text_and_the_kind_that_the_folder_has(tmp_path, planned):
    sweep.lay_out(tmp_path, planned[:4], DATA)
    with pytest.raises(ConfigError, match=r"have another data.fingerprint, and one table"):
        sweep.lay_out(tmp_path, planned[4:], dataclasses.replace(DATA, fingerprint="beef"))
    longer = [dataclasses.replace(trial, config=dataclasses.replace(trial.config, context=32)) for trial in planned[4:]]
    with pytest.raises(ConfigError, match=r"have another context, and one table"):
        sweep.lay_out(tmp_path, longer, DATA)
    assert len(list((tmp_path / "trials").iterdir())) == 4
    sweep.lay_out(tmp_path, planned, DATA)
    assert len(list((tmp_path / "trials").iterdir())) == len(planned), "sizes, batches and rates may differ"


def test_a_trial_that_its_scheduler_loses_has_failed(tmp_path, planned):
    def lost(folder):
        gone = Future()
        gone.set_exception(RuntimeError("the node died\nand more"))
        return gone

    name = planned[0].name
    assert go(tmp_path, planned[:1], lost) == [f"{name} failed (exit code 1): RuntimeError: the node died"]
    assert go(tmp_path, planned[:1], Trainer()) == []


@pytest.mark.parametrize(("nodes", "threads", "gpus", "enough"), [
    ([{"CPU": 4.0}], 4, 0.0, True), ([{"CPU": 4.0}], 5, 0.0, False), ([{"CPU": 4.0}], 1, 1.0, False),
    ([{"CPU": 8.0}, {"CPU": 2.0, "GPU": 1.0}], 4, 1.0, False), ([{"CPU": 8.0}, {"CPU": 4.0, "GPU": 1.0}], 4, 1.0, True),
])
def test_what_no_node_has_is_refused_at_once(nodes, threads, gpus, enough):
    if enough:
        check_room(nodes, threads, gpus)
    else:
        with pytest.raises(ConfigError, match="no node of Ray has these"):
            check_room(nodes, threads, gpus)


@pytest.fixture
def broken_ray(monkeypatch):
    """Something of Ray's name that never comes up; returns how often it was taken down."""
    module, taken_down = types.ModuleType("ray"), []
    module.__spec__ = ModuleSpec("ray", None)

    def init(**settings):
        raise Exception("The current node timed out during startup.\nmore")

    module.init, module.shutdown = init, lambda: taken_down.append(True)
    monkeypatch.setitem(sys.modules, "ray", module)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return taken_down


def test_a_ray_that_does_not_start_is_told_in_one_line(broken_ray):
    with pytest.raises(ConfigError, match=r"^Ray did not start \(The current node timed out .*--scheduler local$"), \
            ray_workers(1, 1, 0.0):
        raise AssertionError("it started")
    assert broken_ray == [True]


@pytest.mark.parametrize("moment", ["starting", "inside", "stopping"])
def test_a_signal_never_meets_the_handler_that_ray_installs(broken_ray, monkeypatch, moment):
    ray = sys.modules["ray"]

    def at(this):
        if this == moment:
            signal.raise_signal(signal.SIGTERM)

    def init(**settings):
        at("starting")
        signal.signal(signal.SIGTERM, lambda *_: pytest.fail("Ray's handler ran"))

    def shutdown():
        at("stopping")
        broken_ray.append(True)

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", shutdown)
    ray.nodes = lambda: [{"Alive": True, "Resources": {"CPU": 1.0}}]
    ray.remote = lambda function: types.SimpleNamespace(options=lambda **_: function)
    with handled_by(lambda *_: pytest.fail("nobody was listening"), signal.SIGTERM):
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(TerminatedError), ray_workers(1, 1, 0.0):
            at("inside")
        assert signal.getsignal(signal.SIGTERM) is before
    assert broken_ray == [True], "taken down, once and whole"


def test_ray_that_nobody_asked_for_is_left_where_it_would_be_refused(broken_ray, monkeypatch, capsys):
    def asked(**more):
        return scale_sweep.Arguments(data=Path("DATA"), out=Path("out"), sizes=("1x16",), workers=1, **more)

    many = cores() + 1
    assert scale_sweep._by_ray(asked(threads=cores()))
    assert not scale_sweep._by_ray(asked(threads=many))
    scale_sweep._check(asked(threads=many))
    with scale_sweep._workers(asked(threads=many)):
        assert "processes of this machine" in capsys.readouterr().err
    for more in ({"scheduler": "ray"}, {"gpus": 1.0}):
        with pytest.raises(ConfigError, match=r"Ray would reserve .*--scheduler local"):
            scale_sweep._check(asked(threads=many, **more))
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    assert scale_sweep._by_ray(asked(threads=many))


def test_ray_is_not_told_of_more_cores_than_there_are(broken_ray, monkeypatch):
    check_ray(1, cores())
    for workers, threads in ((1, cores() + 1), (cores() + 1, 1)):
        with pytest.raises(ConfigError, match=f"reserve {workers * threads} CPUs, .* machine has .*--scheduler local"):
            check_ray(workers, threads)
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    check_ray(1, cores() + 1)


def test_a_trial_that_was_killed_is_said_to_be(tmp_path, planned):
    def killed(folder):
        done = Future()
        done.set_result(Ended(code, ""))
        return done

    name, code = planned[0].name, -9
    assert go(tmp_path, planned[:1], killed) == [f"{name} was killed (SIGKILL): perhaps for want of memory"]
    code = -40  # a real-time signal, which has no name
    assert go(tmp_path, planned[:1], killed) == [f"{name} was killed (signal 40): it said nothing"]


def test_a_folder_takes_one_sweep_at_a_time(tmp_path):
    for _ in range(2):
        with (sweep.locked(tmp_path), pytest.raises(OutputError, match="another sweep is working"),
              sweep.locked(tmp_path)):
            raise AssertionError("two at once")


@pytest.fixture
def law(tmp_path, planned):
    go(tmp_path / "fitted", planned, Trainer())
    path = tmp_path / "fit.json"
    write_law(path, as_json(study(read_runs(tmp_path / "fitted" / "runs.parquet"), resamples=0)))
    return path


def test_a_law_predicts_before_a_trial_runs_and_never_after(tmp_path, law):
    grid = Grid(sizes=("1x48",), tokens=(200_000,))
    (held_out,) = trials(grid, TrainConfig(data=Path("data"), context=16), 50, DATA.train_tokens)
    out = tmp_path / "held-out"
    said = sweep.predict(out, [held_out], law)
    assert said == sweep.predict(out, [held_out], law), "the first word stays, with its time"
    assert said["trials"][0]["times_largest_fitted_flops"] > 1
    go(out, [held_out], Trainer())
    (row,) = sweep.rows(out)
    assert row["predicted_loss"] == said["trials"][0]["loss"]
    assert abs(row["prediction_error"]) < 0.01
    other = tmp_path / "other.json"
    other.write_text(law.read_text() + "\n")
    with pytest.raises(ConfigError, match="another law"):
        sweep.predict(out, [held_out], other)
    go(tmp_path / "late", [held_out], Trainer())
    with pytest.raises(ConfigError, match="has begun without a prediction"):
        sweep.predict(tmp_path / "late", [held_out], law)


def test_a_trial_whose_numbers_stop_being_finite_is_a_result(small_text, tmp_path):
    grid = Grid(sizes=("1x16",), tokens=(2_000,))
    base = TrainConfig(data=small_text, tokenizer="char", context=16, optimizer=OptimizerOptions(name="sgd", lr=1e30),
                       dtype="fp32", compile="off", evaluate_every=1 << 60)
    (trial,) = trials(grid, base, 30, 50_000)
    sweep.lay_out(tmp_path, [trial], DATA)
    assert run_trial(tmp_path / "trials" / trial.name) == 0
    result = sweep.result_of(tmp_path, trial.name)
    assert (result["status"], result["loss"]) == ("diverged", None)
    assert "not finite" in result["why"] or "nan" in result["why"]


def test_a_process_that_cannot_train_says_why_in_one_line(tmp_path, planned):
    sweep.lay_out(tmp_path, planned[:1], DATA)
    with local_workers(1, 1) as start:
        ended = start(tmp_path / "trials" / planned[0].name).result()
    assert ended.code == 2
    assert ended.stderr.startswith("data: ")
    assert ended.stderr.count("\n") == 1

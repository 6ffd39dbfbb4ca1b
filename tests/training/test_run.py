"""Whole runs on a small text: what they leave behind, limits, faults."""

import json
import os
import signal

import pytest
import torch

import tickwise
from small_runs import FLAGS, TINY, losses, metrics
from tickwise.cli import main
from tickwise.core.errors import ConfigError, DataError, MemoryLimitError, NumericsError, OutputError
from tickwise.core.signals import TerminatedError
from tickwise.data.config import PrepareConfig
from tickwise.data.prepare import prepare
from tickwise.interop.directory import load_model
from tickwise.training.config import ModelOptions, OptimizerOptions, TrainConfig
from tickwise.training.run import build, interrupt_flag, open_data, plan


def test_a_run_learns_and_leaves_everything_behind(small_text, tmp_path):
    result = tickwise.train(TrainConfig(data=small_text, out=tmp_path / "run", max_steps=60, **TINY))
    rows = metrics(tmp_path / "run")
    assert rows[-1]["validation_loss"] < 0.6 * rows[0]["loss"]
    assert result.validation_loss == min(r["validation_loss"] for r in rows if "validation_loss" in r)
    assert (result.step, result.tokens) == (60, 60 * 8 * 16)
    for name in ("run.json", "metrics.jsonl", "loss.svg", "tensorboard", "model/config.json",
                 "model/model.safetensors", "model/tokenizer.json", "model/README.md", "model/run.json",
                 "checkpoints/step-60/training.json"):
        assert (tmp_path / "run" / name).exists(), name
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["config"]["max_steps"] == 60
    assert record["result"]["step"] == 60
    module, tokenizer = load_model(tmp_path / "run", device="cpu")
    assert module.config.vocab_size == tokenizer.vocab_size
    assert not list((tmp_path / "run").rglob("*.tmp-*"))


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, TerminatedError)])
def test_the_second_signal_ends_at_once_and_says_which_it_was(number, error):
    with pytest.raises(KeyboardInterrupt) as stop, interrupt_flag() as interrupted:
        os.kill(os.getpid(), number)
        assert interrupted()
        os.kill(os.getpid(), number)
    assert stop.type is error


def test_reported_loss_is_the_loss_of_the_saved_model(small_text, tmp_path):
    config = TrainConfig(data=small_text, out=tmp_path / "run", max_steps=40, dtype="fp32", **TINY)
    result = tickwise.train(config)
    data = open_data(config)
    tokens = torch.from_numpy(data.split("validation").tokens.astype("int64"))
    module, _ = load_model(tmp_path / "run", device="cpu")
    total, count = 0.0, 0
    with torch.no_grad():  # one window after the other, written as plainly as can be
        for start in range(0, len(tokens) - 1, 16):
            window = tokens[start : start + 17]
            total += torch.nn.functional.cross_entropy(module(window[None, :-1])[0], window[1:], reduction="sum").item()
            count += len(window) - 1
    assert count == len(tokens) - 1
    last = metrics(tmp_path / "run")[-1]["validation_loss"]
    best = result.validation_loss
    assert total / count == pytest.approx(best if result.best_step == 40 else last, abs=1e-4)


def test_a_gradient_that_is_not_finite_stops_before_the_update(small_text, tmp_path, monkeypatch):
    import tickwise.training.loop as loop

    original = loop.gradient

    def poisoned(training):
        loss, gradients, n_tokens = original(training)
        if training.counters.step == 24:
            gradients[3].view(-1)[0] = float("nan")
        return loss, gradients, n_tokens

    monkeypatch.setattr(loop, "gradient", poisoned)
    config = TrainConfig(data=small_text, out=tmp_path / "run", max_steps=60, checkpoint_every=10, **TINY)
    with pytest.raises(NumericsError, match="step 25"):
        tickwise.train(config)
    assert [p.name for p in sorted((tmp_path / "run" / "checkpoints").iterdir())] == ["step-10", "step-20"]
    module, _ = load_model(tmp_path / "run" / "checkpoints" / "step-20", device="cpu")
    assert all(torch.isfinite(p).all() for p in module.parameters())


def test_a_learning_rate_that_explodes_ends_in_one_line(small_text, tmp_path, tickwise_cli):
    code, _, err = tickwise_cli("train", small_text, "--out", tmp_path / "run", *FLAGS, "--max-steps", 400,
                                "--optimizer.name", "sgd", "--optimizer.lr", "1e30", "--optimizer.clip-norm", "1e30")
    assert code == 2
    assert "step" in err.strip().splitlines()[-1]
    assert "finite" in err.strip().splitlines()[-1] or "loss is" in err.strip().splitlines()[-1]
    code, _, err = tickwise_cli("train", small_text, "--out", tmp_path / "run", *FLAGS, "--max-steps", 4)
    assert code == 2
    assert "it left no checkpoint to go on from, replace it with --overwrite" in err


def test_early_stopping_and_target_loss(small_text, tmp_path):
    late = tickwise.train(TrainConfig(data=small_text, out=tmp_path / "a", max_steps=500, stop_at_loss=1.5, **TINY))
    assert late.step < 500
    assert late.validation_loss is not None
    assert late.validation_loss <= 1.5
    frozen = TINY | {"evaluate_every": 2}
    stuck = tickwise.train(TrainConfig(data=small_text, out=tmp_path / "b", max_steps=500, patience=3,
                                       optimizer=OptimizerOptions(name="sgd", lr=1e-12), **frozen))
    assert stuck.step <= 2 * 4 + 2


def test_limits_by_tokens_and_seconds(small_text, tmp_path):
    by_tokens = tickwise.train(TrainConfig(data=small_text, out=tmp_path / "a", max_tokens=1000, **TINY))
    assert by_tokens.step == 8  # 8 × 128 tokens is the first count at or above 1,000
    by_time = tickwise.train(TrainConfig(data=small_text, out=tmp_path / "b", max_seconds=1.0, **TINY))
    assert 1.0 <= by_time.seconds < 5.0


def test_text_shorter_than_a_context(tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("just a few words\n")
    with pytest.raises(DataError, match="context"):
        tickwise.train(TrainConfig(data=path, out=tmp_path / "run", max_steps=5, **(TINY | {"context": 512})))
    assert not (tmp_path / "run").exists()


BY_FILE = "a-file/run"


@pytest.mark.parametrize(("flags", "said"), [
    (["--model.width", "100", "--model.n-heads", "3"], "3 heads do not divide"),
    (["--model.n-kv-heads", "3"], "n_kv_heads"),
    (["--device", "no-such-device"], "no-such-device"),
    (["--out", BY_FILE], "a-file is a file"),
    (["--out", "a-file"], "a-file: is a file"),
    (["--trace", BY_FILE], "a-file is a file"),
    (["--context", "100000"], "one context needs 100,001 tokens"),
])
def test_what_no_text_can_mend_is_said_before_the_text_is_prepared(tmp_path, flags, said, monkeypatch, capsys):
    (tmp_path / "a-file").touch()
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question\n" * 20)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["train", "text.txt", "--max-steps", "1", *FLAGS, *flags]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "cache") == ["a-file", "text.txt"]


def test_a_text_that_turns_out_too_short_is_refused_before_the_run_is_announced(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question\n" * 7)
    with pytest.raises(DataError, match="one context needs"):  # a tenth of the text is held out
        tickwise.train(TrainConfig(data=tmp_path / "text.txt", out=tmp_path / "run", **(TINY | {"context": 280})))
    assert "parameters" not in capsys.readouterr().err


@pytest.mark.parametrize("asked", [{"tokenizer": "char"}, {"tokenizer": "bpe", "vocab_size": 300}])
def test_prepared_data_and_another_tokenizer_contradict_each_other(small_text, tmp_path, asked):
    data = prepare(PrepareConfig(sources=(str(small_text),), out=tmp_path / "data", tokenizer="word"))
    with pytest.raises(ConfigError, match=r"brings its own tokenizer \(word, \d+ entries\)"):
        open_data(TrainConfig(data=data.path, **asked))
    assert open_data(TrainConfig(data=data.path)).tokenizer.kind == "word"


def test_a_run_that_cannot_start_does_not_cost_the_run_it_would_replace(small_text, tmp_path):
    tickwise.train(TrainConfig(data=small_text, out=tmp_path / "run", max_steps=5, **TINY))
    with pytest.raises(DataError, match="context"):
        tickwise.train(TrainConfig(data=small_text, out=tmp_path / "run", max_steps=5, overwrite=True,
                                   **(TINY | {"context": 200_000, "batch_size": 1})))
    load_model(tmp_path / "run", device="cpu")
    assert (tmp_path / "run" / "checkpoints" / "step-5").exists()


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_validating_averaged_weights_leaves_the_trained_ones_alone(small_text, tmp_path, monkeypatch, dtype):
    import tickwise.training.loop as loop

    original, seen = loop.validation_figures, []

    def watched(training):
        before = [p.detach().clone() for p in training.module.parameters()]
        figures = original(training)
        same = [torch.equal(a, b) for a, b in zip(before, training.module.parameters(), strict=True)]
        averaged = any(not torch.equal(a, m) for a, m in
                       zip(training.average, training.weights.masters, strict=True))
        seen.append((all(same), averaged))
        return figures

    monkeypatch.setattr(loop, "validation_figures", watched)
    tickwise.train(TrainConfig(data=small_text, out=tmp_path / "run", max_steps=20, ema_decay=0.9, dtype=dtype, **TINY))
    assert seen == [(True, True), (True, True)]


def test_metrics_come_at_their_interval_with_and_without_validation(small_text, tmp_path):
    from tickwise.data.config import PrepareConfig
    from tickwise.data.prepare import prepare

    prepare(PrepareConfig(sources=(str(small_text),), out=tmp_path / "data", tokenizer="char", validation_fraction=0.0))
    sparse = TINY | {"log_every": 25, "evaluate_every": None}
    for data in (small_text, tmp_path / "data"):
        out = tmp_path / f"run-{data.name}"
        tickwise.train(TrainConfig(data=data, out=out, max_steps=100, **sparse))
        assert [row["step"] for row in metrics(out)] == [25, 50, 75, 100]


def test_weights_that_overflow_are_never_saved(small_text, tmp_path, monkeypatch):
    import tickwise.training.loop as loop

    original = loop.update

    def overflowing(training, gradients, scale):
        norm = original(training, gradients, scale)
        if training.counters.step == 19:
            training.weights.masters[2].view(-1)[0] = float("inf")
        return norm

    monkeypatch.setattr(loop, "update", overflowing)
    config = TrainConfig(data=small_text, out=tmp_path / "run", max_steps=60, checkpoint_every=10,
                         **(TINY | {"dtype": "fp32"}))
    with pytest.raises(NumericsError, match="step 20"):
        tickwise.train(config)
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-10"]
    assert "NaN" not in (tmp_path / "run" / "run.json").read_text()


def test_plain_strings_are_paths(small_text, tmp_path):
    result = tickwise.train(TrainConfig(data=str(small_text), out=str(tmp_path / "run"), max_steps=5, **TINY))
    assert result.model == tmp_path / "run" / "model"


def test_a_run_too_large_for_the_machine_is_refused_with_its_largest_term(small_text, tmp_path):
    huge = TINY | {"batch_size": 4_000_000}
    config = TrainConfig(data=small_text, out=tmp_path / "run", max_steps=5, **huge)
    assert plan(config, open_data(config)).memory.largest()[0] == "activations"
    with pytest.raises(MemoryLimitError, match=r"activations .*--batch-size"):
        tickwise.train(config)


@pytest.mark.parametrize("flags", [
    ["--model.n-heads", "5"], ["--depth", "0"], ["--model.dropout", "1.5"], ["--accumulate", "3"],
    ["--optimizer.lr", "-1"], ["--model.n-kv-heads", "3"], ["--device", "cuda:9"], ["--ema-decay", "2"],
    ["--optimizer.beta1", "1.5"], ["--seed", "-1"], ["--optimizer.weight-decay", "-1"],
])
def test_contradictory_flags_are_one_line(small_text, tmp_path, tickwise_cli, flags):
    arguments = list(FLAGS)
    if flags[0] in arguments:
        arguments[arguments.index(flags[0]) + 1] = flags[1]
    else:
        arguments += flags
    code, out, err = tickwise_cli("train", small_text, "--out", tmp_path / "run", *arguments, "--max-steps", 5)
    assert code == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert flags[0].removeprefix("--").split(".")[-1].replace("-", "_") in err.replace("-", "_")
    assert not (tmp_path / "run").exists()


def test_unknown_key_in_yaml_is_one_line(small_text, tmp_path, tickwise_cli):
    settings = tmp_path / "run.yaml"
    settings.write_text("depth: 2\nmodel:\n  widht: 32\n")
    code, _, err = tickwise_cli("train", small_text, "--out", tmp_path / "run", "--config", settings)
    assert code == 2
    assert "widht" in err
    assert "did you mean 'width'" in err


def test_yaml_is_used_and_flags_win(small_text, tmp_path, tickwise_cli):
    settings = tmp_path / "run.yaml"
    settings.write_text("depth: 2\ncontext: 16\ntokenizer: char\nmodel:\n  width: 32\noptimizer:\n  lr: 1e-3\n")
    code, out, _ = tickwise_cli("train", small_text, "--config", settings, "--context", 32, "--dry-run", "--json")
    made = json.loads(out)
    assert code == 0
    assert (made["model"]["width"], made["config"]["context"], made["config"]["optimizer"]["lr"]) == (32, 32, 1e-3)
    assert sum(v for k, v in made["memory_bytes"].items() if k != "total") == made["memory_bytes"]["total"]


def test_an_output_that_is_a_file_or_below_one(small_text, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OutputError):
            tickwise.train(TrainConfig(data=small_text, out=out, max_steps=5, **TINY))
    assert (tmp_path / "file").read_text() == "mine"


def test_trying_torch_compile_changes_no_loss_and_is_remembered(small_text, tmp_path, monkeypatch):
    """The trial draws a batch and dropout masks; none of that may show in the run."""
    import tickwise.training.compilation as compilation

    dropout = TINY | {"model": ModelOptions(width=32, n_heads=2, dropout=0.2), "dtype": "fp32"}
    tickwise.train(TrainConfig(data=small_text, out=tmp_path / "off", max_steps=15, compile="off", **dropout))
    monkeypatch.setattr(compilation, "LEAST_REMAINING_S", 0.0)
    for gain, decision in ((0.0, True), (1e9, False)):
        monkeypatch.setattr(compilation, "_LEAST_GAIN", gain)
        monkeypatch.setattr(compilation.torch, "compile", lambda function, dynamic: function)
        out = tmp_path / f"tried-{decision}"
        tickwise.train(TrainConfig(data=small_text, out=out, max_steps=15, compile="auto", **dropout))
        assert losses(out) == losses(tmp_path / "off")
        state = json.loads((out / "checkpoints" / "step-15" / "training.json").read_text())
        assert state["counters"]["compiled"] is decision


def test_a_run_too_short_for_a_trial_does_not_load_the_compiler(small_text, tmp_path, monkeypatch):
    """Asking for it takes 100 MB of memory and some seconds, whether anything is compiled or not."""
    import tickwise.training.compilation as compilation

    def asked(*arguments, **options):
        raise AssertionError("the compiler was asked for")

    monkeypatch.setattr(compilation, "compilation_possible", lambda device, compiler: (True, ""))
    monkeypatch.setattr(compilation.torch, "compile", asked)
    config = TrainConfig(data=small_text, out=tmp_path / "run", max_steps=3, compile="auto", **TINY)
    assert tickwise.train(config).step == 3


def test_a_compiler_that_fails_leaves_the_plain_path(small_text, tmp_path, monkeypatch, capsys):
    import tickwise.training.compilation as compilation

    def broken(function, dynamic):
        def fail(*arguments):
            raise RuntimeError("no")
        return fail

    monkeypatch.setattr(compilation, "LEAST_REMAINING_S", 0.0)
    monkeypatch.setattr(compilation.torch, "compile", broken)
    result = tickwise.train(TrainConfig(data=small_text, out=tmp_path / "run", max_steps=5, compile="auto", **TINY))
    assert result.step == 5
    assert "torch.compile: not used" in capsys.readouterr().err


@pytest.mark.slow
def test_compiled_training_follows_plain_training(small_text, tmp_path):
    pytest.importorskip("torch._inductor")
    common = TINY | {"dtype": "fp32", "max_steps": 20}
    tickwise.train(TrainConfig(data=small_text, out=tmp_path / "off", compile="off", **common))
    tickwise.train(TrainConfig(data=small_text, out=tmp_path / "on", compile="on", **common))
    for (a, _), (b, _) in zip(losses(tmp_path / "off").values(), losses(tmp_path / "on").values(), strict=True):
        assert a == pytest.approx(b, rel=1e-3)


def test_data_without_a_validation_split_keeps_the_last_model(small_text, tmp_path, capsys):
    from tickwise.data.config import PrepareConfig
    from tickwise.data.prepare import prepare

    prepare(PrepareConfig(sources=(str(small_text),), out=tmp_path / "data", tokenizer="char", validation_fraction=0.0))
    result = tickwise.train(TrainConfig(data=tmp_path / "data", out=tmp_path / "run", max_steps=12, **TINY))
    assert result.validation_loss is None
    assert "no validation split" in capsys.readouterr().err
    load_model(result.model, device="cpu")


def test_the_last_validation_belongs_to_the_seconds_of_a_run(small_text, tmp_path):
    config = TrainConfig(data=small_text, out=tmp_path / "out", **TINY, max_seconds=10.0)
    data = open_data(config)
    training = build(plan(config, data), data)
    training.counters.seconds = 7.6
    assert training.progress() == pytest.approx(0.76)
    training.last_validation_seconds = 2.5
    assert training.progress() > 1  # a validation just fits
    training.last_validation_seconds = 100.0
    assert training.progress() == pytest.approx(1.52)  # but half of the time is for training
    training.last_validation_seconds = None
    n_validated = len(data.split("validation").tokens) - 1
    training.counters.tokens = 8 * n_validated  # before the first one: a third of training on as many
    assert training.progress() == pytest.approx(7.6 / (10 - 7.6 / 24))


def test_what_logging_needs_is_there_before_the_first_step(small_text, tmp_path, monkeypatch):
    from tickwise.training.loop import Training

    at_beginnings = []
    begin = Training.begin_step

    def noted(training):
        at_beginnings.append(len(list((tmp_path / "run" / "tensorboard").glob("events.*"))))
        begin(training)

    monkeypatch.setattr(Training, "begin_step", noted)
    tickwise.train(TrainConfig(data=small_text, out=tmp_path / "run", max_steps=2, **TINY))
    assert at_beginnings == [1, 1], "no step imports TensorBoard or opens its file"

"""SeqGAN from the command line: both phases, resuming, and the generator as a language model."""

import contextlib
import dataclasses
import json
import random

import pytest

from tickwise.profiling.trace_store import open_trace

FLAGS = ("--word-style", "spaces", "--model.width", "16", "--batch-size", "16", "--compile", "off", "--max-steps", "30",
         "--adversarial.discriminator-first", "5", "--adversarial.rollouts", "2", "--adversarial.batch-size", "8",
         "--discriminator.width", "8", "--discriminator.features", "8", "--longest", "12", "-q")


@pytest.fixture
def text(tmp_path):
    chooser = random.Random(1)
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"the {chooser.choice(['cat', 'dog'])} {chooser.choice(['sees', 'likes'])} it\n"
                            for _ in range(300)), encoding="utf-8")
    return path


def test_both_phases_leave_models_and_a_record(text, tmp_path, tickwise_cli):
    out = tmp_path / "gan"
    assert tickwise_cli("train", "gan", text, "--out", out, *FLAGS, "--adversarial.steps", 3)[0] == 0
    for name in ("likelihood/model", "model", "discriminator"):
        assert (out / name / "config.json").is_file()
    assert json.loads((out / "model" / "config.json").read_text())["model_type"] == "tickwise-recurrent"
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 3
    assert 0 < rows[-1]["reward"] < 1
    assert rows[-1]["validation_nll"] > 0
    records = [json.loads((out / name / "run.json").read_text()) for name in (".", "model", "discriminator")]
    assert records[0] == records[1] == records[2]
    assert records[0]["family"] == "recurrent"
    assert records[0]["config"]["adversarial"]["steps"] == records[0]["result"]["step"] == 3
    assert records[0]["discriminator"]["features"] == 8
    assert records[0]["result"]["validation_nll"] == rows[-1]["validation_nll"]
    code, evaluated, error = tickwise_cli("evaluate", out, "--split", "validation", "--json")
    assert code == 0, error
    assert json.loads(evaluated)["n-samples"]


def test_what_the_game_did_to_real_sentences_is_said(text, tmp_path, tickwise_cli):
    out = tmp_path / "gan"
    flags = [flag for flag in FLAGS if flag != "-q"]
    code, _, err = tickwise_cli("train", "gan", text, "--out", out, *flags, "--adversarial.steps", 30,
                                "--adversarial.lr", 0.3)
    assert code == 0, err
    (line,) = [line for line in err.splitlines() if line.startswith("development sentences: ")]
    assert "the game has led away from them" in line
    after = json.loads((out / "run.json").read_text())["result"]["validation_nll"]
    assert f"{after:.3f} after it" in line
    assert float(line.split()[2]) < after


def test_a_game_that_is_interrupted_while_the_discriminator_warms_up_is_saved(text, tmp_path, monkeypatch):
    from tickwise.training import game
    from tickwise.training.adversarial import AdversarialOptions
    from tickwise.training.gan import DiscriminatorOptions, GanTrainConfig, train_gan
    from tickwise.training.recurrent import RecurrentOptions

    config = GanTrainConfig(
        data=text, out=tmp_path / "gan", word_style="spaces", longest=12, batch_size=16, max_steps=10, compile="off",
        model=RecurrentOptions(width=8), discriminator=DiscriminatorOptions(width=8, features=8),
        adversarial=AdversarialOptions(steps=2, discriminator_first=5, rollouts=1, batch_size=4))
    looks = []

    @contextlib.contextmanager
    def after_two():
        yield lambda: looks.append(None) or len(looks) == 2

    with monkeypatch.context() as patch:
        patch.setattr(game, "interrupt_flag", after_two)
        result = train_gan(config)
    assert result.interrupted
    assert result.steps == 0
    state = json.loads((tmp_path / "gan" / "checkpoints" / "step-0" / "training.json").read_text())
    assert state["warmed_up"] == 2
    done = train_gan(dataclasses.replace(config, resume="auto"))
    assert (done.interrupted, done.steps) == (False, 2)
    assert done.seconds > state["seconds"]


def test_the_game_ends_in_time_even_while_it_warms_up(text, tmp_path, tickwise_cli):
    out = tmp_path / "gan"
    code, _, told = tickwise_cli("train", "gan", text, "--out", out, *FLAGS[:-1], "--adversarial.steps", 3,
                                 "--adversarial.discriminator-first", 10**9, "--adversarial.max-seconds", 0.2)
    assert code == 0
    assert "no step of the game was played" in told
    assert "raise --adversarial.max-seconds or lower --adversarial.discriminator-first" in told
    assert json.loads((out / "run.json").read_text())["result"]["step"] == 0


def test_a_trace_of_the_game_has_a_tick_for_each_move(text, tmp_path, tickwise_cli):
    out = tmp_path / "gan"
    assert tickwise_cli("train", "gan", text, "--out", out, *FLAGS, "--adversarial.steps", 2, "--trace",
                        tmp_path / "trace")[0] == 0
    rows = open_trace(tmp_path / "trace").rows()
    assert {row["tick"] for row in rows} == set(range(5 + 2))
    assert {"embed", "recurrent", "head", "sample", "backward", "optimizer"} <= {row["stage"] for row in rows}
    assert {row["phase"] for row in rows} == {"train"}


def test_figures_that_are_not_finite_are_never_saved(text, tmp_path, tickwise_cli, monkeypatch):
    out = tmp_path / "gan"
    monkeypatch.setattr("tickwise.training.gan.mean_nats", lambda *arguments: float("nan"))
    code, _, error = tickwise_cli("train", "gan", text, "--out", out, *FLAGS, "--adversarial.steps", 3)
    assert code == 2
    assert "validation_nll" in error
    assert not (out / "model").exists()
    assert "NaN" not in (out / "metrics.jsonl").read_text()


def test_a_resumed_game_ends_with_the_same_model(text, tmp_path, tickwise_cli):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert tickwise_cli("train", "gan", text, "--out", whole, *FLAGS, "--adversarial.steps", 4)[0] == 0
    assert tickwise_cli("train", "gan", text, "--out", parts, *FLAGS, "--adversarial.steps", 2)[0] == 0
    code, _, error = tickwise_cli("train", "gan", text, "--out", parts, *FLAGS, "--adversarial.steps", 4)
    assert code == 2
    assert "--resume auto" in error
    assert tickwise_cli("train", "gan", text, "--out", parts, *FLAGS, "--adversarial.steps", 4, "--resume",
                        "auto")[0] == 0
    assert (whole / "model" / "model.safetensors").read_bytes() == (parts / "model" / "model.safetensors").read_bytes()
    before = json.loads((parts / "run.json").read_text())["result"]
    assert before["validation_nll"] > 0
    assert tickwise_cli("train", "gan", text, "--out", parts, *FLAGS, "--adversarial.steps", 4, "--resume",
                        "auto")[0] == 0  # has ended already
    after = json.loads((parts / "run.json").read_text())["result"]
    assert before | {"seconds": 0} == after | {"seconds": 0}
    code, _, error = tickwise_cli("train", "gan", text, "--out", parts, *FLAGS, "--adversarial.steps", 6, "--resume",
                                  "auto", "--adversarial.lr", 0.5)
    assert code == 2
    assert "lr was 0.001" in error
    code, _, error = tickwise_cli("train", "gan", text, "--out", parts, *FLAGS, "--adversarial.steps", 6, "--resume",
                                  "auto", "--discriminator.dropout", 0.4)
    assert code == 2
    assert "discriminator was" in error


def test_a_language_model_may_be_the_judge(text, tmp_path, tickwise_cli):
    out = tmp_path / "gan"
    flags = ("--word-style", "spaces", "--model.width", "16", "--batch-size", "16", "--compile", "off", "--max-steps",
             "30", "--adversarial.judge", "language-model", "--adversarial.discriminator-first", "2",
             "--adversarial.batch-size", "8", "--longest", "12", "-q")
    assert tickwise_cli("train", "gan", text, "--out", out, *flags, "--adversarial.steps", 3)[0] == 0
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["distance"] > 0
    assert json.loads((out / "discriminator" / "config.json").read_text())["model_type"] == "tickwise-recurrent"
    code, _, error = tickwise_cli("evaluate", out / "discriminator", "--split", "validation", "--json")
    assert code == 0, error
    again = (*flags, "--adversarial.steps", 5, "--resume", "auto")
    assert tickwise_cli("train", "gan", text, "--out", out, *again)[0] == 0

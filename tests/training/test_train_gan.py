"""SeqGAN from the command line: both phases, resuming, and the generator as a language model."""

import json
import random

import pytest

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
    code, _, error = tickwise_cli("train", "gan", text, "--out", parts, *FLAGS, "--adversarial.steps", 6, "--resume",
                                  "auto", "--adversarial.lr", 0.5)
    assert code == 2
    assert "lr was 0.001" in error

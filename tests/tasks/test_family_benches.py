"""The benches of the classic families run from end to end, on very little, and say what they claim to."""

import argparse
import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / "bench"


def bench(name):
    spec = importlib.util.spec_from_file_location(f"bench_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def seqgan(monkeypatch):
    module = bench("seqgan_oracle")
    for name, value in (("VOCABULARY", 30), ("LENGTH", 5), ("WIDTH", 8), ("N_TRAIN", 64), ("N_HELD_OUT", 32)):
        monkeypatch.setattr(module, name, value)
    return module


@pytest.mark.parametrize("best_by", ["oracle", "development"])
def test_the_gain_of_seqgan_is_over_the_best_epoch_of_maximum_likelihood(best_by, seqgan, tmp_path, monkeypatch,
                                                                         capsys):
    out = tmp_path / "seqgan.json"
    monkeypatch.setattr("sys.argv", [
        "bench", "--seeds", "1", "--epochs", "4", "--batch-size", "16", "--likelihood-lr", "0.3", "--steps", "2",
        "--rollouts", "1", "--discriminator-first", "2", "--discriminator-steps", "1", "--samples", "40", "--every",
        "1", "--width", "8", "--hidden", "8", "--best-by", best_by, "--json", str(out)])
    seqgan.main()
    result = json.loads(out.read_text())
    run = result["runs"][0]
    losses = {row["epoch"]: row[f"{best_by}_nll"] for row in run["likelihood_curve"]}
    assert run["likelihood_epoch"] == min(losses, key=losses.get)
    assert [row["step"] for row in run["curve"]] == [1, 2]
    assert run["gain"] == pytest.approx(run["likelihood"]["oracle_nll"] - run["adversarial"]["oracle_nll"])
    first = run["likelihood_at_temperature"][0]
    assert first["temperature"] == 1.0
    assert first["held_out_nll"] == pytest.approx(run["likelihood"]["held_out_nll"])


def test_the_game_starts_from_the_best_epoch(seqgan):
    """Not from the last one: a learning rate that destroys the model after some epochs changes nothing."""
    oracle = seqgan.Oracle(0)
    development = seqgan.samples(oracle, 32, seed=5)
    torch.manual_seed(0)
    generator = seqgan.Recurrent(seqgan.RecurrentConfig(vocab_size=30, width=8, hidden=8, n_layers=1,
                                                        tie_embeddings=False)).initialise(0)
    discriminator = seqgan.Discriminator(seqgan.DiscriminatorConfig(vocab_size=30, width=4, features=4)).initialise(0)
    game = seqgan.SeqGan(generator, discriminator, seqgan.samples(oracle, 64, seed=6), first_id=0, eos_id=None,
                         options=seqgan.AdversarialOptions(batch_size=16))
    rates, set_rate = iter([0.01, 0.01, 30.0, 30.0, 30.0]), game.set_rate
    game.set_rate = lambda _: set_rate(next(rates))
    settings = argparse.Namespace(epochs=5, likelihood_lr=0.01, validate_every=1, best_by="development")
    curve, general = seqgan.likelihood(game, oracle, development, settings)
    losses = [row["development_nll"] for row in curve]
    assert losses[-1] > min(losses)
    for _ in ("as it was left", "what is given back"):
        assert seqgan.nats(generator, development) == pytest.approx(min(losses), rel=1e-5)
        generator.load_state_dict(general)


def test_a_gain_by_sharpening_alone_is_none_at_equal_held_out_nats(seqgan):
    curve = [{"held_out_nll": h, "oracle_nll": o} for h, o in ((9.0, 9.2), (9.1, 9.0), (9.4, 8.6))]
    assert seqgan.oracle_nll_at(9.0, curve) == 9.2
    assert seqgan.oracle_nll_at(8.5, curve) == 9.2
    assert seqgan.oracle_nll_at(9.25, curve) == pytest.approx(8.8)
    assert seqgan.oracle_nll_at(9.5, curve) is None


def test_augmentation_compares_with_as_many_steps_and_seeds_do_not_depend_on_each_other(monkeypatch):
    module = bench("augmentation")
    monkeypatch.setattr(module, "N_DEV", 20)
    chooser = np.random.default_rng(0)
    words = {"animal": ["cat", "dog", "bird"], "thing": ["car", "lamp", "road"]}
    rows = sorted({(label, f"{chooser.integers(99)} a {chooser.choice(own)} and a {chooser.choice(own)}")
                   for label, own in words.items() for _ in range(60)})
    arguments = argparse.Namespace(rows=40, ratio=1.0, vae_steps=3, gan_steps=2, test_rows=rows[:10])
    configs = []

    def train(config):
        assert not config.out.exists(), "the VAE's folder is another"
        configs.append(config)
        return SimpleNamespace(test=SimpleNamespace(metrics={"acc": SimpleNamespace(value=0.5)}))

    monkeypatch.setattr(module, "train_classifier", train)
    before = list(rows)
    found = module.one(2, rows, arguments)
    assert rows == before
    assert set(found) == {"none", "more steps", "vae", "vae + gan"}
    assert [config.epochs for config in configs] == [8.0, 16.0, 8.0, 8.0]


def test_the_speed_of_an_lstm_in_each_number_format(monkeypatch, capsys):
    module = bench("lstm_speed")
    monkeypatch.setattr(module, "VOCABULARY", 50)
    monkeypatch.setattr("sys.argv", ["bench", "--rounds", "2", "--threads", "1", "--width", "8", "--layers", "2",
                                     "--batch", "2", "--steps", "3"])
    n_threads = torch.get_num_threads()
    try:
        module.main()
    finally:
        torch.set_num_threads(n_threads)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["dtype"], line["dropout"]) for line in lines] == [("fp32", 0.3), ("fp32", 0.0), ("bf16", 0.3),
                                                                    ("bf16", 0.0)]
    assert all(line["ratio"] > 0 for line in lines)


def test_captions_are_judged(tmp_path, monkeypatch, capsys):
    module = bench("coco_bleu")
    lines = [f"a man rides a {animal} near the {place} {n}" for n in range(3) for animal in ("horse", "bike")
             for place in ("lake", "house")]
    for name in ("references", "training"):
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["bench", "--references", str(tmp_path / "references"), "--training",
                                     str(tmp_path / "training"), "--n", "6", "--svg", str(tmp_path / "x.svg")])
    module.main()
    (row,) = json.loads(capsys.readouterr().out)["training captions"]
    assert row["bleu"] == pytest.approx(1.0)
    assert 0 < row["self_bleu"] < 1
    assert (tmp_path / "x.svg").read_text().startswith("<")


def test_the_peer_gets_the_same_rows(tmp_path):
    module = bench("classify_baselines")
    for name, numbers in (("train", range(200)), ("test", range(195, 210))):
        (tmp_path / name).write_text("".join(f"{'ab'[n % 2]}\ttext number {n}\n" for n in numbers), encoding="utf-8")
    counts = module.write_parts(argparse.Namespace(train=str(tmp_path / "train"), test=str(tmp_path / "test")),
                                tmp_path / "parts.json")
    parts = json.loads((tmp_path / "parts.json").read_text())
    assert counts == {name: len(part["texts"]) for name, part in parts.items()}
    assert counts["test"] == 15
    assert counts["train"] + counts["dev"] == 195
    assert "char_wb" in module.PEER
    compile(module.PEER, "peer", "exec")

"""A text VAE from the command line: train, resume, sample, reconstruct, interpolate, likelihood, a GAN inside; and what
it refuses."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from tickwise.core.errors import ConfigError, DataError
from tickwise.data.sentences import sentences_from_ids
from tickwise.evaluation.latent import latent_figures
from tickwise.models.vae import Vae, VaeConfig, normal_log_density
from tickwise.profiling.trace_store import open_trace
from tickwise.tasks.sentences import TextVae
from tickwise.training.vae_objective import bound_figures

SMALL = ("--word-style", "spaces", "--model.width", "24", "--model.hidden", "24", "--model.encoder-hidden", "16",
         "--model.latent", "4", "--batch-size", "16", "--compile", "off")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    chooser = random.Random(1)
    lines = [f"the {chooser.choice(['cat', 'dog', 'bird'])} {chooser.choice(['sees', 'likes'])} a "
             f"{chooser.choice(['tree', 'house', 'mouse'])}" for _ in range(600)]
    path = tmp_path_factory.mktemp("text") / "lines.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(text, tmp_path_factory):
    from tickwise.cli import main

    out = tmp_path_factory.mktemp("run") / "vae"
    assert main(["train", "vae", str(text), "--out", str(out), *SMALL, "--max-steps", "300", "--optimizer.lr", "0.01",
                 "--kl.free-nats", "0.5", "--kl.warmup-epochs", "3", "-q"]) == 0
    return out


def test_training_keeps_a_model_that_uses_its_latent_vector(trained):
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if "validation_loss" in row][-1]
    assert last["validation_loss"] < 10
    assert last["validation_active_units"] >= 1
    assert json.loads((trained / "run.json").read_text())["family"] == "text VAE"


def test_a_collapsed_posterior_is_said(text, tmp_path, tickwise_cli):
    code, _, err = tickwise_cli("train", "vae", text, "--out", tmp_path / "a", *SMALL, "--max-steps", 40,
                                "--kl.free-nats", 0, "--kl.warmup-epochs", 0, "--kl.weight", 5)
    assert code == 0, err
    assert "the posterior has collapsed: what is latent tells 0." in err


def test_samples_are_sentences_of_known_words(trained, tickwise_cli):
    code, out, _ = tickwise_cli("run", "sample", trained, "--n", 12, "--temperature", 0.3, "--json")
    assert code == 0
    written = json.loads(out)["sentences"]
    assert len(written) == 12
    assert sum(one.startswith("the ") for one in written) > 8
    assert tickwise_cli("run", "sample", trained, "--n", 12, "--temperature", 0.3, "--json")[1] == out


def test_reconstruction_keeps_words_of_the_sentence(trained, tmp_path, tickwise_cli):
    source = tmp_path / "in.txt"
    source.write_text("the cat sees a tree\n\nthe bird\x0clikes a house\n", encoding="utf-8")
    code, out, _ = tickwise_cli("run", "reconstruct", trained, "--input", source)
    assert code == 0
    first, blank, last = out.removesuffix("\n").split("\n")
    assert first.startswith("the ")
    assert last.startswith("the ")
    assert blank == ""


def test_interpolation_begins_and_ends_where_reconstruction_does(trained):
    model = TextVae.load(trained)
    first, last = "the cat sees a tree", "the bird likes a house"
    path = model.interpolate(first, last, steps=4)
    assert len(path) == 4
    assert [path[0], path[-1]] == model.reconstruct([first, last])


def test_the_importance_weighted_bound_is_tighter_than_the_evidence_lower_bound(trained, text):
    model = TextVae.load(trained)
    texts = text.read_text().splitlines()[:60]
    one, many = (model.likelihood(texts, n_draws=n) for n in (1, 50))
    assert one.nll == pytest.approx(one.reconstruction + one.kl, abs=1.0)
    assert many.nll < many.bound
    assert many.nll_interval.low < many.nll < many.nll_interval.high
    assert many.perplexity_interval.low < many.perplexity < many.perplexity_interval.high
    assert many.active_units >= 1
    assert many.perplexity == pytest.approx(torch.tensor(many.nll * 60 / many.n_tokens).exp().item(), rel=1e-5)
    figures = bound_figures(model.module, model.sentences(texts), torch.device("cpu"))
    assert figures["kl"] == pytest.approx(many.kl, rel=1e-4)


def test_without_a_latent_influence_the_bound_is_the_likelihood():
    """A posterior that is the prior and a decoder that ignores z: any number of draws gives log p(x) itself."""
    module = Vae(VaeConfig(vocab_size=9, eos_id=0, latent=2, width=8, hidden=8, encoder_hidden=8)).initialise(0)
    with torch.no_grad():
        module.to_latent.weight.zero_()
        module.from_latent.weight.zero_()
        module.decoder.onward[0].from_input.weight[:, 8:] = 0
    sentences = sentences_from_ids([[1, 2, 3], [4], [5, 6]], 0)
    few, many = (latent_figures(module.eval(), sentences, torch.device("cpu"), n_draws=n) for n in (1, 20))
    assert few.nll == pytest.approx(many.nll, rel=1e-5)
    assert few.kl == pytest.approx(0.0, abs=1e-6)


def test_the_importance_weighted_bound_reaches_the_likelihood():
    """One latent dimension, so that the integral over it can be done by quadrature."""
    module = Vae(VaeConfig(vocab_size=9, eos_id=0, latent=1, width=8, hidden=8, encoder_hidden=8)).initialise(0).eval()
    with torch.no_grad():
        module.from_latent.weight.mul_(3)
        module.decoder.onward[0].from_input.weight[:, 8:] *= 3
    ids = [[1, 2, 3], [4], [5, 6]]
    sentences = sentences_from_ids(ids, 0)
    z_Z1 = torch.linspace(-8, 8, 4001)[:, None]
    prior = torch.exp(normal_log_density(z_Z1)) * 16 / 4000
    exact = []
    with torch.no_grad():
        for number in range(len(ids)):
            ids_1T, lengths_1 = sentences.padded(np.array([number]))
            nats = module.sentence_nats(ids_1T.expand(4001, -1), lengths_1.expand(4001), z_Z1)
            exact.append(-(torch.exp(-nats.double()) * prior).sum().log().item())
    found = latent_figures(module, sentences, torch.device("cpu"), n_draws=5000)
    assert found.nll == pytest.approx(sum(exact) / 3, abs=5e-3)
    assert found.bound > sum(exact) / 3 + 0.01


def test_likelihood_on_the_command_line(trained, tickwise_cli):
    code, out, _ = tickwise_cli("run", "likelihood", trained, "the cat sees a tree", "--draws", 5, "--json")
    assert code == 0
    shown = json.loads(out)
    assert shown["n-samples"] == {"likelihood": {"original": 1, "effective": 1}}
    # One sentence has no spread, and its place in the latent space no variance.
    assert shown["intervals"] == {"likelihood": {"nll": None, "bound": None, "perplexity": None}}
    assert [shown[name] for name in ("active_units", "unknown", "n_draws")] == [None, 0, 5]
    results = shown["results"]["likelihood"]
    assert results["bound,none"] == pytest.approx(shown["reconstruction"] + shown["kl"])
    assert results["nll,none"] <= results["bound,none"]
    assert results["perplexity,none"] == pytest.approx(np.exp(results["nll,none"] / shown["n_tokens"]))
    assert shown["higher_is_better"] == {"likelihood": {"nll": False, "bound": False, "perplexity": False}}
    assert shown["config"]["model_args"]["path"] == str(trained)
    code, out, _ = tickwise_cli("run", "likelihood", trained, "the cat sees a tree", "--draws", 5)
    assert "importance-weighted" in out
    assert "95 % interval n/a" in out
    assert "active latent dimensions                       n/a" in out
    assert "<unk>" not in out
    code, out, _ = tickwise_cli("run", "likelihood", trained, "the zzz sees qqq", "--draws", 5)
    assert "40.0% of the tokens are <unk>, which hides" in out
    for verb in ("likelihood", "reconstruct"):
        code, out, error = tickwise_cli("run", verb, trained, " ")
        assert (code, out, "the sentence is empty" in error) == (2, "", True)


def test_a_trace_has_a_tick_for_each_word_that_is_written(trained, tmp_path, tickwise_cli):
    code, out, _ = tickwise_cli("run", "reconstruct", trained, "the cat sees a tree", "--trace", tmp_path / "trace")
    assert code == 0
    rows = open_trace(tmp_path / "trace").rows()
    reading = [row for row in rows if row["phase"] == "prefill"]
    writing = [row for row in rows if row["phase"] == "decode"]
    assert {row["tick"] for row in reading} == {0}
    assert {row["tick"] for row in writing} == set(range(1, len(out.split()) + 2)), "the end is a word too"
    assert {row["stage"] for row in writing} == {"embed", "recurrent", "head", "sample", "host"}
    model = TextVae.load(trained).module.config
    head = next(row for row in writing if row["stage"] == "head")
    assert head["flops"] == 2 * model.width * model.vocab_size
    for words in (("sample", "--n", 2), ("interpolate", "the cat sees a tree", "the bird likes a house")):
        folder = tmp_path / words[0]
        assert tickwise_cli("run", words[0], trained, *words[1:], "--trace", folder)[0] == 0
        assert {"embed", "recurrent", "head"} <= {row["stage"] for row in open_trace(folder).rows()}


def test_a_resumed_training_is_the_same_bit_for_bit(text, tmp_path, tickwise_cli):
    settings = (*SMALL, "--word-dropout", "0.2", "--model.output-dropout", "0.2", "--schedule.name", "constant")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert tickwise_cli("train", "vae", text, "--out", whole, *settings, "--max-steps", 12, "-q")[0] == 0
    assert tickwise_cli("train", "vae", text, "--out", parts, *settings, "--max-steps", 7, "-q")[0] == 0
    assert tickwise_cli("train", "vae", text, "--out", parts, *settings, "--max-steps", 12, "--resume", "auto",
                        "-q")[0] == 0
    name = Path("checkpoints") / "step-12" / "model.safetensors"
    assert (whole / name).read_bytes() == (parts / name).read_bytes()


LATENT = ("--word-style", "spaces", "--model.hidden", "16")


@pytest.fixture(scope="module")
def latent_gan(trained, text, tmp_path_factory):
    from tickwise.cli import main

    out = tmp_path_factory.mktemp("run") / "gan"
    assert main(["train", "latent-gan", str(text), str(trained), *LATENT, "--out", str(out), "--max-steps", "15",
                 "--trace", str(out.parent / "trace"), "-q"]) == 0
    return out


def test_a_gan_in_the_latent_space_writes_too(latent_gan, trained, text, tickwise_cli):
    code, written, _ = tickwise_cli("run", "sample", latent_gan, "--n", 3, "--json")
    assert code == 0
    assert len(json.loads(written)["sentences"]) == 3
    code, _, error = tickwise_cli("train", "latent-gan", text, trained, *LATENT, "--out", latent_gan)
    assert code == 2
    assert "--resume auto" in error


def test_a_trace_of_what_a_latent_gan_writes_has_its_work_too(latent_gan, tmp_path, tickwise_cli):
    assert tickwise_cli("run", "sample", latent_gan, "--n", 3, "--trace", tmp_path / "trace")[0] == 0
    rows = open_trace(tmp_path / "trace").rows()
    first = [row for row in rows if row["tick"] == 0]
    gan = TextVae.load(latent_gan).gan
    assert next(row for row in first if row["stage"] == "ffn")["flops"] == 2 * 3 * sum(
        layer.weight.numel() for layer in gan.generator if isinstance(layer, torch.nn.Linear))
    assert {"embed", "recurrent", "head"} <= {row["stage"] for row in rows if row["phase"] == "decode"}
    assert "forward" not in vars(gan)


def test_a_latent_gan_says_what_it_was_trained_on(latent_gan, trained):
    records = [json.loads((latent_gan / name / "run.json").read_text()) for name in (".", "model")]
    assert records[0] == records[1]
    assert records[0]["family"] == "latent GAN"
    assert records[0]["result"]["step"] == 15
    inside = json.loads((latent_gan / "model" / "autoencoder" / "run.json").read_text())
    assert inside == json.loads((trained / "model" / "run.json").read_text())
    assert inside["data"]["fingerprint"] == records[0]["data"]["fingerprint"]


def test_a_latent_gan_reads_text_as_its_vae_did(trained, text, tmp_path, tickwise_cli):
    """No flag says how the text becomes tokens."""
    verb = ("train", "latent-gan", text, trained, "--model.hidden", "16", "--max-steps", "2")
    assert tickwise_cli(*verb, "--out", tmp_path / "gan", "-q")[0] == 0
    code, _, error = tickwise_cli(*verb, "--tokenizer", "char", "--out", tmp_path / "other")
    assert (code, "--tokenizer char" in error, "was trained with word; leave it out" in error) == (2, True, True)
    (tmp_path / "other.txt").write_text("a fish swims\n" * 90, encoding="utf-8")
    code, _, error = tickwise_cli(*verb[:2], tmp_path / "other.txt", *verb[3:], "--out", tmp_path / "other")
    assert code == 2
    assert f"give the data that the VAE was trained on, {text}" in error
    assert not (tmp_path / "other").exists()


def test_a_trace_of_the_latent_game_has_a_tick_for_each_step(latent_gan):
    rows = open_trace(latent_gan.parent / "trace").rows()
    assert {row["tick"] for row in rows} == set(range(15))
    assert {"ffn", "head", "backward", "optimizer"} <= {row["stage"] for row in rows}


def test_a_latent_gan_resumes_under_the_same_settings_only(trained, text, tmp_path, tickwise_cli):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    verb = ("train", "latent-gan", text, trained, *LATENT, "--max-steps")
    assert tickwise_cli(*verb, 8, "--out", whole, "-q")[0] == 0
    assert tickwise_cli(*verb, 5, "--out", parts, "-q")[0] == 0
    for flags, said in ((("--optimizer.lr", "0.5"), "lr was 0.0002"), (("--longest", "9"), "longest was"),
                        (("--penalty", "1"), "penalty was 10.0"), (("--batch-size", "7"), "batch_size was")):
        code, _, error = tickwise_cli(*verb, 8, "--out", parts, "--resume", "auto", *flags, "-q")
        assert code == 2, flags
        assert said in error
    assert tickwise_cli(*verb, 8, "--out", parts, "--resume", "auto", "-q")[0] == 0
    name = Path("model") / "model.safetensors"
    assert (whole / name).read_bytes() == (parts / name).read_bytes()


@pytest.mark.parametrize("flags", [("--optimizer.name", "sgd"), ("--optimizer.weight-decay", "0.3"),
                                   ("--accumulate", "2", "--batch-size", "4"), ("--schedule.warmup", "0.5"),
                                   ("--dtype", "bf16"), ("--patience", "3")], ids=lambda flags: flags[0])
def test_settings_that_a_latent_gan_has_no_use_for_are_refused(trained, text, tmp_path, tickwise_cli, flags):
    code, _, error = tickwise_cli("train", "latent-gan", text, trained, *LATENT, "--out", tmp_path / "no", *flags)
    assert code == 2
    assert "no effect on a GAN of latent vectors" in " ".join(error.replace("│", " ").split())
    assert not (tmp_path / "no").exists()


def test_a_transformer_vae_trains(text, tmp_path, tickwise_cli):
    out = tmp_path / "transformer"
    assert tickwise_cli("train", "vae", text, "--out", out, *SMALL, "--model.encoder", "transformer", "--model.decoder",
                        "transformer", "--depth", 2, "--max-steps", 8, "-q")[0] == 0
    assert tickwise_cli("run", "sample", out, "--n", 2)[0] == 0


def test_bad_input_is_refused_in_a_line(trained, tmp_path, tickwise_cli):
    model = TextVae.load(trained)
    with pytest.raises(DataError, match="text 2 is empty"):
        model.reconstruct(["the cat", "  "])
    with pytest.raises(DataError, match="sentences of up to 127"):
        model.reconstruct(["cat " * 200])
    with pytest.raises(ConfigError, match="--steps"):
        model.interpolate("the cat", "the dog", steps=1)
    with pytest.raises(ConfigError, match="--n"):
        model.sample(0)
    with pytest.raises(ConfigError, match="--temperature"):
        model.sample(1, temperature=-1.0)
    assert model.reconstruct(["שלום 🙂 unseen"])
    code, _, error = tickwise_cli("run", "reconstruct", tmp_path, "the cat")
    assert code == 2
    assert error.count("\n") == 1
    empty = tmp_path / "empty.txt"
    empty.write_text("\n\n")
    code, _, error = tickwise_cli("run", "likelihood", trained, "--input", empty)
    assert code == 2
    assert "no sentence in it" in error


def test_sentences_that_are_too_long_are_counted_in_every_part(tmp_path, tickwise_cli):
    lines = [f"a cat number {n} sees it" for n in range(40)] + ["far too long a sentence to be read at all"] * 3
    (tmp_path / "train.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "valid.txt").write_text("\n".join(lines[30:]) + "\n", encoding="utf-8")
    assert tickwise_cli("data", "prepare", "--train", tmp_path / "train.txt", "--validation", tmp_path / "valid.txt",
                        "--out", tmp_path / "data", "--tokenizer", "word", "--documents", "line", "--min-frequency",
                        1, "--duplicates", "keep", "-q")[0] == 0
    code, _, error = tickwise_cli("train", "vae", tmp_path / "data", "--out", tmp_path / "vae", *SMALL[2:], "--longest",
                                  8, "--max-steps", 1)
    assert code == 0, error
    assert "left out 3 training sentences" in error
    assert "left out 3 validation sentences" in error


def test_bad_settings_are_refused_in_a_line(text, tmp_path, tickwise_cli):
    for flags in (("--word-dropout", "1"), ("--depth", "0"), ("--longest", "1"), ("--kl.cycles", "0"),
                  ("--label-smoothing", "0.1"), ("--longest", "3")):
        code, _, error = tickwise_cli("train", "vae", text, "--out", tmp_path / "no", *SMALL, *flags, "--max-steps", 1)
        assert code == 2, flags
        assert len(error.strip().splitlines()[-1]) > 20
        assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(("part", "stages"), [
    ("vae", {"embed", "recurrent", "head"}), ("latent GAN", {"ffn"}), ("its VAE", {"embed", "recurrent", "head"}),
])
def test_every_part_has_a_listing(trained, latent_gan, tickwise_cli, part, stages):
    folder = {"vae": trained, "latent GAN": latent_gan, "its VAE": latent_gan / "model" / "autoencoder"}[part]
    code, out, error = tickwise_cli("disasm", folder, "--context", 9, "--json")
    assert code == 0, error
    assert stages <= {row["stage"] for row in json.loads(out)["by_stage"]}
    assert json.loads(out)["library"] == "tickwise"

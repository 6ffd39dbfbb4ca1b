"""From text to the model directory of a counted model, and everything that is done with it."""

import json

import pytest
import torch

from tickwise.core.errors import ConfigError, OutputError
from tickwise.data.config import PrepareConfig
from tickwise.data.prepare import prepare
from tickwise.engine.language_model import load
from tickwise.evaluation.windows import losses_of
from tickwise.interop.directory import load_model
from tickwise.training.factorised import FactorisedSettings
from tickwise.training.tables import FactorisedTrainConfig, NgramTrainConfig, train_factorised, train_ngram

FACTORS = FactorisedSettings(rank=8, n_positions=2, window=10, epochs=1, sampled_words=10)


@pytest.fixture
def prepared(tmp_path, small_text):
    return prepare(PrepareConfig(sources=(str(small_text),), tokenizer="word", out=tmp_path / "data")).path


@pytest.fixture(params=["ngram", "factorised"])
def made(request, tmp_path, prepared):
    out = tmp_path / "model"
    if request.param == "ngram":
        return train_ngram(NgramTrainConfig(data=prepared, out=out, order=3))
    return train_factorised(FactorisedTrainConfig(data=prepared, out=out, order=3, factors=FACTORS))


def test_a_counted_model_is_used_by_every_verb(made, tickwise_cli):
    assert 1 < made.validation_perplexity < 12
    code, out, err = tickwise_cli("generate", made.out, "--prompt", "the cat sees", "--max-tokens", 8, "--seed", 1,
                                  "--json")
    assert code == 0, err
    assert "the" in json.loads(out)["text"]
    code, out, err = tickwise_cli("evaluate", made.out, "--json")
    assert code == 0, err
    (result,) = json.loads(out)["results"].values()
    assert result["perplexity,none"] == pytest.approx(made.validation_perplexity, rel=1e-3)
    code, out, err = tickwise_cli("disasm", made.out, "--json")
    assert code == 0, err
    listing = json.loads(out)
    assert listing["totals"]["bytes_read"] > 0
    assert {"embed", "head"} <= {row["stage"] for row in listing["by_stage"]}
    code, out, err = tickwise_cli("trace", made.out, "--prompt", "the dog", "--max-tokens", 4, "--out",
                                  made.out.parent / "trace", "--json")
    assert code == 0, err
    assert not [path.name for path in made.out.iterdir() if path.suffix in (".pt", ".bin", ".pkl")]


def test_perplexity_does_not_depend_on_where_windows_begin(made):
    from tickwise.evaluation.perplexity import evaluate

    model = load(made.out, device="cpu")
    whole = evaluate(model, split="train")
    reach = model.config.n_history
    parts = evaluate(model, split="train", context=reach + 500)
    assert (parts.stride, whole.stride) == (500, model.config.context_length - reach)
    assert parts.losses == pytest.approx(whole.losses, abs=1e-5)


def test_a_model_is_replaced_only_when_asked(made, prepared):
    with pytest.raises(OutputError, match="--overwrite"):
        train_ngram(NgramTrainConfig(data=prepared, out=made.out))
    train_ngram(NgramTrainConfig(data=prepared, out=made.out, order=2, overwrite=True))
    with pytest.raises(OutputError, match="something else"):
        train_ngram(NgramTrainConfig(data=prepared, out=prepared, overwrite=True))


def test_factors_need_a_validation_part(tmp_path, small_text):
    data = prepare(PrepareConfig(sources=(str(small_text),), tokenizer="word", validation_fraction=0.0,
                                 out=tmp_path / "all")).path
    with pytest.raises(ConfigError, match="no validation part"):
        train_factorised(FactorisedTrainConfig(data=data, out=tmp_path / "model", factors=FACTORS))
    assert train_ngram(NgramTrainConfig(data=data, out=tmp_path / "model")).validation_perplexity is None


def test_looked_up_losses_are_those_of_whole_distributions(made):
    module, _ = load_model(made.out)
    ids = torch.arange(24).view(2, 12) % module.config.vocab_size
    looked_up = losses_of(module, ids, 3)
    logits = module.logits(module.hidden_states(ids[:, :-1]))[:, 3:]
    whole = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 4:].flatten(), reduction="none")
    assert torch.allclose(looked_up.flatten(), whole, atol=1e-4)

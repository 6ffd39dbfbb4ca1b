"""A recurrent language model from text to text: every verb on the way, for each kind of cell."""

import json
import math

import pytest
import torch

import tickwise
from tickwise.data.prepared import PreparedData
from tickwise.evaluation.perplexity import evaluate
from tickwise.models.recurrent import Recurrent
from tickwise.profiling.trace_store import open_trace

WIDTH, HIDDEN, LAYERS = 12, 20, 2
GATES = {"rnn": 1, "gru": 3, "lstm": 4}


@pytest.mark.parametrize("cell", GATES)
def test_a_recurrent_model_goes_the_whole_way(cell, small_text, tmp_path, tickwise_cli):
    def verb(*words):
        code, out, err = tickwise_cli(*words)
        assert code == 0, err
        return out

    data, run = tmp_path / "data", tmp_path / "run"
    verb("data", "prepare", small_text, "--tokenizer", "word", "--out", data)
    vocab_size = PreparedData.open(data).tokenizer.vocab_size
    trained = json.loads(verb(
        "train", "recurrent", data, "--out", run, "--model.cell", cell, "--model.width", WIDTH, "--model.hidden",
        HIDDEN, "--depth", LAYERS, "--context", 16, "--batch-size", 8, "--max-steps", 40, "--evaluate-every", 20,
        "--optimizer.lr", 0.02, "--device", "cpu", "--trace", tmp_path / "training", "--json"))
    assert trained["step"] == 40
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    curve = [row["validation_loss"] for row in rows if "validation_loss" in row]
    assert curve[-1] < curve[0] < 1.1 * math.log(vocab_size)
    steps = {(row["stage"], row["layer"]) for row in open_trace(tmp_path / "training").rows()}
    assert steps >= {("recurrent", 0), ("recurrent", 1), ("backward", None), ("optimizer", None)}

    listing = json.loads(verb("disasm", run, "--phase", "decode", "--context", 10, "--json"))
    assert (listing["architecture"], listing["context"]) == ("Recurrent", 10)
    flops = {row["stage"]: row["flops"] for row in listing["by_stage"]}
    assert flops["recurrent"] == 2 * GATES[cell] * HIDDEN * (WIDTH + HIDDEN + HIDDEN + HIDDEN)
    assert flops["head"] == 2 * (HIDDEN * WIDTH + WIDTH * vocab_size)

    written = json.loads(verb("generate", run, "--prompt", "the cat", "--max-tokens", 6, "--seed", 3, "--ignore-eos",
                              "--trace", tmp_path / "writing", "--json"))
    ticks = {}
    for row in open_trace(tmp_path / "writing").rows():
        ticks.setdefault((row["tick"], row["phase"]), {})[row["stage"], row["layer"]] = row["flops"]
    assert [phase for _, phase in ticks] == ["prefill"] + ["decode"] * 5
    for (_, phase), rows in ticks.items():
        if phase == "decode":
            assert sum(rows["recurrent", layer] for layer in range(LAYERS)) == flops["recurrent"]
            assert rows["head", None] == flops["head"]

    scores = json.loads(verb("evaluate", run, "--data", data, "--json"))
    (figures,) = scores["results"].values()
    # In training the text is read in several streams side by side, each but the first with a short memory.
    assert figures["loss,none"] == pytest.approx(trained["validation_loss"], rel=0.02)

    model = tickwise.load(run, "cpu")
    assert isinstance(model.module, Recurrent)
    assert (model.module.config.cell, model.module.config.n_layers) == (cell, LAYERS)
    again = model.generate("the cat", max_tokens=6, seed=3, ignore_eos=True)
    assert (again.text, list(again.token_ids)) == (written["text"], written["token_ids"])
    assert evaluate(model, data).loss.value == figures["loss,none"]
    ids = torch.tensor([model.tokenizer.encode("the cat sees the dog")])
    with torch.no_grad():
        whole, _ = model.module(ids)
        state, parts = None, []
        for one in ids.split(1, 1):
            logits, state = model.module(one, state)
            parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole)

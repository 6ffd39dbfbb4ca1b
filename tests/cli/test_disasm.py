"""``tickwise disasm``: what it prints, on tickwise's own models and on those of transformers."""

import json
import sys

import pytest

from tickwise.interop.tensor_names import hugging_face_config
from tickwise.models.decoder import DecoderConfig

transformers = pytest.importorskip("transformers")

LAYERS, WIDTH, HEADS, VOCAB, HIDDEN, LONGEST = 3, 32, 4, 96, 80, 64
COMMON = {"vocab_size": VOCAB, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
          "intermediate_size": HIDDEN, "max_position_embeddings": LONGEST}
FOREIGN = {
    "llama": transformers.LlamaConfig(**COMMON, num_key_value_heads=2),
    "gpt2": transformers.GPT2Config(vocab_size=VOCAB, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_positions=LONGEST),
    "t5": transformers.T5Config(vocab_size=VOCAB, d_model=WIDTH, d_kv=8, d_ff=HIDDEN, num_layers=LAYERS,
                                num_heads=HEADS),
    "bert": transformers.BertConfig(**COMMON, architectures=["BertForMaskedLM"]),
}


@pytest.fixture
def own(tmp_path):
    config = DecoderConfig(vocab_size=VOCAB, context_length=LONGEST, width=WIDTH, n_layers=LAYERS, n_heads=HEADS,
                           n_kv_heads=2, head_dim=8, hidden=HIDDEN, qk_norm=True, value_residual=True)
    (tmp_path / "config.json").write_text(json.dumps(hugging_face_config(config, {})))
    return tmp_path


def listed(tickwise_cli, *words):
    code, out, err = tickwise_cli("disasm", *words, "--json")
    assert (code, err) == (0, ""), err
    return json.loads(out)


@pytest.mark.parametrize("phase", ["prefill", "decode", "train"])
def test_json_has_the_promised_keys_and_totals_that_are_sums(own, tickwise_cli, phase):
    found = listed(tickwise_cli, own, "--phase", phase, "--context", 20, "--batch", 2)
    rows = found["instructions"]
    assert rows
    for row in rows:
        assert row.keys() >= {"stage", "layer", "op", "shapes", "flops", "bytes_read", "bytes_written"}
    for name, total in found["totals"].items():
        assert total == sum(row[name] for row in rows) == sum(stage[name] for stage in found["by_stage"])
    assert set(found["totals"]) == {"flops", "bytes_read", "bytes_written"}
    stages = {row["stage"] for row in rows}
    assert stages >= {"embed", "norm", "qkv", "rope", "attention", "out", "ffn", "head"}
    assert {row["layer"] for row in rows} == {None, *range(LAYERS)}
    assert (found["phase"], found["context"], found["batch"], found["kind"]) == (phase, 20, 2, "counted")


def test_a_decode_tick_grows_by_its_cache_and_nothing_else(own, tickwise_cli):
    short, long = (listed(tickwise_cli, own, "--context", n) for n in (16, 48))

    def others(found):
        return [row for row in found["instructions"] if row["stage"] != "attention"]

    assert others(short) == others(long)
    more = long["totals"]["flops"] - short["totals"]["flops"]
    assert more == LAYERS * 32 * 4 * HEADS * 8
    assert long["totals"]["bytes_read"] - short["totals"]["bytes_read"] == LAYERS * 32 * 2 * 2 * 8 * 4


def test_context_counts_the_tokens_in_view_as_a_trace_does(own, tickwise_cli):
    """Of a decode tick, those in the cache and the new one: the model's whole context is one of its ticks."""
    for n in (1, 20, LONGEST):
        rows = listed(tickwise_cli, own, "--context", n)["instructions"]
        attention = sum(row["flops"] for row in rows if row["stage"] == "attention")
        assert attention == LAYERS * n * 4 * HEADS * 8
    assert listed(tickwise_cli, own)["context"] == LONGEST


def test_bf16_halves_what_is_read(own, tickwise_cli):
    whole, half = (listed(tickwise_cli, own, "--dtype", dtype)["totals"] for dtype in ("fp32", "bf16"))
    assert half["flops"] == whole["flops"]
    assert 0.49 < half["bytes_read"] / whole["bytes_read"] < 0.55


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("phase", ["prefill", "decode", "train"])
def test_architectures_of_transformers(tmp_path, tickwise_cli, name, phase):
    FOREIGN[name].save_pretrained(tmp_path)
    words = ("disasm", tmp_path, "--library", "transformers", "--phase", phase, "--context", 12)
    code, out, err = tickwise_cli(*words, "--json")
    if name == "bert" and phase == "decode":
        assert (code, out) == (2, "")
        assert err == "tickwise: BertForMaskedLM: keeps no cache, so it has no decode tick; use --phase prefill\n"
        return
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert {row["layer"] for row in found["instructions"]} == {None, *range(LAYERS)}
    assert found["totals"]["flops"] == sum(row["flops"] for row in found["instructions"]) > 0
    assert {"qkv", "attention", "out", "ffn", "head"} <= {row["stage"] for row in found["instructions"]}
    assert not {"forward", "backward"} & {row["stage"] for row in found["instructions"] if row["flops"]}
    if phase == "train":
        loss = [row for row in found["instructions"] if row["stage"] == "loss"]
        assert sum(row["bytes_read"] for row in loss) > 2 * 12 * VOCAB * 4
        assert not any("softmax" in row["op"] for row in found["instructions"] if row["stage"] == "head")
    if phase == "decode":
        assert tickwise_cli("disasm", tmp_path, "--library", "transformers", "--phase", phase, "--context", 1) == (
            2, "", "tickwise: --context 1: a decode tick has a token in its cache and reads one more; give 2 or more\n")
        head = next(row for row in found["instructions"] if row["stage"] == "head" and row["flops"])
        assert head["flops"] == 2 * WIDTH * VOCAB


def test_an_encoder_s_head_is_listed(tmp_path, tickwise_cli):
    FOREIGN["bert"].save_pretrained(tmp_path)
    found = listed(tickwise_cli, tmp_path)
    assert (found["architecture"], found["library"], found["context"]) == ("Encoder", "tickwise", LONGEST)
    theirs = listed(tickwise_cli, tmp_path, "--library", "transformers", "--phase", "prefill", "--context", LONGEST)
    of_head = {row["stage"]: row["flops"] for row in found["by_stage"]}["head"]
    assert of_head == LONGEST * (2 * WIDTH * WIDTH + 2 * WIDTH * VOCAB)
    assert found["totals"]["flops"] == theirs["totals"]["flops"]
    assert "--context: the model takes" in tickwise_cli("disasm", tmp_path, "--context", LONGEST + 1)[2]
    bare = tmp_path / "bare"
    FOREIGN["bert"].__class__(**COMMON, architectures=["BertModel"]).save_pretrained(bare)
    assert "head" not in {row["stage"] for row in listed(tickwise_cli, bare)["by_stage"]}


def test_the_same_config_as_tickwise_and_as_transformers_costs_the_same_products(tmp_path, tickwise_cli):
    FOREIGN["llama"].save_pretrained(tmp_path)
    ours, theirs = (listed(tickwise_cli, tmp_path / "config.json", "--library", library, "--phase", "decode",
                           "--context", 30) for library in ("auto", "transformers"))
    assert (ours["architecture"], theirs["architecture"]) == ("Decoder", "LlamaForCausalLM")
    assert ours["totals"]["flops"] == theirs["totals"]["flops"]


def test_a_config_that_tickwise_refuses_is_listed_with_a_word_about_it(tmp_path, tickwise_cli):
    """Otherwise a user would take the listing for what train and generate run."""
    FOREIGN["llama"].save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"rope_parameters": {"rope_type": "linear", "factor": 2.0,
                                                             "rope_theta": 10_000.0}}))
    code, out, err = tickwise_cli("disasm", tmp_path, "--context", 12, "--json")
    assert code == 0
    assert json.loads(out)["library"] == "transformers"
    assert len(err.strip().splitlines()) == 1
    assert "refuses this config" in err
    assert "linear" in err
    assert tickwise_cli("disasm", tmp_path, "--library", "tickwise")[0] == 2
    code, out, err = tickwise_cli("disasm", tmp_path, "--library", "transformers", "--context", 12, "--json")
    assert (code, err) == (0, ""), "asked for"


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_recurrent_architectures_have_decode_ticks_too(tmp_path, tickwise_cli, phase):
    transformers.MambaConfig(vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=2, state_size=4,
                             expand=2).save_pretrained(tmp_path)
    short, long = (listed(tickwise_cli, tmp_path, "--phase", phase, "--context", n)["totals"] for n in (5, 10))
    if phase == "decode":
        assert short == long, "the state does not grow"
    else:
        assert long["flops"] > short["flops"]


def test_the_table_says_what_is_counted_and_ends_with_totals(own, tickwise_cli):
    code, out, _ = tickwise_cli("disasm", own, "--context", 20)
    assert code == 0
    lines = out.splitlines()
    assert "elementwise work counts 0" in lines[1]
    assert any("scaled_dot_product_attention" in line and "1×2×20×8" in line for line in lines)
    assert not any(" view " in line for line in lines)
    assert lines[-1].startswith("total")
    assert "100.0%" in lines[-1]
    with_views = tickwise_cli("disasm", own, "--context", 20, "--views")[1]
    assert any(" view " in line for line in with_views.splitlines())
    assert with_views.splitlines()[-1] == lines[-1]
    by_stage = tickwise_cli("disasm", own, "--context", 20, "--by", "stage")[1].splitlines()
    assert by_stage[-1] == lines[-1]
    assert len(by_stage) < 15
    by_layer = tickwise_cli("disasm", own, "--context", 20, "--by", "layer")[1].splitlines()
    assert sum(line.split()[:2] == ["1", "ffn"] for line in by_layer) == 1
    assert by_layer[-1] == lines[-1]
    of_stage, of_layer = (json.loads(tickwise_cli("disasm", own, "--context", 20, "--by", by, "--json")[1])
                          for by in ("stage", "layer"))
    assert "instructions" not in of_stage.keys() | of_layer.keys()
    assert sum(row["flops"] for row in of_layer["by_layer"]) == of_stage["totals"]["flops"] > 0
    assert of_layer["by_stage"] == of_stage["by_stage"]
    assert {row["layer"] for row in of_layer["by_layer"]} > {0, 1}


@pytest.mark.parametrize(("words", "hint"), [
    (["--context", "65"], "the model takes 64 tokens, not 65"),
    (["--context", "0"], "--context"), (["--batch", "-1"], "--batch"), (["--phase", "sleep"], "phase"),
])
def test_mistakes_are_one_line(own, tickwise_cli, words, hint):
    code, out, err = tickwise_cli("disasm", own, *words)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert hint in err


def test_configs_that_nobody_knows_are_one_line(tmp_path, tickwise_cli):
    path = tmp_path / "config.json"
    for content, hint in (('{"model_type": "abacus"}', "abacus"), ("{}", "model_type"), ('{"model_type"', "JSON"),
                          ('{"model_type": "llama", "hidden_size": -3, "num_hidden_layers": "many"}', "config"),
                          ('{"model_type": "tickwise-decoder"}', "decoder")):
        path.write_text(content)
        code, out, err = tickwise_cli("disasm", path)
        assert (code, out) == (2, ""), err
        assert len(err.strip().splitlines()) == 1
        assert hint in err
    assert tickwise_cli("disasm", tmp_path / "nothing")[0] == 2


def test_the_codes_of_a_quantised_bag_are_counted(tmp_path, tickwise_cli):
    config = {"model_type": "tickwise-bag", "architectures": ["Bag"], "labels": ["a", "b"], "n_features": 3000}
    for more, said in (({}, "Bag, 6k parameters, fp32"),
                       ({"code_bytes": 1}, "Bag, 3.51k parameters, 3k of them codes of a byte, fp32")):
        path = tmp_path / "config.json"
        path.write_text(json.dumps(config | more), encoding="utf-8")
        code, out, error = tickwise_cli("disasm", path)
        assert code == 0, error
        assert out.startswith(said), out


def test_without_transformers_it_says_so(tmp_path, tickwise_cli, monkeypatch):
    # No family of ours has experts.
    transformers.MixtralConfig(**COMMON, num_key_value_heads=2).save_pretrained(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    code, _, err = tickwise_cli("disasm", tmp_path)
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert "pip install transformers" in err


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_experts_are_listed_in_every_number_format(tmp_path, tickwise_cli, dtype):
    transformers.MixtralConfig(**COMMON, num_key_value_heads=2, num_local_experts=4,
                               num_experts_per_tok=2).save_pretrained(tmp_path)
    found = listed(tickwise_cli, tmp_path, "--phase", "prefill", "--context", 12, "--dtype", dtype)
    products = [row for row in found["instructions"] if row["op"] == "aten._grouped_mm"]
    assert sum(row["flops"] for row in products) == LAYERS * 12 * 2 * 2 * 3 * WIDTH * HIDDEN


@pytest.fixture
def translator(tmp_path):
    FOREIGN["t5"].save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("phase", ["prefill", "decode", "train"])
def test_an_encoder_decoder_s_ticks_cross_over_to_its_source(translator, tickwise_cli, phase):
    found = listed(tickwise_cli, translator, "--phase", phase, "--context", 12, "--batch", 2)
    assert (found["architecture"], found["library"]) == ("EncoderDecoder", "tickwise")
    crossing = {row["layer"] for row in found["instructions"] if row["stage"] == "cross_attention"}
    assert crossing == {LAYERS, LAYERS + 1, LAYERS + 2}
    reading = {row["layer"] for row in found["instructions"] if row["stage"] == "ffn"}
    assert reading == {*crossing, *(() if phase == "decode" else range(LAYERS))}
    for name, total in found["totals"].items():
        assert total == sum(row[name] for row in found["instructions"])


def test_a_decode_tick_attends_to_its_target_and_its_source(translator, tickwise_cli):
    found = listed(tickwise_cli, translator, "--phase", "decode", "--context", 12)
    keys = {stage: [row["shapes"][1] for row in found["instructions"]
                    if row["stage"] == stage and row["op"] == "scaled_dot_product_attention"]
            for stage in ("attention", "cross_attention")}
    assert keys == {"attention": [[1, HEADS, 12, 8]] * LAYERS, "cross_attention": [[1, HEADS, 12, 8]] * LAYERS}

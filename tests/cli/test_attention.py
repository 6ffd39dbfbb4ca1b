"""``tickwise attention`` from the command line: decoders, encoders, mistakes (translations: test_run_translate)."""

import json

from tickwise.data.encoder_inputs import with_marks
from tickwise.interop.directory import save_model
from tickwise.models.encoder import Encoder, EncoderConfig
from tickwise.models.recurrent import Recurrent, RecurrentConfig
from tickwise.tokenizers.train import train_tokenizer


def test_a_decoder_s_tokens_look_at_those_before_them(tickwise_cli, tiny_run, tmp_path):
    code, printed, err = tickwise_cli("attention", tiny_run, "a bad 中\n", "--out", tmp_path / "a.html", "--json")
    assert code == 0, err
    (one,) = json.loads(printed)["maps"]
    assert (one["name"], one["layers"], one["heads"]) == ("self", 2, 2)
    assert one["queries"] == one["keys"] == ["a", "␣", "b", "a", "d", "␣", "中", "⏎"]
    for place, row in enumerate(one["mean"]):
        assert abs(sum(row) - 1) < 1e-5
        assert not any(row[place + 1 :])
    assert "中" in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_an_encoder_s_tokens_look_both_ways_and_its_marks_are_shown(tickwise_cli, tmp_path):
    tokenizer = with_marks(train_tokenizer("bpe", iter(["the dog runs"] * 3), vocab_size=280))
    module = Encoder(EncoderConfig(vocab_size=tokenizer.vocab_size, context_length=12, width=16, n_layers=1, n_heads=2,
                                   head_dim=8, hidden=24)).initialise(1)
    save_model(tmp_path / "model", module, tokenizer)
    code, printed, err = tickwise_cli("attention", tmp_path / "model", "the dog", "--out", tmp_path / "a.svg", "--json")
    assert code == 0, err
    (one,) = json.loads(printed)["maps"]
    assert (one["keys"][0], one["keys"][-1]) == ("[CLS]", "[SEP]")
    assert all(weight > 0 for row in one["mean"] for weight in row)
    code, _, err = tickwise_cli("attention", tmp_path / "model", "the dog runs " * 9, "--out", tmp_path / "b.html")
    assert code == 0
    assert "was cut" in err


def test_mistakes_are_one_line(tickwise_cli, tiny_run, tmp_path):
    tokenizer = train_tokenizer("bpe", iter(["the dog runs"] * 3), vocab_size=280)
    config = RecurrentConfig(vocab_size=tokenizer.vocab_size, width=8, hidden=8, n_layers=1)
    save_model(tmp_path / "lstm", Recurrent(config), tokenizer)
    page = ["--out", tmp_path / "a.html"]
    for words, said in (
        ([tmp_path / "lstm", "the dog", *page], "a Recurrent has no attention"),
        ([tiny_run, "a bad", "--target", "b", *page], "--target"),
        ([tiny_run, "a b c d e f g h i j " * 4, *page], "the model reads at most 32"),
        ([tiny_run, "  ", *page], "empty"),
        ([tiny_run, "a bad", "--out", tmp_path / "a.pdf"], "ends in .html"),
        ([tmp_path / "nowhere", "a bad", *page], "no such model directory"),
    ):
        code, out, err = tickwise_cli("attention", *words)
        assert (code, out) == (2, ""), words
        assert len(err.strip().splitlines()) == 1, err
        assert said in err
    assert not (tmp_path / "a.html").exists()

"""Scores of translations, row by row, and the text that is looked into."""

import pytest

from tickwise.core.errors import DataError
from tickwise.data.pairs import Pairs, ReadPairs, read_pairs
from tickwise.engine.batch_beam import BeamOptions
from tickwise.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from tickwise.tasks.text_to_text import TextToText
from tickwise.tasks.translate import example, score_part
from tickwise.tokenizers.train import train_tokenizer


@pytest.fixture(scope="module")
def model():
    """Nobody trained it: it hardly ever ends a text."""
    tokenizer = train_tokenizer("bpe", iter(["a dog runs on the beach"] * 5), vocab_size=300, lowercase=False,
                                prefix_space=True)
    end = tokenizer.eos_id
    module = EncoderDecoder(EncoderDecoderConfig(
        vocab_size=tokenizer.vocab_size, source_length=40, context_length=40, width=32, n_encoder_layers=1,
        n_decoder_layers=1, n_heads=2, n_kv_heads=2, head_dim=16, hidden=64, pad_id=end, start_id=end, eos_id=end,
        logit_bias=True)).initialise(1).requires_grad_(False)
    module.lm_head.bias[end] = -50
    return TextToText(module, tokenizer)


def test_a_part_is_scored_and_its_lines_stand_at_their_rows(model, tmp_path, capfd):
    pytest.importorskip("sacrebleu")
    (tmp_path / "x.en").write_text("a dog\n\nthe beach\n" + "dog " * 60 + "\na dog\n", encoding="utf-8")
    (tmp_path / "x.de").write_text("Hund\nb\nStrand\nHunde\nHund\n", encoding="utf-8")
    pairs = read_pairs([str(tmp_path / "x.en"), str(tmp_path / "x.de")], ReadPairs())
    scored = score_part(model, pairs, BeamOptions(width=1))
    assert (scored.scores.n, scored.n_left_out, scored.n_cut) == (3, 1, 3)
    lines = scored.lines()
    assert lines[1] == lines[3] == ""
    assert lines[0] == lines[4] == " ".join(model.translate(["a dog"], BeamOptions(width=1))[0].split())
    assert lines[2] == " ".join(model.translate(["the beach"], BeamOptions(width=1))[0].split())
    said = capfd.readouterr().err
    assert "1 of 4 texts are not scored" in said
    assert f"3 of 3 translations of {pairs.name} were cut" in said
    figures = scored.to_json()
    assert (figures["left_out"], figures["cut"]) == (1, 3)
    assert figures["results"]["translation"]["perplexity,none"] == scored.perplexity > 1
    with pytest.raises(DataError, match="every source is longer"):
        score_part(model, pairs.take([2]))


def test_the_example_is_of_middling_length_and_one_that_the_model_reads(model):
    pairs = Pairs(["dog " * 60, "a", "the dog on the beach", "a dog", "beach " * 35], ["x"] * 5, "some")
    text, translation, maps = example(model, pairs)
    assert text == "a dog"
    assert translation == model.translate([text])[0]
    assert {one.name for one in maps} == {"cross", "encoder", "decoder", "words"}
    assert example(model, pairs.take([0, 4])) is None

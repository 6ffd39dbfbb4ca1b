"""Words for the places that a text leaves open."""

import io
import json
import unicodedata

import pytest

import tokenizers
from tickwise.core.errors import CheckpointError, ConfigError, DataError
from tickwise.interop.directory import load_module, resolve_model_path
from tickwise.models.encoder import Encoder, EncoderConfig
from tickwise.tasks.fill_mask import MaskFiller
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.training.config import OptimizerOptions
from tickwise.training.encoder import EncoderOptions, EncoderTrainConfig, train_encoder

LINES = [f"{name} likes {thing}" for name in ("ada", "bob", "cleo", "dan") for thing in ("apples", "boats", "cards")]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    (folder / "text.txt").write_text("\n".join(LINES * 40), encoding="utf-8")
    return train_encoder(EncoderTrainConfig(
        data=folder / "text.txt", out=folder / "run", vocab_size=280, depth=2, context=32, batch_size=32, max_steps=120,
        model=EncoderOptions(width=32, n_heads=2), optimizer=OptimizerOptions(embedding_lr_ratio=1.0), dtype="fp32",
        compile="off", device="cpu")).out


def test_the_text_stays_as_it_was_given_but_for_the_place(encoder):
    first, second, third = MaskFiller.load(encoder).fill("  ada [MASK]  boats, in\ta [MASK] [MASK] !", 3)
    assert first[0].word == "likes"
    assert first[0].text == "  ada likes  boats, in\ta [MASK] [MASK] !"
    assert second[0].text == f"  ada [MASK]  boats, in\ta {second[0].word} [MASK] !"
    assert third[0].text == f"  ada [MASK]  boats, in\ta [MASK] {third[0].word} !"
    assert 1 >= first[0].probability >= first[1].probability >= first[2].probability > 0


def test_what_cannot_be_written_is_no_word(encoder):
    (found,) = MaskFiller.load(encoder).fill("ada [MASK] boats", 100_000)
    words = [filling.word for filling in found]
    assert len(words) > 20
    assert len(words) == len(set(words))
    assert not {"", "[PAD]", "[MASK]", "[CLS]", "[SEP]"} & set(words)
    assert not [word for word in words if "\ufffd" in word or any(unicodedata.category(c) == "Cc" for c in word)]
    assert sum(filling.probability for filling in found) == pytest.approx(1, abs=1e-3)


def test_what_goes_on_inside_a_word_is_no_word():
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "sleep", "##s", "##ing", "\u200b", "##"]
    backend = tokenizers.Tokenizer(tokenizers.models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    backend.decoder = tokenizers.decoders.WordPiece()
    backend.add_special_tokens(pieces[:5])
    module = Encoder(EncoderConfig(vocab_size=len(pieces), context_length=16, width=8, n_layers=1, n_heads=1,
                                   head_dim=8, hidden=8)).initialise(0)
    (found,) = MaskFiller(module, Tokenizer(backend, "other")).fill("the [MASK]", 100)
    assert {filling.word for filling in found} == {"the", "sleep", "##"}


def test_mistakes(encoder, tmp_path, monkeypatch):
    filler = MaskFiller.load(encoder)
    with pytest.raises(DataError, match=r"has no \[MASK\]"):
        filler.fill("ada likes boats")
    with pytest.raises(DataError, match=r"reads 32 tokens, and its last \[MASK\] stands behind them; cut"):
        filler.fill("boats " * 60 + "[MASK]")
    with pytest.raises(ConfigError, match="--n"):
        filler.fill("[MASK]", 0)
    with pytest.raises(CheckpointError):
        MaskFiller.load(tmp_path)
    module = load_module(resolve_model_path(encoder))
    module.masked_head = None
    monkeypatch.setattr("tickwise.tasks.fill_mask.load_module", lambda *arguments, **more: module)
    with pytest.raises(CheckpointError, match="no head for masked words"):
        MaskFiller.load(encoder)


def test_a_line_that_cannot_be_filled_is_named(encoder, tickwise_cli, tmp_path, monkeypatch):
    code, out, _ = tickwise_cli("run", "fill-mask", encoder, "ada [MASK] boats", "--json")
    assert (code, json.loads(out)["places"][0][0]["word"]) == (0, "likes")
    path = tmp_path / "texts.txt"
    path.write_text("ada [MASK] boats\nno mask\nbob [MASK] boats\n", encoding="utf-8")
    code, out, err = tickwise_cli("run", "fill-mask", encoder, "--input", path, "--n", 1)
    assert (code, len(out.splitlines())) == (2, 2)
    assert err == (f"tickwise: 1 of 3 texts were not filled; the first: {path}, line 2: the text has no [MASK]; write "
                   "it in place of a word\n")
    out = tickwise_cli("run", "fill-mask", encoder, "--input", path, "--json")[1]
    assert ["error" in json.loads(line) for line in out.splitlines()] == [False, True, False]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n"), encoding="utf-8"))
    assert "standard input, line 1: the text has no" in tickwise_cli("run", "fill-mask", encoder, "-")[2]
    assert tickwise_cli("run", "fill-mask", encoder, "boats")[2].startswith("tickwise: the text has no")
    assert tickwise_cli("run", "fill-mask", encoder, " ")[2] .startswith("tickwise: the text is empty; give some")


def test_progress_on_the_texts_of_a_file_is_shown(encoder, tickwise_cli, tmp_path, monkeypatch):
    monkeypatch.setattr("tickwise.core.console._PLAIN_INTERVAL_S", 0.0)
    path = tmp_path / "texts.txt"
    path.write_text("ada [MASK] boats\nada [mask] boats\n", encoding="utf-8")
    err = tickwise_cli("run", "fill-mask", encoder, "--input", path)[2].splitlines()
    assert [line.split(",")[0] for line in err[:2]] == ["filling: 50% 1 texts", "filling: 100% 2 texts"]
    assert err[2].endswith("the text has no [MASK]; write it exactly so, in place of a word")


def test_the_prompt_stays_after_a_text_that_cannot_be_filled(encoder, tickwise_cli, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdin", Terminal("no mask\nada [MASK] boats\n"))
    code, out, err = tickwise_cli("run", "fill-mask", encoder, "--n", 1)
    assert (code, len(out.splitlines())) == (0, 1)
    assert "tickwise: the text has no [MASK]" in err


def test_an_empty_text_is_like_nothing(encoder, tickwise_cli, tmp_path):
    among, queries = tmp_path / "among.txt", tmp_path / "queries.txt"
    among.write_text("\n".join(LINES), encoding="utf-8")
    queries.write_text("ada\n\n", encoding="utf-8")
    for verb in (["similar", encoder, "", "--among", among], ["embed", encoder, "  "]):
        code, out, err = tickwise_cli("run", *verb)
        assert (code, out) == (2, "")
        assert err.startswith("tickwise: the text is empty; give some")
    code, out, _ = tickwise_cli("run", "similar", encoder, "--input", queries, "--among", among, "--json")
    assert [len(json.loads(line)["similar"]) for line in out.splitlines()] == [5, 0]

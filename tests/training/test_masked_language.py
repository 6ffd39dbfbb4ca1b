"""Masks of whole words, and pre-training of encoders."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from tickwise.core.errors import ConfigError
from tickwise.data.batches import BatchCursor
from tickwise.data.encoder_inputs import marks_of, with_marks
from tickwise.data.word_borders import WordBorders
from tickwise.interop.directory import load_module
from tickwise.models.encoder import Electra, ElectraConfig, Encoder, EncoderConfig
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.tokenizers.train import train_tokenizer
from tickwise.training.config import OptimizerOptions
from tickwise.training.encoder import EncoderOptions, EncoderTrainConfig, cooccurrence_rows, train_encoder
from tickwise.training.masked_language import MaskedLanguage, WholeWordMasks, electra_losses
from tickwise.training.parallel import Alone

TEXT = "the unbelievable cat didn't see 1999 dogs, did it? "


@pytest.fixture(scope="module")
def tokenizer():
    return with_marks(train_tokenizer("bpe", iter(["the cat sat on the mat. " * 30]), vocab_size=290))


def pieces(tokenizer, text):
    ids = tokenizer.encode(text)
    begins = WordBorders(tokenizer).begins(np.array([ids]))[0]
    words = []
    for token, is_first in zip(ids, begins, strict=True):
        if is_first:
            words.append([])
        words[-1].append(token)
    return [tokenizer.decode(word).strip() for word in words]


def test_pieces_of_bytes_make_words(tokenizer):
    assert pieces(tokenizer, "unbelievable cats, 1999!") == ["unbelievable", "cats", ",", "1999", "!"]
    assert pieces(tokenizer, "naïve cafés") == ["naïve", "cafés"]
    assert pieces(tokenizer, "你好 cat") == ["你", "好", "cat"]


def test_chinese_characters_make_jiebas_words():
    tokenizer = with_marks(train_tokenizer("char", iter(["我们在北京大学学习 abc 中文。"]), unknown=True))
    assert pieces(tokenizer, "我们在北京大学学习abc") == ["我们", "在", "北京大学", "学习", "abc"]


def masks_for(tokenizer, share=0.15, always=False):
    words = np.array([i for i in range(tokenizer.vocab_size) if not tokenizer.is_special(i)])
    return WholeWordMasks(WordBorders(tokenizer), marks_of(tokenizer), words, share, always)


def test_words_are_hidden_whole_and_as_many_as_asked(tokenizer):
    marks = marks_of(tokenizer)
    ids = np.array([[marks.cls, *tokenizer.encode(TEXT * 3), marks.sep]] * 8)
    seen, places, targets = masks_for(tokenizer)(ids, np.random.default_rng(1))
    assert places.shape == (8, round(0.15 * ids.shape[1]))
    assert torch.equal(torch.from_numpy(ids).gather(1, places), targets)
    untouched = torch.ones_like(seen, dtype=torch.bool).scatter_(1, places, False)
    assert torch.equal(seen[untouched], torch.from_numpy(ids)[untouched])
    word = WordBorders(tokenizer).begins(ids).cumsum(1)
    for row in range(8):
        hidden = set(places[row].tolist())
        cut = [w for w in set(word[row][places[row]].tolist())
               if not set(np.flatnonzero(word[row] == w).tolist()) <= hidden]
        assert len(cut) <= 1  # the last word may not fit
    assert not {0, ids.shape[1] - 1} & set(places.flatten().tolist())


def test_eight_of_ten_hidden_tokens_are_masked(tokenizer):
    marks = marks_of(tokenizer)
    ids = np.array([[marks.cls, *tokenizer.encode(TEXT * 4), marks.sep]] * 200)
    seen, places, targets = masks_for(tokenizer)(ids, np.random.default_rng(2))
    shown = seen.gather(1, places)
    assert (shown == marks.mask).float().mean() == pytest.approx(0.8, abs=0.02)
    assert (shown == targets).float().mean() == pytest.approx(0.1, abs=0.02)
    always, places, _ = masks_for(tokenizer, always=True)(ids, np.random.default_rng(2))
    assert (always.gather(1, places) == marks.mask).all()


def test_a_drawn_word_that_is_the_right_one_is_no_replacement():
    shape = {"vocab_size": 30, "context_length": 12, "width": 16, "n_layers": 1, "n_heads": 1, "head_dim": 16,
             "hidden": 16}
    module = Electra(ElectraConfig(**shape)).initialise(1)
    places = torch.tensor([[2, 5]])
    ids = torch.full((1, 12), 7)
    with torch.no_grad():  # a generator that always names word 7, and a discriminator that finds nothing replaced
        module.embed_tokens.weight.zero_()
        module.embed_tokens.weight[7] = 50.0
        module.generator.masked_head.dense.weight.copy_(torch.eye(16))
        module.replaced.bias.fill_(-9.0)
    generated, found, right = electra_losses(module, ids, places, torch.full((1, 2), 7))
    assert right == 1.0
    assert found < 1e-3
    assert generated < 1e-3
    _, found, right = electra_losses(module, ids, places, torch.full((1, 2), 8))
    assert right == pytest.approx(10 / 12)
    assert found > 1.0


def test_words_with_the_same_neighbours_begin_alike():
    chooser = np.random.default_rng(3)
    # Ids 0 and 1 stand between 2 and 3; 4 and 5 between 6 and 7; 8 nowhere.
    frames = [[2, int(chooser.integers(2)), 3] if chooser.random() < 0.5 else [6, 4 + int(chooser.integers(2)), 7]
              for _ in range(2000)]
    rows = cooccurrence_rows(np.concatenate(frames), 9, 8, seed=1)
    unit = torch.nn.functional.normalize(rows, dim=1)
    assert unit[0] @ unit[1] > 0.9 > 0.5 > unit[0] @ unit[4]
    assert unit[4] @ unit[5] > 0.9
    torch.testing.assert_close(rows[:8].norm(dim=1), torch.full((8,), 0.02 * 8**0.5))
    assert rows[8].norm() > 0


def config(tmp_path, text, **more):
    return EncoderTrainConfig(data=text, out=tmp_path / "run", tokenizer="bpe", vocab_size=300, depth=2, context=32,
                              batch_size=16, dtype="fp32", compile="off", device="cpu",
                              **{"max_steps": 60, "model": EncoderOptions(width=32, n_heads=2)} | more)


def test_an_encoder_learns_which_words_are_hidden(tmp_path, small_text):
    result = train_encoder(config(tmp_path, small_text, max_steps=150))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert result.validation_loss < 0.6 * rows[0]["loss"]
    assert result.validation["accuracy"] > 0.5
    module, tokenizer = load_module(result.model, device="cpu"), Tokenizer.load(result.model)
    marks = marks_of(tokenizer)
    ids = [marks.cls, *tokenizer.encode("the cat sees"), marks.mask, *tokenizer.encode(" dog."), marks.sep]
    assert module.config.vocab_size == tokenizer.vocab_size
    with torch.no_grad():
        logits = module.mlm_logits(module(torch.tensor([ids])))
    assert tokenizer.decode([int(logits[0, ids.index(marks.mask)].argmax())]).strip() == "the"


def test_a_resumed_pretraining_goes_on_bit_for_bit(tmp_path, small_text):
    whole = train_encoder(config(tmp_path / "a", small_text, max_steps=20))
    train_encoder(config(tmp_path / "b", small_text, max_steps=20, checkpoint_every=10, keep_checkpoints=5))
    for late in (tmp_path / "b" / "run" / "checkpoints").glob("step-20"):
        import shutil

        shutil.rmtree(late)
    again = train_encoder(config(tmp_path / "b", small_text, max_steps=20, resume="auto"))
    first, second = (load_module(r.out / "checkpoints" / "step-20", device="cpu").state_dict() for r in (whole, again))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_electra_trains_and_an_encoder_starts_from_it(tmp_path, small_text):
    from tickwise.interop.warm_start import headed_encoder
    from tickwise.models.encoder_heads import EncoderClassifier, EncoderClassifierConfig

    result = train_encoder(config(tmp_path, small_text, objective="electra", max_steps=20,
                                  optimizer=OptimizerOptions(name="adamw")))
    assert {"loss", "generator_loss", "accuracy"} == set(result.validation)
    head = headed_encoder(EncoderClassifier, EncoderClassifierConfig, result.model, 1, labels=("a", "b"))
    own = load_module(result.model, device="cpu").state_dict()
    assert torch.equal(head.state_dict()["layers.1.mlp.down_proj.weight"], own["layers.1.mlp.down_proj.weight"])


def test_validation_of_electra_leaves_the_generators_of_torch_alone(tmp_path, small_text, monkeypatch):
    import tickwise.training.encoder as training

    kept = {}
    monkeypatch.setattr(training, "train_module", lambda config, module, objective, *_, **__: kept.update(
        module=module, objective=objective))
    train_encoder(config(tmp_path, small_text, objective="electra", optimizer=OptimizerOptions(name="adamw")))

    def refuse(*_):
        raise AssertionError("reseeds the generators of every device")

    monkeypatch.setattr(torch, "manual_seed", refuse)
    before = torch.get_rng_state()
    with torch.no_grad():
        figures = [kept["objective"].validate(kept["module"].eval(), torch.device("cpu"), 2000) for _ in range(2)]
    assert figures[0] == figures[1]
    assert torch.equal(before, torch.get_rng_state())


def test_going_on_keeps_the_shape_of_the_beginning(tmp_path, small_text, capfd):
    first = train_encoder(config(tmp_path / "a", small_text, max_steps=5, model=EncoderOptions(
        width=48, n_heads=3, hidden=80, architecture="bert")))
    more = {"data": small_text, "max_steps": 5, "dtype": "fp32", "compile": "off", "device": "cpu", "batch_size": 4}
    again = train_encoder(EncoderTrainConfig(out=tmp_path / "b", start=first.out, **more))
    old, new = (load_module(result.model, device="cpu").config for result in (first, again))
    assert new == old
    err = capfd.readouterr().err
    assert "tensors loaded" in err
    assert "of another shape" not in err
    deeper = train_encoder(EncoderTrainConfig(out=tmp_path / "c", start=first.out, depth=3, context=16, **more))
    assert load_module(deeper.model, device="cpu").config == dataclasses.replace(old, n_layers=3, context_length=16)
    for wrong, said in (({"model": EncoderOptions(width=64)}, "--model.width 64"), ({"context": 64}, "has learned"),
                        ({"model": EncoderOptions(architecture="tickwise")}, "--model.architecture")):
        with pytest.raises(ConfigError, match=said):
            train_encoder(EncoderTrainConfig(out=tmp_path / "d", start=first.out, **more | wrong))


def test_an_encoder_starts_in_the_shape_of_a_decoder(tmp_path, small_text):
    from tickwise import TrainConfig, train
    from tickwise.training.config import ModelOptions

    decoder = train(TrainConfig(data=small_text, out=tmp_path / "a", vocab_size=300, depth=1, context=24, max_steps=3,
                                dtype="fp32", compile="off", device="cpu",
                                model=ModelOptions(width=32, n_heads=2, architecture="llama")))
    made = train_encoder(EncoderTrainConfig(data=small_text, out=tmp_path / "b", start=decoder.out, max_steps=3,
                                            dtype="fp32", compile="off", device="cpu"))
    shape = load_module(made.model, device="cpu").config
    assert (shape.width, shape.n_layers, shape.n_heads, shape.context_length) == (32, 1, 2, 24)


def test_settings_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="--mask-share"):
        EncoderTrainConfig(data=tmp_path, mask_share=1.0)
    with pytest.raises(ConfigError, match="--context"):
        EncoderTrainConfig(data=tmp_path, context=4)


def test_parts_of_a_batch_that_are_not_equal_weigh_what_they_have(tokenizer):
    shape = EncoderConfig(vocab_size=tokenizer.vocab_size, context_length=18, width=16, n_layers=1, n_heads=1,
                          head_dim=16, hidden=16)
    module = Encoder(shape).initialise(1)
    tokens = np.array(tokenizer.encode(TEXT * 20))
    masked = MaskedLanguage(BatchCursor(tokens, batch_size=5, context=16, seed=1), None, masks_for(tokenizer),
                            marks_of(tokenizer))
    batch = masked.next_batch()
    parts = Alone().parts(masked, batch, 3)
    assert [part.batch.n_tokens for part in parts] == [36, 36, 18]
    found = sum(masked.loss(module, *part.batch.inputs)[0] / part.divisor for part in parts)
    torch.testing.assert_close(found, masked.loss(module, *batch.inputs)[0])

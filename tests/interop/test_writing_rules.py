"""From text to text, directories of BART, Marian and T5 do what transformers does with them at its defaults."""

import json

import pytest
import torch

import tickwise
import tokenizers
from tickwise.core.errors import CheckpointError
from tickwise.engine.batch_beam import BeamOptions
from tickwise.interop.directory import load_module, read_config, save_model
from tickwise.tasks.text_to_text import TextToText
from tickwise.tokenizers.tokenizer import Tokenizer
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

transformers = pytest.importorskip("transformers")

MARKS = ["<s>", "<pad>", "</s>", "<unk>"]
TEXTS = ["a dog runs", "two cats sit on the beach", "the dog sits", "on the beach two dogs run and a cat sits"]
LONGEST = 14
SIZES = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
         "decoder_attention_heads": 4, "encoder_ffn_dim": 40, "decoder_ffn_dim": 40, "max_position_embeddings": 40}


def fast_tokenizer(kind):
    """As the published ones: BART's bytes between two marks, pieces behind a space for the others, which end only."""
    if kind == "bart":
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=MARKS, show_progress=False,
                                      initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    else:
        backend = tokenizers.Tokenizer(models.Unigram())
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=MARKS, unk_token="<unk>", show_progress=False)
    backend.train_from_iterator([*TEXTS, "a cat, a dog and the dogs"] * 5, trainer)
    ids = {name: backend.token_to_id(name) for name in MARKS}
    backend.post_processor = (processors.RobertaProcessing(("</s>", ids["</s>"]), ("<s>", ids["<s>"]))
                              if kind == "bart" else processors.TemplateProcessing(
                                  single="$A </s>", special_tokens=[("</s>", ids["</s>"])]))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>",
                                                pad_token="<pad>", unk_token="<unk>"), ids


def directory(kind, folder):
    """Of a random model with the settings for writing that published ones have; transformers' model and tokenizer."""
    torch.manual_seed(4)
    fast, ids = fast_tokenizer(kind)
    names = {"pad_token_id": ids["<pad>"], "eos_token_id": ids["</s>"], "bos_token_id": ids["<s>"]}
    if kind == "t5":
        config = transformers.T5Config(
            vocab_size=len(fast), d_model=32, d_kv=8, d_ff=40, num_layers=2, num_heads=4, initializer_factor=3.0,
            decoder_start_token_id=ids["<pad>"], **names)
        module, settings = transformers.T5ForConditionalGeneration(config), {"suppress_tokens": [7, 9, ids["<pad>"]]}
    elif kind == "bart":
        config = transformers.BartConfig(vocab_size=len(fast), init_std=0.3, decoder_start_token_id=ids["</s>"],
                                         **SIZES, **names)
        module = transformers.BartForConditionalGeneration(config)
        settings = {"forced_bos_token_id": ids["<s>"], "forced_eos_token_id": ids["</s>"]}
    else:
        config = transformers.MarianConfig(vocab_size=len(fast), init_std=0.3, decoder_start_token_id=ids["<pad>"],
                                           scale_embedding=True, **SIZES, **names)
        module = transformers.MarianMTModel(config)
        settings = {"bad_words_ids": [[ids["<pad>"]], [ids["</s>"]]], "forced_eos_token_id": ids["</s>"]}
        module.final_logits_bias[0, ids["<pad>"]] = 3.0
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim == 1 and "bias" in name:
                parameter.normal_(0, 0.2)
    if kind != "t5":
        module.final_logits_bias[0, ids["</s>"]] = 1.5
    for name, value in settings.items():
        setattr(module.generation_config, name, value)
    module.save_pretrained(folder)
    fast.save_pretrained(folder)
    return type(module).from_pretrained(folder).eval(), fast


def texts_of_transformers(module, fast, **settings):
    found = []
    for text in TEXTS:
        ids = fast(text, return_tensors="pt")["input_ids"]
        written = module.generate(ids, max_new_tokens=LONGEST, do_sample=False, **settings)
        found.append(fast.decode(written[0], skip_special_tokens=True).strip())
    return found


KINDS = ["bart", "marian", "t5"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_most_likely_tokens_make_the_text_of_transformers(kind, tmp_path):
    expected = texts_of_transformers(*directory(kind, tmp_path), num_beams=1)
    model = tickwise.load(tmp_path, device="cpu")
    assert [model.generate(text, temperature=0, max_tokens=LONGEST).text.strip() for text in TEXTS] == expected
    answers = {one.index: one.text.strip() for one in model.generate_batch(TEXTS, temperature=0, max_tokens=LONGEST)}
    assert [answers[index] for index in range(len(TEXTS))] == expected
    assert len(set(expected)) > 1
    assert any(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_beam_s_best_text_is_that_of_transformers(kind, tmp_path):
    expected = texts_of_transformers(*directory(kind, tmp_path), num_beams=4)
    model = tickwise.load(tmp_path, device="cpu")
    assert [model.generate(text, beam_width=4, max_tokens=LONGEST).text.strip() for text in TEXTS] == expected
    found = TextToText.load(tmp_path, "cpu").translate(TEXTS, BeamOptions(max_ratio=0, max_extra=LONGEST, batch=3))
    assert found == expected
    assert len(set(expected)) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_s_score_is_its_loss_in_transformers(kind, tmp_path):
    module, fast = directory(kind, tmp_path)
    source, target = TEXTS[1], TEXTS[2]
    labels = fast(target, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        loss = module(input_ids=fast(source, return_tensors="pt")["input_ids"], labels=labels).loss.item()
    score = tickwise.load(tmp_path, device="cpu").score(target, source)
    assert list(score.token_ids) == labels[0].tolist()
    assert score.nats / score.tokens == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_drawn_keeps_to_the_rules(kind, tmp_path):
    module, fast = directory(kind, tmp_path)
    settings = module.generation_config
    never = [*(settings.suppress_tokens or ()), *(word[0] for word in settings.bad_words_ids or ())]
    never = [token_id for token_id in never if token_id != fast.eos_token_id]
    found = tickwise.load(tmp_path, device="cpu").generate(TEXTS[0], n=40, seed=1, max_tokens=LONGEST, logprobs=0,
                                                          temperature=10.0)
    written = {token_id for one in found for token_id in one.token_ids}
    assert len(written) > 10
    assert not written & set(never)
    begin = [settings.decoder_start_token_id, *([settings.forced_bos_token_id] if kind == "bart" else [])]
    n_marks = len(begin) - 1 + (settings.forced_eos_token_id is not None)
    assert max(len(one.token_ids) for one in found) == LONGEST - n_marks
    source = fast(TEXTS[0], return_tensors="pt")["input_ids"]
    for one in found[:4]:
        with torch.no_grad():
            logits = module(input_ids=source, decoder_input_ids=torch.tensor([[*begin, *one.token_ids]])).logits[0]
        chances = logits.log_softmax(-1)[len(begin) - 1 :]
        expected = [chances[place, token_id].item() for place, token_id in enumerate(one.token_ids)]
        assert list(one.logprobs[: len(expected)]) == pytest.approx(expected, abs=1e-3)


def test_the_settings_stay_with_a_model_that_is_saved_again(tmp_path):
    directory("bart", tmp_path / "theirs")
    module, tokenizer = load_module(tmp_path / "theirs", device="cpu"), Tokenizer.load(tmp_path / "theirs")
    save_model(tmp_path / "ours", module, tokenizer)
    assert read_config(tmp_path / "ours")[1] == module.config
    assert module.config.writing.first_id == tokenizer.bos_id
    translated = [TextToText.load(tmp_path / name, "cpu").translate(TEXTS) for name in ("theirs", "ours")]
    assert translated[0] == translated[1]


def write_settings(folder, **values):
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_old_directories_have_them_in_their_config(tmp_path):
    directory("marian", tmp_path)
    (tmp_path / "generation_config.json").unlink()
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"bad_words_ids": [[5]], "forced_eos_token_id": 2,
                                                              "decoder_start_token_id": 6}))
    config = read_config(tmp_path)[1]
    assert (config.writing.suppressed_ids, config.writing.forces_end, config.start_id) == ((5,), True, 6)


def test_what_is_not_followed_is_said_in_one_line(tmp_path, capsys):
    directory("bart", tmp_path)
    load_module(tmp_path, device="cpu")
    assert "settings" not in capsys.readouterr().err
    write_settings(tmp_path, no_repeat_ngram_size=3, min_length=56, length_penalty=2.0, num_beams=4,
                   bad_words_ids=[[5], [6, 7]])
    load_module(tmp_path, device="cpu")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("of its settings for writing, these are not followed: no_repeat_ngram_size 3, min_length 56, "
                         "length_penalty 2.0, bad_words_ids of more than one token (1)")
    assert read_config(tmp_path)[1].writing.suppressed_ids == (5,)


@pytest.mark.parametrize(("values", "said"), [
    ({"bad_words_ids": [5]}, "'bad_words_ids': expected lists of token ids"),
    ({"suppress_tokens": ["a"]}, "'suppress_tokens': expected token ids"),
    ({"forced_bos_token_id": 10_000}, "token 10000 is outside the vocabulary"),
])
def test_settings_that_cannot_be_are_one_line(tmp_path, values, said):
    directory("bart", tmp_path)
    write_settings(tmp_path, **values)
    with pytest.raises(CheckpointError) as caught:
        read_config(tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)

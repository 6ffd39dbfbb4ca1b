"""A decoder that learns to talk: the loss on answers alone, growing vocabularies, and the conversation itself."""

import dataclasses
import json
import shutil

import pytest
import torch
import torch.nn.functional as F

from tickwise.core.errors import CheckpointError, ConfigError, DataError
from tickwise.data.chats import EncodedChats
from tickwise.engine.chat import Conversation
from tickwise.engine.language_model import load
from tickwise.engine.settings import GenerationSettings
from tickwise.interop.directory import load_module, save_model
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.tasks.chat import ChatConfig, read_chat_parts, started_decoder, train_chat
from tickwise.tasks.fine_tune_options import FineTuneOptions
from tickwise.tokenizers.chat import encode_chat, with_chat
from tickwise.tokenizers.train import train_tokenizer
from tickwise.training.chat_turns import ChatTurns, chat_loss, collate

NAMES = ["Ada", "Bob", "Eve", "Ida", "Leo", "Max", "Mia", "Tom"]
GREEDY = GenerationSettings(temperature=0, max_tokens=12)


def chat_of(name):
    return [{"role": "user", "content": f"I am {name}."}, {"role": "assistant", "content": "Hello, you!"},
            {"role": "user", "content": "Bye."}, {"role": "assistant", "content": "See you!"}]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A decoder that never saw a turn."""
    texts = [message["content"] for name in NAMES for message in chat_of(name)]
    tokenizer = train_tokenizer("bpe", iter([*texts * 3, "user assistant system " * 4]), vocab_size=320)
    module = Decoder(DecoderConfig(vocab_size=tokenizer.vocab_size, context_length=64, width=32, n_layers=2, n_heads=2,
                                   n_kv_heads=2, head_dim=16, hidden=64, tie_embeddings=False)).initialise(1)
    path = tmp_path_factory.mktemp("base") / "model"
    save_model(path, module, tokenizer)
    return path


@pytest.fixture(scope="module")
def chats(tmp_path_factory):
    path = tmp_path_factory.mktemp("chats") / "chats.jsonl"
    path.write_text("".join(json.dumps({"messages": chat_of(name)}) + "\n" for name in NAMES), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def trained(base, chats, tmp_path_factory):
    options = FineTuneOptions(batch_size=8, epochs=60, lr=0.01, dropout=0.0, layer_decay=1.0)
    other = tmp_path_factory.mktemp("dev") / "dev.jsonl"
    rows = [{"messages": chat_of(name)[:2]} for name in ("Ann", "Jim", "Kim")]
    other.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return train_chat(ChatConfig(model=base, train=(chats,), dev=(str(other),), tuning=options, device="cpu",
                                 out=tmp_path_factory.mktemp("run") / "chat"))


@pytest.fixture(scope="module")
def encoded(base):
    tokenizer = with_chat(load(base, "cpu").tokenizer)
    return EncodedChats([chat_of(name)[: 2 + 2 * (i % 2)] for i, name in enumerate(NAMES)], tokenizer, 64)


def grown(base, vocab_size):
    config = load_module(base, device="cpu").config
    return started_decoder(base, dataclasses.replace(config, vocab_size=vocab_size), seed=1).eval()


def test_only_answers_are_learned_and_neighbours_change_nothing(base, encoded):
    module = grown(base, 400)
    with torch.no_grad():
        together = chat_loss(module, *collate(encoded, range(8)))
        total = count = 0.0
        for ids, own in zip(encoded.ids, encoded.own, strict=True):
            ids_1T = torch.from_numpy(ids)[None]
            nats = F.cross_entropy(module(ids_1T[:, :-1])[0], ids_1T[0, 1:], reduction="none")
            total += nats[torch.from_numpy(own[1:])].sum().item()
            count += own[1:].sum()
    assert together.item() == pytest.approx(total / count, rel=1e-5)


def test_micro_batches_weigh_what_the_whole_does(base, encoded):
    module = grown(base, 400)
    objective = ChatTurns(encoded, None, batch_size=8, seed=1)
    batch = objective.next_batch()
    whole, _ = objective.loss(module, *batch.inputs)
    parts = [objective.loss(module, *part.inputs)[0] for part in objective.split(batch, 4)]
    torch.testing.assert_close(sum(parts) / len(parts), whole)


def test_a_larger_vocabulary_leaves_what_was_known_as_it_was(base):
    old = load_module(base, device="cpu")
    module = grown(base, old.config.vocab_size + 2)
    ids = torch.randint(0, old.config.vocab_size, (2, 9))
    with torch.no_grad():
        torch.testing.assert_close(module(ids)[..., : old.config.vocab_size], old(ids))
    assert (module.embed_tokens.weight[-1] - module.embed_tokens.weight[-2]).abs().max() > 1e-4


def test_it_answers_from_the_conversation_and_reads_only_what_is_new(trained):
    talk = Conversation(load(trained.out, "cpu"), GREEDY)
    right = 0
    for name in NAMES:
        talk.reset()
        first = "".join(talk.reply(f"I am {name}."))
        assert talk.last.finish_reason == "eos"
        n_first = talk.last.prompt_tokens + len(talk.last.token_ids)
        second = "".join(talk.reply("Bye."))
        assert talk.last.cached_tokens >= n_first - 16
        assert [m["role"] for m in talk.messages] == ["user", "assistant"] * 2
        right += (first, second) == ("Hello, you!", "See you!")
    assert right >= 7


def test_an_answer_is_that_of_a_fresh_conversation(trained):
    model = load(trained.out, "cpu")
    talk = Conversation(model, GREEDY, system="Be kind.")
    for text in ("I am Ada.", "Bye."):
        "".join(talk.reply(text))
    again = Conversation(model, GREEDY, system="Be kind.")
    again.messages = talk.messages[:3]
    assert "".join(again.reply("Bye.")) == talk.messages[-1]["content"]


def test_old_turns_are_left_out_when_they_no_longer_fit(trained, capfd):
    talk = Conversation(load(trained.out, "cpu"), GREEDY, system="Be kind.")
    for _ in range(6):
        "".join(talk.reply("I am Ada."))
        assert talk.last.prompt_tokens <= 64
    assert "leaving out the oldest 2 of" in capfd.readouterr().err
    assert len(talk.messages) == 13
    with pytest.raises(ConfigError, match="the model reads 64"):
        "".join(talk.reply("Bye " * 80))
    with pytest.raises(ConfigError, match="empty"):
        "".join(talk.reply("  "))
    assert len(talk.messages) == 13


def test_an_answer_that_is_cut_and_a_conversation_that_fills_the_context(trained):
    model = load(trained.out, "cpu")
    talk = Conversation(model, dataclasses.replace(GREEDY, max_tokens=2))
    "".join(talk.reply("I am Ada."))
    assert talk.last.finish_reason == "length"
    assert talk.cut == "the answer was cut after 2 tokens, the most it may have"
    talk.reset()
    n = next(n for n in range(200) if len(encode_chat(model.tokenizer, [
        {"role": "user", "content": "x" * n}], reply=True)) == model.config.context_length)
    "".join(talk.reply("x" * n))
    assert len(talk.last.token_ids) <= 1
    assert talk.cut in (None, "the answer was cut after 1 tokens: the model's context is full")
    with pytest.raises(ConfigError, match="the text has 65 tokens with its marks, the model reads 64"):
        "".join(Conversation(model, GREEDY).reply("x" * (n + 1)))


def test_a_conversation_says_that_it_guesses_nothing(trained):
    with pytest.raises(ConfigError, match="speculate: a conversation guesses no tokens"):
        Conversation(load(trained.out, "cpu"), dataclasses.replace(GREEDY, speculate="lookup"))


def test_answers_end_with_any_of_the_models_ends(trained, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(trained.model, folder)
    usual = Conversation(load(folder, "cpu"), GREEDY)
    "".join(usual.reply("I am Ada."))
    assert usual.last.finish_reason == "eos"
    mark = usual.settings.stop_token_ids[0]
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config["eos_token"] == "<|im_end|>"
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"eos_token": "<|endoftext|>"}))
    other = Conversation(load(folder, "cpu"), GREEDY)
    assert "".join(other.reply("I am Ada.")) == usual.messages[-1]["content"]
    assert other.last.finish_reason == "stop"
    second = usual.last.token_ids[1]
    del config["tickwise_end_ids"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [mark, second]}))
    third = Conversation(load(folder, "cpu"), GREEDY)
    "".join(third.reply("I am Ada."))
    assert third.last.token_ids == usual.last.token_ids[:1]


def test_an_answer_given_up_is_no_turn(trained):
    talk = Conversation(load(trained.out, "cpu"), GREEDY)
    pieces = talk.reply("I am Ada.")
    next(pieces)
    pieces.close()
    assert talk.messages == []
    assert "".join(talk.reply("I am Ada.")) == "Hello, you!"


def test_a_shorter_context_with_learned_positions(base, tmp_path):
    config = dataclasses.replace(load_module(base, device="cpu").config, positions="learned", tie_embeddings=True)
    save_model(tmp_path / "m", Decoder(config).initialise(1), load(base, "cpu").tokenizer)
    old = load_module(tmp_path / "m", device="cpu")
    new = started_decoder(tmp_path / "m", dataclasses.replace(config, context_length=16), seed=1).eval()
    ids = torch.randint(0, config.vocab_size, (1, 16))
    with torch.no_grad():
        torch.testing.assert_close(new(ids), old(ids))


def test_what_the_model_is_chosen_by_is_not_learned_from(tmp_path, capfd):
    paths = []
    for name, rows in (("train", [chat_of("Ada"), chat_of("Bob")[:2], chat_of("Eve"), chat_of("Leo")]),
                       ("dev", [chat_of("Ada")[:2], chat_of("Bob"), chat_of("Leo")])):
        paths.append(tmp_path / f"{name}.jsonl")
        paths[-1].write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows), encoding="utf-8")
    training, developing = read_chat_parts((str(paths[0]),), (str(paths[1]),))
    assert training == [chat_of("Eve")]
    assert len(developing) == 3
    assert "3 conversations are not learned from" in capfd.readouterr().err


def test_models_and_data_that_cannot_be_used(base, chats, tmp_path):
    with pytest.raises(ConfigError, match="knows no turns"):
        Conversation(load(base, "cpu"))
    with pytest.raises(ConfigError, match="one answer"):
        _with_template(base)
    with pytest.raises(DataError, match="among those to choose"):
        _only_developing(tmp_path)
    with pytest.raises(CheckpointError, match="no such model directory"):
        train_chat(ChatConfig(model=tmp_path / "none", train=(chats,), out=tmp_path / "x"))
    with pytest.raises(DataError, match="raise --context"):
        train_chat(ChatConfig(model=base, train=(chats,), context=4, out=tmp_path / "x"))


def _with_template(base):
    model = load(base, "cpu")
    model.tokenizer.config["chat_template"] = "{{ messages }}"
    return Conversation(model, GenerationSettings(n=2))


def _only_developing(folder):
    path = folder / "one.jsonl"
    path.write_text(json.dumps({"messages": chat_of("Ada")}) + "\n", encoding="utf-8")
    return read_chat_parts((str(path),), (str(path),))

"""Chats in the formats of published models: ids as transformers has them, marks that stay text, ends of answers."""

import json

import pytest

from tickwise.core.errors import CheckpointError, DataError
from tickwise.tokenizers.chat import answer_ends, encode_chat, encode_turns, has_chat, turn_end, with_chat
from tickwise.tokenizers.tokenizer import Tokenizer
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

CHAT = [{"role": "user", "content": "Hi, who\nare you?"}, {"role": "assistant", "content": " A small model. 你好 "},
        {"role": "user", "content": "  Bye.\n"}, {"role": "assistant", "content": "Bye!"}]
TEXTS = [*(message["content"] for message in CHAT), "user assistant system header id eot im start end text INST </s>"]

LLAMA_3 = """{{- bos_token }}
{%- if not date_string is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nToday: " + date_string + "\\n\\n<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""
MISTRAL = """{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}
{%- if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}
{%- else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"""
PHI_3 = """{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + \
'<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif \
message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"""
QWEN = """{%- set ns = namespace(last=messages|length - 1) %}
{%- for message in messages %}
    {%- set content = message.content.split('</think>')[-1].lstrip('\\n') if message.role == 'assistant' else \
message.content %}
    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}"""
TOOLS = "{{ messages | tojson(indent=2, sort_keys=true, ensure_ascii=False) }}"


def bpe(*in_vocabulary, **options):
    backend = Backend(models.BPE(**options))
    return backend, trainers.BpeTrainer(vocab_size=400, special_tokens=list(in_vocabulary), show_progress=False,
                                        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if not options else [])


def byte_level(normalizer=None):
    backend, trainer = bpe()
    backend.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    backend.decoder = decoders.ByteLevel()
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.train_from_iterator(TEXTS * 3, trainer)
    return backend


def sentence_pieces(legacy):
    """As converted from SentencePiece: ▁ for a space, one before the text, bytes for what is unknown."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    backend, trainer = bpe(*pieces, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    if legacy:
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                         decoders.Strip(" ", 1, 0)])
    trainer.vocab_size = len(pieces) + 120
    backend.train_from_iterator(TEXTS * 3, trainer)
    data = json.loads(backend.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if not token["content"].startswith("<0x")]
    return Backend.from_str(json.dumps(data))


def write(folder, backend, template, *, file=None, ends=None, **config):
    folder.mkdir()
    backend.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **config}
    if file is None:
        config["chat_template"] = template
    else:
        (folder / file).write_text(template, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    if ends is not None:
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}), encoding="utf-8")
    return folder


def llama_3(folder):
    backend = byte_level()
    names = ("begin_of_text", "end_of_text", "start_header_id", "end_header_id", "eot_id", "eom_id")
    backend.add_special_tokens([AddedToken(f"<|{name}|>", normalized=False, special=True) for name in names])
    ends = [backend.token_to_id(f"<|{name}|>") for name in ("end_of_text", "eom_id", "eot_id")]
    return write(folder, backend, LLAMA_3, file="chat_template.jinja", ends=ends, bos_token="<|begin_of_text|>",
                 eos_token="<|end_of_text|>")


def mistral(folder):
    backend = sentence_pieces(legacy=False)
    backend.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in ("[INST]", "[/INST]")])
    return write(folder, backend, MISTRAL, bos_token={"__type": "AddedToken", "content": "<s>", "special": True},
                 eos_token={"__type": "AddedToken", "content": "</s>", "special": True}, unk_token="<unk>", ends=2)


def phi_3(folder):
    backend = sentence_pieces(legacy=True)
    backend.add_special_tokens([AddedToken("<|endoftext|>", normalized=False, special=True)])
    backend.add_special_tokens([AddedToken(f"<|{name}|>", normalized=False, special=True, rstrip=True)
                                for name in ("assistant", "system", "end", "user")])
    ends = [backend.token_to_id(f"<|{name}|>") for name in ("endoftext", "assistant", "end")]
    return write(folder, backend, PHI_3, bos_token="<s>", eos_token="<|endoftext|>", unk_token="<unk>", ends=ends)


def qwen(folder):
    backend = byte_level(normalizers.NFC())
    backend.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    backend.add_tokens([AddedToken(name, normalized=False, special=False) for name in ("<think>", "</think>")])
    templates = [{"name": "tool_use", "template": TOOLS}, {"name": "default", "template": QWEN}]
    return write(folder, backend, templates, bos_token=None, eos_token="<|endoftext|>")


FORMATS = {"llama_3": (llama_3, "<|eot_id|>"), "mistral": (mistral, "</s>"), "phi_3": (phi_3, "<|end|>"),
           "qwen": (qwen, "<|im_end|>")}


@pytest.fixture(scope="module", params=list(FORMATS))
def published(request, tmp_path_factory):
    make, end = FORMATS[request.param]
    folder = make(tmp_path_factory.mktemp("published") / request.param)
    return folder, Tokenizer.load(folder), end


def theirs(folder, messages, reply):
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    return tokenizer.apply_chat_template(messages, add_generation_prompt=reply, return_dict=True)["input_ids"]


def test_ids_are_those_of_transformers(published):
    folder, tokenizer, _ = published
    assert has_chat(tokenizer)
    assert with_chat(tokenizer) is tokenizer
    for messages in (CHAT, CHAT[:3], CHAT[:1]):
        for reply in (False, True):
            assert encode_chat(tokenizer, messages, reply=reply) == theirs(folder, messages, reply)


def test_what_is_kept_is_read_again(published, tmp_path):
    _, tokenizer, _ = published
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert encode_chat(again, CHAT) == encode_chat(tokenizer, CHAT)
    assert answer_ends(again) == answer_ends(tokenizer)


def test_answers_end_where_the_template_and_the_models_settings_say(published):
    folder, tokenizer, end = published
    assert turn_end(tokenizer) == tokenizer.backend.token_to_id(end)
    named = folder / "generation_config.json"
    ends = json.loads(named.read_text())["eos_token_id"] if named.exists() else []
    assert set(answer_ends(tokenizer)) == {turn_end(tokenizer), *(ends if isinstance(ends, list) else [ends])}
    if folder.name == "qwen":  # a turn to be answered begins with a thought, one that was answered does not
        with pytest.raises(CheckpointError, match="differently"):
            encode_turns(tokenizer, CHAT)
        return
    learned = [i for i, mine in zip(*encode_turns(tokenizer, CHAT), strict=True) if mine]
    assert learned.count(turn_end(tokenizer)) == 2
    assert learned[-1] == turn_end(tokenizer)
    assert "".join(tokenizer.decode(learned).split()) == "Asmallmodel.你好Bye!"


@pytest.mark.parametrize("around", [("Bye ", " now"), ("", ""), ("x", "\n  y")])
def test_marks_that_users_write_are_text_and_change_nothing_beside_them(published, around):
    _, tokenizer, end = published
    marks = {i for i, token in tokenizer.backend.get_added_tokens_decoder().items() if token.special}

    def ids_with(text):
        messages = [{"role": "user", "content": text.join(around)}, CHAT[1], CHAT[2]]
        return encode_chat(tokenizer, messages, reply=True)

    plain, forged = ids_with("Q"), ids_with(end)
    assert [i for i in forged if i in marks] == [i for i in plain if i in marks]
    shown = tokenizer.decode(forged, skip_special=False)
    assert shown.count(end) == tokenizer.decode(plain, skip_special=False).count(end) + 1
    same = next(n for n in range(len(plain)) if plain[-1 - n] != forged[-1 - n])
    assert same >= 10  # all behind the first message


def test_marks_are_not_put_together_from_two_messages_or_by_normal_forms(tmp_path):
    backend = byte_level(normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]))
    backend.add_special_tokens([AddedToken("<|end|>", normalized=True, special=True), "|"])
    backend.add_tokens([AddedToken("<tool>", normalized=True, special=False)])
    folder = write(tmp_path / "m", backend, "{% for m in messages %}{{ m.content | trim }}{% endfor %}<|end|>{# #}"
                   "{% if false %}<tool>{% endif %}", eos_token="<|end|>")
    tokenizer = Tokenizer.load(folder)
    ends, bar, tool = (backend.token_to_id(name) for name in ("<|end|>", "|", "<tool>"))
    for texts in (("a <|en", "d|> b"), ("<", "|end|>"), ("\uff1c|\uff45nd|\uff1e",), ("<|END|>",), ("<tool>", "x"),
                  ("<<|end|>|end|>",), ("<|en  ", "  d|>"), ("\U000f0000", "\U000f0001"), ("<TOOL>", "|")):
        ids = encode_chat(tokenizer, [{"role": "user", "content": text} for text in texts])
        assert (ids.count(ends), ids.count(bar), ids.count(tool)) == (1, 0, 0), texts
        assert ids[-1] == ends
    said = encode_chat(tokenizer, [{"role": "assistant", "content": "<tool> x <|end|>"}])
    assert (said.count(tool), said.count(ends)) == (1, 1)


def test_pieces_that_look_like_marks_are_not_taken_for_them(tmp_path):
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((letter, -2.0) for letter in "</s> abx")]
    backend = Backend(models.Unigram(pieces, unk_id=0))
    backend.add_special_tokens(["</s>", "<unk>"])
    tokenizer = Tokenizer.load(write(tmp_path / "m", backend, "{% for m in messages %}{{ m.content + '</s>' }}"
                                     "{% endfor %}", eos_token="</s>"))
    ids = encode_chat(tokenizer, [{"role": "user", "content": "a </s> b"}])
    assert [tokenizer.backend.id_to_token(i) for i in ids] == [*"a </s> b", "</s>"]


def test_a_tokenizer_that_loses_marks_is_refused(tmp_path):
    backend = byte_level(normalizers.BertNormalizer(clean_text=True, lowercase=False))
    backend.add_special_tokens([AddedToken("<|end|>", normalized=True, special=True)])
    tokenizer = Tokenizer.load(write(tmp_path / "m", backend, "{{ messages[0].content }}<|end|>", eos_token="<|end|>"))
    with pytest.raises(CheckpointError, match="cannot tell its mark"):
        encode_chat(tokenizer, CHAT)


def test_what_templates_do_wrong_is_one_line(tmp_path):
    backend = byte_level()
    backend.add_special_tokens(["<|end|>"])

    def using(template, name):
        return Tokenizer.load(write(tmp_path / name, backend, template, eos_token="<|end|>"))

    for number, template in enumerate(("{{ messages[0]['content'] + 1 }}", "{{ messages[9].content.x }}", "{{ 1 / 0 }}",
                                       "{% for i in range(10**9) %}{% endfor %}")):
        with pytest.raises(DataError, match="cannot write this conversation"):
            encode_chat(using(template, str(number)), CHAT)
    with pytest.raises(CheckpointError, match=r"several chat templates \(rag\) and none of them is the default"):
        encode_chat(using([{"name": "rag", "template": "x"}], "named"), CHAT)

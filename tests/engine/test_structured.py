import json
import re
import subprocess
import sys
import time
from collections import Counter

import numpy
import pytest
import torch

import tokenizers
from tickwise.core.errors import ConfigError
from tickwise.engine.sampling import TokenChooser, choose, distribution
from tickwise.engine.settings import GenerationSettings
from tickwise.engine.structured import compile_constraint, token_bytes
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.tokenizers.train import char_tokenizer, train_tokenizer
from tokenizers import decoders, models

pytest.importorskip("llguidance")

ASCII = "".join(map(chr, range(32, 127))) + "\né中文"
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
CHOICES = ("yes", "no", "(a|b)*", "yes/no\n", "中文 é")
SUMS = 'start: sum "."\nsum: NUMBER ("+" sum)?\nNUMBER: /[0-9]{1,3}/\n'


def sentencepiece_like() -> Tokenizer:
    """The vocabulary layout of Llama 2: spaces as a symbol, single bytes as a last resort."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefghij", "▁a", "ab"]
    backend = tokenizers.Tokenizer(models.BPE(
        {word: i for i, word in enumerate(words)}, [("▁", "a"), ("a", "b")], unk_token="<unk>", byte_fallback=True
    ))
    backend.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)
    ])
    backend.add_special_tokens(["<s>", "</s>", "<unk>"])
    return Tokenizer(backend, "other", {"eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"})


@pytest.fixture(scope="module")
def kinds() -> dict[str, Tokenizer]:
    words = ["the yes no name age tags 1 2 33 a b + / ( | ) * é 中文 { } [ ] \" : , \n"] * 20
    return {
        "char": char_tokenizer(Counter(ASCII), vocab_size=None, end_of_text=True, unknown=False),
        "char with <unk>": char_tokenizer(Counter(ASCII), vocab_size=None, end_of_text=True, unknown=True),
        "char without an end": char_tokenizer(Counter(ASCII), vocab_size=None, end_of_text=False, unknown=False),
        "bpe": train_tokenizer("bpe", iter([json.dumps(PERSON), *CHOICES] * 5), vocab_size=400),
        "sentencepiece": sentencepiece_like(),
        "word": train_tokenizer("word", iter([*words, *("".join(w) for w in ASCII) , *ASCII * 2]), min_frequency=1),
    }


KINDS = ["char", "char with <unk>", "char without an end", "bpe", "sentencepiece"]


def write(settings, tokenizer, seed=0, most=400, end_bias=0.0):
    """A text of a model that knows nothing: random logits, the same for every token of the vocabulary."""
    row = TokenChooser(settings, [], tokenizer, seed)
    generator = torch.Generator().manual_seed(seed)
    ids = []
    while row.end is None and len(ids) < most:
        logits = torch.randn(1, tokenizer.vocab_size, generator=generator) * 3
        if tokenizer.eos_id is not None:
            logits[0, tokenizer.eos_id] += end_bias
        ids.append(choose(logits, [row])[0].token_id)
    assert row.end is not None, "the text did not end"
    decoder = tokenizer.stream_decoder()
    text = "".join(decoder.push(i) for i in (ids if row.end == "grammar" else ids[:-1]))
    return text + decoder.flush()


# ---------------------------------------------------------------- what is written is what was asked for


@pytest.mark.parametrize("kind", KINDS)
def test_json_of_a_schema_is_valid(kinds, kind):
    settings = GenerationSettings(json_schema=PERSON, seed=1)
    names = set()
    for seed in range(8):
        person = json.loads(write(settings, kinds[kind], seed))
        assert set(person) == {"name", "age", "tags"}
        assert isinstance(person["age"], int)
        assert 0 <= person["age"] <= 150
        assert len(person["name"]) <= 8
        assert len(person["tags"]) <= 3
        assert set(person["tags"]) <= {"a", "b"}
        names.add(person["name"])
    assert len(names) > 4, "the model's own choices must remain"


@pytest.mark.parametrize("kind", [*KINDS, "word"])
def test_a_regular_expression_matches_the_whole_text(kinds, kind):
    expression = r"[0-9]{2,4}-(a|b)+/\n?"
    settings = GenerationSettings(regex=expression, seed=1)
    texts = {write(settings, kinds[kind], seed, end_bias=2.0) for seed in range(10)}
    assert all(re.fullmatch(expression, text) for text in texts), texts
    assert len(texts) > 5


@pytest.mark.parametrize(
    "expression",
    [
        "(a|b0)*1", "a{2,4}(b|01)+", "[^a]+a", "(ab|a)(b0|0)?1", "((a|b)(0|1)-)*/", "(a+b+)+0{3}", "a?b?0?1?/",
        "(?i)A(b|B0)",
    ],
)
def test_exactly_the_tokens_that_lead_to_a_match_are_allowed(expression):
    partial = pytest.importorskip("regex").compile(expression)
    tokenizer = char_tokenizer(Counter("ab01-/A"), vocab_size=None, end_of_text=True, unknown=False)
    characters = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size - 1)]
    generator = numpy.random.default_rng(0)
    for _ in range(6):
        row, text = TokenChooser(GenerationSettings(regex=expression), [], tokenizer), ""
        while row.end is None and len(text) < 25:
            may_follow = {i for i, c in enumerate(characters) if partial.fullmatch(text + c, partial=True)}
            if partial.fullmatch(text):
                may_follow.add(tokenizer.eos_id)
            assert set(numpy.flatnonzero(row.allowed)) == may_follow, text
            token = int(generator.choice(sorted(may_follow - {tokenizer.eos_id})))
            text += characters[token]
            row.commit(token)


@pytest.mark.parametrize("kind", [*KINDS, "word"])
def test_one_of_the_choices_is_written_exactly(kinds, kind):
    settings = GenerationSettings(choice=CHOICES, seed=1)
    texts = {write(settings, kinds[kind], seed) for seed in range(25)}
    assert texts <= set(CHOICES)
    assert len(texts) >= 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_grammar_is_followed(kinds, kind):
    settings = GenerationSettings(grammar=SUMS, seed=1)
    texts = [write(settings, kinds[kind], seed) for seed in range(8)]
    assert all(re.fullmatch(r"\d{1,3}(\+\d{1,3})*\.", text) for text in texts), texts


def test_a_recursive_schema_is_followed(kinds):
    tree = {"$ref": "#/$defs/node", "$defs": {"node": {
        "type": "object",
        "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2}},
        "required": ["children"],
        "additionalProperties": False,
    }}}
    settings = GenerationSettings(json_schema=tree, seed=1)
    assert "children" in json.loads(write(settings, kinds["char"], 3, most=20_000))


def test_bounds_keep_numbers_short(kinds):
    """Without them a small model may write a hundred digits."""
    settings = GenerationSettings(json_schema={"type": "integer", "minimum": -5, "maximum": 120}, seed=1)
    numbers = {json.loads(write(settings, kinds["char"], seed)) for seed in range(10)}
    assert all(-5 <= number <= 120 for number in numbers)
    assert len(numbers) > 3


def test_json_is_spaced_as_json_dumps_does(kinds):
    schema = {"type": "object", "properties": {"a": {"const": 1}, "b": {"const": [1, 2]}}, "required": ["a", "b"],
              "additionalProperties": False}
    assert write(GenerationSettings(json_schema=schema), kinds["char"]) == '{"a": 1, "b": [1, 2]}'


def test_a_schema_may_be_a_dictionary_its_text_or_a_file(kinds, tmp_path):
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(PERSON), encoding="utf-8")
    texts = {write(GenerationSettings(json_schema=schema, seed=1), kinds["char"], 1)
             for schema in (PERSON, json.dumps(PERSON), file)}
    assert len(texts) == 1


def test_greedy_choices_and_probabilities_stay_inside_the_grammar(kinds):
    tokenizer = kinds["char"]
    row = TokenChooser(GenerationSettings(choice=["ab", "b"], temperature=0), [], tokenizer)
    logits = torch.zeros(1, tokenizer.vocab_size)
    a, b, c = tokenizer.encode("abc")
    logits[0, c], logits[0, b], logits[0, a] = 9.0, 1.0, 2.0
    assert distribution(logits[0], row).nonzero().flatten().tolist() == [a]
    assert choose(logits, [row])[0].token_id == a
    sampled = TokenChooser(GenerationSettings(choice=["ab", "b"]), [], tokenizer)
    probabilities = distribution(logits[0], sampled)
    assert set(probabilities.nonzero().flatten().tolist()) == {a, b}
    assert float(probabilities[a]) == pytest.approx(numpy.exp(1) / (1 + numpy.exp(1)))


def test_the_unknown_token_stands_for_no_text(kinds):
    tokenizer = kinds["char with <unk>"]
    row = TokenChooser(GenerationSettings(regex=r"[a-z<>]{20}"), [], tokenizer)
    assert row.allowed is not None
    assert not row.allowed[tokenizer.unk_id]
    assert row.allowed[tokenizer.encode("<")[0]]


def test_the_text_may_end_only_where_it_is_complete(kinds):
    tokenizer = kinds["char"]
    row = TokenChooser(GenerationSettings(regex="(ab)+"), [], tokenizer)
    a, b = tokenizer.encode("ab")
    allowed = []
    for token in (a, b, a):
        allowed.append(bool(row.allowed[tokenizer.eos_id]))
        row.commit(token)
    assert allowed == [False, False, True]
    assert row.end is None


def test_a_text_that_cannot_go_on_ends_with_its_last_token(kinds):
    row = TokenChooser(GenerationSettings(regex="ab"), [], kinds["char"])
    a, b = kinds["char"].encode("ab")
    row.commit(a)
    assert row.end is None
    row.commit(b)
    assert row.end == "grammar"


def test_rows_with_and_without_a_grammar_share_a_batch(kinds):
    tokenizer = kinds["bpe"]
    settings = [GenerationSettings(regex="[ab]{30}", seed=1), GenerationSettings(seed=1),
                GenerationSettings(choice=["abba", "baab"], seed=1)]
    logits = [torch.randn(3, tokenizer.vocab_size, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    together = [TokenChooser(s, [], tokenizer) for s in settings]
    # The third row is complete within four tokens of at least one letter each.
    written = [choose(step[:2], together[:2]) for step in logits]
    for row in range(2):
        alone = TokenChooser(settings[row], [], tokenizer)
        assert [choose(step[row : row + 1], [alone])[0] for step in logits] == [step[row] for step in written]


def test_a_fork_follows_the_grammar_from_where_it_was_made(kinds):
    tokenizer = kinds["char"]
    a, b, c = tokenizer.encode("abc")
    row = TokenChooser(GenerationSettings(regex="a(bb|cc)"), [], tokenizer)
    row.commit(a)
    twin = row.fork(1)
    row.commit(b)
    assert set(numpy.flatnonzero(twin.allowed)) == {b, c}
    assert set(numpy.flatnonzero(row.allowed)) == {b}


def test_one_compiled_constraint_serves_many_rows(kinds):
    tokenizer = kinds["char"]
    settings = GenerationSettings(regex="(ab|cd)")
    constraint = compile_constraint(settings, tokenizer)
    first, second = (TokenChooser(settings, [], tokenizer, i, constraint) for i in range(2))
    first.commit(tokenizer.encode("a")[0])
    assert set(numpy.flatnonzero(second.allowed)) == set(tokenizer.encode("ac"))


# ---------------------------------------------------------------- what cannot be


def refused(tokenizer, **settings) -> str:
    """The one line that says why."""
    with pytest.raises(ConfigError) as caught:
        TokenChooser(GenerationSettings(**settings), [], tokenizer)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    assert next(iter(settings)) in message
    return message


@pytest.mark.parametrize(
    "settings",
    [
        {"regex": "(a"}, {"regex": "a**("}, {"regex": "(?=a)b"}, {"regex": r"(a)\1"}, {"regex": "[z-a]"},
        {"json_schema": {"type": "strnig"}}, {"json_schema": {"type": "object", "properties": 3}},
        {"json_schema": {"$ref": "#/$defs/none"}}, {"json_schema": {"$ref": "https://example.org/schema.json"}},
        {"json_schema": {"type": "string", "pattern": "(a"}}, {"json_schema": False},
        {"json_schema": {"type": "integer", "minimum": 5, "maximum": 4}}, {"json_schema": {"enum": []}},
        {"json_schema": {"not": {"type": "object"}}},
        {"grammar": "start: missing"}, {"grammar": "start: ("}, {"grammar": "nothing here"}, {"grammar": "x: /a/"},
        {"regex": "\ud800"},
    ],
)
def test_what_is_not_valid_is_one_line_and_never_unconstrained(kinds, settings):
    refused(kinds["char"], **settings)


def nested_schema(depth):
    return '{"type": "array", "items": ' * depth + '{"type": "null"}' + "}" * depth


EXPLOSIVE = [
    {"regex": "(" * 60_000 + "a" + ")" * 60_000},
    {"regex": "(?:" * 60_000 + "a" + ")*" * 60_000},
    {"regex": "(" * 240 + "a" + ")*" * 240},
    {"regex": "((((a{1,99}){1,99}){1,99}){1,99})"},
    {"regex": "(a|b|ab)*c{1000000}"},
    {"regex": "a" * 900_000},
    {"regex": "|".join(f"(a{{{i}}}b)*" for i in range(3000))},
    {"grammar": "start: " + "(" * 60_000 + '"a"' + ")" * 60_000},
    {"grammar": "start: a0\n" + "".join(f"a{i}: a{i + 1}\n" for i in range(60_000)) + 'a60000: "x"\n'},
    {"grammar": "start: A0\n" + "".join(f'A{i}: A{i + 1} "y"\n' for i in range(20_000)) + 'A20000: "x"\n'},
    {"grammar": "start: A0\n" + "".join(f"A{i}: A{i + 1} A{i + 1}\n" for i in range(60)) + 'A60: "x"\n'},
    {"grammar": "start: %json " + nested_schema(60_000)},
    {"json_schema": nested_schema(60_000)},
    {"json_schema": nested_schema(100)},
    {"json_schema": {"allOf": [
        {"anyOf": [{"properties": {f"p{i}": {"const": j}}} for j in range(10)]} for i in range(20)]}},
    {"json_schema": {"type": "string", "minLength": 10**9}},
    {"json_schema": {"type": "array", "items": {}, "minItems": 10**9}},
    {"json_schema": {"type": "string", "pattern": "^" + "(" * 60_000 + ")" * 60_000}},
    {"json_schema": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}},
    {"json_schema": {"$ref": "#/$defs/d0", "$defs": {
        **{f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}, {"$ref": f"#/$defs/d{i + 1}"}]} for i in range(40)},
        "d40": {"type": "integer"}}}},
]


@pytest.mark.parametrize("number", range(len(EXPLOSIVE)))
def test_what_explodes_is_refused_or_followed_and_the_process_lives_on(kinds, number):
    started = time.perf_counter()
    problem, row = None, None
    try:
        row = TokenChooser(GenerationSettings(**EXPLOSIVE[number]), [], kinds["bpe"])
    except ConfigError as refusal:
        problem = str(refusal)
    assert time.perf_counter() - started < 25
    if row is None:
        assert "\n" not in problem
        assert len(problem) < 400
    else:
        assert not row.allowed.all()


def test_60000_nested_groups_are_refused_within_seconds(kinds):
    for settings in (EXPLOSIVE[0], EXPLOSIVE[7], EXPLOSIVE[12]):
        started = time.perf_counter()
        refused(kinds["bpe"], **settings)
        assert time.perf_counter() - started < 5


def test_a_vocabulary_without_the_characters_is_refused(kinds):
    letters = char_tokenizer(Counter("abcdefghijklmnopqrstuvwxyz"), vocab_size=None, end_of_text=True, unknown=True)
    assert "no token of this vocabulary can come next" in refused(letters, json_schema=PERSON)
    assert "no token of this vocabulary can come next" in refused(letters, choice=("Yes",))
    no_quotes = char_tokenizer(Counter("{}[]:, 0123456789abc"), vocab_size=None, end_of_text=True, unknown=False)
    assert "no token of this vocabulary can come next" in refused(no_quotes, json_schema=PERSON)


def test_a_dead_end_that_shows_later_is_an_error_of_that_row(kinds):
    letters = char_tokenizer(Counter("ab"), vocab_size=None, end_of_text=True, unknown=False)
    row = TokenChooser(GenerationSettings(regex="(b|ax)"), [], letters)
    row.commit(letters.encode("a")[0])
    with pytest.raises(ConfigError, match="no token of this vocabulary can come next"):
        row.prepare()


def test_an_ambiguous_grammar_is_given_up_before_it_slows_the_others_down(kinds):
    tokenizer = kinds["char"]
    row = TokenChooser(GenerationSettings(grammar='start: s\ns: s s | "a"'), [], tokenizer)
    letter_a = tokenizer.encode("a")[0]
    seconds, problem = [], ""
    while not problem and len(seconds) < 2000:
        started = time.thread_time()
        try:
            row.prepare()
        except ConfigError as refusal:
            problem = str(refusal)
        else:
            row.commit(letter_a)  # outside the try: only prepare may raise, so that other rows can go on
            seconds.append(time.thread_time() - started)
    assert problem.startswith("grammar: too complex to follow")
    assert "\n" not in problem
    assert row.end is None
    assert max(seconds) < 0.25


def test_a_bias_that_rules_out_all_that_may_come_is_an_error(kinds):
    row = TokenChooser(GenerationSettings(regex="a", logit_bias={"a": -100}), [], kinds["char"])
    with pytest.raises(ConfigError, match="logit_bias: it rules out every token that may come next"):
        row.prepare()


def test_an_expression_that_only_the_empty_text_fits_ends_at_once(kinds):
    assert write(GenerationSettings(regex="()"), kinds["char"]) == ""
    assert "no token" in refused(kinds["char without an end"], regex="()")


def test_a_tokenizer_that_adds_spaces_is_refused(kinds):
    spaces = train_tokenizer("word", iter(["a b c"]), min_frequency=1, word_style="spaces")
    assert "tokens join to the text" in refused(spaces, regex="a+")
    wordpiece = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
    wordpiece.decoder = decoders.WordPiece()
    assert "tokens join to the text" in refused(Tokenizer(wordpiece, "other"), regex="a+")


def test_without_the_library_it_is_an_error_with_the_way_to_install_it(kinds, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    assert "tickwise[structured]" in refused(kinds["char"], regex="a+")


@pytest.mark.parametrize("kind", [*KINDS, "word"])
def test_the_bytes_of_the_tokens_join_to_the_text(kinds, kind):
    tokenizer = kinds[kind]
    pieces = token_bytes(tokenizer)
    ids = tokenizer.encode(" yes é 中文 a1")
    assert b"".join(pieces[i] for i in ids).decode().strip() == tokenizer.decode(ids).strip()


def test_importing_the_engine_does_not_import_the_library():
    code = "import sys, tickwise.engine.structured; sys.exit('llguidance' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

import io
import json
import signal
import subprocess
import sys
from collections import Counter

import pytest

from tickwise.cli.dispatch import dispatch
from tickwise.core import console
from tickwise.engine import speculative
from tickwise.engine.language_model import load
from tickwise.engine.speculative import Speculation, TickTimes
from tickwise.interop.directory import save_model
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.profiling.trace_store import open_trace
from tickwise.tokenizers.train import char_tokenizer


@pytest.fixture(scope="module")
def model_path(tiny_run):
    return str(tiny_run)


@pytest.fixture(autouse=True)
def normal_verbosity():
    yield
    console.set_verbosity(console.NORMAL)


def test_text_goes_to_stdout_and_figures_to_stderr(model_path, capsys):
    arguments = ["generate", model_path, "--prompt", "abc", "--max-tokens", "30", "--seed", "3", "--ignore-eos"]
    assert dispatch(arguments) == 0
    captured = capsys.readouterr()
    expected = load(model_path).generate("abc", max_tokens=30, seed=3, ignore_eos=True).text
    assert captured.out.removesuffix("\n") == expected.removesuffix("\n")
    assert "3 prompt tokens" in captured.err
    assert "30 tokens in" in captured.err
    assert "s (29 after the first: " in captured.err
    assert "seed 3" in captured.err


def test_what_was_read_of_a_long_prompt_is_told(model_path, capsys):
    flags = ["generate", model_path, "--prompt", "abc " * 25, "--max-tokens", "10", "--ignore-eos", "--seed", "1"]
    assert dispatch(flags) == 0
    assert "23 of 100 prompt tokens in" in capsys.readouterr().err
    assert dispatch([*flags, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["prompt_tokens"], result["prompt_tokens_kept"]) == (100, 23)


def test_a_text_that_may_outgrow_the_context_is_announced_before_it_is_written(model_path, capsys):
    flags = ["generate", model_path, "--prompt", "abc", "--stop", "a", "--seed", "1"]
    assert dispatch([*flags, "--max-tokens", "1000000"]) == 0
    first = capsys.readouterr().err.splitlines()[0]
    assert "up to 1,000,000 tokens, in a context of 32:" in first
    assert "slides on" in first
    assert dispatch([*flags, "--max-tokens", "32"]) == 0
    assert "slides on" not in capsys.readouterr().err
    assert dispatch([*flags, "--max-tokens", "1000000", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def on_one_screen(*words):
    """A process whose text and notes arrive in one stream, as on a terminal."""
    command = [sys.executable, "-m", "tickwise", "generate", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_no_note_lands_inside_the_text(model_path):
    flags = [model_path, "--prompt", "abc", "--max-tokens", "80", "--ignore-eos", "--seed", "3"]
    with on_one_screen(*flags) as process:
        assert process.stdout is not None
        screen = process.stdout.read().decode()
    text = load(model_path).generate("abc", max_tokens=80, ignore_eos=True, seed=3).text
    announced, _, written = screen.partition("\n")
    assert announced.startswith("up to 80 tokens, in a context of 32")
    assert written.startswith(text.removesuffix("\n") + "\nthe text is longer than the model's context")


def test_a_note_on_the_prompt_comes_before_the_text(model_path):
    flags = [model_path, "--prompt", "abc" * 20, "--max-tokens", "5", "--ignore-eos", "--seed", "3"]
    with on_one_screen(*flags) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"the prompt has 60 tokens")


@pytest.mark.parametrize(("number", "code", "said"), [(signal.SIGINT, 130, "interrupted"),
                                                      (signal.SIGTERM, 143, "terminated")], ids=["INT", "TERM"])
def test_an_interrupted_text_ends_its_line_and_its_trace_is_written(model_path, tmp_path, number, code, said):
    flags = [model_path, "--prompt", "a", "--max-tokens", "1000000", "--ignore-eos", "--trace", tmp_path / "trace"]
    with on_one_screen(*flags, "--seed", "0", "--logit-bias", "\n=-100") as process:
        assert process.stdout is not None
        process.stdout.read(200)
        process.send_signal(number)
        lines = process.stdout.read().decode(errors="replace").splitlines()
    assert process.returncode == code
    assert [line.split(":")[0] for line in lines[1:]] == [
        "the text is longer than the model's context of 32 tokens", "trace", "tickwise"]
    assert lines[-1] == f"tickwise: {said}"
    assert [path.name for path in tmp_path.iterdir()] == ["trace"]
    assert open_trace(tmp_path / "trace").header["counts"]["ticks"]


def test_json_stands_alone_on_stdout_in_the_promised_shape(model_path, capsys):
    assert dispatch(["generate", model_path, "--prompt", "abc", "--max-tokens", "5", "--json", "--ignore-eos"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert load(model_path).tokenizer.decode(result["token_ids"]) == result["text"]
    assert len(result["token_ids"]) == 5
    assert set(result["timings"]) == {"prefill_s", "decode_s", "decode_tokens_per_s", "time_to_first_token_s"}
    assert all(value > 0 for value in result["timings"].values())


def test_json_of_several_samples_is_a_list(model_path, capsys):
    common = ["generate", model_path, "--prompt", "abc", "--max-tokens", "20", "--seed", "5", "--json"]
    assert dispatch([*common, "--n", "3"]) == 0
    samples = json.loads(capsys.readouterr().out)["samples"]
    assert [s["sample"] for s in samples] == [0, 1, 2]
    assert dispatch(common) == 0
    assert json.loads(capsys.readouterr().out)["text"] == samples[0]["text"]


def test_several_samples_for_people(model_path, capsys):
    assert dispatch(["generate", model_path, "--prompt", "abc", "--n", "2", "--seed", "1", "--max-tokens", "5"]) == 0
    assert "--- sample 2 of 2 ---" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_text_and_no_seed_reports_one(model_path, capsys):
    common = ["generate", model_path, "--prompt", "abc", "--max-tokens", "20", "--json"]
    dispatch(common)
    first = json.loads(capsys.readouterr().out)
    dispatch([*common, "--seed", str(first["seed"])])
    assert json.loads(capsys.readouterr().out)["token_ids"] == first["token_ids"]


def test_stop_strings_are_repeatable(model_path, capsys):
    common = ["generate", model_path, "--prompt", "abc", "--max-tokens", "200", "--seed", "1", "--ignore-eos", "--json"]
    assert dispatch([*common, "--stop", "a", "--stop", "b"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["finish_reason"] == "stop"
    assert not {"a", "b"} & set(result["text"])


def generate_json(capsys, model_path, *flags):
    """The result of greedy or seeded generation from "abc"."""
    assert dispatch(["generate", model_path, "--prompt", "abc", "--seed", "1", "--json", *flags]) == 0
    return json.loads(capsys.readouterr().out)


def test_tokens_are_biased_by_id_and_by_text(model_path, capsys):
    tokenizer = load(model_path).tokenizer
    flags = ["--logit-bias", "a=100", "--max-tokens", "5"]
    assert generate_json(capsys, model_path, *flags)["text"] == "aaaaa"
    letter_b = tokenizer.encode("b")[0]
    flags = [*flags, "--logit-bias", f"{letter_b}=100", "--logit-bias", f"{tokenizer.eos_id}=-100"]
    assert set(generate_json(capsys, model_path, *flags, "--max-tokens", "40")["text"]) == {"a", "b"}


def test_a_stop_token_ends_the_text(model_path, capsys):
    letter_a = load(model_path).tokenizer.encode("a")[0]
    flags = ["--stop-token-id", str(letter_a), "--ignore-eos", "--max-tokens", "300"]
    result = generate_json(capsys, model_path, *flags)
    assert result["finish_reason"] == "stop"
    assert "a" not in result["text"]
    longer = generate_json(capsys, model_path, *flags, "--min-tokens", str(len(result["token_ids"]) + 5))
    assert len(longer["token_ids"]) >= len(result["token_ids"]) + 5
    assert "a" not in longer["text"]


@pytest.mark.parametrize(
    ("flags", "texts"),
    [
        (["--regex", "(ab|cd)e"], {"abe", "cde"}),
        (["--choice", "a b", "--choice", "中"], {"a b", "中"}),
    ],
)
def test_the_text_is_what_was_asked_for(model_path, capsys, flags, texts):
    assert generate_json(capsys, model_path, *flags)["text"] in texts
    assert dispatch(["generate", model_path, "--prompt", "abc", *flags]) == 0
    assert capsys.readouterr().out.removesuffix("\n") in texts


def test_a_grammar_comes_from_a_file(model_path, capsys, tmp_path):
    grammar = tmp_path / "grammar.lark"
    grammar.write_text('start: "a" start "b" | "c"\n', encoding="utf-8")
    text = generate_json(capsys, model_path, "--grammar", str(grammar), "--max-tokens", "3000")["text"]
    depth = text.index("c")
    assert text == "a" * depth + "c" + "b" * depth


def test_json_of_a_schema_from_a_file_and_from_the_flag(tmp_path, capsys):
    tokenizer = char_tokenizer(Counter('{}[]:", abc123'), vocab_size=None, end_of_text=True, unknown=False)
    config = DecoderConfig(vocab_size=tokenizer.vocab_size, context_length=32, width=16, n_layers=1, n_heads=2,
                           n_kv_heads=2, head_dim=8, hidden=32)
    save_model(tmp_path / "model", Decoder(config), tokenizer)
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2, 33]}, "b": {"const": "c"}},
              "required": ["a", "b"], "additionalProperties": False}
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(schema), encoding="utf-8")
    for given in (json.dumps(schema), str(file)):
        value = json.loads(generate_json(capsys, str(tmp_path / "model"), "--json-schema", given)["text"])
        assert value["a"] in (1, 2, 33)
        assert value["b"] == "c"


@pytest.mark.parametrize("kind", ["lookup", "draft"])
def test_what_became_of_guesses_is_told(model_path, capsys, monkeypatch, kind):
    monkeypatch.setattr(TickTimes, "known", property(lambda self: True, lambda self, value: None), raising=False)
    monkeypatch.setattr(speculative, "_TRIALS", 2)
    monkeypatch.setattr(TickTimes, "plain_s", lambda self, n_rows: 0.0)  # whatever checking takes is too much
    flags = ["generate", model_path, "--prompt", "abababab", "--max-tokens", "30", "--temperature", "0",
             "--ignore-eos", "--speculate", kind, "--seed", "1"]
    flags += ["--draft", model_path] if kind == "draft" else []
    assert dispatch([*flags, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["speculation"]
    assert set(figures) == {"guessed_tokens", "accepted_tokens", "ticks", "turned_off"}
    assert figures["guessed_tokens"] >= figures["accepted_tokens"] >= 0
    assert dispatch(flags) == 0
    closing = capsys.readouterr().err.splitlines()[-1]
    assert f"{figures['accepted_tokens']} of {figures['guessed_tokens']} guessed tokens accepted" in closing
    if kind == "draft":
        assert figures["turned_off"]
        assert f"turned off after {figures['ticks']} ticks: verifying cost more than it saved" in closing
    monkeypatch.setattr(Speculation, "verified", lambda *_, **__: None)
    assert dispatch(flags) == 0
    assert "turned off" not in capsys.readouterr().err
    assert dispatch([*flags[:-2], "--seed", "1", "--speculate", "off"]) == 0
    assert "guess" not in capsys.readouterr().err.splitlines()[-1]


def test_a_structured_text_that_does_not_fit_says_that_it_was_cut_off(model_path, capsys):
    result = generate_json(capsys, model_path, "--regex", "[ab]{50}", "--max-tokens", "10")
    assert result["finish_reason"] == "length"
    assert len(result["text"]) == 10
    assert dispatch(["generate", model_path, "--regex", "[ab]{50}", "--max-tokens", "10"]) == 0
    assert "regex: the text ended after 10 tokens before it was complete" in capsys.readouterr().err


def test_log_probabilities_are_reported_on_request(model_path, capsys):
    result = generate_json(capsys, model_path, "--logprobs", "2", "--max-tokens", "4", "--ignore-eos")
    assert [token["token_id"] for token in result["logprobs"]] == result["token_ids"]
    for token in result["logprobs"]:
        first, second = (other["logprob"] for other in token["top"])
        assert 0 > first >= second
        assert token["logprob"] <= first
    assert "logprobs" not in generate_json(capsys, model_path, "--max-tokens", "4")


def test_without_cache_greedy_text_is_the_same(model_path, capsys):
    common = ["generate", model_path, "--prompt", "abc", "--max-tokens", "60", "--temperature", "0", "--json"]
    dispatch(common)
    cached = json.loads(capsys.readouterr().out)["text"]
    dispatch([*common, "--no-cache"])
    assert json.loads(capsys.readouterr().out)["text"] == cached


def test_prompt_from_a_file_and_from_standard_input(model_path, capsys, tmp_path, monkeypatch):
    file = tmp_path / "prompt.txt"
    file.write_text("abc\n", encoding="utf-8")
    common = ["generate", model_path, "--max-tokens", "10", "--seed", "1", "--json"]
    dispatch([*common, "--prompt", "abc"])
    expected = json.loads(capsys.readouterr().out)["token_ids"]
    dispatch([*common, "--prompt-file", str(file)])
    assert json.loads(capsys.readouterr().out)["token_ids"] == expected
    for flag in ("--prompt", "--prompt-file"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"abc\n")))
        dispatch([*common, flag, "-"])
        assert json.loads(capsys.readouterr().out)["token_ids"] == expected


def test_text_appears_while_it_is_written(model_path):
    program = [sys.executable, "-m", "tickwise", "generate", model_path, "--prompt", "a", "--max-tokens", "100000",
               "--ignore-eos", "-q", "--seed", "0"]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = process.stdout.read(20)
        assert process.poll() is None, "the text must arrive before the generation ends"
        process.kill()
    assert len(first) == 20


def test_settings_come_from_yaml_and_flags_win(model_path, capsys, tmp_path):
    settings = tmp_path / "settings.yaml"
    settings.write_text("prompt: abc\nmax_tokens: 7\nignore-eos: true\nstop: [zz]\n")
    dispatch(["generate", model_path, "--config", str(settings), "--json"])
    assert len(json.loads(capsys.readouterr().out)["token_ids"]) == 7
    dispatch(["generate", model_path, "--config", str(settings), "--json", "--max-tokens", "2"])
    assert len(json.loads(capsys.readouterr().out)["token_ids"]) == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--temperature", "nan"], "temperature"),
        (["--temperature", "inf"], "temperature: inf must be finite and at least 0"),
        (["--speculate", "draft"], "--speculate draft: name the smaller model with --draft"),
        (["--top-p", "0"], "top_p"),
        (["--max-tokens", "0"], "max_tokens"),
        (["--max-tokens", "-3"], "max_tokens"),
        (["--stop", ""], "stop"),
        (["--typical-p", "1.5"], "typical_p"),
        (["--presence-penalty", "nan"], "presence_penalty"),
        (["--min-tokens", "500"], "min_tokens: 500 is more than max_tokens"),
        (["--logit-bias", "a"], "--logit-bias a: give TOKEN=NUMBER"),
        (["--logit-bias", "99=1"], "no token 99"),
        (["--logprobs", "99"], "logprobs: at most"),
        (["--logit-bias", "Q=1"], "'Q' is not one token"),
        (["--stop-token-id", "99"], "no token 99"),
        (["--regex", "(a"], "not a valid regular expression: unclosed group"),
        (["--regex", "(" * 60_000 + "a" + ")" * 60_000], "not a valid regular expression: exceed"),
        (["--regex", "Q+"], "no token of this vocabulary"),
        (["--regex", "a", "--choice", "b"], "give only one"),
        (["--regex", "a", "--ignore-eos"], "leave one out"),
        (["--json-schema", '{"type": 3}'], "json_schema"),
        (["--json-schema", '{"type":'], "not JSON at line 1"),
        (["--json-schema", '{"type": "object"}'], "no token of this vocabulary"),
        (["--json-schema", "/nothing/here.json"], "/nothing/here.json: cannot read"),
        (["--grammar", "/nothing/here.lark"], "cannot read the grammar"),
        (["--prompt", "a", "--prompt-file", "x"], "only one"),
        (["--prompt-file", "/nothing/here"], "cannot read the prompt"),
        (["--prompts", "/nothing/here"], "cannot read the prompts"),
        (["--prompts", "x", "--prompt", "a"], "only one"),
        (["--prompt", "Q"], "not in the vocabulary"),
        (["--device", "tpu9"], "--device"),
        (["--no-cache", "--top-k", "abc"], "abc"),
        (["-q", "--cache", "--top-k", "abc"], "abc"),
        (["--no-cash"], "no flag --no-cash; did you mean '--no-cache'?"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(model_path, capsys, flags, message):
    assert dispatch(["generate", model_path, *flags]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_a_trace_that_is_there_is_not_replaced_and_no_flag_is_named_that_the_verb_lacks(model_path, tmp_path, capsys):
    flags = ["generate", model_path, "--prompt", "abc", "--max-tokens", "2", "--trace", str(tmp_path / "trace")]
    assert dispatch(flags) == 0
    capsys.readouterr()
    assert dispatch(flags) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert "holds a trace already; delete it, or give another folder" in captured.err


def test_a_missing_model_is_one_line_and_exit_code_2(capsys):
    assert dispatch(["generate", "/nothing/here", "--prompt", "a"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.fixture
def prompts_file(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("abc\n\nab ij\r\nabc\n", encoding="utf-8")
    return file


def alone(model_path, prompt, **settings):
    return load(model_path).generate(prompt, max_tokens=12, seed=3, **settings).text


def test_many_prompts_are_written_in_their_order(model_path, prompts_file, capsys):
    assert dispatch(["generate", model_path, "--prompts", str(prompts_file), "--max-tokens", "12", "--seed", "3"]) == 0
    captured = capsys.readouterr()
    prompts = ["abc", "ab ij", "abc"]
    assert captured.out == "".join(
        f"--- line {i}: {p!r} ---\n{alone(model_path, p)}\n" for i, p in zip((1, 3, 4), prompts, strict=True))
    assert "prompts.txt: 1 empty line skipped" in captured.err
    assert "3 prompts, " in captured.err


@pytest.mark.parametrize("source", ["lines", "jsonl", "stdin"])
def test_many_prompts_as_json_are_a_line_each(model_path, prompts_file, capsys, monkeypatch, source):
    if source == "jsonl":
        prompts_file = prompts_file.with_suffix(".jsonl")
        prompts_file.write_text('{"prompt": "abc", "x": 1}\n{"prompt": "ab ij"}\n{"prompt": "abc"}', encoding="utf-8")
    elif source == "stdin":
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(prompts_file.read_bytes())))
        prompts_file = "-"
    flags = ["--prompts", str(prompts_file), "--max-tokens", "12", "--seed", "3", "--json"]
    assert dispatch(["generate", model_path, *flags]) == 0
    lines = sorted((json.loads(line) for line in capsys.readouterr().out.splitlines()), key=lambda line: line["index"])
    assert [line["index"] for line in lines] == [0, 1, 2]
    assert [line["line"] for line in lines] == ([1, 2, 3] if source == "jsonl" else [1, 3, 4])
    assert [line["text"] for line in lines] == [alone(model_path, prompt) for prompt in ("abc", "ab ij", "abc")]
    assert {"token_ids", "timings", "finish_reason", "seed"} <= set(lines[0])


def test_samples_of_many_prompts(model_path, prompts_file, capsys):
    common = ["generate", model_path, "--prompts", str(prompts_file), "--max-tokens", "4", "--seed", "3", "--n", "2"]
    assert dispatch([*common, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all([sample["sample"] for sample in line["samples"]] == [0, 1] for line in lines)
    assert dispatch(common) == 0
    assert "--- line 3, sample 1 of 2: 'ab ij' ---" in capsys.readouterr().out


def test_a_prompt_that_fails_is_named_and_the_others_are_written(model_path, tmp_path, capsys):
    file = tmp_path / "prompts.txt"
    file.write_text("abc\n\nQQ\nab\n", encoding="utf-8")
    common = ["generate", model_path, "--prompts", str(file), "--max-tokens", "4", "--seed", "3"]
    assert dispatch(common) == 2
    captured = capsys.readouterr()
    assert captured.out.count("--- line") == 2
    assert f"{file}, line 3: character 'Q'" in captured.err
    assert "1 of 3 prompts" in captured.err
    assert dispatch([*common, "--json"]) == 2
    lines = {line["index"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert "not in the vocabulary" in lines[1]["error"]
    assert lines[1]["line"] == 3
    assert "text" in lines[2]


@pytest.mark.parametrize(("name", "content", "message"), [
    ("prompts.txt", b"\n \n", "no prompt"),
    ("prompts.txt", b"ab\xff", "not UTF-8 at byte 2"),
    ("prompts.jsonl", b'{"prompt": "a"}\n{"text": "a"}', "line 2: give an object"),
    ("prompts.jsonl", b'{"prompt": "a"}\n\n["a"]', "line 3: give an object"),
    ("prompts.jsonl", b'{"prompt": 3}', "line 1: give an object"),
    ("prompts.jsonl", b'{"prompt": ', "line 1: not JSON"),
    ("prompts.jsonl", b'{"prompt": ' + b"[" * 100_000, "line 1: not JSON"),
])
def test_a_file_of_prompts_that_is_wrong_is_one_line(model_path, tmp_path, capsys, name, content, message):
    (tmp_path / name).write_bytes(content)
    assert dispatch(["generate", model_path, "--prompts", str(tmp_path / name)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err

"""Our models in lm-evaluation-harness. Runs where ``tickwise[lm-eval]`` is installed."""

import json
import os
import subprocess
import sys

import pytest

lm_eval = pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from tickwise.core.errors import ConfigError  # noqa: E402
from tickwise.evaluation.harness import TickwiseLM  # noqa: E402
from tickwise.evaluation.minimal_pairs import evaluate_pairs, read_pair_sets  # noqa: E402
from tickwise.interop.directory import save_model  # noqa: E402

TASK = """task: pairs
dataset_path: json
dataset_kwargs:
  data_files: {file}
test_split: train
output_type: multiple_choice
doc_to_text: ""
doc_to_target: 0
doc_to_choice: "{{{{[sentence_good, sentence_bad]}}}}"
num_fewshot: 0
metric_list:
  - metric: acc
"""


def ask(kind, *arguments):
    return [Instance(kind, {}, one, index) for index, one in enumerate(arguments)]


@pytest.fixture
def pairs(tmp_path):
    rows = [("the cat", "teh cat"), ("zq@ 9", "a dog"), ("no no", "on on"), ("ab", "ba"), ("x y z", "z y x")]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps({"sentence_good": a, "sentence_bad": b}) + "\n" for a, b in rows))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "pairs.yaml").write_text(TASK.format(file=file))
    return file


def test_a_task_of_the_harness_gives_our_own_figure(model, pairs, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    manager = TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False)
    result = lm_eval.simple_evaluate(TickwiseLM(model), tasks=["pairs"], task_manager=manager, bootstrap_iters=0)
    own = evaluate_pairs(model, read_pair_sets(pairs))
    assert result["results"]["pairs"]["acc,none"] == pytest.approx(own.mean.value)
    assert 0 < own.mean.value < 1


def test_log_likelihoods_of_continuations(model):
    lm = TickwiseLM(model)
    whole = lm.loglikelihood(ask("loglikelihood", ("", "the cat"), ("the", " cat"), ("the ", "cat")))
    text, cat, spaced = (value for value, _ in whole)
    assert text == pytest.approx(-model.score("the cat").nats, abs=1e-4)
    logs = model.score("the cat").token_log_probabilities
    assert cat == pytest.approx(sum(logs[3:]), abs=1e-4)
    assert spaced == pytest.approx(cat, abs=1e-6)


def test_greedy_continuations_are_told(model):
    lm = TickwiseLM(model)
    start = model.tokenizer.decode([model.tokenizer.eos_id], skip_special=False)
    written = model.generate(start + "the", max_tokens=3, temperature=0).text
    (_, greedy), (_, other) = lm.loglikelihood(ask("loglikelihood", ("the", written), ("the", written[::-1] + "q")))
    assert greedy
    assert not other


def test_rolling_windows_score_every_token_once(model):
    lm = TickwiseLM(model)
    text = "the cat sat on the mat and the dog sat on the cat"
    (total,) = lm.loglikelihood_rolling(ask("loglikelihood_rolling", (text,)))
    # Half of the tokens see less than our own windows, which overlap by half: near, but not the same.
    assert total == pytest.approx(-model.score(text).nats, rel=0.2)
    (short,) = lm.loglikelihood_rolling(ask("loglikelihood_rolling", (text[:12],)))
    assert short == pytest.approx(-model.score(text[:12]).nats, abs=1e-4)


def test_texts_end_before_the_strings_that_end_them(model):
    lm = TickwiseLM(model)
    plain = model.generate("the ", max_tokens=12, temperature=0).text
    stop = plain[4]
    texts = lm.generate_until(ask("generate_until", ("the ", {"until": [stop], "max_gen_toks": 12}),
                                  ("the ", {"until": [], "max_gen_toks": 12}),
                                  ("a", {"until": "x", "max_gen_toks": 3, "do_sample": True, "temperature": 2.0})))
    assert texts[0] == plain[: plain.index(stop)]
    assert texts[1] == plain
    assert len(texts) == 3


def test_a_tokenizer_that_cannot_begin_a_text(monkeypatch, model):
    monkeypatch.setattr("tickwise.evaluation.harness.start_ids", lambda tokenizer: [])
    with pytest.raises(ConfigError, match="from their first token"):
        TickwiseLM(model)


@pytest.mark.slow  # the harness reads all of its tasks first
def test_the_harness_command_line_finds_the_model(model, pairs, tmp_path):
    save_model(tmp_path / "model", model.module, model.tokenizer)
    done = subprocess.run(
        [sys.executable, "-m", "tickwise.evaluation.harness", "run", "--model", "tickwise", "--model_args",
         f"pretrained={tmp_path / 'model'}", "--tasks", "pairs", "--include_path", str(tmp_path / "tasks"),
         "--output_path", str(tmp_path / "out")],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    (written,) = (tmp_path / "out").rglob("results_*.json")
    own = evaluate_pairs(model, read_pair_sets(pairs)).mean.value
    assert json.loads(written.read_text())["results"]["pairs"]["acc,none"] == pytest.approx(own)

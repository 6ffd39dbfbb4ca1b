"""Sentence embeddings, the likest texts, and words for masked places, from the command line to the figures."""

import dataclasses
import io
import json

import numpy as np
import pytest
import torch

from tickwise.core.errors import ConfigError, DataError, NumericsError
from tickwise.data.judged_pairs import JudgedPairs
from tickwise.tasks.embed import (
    EmbedConfig,
    Embedder,
    SimilarTexts,
    read_partners,
    split_partners,
    train_embedder,
)
from tickwise.tasks.embed_scores import score_pairs
from tickwise.training.config import OptimizerOptions
from tickwise.training.encoder import EncoderOptions, EncoderTrainConfig, train_encoder

NAMES = ["ada", "bob", "cleo", "dan", "eve", "fay", "gus", "hal"]
THINGS = ["apples", "boats", "cards", "dogs", "eggs", "flags", "games", "hats"]
LINES = [f"{name} likes {thing}" for name in NAMES for thing in THINGS]
PARTNERS = [f"{thing} are liked by {name}" for name in NAMES for thing in THINGS]
HELD = {line: number for number, line in enumerate(LINES) if (number + number // 8) % 4 == 0}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    (folder / "text.txt").write_text("\n".join(LINES * 12), encoding="utf-8")
    return train_encoder(EncoderTrainConfig(
        data=folder / "text.txt", out=folder / "run", vocab_size=300, depth=2, context=32, batch_size=32, max_steps=200,
        model=EncoderOptions(width=32, n_heads=2), optimizer=OptimizerOptions(embedding_lr_ratio=1.0), dtype="fp32",
        compile="off", device="cpu")).out


@pytest.fixture(scope="module")
def embedder(encoder, tmp_path_factory):
    """Partners tell the same thing of a name in another order; every fourth pair is not learned from."""
    from tickwise.cli import main

    folder = tmp_path_factory.mktemp("embedder")
    pairs = [f"{line}\t{partner}" for line, partner in zip(LINES, PARTNERS, strict=True) if line not in HELD]
    (folder / "pairs.tsv").write_text("\n".join(pairs), encoding="utf-8")
    words = ["adapt", encoder, "--task", "embed", "--train", folder / "pairs.tsv", "--out", folder / "run", "--dtype",
             "fp32", "--tuning.epochs", 16, "--tuning.lr", "3e-3", "--tuning.word-dropout", 0, "-q"]
    assert main([str(word) for word in words]) == 0
    return folder / "run"


def test_partners_that_were_not_learned_are_found_first(embedder, encoder):
    def recall(model):
        found = SimilarTexts(Embedder.load(model), PARTNERS).find(list(HELD), 1)
        return np.mean([near[0].number == number for near, number in zip(found, HELD.values(), strict=True)])

    assert recall(encoder) + 0.2 < 0.45 < recall(embedder)  # by chance 1 of 64


def test_vectors_have_length_one(embedder):
    vectors = Embedder.load(embedder).embed([*LINES[:3], ""])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 1, 0], atol=1e-5)


def test_vectors_that_are_no_numbers_are_refused(embedder):
    damaged = Embedder.load(embedder)
    with torch.no_grad():
        next(damaged.module.parameters()).fill_(float("nan"))
    pairs = JudgedPairs(LINES[:8], PARTNERS[:8], None, "pairs")
    with pytest.raises(NumericsError, match="no finite numbers"):
        score_pairs(damaged, pairs)  # comparisons with NaN are false, so every partner would stand first


def test_no_texts_have_no_vectors(embedder):
    loaded = Embedder.load(embedder)
    assert loaded.embed([]).shape == (0, 32)
    assert SimilarTexts(loaded, LINES).find([]) == []


def test_similar_and_embed_from_the_command_line(tmp_path, embedder, encoder, tickwise_cli):
    (tmp_path / "texts.txt").write_text("\n".join(LINES), encoding="utf-8")
    code, out, err = tickwise_cli("run", "similar", embedder, LINES[5], "--among", tmp_path / "texts.txt", "--json")
    assert code == 0, err
    best = json.loads(out)["similar"][0]
    assert (best["text"], best["number"]) == (LINES[5], 5)
    code, _, err = tickwise_cli("run", "embed", embedder, "--input", tmp_path / "texts.txt", "--out",
                                tmp_path / "v.npy")
    assert code == 0, err
    assert np.load(tmp_path / "v.npy").shape == (64, 32)
    code, out, err = tickwise_cli("run", "embed", encoder, "ada likes boats")
    assert (code, len(out.split())) == (0, 32), err
    assert tickwise_cli("run", "similar", embedder, "ada")[0] == 2
    code, out, _ = tickwise_cli("run", "embed", embedder, "ada", "--out", tmp_path / "one.npy", "--json")
    assert json.loads(out) == {"out": str(tmp_path / "one.npy"), "texts": 1, "width": 32}
    code, _, err = tickwise_cli("run", "embed", "nowhere", "ada", "--out", tmp_path / "v.txt")
    assert (code, "ends in .npy" in err) == (2, True)


def test_an_encoder_that_was_not_fine_tuned_says_so_once(embedder, encoder, tickwise_cli):
    _, _, err = tickwise_cli("run", "embed", encoder, "ada likes boats")
    assert (len(err.splitlines()), "not fine-tuned for vectors of texts" in err) == (1, True)
    assert tickwise_cli("run", "embed", embedder, "ada likes boats")[2] == ""


def test_texts_of_a_file_are_compared_with_each_other(tmp_path, embedder, tickwise_cli):
    texts, page = tmp_path / "texts.txt", tmp_path / "map.html"
    texts.write_text("\n".join([LINES[5], "", PARTNERS[5], LINES[5], LINES[40]]), encoding="utf-8")
    words = ["run", "similar", embedder, "--input", texts]
    code, out, err = tickwise_cli(*words, "--picture", page, "--json", "--n", 9)
    assert code == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    assert [[near["number"] for near in sorted(row["similar"], key=lambda near: near["number"])] for row in rows] == [
        [2, 4], [], [0, 4], [2, 4], [0, 2]]  # not itself, equal ones once, blank ones never
    assert rows[0]["similar"][0]["text"] == PARTNERS[5]
    assert all(-1 <= near["cosine"] <= 1 for row in rows for near in row["similar"])
    html = page.read_text(encoding="utf-8")
    assert f"<td>{PARTNERS[5]}</td><td>{rows[0]['similar'][0]['cosine']:.3f}</td>" in html
    assert f"picture: {page}" in err
    code, out, _ = tickwise_cli(*words, "--n", 1)
    assert out.splitlines()[0] == LINES[5]
    assert out.splitlines()[1].split("\t")[1] == PARTNERS[5]
    code, _, err = tickwise_cli("run", "similar", embedder, LINES[5], "--among", texts, "--picture", tmp_path / "m.svg")
    assert code == 0, err
    assert (tmp_path / "m.svg").read_text(encoding="utf-8").count(f">{LINES[5]}<") == 3  # its row, and two columns


@pytest.mark.parametrize("flags", [["-"], []])
def test_texts_of_standard_input_are_compared_with_each_other(flags, embedder, tickwise_cli, monkeypatch):
    given = "\n".join([LINES[5], PARTNERS[5], LINES[40]])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given.encode()), encoding="utf-8"))
    code, out, err = tickwise_cli("run", "similar", embedder, *flags, "--json", "--n", 1)
    assert code == 0, err
    assert [json.loads(line)["similar"][0]["number"] for line in out.splitlines()][:2] == [1, 0]


def scored(tickwise_cli, *words):
    code, out, err = tickwise_cli("run", "similar", *words, "--json")
    assert code == 0, err
    return json.loads(out)


def test_pairs_score_an_embedder(tmp_path, embedder, encoder, tickwise_cli):
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("\n".join(f"{line}\t{PARTNERS[n]}" for line, n in HELD.items()), encoding="utf-8")
    own, plain = (scored(tickwise_cli, model, "--test", pairs) for model in (embedder, encoder))
    assert set(own["results"]["partners"]) == {"alias", *(
        f"{name}{kind},none" for name in ("mrr", "recall@1", "recall@10") for kind in ("", "_stderr"))}
    assert own["n-samples"]["partners"]["original"] == len(HELD)
    assert own["results"]["partners"]["mrr,none"] > plain["results"]["partners"]["mrr,none"] + 0.1
    found = SimilarTexts(Embedder.load(embedder), [PARTNERS[n] for n in HELD.values()]).find(list(HELD), 1)
    assert own["results"]["partners"]["recall@1,none"] == pytest.approx(np.mean(
        [near[0].text == PARTNERS[n] for near, n in zip(found, HELD.values(), strict=True)]))
    code, out, _ = tickwise_cli("run", "similar", embedder, "--test", pairs)
    assert (code, "recall@10" in out, f"{len(HELD)} pairs" in out) == (0, True, True)


def test_scores_of_pairs_say_how_they_were_made(embedder):
    loaded = Embedder.load(embedder)
    pairs = [*zip(LINES[:4], PARTNERS[:4], strict=True), (LINES[0], PARTNERS[5]), (LINES[1], LINES[1])]
    left, right = map(list, zip(*pairs, strict=True))
    scores = score_pairs(loaded, JudgedPairs(left, right, None, "pairs"), samples=50, seed=3)
    shown = scores.to_json()
    assert shown["n-samples"] == {"partners": {"original": 6, "effective": 4}}
    assert (shown["config"]["bootstrap_iters"], shown["config"]["random_seed"]) == (50, 3)
    assert scores.table().endswith("4 texts, the partner of each sought among those of all; 6 pairs were read")
    judged = score_pairs(loaded, JudgedPairs(left, right, [5.0, 4, 3, 2, 1, 0], "pairs"), samples=60, seed=2).to_json()
    assert judged["n-samples"] == {"similarity": {"original": 6, "effective": 6}}
    assert (judged["config"]["bootstrap_iters"], judged["config"]["random_seed"]) == (60, 2)


def test_judged_pairs_score_an_embedder_by_correlation(tmp_path, embedder, encoder, tickwise_cli):
    judged = tmp_path / "sts.csv"
    rows = [(line, PARTNERS[m], (line.split()[0] == PARTNERS[m].split()[-1]) + (line.split()[-1] in PARTNERS[m]))
            for line in HELD for m in range(0, 64, 9)]
    judged.write_text("sentence1,sentence2,score\n" + "\n".join(f"{a},{b},{n}" for a, b, n in rows), encoding="utf-8")
    own, plain = (scored(tickwise_cli, model, "--test", judged) for model in (embedder, encoder))
    value = own["results"]["similarity"]["spearman,none"]
    assert plain["results"]["similarity"]["spearman,none"] < value
    low, high = own["intervals"]["similarity"]["spearman"]
    assert 0.2 < low < value < high
    left, right = (Embedder.load(embedder).embed([row[side] for row in rows]) for side in (0, 1))
    assert own["results"]["similarity"]["pearson,none"] == pytest.approx(
        np.corrcoef((left * right).sum(1), [row[2] for row in rows])[0, 1], abs=1e-4)


def test_a_fine_tuning_is_scored_on_pairs_that_it_did_not_see(tmp_path, encoder, tickwise_cli):
    pairs = [f"{line}\t{partner}" for line, partner in zip(LINES, PARTNERS, strict=True)]
    (tmp_path / "train.tsv").write_text("\n".join(pairs), encoding="utf-8")
    (tmp_path / "test.tsv").write_text("\n".join(pairs[:10]), encoding="utf-8")
    code, out, err = tickwise_cli("adapt", encoder, "--task", "embed", "--train", tmp_path / "train.tsv", "--test",
                                  tmp_path / "test.tsv", "--out", tmp_path / "run", "--tuning.epochs", 1, "--dtype",
                                  "fp32", "--json")
    assert code == 0, err
    shown = json.loads(out)
    assert shown["test"]["n-samples"]["partners"]["original"] == 10
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text()) == shown
    assert "10 training pairs have a text of the test pairs; left out" in err
    assert shown["test"]["results"] == scored(tickwise_cli, tmp_path / "run", "--test",
                                              tmp_path / "test.tsv")["results"]
    code, _, err = tickwise_cli("adapt", encoder, "--task", "embed", "--train", tmp_path / "train.tsv", "--test",
                                tmp_path / "none.tsv", "--out", tmp_path / "other")
    assert (code, "no such file" in err, (tmp_path / "other").exists()) == (2, True, False)


@pytest.mark.parametrize(("flags", "said"), [
    (["a text", "--test", "x.tsv"], "leave out the text"),
    (["--test", "x.tsv", "--picture", "x.svg"], "leave out --picture"),
    (["a text", "--among", "x.txt", "--columns", "a,b"], "--columns: has a meaning with --test only"),
    (["a text"], "--among: give a file of texts to search in"),
    (["a text", "--among", "x.txt", "--picture", "x.pdf"], "ends in .html"),
    (["a text", "--among", "x.txt", "--n", "0"], "--n: must be at least 1"),
])
def test_contradictions_are_refused_before_the_model_is_read(flags, said, tickwise_cli):
    code, out, err = tickwise_cli("run", "similar", "nowhere", *flags)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert said in err


def test_a_heat_map_of_too_many_texts_is_refused(tmp_path, tickwise_cli):
    (tmp_path / "many.txt").write_text("\n".join(f"text {n}" for n in range(151)), encoding="utf-8")
    code, _, err = tickwise_cli("run", "similar", "nowhere", "--input", tmp_path / "many.txt", "--picture",
                                tmp_path / "m.svg")
    assert (code, "at most 150" in err) == (2, True)


@pytest.mark.parametrize("verb", ["embed", "similar"])
def test_progress_on_the_texts_of_a_file_is_shown(verb, tmp_path, embedder, tickwise_cli, monkeypatch):
    monkeypatch.setattr("tickwise.core.console._PLAIN_INTERVAL_S", 0.0)
    monkeypatch.setattr("tickwise.cli.task_flags.TEXTS_AT_ONCE", 32)
    (tmp_path / "texts.txt").write_text("\n".join(LINES), encoding="utf-8")
    among = ["--among", tmp_path / "texts.txt"] if verb == "similar" else []
    code, out, err = tickwise_cli("run", verb, embedder, "--input", tmp_path / "texts.txt", *among, "--json")
    assert (code, len(out.splitlines())) == (0, 64)
    doing = {"embed": "embedding", "similar": "searching"}[verb]
    assert [line.split(",")[0] for line in err.splitlines() if line.startswith(doing)] == [
        f"{doing}: 50% 32 texts", f"{doing}: 100% 64 texts"]
    assert doing not in tickwise_cli("run", verb, embedder, LINES[0], *among)[2]


def test_mistakes_in_files_of_partners(tmp_path):
    (tmp_path / "pairs.tsv").write_text("a\tb\tc\n")
    with pytest.raises(DataError, match="line 1"):
        read_partners([str(tmp_path / "pairs.tsv")])
    (tmp_path / "few.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match="at least 4"):
        read_partners([str(tmp_path / "few.txt")])


def test_lines_end_with_line_feeds_alone(tmp_path):
    (tmp_path / "pairs.tsv").write_text("a\u2028b\tc\r\nd\te\u0085f\ng\nh\x0ci\n", encoding="utf-8", newline="")
    assert read_partners([str(tmp_path / "pairs.tsv")]) == [("a\u2028b", "c"), ("d", "e\u0085f"), ("g", "g"),
                                                            ("h\x0ci", "h\x0ci")]


def texts_of(pairs):
    return {text.casefold().strip("!") for pair in pairs for text in pair}


def test_no_text_is_both_trained_on_and_chosen_by(capfd):
    both_ways = [pair for n in range(200) for pair in ((f"a {n}", f"b {n}"), (f"b {n}", f"A {n}!"), (f"b {n}",) * 2)]
    training, developing = split_partners(both_ways, None)
    assert not texts_of(training) & texts_of(developing)
    assert len(training) + len(developing) * 3 // 2 == len(both_ways)  # what is held back goes whole
    assert len(developing) >= 4
    assert all(left != right for left, right in developing)
    n_held = len(developing) // 2
    assert f"{n_held} training pairs have a text of the development pairs; left out" in capfd.readouterr().err
    training, developing = split_partners(both_ways, [("a 1", "b 1"), ("c", "d"), ("B 2!", "e"), ("f", "g")])
    assert len(developing) == 4
    assert [pair for pair in both_ways if pair not in training] == both_ways[3:9]
    assert "6 training pairs have a text" in capfd.readouterr().err


def said_on(capfd):
    return " ".join(capfd.readouterr().err.split())


def test_it_is_said_why_nothing_is_held_back(capfd):
    few = [(f"text {n}", f"other {n}") for n in range(20)]
    assert split_partners(few, None) == (few, [])
    assert "a twentieth of 20 pairs is fewer than 4: none are held back, and the last model is kept" in said_on(capfd)
    own = [(f"text {n}",) * 2 for n in range(300)]
    assert split_partners(own, None) == (own, [])
    assert "no pair has two different texts to choose the model by: none are held back" in said_on(capfd)
    assert split_partners(few, [*own[:5], ("a", "b"), ("c", "d")]) == (few, [])
    assert ("--dev: 2 usable pairs (of two different texts), at least 4 are needed to choose the model by; the last "
            "model is kept") in said_on(capfd)


def test_texts_that_link_all_pairs_are_not_held_back(capfd):
    kinds = [(f"text {n}", f"kind {n % 3}") for n in range(300)]
    assert split_partners(kinds, None) == (kinds, [])
    assert ("0 of 300 pairs are linked to few enough others to be held back, and a twentieth of them is fewer than 4: "
            "none are held back, and the last model is kept") in said_on(capfd)
    apart = [(f"text {n}", f"other {n}") for n in range(300)]
    training, developing = split_partners(apart, None)
    assert sorted(training + developing) == sorted(apart)
    assert 4 <= len(developing) <= 30


def test_an_embedder_is_refused_parts_of_batches_before_anything_is_read(tmp_path, monkeypatch):
    config = EmbedConfig(encoder=tmp_path / "none", train=(str(tmp_path / "none.txt"),), out=tmp_path / "run")
    with pytest.raises(ConfigError, match="whole batches"):
        train_embedder(dataclasses.replace(config, accumulate=2))
    for name, value in (("TORCHELASTIC_RUN_ID", "1"), ("WORLD_SIZE", "2"), ("RANK", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="whole batches"):
        train_embedder(config)


@pytest.mark.parametrize("lines", [LINES[:20], LINES[:12] + [f"{line}\t{line}" for line in LINES[12:20]]],
                         ids=["texts", "texts twice"])
def test_texts_alone_give_no_score_to_choose_by(tmp_path, encoder, tickwise_cli, lines):
    (tmp_path / "texts.txt").write_text("\n".join(lines), encoding="utf-8")
    code, out, err = tickwise_cli("adapt", encoder, "--task", "embed", "--train", tmp_path / "texts.txt", "--dev",
                                  tmp_path / "texts.txt", "--out", tmp_path / "run", "--tuning.epochs", 1, "--dtype",
                                  "fp32", "--json")
    assert code == 0, err
    assert json.loads(out)["development"] == {}
    assert "the last model is kept" in err
    assert "20 pairs (20 of a text with itself), 0 to choose the model by" in err


def test_long_texts_are_cut_and_that_is_said_once(embedder, capfd):
    loaded = Embedder.load(embedder)
    capfd.readouterr()
    vectors = loaded.embed(["ada likes boats " * 30, "ada likes boats"])
    assert "1 of 2 texts are longer than the encoder's 32 tokens; only the beginning" in capfd.readouterr().err
    np.testing.assert_array_equal(loaded.embed(["ada likes boats " * 40])[0], vectors[0])
    assert capfd.readouterr().err == ""


def test_long_texts_are_said_before_they_are_trained_on(tmp_path, encoder, tickwise_cli):
    (tmp_path / "texts.txt").write_text("\n".join([*LINES[:9], f"{LINES[9]} " * 30]), encoding="utf-8")
    code, _, err = tickwise_cli("adapt", encoder, "--task", "embed", "--train", tmp_path / "texts.txt", "--out",
                                tmp_path / "run", "--tuning.epochs", 1, "--dtype", "fp32")
    assert code == 0, err
    assert "2 of 20 texts are longer than the encoder's 32 tokens; only the beginning of such texts counts" in err


def test_no_text_makes_no_file(tmp_path, embedder, tickwise_cli, monkeypatch):
    monkeypatch.setattr("tickwise.cli.run_embed.answer_texts", lambda arguments, answer: None)  # Ctrl-D at the prompt
    code, _, err = tickwise_cli("run", "embed", embedder, "--out", tmp_path / "v.npy")
    assert (code, err) == (2, "tickwise: no text was given; nothing was written\n")
    assert not (tmp_path / "v.npy").exists()

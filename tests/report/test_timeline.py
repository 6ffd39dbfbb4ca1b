import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

import synthetic_trace
from tickwise.core.errors import DataError
from tickwise.report import timeline_data
from tickwise.report.timeline import timeline_page
from tickwise.report.timeline_advice import advice
from tickwise.report.timeline_data import compact, compact_listing

HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)>\x00\u202e\ud800&amp;\u2028'


class Elements(HTMLParser):
    def __init__(self, source):
        super().__init__()
        self.tags = []
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


def embedded(html):
    return json.loads(re.search(r'id="trace">(.*?)</script>', html, re.DOTALL).group(1))


@pytest.fixture(scope="module")
def conversation():
    return synthetic_trace.conversation()


def test_the_columns_hold_every_row_of_the_ledger(conversation):
    data = compact(conversation.ledger, conversation.tokens)
    rows = data["rows"]
    assert rows["duration"] == [row["duration_ns"] for row in conversation.ledger]
    assert [data["costs"]["flops"][cost] for cost in rows["cost"]] == [row["flops"] for row in conversation.ledger]
    assert [data["bounds"][int(bound)] for bound in rows["bound"]] == [row["bound"] for row in conversation.ledger]
    stages = [data["stages"][stage] for layout in data["ticks"]["layout"] for stage in data["layouts"][layout][::2]]
    assert stages == [row["stage"] for row in conversation.ledger]
    said = data["tokens"]
    requests = [data["requests"][request] for request in said["request"]]
    assert sorted(zip(requests, said["position"], said["text"], strict=True)) == sorted(
        (token["request_id"], token["position"], token["text"]) for token in conversation.tokens)
    assert data["requests"] == ["request-1", "request-2", "request-3"]


def test_energy_keeps_enough_digits():
    trace = synthetic_trace.Trace()
    trace.tick("decode", ["a"], 1, 10)
    assert compact(trace.ledger, [])["rows"]["energy"][0] == pytest.approx(1e6 * trace.ledger[0]["energy_j"], rel=1e-3)


def test_the_totals_by_phase_and_stage_add_up_to_the_ledger(conversation):
    phases = compact(conversation.ledger, conversation.tokens)["phases"]
    assert [phase["name"] for phase in phases] == ["decode", "prefill"]
    assert sum(phase["ticks"] for phase in phases) == len({row["tick"] for row in conversation.ledger})
    for phase in phases:
        of_phase = [row for row in conversation.ledger if row["phase"] == phase["name"]]
        assert phase["wall"] == sum(row["duration_ns"] for row in of_phase)
        assert sum(stage["time"] for stage in phase["stages"]) == phase["wall"]
        assert sum(stage["read"] or 0 for stage in phase["stages"]) == sum(row["bytes_read"] or 0 for row in of_phase)


def test_stages_stand_in_the_order_of_a_tick(conversation):
    stages = compact(conversation.ledger, [])["stages"]
    assert stages == ["schedule", "embed", "norm", "qkv", "rope", "attention", "out", "ffn", "head", "sample",
                      "detokenize", "host"]  # fmt: skip


def test_rows_that_arrive_out_of_order_are_drawn_in_the_order_of_their_start(conversation):
    shuffled = sorted(conversation.ledger, key=lambda row: (row["stage"], row["tick"]))
    assert compact(shuffled, [])["rows"] == compact(conversation.ledger, [])["rows"]


def test_what_is_not_known_stays_unknown():
    row = {"run": "r", "tick": 0, "request_ids": ["a"], "batch": 1, "phase": "decode", "layer": None, "stage": "host",
           "start_ns": 5, "duration_ns": 100, "flops": None, "bytes_read": float("nan"), "bytes_written": None,
           "kv_tokens": 0, "bound": None, "roofline_share": float("inf"), "energy_j": None,
           "energy_source": "none"}  # fmt: skip
    data = compact([row], [])
    assert data["energy_kind"] is None
    assert "energy" not in data["rows"]
    assert data["phases"][0]["stages"][0]["known"] == 0
    assert data["costs"] == {"flops": [None], "read": [None], "written": [None]}
    stage = data["phases"][0]["stages"][0]
    assert (stage["flops"], stage["read"], stage["energy"]) == (None, None, None)
    page = timeline_page(ledger=[row], tokens=[], meta={}, listing=None)
    assert embedded(page)["meta"]["bandwidth"] is None


def test_hostile_text_stays_text_wherever_it_stands(conversation):
    trace = synthetic_trace.Trace()
    trace.tick("decode", [HOSTILE], 1, 10, [(HOSTILE, 0, HOSTILE)])
    html = timeline_page(**trace.page(model=HOSTILE, command=HOSTILE, machine=HOSTILE, sentences={"ffn": HOSTILE}))
    html.encode("utf-8")
    assert "\x00" not in html
    plain = Elements(timeline_page(**conversation.page()))
    assert [tag for tag, _ in Elements(html).tags] == [tag for tag, _ in plain.tags]
    data = embedded(html)
    assert data["tokens"]["text"] == [HOSTILE]
    assert data["meta"]["machine"] == HOSTILE


def test_the_page_loads_nothing_and_only_its_own_script_may_run(conversation):
    html = timeline_page(**conversation.page())
    elements = Elements(html)
    loading = {"src", "href", "srcset", "data", "onclick"}
    assert not [a for _, attributes in elements.tags for a in attributes if a in loading]
    assert not re.search(r"@import|url\(", html)
    [policy] = [a["content"] for _, a in elements.tags if "Content-Security-Policy" in a.get("http-equiv", "")]
    script = html[html.rindex("<script>") + len("<script>"):html.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert "innerHTML" not in script


def test_a_trace_that_is_too_long_keeps_its_slowest_ticks_and_the_totals_of_all(conversation, monkeypatch):
    whole = compact(conversation.ledger, conversation.tokens)
    monkeypatch.setattr(timeline_data, "_MOST_ROWS", 1000)
    thin = compact(conversation.ledger, conversation.tokens)
    n_ticks = len(whole["ticks"]["number"])
    assert thin["thinned"] == {"kept": len(thin["ticks"]["number"]), "of": n_ticks}
    assert 15 < len(thin["ticks"]["number"]) < 25
    assert thin["phases"] == whole["phases"]
    walls = {}
    for row in conversation.ledger:
        walls[row["tick"]] = walls.get(row["tick"], 0) + row["duration_ns"]
    assert max(walls, key=walls.get) in thin["ticks"]["number"]
    assert thin["ticks"]["number"] == sorted(thin["ticks"]["number"])
    assert whole["thinned"] is None


def test_a_row_costs_few_bytes():
    trace = synthetic_trace.conversation(n_requests=1, n_tokens=500)
    assert len(timeline_page(**trace.page())) < 150_000 + 40 * len(trace.ledger)


def test_a_trace_without_ticks_is_the_users_to_mend():
    with pytest.raises(DataError, match="no ticks"):
        timeline_page(ledger=[], tokens=[], meta={}, listing=None)


def test_training_steps_need_no_request():
    data = compact(synthetic_trace.training(3).ledger, [])
    assert data["requests"] == ["training"]
    assert data["phases"][0]["name"] == "train"
    assert data["phases"][0]["ticks"] == 3


def test_the_listing_keeps_the_shapes_readable_and_drops_stages_of_no_tick():
    row = {"stage": "ffn", "layer": 2, "op": "aten.mm", "shapes": [[1, 4], [4, 8]], "flops": 64, "bytes_read": 72,
           "bytes_written": 16}  # fmt: skip
    kept = compact_listing([row, {**row, "stage": "loss"}], ["norm", "ffn"])
    assert kept == {"": [[1, 2, "aten.mm", "1×4, 4×8", 64, 72, 16]]}
    both = compact_listing([{**row, "phase": "prefill"}, {**row, "phase": "decode", "op": "aten.mv"}], ["ffn"])
    assert {phase: [one[2] for one in rows] for phase, rows in both.items()} == {
        "prefill": ["aten.mm"], "decode": ["aten.mv"]}


def test_the_number_format_finds_its_peak():
    trace = synthetic_trace.training(1)
    for name in ("bf16", "torch.bfloat16", "bfloat16"):
        assert embedded(timeline_page(**trace.page(dtype=name)))["meta"]["peak"] == synthetic_trace.PEAKS["bf16"]
    assert embedded(timeline_page(**trace.page(dtype="int4")))["meta"]["peak"] is None


def test_advice_follows_what_holds_a_stage_back():
    assert "bf16 halves" in advice("decode", "ffn", "memory", "fp32")
    assert "int8 halves" in advice("decode", "ffn", "memory", "bf16")
    assert "more requests per tick" not in advice("train", "ffn", "memory", "fp32")
    assert "shorter context" in advice("decode", "attention", "memory", "bf16")
    assert "prefix cache" in advice("prefill", "ffn", "compute", "bf16")
    assert "larger operations" in advice("decode", "norm", "overhead", "bf16")
    assert "Python" in advice("decode", "host", "overhead", "bf16")
    assert advice("decode", "ffn", "unknown", "bf16").startswith("Not known")

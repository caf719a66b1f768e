"""The figures of README.md against the records that it names, and its length."""

import json
from typing import Any

from tests.docs.pages import ROOT, rows, section

README = (ROOT / "README.md").read_text(encoding="utf-8")
RECORDS = ROOT / "results" / "benchmarks"


def record(name: str) -> Any:
    return json.loads((RECORDS / f"{name}.json").read_text(encoding="utf-8"))


def faster() -> list[float]:
    """How many times faster than in transformers each model decodes at the long context."""
    figures = record("h200/compiled")["figures"]
    return [figures[key] for key in figures if key.endswith(".speedup")]


def headline() -> list[tuple[str, str]]:
    """The figure and the record of each row of the headline table, from the records."""
    search, decode = record("h200/search")["figures"], record("h100/decode")["figures"]
    searchers, table = record("cpu/searchers"), record("h100/table")["figures"]
    problems = len({sample["problem"] for sample in searchers["samples"] if "problem" in sample})
    best = sum(
        searchers["figures"][f"{which}problems_where_guided_has_the_best_mean_at_200"]
        for which in ("", "held_out_")
    )
    return [
        (f"{search['gain_median']:.3f} nats per token", "h200/search"),
        (f"{search['guided.candidates_per_device_hour']:.0f}", "h200/search"),
        (f"{best} of {problems}", "cpu/searchers"),
        (f"{decode['nemotron-flash-1b.graph_ms']:.3f} ms", "h100/decode"),
        (f"{min(faster()):.1f} to {max(faster()):.1f}", "h200/compiled"),
        (f"{100 * table['decode@b1.mape']:.1f} %", "h100/table"),
        (f"{record('h200/ranks')['figures']['short_loss.spearman']:.2f}", "h200/ranks"),
    ]


def test_every_headline_is_its_records_value():
    shown = [(figure, cited) for _, figure, cited in rows(section(README, "What stands on record"))]
    assert shown == [(figure, f"[{name}](results/benchmarks/{name}.json)") for figure, name in headline()]


def test_conditions_of_the_headlines_are_those_of_the_records():
    assert record("h100/decode")["figures"]["context_tokens"] == 8192
    assert record("h100/table")["figures"]["decode@b1.models"] == 60
    assert record("h200/compiled")["figures"]["context_tokens"] == 8192
    assert len(faster()) == 10
    ranks = record("h200/ranks")["figures"]
    assert ranks["weight_normalization"] is True
    assert round(ranks["long_tokens"] / ranks["short_tokens"]) == 10
    search = record("h200/search")["figures"]
    assert search["workers"] == 2
    assert round(search["guided.search_s"] / 60) == 10


def short(count: float) -> str:
    return f"{count / 1e6:.3g}M" if count >= 1e6 else f"{count / 1e3:.3g}k"


def test_the_first_frontier_is_that_of_the_record():
    members = [sample for sample in record("cpu/quick")["samples"] if sample["frontier"]]
    assert rows(section(README, "Two commands")) == [
        [
            str(member["id"]),
            f"{member['metrics']['loss']:.3f}",
            f"{member['metrics']['decode_ms@b1']:.3f}",
            short(member["metrics"]["params"]),
            str(member["width"]),
            f"`{member['architecture']}`",
        ]
        for member in sorted(members, key=lambda member: member["metrics"]["loss"])
    ]


def test_it_is_a_first_page():
    assert len(README.splitlines()) <= 150

"""docs/results/: each page is what its template and the records give, and no figure comes from elsewhere."""

import json
from pathlib import Path

import pytest

from operators.base.errors import ConfigError
from search.benchmarks.pages import pages, write_pages

ROOT = Path(__file__).parent.parent.parent.parent


def test_every_page_is_what_the_records_give():
    stale = [page.path.name for page in pages(ROOT) if page.stale]
    assert not stale, (
        f"{', '.join(stale)}: written by hand or older than a record; run `frontrunner bench report`"
    )


def test_no_page_lacks_a_template():
    written = {path.name for path in (ROOT / "docs" / "results").glob("*.md")}
    assert written == {page.path.name for page in pages(ROOT)} | {"index.md"}


def test_every_record_is_cited_on_a_page():
    text = "".join(page.text for page in pages(ROOT))
    records = (ROOT / "results" / "benchmarks").glob("*/*.json")
    uncited = {
        f"{path.parent.name}/{path.stem}" for path in records if f"{path.parent.name}/{path.name}" not in text
    }
    assert uncited == {
        "h100/tuning.tuned"
    }  # not a record, but the table of kernels that `bench tuning` writes beside its own


@pytest.fixture
def checkout(tmp_path):
    """A checkout with one record and one template."""
    records = tmp_path / "results" / "benchmarks"
    (records / "pages").mkdir(parents=True)
    (records / "cpu").mkdir()
    record = {
        "figures": {"decode_ms": 1.2345},
        "samples": [],
        "device": {"name": "a CPU"},
        "started": "2026-11-05T10:00:00+00:00",
        "command": "frontrunner bench x --out there.json",
    }
    (records / "cpu" / "x.json").write_text(json.dumps(record))
    (records / "pages" / "x.md").write_text(
        '{{ f("cpu/x")["decode_ms"] | fixed(2) }} ms\n{{ cite("cpu/x") }}\n'
    )
    return tmp_path


def test_a_page_takes_its_figures_from_the_record_and_cites_it(checkout):
    assert [path.name for path in write_pages(checkout)] == ["x.md"]
    written = (checkout / "docs" / "results" / "x.md").read_text()
    assert written == (
        "1.23 ms\nRecord: [cpu/x.json](../records/cpu/x.json), a CPU, 5 November 2026, "
        "`frontrunner bench x`.\n"
    )
    assert write_pages(checkout) == []


def test_a_record_that_several_commands_made_names_each(checkout):
    record = checkout / "results" / "benchmarks" / "cpu" / "x.json"
    record.write_text(
        record.read_text().replace("bench x --out there.json", "search y; frontrunner promote y")
    )
    (page,) = pages(checkout)
    assert page.text.endswith(", 5 November 2026, `frontrunner search y` and `frontrunner promote y`.\n")


def test_a_changed_record_makes_its_page_stale(checkout):
    write_pages(checkout)
    record = checkout / "results" / "benchmarks" / "cpu" / "x.json"
    record.write_text(record.read_text().replace("1.2345", "2.5"))
    (page,) = pages(checkout)
    assert page.stale
    assert page.text.startswith("2.50 ms")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ('{{ f("cpu/y") }}', "cpu/y.json: not a record"),
        ('{{ f("cpu/x")["absent"] | fixed }}', "cpu/x.json: figures has no absent"),
        ("{% for %}", "x.md, line 1"),
    ],
)
def test_what_no_record_has_is_one_line(checkout, template, message):
    (checkout / "results" / "benchmarks" / "pages" / "x.md").write_text(template)
    with pytest.raises(ConfigError, match=message) as raised:
        pages(checkout)
    assert "\n" not in str(raised.value)

"""`frontrunner bench`: lists benchmarks, runs one and writes its record, or makes the pages of results."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from operators.base.errors import ConfigError
from search.cli.options import AsJson, print_json

console = Console(highlight=False)
REPORT = "report"  # it stands where a benchmark's name does, so no benchmark may have this name


def bench(
    name: Annotated[
        str | None,
        typer.Argument(
            help=f"Name of a benchmark, or `{REPORT}` to make docs/results/ from the records.",
            show_default="list all",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Device to use: cpu or cuda:N. With cuda, studies train on every GPU.", show_default="cpu"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File for the record.", show_default="results/benchmarks/DEVICE/NAME.json"),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help=f"With `{REPORT}`: write nothing, and fail if a page is stale.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a benchmark and write its record. Without a name, list all benchmarks."""
    measures = name not in (None, REPORT)
    for option, given, fits in (
        ("--device", device is not None, measures),
        ("--out", out is not None, measures),
        ("--check", check, name == REPORT),
        ("--json", as_json, name is None),
    ):
        if given and not fits:
            expected = {"--check": f"`{REPORT}`", "--json": "no name"}.get(option, "the name of a benchmark")
            raise ConfigError(f"bench {option}: expected {expected} before it, got {name or 'none'}")
    if name is None:
        _list(as_json=as_json)
    elif name == REPORT:
        _report(check=check)
    else:
        from search.benchmarks.registry import measure_and_write

        path = measure_and_write(name, device=device or "cpu", out=out, console=console)
        console.print(f"record: {path}", soft_wrap=True)


def _list(*, as_json: bool) -> None:
    from search.benchmarks import registry

    if as_json:
        listed = map(registry.get, registry.names())
        print_json([{"name": one.name, "summary": one.summary, "gpu": one.gpu} for one in listed])
        return
    width = max(map(len, registry.names())) + 2
    for benchmark in map(registry.get, registry.names()):
        needs = [*(["a GPU"] if benchmark.gpu else []), *dict.fromkeys(benchmark.needs.values())]
        behind = f" (needs {', '.join(needs)})" if needs else ""
        # Rich would read the brackets of a package's extra, as in `frontrunner[gpu]`, as a style.
        console.print(f"{benchmark.name:<{width}}{benchmark.summary}{behind}", markup=False, soft_wrap=True)


def _report(*, check: bool) -> None:
    """Writes the pages of results. With `check` it writes nothing and raises ConfigError for a stale page."""
    from search.benchmarks.pages import PAGES, pages, write_pages

    if check:
        if stale := [str(page.path) for page in pages() if page.stale]:
            raise ConfigError(
                f"{', '.join(stale)}: not what the records give; `frontrunner bench {REPORT}` writes them"
            )
        console.print(f"{PAGES}: every page agrees with the records")
        return
    changed = write_pages()
    for path in changed:
        console.print(f"written: {path}", soft_wrap=True)
    if not changed:
        console.print(f"{PAGES}: every page agrees with the records; nothing was written")

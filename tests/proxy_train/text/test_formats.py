"""Every format and compression against known documents; every kind of damage is one line."""

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from operators.base.errors import DataError
from proxy_train.text.documents import Blanks, read_documents
from proxy_train.text.formats import COMPRESSIONS, FORMATS, kind_of

TEXTS = ['one\r\n"quoted", with a comma\tand a tab', "naïve 🦅 \u2028 text", "the last"]


def compressed(codec: str) -> Callable[[bytes], bytes]:
    def compress(raw: bytes) -> bytes:
        arrow = pytest.importorskip("pyarrow")
        sink = arrow.BufferOutputStream()
        with arrow.CompressedOutputStream(sink, codec) as stream:
            stream.write(raw)
        return bytes(sink.getvalue())

    return compress


COMPRESS = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": compressed("zstd"),
    ".lz4": compressed("lz4"),
}


def separated(delimiter: str) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter).writerows(
        [["n", "text"], *([str(n), text] for n, text in enumerate(TEXTS))]
    )
    return out.getvalue().encode()


def columns(kind: str) -> bytes:
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    table, sink = arrow.table({"n": [1, 2, 3], "text": TEXTS}), arrow.BufferOutputStream()
    if kind == "parquet":
        pyarrow.parquet.write_table(table, sink)
    else:
        with (arrow.ipc.new_stream if kind == "stream" else arrow.ipc.new_file)(sink, table.schema) as writer:
            writer.write_table(table)
    return bytes(sink.getvalue())


def records() -> list[dict[str, object]]:
    return [{"n": 1, "text": text} for text in TEXTS]


def json_lines() -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records()).encode()


WRITTEN: dict[str, Callable[[], bytes]] = {
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".json": lambda: json.dumps(records(), indent=2).encode(),
    ".csv": lambda: separated(","),
    ".tsv": lambda: separated("\t"),
    ".parquet": lambda: columns("parquet"),
    ".arrow": lambda: columns("stream"),
}


def put(path: Path, raw: bytes) -> Path:
    path.write_bytes(raw)
    return path


def read(path: Path) -> list[str]:
    return list(read_documents(str(path)))


def test_the_table_is_complete() -> None:
    assert set(WRITTEN) | {".txt", ".text"} == set(FORMATS)
    assert set(COMPRESS) - {""} == set(COMPRESSIONS)


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("ending", WRITTEN)
def test_each_format_in_each_compression_is_the_same_documents(
    tmp_path: Path, ending: str, compression: str
) -> None:
    path = put(tmp_path / f"a{ending}{compression}".upper(), COMPRESS[compression](WRITTEN[ending]()))
    assert read(path) == TEXTS


@pytest.mark.parametrize("compression", list(COMPRESS)[1:])
def test_compressed_streams_in_a_row_are_one_and_damage_is_an_error(tmp_path: Path, compression: str) -> None:
    one = COMPRESS[compression](json_lines())
    path = tmp_path / f"a.jsonl{compression}"
    assert read(put(path, one + one)) == TEXTS * 2
    damaged = {
        "cut": one[:-1],
        "second cut": one + one[:-1],
        "second damaged": one + b"damage" + one[6:],
        "other": json_lines(),
    }
    for name, raw in damaged.items():
        with pytest.raises(DataError, match="cannot be read") as error:
            read(put(path, raw))
        assert "\n" not in str(error.value), name


@pytest.mark.parametrize(
    ("name", "raw", "documents"),
    [
        ("a.json", b'{"text": "x"}\n{"text": "y"}', ["x", "y"]),
        ("a.json", b'\n\n  {"text":\n "x"}\n', ["x"]),
        ("a.json", b'["x", "y"]', ["x", "y"]),
        ("a.json", b'\xef\xbb\xbf[{"text": "x"}]', ["x"]),
        ("a.jsonl", b'\xef\xbb\xbf{"text": "x"}\r\n\r\n{"text": "y"}', ["x", "y"]),
        ("a.txt", b"\xef\xbb\xbfx\r\ny", ["x\r\ny"]),
        ("a.csv", b'\xef\xbb\xbftext,n\r\n"x\r\ny",1\r\n\r\nz,2', ["x\r\ny", "z"]),
        ("a.csv", b'text\n"x ""y"""\n"%s"\n' % (b"z" * 200_000), ['x "y"', "z" * 200_000]),
        ("a.csv", b"text\n12\n3.50\n", ["12", "3.50"]),
        ("a.tsv", b"id\ttext\n1\tx, y\n", ["x, y"]),
        ("a.jsonl", b'{"text": "a\\u0000b"}', ["a\0b"]),
    ],
)
def test_what_the_formats_allow_is_read(tmp_path: Path, name: str, raw: bytes, documents: list[str]) -> None:
    assert read(put(tmp_path / name, raw)) == documents


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        (
            "a.json",
            b'{"data": [{"text": "x"}]}',
            r'a\.json line 1: expected an object whose "text" is a string',
        ),
        ("a.json", b'{\n"n": 1}', r'a\.json: expected an object whose "text" is a string, got \{"n": 1\}'),
        (
            "a.json",
            b'[{"text": "x"}, {"text": 3}]',
            r'a\.json item 2: expected an object whose "text" is a string',
        ),
        ("a.json", b'[{"text": "x"}', r"a\.json: not JSON"),
        ("a.json", b'{"text": "x"}\n{"text": "y', r"a\.json line 2: not JSON"),
        (
            "a.jsonl",
            b'{"text": "x"}\n{"text": null}\n',
            r'a\.jsonl line 2: expected .* "text" is a string, got \{"text": null\}',
        ),
        ("a.jsonl", b'{"text": "x"}\n{"text": "cut', r"a\.jsonl line 2: not JSON"),
        ("a.jsonl", b'{"text": "x", "text": "y"}', r'a\.jsonl line 1: expected "text" once, got it 2 times'),
        ("a.json", b'[{"text": "x", "text": "y"}]', r'a\.json: expected "text" once, got it 2 times'),
        ("a.jsonl", b'{"text": "x\x00"}\n', r"a\.jsonl line 1: not JSON"),
        ("a.jsonl", '{"text": "x"}\n'.encode("utf-16"), r"a\.jsonl: is UTF-16 text: expected UTF-8; `iconv"),
        ("a.txt", "x".encode("utf-16"), r"a\.txt: is UTF-16 text"),
        ("a.txt", "x".encode("utf-32"), r"a\.txt: is UTF-32 text"),
        ("a.csv", "text\nx\n".encode("utf-16-le"), r"a\.csv line 1: expected UTF-8 text, got byte 0x00"),
        (
            "a.jsonl",
            gzip.compress(json_lines()),
            r"a\.jsonl: is compressed by gzip: expected a name that ends in \.gz",
        ),
        ("a.csv", bz2.compress(b"text\n"), r"a\.csv: is compressed by bzip2"),
        ("a.jsonl.gz", gzip.compress(gzip.compress(json_lines())), r"a\.jsonl\.gz: is compressed by gzip"),
        ("a.txt", b"PK\x03\x04", r"a\.txt: is a zip archive"),
        (
            "a.txt",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            r"a\.txt: is a Git LFS pointer.*git lfs pull",
        ),
        (
            "a.parquet",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            r"a\.parquet: is a Git LFS pointer",
        ),
        (
            "a.csv",
            b"body,n\nx,1\n",
            r'a\.csv: expected a column "text", got body, n; data\.text_column names another',
        ),
        ("a.csv", b"text,text\nx,y\n", r'a\.csv: expected one column "text", got 2'),
        ("a.csv", b"text;n\nx;1\n", r'a\.csv: expected a column "text", got text;n'),
        (
            "a.csv",
            b"text,n\nx,1\nno, quotes,2\n",
            r"a\.csv line 3: expected 2 fields as in the first line, got 3",
        ),
        ("a.csv", b'text\n"never closed\nx\n', r"a\.csv line 3: not csv: unexpected end of data"),
        ("a.csv", b'text\n"x" y\n', r"a\.csv line 2: not csv"),
        ("a.csv", b"text\ncaf\xe9\n", r"a\.csv line 2: expected UTF-8 text, got byte 0xe9 at offset 3"),
        ("a.csv", b"text\rx\ry\r", r"a\.csv line \d: not csv"),
        ("a.csv", b"text\nx\0y\n", r"a\.csv line 2: expected UTF-8 text, got byte 0x00 at offset 1"),
    ],
)
def test_what_is_not_text_names_the_file_and_the_place(
    tmp_path: Path, name: str, raw: bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message) as error:
        read(put(tmp_path / name, raw))
    assert "\n" not in str(error.value)


def test_columns_that_are_not_one_of_strings_are_refused(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    path = tmp_path / "a.parquet"
    twice = arrow.Table.from_arrays([arrow.array(["x"]), arrow.array(["y"])], names=["text", "text"])
    tables = [
        (twice, 'expected one column "text", got 2'),
        (arrow.table({"text": arrow.nulls(2)}), 'row 1: expected a string in the column "text", got None'),
        (arrow.table({"text": [b"x"]}), "row 1: expected a string"),
        (arrow.table({"text": [["x"]]}), "row 1: expected a string"),
        (arrow.table({"n": [1]}), 'expected a column "text", got n'),
    ]
    for table, message in tables:
        pyarrow.parquet.write_table(table, path)
        with pytest.raises(DataError, match=message):
            read(path)
    pyarrow.parquet.write_table(arrow.table({"text": arrow.array(["x", "y", "x"]).dictionary_encode()}), path)
    assert read(path) == ["x", "y", "x"]


def test_files_and_rows_without_text_are_passed_over_and_counted(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    table = arrow.table({"text": ["x", "", " \n", "y"]})
    pyarrow.parquet.write_table(table, tmp_path / "part-00000.parquet")
    pyarrow.parquet.write_table(table.slice(0, 0), tmp_path / "part-00001.parquet")
    pyarrow.parquet.write_table(arrow.table({}), tmp_path / "part-00002.parquet")
    put(tmp_path / "a.jsonl", b'{"text": "z"}\n{"text": " "}\n')
    put(tmp_path / "b.csv", b"text\n")
    put(tmp_path / "c.jsonl.gz", gzip.compress(b""))
    put(tmp_path / "d.json", b"[]")
    put(tmp_path / "e.txt", b"")
    blanks = Blanks()
    with pytest.raises(DataError, match=r'part-00002\.parquet: expected a column "text", got none'):
        read(tmp_path)
    (tmp_path / "part-00002.parquet").unlink()
    assert list(read_documents(str(tmp_path), blanks=blanks)) == ["z", "x", "y"]
    assert (blanks.documents, blanks.files) == (3, ["b.csv", "c.jsonl.gz", "d.json", "part-00001.parquet"])


@pytest.mark.parametrize("name", ["jsonl", ".jsonl", "a.gz", "a.jsonl.gz.gz", "a.jsonl.part", "a.pdf", "txt"])
def test_other_names_are_of_no_kind(name: str) -> None:
    assert kind_of(name) is None

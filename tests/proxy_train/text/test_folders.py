"""Folders as on real disks: we count by hand what is read, and the rest is named with its reason."""

import bz2
import gzip
import json
import os
import stat
from pathlib import Path

import pytest

from operators.base.errors import DataError
from proxy_train.text import folders as folders_module
from proxy_train.text.documents import list_source, read_documents
from proxy_train.text.file_names import ABOUT, HIDDEN, UNFINISHED, held_out, not_anybodys_text
from proxy_train.text.folders import AGAIN, HELD_OUT, MISSING, NO_FILE, OTHER_ENDING
from proxy_train.text.source_record import leaves_out


def lines(count: int, tag: str = "d") -> bytes:
    return "".join(json.dumps({"text": f"{tag} {number}"}) + "\n" for number in range(count)).encode()


def put(path: Path, content: bytes = b"some text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def read(*sources: Path) -> list[str]:
    return list(read_documents([str(source) for source in sources]))


def not_read(*sources: Path) -> dict[str, tuple[str, ...]]:
    record = list_source([str(source) for source in sources]).record
    return {why: names.first for why, names in record.not_read.items()}


def test_links_to_folders_and_files_are_followed_and_nothing_is_read_twice(tmp_path: Path) -> None:
    put(tmp_path / "store" / "deep" / "big.jsonl", lines(50, "b"))
    text = tmp_path / "text"
    put(text / "own.jsonl", lines(5, "o"))
    (text / "wiki").symlink_to(tmp_path / "store")
    assert len(read(text)) == 55
    (text / "a-first").symlink_to(tmp_path / "store" / "deep")  # a second path to the same folder
    (text / "again.jsonl").symlink_to("own.jsonl")
    os.link(text / "own.jsonl", text / "hard.jsonl")
    assert len(read(text)) == 55
    listing = list_source(str(text))
    assert listing.record.not_read[AGAIN].count == 3
    assert {path.name for path in listing.files} == {"hard.jsonl", "big.jsonl"}
    assert listing.record.files == {".jsonl": 2}


def test_a_file_in_the_folder_has_its_own_path_and_not_that_of_a_link_to_it(tmp_path: Path) -> None:
    put(tmp_path / "z" / "own.jsonl", lines(1))
    (tmp_path / "a").symlink_to("z")
    (tmp_path / "b.jsonl").symlink_to("z/own.jsonl")
    assert [str(path.relative_to(tmp_path)) for path in list_source(str(tmp_path)).files] == ["z/own.jsonl"]


def test_what_several_sources_name_is_read_as_often_and_said(tmp_path: Path) -> None:
    own = put(tmp_path / "own.jsonl", lines(3))
    assert len(read(tmp_path, own, tmp_path)) == 9
    assert list_source([str(tmp_path), str(own)]).record.repeated_files.first == (str(own),)
    assert not list_source(str(tmp_path)).record.repeated_files.count


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere.jsonl", r"x\.jsonl: cannot be read: a link to nowhere\.jsonl: No such file"),
        ("x.jsonl", r"x\.jsonl: cannot be read: a link to x\.jsonl: Too many levels of symbolic links"),
        (".", r"x\.jsonl: a link to a folder that it lies in"),
        ("..", r"a link to a folder that it lies in"),
    ],
)
def test_links_to_nowhere_and_in_circles_are_errors(tmp_path: Path, target: str, message: str) -> None:
    put(tmp_path / "text" / "own.jsonl", lines(3))
    (tmp_path / "text" / "x.jsonl").symlink_to(target)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "text")


def test_a_link_that_leads_nowhere_is_an_error_as_the_source_itself(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").symlink_to("gone.jsonl")
    with pytest.raises(DataError, match=r"x\.jsonl: cannot be read: a link to gone\.jsonl"):
        read(tmp_path / "x.jsonl")


def test_a_folder_that_may_not_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "own.jsonl", lines(3))
    closed, listdir = tmp_path / "closed", os.listdir
    closed.mkdir()

    def refusing(folder: Path) -> list[str]:  # the tests may run as root, who may read everything
        if folder == closed:
            raise PermissionError(13, "Permission denied")
        return listdir(folder)

    monkeypatch.setattr(folders_module.os, "listdir", refusing)
    with pytest.raises(DataError, match=r"closed: cannot be read: Permission denied"):
        read(tmp_path)


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    put(tmp_path / "own.jsonl", lines(3))
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert stat.S_ISFIFO((tmp_path / "pipe.jsonl").stat().st_mode)
    assert len(read(tmp_path)) == 3
    assert not_read(tmp_path) == {NO_FILE: ("pipe.jsonl",)}
    with pytest.raises(DataError, match="expected a file or folder, got something else"):
        read(tmp_path / "pipe.jsonl")


JUNK = {
    HIDDEN: [
        ".DS_Store",
        ".git/",
        ".hidden.jsonl",
        "__MACOSX/",
        "_delta_log/",
        "_SUCCESS",
        "_metadata",
        ".part-0.parquet.crc",
        "own.jsonl~",
        "~$own.jsonl",
        "#own.jsonl#",
        "own.jsonl.bak",
        "Thumbs.db",
        "own.jsonl.lock",
        "cache-0123456789abcdef.arrow",
        ".ipynb_checkpoints/",
    ],
    UNFINISHED: ["a.jsonl.part", "b.parquet.incomplete", "c.jsonl.gz.crdownload", "d.jsonl.tmp"],
    ABOUT: [
        "README.md",
        "readme.txt",
        "README_zh.md",
        "LICENSE",
        "LICENSE-2.0.txt",
        "requirements.txt",
        "SHA256SUMS.txt",
        "dataset_info.json",
        "dataset_infos.json",
        "tokenizer.json",
        "vocab.txt",
        "corpus.stats.json",
    ],
    OTHER_ENDING: ["train.bin", "own.idx", "notes.md", "part-00000", "picture.PNG"],
}


def test_what_is_nobodys_text_is_passed_over_and_named(tmp_path: Path) -> None:
    put(tmp_path / "own.jsonl", lines(3))
    for names in JUNK.values():
        for name in names:
            put(tmp_path / name / "x.jsonl" if name.endswith("/") else tmp_path / name, b"not text\xff")
    (tmp_path / ".#own.jsonl").symlink_to("user@host.1234:5678")  # a lock of Emacs
    assert len(read(tmp_path)) == 3
    record = list_source(str(tmp_path)).record
    assert record.files == {".jsonl": 1}
    assert {why: found.count for why, found in record.not_read.items()} == {
        HIDDEN: 16 + 1,
        UNFINISHED: 4,
        ABOUT: 12,
        OTHER_ENDING: 5,
    }
    assert record.not_read[OTHER_ENDING].first == (
        "notes.md",
        "own.idx",
        "part-00000",
        "picture.PNG",
        "train.bin",
    )
    assert len(record.not_read[HIDDEN].first) == 10
    assert leaves_out(record.not_read).count("and 7 more") == 1


@pytest.mark.parametrize(
    "name",
    [
        "changes-in-weather.txt",
        "license-plates.txt",
        "notice-of-intent.txt",
        "information.json",
        "states.json",
        "_a.txt",
        "my.tmp.txt",
    ],
)
def test_texts_with_telling_names_are_texts(name: str) -> None:
    assert not_anybodys_text(name) is None


def test_names_of_any_bytes_are_one_line(tmp_path: Path) -> None:
    put(tmp_path / "own.jsonl", lines(3))
    put(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\n.png")))
    record = list_source(str(tmp_path)).record
    assert record.not_read[OTHER_ENDING].first == (
        "caf\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}.png",
    )
    assert record.model_validate_json(record.model_dump_json()) == record


def test_every_ending_in_any_case_and_compression_is_read(tmp_path: Path) -> None:
    put(tmp_path / "a.jsonl", lines(10))
    put(tmp_path / "c4-train.00000-of-01024.json.gz", gzip.compress(lines(100)))
    put(tmp_path / "b.jsonl.bz2", bz2.compress(lines(100)))
    put(tmp_path / "C.JSONL", lines(100))
    put(tmp_path / "d.json", lines(100))
    put(tmp_path / "e.ndjson", lines(100))
    put(tmp_path / "f.Txt.GZ", gzip.compress(b"some text"))
    put(tmp_path / "g.csv", b"text\nhello\n")
    assert len(read(tmp_path)) == 512
    assert list_source(str(tmp_path)).record.files == {
        ".csv": 1,
        ".json": 1,
        ".json.gz": 1,
        ".jsonl": 2,
        ".jsonl.bz2": 1,
        ".ndjson": 1,
        ".txt.gz": 1,
    }


def test_missing_files_of_a_numbered_text_are_named(tmp_path: Path) -> None:
    for number in (0, 2):
        put(tmp_path / f"train-{number:05}-of-00004-{number:016x}.jsonl", lines(1))
    for number in (1, 2, 3):
        put(tmp_path / f"book-{number}-of-3.txt")
    assert not_read(tmp_path) == {MISSING: ("train-00001-of-00004.jsonl", "train-00003-of-00004.jsonl")}


@pytest.mark.parametrize(
    ("names", "held"),
    [
        (
            ["train-00000-of-00001.jsonl", "validation-00000-of-00001.jsonl", "test-00000-of-00001.jsonl"],
            {1, 2},
        ),
        (["c4-train.00000-of-00002.json.gz", "c4-validation.00000-of-00001.json.gz"], {1}),
        (["my_train_file.csv", "test-file.csv", "validation1.csv"], {1, 2}),
        (["Train.jsonl", "DEV.jsonl", "Eval.jsonl"], {1, 2}),
        (["corpus.jsonl", "corpus_test.jsonl"], {1}),
        (["wiki.train.txt", "wiki.valid.txt", "wiki.test.txt", "essay.txt"], {1, 2}),
        (["train.txt"], set()),
        (["training-notes.txt", "driving-test.txt", "latest.txt", "development.txt"], set()),
        (["contest.jsonl", "latest.jsonl", "evaluations.jsonl", "devs.jsonl", "testament.parquet"], set()),
        (["essay.txt", "test.txt", "val-00001.txt", "valid_2.txt"], {1, 2, 3}),
        (["train_test_all.jsonl"], set()),
    ],
)
def test_held_out_files_are_known_by_their_names(names: list[str], held: set[int]) -> None:
    assert held_out(names, folders=False)[1] == {names[index] for index in held}


@pytest.mark.parametrize(
    ("names", "held"),
    [
        (["train", "validation", "test"], {1, 2}),
        (["split=train", "split=test"], {1}),
        (["wiki-train", "wiki-test", "driving-test"], {1}),
        (["driving-test", "texts", "developers"], set()),
    ],
)
def test_held_out_folders_are_known_by_their_names(names: list[str], held: set[int]) -> None:
    assert held_out(names, folders=True)[1] == {names[index] for index in held}


def test_of_a_data_repository_the_training_text_is_read(tmp_path: Path) -> None:
    put(tmp_path / "README.md", b"---\nconfigs:\n- config_name: default\n  data_files: data/*\n---\n# words")
    put(tmp_path / ".gitattributes")
    for split, count in (("train", 50), ("validation", 5), ("test", 5)):
        put(tmp_path / "data" / f"{split}-00000-of-00001.jsonl", lines(count, split))
    assert read(tmp_path) == [f"train {number}" for number in range(50)]
    assert not_read(tmp_path)[HELD_OUT] == (
        "data/test-00000-of-00001.jsonl",
        "data/validation-00000-of-00001.jsonl",
    )
    own = put(tmp_path / "own" / "own.jsonl", lines(2))
    assert len(read(tmp_path)) == 52
    assert len(read(own, tmp_path / "data" / "test-00000-of-00001.jsonl")) == 2 + 5


def test_of_folders_of_splits_the_training_text_is_read(tmp_path: Path) -> None:
    for split, count in (("train", 7), ("dev", 2), ("test", 2)):
        put(tmp_path / split / "deep" / "0.jsonl", lines(count, split))
    assert read(tmp_path) == [f"train {number}" for number in range(7)]
    assert not_read(tmp_path) == {HELD_OUT: ("dev/", "test/")}
    assert len(read(tmp_path / "dev")) == 2


def test_a_folder_of_nothing_but_held_out_text_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "validation.jsonl", lines(2))
    put(tmp_path / "test" / "0.jsonl", lines(2))
    with pytest.raises(
        DataError, match=r"expected training text, found none in it beside 2 .*\(test/, validation\.jsonl\)"
    ):
        read(tmp_path)
    assert len(read(tmp_path / "validation.jsonl")) == 2


def test_several_texts_with_splits_are_refused_unless_each_is_named(tmp_path: Path) -> None:
    both = [tmp_path / "w" / name for name in ("wikitext-103-raw-v1", "wikitext-2-raw-v1")]
    for folder in both:
        for split in ("train", "test"):
            put(folder / f"{split}-00000-of-00001.jsonl", lines(4, f"{folder.name} {split}"))
    with pytest.raises(DataError, match=rf"w: 2 folders in it .* out of {both[0]}, {both[1]}") as error:
        read(tmp_path / "w")
    assert "\n" not in str(error.value)
    assert len(read(*both)) == 8


def test_configurations_that_a_readme_names_are_refused(tmp_path: Path) -> None:
    head = (
        "---\nlicense: mit\nconfigs:\n- config_name: en\n"
        "  data_files:\n  - split: train\n    path: data/en-*\n"
        "- config_name: de\n  data_files:\n  - split: train\n    path: [data/de-*]\n---\n"
    )
    put(tmp_path / "README.md", head.encode())
    put(tmp_path / "data" / "en-0.jsonl", lines(3))
    assert len(read(tmp_path)) == 3  # the other configuration was not downloaded
    put(tmp_path / "data" / "de-0.jsonl", lines(3))
    with pytest.raises(
        DataError, match=r"2 configurations, by its README\.md: .* de \(data/de-0\.jsonl\), en \(data/en-0"
    ):
        read(tmp_path)
    for harmless in ("# Notes", "---\nconfigs: 3\n---\n", "---\n- : : {\n---\n", "---\nno end"):
        put(tmp_path / "README.md", harmless.encode())
        assert len(read(tmp_path)) == 6


def test_the_cache_of_the_hub_is_read_through_its_snapshot(tmp_path: Path) -> None:
    put(tmp_path / "refs" / "main", b"abc")
    put(tmp_path / "blobs" / "0123", lines(3))
    (tmp_path / "snapshots" / "abc").mkdir(parents=True)
    (tmp_path / "snapshots" / "abc" / "train.jsonl").symlink_to("../../blobs/0123")
    assert len(read(tmp_path)) == 3
    assert not_read(tmp_path) == {HIDDEN: ("blobs/", "refs/")}
    put(tmp_path / "snapshots" / "def" / "train.jsonl", lines(4))
    with pytest.raises(DataError, match=r"2 versions of one repository: expected one of .*abc, .*def"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shard-0.tar", r"shard-0\.tar: an archive, which is not read: unpack it"),
        ("deep/texts.ZIP", r"texts\.ZIP: an archive"),
        ("texts.tar.gz", r"texts\.tar\.gz: an archive"),
        ("own.jsonl.gz", r"own\.jsonl: its name differs from own\.jsonl\.gz beside it"),
        ("own.jsonl.aria2", r"own\.jsonl: its download is not finished"),
    ],
)
def test_what_may_hold_the_same_or_other_text_is_refused(tmp_path: Path, name: str, message: str) -> None:
    put(tmp_path / "own.jsonl", lines(3))
    put(tmp_path / name)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_an_archive_as_the_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.tar\.gz: an archive, which is not read: unpack it"):
        read(put(tmp_path / "x.tar.gz"))


def test_folders_named_like_files_are_folders(tmp_path: Path) -> None:
    put(tmp_path / "out.jsonl" / "part-00000.jsonl", lines(4))
    put(tmp_path / "out.jsonl" / "part-00001.jsonl", b"")
    put(tmp_path / "out.jsonl" / "_SUCCESS", b"")
    assert len(read(tmp_path)) == len(read(tmp_path / "out.jsonl")) == 4
    record = list_source(str(tmp_path)).record
    assert record.empty_files.first == ("out.jsonl/part-00001.jsonl",)


def test_a_source_without_any_text_is_an_error(tmp_path: Path) -> None:
    put(tmp_path / "a.jsonl", b"")
    put(tmp_path / "b.jsonl", b"\n\n")
    put(tmp_path / "c.txt", b" \n")
    with pytest.raises(DataError, match=r"expected text, all 3 files of it are empty"):
        read(tmp_path)
    with pytest.raises(DataError, match=r"expected text, all 6 files"):
        read(tmp_path, tmp_path)
    put(tmp_path / "c.txt", b" \nx")
    assert read(tmp_path) == [" \nx"]

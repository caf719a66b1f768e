"""`frontrunner data` as a user meets it."""

import hashlib
import json
import shutil
from pathlib import Path
from unittest.mock import ANY, Mock

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from proxy_train.text.data_settings import DataSettings
from proxy_train.text.tokenizer import train_tokenizer
from search.config.run import RunConfig
from tests.fixtures import Call


def test_a_run_file_is_prepared_and_told_about(call: Call, config: Path, text_folder: Path) -> None:
    code, out, err = call("data", "info", config)
    assert (code, out) == (1, "")
    assert (
        err
        == f"error: {config}: its text is not prepared yet; `frontrunner data prepare {config}` prepares it\n"
    )
    code, out, err = call("data", "prepare", config)
    assert code == 0
    assert "vocabulary                 300\n" in out
    assert "validation_unknown_tokens  0\n" in out
    assert "encoding: 1 of 8 documents" in err
    found = json.loads(call("data", "info", config, "--json")[1])
    assert found["train_documents"] + found["validation_documents"] == 8
    size = sum(path.stat().st_size for path in text_folder.iterdir())
    assert found["train_bytes"] + found["validation_bytes"] == size
    assert found["bytes_per_token"] == pytest.approx(
        size / (found["train_tokens"] + found["validation_tokens"]), abs=1e-4
    )
    files = [path for path in Path(found["folder"]).iterdir() if path.name != "manifest.json"]
    assert found["disk_bytes"] == sum(path.stat().st_size for path in files)
    assert call("data", "info", found["folder"], "--json")[1] == json.dumps(found, indent=1) + "\n"


def test_what_lies_beside_the_text_now_is_told_and_not_what_lay_there_before(
    call: Call, config: Path, text_folder: Path, tmp_path: Path
) -> None:
    own = shutil.copytree(text_folder, tmp_path / "texts")
    config.write_text(config.read_text().replace(str(text_folder), str(own)))
    assert "files_not_read             none\n" in call("data", "prepare", config)[1]
    (own / "notes.md").write_text("added later")
    expected = "1 with an ending that is not read (notes.md)"
    assert f"files_not_read             {expected}\n" in call("data", "prepare", config)[1]
    assert json.loads(call("data", "info", config, "--json")[1])["files_not_read"] == expected


def test_unknown_tokens_of_the_validation_text_are_counted(
    call: Call, tmp_path: Path, tiny_config: RunConfig
) -> None:
    words = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "known": 2}, unk_token="<unk>"))  # noqa: S106
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.add_special_tokens(["</s>"])
    words.save(str(tmp_path / "words.json"))
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": f"known new{n} known"}) + "\n" for n in range(40)))
    config = tmp_path / "words.yaml"
    data = DataSettings(
        source=str(text), tokenizer=str(tmp_path / "words.json"), end_of_document="</s>", vocabulary=300
    )
    config.write_text(tiny_config.model_copy(update={"data": data}).to_yaml())
    assert call("data", "prepare", config)[0] == 0
    found = json.loads(call("data", "info", config, "--json")[1])
    unknown, tokens = found["validation_unknown_tokens"], found["validation_tokens"]
    assert unknown * 4 == tokens > 0  # of `known new3 known </s>`


def test_a_search_finds_what_was_prepared(call: Call, config: Path) -> None:
    call("data", "prepare", config)
    folder = Path(json.loads(call("data", "info", config, "--json")[1])["folder"])
    before = (folder / "manifest.json").stat().st_mtime_ns
    assert (
        call("train", "tiny-hybrid", "--config", config)[0] == 1
    )  # of another vocabulary: said after the text is prepared
    assert [path for path in folder.parent.glob("tokens-*") if path.is_dir()] == [folder]
    assert (folder / "manifest.json").stat().st_mtime_ns == before


def test_sources_and_options_take_the_place_of_a_run_file(
    call: Call, config: Path, text_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "more.jsonl").write_text('{"body": "one"}\n{"body": "two"}\n')
    (tmp_path / "other.jsonl").write_text('{"body": "three"}\n')
    assert (
        "train_documents            2\n"
        in call("data", "prepare", "more.jsonl", "other.jsonl", "--text-column", "body")[1]
    )
    tokenizer = train_tokenizer([path.read_text() for path in text_folder.iterdir()], 280)
    (tmp_path / "own.json").write_text(tokenizer.to_str())
    out = call("data", "prepare", text_folder, "--tokenizer", "own.json")[1]
    assert "vocabulary                 280\n" in out  # the tokenizer's
    assert "vocabulary                 310\n" in call("data", "prepare", config, "--vocabulary", "310")[1]
    code, _, err = call("data", "prepare", text_folder, "--tokenizer", "own.json", "--vocabulary", "270")
    assert (code, err) == (
        1,
        "error: vocabulary 270 is smaller than the tokenizer own.json: expected at least 280\n",
    )


def test_an_interrupt_says_that_the_same_command_goes_on(
    call: Call, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupted = Mock(side_effect=KeyboardInterrupt)
        patch.setattr("proxy_train.text.prepare.write_shards", interrupted)
        assert call("data", "prepare", config) == (130, "", ANY)
        assert interrupted.called
        assert call("data", "prepare", config)[2].endswith(
            "interrupted: the same command continues from here\n"
        )
    assert call("data", "prepare", config)[0] == 0


def test_verify_names_the_damaged_file(call: Call, config: Path) -> None:
    call("data", "prepare", config)
    folder = Path(json.loads(call("data", "info", config, "--json")[1])["folder"])
    assert call("data", "info", folder, "--verify")[0] == 0
    shard = folder / "train-00000.bin"
    shard.write_bytes(bytes(shard.stat().st_size))
    assert call("data", "info", folder)[0] == 0  # of the right size
    code, _, err = call("data", "info", folder, "--verify")
    assert code == 1
    assert err.startswith(f"error: {shard}: expected the SHA-256 ")
    assert err.endswith("; prepare the data again on this machine\n")
    shard.write_bytes(b"")
    assert "expected" in call("data", "info", folder)[2]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["prepare", "nowhere.txt"], "nowhere.txt: no such file or folder"),
        (["prepare", "nowhere.yaml"], "nowhere.yaml: cannot be read: No such file"),
        (
            ["prepare", "sotu", "--vocabulary", "3"],
            "vocabulary: expected at least 257, got 3",
        ),
        (["prepare", "sotu", "--tokenizer", "no.json"], "no.json: not a tokenizer.json"),
        (["info", "nowhere"], "manifest.json: cannot be read: No such file"),
    ],
)
def test_what_cannot_be_is_one_line(call: Call, arguments: list[str], says: str) -> None:
    code, out, err = call("data", *arguments)
    assert (code, out) == (1, "")
    assert says in err
    assert err.count("\n") == 1


def test_what_is_read_and_what_is_not_is_said_before_and_kept(call: Call, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "own.jsonl").write_text('{"text": "one document"}\n{"text": " "}\n{"text": "another one"}\n')
    (folder / "blank.txt").write_text(" \n")
    (folder / "empty.txt").write_text("")
    (folder / "test.jsonl").write_text('{"text": "held out"}\n')
    (folder / "notes.pdf").write_bytes(b"%PDF")
    (folder / "again.jsonl").symlink_to("own.jsonl")
    code, out, err = call("data", "prepare", folder, "--vocabulary", "300")
    assert code == 0
    said = err.splitlines()
    assert said[0] == "reads 2 files (1 .jsonl, 1 .txt)"
    assert said[1] == (
        "does not read 1 of validation or test text (test.jsonl); 1 reached a second time (again.jsonl); "
        "1 with an ending that is not read (notes.pdf)"
    )
    assert said[2] == "empty: empty.txt"
    assert said[3].startswith("reading: ")
    place = next(line.split()[1] for line in out.splitlines() if line.startswith("folder "))
    found = json.loads(call("data", "info", place, "--json")[1])
    assert found["files_read"] == "2 files (1 .jsonl, 1 .txt)"
    assert found["files_not_read"] == said[1].removeprefix("does not read ")
    assert found["empty_files"] == "2 empty.txt, blank.txt"
    assert found["blank_documents"] == 2
    assert found["train_documents"] + found["validation_documents"] == 2
    digest = found["digest"]
    (folder / ".DS_Store").write_text("")
    assert (
        f"digest                     {digest}\n" in call("data", "prepare", folder, "--vocabulary", "300")[1]
    )


def test_a_manifest_of_before_the_record_is_still_read(call: Call, config: Path) -> None:
    call("data", "prepare", config)
    found = json.loads(call("data", "info", config, "--json")[1])
    path = Path(found["folder"]) / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["read"]
    path.write_text(json.dumps(manifest, indent=2) + "\n")
    old = json.loads(call("data", "info", found["folder"], "--json")[1])
    assert old["digest"] == found["digest"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert "files_read" not in old

"""Sources of images: what is read from them, prepared once, resumed, and refused in one line."""

import importlib.util
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from operators.base.errors import DataError
from proxy_train.images import prepare
from proxy_train.images.image_corpus import ImageCorpus, open_images, shard_name
from proxy_train.images.image_settings import ImageSettings
from proxy_train.images.prepare import prepare_images
from tests.helpers.image_sources import (
    COLOURS,
    QUESTION,
    colours,
    picture,
    tokenizer_file,
    write_lines,
)

arrow = pytest.importorskip("pyarrow")
pytest.importorskip("PIL")

CELL = 8 * 8 * 3  # bytes of a prepared picture


def settings(source: Path | str | tuple[str, ...], **changes: Any) -> ImageSettings:
    given = source if isinstance(source, tuple) else str(source)
    return ImageSettings.model_validate({"source": given, "image_size": 8, **changes})


def made(source: Path | str | tuple[str, ...], folder: Path, **changes: Any) -> ImageCorpus:
    return prepare_images(settings(source, **changes), tokenizer_file(folder), cache=folder / "cache")


def texts(corpus: ImageCorpus, tokenizer: Path) -> dict[int, list[tuple[str, str]]]:
    """The questions and answers of every image, written out again."""
    reader = Tokenizer.from_file(str(tokenizer))
    out: dict[int, list[tuple[str, str]]] = {}
    for side in ("train", "validation"):
        examples = corpus.examples(side)
        for number, row in enumerate(examples.rows):
            question, answer = examples.tokens(number)
            assert answer[-1] == corpus.manifest.end
            words = reader.decode(question.tolist()), reader.decode(answer[:-1].tolist())
            out.setdefault(int(row[0]), []).append(words)
    return out


def test_a_folder_with_a_jsonl(tmp_path: Path) -> None:
    corpus = made(colours(tmp_path / "data"), tmp_path)
    manifest = corpus.manifest
    assert (manifest.images, manifest.train_examples, manifest.validation_examples) == (12, 11, 1)
    assert sorted(texts(corpus, tmp_path / "tokenizer.json")) == list(range(12))
    for number, ((question, answer),) in texts(corpus, tmp_path / "tokenizer.json").items():
        assert question == QUESTION + "\n"
        assert answer == list(COLOURS)[number % 4]
        pixels = corpus.pixels(np.array([number]))[0]
        assert tuple(pixels[0, 0]) == (number, 0, 99)
        assert (pixels[1:] == COLOURS[answer]).all()


def test_an_image_of_many_questions_is_kept_once_and_held_out_with_all(tmp_path: Path) -> None:
    data = colours(tmp_path / "data")
    rows = [
        {"image": f"{number}.png", "question": f"{QUESTION} {turn}", "answer": "yes" if turn else "no"}
        for turn in range(3)
        for number in range(12)
    ]
    shutil.copy(data / "3.png", data / "copy.png")  # the same content under another name
    rows.append({"image": "copy.png", "question": "copied?", "answer": "yes"})
    write_lines(data / "questions.jsonl", rows)
    corpus = made(data, tmp_path, validation_fraction=0.25)
    assert corpus.manifest.images == 12
    sides = {side: set(corpus.examples(side).rows[:, 0].tolist()) for side in ("train", "validation")}
    assert len(sides["validation"]) == 3
    assert not sides["train"] & sides["validation"]
    assert len(texts(corpus, tmp_path / "tokenizer.json")[3]) == 4


def test_the_most_frequent_answer_is_known(tmp_path: Path) -> None:
    data = colours(tmp_path / "data")
    rows = [
        {"image": f"{n}.png", "question": q, "answer": a}
        for n in range(12)
        for q, a in (("a", "yes"), ("b", "no"), ("c", "yes"), ("d", "4"))
    ]
    write_lines(data / "questions.jsonl", rows)
    manifest = made(data, tmp_path).manifest
    assert manifest.most_frequent == "yes"
    assert manifest.most_frequent_accuracy == 0.5


def table(rows: list[dict[str, Any]], path: Path) -> Path:
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.Table.from_pylist(rows), path)
    return path


def cell(number: int, name: str) -> dict[str, Any]:
    return {"bytes": picture(number, name), "path": f"{number}.png"}


NAMES = ["red", "green", "blue", "red"]
SHAPES: dict[str, tuple[list[dict[str, Any]], dict[str, str]]] = {
    "bytes": (
        [
            {"image": picture(n, name), "question": QUESTION, "answer": name}
            for n, name in enumerate(NAMES)
        ],
        {},
    ),
    "chartqa": (
        [{"image": cell(n, name), "query": QUESTION, "label": [name]} for n, name in enumerate(NAMES)],
        {"question_column": "query", "answer_column": "label"},
    ),
    "docvqa": (
        [
            {"questionId": n, "image": cell(n, name), "question": QUESTION, "answers": [name, name.upper()]}
            for n, name in enumerate(NAMES)
        ],
        {"answer_column": "answers"},
    ),
    "captions": ([{"image": cell(n, name), "text": name} for n, name in enumerate(NAMES)], {}),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_tables_as_others_publish_them(shape: str, kind: str, tmp_path: Path) -> None:
    rows, columns = SHAPES[shape]
    path = tmp_path / f"train-00000-of-00001.{kind}"
    if kind == "parquet":
        table(rows, path)
    else:
        content = arrow.Table.from_pylist(rows)
        with arrow.ipc.new_stream(str(path), content.schema) as stream:
            stream.write_table(content)
    corpus = made(path, tmp_path, **columns)
    question = "" if shape == "captions" else QUESTION + "\n"
    expected = {number: [(question, name)] for number, name in enumerate(NAMES)}
    assert texts(corpus, tmp_path / "tokenizer.json") == expected


def test_files_of_validation_and_test_in_a_folder_are_not_trained_on(tmp_path: Path) -> None:
    rows = SHAPES["bytes"][0]
    table(rows, tmp_path / "data" / "train-00000-of-00001.parquet")
    table([{**row, "answer": "leak"} for row in rows], tmp_path / "data" / "test-00000-of-00001.parquet")
    corpus = made(tmp_path / "data", tmp_path)
    answers = {answer for pairs in texts(corpus, tmp_path / "tokenizer.json").values() for _, answer in pairs}
    assert answers == set(NAMES)


def test_it_is_prepared_once_and_again_for_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = colours(tmp_path / "data")
    corpus = made(data, tmp_path)
    monkeypatch.setattr(prepare, "decoded", None)  # nothing is decoded a second time
    assert made(data, tmp_path) == corpus
    monkeypatch.undo()
    folders = {
        made(data, tmp_path, **change).folder
        for change in ({"image_size": 4}, {"resize": "pad"}, {"validation_fraction": 0.5})
    }
    write_lines(data / "questions.jsonl", [{"image": f"{n}.png", "text": str(n)} for n in range(12)])
    folders |= {made(data, tmp_path).folder, corpus.folder}
    assert len(folders) == 5


def test_a_preparation_that_was_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "SHARD_BYTES", 3 * CELL)
    data = colours(tmp_path / "data")
    whole = made(data, tmp_path / "whole")
    assert len(whole.manifest.shards) == 4
    decoded, seen = prepare.decoded, []

    def killed(raw: bytes, where: str) -> Any:
        seen.append(where)
        if len(seen) == 8:
            raise KeyboardInterrupt
        return decoded(raw, where)

    monkeypatch.setattr(prepare, "decoded", killed)
    with pytest.raises(KeyboardInterrupt):
        made(data, tmp_path)
    seen.clear()
    seen.extend([""] * 8)
    corpus = made(data, tmp_path)
    assert len(seen) - 8 == 6  # two shards of three were whole
    assert corpus.digest == whole.digest
    assert np.array_equal(corpus.pixels(np.arange(12)), whole.pixels(np.arange(12)))
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()] == [corpus.folder.name]


def test_a_damaged_folder_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "SHARD_BYTES", 3 * CELL)
    data = colours(tmp_path / "data")
    corpus = made(data, tmp_path)
    before = corpus.pixels(np.arange(12))
    shard = corpus.folder / shard_name(2)
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DataError, match="expected 576 bytes, got 575; prepare the images again"):
        open_images(corpus.folder)
    assert np.array_equal(made(data, tmp_path).pixels(np.arange(12)), before)
    shard.write_bytes(bytes(576))
    with pytest.raises(DataError, match="expected the SHA-256"):
        open_images(corpus.folder, hashes=True)


def row(**cells: Any) -> list[dict[str, Any]]:
    return [{"image": "0.png", "question": "q", "answer": "a"}, {"image": "1.png", **cells}]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (row(question="q"), "line 2: a question without an answer: expected one in \"answer\""),
        (row(question="q", answer="  "), "line 2: a question without an answer"),
        (row(question="q", answer=[]), "line 2: a question without an answer"),
        (row(), 'line 2: an image without text: expected "question" and "answer", or "text", got image'),
        (row(question="q", answer=5), 'line 2: expected text in "answer", got 5'),
        (row(question="q", answer="\ud800"), 'line 2: "answer" holds an unpaired surrogate'),
        (row(image="9.png", answer="b"), "line 2: image '9.png': no such file in"),
        (row(image="../x.png", answer="b"), "line 2: image '../x.png': expected a file in"),
        (row(image="/etc/passwd", answer="b"), "line 2: image '/etc/passwd': expected a file in"),
        (row(image=None, answer="b"), 'line 2: expected an image in "image", got null'),
        (row(image="questions.jsonl", answer="b"), "questions.jsonl: expected an image of JPEG"),
        (row(answer="a"), "a data set of one class: expected different answers, all 2 are 'a'"),
        ([{"image": "0.png", "text": t} for t in "ab"], "expected at least 2 different images"),
        ([], "expected images with text, got none"),
        ([5], "line 1: expected an object, got 5"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named(rows: list[Any], says: str, tmp_path: Path) -> None:
    data = colours(tmp_path / "data", count=2)
    write_lines(data / "questions.jsonl", rows)
    with pytest.raises(DataError) as caught:
        made(data, tmp_path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    data = colours(tmp_path / "data", count=4)
    (data / "questions.jsonl").write_text('{"image": \n')
    with pytest.raises(DataError, match=r"questions\.jsonl line 1: not JSON"):
        made(data, tmp_path)
    (data / "questions.jsonl").unlink()
    with pytest.raises(DataError, match="found none in it"):
        made(data, tmp_path)
    (data / "questions.txt").write_text("words")
    with pytest.raises(DataError, match=r"expected images in a \.parquet or \.arrow file, or their names"):
        made(data, tmp_path)
    (tmp_path / "cut.parquet").write_bytes(
        table(SHAPES["bytes"][0], tmp_path / "x.parquet").read_bytes()[:-9]
    )
    with pytest.raises(DataError, match=r"cut\.parquet: not a whole \.parquet file"):
        made(tmp_path / "cut.parquet", tmp_path)
    without = table([{"picture": b"", "answer": "a"}], tmp_path / "without.parquet")
    with pytest.raises(DataError, match='expected a column "image" of images, got picture, answer'):
        made(without, tmp_path)


def test_the_package_easy_vqa_is_found_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"the package easy-vqa is not installed; `pip install 'frontr"):
        made("easy-vqa", tmp_path)
    train = tmp_path / "easy_vqa" / "data" / "train"
    (train / "images").mkdir(parents=True)
    for number in range(3):
        (train / "images" / f"{number}.png").write_bytes(picture(number, NAMES[number]))
    questions = [[QUESTION, NAMES[number], number] for number in (0, 1, 2, 0)]
    (train / "questions.json").write_text(json.dumps(questions))
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path / "easy_vqa")])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == "easy_vqa" else None)
    corpus = made("easy-vqa", tmp_path)
    asked = texts(corpus, tmp_path / "tokenizer.json")
    assert {number: len(pairs) for number, pairs in asked.items()} == {0: 2, 1: 1, 2: 1}
    assert asked[1] == [(QUESTION + "\n", "green")]


def test_an_answer_that_the_tokenizer_cannot_write(tmp_path: Path) -> None:
    from tokenizers import models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "red": 1, "[EOS]": 2}, unk_token="[UNK]"))  # noqa: S106
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    file = tmp_path / "words.json"
    words.save(str(file))
    data = colours(tmp_path / "data", count=4)
    with pytest.raises(DataError, match=r"line 2: the tokenizer cannot write the answer 'green'"):
        prepare_images(settings(data), file, cache=tmp_path / "cache")

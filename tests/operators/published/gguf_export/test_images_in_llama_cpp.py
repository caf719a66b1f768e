"""Exported pairs in the real llama.cpp: the same log-probabilities behind an image, step by step."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from operators import VisionLanguage, VisionLanguageModel
from operators.published.gguf_export import mmproj
from operators.published.gguf_export.mmproj import Kind
from operators.published.gguf_export.outline import Outline, Value
from operators.published.gguf_export.sizes import Dtype
from operators.published.gguf_export.writing import write_pair
from tests.helpers.gguf_eyes import MEMBERS, Answer, answer, random_model, rounded, value, vocabulary_of

pytest.importorskip("gguf")
CLOSE = 1e-4
ROUGH = 1e-3  # what numbers of 16 bits do to models of such random weights


def answered(
    model: VisionLanguageModel, to: Path, *, size: tuple[int, int] | None = None, dtype: Dtype = "F32"
) -> tuple[str, Answer]:
    """Writes the pair and asks llama.cpp. Returns the decoder's family, too."""
    value = model.value
    marks = mmproj.eyes_outline(value)[0].marks
    text, eyes = write_pair(value, model.state_dict(), vocabulary_of(marks), to / "x.gguf", dtype=dtype)
    return text.family, answer(text.paths[0], eyes.paths[0], value, size)


@pytest.mark.parametrize("member", MEMBERS)
def test_log_probabilities_behind_an_image_are_the_same(
    tmp_path: Path, member: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, family, value = MEMBERS[member]
    model = random_model(value)
    got, seen = answered(model, tmp_path)
    assert (mmproj.eyes_outline(value)[0].name, got) == (kind, family)
    assert seen.difference(model) < ROUGH
    assert seen.difference(rounded(model, monkeypatch)) < CLOSE


def test_an_image_that_is_not_square_has_its_rows_and_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model(MEMBERS["lfm2"][2])
    _, seen = answered(model, tmp_path, size=(8, 16))
    assert seen.difference(rounded(model, monkeypatch)) < CLOSE


def test_fewer_bits_are_run_and_cost_little(tmp_path: Path) -> None:
    model = random_model(value(tower={"hidden": 64}))
    _, seen = answered(model, tmp_path, dtype="Q8_0")
    assert CLOSE < seen.difference(model) < 0.05


def swapped(name: str, other: str) -> Callable[[Outline], Outline]:
    """Each of two tensors of a file with the other one's values."""

    def change(plan: Outline) -> Outline:
        by_name = {tensor.name: tensor for tensor in plan.tensors}
        first, second = by_name[name], by_name[other]
        new = {name: replace(first, parts=second.parts), other: replace(second, parts=first.parts)}
        return replace(plan, tensors=tuple(new.get(each.name, each) for each in plan.tensors))

    return change


def turned(name: str, how: Callable[[Tensor], Tensor]) -> Callable[[Outline], Outline]:
    """A tensor of a file with other values."""

    def change(plan: Outline) -> Outline:
        changed = [
            replace(each, change=lambda values, each=each: how(each.change(values)))
            if each.name == name
            else each
            for each in plan.tensors
        ]
        return replace(plan, tensors=tuple(changed))

    return change


def keyed(name: str, value: Value) -> Callable[[Outline], Outline]:
    return lambda plan: replace(plan, keys={**plan.keys, name: value})


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(swapped("v.blk.1.attn_q.weight", "v.blk.1.attn_k.weight"), id="queries-and-keys"),
        pytest.param(keyed("vision.attention.layer_norm_epsilon", 1e-6), id="epsilon"),
        pytest.param(turned("v.patch_embd.weight", lambda kernel: kernel.flip(1)), id="colours"),
        pytest.param(
            turned(
                "v.position_embd.weight",
                lambda table: table.unflatten(0, (4, 4)).transpose(0, 1).flatten(0, 1),
            ),
            id="rows-and-columns",
        ),
        pytest.param(
            turned("mm.1.weight", lambda matrix: matrix.unflatten(1, (2, 2, -1)).transpose(1, 2).flatten(1)),
            id="pixel-shuffle",
        ),
    ],
)
def test_a_wrong_file_would_be_seen(
    tmp_path: Path, change: Callable[[Outline], Outline], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = mmproj.eyes_outline

    def wrong(value: VisionLanguage) -> tuple[Kind, Outline]:
        kind, plan = right(value)
        return kind, change(plan)

    monkeypatch.setattr("operators.published.gguf_export.writing.eyes_outline", wrong)
    model = random_model(MEMBERS["lfm2"][2])
    _, seen = answered(model, tmp_path)
    assert seen.difference(rounded(model, monkeypatch)) > 20 * CLOSE

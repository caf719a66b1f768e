"""Which towers and projectors an mmproj file holds, what is in it, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from operators import VisionLanguage
from operators.base.errors import ArchitectureError, DataError, FrontrunnerError, RunError
from operators.published.gguf_export.mmproj import KINDS, eyes_outline
from operators.published.gguf_export.vocabulary import CONTROL, NORMAL, UNUSED, Vocabulary, for_images
from operators.published.gguf_export.writing import write_pair
from tests.helpers.gguf_eyes import F_, MEMBERS, TURNED, A, random_model, value, vocabulary_of
from tests.helpers.gguf_members import DELTANET, NORMED

gguf = pytest.importorskip("gguf")


@pytest.mark.parametrize(
    ("model", "kind"),
    [("lfm2-vl-450m", "lfm2"), ("smolvlm-256m", "idefics3"), ("nanovlm-222m", "idefics3")],
)
def test_published_models_have_their_kinds(model: str, kind: str) -> None:
    assert eyes_outline(VisionLanguage.load(model))[0].name == kind


@pytest.mark.parametrize(
    ("member", "says"),
    [
        (value(tower={"qk_norm": "head"}), "the nearest, lfm2, has no tower.qk_norm head"),
        (
            value(tower={"feedforward": "relu2", "rope_theta": 100, "width": 48}),
            "the nearest, lfm2, has no tower.feedforward relu2; no tower.rope_theta 100.0",
        ),
        (
            value(tower={"norms": [{}, {"norm": "rmsnorm", "norm_position": "after"}]}),
            "has no tower.norms layernorm before and rmsnorm after",
        ),
        (value(tower={"final_norm": "rmsnorm"}), "has no tower.final_norm rmsnorm"),
        (value(projector={"hidden": [44, 44]}), "has no projector.matrices 3"),
        (
            value(projector={"hidden": [], "bias": False}, tower={"hidden": 24}),
            "the nearest, idefics3, has no tower.hidden equal to tower.width",
        ),
        (
            value(projector={"hidden": []}, tower={"position_grid": 3}),
            "the nearest, idefics3, has no tower.position_grid 3; no projector.bias True",
        ),
        (
            value(tower={**TURNED, "rope_theta": 100.0}),
            "the nearest, dots_ocr, has no tower.rope_theta 100.0",
        ),
        (value(tower={**TURNED, "norm_eps": 1e-5}), "the nearest, dots_ocr, has no tower.norm_eps 1e-05"),
        (value(tower={"image_size": 8224}), "tower.image_size: expected at most 8192 in llama.cpp, got 8224"),
        (value([A, F_], meta_tokens=1), "meta_tokens: expected 0 for a GGUF model"),
        (
            value([NORMED, F_, DELTANET, F_]),
            "llama.cpp runs it as qwen35, in which attention rotates the tokens of an image by their row",
        ),
    ],
)
def test_what_cannot_be_written_is_named_and_nothing_is_written(
    member: VisionLanguage, says: str, tmp_path: Path
) -> None:
    with pytest.raises(ArchitectureError) as refused:
        write_pair(member, {}, None, tmp_path / "x.gguf")
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not [*tmp_path.iterdir()]


def test_a_qwen35_without_attention_may_see() -> None:
    write = value([DELTANET, F_])
    assert eyes_outline(write)[0].name == "lfm2"


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "Q8_0"])
def test_matrices_have_fewer_bits_but_for_the_patch_embedding(tmp_path: Path, dtype: Any) -> None:
    member = value(tower={"hidden": 64})
    model = random_model(member)
    _, eyes = write_pair(member, model.state_dict(), None, tmp_path / "x.gguf", dtype=dtype)
    assert eyes.paths == (tmp_path / "mmproj-x.gguf",)
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(eyes.paths[0]).tensors}
    kinds = {name: tensor.tensor_type.name for name, tensor in stored.items()}
    assert {kinds[f"v.blk.0.{name}.weight"] for name in ("ffn_down", "attn_q")} == (
        {"Q8_0", "F16"} if dtype == "Q8_0" else {dtype}
    )
    plain = {"v.patch_embd.weight", "v.position_embd.weight", "v.blk.0.ln1.weight", "mm.1.bias"}
    assert {kinds[name] for name in plain} == {"F32"}
    weights = model.state_dict()
    kernel = np.array(stored["v.patch_embd.weight"].data).reshape(24, 3, 4, 4)
    red_first = weights["tower.patch_embedding.weight"].numpy()
    np.testing.assert_array_equal(kernel[:, 0].reshape(24, 16), red_first[:, :16])
    table = np.array(stored["v.position_embd.weight"].data)
    np.testing.assert_array_equal(table[5], weights["tower.position"][1, 1].numpy())


def test_sizes_that_a_file_says_are_those_of_the_training(tmp_path: Path) -> None:
    """Other kinds than lfm2 say it, whose limits are fixed numbers of llama.cpp."""
    said = {}
    for member in ("phi4", "dots_ocr", "idefics3", "lfm2"):
        kind, plan = eyes_outline(MEMBERS[member][2])
        said[kind.name] = {
            key: value for key, value in plan.keys.items() if "pixels" in key or "preproc" in key
        }
        assert any("--image-min-tokens 4 --image-max-tokens 4" in line for line in plan.remarks) == (
            member == "lfm2"
        )
    pixels = {"vision.image_min_pixels": 256, "vision.image_max_pixels": 256}
    assert said == {
        "phi4": pixels,
        "dots_ocr": pixels,
        "idefics3": {"vision.preproc_image_size": 16},
        "lfm2": {},
    }


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (
            lambda to: to.with_name("mmproj-x.gguf").write_text("mine"),
            RunError,
            "mmproj-x.gguf: exists already",
        ),
        (lambda to: to.write_text("mine"), RunError, "x.gguf: exists already"),
        (lambda to: {"tower.norm.bias": None}, DataError, "weight tower.norm.bias: expected (24,), got none"),
        (lambda to: {"projector.matrices.1.weight": 1e6}, DataError, "expected values up to 65504 for F16"),
    ],
)
def test_both_files_are_written_or_none(
    tmp_path: Path, change: Any, kind: type[FrontrunnerError], message: str
) -> None:
    member, to = MEMBERS["lfm2"][2], tmp_path / "x.gguf"
    weights = dict(random_model(member).state_dict())
    changed = change(to)
    for name, factor in (changed if isinstance(changed, dict) else {}).items():
        tensor = weights.pop(name)
        if factor is not None:
            weights[name] = tensor * factor
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(kind) as error:
        write_pair(member, weights, None, to, dtype="F16")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_marks_get_rows_without_a_token_and_no_text_has_the_placeholder() -> None:
    words = Vocabulary(["a", "b", "ab", "abb"], [NORMAL] * 4, ["a b", "ab b"], "gpt-2", end=0)
    marks = ["<|image_start|>", "<|image_end|>"]
    got, missing = for_images(words, 5, 2, marks)
    assert missing == marks
    # Row 4 has no token. The placeholder's is free once its word is forgotten, with the word made of it.
    assert [*got.tokens] == ["a", "b", "<|image_end|>", "abb", "<|image_start|>"]
    assert [*got.kinds] == [NORMAL, NORMAL, CONTROL, NORMAL, CONTROL]
    assert [*got.merges] == []
    known, none = for_images(got, 5, 2, marks)
    assert (known, none) == (got, [])
    spelled, missing = for_images(words, 4, 2, marks)
    assert missing == marks
    assert [*spelled.tokens] == ["a", "b", "[IMAGE2]", "abb"], "one row is too few for two marks"
    assert [*spelled.kinds] == [NORMAL, NORMAL, UNUSED, NORMAL]


def test_a_kind_that_needs_its_marks_says_which_it_lacks(tmp_path: Path) -> None:
    member = MEMBERS["idefics3"][2]
    model, kind = random_model(member), next(kind for kind in KINDS if kind.name == "idefics3")
    full = vocabulary_of(kind.marks[:2])
    with pytest.raises(DataError, match=r"it lacks \\n\\n, <global-img>$"):
        write_pair(member, model.state_dict(), full, tmp_path / "x.gguf")
    assert not [*tmp_path.iterdir()]

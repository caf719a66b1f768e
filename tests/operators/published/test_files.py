"""Files and tensors of a folder: we read what `transformers` reads, and refuse anything else by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from operators import HybridLM
from operators.base.errors import DataError
from operators.published import describe, fitted
from operators.published.safetensors_folder import SafetensorsFolder
from tests.helpers.published_models import CASES, VOCABULARY, published_model
from tests.helpers.without_kernels import plain_definitions

transformers = pytest.importorskip("transformers")

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENS = torch.randint(VOCABULARY, (1, 16), generator=torch.Generator().manual_seed(1))
Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders as transformers saves them: `tied`, `untied`, and `shards` of the second."""
    folder = tmp_path_factory.mktemp("models")
    for name, case in (("tied", "llama-tied"), ("untied", "llama")):
        published_model(CASES[case]()[0]).save_pretrained(folder / name)
    published_model(CASES["llama"]()[0]).save_pretrained(folder / "shards", max_shard_size="40KB")
    return folder


@pytest.fixture
def folder(models: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy that a test may change: of `untied`, or of the folder that the test's parameter names."""
    shutil.copytree(models / getattr(request, "param", "untied"), tmp_path / "model")
    return tmp_path / "model"


def imported(folder: Path) -> Weights:
    tensors = SafetensorsFolder(folder)
    return fitted(describe(tensors.config, where=str(folder / "config.json")), tensors, where=folder)


@torch.no_grad()
def ours(folder: Path) -> Tensor:
    model = HybridLM(describe(SafetensorsFolder(folder).config).architecture, backend="reference")
    model.load_state_dict(imported(folder))
    return model(TOKENS)


@torch.no_grad()
def theirs(folder: Path) -> Tensor:
    with plain_definitions():
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    logits: Tensor = model(TOKENS, use_cache=False).logits
    return logits


def rewrite(folder: Path, change: Callable[[Weights], Weights]) -> None:
    weights = change(load_file(folder / WHOLE))
    save_file({name: value.clone() for name, value in weights.items()}, folder / WHOLE, {"format": "pt"})


def renamed(change: Callable[[str], str]) -> Callable[[Weights], Weights]:
    return lambda weights: {change(name): value for name, value in weights.items()}


def only_the_head(name: str) -> str:
    return name.replace("model.embed_tokens", "lm_head")


SPELLINGS: dict[str, tuple[str, Callable[[str], str]]] = {
    "without the inner model's name": ("untied", lambda name: name.removeprefix("model.")),
    "without it, tied": ("tied", lambda name: name.removeprefix("model.")),
    "without it in one layer": (
        "untied",
        lambda name: name.removeprefix("model.") if "layers.0" in name else name,
    ),
    "with it twice": ("untied", lambda name: f"model.{name}"),
    "the head in the place of the embeddings": ("tied", only_the_head),
    "the same, without the inner model's name": (
        "tied",
        lambda name: only_the_head(name).removeprefix("model."),
    ),
}


@pytest.mark.parametrize(("folder", "change"), SPELLINGS.values(), ids=SPELLINGS, indirect=["folder"])
def test_names_that_transformers_understands_are_read(folder: Path, change: Any) -> None:
    before = ours(folder)
    rewrite(folder, renamed(change))
    torch.testing.assert_close(theirs(folder), before, rtol=0, atol=1e-4)
    torch.testing.assert_close(ours(folder), before, rtol=0, atol=1e-4)


NORM, GATE = "model.norm.weight", "model.layers.0.mlp.gate_proj.weight"
FREQUENCIES = "model.layers.1.self_attn.rotary_emb.inv_freq"
TENSORS: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "of a distributed training": (renamed(lambda name: f"module.{name}"), "found instead: module."),
    "of torch.compile": (renamed(lambda name: f"_orig_mod.{name}"), "found instead: _orig_mod."),
    "of an adapter": (renamed(lambda name: f"base_model.model.{name}"), "found instead: base_model.model."),
    "spelled twice": (
        lambda weights: {**weights, "norm.weight": torch.ones(48)},
        f"{NORM} and norm.weight are the same weight, expected one of them",
    ),
    "of a classifier": (
        lambda weights: {**weights, "score.weight": torch.ones(2, 48)},
        "weights that the architecture does not have: score.weight",
    ),
    "no head": (
        lambda weights: {name: value for name, value in weights.items() if name != "lm_head.weight"},
        "missing weights: lm_head.weight",
    ),
    "whole numbers": (
        lambda weights: {**weights, GATE: torch.ones(80, 48, dtype=torch.int8)},
        f"{GATE}: expected float32, bfloat16 or float16, got int8",
    ),
    "eight bits": (
        lambda weights: {**weights, GATE: torch.ones(80, 48).to(torch.float8_e4m3fn)},
        f"{GATE}: expected float32, bfloat16 or float16, got float8_e4m3fn",
    ),
    "other frequencies": (
        lambda weights: {**weights, FREQUENCIES: 5100.0 ** -(torch.arange(6) / 6)},
        f"{FREQUENCIES}: expected the frequencies that follow from config.json, got others",
    ),
    "frequencies of another size": (
        lambda weights: {**weights, FREQUENCIES: torch.ones(7)},
        f"{FREQUENCIES}: expected the frequencies",
    ),
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_nothing_takes_are_named(case: str, folder: Path) -> None:
    change, says = TENSORS[case]
    rewrite(folder, change)
    with pytest.raises(DataError) as caught:
        imported(folder)
    assert str(caught.value).startswith(f"{folder}: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_frequencies_that_follow_from_the_configuration_are_passed_over(
    dtype: torch.dtype, folder: Path
) -> None:
    right = (5000.0 ** -(torch.arange(6) / 6)).to(dtype)
    rewrite(folder, lambda weights: {**weights, FREQUENCIES: right, "model.rotary_emb.inv_freq": right})
    assert FREQUENCIES not in imported(folder)


@pytest.mark.parametrize("folder", ["shards"], indirect=True)
def test_a_whole_file_goes_before_shards(folder: Path, models: Path) -> None:
    shutil.copy(models / "untied" / WHOLE, folder)
    rewrite(folder, lambda weights: {**weights, NORM: weights[NORM] * 2})
    torch.testing.assert_close(ours(folder), theirs(folder), rtol=0, atol=1e-4)
    remarks = SafetensorsFolder(folder).remarks
    assert remarks == [
        f"{WHOLE} is the model, as for transformers; {INDEX} beside it and its files are not read"
    ]


@pytest.mark.parametrize("folder", ["shards"], indirect=True)
def test_shards_that_contradict_their_index_are_named(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text())
    weight_map: dict[str, str] = index["weight_map"]
    first, last = sorted(set(weight_map.values()))[0], sorted(set(weight_map.values()))[-1]
    in_first = next(name for name, file in weight_map.items() if file == first)

    def says(change: dict[str, str]) -> str:
        (folder / INDEX).write_text(json.dumps({**index, "weight_map": {**weight_map, **change}}))
        with pytest.raises(DataError) as caught:
            imported(folder)
        return str(caught.value)

    assert f"names ../{first}, which is not a file in that folder" in says({in_first: f"../{first}"})
    assert f"{in_first} is not in {last}, where this index puts it" in says({in_first: last})
    assert f"absent.weight is not in {first}, where this index puts it" in says({"absent.weight": first})
    save_file({**load_file(folder / last), in_first: load_file(folder / first)[in_first]}, folder / last)
    assert f"{in_first} is in {first} and in {last}, expected in one" in says({})
    (folder / first).unlink()
    assert f"names {first}, which is not a file in that folder" in says({})


def linked(folder: Path) -> Path:
    """The folder as a download in the Hub's cache: a snapshot with links to blobs of other names."""
    snapshot, blobs = (
        folder.parent / "models--a--b" / "snapshots" / "0123",
        folder.parent / "models--a--b" / "blobs",
    )
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        shutil.move(file, blobs / f"{number}")
        (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / f"{number}")
    return snapshot


@pytest.mark.parametrize("folder", ["untied", "shards"], indirect=True)
def test_a_snapshot_in_the_cache_of_the_hub_is_read(folder: Path) -> None:
    before = imported(folder)
    snapshot = linked(folder)
    after = imported(snapshot)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(DataError) as caught:
        imported(snapshot.parent.parent)
    assert f"the top of a folder in the Hub's cache, expected a snapshot in it: {snapshot}" in str(
        caught.value
    )


def test_a_link_to_what_was_not_downloaded_is_named(folder: Path) -> None:
    snapshot = linked(folder)
    (snapshot / WHOLE).resolve().unlink()
    with pytest.raises(DataError, match=rf"{WHOLE}: a link to \.\./\.\./blobs/\d, which is not there"):
        imported(snapshot)


def moved(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / WHOLE).rename(folder / name)


LAYOUTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a variant": (
        moved("model.fp16.safetensors"),
        "found model.fp16.safetensors: transformers does not take that",
    ),
    "Meta's layout": (
        moved("consolidated.safetensors"),
        "found consolidated.safetensors: transformers does not",
    ),
    "shards without an index": (
        moved("model-00001-of-00001.safetensors"),
        "found model-00001-of-00001.safetensors",
    ),
    "pickled": (moved("pytorch_model.bin"), "found pytorch_model.bin: pickled weights are not read"),
    "GGUF": (moved("model-q4.gguf"), "found model-q4.gguf: it is read when it is named itself"),
    "an adapter": (
        lambda folder: (folder / "adapter_config.json").write_text("{}"),
        "adapter_config.json makes it an adapter of another model, "
        "expected the model with the adapter merged",
    ),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_another_layout_is_named(case: str, folder: Path) -> None:
    change, says = LAYOUTS[case]
    change(folder)
    with pytest.raises(DataError) as caught:
        imported(folder)
    assert str(caught.value).startswith(f"{folder}: ")
    assert says in str(caught.value)


def test_other_files_beside_the_model_change_nothing(folder: Path) -> None:
    before = imported(folder)
    shutil.copy(folder / WHOLE, folder / "consolidated.safetensors")
    (folder / "model.fp16.safetensors").write_bytes(b"")
    (folder / "pytorch_model.bin").write_bytes(b"")
    after = imported(folder)
    assert all(torch.equal(before[name], after[name]) for name in before)

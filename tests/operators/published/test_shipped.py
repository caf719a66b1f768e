"""The architectures in configs/architectures/: their names, short files, and the published sizes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from operators import Architecture, HybridLM
from operators.architecture import find_architecture
from operators.base import shipped
from operators.base.errors import ArchitectureError
from operators.cost import parameters
from operators.parameter_shapes import Undrawn
from operators.published import describe
from tests.helpers.without_kernels import plain_definitions

transformers = pytest.importorskip("transformers")

EXACT = {
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "smollm2-135m": 134_515_008,
    "smollm2-1.7b": 1_711_376_384,
    "mamba2-1.3b": 1_343_757_312,
}
MILLIONS = {"nemotron-flash-1b": 965.4, "nemotron-flash-3b": 2750.0}


def sizes(width: int, layers: int, heads: int, kv_heads: int, hidden: int, vocabulary: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": hidden,
        "vocab_size": vocabulary,
        "tie_word_embeddings": True,
    }


def llama(*args: int, theta: float, scaling: dict[str, Any] | None = None, **fields: Any) -> Any:
    rope = {"rope_type": "default", "rope_theta": theta, **(scaling or {})}
    return transformers.LlamaConfig(**sizes(*args), rope_parameters=rope, rms_norm_eps=1e-5, **fields)


def qwen(kind: Any, *args: int, **fields: Any) -> Any:
    return kind(**sizes(*args), rope_parameters={"rope_type": "default", "rope_theta": 1e6}, **fields)


def configs() -> dict[str, Any]:
    """The published configurations, without keys that change nothing here."""
    stretched = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    stretched["original_max_position_embeddings"] = 8192
    qwen2, qwen3 = transformers.Qwen2Config, transformers.Qwen3Config
    mamba2 = {
        "num_heads": 64,
        "head_dim": 64,
        "state_size": 128,
        "n_groups": 1,
        "expand": 2,
        "tie_word_embeddings": True,
    }
    return {
        "llama-3.2-1b": llama(2048, 16, 32, 8, 8192, 128_256, theta=5e5, scaling=stretched),
        "llama-3.2-3b": llama(3072, 28, 24, 8, 8192, 128_256, theta=5e5, scaling=stretched, head_dim=128),
        "qwen3-0.6b": qwen(qwen3, 1024, 28, 16, 8, 3072, 151_936),
        "qwen3-1.7b": qwen(qwen3, 2048, 28, 16, 8, 6144, 151_936),
        "qwen2.5-0.5b": qwen(qwen2, 896, 24, 14, 2, 4864, 151_936),
        "qwen2.5-1.5b": qwen(qwen2, 1536, 28, 12, 2, 8960, 151_936),
        "qwen2.5-3b": qwen(qwen2, 2048, 36, 16, 2, 11_008, 151_936),
        "smollm2-135m": llama(576, 30, 9, 3, 1536, 49_152, theta=1e5),
        "smollm2-1.7b": llama(2048, 24, 32, 32, 8192, 49_152, theta=1.3e5),
        "mamba2-1.3b": transformers.Mamba2Config(
            hidden_size=2048, num_hidden_layers=48, vocab_size=50_288, **mamba2
        ),
    }


def test_every_published_model_is_there() -> None:
    names = shipped.names("architecture")
    assert set(names) == {*EXACT, *MILLIONS, "tiny-hybrid"}
    assert all(Architecture.load(name).name == name for name in names)


@pytest.mark.parametrize("name", EXACT)
def test_it_has_the_number_of_parameters_of_the_published_model(name: str) -> None:
    architecture = Architecture.load(name)
    assert parameters(architecture) == EXACT[name]
    config = configs()[name]
    with torch.device("meta"), Undrawn(), plain_definitions():
        model = HybridLM(architecture, backend="reference", device="meta")
        theirs = transformers.AutoModelForCausalLM.from_config(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == EXACT[name]
    assert sum(parameter.numel() for parameter in theirs.parameters()) == EXACT[name]
    assert describe(config.to_dict(), name=name).architecture == architecture


@pytest.mark.parametrize("name", MILLIONS)
def test_nemotron_flash_has_the_layers_and_the_size_of_the_paper(name: str) -> None:
    architecture = Architecture.load(name)
    assert parameters(architecture) / 1e6 == pytest.approx(MILLIONS[name], abs=0.05)
    shorthand = {
        "nemotron-flash-1b": "d f m f a f m f d f m f a f m f d f m f d f m f",
        "nemotron-flash-3b": "d f m f a f m f d f m f a f m f d f m f a f m f d f m f d f m f d f m f",
    }[name]
    assert architecture.shorthand == shorthand
    genes = {"attention": {"head_dim": 128, "group": 4}, "deltanet": {"head_dim": 128}}
    by_genes = Architecture.from_shorthand(
        shorthand, width=architecture.width, vocabulary=131_072, genes=genes, meta_tokens=256
    )
    assert architecture.layers == by_genes.layers


def test_repeats_are_written_out_and_may_lie_within_one_another() -> None:
    fields = {"width": 64, "vocabulary": 100}
    nested = [{"repeat": 2, "layers": ["a f", {"repeat": 3, "layers": "r f"}]}, "m"]
    assert Architecture.parse({**fields, "layers": nested}) == Architecture.parse(
        {**fields, "layers": "a f r f r f r f " * 2 + "m"}
    )


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"repeat": 0, "layers": ["a"]}, "layers.1.repeat: expected a whole number from 1 to 1024, got 0"),
        (
            {"repeat": "two", "layers": ["a"]},
            "layers.1.repeat: expected a whole number from 1 to 1024, got 'two'",
        ),
        ({"repeat": 2}, "layers.1: expected repeat with a list of layers and nothing else, got repeat"),
        ({"repeat": 2, "layers": 5}, "layers.1: expected repeat with a list of layers"),
        ({"repeat": 2, "layers": ["a"], "norm": "layernorm"}, "got repeat, layers, norm"),
        ({"repeat": 2, "layers": ["a", "zz"]}, "layers.1.layers.1: unknown operator 'zz'"),
        (
            {"repeat": 1024, "layers": [{"repeat": 1024, "layers": ["a"]}]},
            "layers.1: expected at most 1024 layers, got 1024 times 1024",
        ),
    ],
)
def test_a_bad_repeat_is_named(entry: Any, says: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        Architecture.parse({"width": 64, "vocabulary": 100, "layers": ["f", entry]})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_are_found_anywhere_and_files_go_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Architecture.load("Llama-3.2-1B") == Architecture.load(Path("llama-3.2-1b"))
    (tmp_path / "llama-3.2-1b").mkdir()
    assert Architecture.load("llama-3.2-1b").depth == 32
    (tmp_path / "qwen3-0.6b").write_text("{width: 16, vocabulary: 9, layers: f}")
    assert Architecture.load("qwen3-0.6b").width == 16


def test_an_unknown_name_lists_those_that_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ArchitectureError,
        match=r"llama-9: neither a file nor a shipped architecture: .*llama-3\.2-1b, .*tiny-hybrid",
    ):
        find_architecture("llama-9")
    with pytest.raises(ArchitectureError, match=r"the shipped file is named llama-3\.2-1b, without a folder"):
        find_architecture("configs/architectures/llama-3.2-1b.yaml")


@pytest.mark.parametrize(
    ("scaling", "says"),
    [
        ({}, "rope.scaling.factor: missing"),
        ({"factor": 0.5}, "rope.scaling.factor"),
        ({"factor": 8, "low": 4, "high": 4}, "expected low below high, got low 4 and high 4"),
        ({"factor": 8, "kind": "yarn"}, "'llama3'"),
    ],
)
def test_a_bad_rotation_is_named(scaling: dict[str, Any], says: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        Architecture.parse({"width": 64, "vocabulary": 100, "layers": "a", "rope": {"scaling": scaling}})
    assert says in str(caught.value)


def test_biases_and_stretched_positions_make_another_digest() -> None:
    genes = {"head_dim": 16, "group": 2}
    plain, biased = (
        Architecture.from_shorthand(
            "a f", width=64, vocabulary=100, genes={"attention": {**genes, "qkv_bias": bias}}
        )
        for bias in (False, True)
    )
    stretched = Architecture.from_shorthand("a f", width=64, vocabulary=100, rope={"scaling": {"factor": 8}})
    assert len({plain.digest(), biased.digest(), stretched.digest()}) == 3
    assert parameters(biased) == parameters(plain) + 64 + 2 * 32
    assert biased.layers[0].shape.genes(64)["qkv_bias"] is True
    assert biased.resized(128).layers[0].shape.genes(128) == biased.layers[0].shape.genes(64)
    assert parameters(biased) == sum(parameter.numel() for parameter in HybridLM(biased).parameters())

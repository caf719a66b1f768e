"""GGUF files: every key is used, harmless or refused, every part is read, and damage is one line."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from operators import Architecture, HybridLM
from operators.base.errors import ArchitectureError, DataError, FrontrunnerError
from operators.published import describe, fitted
from operators.published.gguf_file import GgufFile
from operators.published.gguf_metadata import llama_config
from operators.published.rope_factors import llama3_scaling
from search.runs.importing import import_model
from tests.helpers.gguf_writer import write_gguf
from tests.helpers.published_models import CASES, published_model

transformers = pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")

TOKENS = torch.randint(61, (2, 33), generator=torch.Generator().manual_seed(3))
METADATA = {
    "general.architecture": "llama",
    "llama.context_length": 256,
    "llama.embedding_length": 48,
    "llama.block_count": 2,
    "llama.feed_forward_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.dimension_count": 12,
    "llama.rope.freq_base": 5000.0,
}


def architecture_of(metadata: dict[str, Any]) -> Architecture:
    config = llama_config(metadata.get, metadata, vocabulary=61, tied=True, where="x.gguf")
    return describe(config, where="x.gguf").architecture


def imported(path: Path) -> HybridLM:
    file = GgufFile(path)
    published = describe(file.config, where=str(path))
    model = HybridLM(published.architecture)
    model.load_state_dict(fitted(published, file, where=path))
    return model


@torch.no_grad()
def assert_same_logits(path: Path, theirs: Any) -> None:
    torch.testing.assert_close(
        imported(path)(TOKENS), theirs(TOKENS, use_cache=False).logits, rtol=0, atol=1e-4
    )


def llama(case: str = "llama") -> Any:
    return published_model(CASES[case]()[0])


# Keys that llama.cpp does not use in this family, and the one for the length of the training texts.
HARMLESS = {
    "llama.context_length",
    "llama.attention.layer_norm_epsilon",
    "llama.rope.scaling.finetuned",
    "llama.rope.scaling.original_context_length",
}


def keys_of_llama_cpp(group: type = gguf.Keys) -> list[str]:
    """Every key for a model's computation that the package gguf lists, under the prefix of a llama."""
    keys = []
    for name, value in vars(group).items():
        if isinstance(value, type):
            keys += keys_of_llama_cpp(value)
        elif not name.startswith("_") and isinstance(value, str) and value.startswith("{arch}"):
            keys.append(value.format(arch="llama", dense="dense_2"))
    return keys


def test_the_package_lists_the_keys() -> None:
    assert len(keys_of_llama_cpp()) > 90
    assert {"llama.attention.scale", "llama.rope.scaling.type", "llama.logit_scale"} < {*keys_of_llama_cpp()}


def outcome_of(metadata: dict[str, Any]) -> str:
    """The digest of the architecture, or the error."""
    try:
        return architecture_of(metadata).digest()
    except ArchitectureError as error:
        return str(error)


@pytest.mark.parametrize("key", sorted({*keys_of_llama_cpp(), "llama.rope.scale_linear", "llama.brand_new"}))
def test_no_key_is_ignored(key: str) -> None:
    base = outcome_of(METADATA)
    for value in (3, 0.37, "yarn", -1, [1, 2], float("nan")):
        outcome = outcome_of({**METADATA, key: value})
        assert outcome != base or key in HARMLESS, (key, value)
        assert len(outcome.splitlines()) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention.causal", False),
        ("use_parallel_residual", True),
        ("attention.scale", 0.25),
        ("attention.value_length", 8),
        ("attention.key_length", 8),
        ("rope.dimension_count", 6),
        ("rope.scaling.factor", 4.0),
        ("attention.sliding_window", 64),
        ("expert_count", 8),
        ("logit_scale", 0.5),
        ("pooling_type", 1),
        ("attention.head_count_kv", [2, 4]),
        ("attention.head_count_kv", [2]),
        ("feed_forward_length", [64, 32]),
        ("vocab_size", 60),
        ("tensor_data_layout", "reference"),
        ("attention.layer_norm_rms_epsilon", 0.0),
        ("rope.freq_base", float("inf")),
        ("embedding_length", True),
        ("block_count", 2.0),
    ],
)
def test_a_value_that_changes_the_mathematics_is_named(key: str, value: Any) -> None:
    with pytest.raises(ArchitectureError) as caught:
        architecture_of({**METADATA, f"llama.{key}": value})
    # Three keys have the length of a head: the error may name another one of them.
    named = key if not key.endswith(("key_length", "value_length")) else "llama."
    assert named in str(caught.value)
    assert f"got {value!r}" in str(caught.value) or "the length of a head" in str(caught.value)


@pytest.mark.parametrize(
    "more",
    [
        {"llama.attention.causal": True, "llama.expert_count": 0, "llama.attention.clamp_kqv": 0.0},
        {"llama.attention.scale": float(np.float32(12**-0.5)), "llama.logit_scale": 1.0},
        {"llama.attention.key_length": 12, "llama.attention.value_length": 12, "llama.vocab_size": 61},
        {"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 4.0},
        {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 1.0},
        {"llama.attention.head_count_kv": [2, 2], "llama.feed_forward_length": [64, 64]},
        {"llama.tensor_data_layout": "Meta AI original pth", "general.quantization_version": 2},
        {"quantize.imatrix.file": "i.dat", "general.file_type": 1, "tokenizer.ggml.bos_token_id": 1},
    ],
)
def test_values_that_say_what_a_llama_is_anyway_are_taken(more: dict[str, Any]) -> None:
    assert architecture_of({**METADATA, **more}) == architecture_of(METADATA)


@pytest.mark.parametrize(
    "key",
    [
        "embedding_length",
        "block_count",
        "feed_forward_length",
        "attention.head_count",
        "attention.layer_norm_rms_epsilon",
    ],
)
def test_a_key_that_llama_cpp_needs_is_missed(key: str) -> None:
    rest = {name: value for name, value in METADATA.items() if name != f"llama.{key}"}
    with pytest.raises(ArchitectureError, match=re.escape(f"x.gguf: llama.{key}: missing")):
        architecture_of(rest)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            {"general.type": "adapter", "adapter.type": "lora"},
            "general.type: expected 'model', got 'adapter'",
        ),
        ({"general.type": "mmproj", "general.architecture": "clip"}, "general.type: expected 'model'"),
        ({"general.type": "imatrix", "general.architecture": None}, "general.type: expected 'model'"),
        (
            {"general.architecture": "qwen2"},
            "general.architecture: expected 'llama' in a GGUF file, got 'qwen2'",
        ),
        ({"general.architecture": None}, "general.architecture: expected 'llama' in a GGUF file, got None"),
        ({"adapter.lora.alpha": 16.0}, "adapter.lora.alpha: expected no such key"),
        ({"granite.logit_scale": 8.0}, "granite.logit_scale: expected no such key"),
    ],
)
def test_a_file_of_another_kind_is_refused(more: dict[str, Any], says: str) -> None:
    with pytest.raises(ArchitectureError, match=re.escape(says)):
        architecture_of({**METADATA, **more})


def factors_of(scaling: dict[str, Any], theta: float, head_dim: int) -> np.ndarray:
    """The factors of llama.cpp's converter: plain frequencies over the ones of transformers."""
    config = transformers.LlamaConfig(
        hidden_size=head_dim,
        num_attention_heads=1,
        max_position_embeddings=1 << 17,
        rope_parameters={"rope_type": "llama3", "rope_theta": theta, **scaling},
    )
    stretched = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0].numpy()
    plain = theta ** (-np.arange(0, head_dim, 2) / head_dim)
    return (plain / stretched).astype(np.float32)


def scaling(factor: float, low: float, high: float, context: int) -> dict[str, Any]:
    return {
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": context,
    }


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize(("factor", "context"), [(8.0, 8192), (32.0, 8192), (4.0, 2048), (2.5, 1000)])
def test_the_scaling_of_llama_3_is_found_again(factor: float, context: int, head_dim: int) -> None:
    given = scaling(factor, 1.0, 4.0, context)
    recovered = llama3_scaling(factors_of(given, 500_000.0, head_dim), 500_000.0)
    assert recovered == {"rope_type": "llama3", **given}


@pytest.mark.parametrize("head_dim", [8, 12, 64])
@pytest.mark.parametrize(
    ("factor", "low", "high", "context"),
    [
        (8.0, 1.0, 4.0, 32),
        (3.7, 1.0, 4.0, 77),
        (4.0, 0.5, 3.0, 64),
        (64.0, 1.3, 30.0, 512),
        (2.0, 2.0, 2.1, 4096),
    ],
)
def test_any_other_scaling_is_found_as_one_with_the_same_factors(
    factor: float, low: float, high: float, context: int, head_dim: int
) -> None:
    factors = factors_of(scaling(factor, low, high, context), 10_000.0, head_dim)
    recovered = llama3_scaling(factors, 10_000.0)
    assert recovered
    del recovered["rope_type"]
    np.testing.assert_allclose(factors_of(recovered, 10_000.0, head_dim), factors, rtol=3e-6)


@pytest.mark.parametrize(
    "factors",
    [
        [1.0, 8, 1, 8],
        [1.0, 1.5, 1.6, 8],
        [0.5, 1, 1, 1],
        [1.0, 1, 8, float("nan")],
        [1.0, 0, 8, 8],
        [-1.0] * 4,
    ],
)
def test_other_factors_are_none_of_llama_3(factors: list[float]) -> None:
    assert llama3_scaling(np.array(factors, dtype=np.float32), 100.0) is None


def test_factors_of_one_are_no_scaling() -> None:
    assert llama3_scaling(np.ones(6, dtype=np.float32), 100.0) == {}


def with_factors(path: Path, factors: list[float] | np.ndarray) -> None:
    write_gguf(
        path,
        llama("llama-stretched"),
        also=lambda w: w.add_tensor("rope_freqs.weight", np.array(factors, dtype=np.float32)),
    )


def test_a_llama_3_has_the_logits_and_the_scaling_of_the_model_that_it_was_made_of(tmp_path: Path) -> None:
    theirs = llama("llama-stretched")
    with_factors(tmp_path / "x.gguf", factors_of(scaling(8.0, 1.0, 4.0, 16), 100.0, 12))
    assert_same_logits(tmp_path / "x.gguf", theirs)
    assert imported(tmp_path / "x.gguf").architecture == CASES["llama-stretched"]()[1]


@pytest.mark.parametrize(
    ("factors", "says"),
    [
        (
            [1, 3, 2, 8, 8, 8],
            "rope_freqs.weight: expected the factors of a llama3 scaling, got 6 others from 1 to 8",
        ),
        ([0.5] * 6, "got 6 others from 0.5 to 0.5"),
        ([1, 8, 8], "expected a factor for each pair of a head of 12, got shape (3,)"),
    ],
)
def test_factors_that_cannot_be_expressed_are_refused(
    factors: list[float], says: str, tmp_path: Path
) -> None:
    with_factors(tmp_path / "x.gguf", factors)
    with pytest.raises(FrontrunnerError, match=re.escape(says)):
        GgufFile(tmp_path / "x.gguf")


PARTS = ("x-00001-of-00003.gguf", "x-00002-of-00003.gguf", "x-00003-of-00003.gguf")


def write_part(path: Path, number: int, keep: Callable[[str], bool], *, count: int = 3, **more: Any) -> None:
    def also(writer: Any) -> None:
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", count)
        writer.add_int32("split.tensors.count", more.get("tensors", 21))
        if "name" in more:
            writer.add_name(more["name"])

    write_gguf(path, llama(), also=also, keep=keep)


def in_part(number: int) -> Callable[[str], bool]:
    """The head is in the last part: a reader of the first part alone would take it for a tied one."""
    return lambda name: ("blk.1" in name) + 2 * (name == "output.weight") == number


def split(folder: Path) -> Path:
    for number, name in enumerate(PARTS):
        write_part(folder / name, number, in_part(number))
    return folder / PARTS[0]


def test_every_part_of_a_split_model_is_read(tmp_path: Path) -> None:
    assert_same_logits(split(tmp_path), llama())


def swap(folder: Path) -> None:
    (folder / PARTS[1]).rename(folder / "y")
    (folder / PARTS[2]).rename(folder / PARTS[1])
    (folder / "y").rename(folder / PARTS[2])


@pytest.mark.parametrize(
    ("change", "names", "says"),
    [
        (lambda f: (f / PARTS[1]).unlink(), PARTS[1], "missing: part 2 of 3"),
        (swap, PARTS[1], "split.no: expected 1, as it is part 2 of x-00001-of-00003.gguf, got 2"),
        (
            lambda f: write_part(f / PARTS[1], 1, in_part(1), name="other"),
            PARTS[1],
            "general.name: expected None, as it is part 2 of x-00001-of-00003.gguf, got 'other'",
        ),
        (lambda f: write_part(f / PARTS[1], 1, in_part(1), count=4), PARTS[1], "split.count: expected 3"),
        (
            lambda f: write_part(f / PARTS[1], 1, in_part(1), tensors=20),
            PARTS[1],
            "split.tensors.count: expected 21",
        ),
        (
            lambda f: write_part(f / PARTS[1], 1, lambda name: "blk.1.attn" in name),
            PARTS[0],
            "split.tensors.count: expected 17, as all parts together have, got 21",
        ),
        (
            lambda f: write_part(f / PARTS[1], 1, lambda name: "blk" in name),
            PARTS[1],
            "weight: is in x-00001-of-00003.gguf already",
        ),
        (lambda f: write_gguf(f / PARTS[1], llama()), PARTS[1], "expected"),
        (
            lambda f: write_gguf(f / PARTS[0], llama()),
            PARTS[0],
            "split.count: expected 3, as the file's name says",
        ),
        (lambda f: write_part(f / PARTS[0], 0, in_part(0), count=2), PARTS[0], "-00001-of-00002.gguf"),
        (
            lambda f: write_part(f / PARTS[0], 7, in_part(0)),
            PARTS[0],
            "expected split.no from 0 up to below split.count",
        ),
        (lambda f: (f / PARTS[2]).write_bytes(b""), PARTS[2], "not a GGUF file"),
    ],
)
def test_parts_that_do_not_belong_together_are_named(
    change: Callable[[Path], Any], names: str, says: str, tmp_path: Path
) -> None:
    path = split(tmp_path)
    change(tmp_path)
    with pytest.raises(DataError) as caught:
        GgufFile(path)
    assert str(caught.value).startswith(str(tmp_path / names))
    assert says in str(caught.value)


def test_a_later_part_says_which_is_the_first(tmp_path: Path) -> None:
    split(tmp_path)
    with pytest.raises(DataError, match=r"expected the first part of 3, x-00001-of-00003.gguf, got part 3"):
        GgufFile(tmp_path / PARTS[2])


def test_a_part_under_another_name_is_refused(tmp_path: Path) -> None:
    split(tmp_path).rename(tmp_path / "model.gguf")
    with pytest.raises(DataError, match=r"expected a name that ends in -00001-of-00003.gguf"):
        GgufFile(tmp_path / "model.gguf")


def rewritten(
    *changes: tuple[bytes, bytes], also: Callable[[Any], Any] = lambda w: None
) -> Callable[[Path], None]:
    """A file with one kind of damage."""

    def write(path: Path) -> None:
        write_gguf(path, llama(), also=also)
        content = path.read_bytes()
        for old, new in changes:
            assert old in content
            content = content.replace(old, new, 1)
        path.write_bytes(content)

    return write


def cut(share: float) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        write_gguf(path, llama())
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    return write


def count(where: int, number: int) -> Callable[[Path], None]:
    """Another number in the header: the version at byte 4, the tensors at 8, the keys at 16."""

    def write(path: Path) -> None:
        write_gguf(path, llama())
        content = path.read_bytes()
        size = 4 if where == 4 else 8
        path.write_bytes(content[:where] + number.to_bytes(size, "little") + content[where + size :])

    return write


def extra(name: str, values: Any) -> Callable[[Path], None]:
    return lambda path: write_gguf(path, llama(), also=lambda w: w.add_tensor(name, np.array(values)))


def tensor_field(name: bytes, after: int, value: int) -> Callable[[Path], None]:
    """Another number `after` bytes after a tensor's name: the first size at 4, the offset at 24."""

    def write(path: Path) -> None:
        write_gguf(path, llama())
        content = path.read_bytes()
        at = content.index(name) + len(name) + after
        path.write_bytes(content[:at] + value.to_bytes(8, "little") + content[at + 8 :])

    return write


# The description of a matrix: 4 bytes for the number of sizes, 8 for each, 4 for its type, 8 for its offset.
DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "not a GGUF file"),
    "no magic": (lambda path: path.write_bytes(b"PK\3\4" * 50), "GGUF magic invalid"),
    "magic only": (lambda path: path.write_bytes(b"GGUF"), "not a GGUF file"),
    "cut in the keys": (cut(0.01), "not a GGUF file"),
    "cut in the tensors": (cut(0.5), "it ends at byte"),
    "without its last byte": (cut(0.99999), "it ends at byte"),
    "version 1": (count(4, 1), "version 1"),
    "version 9": (count(4, 9), "version 9"),
    "big-endian": (
        lambda path: write_gguf(path, llama(), endian=gguf.GGUFEndian.BIG),
        "expected a little-endian GGUF file, got a big-endian one",
    ),
    "more keys than it has": (count(16, 2**60), "not a GGUF file"),
    "more tensors than it has": (count(8, 2**60), "not a GGUF file"),
    "a tensor fewer": (count(8, 20), "expected to end at byte"),
    "a doubled key": (
        rewritten(
            (b"llama.clock_count", b"llama.block_count"), also=lambda w: w.add_uint32("llama.clock_count", 1)
        ),
        "Duplicate llama.block_count",
    ),
    "a doubled tensor": (rewritten((b"blk.1.attn_q", b"blk.0.attn_q")), "blk.0.attn_q.weight"),
    "bytes behind the end": (
        lambda path: (write_gguf(path, llama()), path.write_bytes(path.read_bytes() + bytes(64))),
        "expected to end at byte",
    ),
    "a tensor beyond the file": (tensor_field(b"blk.0.ffn_up.weight", 24, 2**40), "it ends at byte"),
    "two tensors in one place": (tensor_field(b"blk.0.ffn_up.weight", 24, 0), "expected to begin at byte"),
    "a tensor of no size": (tensor_field(b"output.weight", 12, 0), "expected"),
    "a tensor of another size": (tensor_field(b"blk.0.attn_q.weight", 12, 24), "expected"),
    "sizes that overflow": (tensor_field(b"blk.0.attn_q.weight", 12, 2**62), "not a GGUF file"),
    "an array without end": (
        rewritten(
            (
                b"general.odd" + bytes([9, 0, 0, 0, 5, 0, 0, 0, 1]),
                b"general.odd" + bytes([9, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 64]),
            ),
            also=lambda w: w.add_array("general.odd", [7]),
        ),
        "a list of 274877906944 values",
    ),
    "text that is none": (
        rewritten((b"no text", b"\xff\xfe\xfd\xfc\xfb\xfa\xf9"), also=lambda w: w.add_type("no text")),
        "general.type: cannot be read",
    ),
    "a bias of attention": (extra("blk.0.attn_q.bias", [0.5] * 48), "blk.0.attn_q.bias"),
    "norms of queries": (extra("blk.1.attn_q_norm.weight", [0.5] * 12), "blk.1.attn_q_norm.weight"),
    "experts": (extra("blk.0.ffn_gate_inp.weight", [0.5] * 48), "blk.0.ffn_gate_inp.weight"),
    "one tensor for three": (extra("blk.0.attn_qkv.weight", [0.5] * 48), "blk.0.attn_qkv.weight"),
    "a name of transformers": (extra("lm_head.weight", [0.5]), "lm_head.weight"),
    "a layer too many": (extra("blk.7.attn_norm.weight", [0.5] * 48), "layers.7"),
    "a layer spelled twice": (extra("blk.00.attn_norm.weight", [0.5] * 48), "blk.00.attn_norm.weight"),
    "factors of longrope": (extra("rope_factors_long.weight", [1.0] * 6), "rope_factors_long.weight"),
    "no embedding": (
        lambda path: write_gguf(path, llama(), keep=lambda name: name != "token_embd.weight"),
        "missing weights: token_embd.weight",
    ),
    "a layer that is not there": (
        lambda path: write_gguf(path, llama(), keep=lambda name: "blk.1.attn_v" not in name),
        "missing weights: model.layers.1.self_attn.v_proj.weight",
    ),
    "whole numbers for weights": (
        lambda path: write_gguf(
            path,
            llama(),
            keep=lambda name: name != "output_norm.weight",
            also=lambda w: w.add_tensor("output_norm.weight", np.ones(48, dtype=np.int32)),
        ),
        "output_norm.weight: quantized as I32, which cannot be read",
    ),
    "a folder": (lambda path: path.mkdir(), "config.json: cannot be read"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_said_in_one_line(damage: str, tmp_path: Path) -> None:
    write, says = DAMAGES[damage]
    write(tmp_path / "x.gguf")
    with pytest.raises(FrontrunnerError) as caught:
        import_model(tmp_path / "x.gguf", tmp_path / "out")
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "x.gguf"))
    assert says in message
    assert len(message.splitlines()) == 1
    assert len(message) < 400 + len(str(tmp_path))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("alignment", [8, 256])
def test_another_alignment_is_read(alignment: int, tmp_path: Path) -> None:
    theirs = llama()
    write_gguf(tmp_path / "x.gguf", theirs, also=lambda w: w.add_custom_alignment(alignment))
    assert_same_logits(tmp_path / "x.gguf", theirs)


@pytest.mark.parametrize(("kind", "dtype"), [("F16", torch.float16), ("BF16", torch.bfloat16)])
def test_half_precision_is_read_exactly(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    theirs = llama()
    write_gguf(tmp_path / "x.gguf", theirs, quantize=getattr(gguf.GGMLQuantizationType, kind))
    file = GgufFile(tmp_path / "x.gguf")
    for name, weight in theirs.named_parameters():
        expected = weight.to(dtype).float() if weight.ndim == 2 else weight
        torch.testing.assert_close(file[name], expected, rtol=0, atol=0)


def test_two_numbers_of_a_quantized_block_are_those_of_the_format(tmp_path: Path) -> None:
    """Q4_0: 32 weights are a half-precision scale times a nibble less 8, the low nibbles first."""
    block = np.concatenate([np.array([0.5], dtype=np.float16).view(np.uint8), np.arange(16, dtype=np.uint8)])
    block[2] = 0xF3
    norm = np.tile(block, 2)

    def also(writer: Any) -> None:
        writer.add_tensor("output_norm.weight", norm, raw_dtype=gguf.GGMLQuantizationType.Q4_0)

    write_gguf(tmp_path / "x.gguf", llama(), keep=lambda name: name != "output_norm.weight", also=also)
    values = GgufFile(tmp_path / "x.gguf")["model.norm.weight"]
    assert values[[0, 1, 16]].tolist() == [0.5 * (3 - 8), 0.5 * (1 - 8), 0.5 * (15 - 8)]

"""Files of a GGUF model: every part is read, and damage is said in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from operators.base.errors import DataError, FrontrunnerError
from operators.published.gguf_file import GgufFile
from search.runs.importing import import_model
from tests.helpers.gguf_reading import assert_same_logits, llama
from tests.helpers.gguf_writer import write_gguf

transformers = pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")

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

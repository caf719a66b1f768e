"""`frontrunner import`: from a published folder or file to one that `search.export.load` reads."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional as F

from operators import Architecture, HybridLM
from operators.errors import DataError
from proxy_train.documents import read_documents
from search.benchmarks.library.smollm2 import complete_and_score, published_file, scored_windows
from search.export import load
from search.importing import import_model
from tests.test_operators_import import write_gguf
from tests.test_operators_published import CASES, TOKENS, VOCABULARY, published_model

gguf = pytest.importorskip("gguf")

TEXT = [
    "the people of these states have a government and it serves them well",
    "in 1789 and 2026 there were 13 and 50 states",
]


def trained_tokenizer() -> Tokenizer:
    """A byte-level BPE of at most VOCABULARY tokens whose digits stand by themselves, as SmolLM2's do."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken("<|im_start|>", special=True)]
    tokenizer.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, show_progress=False)
    )
    return tokenizer


def saved(folder: Path, case: str = "llama-tied") -> Any:
    theirs = published_model(CASES[case]()[0])
    theirs.save_pretrained(folder)
    trained_tokenizer().save(str(folder / "tokenizer.json"))
    return theirs


@pytest.mark.parametrize("case", ["llama-tied", "qwen2", "nemotron_h"])
@torch.no_grad()
def test_an_imported_folder_loads_and_has_the_logits(call, tmp_path, case):
    theirs = saved(tmp_path / "Tiny-1.5B", case)
    code, out, err = call("import", tmp_path / "Tiny-1.5B")
    assert (code, err) == (0, "")
    architecture = CASES[case]()[1].model_copy(update={"name": "Tiny-1.5B"})
    count = sum(parameter.numel() for parameter in HybridLM(architecture).parameters())
    assert f"imported Tiny-1.5B, {count:,} parameters, to imported/Tiny-1.5B" in out
    model, tokenizer = load(Path("imported") / "Tiny-1.5B")
    assert model.architecture == Architecture.load("imported/Tiny-1.5B/architecture.yaml") == architecture
    assert tokenizer.to_str() == trained_tokenizer().to_str()
    tokens = torch.randint(VOCABULARY, (2, TOKENS))
    torch.testing.assert_close(model(tokens), theirs(tokens, use_cache=False).logits, rtol=0, atol=1e-4)


def test_a_folder_without_a_tokenizer_is_imported_and_says_so(call, tmp_path):
    saved(tmp_path / "tiny")
    (tmp_path / "tiny" / "tokenizer.json").unlink()
    code, out, _ = call("import", tmp_path / "tiny", "--to", tmp_path / "out")
    assert code == 0
    assert (
        f"no tokenizer.json, which search.export.load needs: {tmp_path / 'tiny'} has no tokenizer.json" in out
    )
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"architecture.yaml", "model.safetensors"}


def test_bad_input_is_one_line_and_writes_nothing(call, tmp_path):
    saved(tmp_path / "tiny")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "model.bin").write_bytes(b"")
    unknown = tmp_path / "unknown"
    saved(unknown)
    config = json.loads((unknown / "config.json").read_text())
    (unknown / "config.json").write_text(json.dumps({**config, "model_type": "gemma3"}))
    short = tmp_path / "short"
    saved(short)
    (short / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    for arguments, says in (
        (
            (tmp_path / "tiny", "--to", tmp_path / "full"),
            "full: exists already, expected a folder that is new or empty",
        ),
        (
            (tmp_path / "absent",),
            "absent: expected a Hugging Face folder or a .gguf file, found nothing there",
        ),
        (
            (tmp_path / "model.bin",),
            "expected a Hugging Face folder or a .gguf file, found a file of another kind",
        ),
        ((tmp_path / "full",), "full/config.json: cannot be read"),
        ((unknown,), "unknown/config.json: model_type: expected one of llama, qwen2"),
        ((short,), "missing weights: model.layers.2.input_layernorm.weight"),
    ):
        code, _, err = call("import", *arguments)
        assert code == 1
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert says in err
    assert not Path("imported").exists()
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["notes.txt"]


def test_a_disk_that_fails_half_way_leaves_nothing(tmp_path, monkeypatch):
    saved(tmp_path / "tiny")

    def full(*arguments):
        raise OSError("no space left on device")

    monkeypatch.setattr("search.importing.save_file", full)
    with pytest.raises(OSError, match="no space"):
        import_model(tmp_path / "tiny", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def gguf_with(path: Path, tokenizer: Tokenizer, *, pre: str = "smollm", **changes: Any) -> None:
    inside = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(inside["vocab"], key=inside["vocab"].get)
    tokens += [f"<unused{n}>" for n in range(VOCABULARY - len(tokens))]
    kinds = [3 if token.startswith("<|") else 1 for token in tokens]

    def also(writer: Any) -> None:
        writer.add_tokenizer_model(changes.get("model", "gpt2"))
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(changes.get("tokens", tokens))
        writer.add_token_types(kinds)
        writer.add_token_merges(changes.get("merges", [" ".join(pair) for pair in inside["merges"]]))

    write_gguf(path, published_model(CASES["llama-tied"]()[0]), also=also)


def test_a_gguf_file_brings_its_tokenizer(call, tmp_path):
    original = trained_tokenizer()
    gguf_with(tmp_path / "tiny.Q4.gguf", original)
    code, out, err = call("import", tmp_path / "tiny.Q4.gguf")
    assert (code, err) == (0, "")
    assert "to imported/tiny.Q4" in out
    assert "no tokenizer.json" not in out
    model, tokenizer = load("imported/tiny.Q4")
    assert model.architecture.name == "tiny.Q4"
    for text in (*TEXT, "<|im_start|>the states 1789<|im_start|>"):
        assert tokenizer.encode(text).ids == original.encode(text).ids
        assert tokenizer.decode(tokenizer.encode(text).ids) == original.decode(original.encode(text).ids)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"pre": "tekken"},
            "its tokenizer is gpt2 with tekken splitting; known is gpt2 with one of gpt-2, smollm",
        ),
        ({"model": "llama"}, "its tokenizer is llama with smollm splitting"),
    ],
)
def test_a_tokenizer_of_another_kind_is_left_out_and_said(call, tmp_path, changes, says):
    gguf_with(tmp_path / "tiny.gguf", trained_tokenizer(), **changes)
    code, out, _ = call("import", tmp_path / "tiny.gguf")
    assert code == 0
    assert says in out


@pytest.mark.parametrize(
    "changes",
    [{"tokens": ["a"] * VOCABULARY}, {"tokens": ["a", "b"]}, {"merges": ["abc"]}, {"merges": ["not there"]}],
)
def test_a_damaged_tokenizer_is_an_error(call, tmp_path, changes):
    gguf_with(tmp_path / "tiny.gguf", trained_tokenizer(), **changes)
    code, _, err = call("import", tmp_path / "tiny.gguf")
    assert code == 1
    assert "tiny.gguf: " in err
    assert "token" in err
    assert not any(Path("imported").iterdir())


@pytest.mark.parametrize("length", [2, 8, 9, 10, 17, 30])
@torch.no_grad()
def test_windows_score_every_token_once_with_enough_before_it(length):
    torch.manual_seed(0)
    model = HybridLM(Architecture.from_shorthand("a f m", width=32, vocabulary=50)).eval()
    tokens = torch.randint(50, (length,))
    windows = list(scored_windows(model, tokens, context=8, stride=3))
    assert [number for window in windows for number in range(window.first, window.last + 1)] == list(
        range(1, length)
    )
    for window in windows:
        begin = max(0, window.last - 8)
        assert window.first - begin >= min(window.first, 8 - 3)
        losses = [
            F.cross_entropy(model(tokens[None, begin:number])[0, -1], tokens[number]).item()
            for number in range(window.first, window.last + 1)
        ]
        assert window.nats == pytest.approx(sum(losses), rel=1e-5)
        assert window.perplexity == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-5)


@pytest.mark.slow
def test_smollm2_knows_the_capital_of_france_and_reads_new_addresses(monkeypatch):
    try:
        published_file()
    except DataError as error:
        pytest.skip(str(error))
    # The beginning of the newest address: `frontrunner bench smollm2` reads three of them in full.
    monkeypatch.setattr(
        "search.benchmarks.library.smollm2.read_documents",
        lambda source: [list(read_documents(source))[-1][:10_000]],
    )
    figures = complete_and_score("cpu", Console(quiet=True)).figures
    assert figures["parameters"] == 134_515_008
    assert str(figures["completion"]).startswith("The capital of France is Paris")
    assert figures["perplexity_per_token"] < 20

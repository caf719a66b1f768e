"""`frontrunner import`: from a published folder or file to one that `frontrunner.load` reads."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from operators import Architecture, HybridLM
from operators.base.errors import DataError
from operators.published.held import as_family
from search.runs.export import load
from search.runs.importing import import_model, read_published
from tests.helpers.exportable_models import random_model, save_held
from tests.helpers.gguf_writer import write_gguf
from tests.helpers.published_models import (
    CASES,
    FEEDFORWARD,
    MAMBA2,
    TOKENS,
    VOCABULARY,
    architecture,
    published_model,
)

gguf = pytest.importorskip("gguf")

TEXT = [
    "the people of these states have a government and it serves them well",
    "in 1789 and 2026 there were 13 and 50 states",
]


def trained_tokenizer(size: int = VOCABULARY) -> Tokenizer:
    """A byte-level BPE of at most `size` tokens whose digits stand by themselves, as SmolLM2's do."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken("<|im_start|>", special=True)]
    tokenizer.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    )
    return tokenizer


def saved(folder: Path, case: str = "llama-tied") -> Any:
    theirs = published_model(CASES[case]()[0])
    theirs.save_pretrained(folder)
    trained_tokenizer().save(str(folder / "tokenizer.json"))
    return theirs


def test_the_context_and_the_multipliers_of_a_hybrid_are_read(tmp_path):
    kda = {"operator": "kda", "shape": {"heads": 2, "key_dim": 8, "value_dim": 8}}
    model = random_model(architecture([kda, FEEDFORWARD], rope=None))
    save_held(as_family(model.architecture, "kimi_linear"), model, tmp_path, model_max_length=77)
    assert read_published(tmp_path).context == 77
    model = random_model(architecture([MAMBA2, FEEDFORWARD]))
    held = as_family(model.architecture, "granitemoehybrid")
    save_held(held, model, tmp_path, residual_multiplier=0.5)
    read = read_published(tmp_path)
    (remark,) = read.remarks
    assert "multipliers" in remark
    for name, weight in read.weights.items():
        times = 0.5 if name.endswith(("out_proj.weight", "down_proj.weight")) else 1
        assert torch.equal(weight, times * model.state_dict()[name]), name


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


def test_steps_that_transformers_would_raise_are_told(call, tmp_path):
    saved(tmp_path / "tiny", "nemotron_h")
    config = json.loads((tmp_path / "tiny" / "config.json").read_text())
    (tmp_path / "tiny" / "config.json").write_text(json.dumps({**config, "time_step_min": 0.001}))
    code, out, _ = call("import", tmp_path / "tiny")
    assert code == 0
    assert "time_step_min 0.001: transformers raises shorter steps of Mamba2 layers to it" in out


def test_a_folder_without_a_tokenizer_is_imported_and_says_so(call, tmp_path):
    saved(tmp_path / "tiny")
    (tmp_path / "tiny" / "tokenizer.json").unlink()
    code, out, _ = call("import", tmp_path / "tiny", "--to", tmp_path / "out")
    assert code == 0
    assert (
        f"no tokenizer.json, which frontrunner.load needs: {tmp_path / 'tiny'} has no tokenizer.json" in out
    )
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"architecture.yaml", "model.safetensors"}


def test_tokens_without_a_row_are_told_and_cannot_be_read(call, tmp_path):
    saved(tmp_path / "tiny")
    tokenizer = trained_tokenizer()
    size = tokenizer.get_vocab_size()
    tokenizer.add_tokens([f"<extra {number}>" for number in range(VOCABULARY + 7 - size)])
    tokenizer.save(str(tmp_path / "tiny" / "tokenizer.json"))
    code, out, err = call("import", tmp_path / "tiny", "--to", tmp_path / "out")
    assert (code, err) == (0, "")
    first = VOCABULARY - size
    named = ", ".join(f"<extra {first + number}> ({VOCABULARY + number})" for number in range(5))
    assert out.endswith(
        f"tokenizer.json: the tokenizer has ids up to {VOCABULARY + 6}, the embedding has {VOCABULARY} rows: "
        f"the model cannot read {named} and 2 more\n"
    )
    model, tokenizer = load(tmp_path / "out")
    assert len(model.generate(tokenizer.encode("the states").ids, 3)) > 3
    ids = tokenizer.encode(f"the <extra {first}>").ids
    with pytest.raises(
        DataError,
        match=rf"prompt: token {len(ids) - 1} has id {VOCABULARY}, expected from 0 to {VOCABULARY - 1}",
    ):
        model.generate(ids, 1)


@torch.no_grad()
def test_an_id_without_a_token_is_generated_and_decoded_without_a_crash(tmp_path):
    saved(tmp_path / "tiny")
    tokenizer = Tokenizer(
        models.BPE(
            {letter: n for n, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet())[:50])}, []
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(tmp_path / "tiny" / "tokenizer.json"))
    assert import_model(tmp_path / "tiny", tmp_path / "out").remarks == ()
    model, tokenizer = load(tmp_path / "out")
    model.embedding.weight[:50] = (
        0  # tied: the logits of all ids with a token are 0, that of one of the others is not
    )
    model.embedding.weight[1] = 1
    model.embedding.weight[-1] = 100 * model.hidden(torch.tensor([[1]]))[0, -1]
    ids = model.generate([1], 1)
    assert ids == [1, VOCABULARY - 1]
    assert tokenizer.decode(ids) == tokenizer.decode([1])


@pytest.mark.parametrize(
    ("tokens", "count", "says"),
    [
        ([], 3, "prompt: expected at least one token id, got none"),
        ([3, -1], 3, r"prompt: token 1 has id -1, expected from 0 to 49"),
        ([50], 3, r"prompt: token 0 has id 50, expected from 0 to 49: the model has 50 rows"),
        ([3], -1, "count: expected from 0 on, got -1"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_one_line(tokens, count, says):
    model = HybridLM(Architecture.from_shorthand("a f", width=32, vocabulary=50)).eval()
    with pytest.raises(DataError, match=says):
        model.generate(tokens, count)


@pytest.mark.parametrize("content", ["", "[]", '{"model": {"type": "Phonemes", "vocab": {"a": 0}}}'])
def test_a_folder_with_a_damaged_tokenizer_is_one_line(call, tmp_path, content):
    saved(tmp_path / "tiny")
    (tmp_path / "tiny" / "tokenizer.json").write_text(content)
    code, _, err = call("import", tmp_path / "tiny", "--to", tmp_path / "out")
    assert code == 1
    assert err.count("\n") == 1
    assert "tiny/tokenizer.json: not a tokenizer.json that can be read: " in err
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_in_another_file_is_named(call, tmp_path):
    saved(tmp_path / "tiny")
    (tmp_path / "tiny" / "tokenizer.json").unlink()
    (tmp_path / "tiny" / "tokenizer.model").write_bytes(b"sentencepiece")
    code, out, _ = call("import", tmp_path / "tiny", "--to", tmp_path / "out")
    assert code == 0
    assert "has no tokenizer.json; it has tokenizer.model, of which `transformers.AutoTokenizer" in out


def test_an_imported_tokenizer_adds_what_it_was_published_with_and_cuts_nothing(tmp_path):
    saved(tmp_path / "tiny")
    tokenizer = trained_tokenizer()
    first = tokenizer.token_to_id("<|im_start|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", first)]
    )
    tokenizer.save(str(tmp_path / "whole.json"))
    tokenizer.enable_truncation(4)
    tokenizer.save(str(tmp_path / "tiny" / "tokenizer.json"))
    import_model(tmp_path / "tiny", tmp_path / "out")
    expected = Tokenizer.from_file(str(tmp_path / "whole.json")).encode(TEXT[0]).ids
    assert expected[0] == first
    assert load(tmp_path / "out")[1].encode(TEXT[0]).ids == expected
    assert Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json")).encode(TEXT[0]).ids == expected


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

    monkeypatch.setattr("search.runs.importing.save_file", full)
    with pytest.raises(OSError, match="no space"):
        import_model(tmp_path / "tiny", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def gguf_with(path: Path, tokenizer: Tokenizer, *, pre: Any = "smollm", **changes: Any) -> None:
    inside = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(inside["vocab"], key=inside["vocab"].get)
    tokens += [f"<unused{n}>" for n in range(VOCABULARY - len(tokens))]
    kinds = [3 if token.startswith("<|") else 1 for token in tokens]

    def also(writer: Any) -> None:
        writer.add_tokenizer_model(changes.get("model", "gpt2"))
        (writer.add_array if isinstance(pre, list) else writer.add_string)("tokenizer.ggml.pre", pre)
        writer.add_token_list(changes.get("tokens", tokens))
        writer.add_token_types(changes.get("kinds", kinds))
        for which in ("bos", "eos"):
            if f"{which}_id" in changes:
                getattr(writer, f"add_{which}_token_id")(changes[f"{which}_id"])
            if f"add_{which}" in changes:
                getattr(writer, f"add_add_{which}_token")(changes[f"add_{which}"])
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


LLAMA_3 = (  # as in the tokenizer.json of meta-llama/Meta-Llama-3-8B
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
)


@pytest.mark.parametrize("adds", [None, False])
def test_the_tokenizer_of_a_llama_3_splits_as_the_published_one(call, tmp_path, adds):
    inside = json.loads(trained_tokenizer(VOCABULARY - 20).to_str())
    vocabulary = inside["model"]["vocab"]
    for more in "IT'S4567L,…été!Ċč³":
        vocabulary.setdefault(more, len(vocabulary))
    vocabulary["ĠSTATES"] = len(vocabulary)  # no merge leads to it: it is used where it is a whole piece
    assert len(vocabulary) <= VOCABULARY
    inside["model"]["ignore_merges"] = True
    inside["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": LLAMA_3}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        ],
    }
    original = Tokenizer.from_str(json.dumps(inside))
    changes = {} if adds is None else {"add_bos": adds}
    gguf_with(tmp_path / "tiny.gguf", original, pre="llama-bpe", bos_id=1, **changes)
    assert call("import", tmp_path / "tiny.gguf")[0] == 0
    tokenizer = Tokenizer.from_file("imported/tiny/tokenizer.json")
    texts = (*TEXT, "IT'S 17891234,  they'LL\r\n\n \t go! STATES STATES!", "1²³4567 a's", "<|im_start|>a\n")
    for text in texts:
        assert tokenizer.encode(text).ids == [1] * (adds is None) + original.encode(text).ids
    assert vocabulary["ĠSTATES"] in tokenizer.encode(texts[-3]).ids


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"pre": "tekken"},
            "its tokenizer is gpt2 with tekken splitting; known is gpt2 with one of gpt-2, smollm, "
            "llama-bpe, llama3, llama-v3, falcon3",
        ),
        ({"model": "llama"}, "its tokenizer is llama with smollm splitting"),
        ({"pre": ["smollm"]}, "its tokenizer is gpt2 with ['smollm'] splitting"),
    ],
)
def test_a_tokenizer_of_another_kind_is_left_out_and_said(call, tmp_path, changes, says):
    gguf_with(tmp_path / "tiny.gguf", trained_tokenizer(), **changes)
    code, out, _ = call("import", tmp_path / "tiny.gguf")
    assert code == 0
    assert says in out


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": ["a"] * VOCABULARY},
        {"tokens": ["a", "b"]},
        {"tokens": [""] + [str(n) for n in range(VOCABULARY - 1)]},
        {"tokens": list(range(VOCABULARY))},
        {"merges": ["abc"]},
        {"merges": ["not there"]},
        {"merges": [" a"]},
        {"merges": ["~ ~"]},  # of two tokens that are there, and one that is not
        {"merges": [1, 2]},
        {"kinds": [7] * VOCABULARY},
        {"kinds": [1, 1]},
        {"bos_id": VOCABULARY},
        {"eos_id": 4_000_000_000, "add_eos": False},
        {"add_bos": True},
    ],
)
def test_a_damaged_tokenizer_is_an_error(call, tmp_path, changes):
    gguf_with(tmp_path / "tiny.gguf", trained_tokenizer(), **changes)
    code, _, err = call("import", tmp_path / "tiny.gguf")
    assert code == 1
    assert "tiny.gguf: " in err
    assert "token" in err
    assert not Path("imported").exists()


@pytest.mark.parametrize("begins", [None, False, True])
@pytest.mark.parametrize("ends", [None, False, True])
def test_tokens_before_and_behind_a_text_are_those_of_the_gguf_file(call, tmp_path, begins, ends):
    original, added = trained_tokenizer(), {"add_bos": begins, "add_eos": ends}
    changes = {name: flag for name, flag in added.items() if flag is not None}
    gguf_with(tmp_path / "tiny.gguf", original, bos_id=0, eos_id=2, **changes)
    assert call("import", tmp_path / "tiny.gguf")[0] == 0
    tokenizer = Tokenizer.from_file("imported/tiny/tokenizer.json")
    plain = original.encode(TEXT[0]).ids
    assert tokenizer.encode(TEXT[0]).ids == [0] * bool(begins) + plain + [2] * bool(ends)
    assert tokenizer.encode(TEXT[0], add_special_tokens=False).ids == plain
    pair = [0] * bool(begins) + plain + [2] * bool(ends)
    assert tokenizer.encode(TEXT[0], TEXT[0]).ids == pair + pair

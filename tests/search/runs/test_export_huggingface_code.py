"""Any model exported with its own code computes the same in transformers, without this project."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from operators import Architecture, HybridLM, registry
from operators.base.errors import DataError, RunError
from search.cli.app import app
from search.runs.export_huggingface_code import export_huggingface_code
from search.runs.exportable import Exportable
from tests.helpers.exportable_models import random_model
from tests.helpers.tokenizers import merged

pytest.importorskip("transformers")

WIDTH, ROWS, PROMPT, NEW = 32, 67, 37, 27  # a prompt and an answer of 64 tokens together
MIXERS = [name for name in registry.library_names() if registry.get(name).kind == "mixer"]
# Few models with several mixers each, as loading takes longer than computing.
LAYERS = {f"mixers{part}": [*MIXERS[part::2], "swiglu"] for part in range(2)}
LAYERS["mixed"] = ["rwkv7", "relu2", "kda", "swiglu", "attention"]
CHANGES = {
    "mixed": {"meta_tokens": 3, "normalized_head": True, "tied_embeddings": False},
    "window": {
        "meta_tokens": 2,
        "rope": {"theta": 500.0, "scaling": {"factor": 4.0, "original_context": 16}},
    },
}

# Runs where none of this project can be imported: loads each folder and saves what it computes.
READER = """
import importlib.util, pathlib, sys
import torch
from transformers import AutoModelForCausalLM
assert importlib.util.find_spec("operators") is None and importlib.util.find_spec("search") is None
torch.set_num_threads(1)
root = pathlib.Path(sys.argv[1])
found = {}
for folder in sorted(path for path in root.iterdir() if path.is_dir()):
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
    tokens = torch.load(root / "tokens.pt")
    new = dict(max_new_tokens=27, do_sample=False, eos_token_id=None, pad_token_id=0)
    with torch.no_grad():
        whole = model(tokens, use_cache=False).logits
        out = model(tokens[:, :30])
        steps = [out.logits]
        for place in range(30, 64):
            out = model(tokens[:, place : place + 1], past_key_values=out.past_key_values)
            steps.append(out.logits)
        lengths = (37, 5, 1)
        padded = torch.zeros(3, 37, dtype=torch.long)
        mask = torch.zeros_like(padded)
        for row, length in enumerate(lengths):
            padded[row, 37 - length :] = tokens[0, :length]
            mask[row, 37 - length :] = 1
        rows = model(padded, attention_mask=mask).logits[:, -1]
        texts = model.generate(padded, attention_mask=mask, **new)[:, 37:]
        drawn = model.generate(tokens[:, :3], **{**new, "do_sample": True, "max_new_tokens": 3})
        assert drawn.shape == (1, 6)
        beams = model.generate(tokens[:, :3], **{**new, "num_beams": 2, "max_new_tokens": 3})
        assert beams.shape == (1, 6)
    again = root.parent / "again" / folder.name
    model.save_pretrained(again)
    second = AutoModelForCausalLM.from_pretrained(again, trust_remote_code=True).eval()
    with torch.no_grad():
        assert torch.equal(second(tokens, use_cache=False).logits, whole)
    half = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.bfloat16)
    with torch.no_grad():
        assert half(tokens[:, :9]).logits.isfinite().all()
    kinds = {name: str(value.dtype) for name, value in half.state_dict().items()}
    found[folder.name] = (whole, torch.cat(steps, 1), rows, texts, kinds)
torch.save(found, root / "found.pt")
"""


def gla() -> Architecture:
    return Architecture.from_shorthand("gla swiglu", width=WIDTH, vocabulary=ROWS)


def architecture_of(name: str) -> Architecture:
    if name != "window":
        text = " ".join(LAYERS[name])
        genes = {"attention": {"head_dim": 8}, "mamba2": {"head_dim": 8}}
        made = Architecture.from_shorthand(
            text, width=WIDTH, vocabulary=ROWS, genes=genes, **CHANGES.get(name, {})
        )
        if name == "mixed":
            layers = [
                layer.model_copy(update={"norm": "layernorm", "norm_position": position})
                for layer, position in zip(made.layers, ["after", "before"] * 3, strict=False)
            ]
            made = made.model_copy(update={"layers": tuple(layers)})
        return made
    shape = {"heads": 4, "kv_heads": 2, "head_dim": 8, "window": 7, "qk_norm": "head"}
    data = {"width": WIDTH, "vocabulary": ROWS, "layers": [{"operator": "attention", "shape": shape}, "f"]}
    return Architecture.parse({**data, **CHANGES["window"]})


def test_models_of_every_operator_are_the_same_without_this_project(tmp_path: Path) -> None:
    torch.manual_seed(3)
    root = tmp_path / "folders"
    tokens = torch.randint(ROWS, (1, PROMPT + NEW))
    models: dict[str, HybridLM] = {}
    for name in [*LAYERS, "window"]:
        model = models[name] = random_model(architecture_of(name))
        weights = {key: tensor.detach() for key, tensor in model.state_dict().items()}
        export_huggingface_code(Exportable(name, model.architecture, weights), root / name)
    torch.save(tokens, root / "tokens.pt")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    # -S -I would lose the packages: site-packages alone, without the links of an editable installation.
    packages = str(Path(torch.__file__).parents[1])
    code = f"import sys; sys.path.append({packages!r}); sys.argv = ['', {str(root)!r}]\n{READER}"
    done = subprocess.run(
        [sys.executable, "-S", "-I", "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = torch.load(root / "found.pt")
    for name, model in models.items():
        whole, steps, rows, texts, kinds = found[name]
        with torch.no_grad():
            ours = model(tokens)
        close = 1e-4 * float(ours.abs().max())
        assert (whole - ours).abs().max() <= close, name
        assert (steps - ours).abs().max() <= close, name
        for row, length in enumerate((PROMPT, 5, 1)):
            assert (rows[row] - ours[0, length - 1]).abs().max() <= close, (name, length)
            prompt = tokens[0, :length].tolist()
            assert texts[row].tolist() == model.generate(prompt, NEW)[length:], (name, length)
        bf16 = HybridLM(model.architecture, backend="reference", dtype=torch.bfloat16).state_dict()
        assert kinds == {f"model.{key}": str(tensor.dtype) for key, tensor in bf16.items()}, name


def test_a_tokenizer_that_does_not_match_leaves_nothing(tmp_path: Path) -> None:
    model = random_model(architecture_of("window"))
    weights = {key: tensor.detach() for key, tensor in model.state_dict().items()}
    with pytest.raises(DataError, match="tokenizer has ids up to"):
        export_huggingface_code(
            Exportable("x", model.architecture, weights, tokenizer=merged()), tmp_path / "out"
        )
    assert not list(tmp_path.iterdir())


def test_a_folder_that_exists_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("", encoding="utf-8")
    model = random_model(gla())
    with pytest.raises(RunError, match="exists already"):
        export_huggingface_code(Exportable("x", model.architecture, dict(model.state_dict())), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_model_that_no_class_holds_is_sent_here(tmp_path: Path) -> None:
    file = tmp_path / "gla.yaml"
    file.write_text(gla().to_yaml(), encoding="utf-8")
    to = tmp_path / "out"
    command = ["export", str(file), "--to", str(to), "--format"]
    refused = CliRunner().invoke(app, [*command, "huggingface", "--random-weights"])
    assert "--format huggingface-code" in str(refused.exception)
    bare = CliRunner().invoke(app, [*command, "huggingface-code"])
    assert "--random-weights" in str(bare.exception)
    assert not to.exists()
    assert CliRunner().invoke(app, [*command, "huggingface-code", "--random-weights"]).exit_code == 0
    assert (to / "modeling_frontrunner.py").is_file()

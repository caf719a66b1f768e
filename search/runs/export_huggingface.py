"""Writes a model as a folder that `transformers` loads, with none of our code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from operators.base.errors import ArchitectureError, RunError
from operators.base.files import whole_folder
from operators.published.folding import folded
from operators.published.held import Held, hold
from operators.published.outward import published_tensors
from operators.published.vision_outward import CLASS, FAMILY
from search.runs.export_huggingface_vision import vision_folder
from search.runs.exportable import Exportable, Eyes
from search.runs.huggingface_tokenizer import tokenizer_files
from search.runs.model_card import model_card
from search.runs.sharded import save

LONGEST = 32_768  # tokens of context where that of the training is not known


def export_huggingface(model: Exportable, to: Path) -> list[str]:
    """Writes the folder, all of it or nothing.

    to: a new or empty folder.

    Returns lines for the user.

    Raises ArchitectureError, which names the layer or gene that no class has, DataError for a tokenizer that
    does not match, and RunError for a folder that is in use or cannot be written.
    """
    require_new(to)
    if model.eyes is not None:
        return _export_seeing(model, model.eyes, to)
    architecture, weights = folded(model.architecture, model.weights)
    try:
        held = hold(architecture)
    except ArchitectureError as error:
        raise ArchitectureError(
            f"{model.title}: {error}; --format huggingface-code writes it with its own code"
        ) from None
    files = tokenizer_files(model)
    remarks = _remarks(model, held)
    texts = {
        **files,
        "config.json": as_json({**held.config, **_of_model(model)}),
        "generation_config.json": as_json(_generation(model)),
        "README.md": model_card(model, held.class_name, held.family, remarks),
    }
    write_folder(to, published_tensors(held, weights), texts)
    return remarks


def _export_seeing(model: Exportable, eyes: Eyes, to: Path) -> list[str]:
    """The same of a model that sees."""
    held, tensors, files, remarks = vision_folder(model, eyes)
    own = _of_model(model)
    text = {**held.config["text_config"], **own}
    texts = {
        **files,
        "config.json": as_json({**held.config, **own, "text_config": text}),
        "generation_config.json": as_json(_generation(model)),
        "README.md": model_card(model, CLASS, FAMILY, remarks),
    }
    write_folder(to, tensors, texts)
    return remarks


def require_new(to: Path) -> None:
    """Raises RunError for a folder that holds something, or a file."""
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise RunError(f"{to}: exists already, expected a folder that is new or empty")


def write_folder(to: Path, tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> None:
    """Writes tensors, and texts by the names of their files, all or nothing. Raises RunError."""
    try:
        with whole_folder(to) as partial:
            save(tensors, partial)
            for name, text in texts.items():
                (partial / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"{to}: cannot be written: {error.strerror or error}") from None


def special_ids(model: Exportable) -> dict[str, int | None]:
    """The special tokens of config.json."""
    end = None
    if model.tokenizer is not None and model.end is not None:
        end = model.tokenizer.token_to_id(model.end)
    return {"bos_token_id": None, "eos_token_id": end, "pad_token_id": end}


def _of_model(model: Exportable) -> dict[str, Any]:
    """What config.json says besides the architecture."""
    dtype = str(model.weights["embedding.weight"].dtype).removeprefix("torch.")
    context = LONGEST if model.context is None else model.context + model.architecture.meta_tokens
    return {**special_ids(model), "max_position_embeddings": context, "dtype": dtype}


def _generation(model: Exportable) -> dict[str, Any]:
    rows, meta = model.architecture.vocabulary, model.architecture.meta_tokens
    never = {"suppress_tokens": list(range(rows, rows + meta))} if meta else {}
    # Greedy, as `generate` here: a pipeline would otherwise draw tokens at random.
    return {**special_ids(model), "do_sample": False, **never}


def _remarks(model: Exportable, held: Held) -> list[str]:
    """Lines about what the class does not have as the model has it."""
    remarks = []
    if held.zeros:
        itemsize = model.weights["embedding.weight"].element_size()
        counts = {"layer": len(held.published.padding), "tensor": len(held.published.zeros)}
        more = " and ".join(
            f"{count} more {what}{'s' if count > 1 else ''}" for what, count in counts.items() if count
        )
        remarks.append(
            f"{held.class_name} wants {more}, which hold zeros: "
            f"a decode step reads {held.zeros * itemsize:,} bytes more"
        )
    if model.architecture.normalized_head:
        remarks.append("the normalized head became a plain one")
    if count := model.architecture.meta_tokens:
        rows = model.architecture.vocabulary
        remarks.append(
            f"the {count} meta tokens became ids {rows} to {rows + count - 1}, which the tokenizer puts "
            "before each text; the logits of these ids mean nothing, and generate never chooses them"
        )
    if model.random:
        remarks.append("the weights are random")
    if model.tokenizer is None:
        remarks.append("there is no tokenizer")
    return remarks


def as_json(value: Any) -> str:
    """The text of a JSON file."""
    return json.dumps(value, indent=1) + "\n"

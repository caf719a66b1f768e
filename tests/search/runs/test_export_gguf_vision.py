"""A model that sees as two GGUF files with its tokenizer: llama.cpp reads a text with an image as we do."""

from pathlib import Path

import pytest
import torch

from operators.published.vision_families import LANGUAGE
from search.runs.export_gguf import export_gguf
from search.runs.exportable import Exportable, Eyes
from tests.helpers.gguf_eyes import picture, random_model, rounded, value
from tests.helpers.llama_cpp import MARKER, Seen, ask
from tests.search.runs.test_gguf_vocabulary import END, trained

pytest.importorskip("gguf")


@torch.no_grad()
def test_a_candidate_answers_a_question_on_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches take the last id for the placeholder, which may be a word of the tokenizer."""
    tokenizer = trained()
    placeholder = tokenizer.get_vocab_size() - 1
    word = tokenizer.decode([placeholder]).strip()
    assert tokenizer.encode(f"the {word}").ids[-1] == placeholder
    member = value(projector={"pixel_shuffle": 1}, vocabulary=placeholder + 1).model_copy(
        update={"image_token": placeholder}
    )
    model, to = random_model(member), tmp_path / "x.gguf"
    parts: tuple[dict[str, torch.Tensor], ...] = ({}, {})
    for name, tensor in model.state_dict().items():
        parts[name.startswith(LANGUAGE)][name.removeprefix(LANGUAGE)] = tensor
    eyes, language = parts
    source = Exportable(
        "run-3", member.language, language, Eyes(member, eyes), tokenizer=tokenizer, end=END, context=128
    )
    remarks = export_gguf(source, to, dtype="F32")
    assert f"tower and projector are in {tmp_path / 'mmproj-x.gguf'}, for --mmproj of llama.cpp" in remarks
    image, pixels = picture(16, 16)
    asked = [Seen(f"{MARKER} what is the union?", [image], 1), Seen(f"the {word}{MARKER}!", [image], 1)]
    answers = ask(to, mmproj=tmp_path / "mmproj-x.gguf", vocabulary=placeholder + 1, seen=asked)
    image_tokens = [placeholder] * member.image_tokens
    prompt = [*image_tokens, *tokenizer.encode(" what is the union?").ids]
    ours = rounded(model, monkeypatch)(torch.tensor([prompt]), pixels[None])[0, -1].log_softmax(-1)
    assert float((ours - answers.log_probabilities[0][0]).abs().max()) < 1e-4
    spelled = answers.prompt_tokens[1] - len(image_tokens)
    assert spelled > len(tokenizer.encode(f"the {word}!").ids), "the word is written with other tokens"

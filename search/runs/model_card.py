"""The model card of an exported folder: what the model is, how to run it, its scores and where it is from."""

from collections.abc import Sequence

from operators.base import plain_yaml
from search.evaluation.figures import formatted
from search.runs.exportable import Exportable

CARD = """---
{head}---

# {title}

`{shorthand}`, width {width}, {parameters:,} parameters. Frontrunner, which searches for the fastest hybrid
small language models, exported this model as `{class_name}` {of}.

```python
from transformers import {classes}

model = {auto}.from_pretrained("FOLDER"{trust})
{lines}```
"""
WITH_TOKENIZER = """tokenizer = AutoTokenizer.from_pretrained("FOLDER")
inputs = tokenizer("The people of the United States", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=40)[0], skip_special_tokens=True))
"""
WITH_PICTURE = """from PIL import Image
processor = AutoProcessor.from_pretrained("FOLDER")
inputs = processor(
    images=Image.open("picture.png").convert("RGB").resize(({size}, {size})),
    text="<image>What is it?",
    use_image_special_tokens=False,
    return_tensors="pt",
)
written = model.generate(**inputs, max_new_tokens=8)
print(processor.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
"""


def model_card(
    model: Exportable, class_name: str, tag: str, remarks: Sequence[str], *, own_code: bool = False
) -> str:
    """The text of README.md.

    class_name: the class of `transformers`, or of the folder's own code, that has the model.
    tag: its model type.
    remarks: what a user should know, a line each.
    own_code: whether the folder has its own code.
    """
    auto, reader, lines, whole = (
        "AutoModelForCausalLM",
        "AutoTokenizer",
        WITH_TOKENIZER,
        model.architecture.shorthand,
    )
    weights = [*model.weights.values()]
    if model.eyes is not None:
        auto, reader, whole = "AutoModelForImageTextToText", "AutoProcessor", model.eyes.value.shorthand
        lines = WITH_PICTURE.format(size=model.eyes.value.tower.image_size)
        weights += model.eyes.weights.values()
    with_tokenizer = model.tokenizer is not None
    text = CARD.format(
        head=_head(tag, sees=model.eyes is not None),
        title=model.title,
        shorthand=whole,
        width=model.architecture.width,
        parameters=sum(tensor.numel() for tensor in weights),
        class_name=class_name,
        of="of its own code" if own_code else "of `transformers`",
        trust=", trust_remote_code=True" if own_code else "",
        auto=auto,
        classes=auto + (f", {reader}" if with_tokenizer else ""),
        lines=lines if with_tokenizer else "",
    )
    return "\n".join([text.rstrip("\n"), *_notes(remarks), *_scores(model), *_origin(model)]) + "\n"


def _head(tag: str, *, sees: bool) -> str:
    tags = list(dict.fromkeys(["frontrunner", tag]))
    task = "image-text-to-text" if sees else "text-generation"
    card = {"library_name": "transformers", "pipeline_tag": task, "tags": tags}
    return plain_yaml.dump(card)


def _notes(remarks: Sequence[str]) -> list[str]:
    return ["", *(f"- {remark[0].upper()}{remark[1:]}." for remark in remarks)] if remarks else []


def _scores(model: Exportable) -> list[str]:
    if not model.scores:
        return []
    rows = [f"| {name} | {formatted(name, value)} |" for name, value in model.scores.items()]
    return ["", "## Scores", "", "| metric | value |", "| --- | --- |", *rows]


def _origin(model: Exportable) -> list[str]:
    licence = model.licence or "not known to Frontrunner"
    lines = ["", "## Origin", ""]
    origin = model.provenance
    if origin:
        source = origin.get("config", {}).get("data", {}).get("source")
        parents = ", ".join(map(str, origin.get("parents", ()))) or "none"
        if "run" in origin:
            lines += [
                f"- Candidate {origin.get('candidate')} of run {origin.get('run')}, "
                f"begun {origin.get('started')}.",
                f"- Made by {origin.get('origin')}; parents: {parents}; seed {origin.get('seed')}.",
            ]
        if training := origin.get("training"):
            begun = "random weights" if training.get("weights") == "random" else "trained weights"
            lines.append(
                f"- `{training.get('title')}`, trained on {training.get('tokens'):,} tokens "
                f"from {begun}; seed {training.get('seed')}."
            )
        lines += [
            f"- Text: `{source}`. Licence of the text: {licence}.",
            *(f"- {name} {version}" for name, version in (origin.get("versions") or {}).items()),
        ]
    lines.append(f"- Digest of the architecture: `{model.architecture.digest()}`.")
    return lines

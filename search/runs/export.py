"""Takes a candidate out of its run: a folder that builds and runs by itself."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from tokenizers import Tokenizer

from operators import Architecture, HybridLM, VisionLanguage, VisionLanguageModel
from operators.base.errors import RunError
from operators.base.files import whole_folder
from operators.parameter_shapes import parameter_shapes
from operators.vision.model import parameter_shapes as shapes_of_seeing
from operators.vision.vision_language import Model, load_model
from profiler.device.device import open_device
from proxy_train.images.image_settings import ImageSettings
from proxy_train.text.tokenizer import load_published, load_tokenizer
from search.evaluation.figures import exact_value
from search.evaluation.outcome import Evaluation
from search.runs.entry import Entry
from search.runs.folder import RunFolder
from search.runs.ledger import Ledger

README = """# Candidate {number} of run {run}

`{shorthand}`, width {width}, {params:,} parameters, proxy loss {loss:.4f} nats per token.

```python
from frontrunner import load
model, tokenizer = load({folder})
print(tokenizer.decode(model.generate(tokenizer.encode("The people of the United States").ids, 40)))
```

- `architecture.yaml`: the model.
- `model.safetensors`: its weights after the proxy training.
- `scores.json`: what was measured.
- `provenance.json`: where it comes from.
- `tokenizer.json`: what its tokens mean. It encodes text as the training did: no token is put before or
  behind the text, and the name of a special token in the text is text.
"""


SEEING_README = """# Candidate {number} of run {run}

`{shorthand}`, {params:,} parameters. It answers {accuracy:.1%} of the held-out questions on pictures exactly.

```python
from PIL import Image
from frontrunner import load
from operators.vision.preprocess import normalized, resized

model, tokenizer = load({folder})
picture = resized(Image.open("picture.png").convert("RGB"), {prepared}, "{resize}")
prompt = [model.value.image_token] * model.value.image_tokens + tokenizer.encode("What is it?").ids
print(tokenizer.decode(model.generate(prompt, 8, images=normalized(picture[None], {size}))[len(prompt):]))
```

- `architecture.yaml`: tower, projector and language model.
- `model.safetensors`: its weights after the training in stages.
- `scores.json`: what was measured.
- `provenance.json`: where it comes from.
- `tokenizer.json`: what its tokens mean.
"""


BARE_README = """# Candidate {number} of run {run}, without weights

`{shorthand}`, width {width}.

- `architecture.yaml`: the model.
- `scores.json`: what was measured.
- `provenance.json`: where it comes from.
- `tokenizer.json`: what its tokens mean.

`frontrunner train` and `frontrunner profile` take this folder.
"""


def export(folder: RunFolder, ledger: Ledger, entry: Entry, to: Path, *, weights: bool = True) -> None:
    """Writes a candidate into a folder: all of it or nothing. Raises RunError.

    to: a new or empty folder.
    weights: whether its trained weights are written as well; without them any candidate can be exported,
        even one without scores.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise RunError(f"{to}: exists already, expected a folder that is new or empty")
    if weights:
        if lacking := why_without_weights(folder, ledger, entry):
            raise RunError(
                f"candidate {entry.number} of run {folder.name} {lacking}; "
                "--without-weights exports all but them"
            )
        _require_whole(folder.weights(entry.number))
    try:
        _write(folder, ledger, entry, to, weights=weights)
    except OSError as error:
        raise RunError(f"{to}: cannot be written: {error.strerror}") from None


def why_without_weights(folder: RunFolder, ledger: Ledger, entry: Entry) -> str:
    """Why a candidate has no trained weights to export; empty where it has."""
    evaluation = entry.evaluation
    if evaluation is None:
        return f"is not evaluated yet: `{folder.command('resume')}` does it"
    if evaluation.proxy is None and evaluation.vision is None:
        return f"was not trained to the end ({evaluation.status}): {evaluation.reason}"
    if evaluation.proxy_width is not None:
        return (
            f"has no weights: its proxy was trained at width {evaluation.proxy_width}, not at its own "
            f"{entry.architecture.width} (fidelity.width_scale)"
        )
    if not folder.weights(entry.number).is_file():
        kept = evaluation.reason or f"keep_weights is {ledger.config.keep_weights}"
        return f"has no weights, they are not in {folder.weights(entry.number)}: {kept}"
    return ""


def _require_whole(weights: Path) -> None:
    """Raises RunError for a file that was cut or whose table of tensors is damaged. No tensor is read."""
    try:
        with safe_open(weights, framework="pt"):
            pass
    except (OSError, SafetensorError) as error:
        raise RunError(f"{weights}: cannot be exported, the file is damaged: {error}") from None


def _write(folder: RunFolder, ledger: Ledger, entry: Entry, to: Path, *, weights: bool) -> None:
    evaluation = entry.evaluation
    with whole_folder(to) as partial:
        (partial / "architecture.yaml").write_text(entry.architecture.to_yaml(), encoding="utf-8")
        scores = evaluation_json(evaluation) if evaluation else {}
        kept = {key: value for key, value in scores.items() if key != "traceback"}
        _write_json(partial / "scores.json", kept if evaluation else None)
        _write_json(partial / "provenance.json", provenance(folder, ledger, entry))
        tokenizer = load_tokenizer(folder.tokenizer, ledger.config.data.end_of_document)
        (partial / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
        common = {
            "number": entry.number,
            "run": folder.name,
            "shorthand": entry.architecture.shorthand,
            "width": entry.architecture.width,
        }
        if weights and evaluation is not None:
            shutil.copyfile(folder.weights(entry.number), partial / "model.safetensors")
            metrics = evaluation.metrics
            known = {
                **common,
                "params": round(metrics["params"]),
                "folder": json.dumps(str(to), ensure_ascii=False),
            }
            if isinstance(entry.architecture, VisionLanguage):
                images = ledger.config.vision.images if ledger.config.vision else ImageSettings()
                text = SEEING_README.format(
                    **known,
                    accuracy=metrics["answer_accuracy"],
                    prepared=images.image_size,
                    resize=images.resize,
                    size=entry.architecture.tower.image_size,
                )
            else:
                text = README.format(**known, loss=metrics["loss"])
        else:
            text = BARE_README.format(**common)
        (partial / "README.md").write_text(text, encoding="utf-8")


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation as JSON takes it: counts are integers, and tainted metrics have their reasons."""
    metrics = {name: exact_value(name, value) for name, value in evaluation.metrics.items()}
    return {**evaluation.model_dump(mode="json"), "metrics": metrics, "tainted": evaluation.tainted()}


def provenance(folder: RunFolder, ledger: Ledger, entry: Entry) -> dict[str, Any]:
    """Where a candidate comes from: its run with the whole configuration, its parents, seed and versions."""
    return {
        "run": folder.name,
        "candidate": entry.number,
        "digest": entry.architecture.digest(),
        "parents": list(entry.parents),
        "origin": entry.origin,
        "seed": entry.evaluation.seed if entry.evaluation else None,
        "versions": dict(entry.evaluation.versions) if entry.evaluation else {},
        "started": ledger.started,
        "command": ledger.command,
        "config": ledger.config.model_dump(mode="json"),
    }


def load(folder: Path | str, *, device: str = "cpu") -> tuple[HybridLM | VisionLanguageModel, Tokenizer]:
    """The model of an exported or imported folder with its weights, in evaluation mode, and its tokenizer.

    A model that sees is a `VisionLanguageModel`.

    The tokenizer encodes as in the model's training: a candidate's as its run did, whatever version exported
    it, and a published model's as its own tokenizer.json says.

    Raises RunError, ArchitectureError, DataError and DeviceError.
    """
    open_device(device)
    folder = Path(folder)
    architecture = load_model(folder / "architecture.yaml")
    tokenizer = tokenizer_of(folder)
    model: HybridLM | VisionLanguageModel
    if isinstance(architecture, VisionLanguage):
        model = VisionLanguageModel(architecture, device=device)
    else:
        model = HybridLM(architecture, device=device)
    weights = load_weights(folder / "model.safetensors", architecture, where=folder, device=device)
    with torch.no_grad():
        model.load_state_dict(weights)
    return model.eval(), tokenizer


def load_weights(
    file: Path, architecture: Model, *, where: Path, device: str = "cpu"
) -> dict[str, torch.Tensor]:
    """The weights of a model, each of the right shape, in the file's dtypes.

    where: the folder, for messages.

    Raises RunError.
    """
    try:
        weights: dict[str, torch.Tensor] = load_file(file, device=device)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{where}: not an exported candidate: {error}") from None
    shapes = (
        parameter_shapes(architecture)
        if isinstance(architecture, Architecture)
        else shapes_of_seeing(architecture)
    )
    expected = {name: tuple(shape) for name, shape in shapes.items()}
    stored = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if expected != stored:
        odd = sorted(
            name for name in expected.keys() | stored.keys() if expected.get(name) != stored.get(name)
        )[0]
        raise RunError(
            f"{where}: weight {odd}: expected shape {expected.get(odd, 'none')}, "
            f"got {stored.get(odd, 'none')}"
        )
    return weights


def tokenizer_of(folder: Path) -> Tokenizer:
    """The tokenizer of an exported or imported folder. Raises RunError, DataError."""
    path = folder / "provenance.json"
    if not path.exists():  # a published model was imported
        return load_published(folder / "tokenizer.json")
    try:
        origin = json.loads(path.read_text(encoding="utf-8"))
        end = origin.get("config", {}).get("data", {}).get("end_of_document")
    except (OSError, ValueError, AttributeError) as error:
        raise RunError(
            f"{path}: expected the provenance of an exported candidate, as JSON: {error}"
        ) from None
    return load_tokenizer(folder / "tokenizer.json", end)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")

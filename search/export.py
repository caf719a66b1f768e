"""Takes a candidate out of its run: a folder that builds and runs by itself."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from tokenizers import Tokenizer

from operators import Architecture, HybridLM
from operators.errors import RunError
from operators.files import whole_folder
from search.evaluate import Evaluation
from search.figures import exact_value
from search.ledger import Entry, Ledger
from search.run_folder import RunFolder

README = """# Candidate {number} of run {run}

`{shorthand}`, width {width}, {params:,} parameters, proxy loss {loss:.4f} nats per token.

```python
from search.export import load
model, tokenizer = load("{folder}")
print(tokenizer.decode(model.generate(tokenizer.encode("The people of the United States").ids, 40)))
```

`architecture.yaml` is the model, `model.safetensors` its weights after the proxy training, `scores.json` what was measured,
`provenance.json` where it comes from, `tokenizer.json` what its tokens mean.
"""


def export(folder: RunFolder, ledger: Ledger, entry: Entry, to: Path) -> None:
    """Writes the candidate into `to`, a new or empty folder: all of it or nothing. Raises RunError."""
    evaluation = entry.evaluation
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise RunError(f"{to}: exists already, expected a folder that is new or empty")
    if evaluation is None:
        raise RunError(
            f"candidate {entry.number} of run {folder.name} is not evaluated yet: `{folder.command('resume')}` does it"
        )
    if evaluation.proxy is None:
        raise RunError(
            f"candidate {entry.number} of run {folder.name} was not trained to the end ({evaluation.status}): {evaluation.reason}"
        )
    if evaluation.proxy_width is not None:
        raise RunError(
            f"candidate {entry.number} of run {folder.name}: its weights were not kept: its proxy was trained at width "
            f"{evaluation.proxy_width}, not at its own {entry.architecture.width} (fidelity.width_scale)"
        )
    if not folder.weights(entry.number).is_file():
        kept = evaluation.reason or f"keep_weights is {ledger.config.keep_weights}"
        raise RunError(
            f"candidate {entry.number} of run {folder.name}: its weights are not in {folder.weights(entry.number)}: {kept}"
        )
    _require_whole(folder.weights(entry.number))
    try:
        _write(folder, ledger, entry, evaluation, to)
    except OSError as error:
        raise RunError(f"{to}: cannot be written: {error.strerror}") from None


def _require_whole(weights: Path) -> None:
    """Raises RunError for a file that was cut or whose table of tensors is damaged; the tensors are not read."""
    try:
        with safe_open(weights, framework="pt"):
            pass
    except (OSError, SafetensorError) as error:
        raise RunError(f"{weights}: cannot be exported, the file is damaged: {error}") from None


def _write(folder: RunFolder, ledger: Ledger, entry: Entry, evaluation: Evaluation, to: Path) -> None:
    with whole_folder(to) as partial:
        (partial / "architecture.yaml").write_text(entry.architecture.to_yaml(), encoding="utf-8")
        scores = evaluation_json(evaluation)
        _write_json(
            partial / "scores.json", {key: value for key, value in scores.items() if key != "traceback"}
        )
        _write_json(partial / "provenance.json", provenance(folder, ledger, entry))
        shutil.copyfile(folder.weights(entry.number), partial / "model.safetensors")
        shutil.copyfile(folder.tokenizer, partial / "tokenizer.json")
        text = README.format(
            number=entry.number,
            run=folder.name,
            shorthand=entry.architecture.shorthand,
            width=entry.architecture.width,
            params=round(evaluation.metrics["params"]),
            loss=evaluation.metrics["loss"],
            folder=to,
        )
        (partial / "README.md").write_text(text, encoding="utf-8")


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation as JSON takes it: parameters and bytes are integers, and each metric that is not to be trusted has its reason."""
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


def load(folder: Path | str, *, device: str = "cpu") -> tuple[HybridLM, Tokenizer]:
    """The model of an exported folder with its weights, in evaluation mode, and its tokenizer. Raises RunError, ArchitectureError."""
    folder = Path(folder)
    architecture = Architecture.load(folder / "architecture.yaml")
    model = HybridLM(architecture, device=device)
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        weights = load_file(folder / "model.safetensors", device=device)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{folder}: not an exported candidate: {error}") from None
    except Exception as error:  # tokenizers raises plain Exception for a file that it cannot read
        raise RunError(f"{folder}/tokenizer.json: cannot be read: {error}") from None
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if expected != found:
        odd = sorted(
            name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
        )[0]
        raise RunError(
            f"{folder}: weight {odd}: expected shape {expected.get(odd, 'none')}, got {found.get(odd, 'none')}"
        )
    with torch.no_grad():
        model.load_state_dict(weights)
    return model.eval(), tokenizer


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")

"""What a name on the command line gives to export: an architecture, its weights, tokenizer and history."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field, ValidationError
from tokenizers import Tokenizer
from torch import Tensor

from operators import Architecture, HybridLM, VisionLanguage, VisionLanguageModel
from operators.architecture import IN_A_FOLDER
from operators.base.errors import RunError, in_words, one_line
from operators.published.safetensors_folder import WHOLE
from operators.published.vision_families import LANGUAGE
from operators.vision.vision_language import Model
from proxy_train.images.image_settings import ImageSettings
from proxy_train.text.licence import licence_of
from proxy_train.text.tokenizer import first_end, load_tokenizer
from search.evaluation.figures import exact_value
from search.runs.export import load_weights, provenance, tokenizer_of, why_without_weights
from search.runs.importing import is_published, read_published
from search.runs.sources import candidate_named, is_candidate, model_of


@dataclass(frozen=True)
class Eyes:
    """What a model that sees has before its language model.

    value: the whole model.
    weights: of tower and projector, by the names of our parameters.
    images: how the images of its training were prepared; None where that is not known.
    """

    value: VisionLanguage
    weights: Mapping[str, Tensor]
    images: ImageSettings | None = None


@dataclass(frozen=True)
class Exportable:
    """A model with all that a folder for others needs.

    title: what it is called.
    architecture: the model, or the language model of one that sees.
    weights: of `architecture`, by the names of our parameters.
    eyes: of a model that sees.
    random: whether the weights are random.
    tokenizer: None where there is none.
    without_tokenizer: why there is none.
    end: the token that ends a document; None where that is not known.
    trained: whether a run trained the model, so that its tokenizer encodes as that training did.
    context: tokens that it was trained on at a time; None where that is not known.
    scores: what was measured, by metric.
    provenance: where it comes from.
    licence: of the text that it was trained on; None where that is not known.
    """

    title: str
    architecture: Architecture
    weights: Mapping[str, Tensor]
    eyes: Eyes | None = None
    random: bool = False
    tokenizer: Tokenizer | None = None
    without_tokenizer: str = ""
    end: str | None = None
    trained: bool = False
    context: int | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    licence: str | None = None


def exportable(
    name: str,
    number: int | None,
    results: Path,
    *,
    random_weights: bool = False,
    otherwise: str = "; --random-weights exports random ones",
    seeing: bool = False,
) -> Exportable:
    """A candidate, a folder that was exported or imported, a published model, or an architecture.

    name: a run, RUN:ID, a folder, a GGUF file, an architecture's file or its shipped name.
    number: of the candidate, where `name` is a run.
    random_weights: whether to take random weights, as an architecture alone has none.
    otherwise: what a message about missing weights ends with.
    seeing: whether a model that sees is of use.

    Raises RunError, ArchitectureError and DataError.
    """
    found = _found(name, number, results, random_weights, otherwise)
    if found.eyes is not None and not seeing:
        raise RunError(f"{name}: a model that sees, expected a language model")
    return found


def _found(name: str, number: int | None, results: Path, random_weights: bool, otherwise: str) -> Exportable:
    if not name.strip():
        raise RunError("model: expected its name, got nothing; `.` names the current folder")
    if number is not None or is_candidate(name):
        return _candidate(name, number, results, random_weights, otherwise)
    if is_published(Path(name)):
        return _published(Path(name), random_weights)
    title, architecture = model_of(name, results)
    folder = Path(name)
    if not (folder / IN_A_FOLDER).is_file():
        if not random_weights:
            raise RunError(f"{name}: an architecture without weights{otherwise}")
        return Exportable(title, **_parts(architecture, random_weights_of(architecture)), random=True)
    if not random_weights and not (folder / WHOLE).is_file():
        raise RunError(f"{name}: has no {WHOLE}, the weights{otherwise}")
    weights = (
        random_weights_of(architecture)
        if random_weights
        else load_weights(folder / WHOLE, architecture, where=folder)
    )
    origin, scores = json_mapping(folder / "provenance.json"), json_mapping(folder / "scores.json")
    if not isinstance(metrics := scores.get("metrics", {}), dict):
        raise RunError(f"{folder / 'scores.json'}: metrics: expected a mapping, got {in_words(metrics)}")
    tokenizer = tokenizer_of(folder) if (folder / "tokenizer.json").is_file() else None
    return Exportable(
        architecture.name or folder.resolve().name,
        **_parts(architecture, weights, _images(origin.get("config"))),
        random=random_weights,
        tokenizer=tokenizer,
        without_tokenizer="" if tokenizer is not None else f"{folder} has no tokenizer.json",
        trained=bool(origin),
        scores={} if random_weights else metrics,
        provenance=origin,
        **_of_training(origin.get("config", {}), tokenizer, where=f"{folder / 'provenance.json'}: config"),
    )


def random_weights_of(architecture: Model) -> dict[str, Tensor]:
    """The weights that a new model begins with, the same ones each time (float32)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if isinstance(architecture, VisionLanguage):
            return dict(VisionLanguageModel(architecture, backend="reference").state_dict())
        return dict(HybridLM(architecture, backend="reference").state_dict())


def _parts(
    model: Model, weights: Mapping[str, Tensor], images: ImageSettings | None = None
) -> dict[str, Any]:
    """The language model with its weights, and the eyes of one that sees."""
    if isinstance(model, Architecture):
        return {"architecture": model, "weights": weights}
    language = {
        name.removeprefix(LANGUAGE): tensor for name, tensor in weights.items() if name.startswith(LANGUAGE)
    }
    rest = {name: tensor for name, tensor in weights.items() if not name.startswith(LANGUAGE)}
    return {"architecture": model.language, "weights": language, "eyes": Eyes(model, rest, images)}


def _images(config: Any) -> ImageSettings | None:
    """How the images of a run were prepared, as its configuration says it."""
    try:
        return ImageSettings.model_validate(config["vision"]["images"], strict=False)
    except (KeyError, TypeError, ValidationError):
        return None


def _published(path: Path, random_weights: bool) -> Exportable:
    model = read_published(path)
    tokenizer = model.tokenizer if isinstance(model.tokenizer, Tokenizer) else None
    return Exportable(
        model.architecture.name,
        **_parts(
            model.architecture,
            random_weights_of(model.architecture) if random_weights else model.weights,
        ),
        random=random_weights,
        tokenizer=tokenizer,
        without_tokenizer=model.tokenizer if isinstance(model.tokenizer, str) else "",
        **{**_of_training({}, tokenizer), "context": model.context},
    )


def _candidate(
    name: str, number: int | None, results: Path, random_weights: bool, otherwise: str
) -> Exportable:
    folder, ledger, entry = candidate_named(name, number, results)
    if not random_weights and (lacking := why_without_weights(folder, ledger, entry)):
        raise RunError(f"candidate {entry.number} of run {folder.name} {lacking}{otherwise}")
    architecture, metrics = entry.architecture, entry.evaluation.metrics if entry.evaluation else {}
    tokenizer = load_tokenizer(folder.tokenizer, ledger.config.data.end_of_document)
    origin, path = provenance(folder, ledger, entry), folder.weights(entry.number)
    weights = (
        random_weights_of(architecture) if random_weights else load_weights(path, architecture, where=path)
    )
    return Exportable(
        f"{folder.name}-{entry.number}",
        **_parts(architecture, weights, _images(origin["config"])),
        random=random_weights,
        tokenizer=tokenizer,
        trained=True,
        scores={} if random_weights else {key: exact_value(key, value) for key, value in metrics.items()},
        provenance=origin,
        **_of_training(origin["config"], tokenizer),
    )


class _Data(BaseModel):
    source: str | list[str] | None = None
    end_of_document: str | None = None


class _Proxy(BaseModel):
    sequence_length: Annotated[int, Field(ge=1)] | None = None


class _Config(BaseModel):
    """What is read of the configuration of a run; a file of another version may have more, or less."""

    data: _Data = _Data()
    proxy: _Proxy = _Proxy()


def _of_training(
    config: Mapping[str, Any], tokenizer: Tokenizer | None, *, where: object = "config"
) -> dict[str, Any]:
    """The fields that follow from the configuration of a run; {} for none.

    where: for messages.

    Raises RunError.
    """
    try:
        read = _Config.model_validate(config, strict=True)
    except ValidationError as error:
        raise RunError(f"{where}: {one_line(error)}") from None
    end = first_end(tokenizer.get_vocab(), read.data.end_of_document) if tokenizer is not None else None
    return {
        "end": end,
        "context": read.proxy.sequence_length,
        "licence": licence_of(read.data.source) if read.data.source is not None else None,
    }


def json_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a file; {} where there is no such file or it holds null. Raises RunError."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read as JSON: {error}") from None
    if content is not None and not isinstance(content, dict):
        raise RunError(f"{path}: expected a mapping, got {type(content).__name__}")
    return content or {}

"""What a name on the command line gives to train: a model, its weights where it has some, and its text.

A model with weights is trained further with its own tokenizer, whatever the text: with another one, its
weights would mean nothing. An architecture alone, or a model without weights, begins with random ones.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from operators import Architecture
from operators.architecture import IN_A_FOLDER
from operators.base.errors import ArchitectureError, ConfigError, RunError, one_line
from operators.published.safetensors_folder import WHOLE
from proxy_train import checkpoint
from proxy_train.settings import ProxySettings
from proxy_train.text.data_settings import DataSettings
from proxy_train.trainer import Start
from search.config import run as config_module
from search.runs.export import load_weights, provenance, why_without_weights
from search.runs.exportable import json_mapping
from search.runs.importing import is_published, read_published
from search.runs.kept_training import STATE, KeptTraining, identity_in
from search.runs.sources import architecture_of, candidate_named, is_candidate

TOKENIZER = "tokenizer.json"
SEEING = "a vision-language model, expected a language model"


@dataclass(frozen=True)
class _Read:
    """Which batches of a text a model was trained on: the first ones of a seed."""

    seed: int
    batch_size: int
    sequence_length: int
    batches: int


@dataclass(frozen=True)
class Beginning:
    """A model before it is trained.

    title: the name that it was given by.
    architecture: the model.
    data: the text to train on.
    proxy: how to train, but for the number of tokens.
    weights: what to go on from, as `trainer.Start.tensors`; None for random weights.
    lacking: why there are no weights, where a candidate has none; empty otherwise.
    read: the batches of `data` that the weights have seen; None where they were trained on another text.
    origin: see `KeptTraining`.
    """

    title: str
    architecture: Architecture
    data: DataSettings
    proxy: ProxySettings
    weights: Mapping[str, Tensor] | None = None
    lacking: str = ""
    read: _Read | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)

    def training(self, *, tokens: int | None, seed: int) -> KeptTraining:
        """The training of so many tokens; None takes those of `proxy`. Raises ConfigError."""
        changed = {"budgets": (), "tokens": self.proxy.tokens if tokens is None else tokens}
        try:
            settings = ProxySettings.model_validate({**self.proxy.model_dump(), **changed})
        except ValidationError as error:
            raise ConfigError(one_line(error)) from None
        start, read = None, self.read
        if self.weights is not None:
            same = read is not None and (read.seed, read.batch_size, read.sequence_length) == (
                seed,
                settings.batch_size,
                settings.sequence_length,
            )
            batches = read.batches if read is not None and same else 0
            start = Start(self.weights, _digest(self.weights), batches)
        return KeptTraining(self.title, self.architecture, self.data, settings, seed, start, self.origin)


def beginning(
    name: str,
    results: Path,
    *,
    config: Path | None = None,
    data: Sequence[str] = (),
    fresh: bool = False,
) -> Beginning:
    """What a name gives to train.

    name: a candidate as RUN:ID, a folder that was exported, imported or trained, a Hugging Face folder, or an
        architecture's file or shipped name.
    results: folder of all runs.
    config: a run file or a shipped name, whose data and proxy sections to use. None for the candidate's own,
        those that a folder records, or the defaults.
    data: text to train on in place of that; () for none.
    fresh: whether to begin with random weights in any case.

    Raises our errors.
    """
    given = config_module.load(config) if config is not None else None
    if is_candidate(name):
        found = _of_candidate(name, results, fresh)
    elif is_published(Path(name)):
        found = _of_published(Path(name), results, fresh)
    else:
        found = _of_model(name, results, fresh)
    own, tokenizer = found.data, _tokenizer_file(name, results)
    text = own if given is None else given.data
    if data:
        text = _changed(text, source=data[0] if len(data) == 1 else tuple(data))
    if tokenizer is not None and found.weights is not None and text != own:
        end = own.end_of_document
        text = _changed(
            text, tokenizer=str(tokenizer), end_of_document=end, vocabulary=found.architecture.vocabulary
        )
    same = text.absolute() == own.absolute()
    proxy = found.proxy if given is None else given.proxy
    return replace(found, data=text, proxy=proxy, read=found.read if same else None)


def _of_candidate(name: str, results: Path, fresh: bool) -> Beginning:
    run, _, number = name.rpartition(":")
    folder, ledger, entry = candidate_named(run, int(number), results)
    if not isinstance(entry.architecture, Architecture):
        raise ArchitectureError(f"{name}: {SEEING}")
    config, origin = ledger.config, provenance(folder, ledger, entry)
    plain = Beginning(name, entry.architecture, config.data, config.proxy, origin=origin)
    if fresh:
        return plain
    if lacking := why_without_weights(folder, ledger, entry):
        return replace(plain, lacking=f"candidate {entry.number} of run {folder.name} {lacking}")
    file, score = folder.weights(entry.number), entry.evaluation.proxy if entry.evaluation else None
    read = None
    if score is not None:
        read = _Read(score.seed, config.proxy.batch_size, config.proxy.sequence_length, score.steps)
    return replace(plain, weights=load_weights(file, entry.architecture, where=file), read=read)


def _of_published(path: Path, results: Path, fresh: bool) -> Beginning:
    if fresh:
        title, architecture = architecture_of(str(path), results)
        return Beginning(title, architecture, *_sections({}, architecture, None, where=path))
    if not (path / TOKENIZER).is_file():
        raise RunError(f"{path}: no folder with a {TOKENIZER}; `frontrunner import {path}` may make one")
    model = read_published(path)
    if not isinstance(model.architecture, Architecture):
        raise ArchitectureError(f"{path}: {SEEING}")
    sections = _sections({}, model.architecture, path / TOKENIZER, where=path)
    return Beginning(str(path), model.architecture, *sections, weights=model.weights)


def _of_model(name: str, results: Path, fresh: bool) -> Beginning:
    title, architecture = architecture_of(name, results)
    folder = Path(name)
    if not (folder / IN_A_FOLDER).is_file():
        return Beginning(title, architecture, *_sections({}, architecture, None, where=folder))
    origin, identity = json_mapping(folder / "provenance.json"), identity_in(folder)
    has_weights = (folder / WHOLE).is_file() and not fresh
    if identity and not has_weights and not fresh:
        raise RunError(f"{folder}: its training has not ended; the same `frontrunner train` goes on with it")
    tokenizer = folder / TOKENIZER if (folder / TOKENIZER).is_file() and has_weights else None
    config = origin.get("config", {})
    data, proxy = _sections(config, architecture, tokenizer, where=folder / "provenance.json")
    plain = Beginning(title, architecture, data, proxy, origin=origin)
    if not has_weights:
        return plain
    weights: Mapping[str, Tensor] = load_weights(folder / WHOLE, architecture, where=folder)
    if not identity:
        return replace(plain, weights=weights)
    weights = state_tensors(folder, weights)
    batches = identity.get("batches_before", 0) + identity["tokens"] // proxy.batch_tokens
    return replace(
        plain,
        weights=weights,
        read=_Read(identity["seed"], proxy.batch_size, proxy.sequence_length, batches),
    )


def state_tensors(folder: Path, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The weights with the optimizer's state of a kept training, or alone where that was removed.

    Raises DataError for a damaged state.
    """
    state = checkpoint.read(folder / STATE, identity=None)
    return weights if state is None else {**state[0], **weights}


def _sections(
    config: Mapping[str, Any], architecture: Architecture, tokenizer: Path | None, *, where: Path
) -> tuple[DataSettings, ProxySettings]:
    """The text and the settings of a recorded training, or the defaults. Raises RunError.

    config: with `data` and `proxy`, where they are known.
    tokenizer: the model's own, where its training is not known.
    """
    try:
        if "data" in config:
            data = DataSettings.model_validate(config["data"])
        else:
            own = {"tokenizer": str(tokenizer)} if tokenizer is not None else {}
            data = DataSettings.model_validate({"vocabulary": architecture.vocabulary, **own})
        return data, ProxySettings.model_validate(config.get("proxy", {}))
    except (ValidationError, TypeError) as error:
        told = one_line(error) if isinstance(error, ValidationError) else str(error)
        raise RunError(f"{where}: config: {told}") from None


def _tokenizer_file(name: str, results: Path) -> Path | None:
    """The model's own tokenizer, where it has one."""
    if is_candidate(name):
        run, _, number = name.rpartition(":")
        return candidate_named(run, int(number), results)[0].tokenizer
    file = Path(name) / TOKENIZER
    return file if file.is_file() else None


def _changed(data: DataSettings, **changes: Any) -> DataSettings:
    try:
        return DataSettings.model_validate({**data.model_dump(), **changes})
    except ValidationError as error:
        raise ConfigError(f"data: {one_line(error)}") from None


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of names, types, shapes and values."""
    sum_of_all = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sum_of_all.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sum_of_all.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sum_of_all.hexdigest()

"""What the names on the command line mean: models, candidates and runs. `docs/reads.md` tells it to people.

A run is a name in the results folder, or a path to the run's own folder (`search.runs.folder.find_folder`).
A candidate is RUN:ID.
A model is a file, a folder with an architecture.yaml, a candidate, a published model (a Hugging Face folder
or a GGUF file), or the name of a shipped architecture: the first that exists.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from operators import Architecture
from operators.architecture import IN_A_FOLDER, MODELS, find_architecture
from operators.base import shipped
from operators.base.errors import ArchitectureError, ConfigError, RunError
from operators.published import vision_families
from operators.published.json_file import read_mapping
from operators.vision.vision_language import Model, load_model
from search.config import run as config_module
from search.config.changes import changed
from search.config.run import RunConfig
from search.runs.entry import Entry
from search.runs.folder import RunFolder
from search.runs.importing import is_published, read_published
from search.runs.ledger import Ledger
from search.runs.status import candidate_of, opened

_CANDIDATE = re.compile(r"(?P<run>.+):(?P<number>\d+)")
_LEDGER = "ledger.db"  # tells the folder of a run


def is_candidate(text: str) -> bool:
    """Whether a name means a candidate, RUN:ID; a file or folder of that name goes before it."""
    return _CANDIDATE.fullmatch(text) is not None and not Path(text).exists()


def architecture_of(text: str, results: Path) -> tuple[str, Architecture]:
    """A title and the architecture of a model; the title is the name that it was given by.

    `./NAME` is the title of a file or folder here that has a shipped architecture's name.

    Raises ArchitectureError and RunError, and DataError for a published model.
    """
    title, model = _named(text, results, Architecture.load)
    return title, language_model(text, model)


def language_model(text: str, model: Model) -> Architecture:
    """The model, which is a language model. Raises ArchitectureError for one that sees; text: names it."""
    if not isinstance(model, Architecture):
        raise ArchitectureError(f"{text}: a vision-language model, expected a language model")
    return model


def model_of(text: str, results: Path) -> tuple[str, Model]:
    """The same for a language model or one that sees. Raises ArchitectureError, RunError and DataError."""
    path = Path(text)
    if not is_candidate(text) and is_published(path) and path.is_dir():
        config = read_mapping(path / "config.json")
        if vision_families.sees(config):
            published = vision_families.describe_vision(config, where=str(path / "config.json"))
            return _titled(path, None), published.value
    return _named(text, results, load_model)


def _named(text: str, results: Path, load: Callable[[Path], Model]) -> tuple[str, Model]:
    """A title and the model; `load` reads a file, or what a shipped name means."""
    candidate, path = _CANDIDATE.fullmatch(text), Path(text)
    if candidate is not None and is_candidate(text):
        return text, candidate_of(results, candidate["run"], int(candidate["number"]))[2].architecture
    if (path / _LEDGER).is_file():
        raise ArchitectureError(f"{text}: the folder of a run, expected one of its candidates, as {path}:0")
    if is_published(path):
        return _titled(path, None), read_published(path).architecture
    try:
        file = find_architecture(path)
    except ArchitectureError as error:
        if (results / path / _LEDGER).is_file():
            raise ArchitectureError(f"{text}: a run, expected one of its candidates, as {text}:0") from None
        raise error
    return _titled(path, file), load(path)


def _titled(path: Path, file: Path | None) -> str:
    """The path; with `./` before it where it hides a shipped model of its name. `file` is what it means."""
    hidden = next((found for kind in MODELS if (found := shipped.find(path, kind)) is not None), None)
    return f"./{path}" if hidden not in (None, file) else str(path)


def candidate_named(run: str, number: int | None, results: Path) -> tuple[RunFolder, Ledger, Entry]:
    """A candidate by its run and number, or by RUN:ID alone. Raises RunError."""
    both = _CANDIDATE.fullmatch(run)
    if number is not None and both is not None and not Path(run).exists():
        raise RunError(f"{run} {number}: expected one candidate, `{both['run']} {number}` or `{run}`")
    if number is None:
        if both is None:
            if not run or ":" in run:
                raise RunError(f"{run!r}: expected RUN:ID, with a whole number as ID")
            raise RunError(f"{run}: expected a candidate as well, as in `{run} 0` or `{run}:0`")
        run, number = both["run"], int(both["number"])
    return candidate_of(results, run, number)


def run_or_architecture(text: str, results: Path, changes: Sequence[str] = ()) -> RunConfig | Architecture:
    """The configuration of a run, or a language model; see `run_or_model`. Raises as it does."""
    given = run_or_model(text, results, changes)
    return language_model(text, given) if not isinstance(given, RunConfig) else given


def run_or_model(text: str, results: Path, changes: Sequence[str] = ()) -> RunConfig | Model:
    """The configuration of a run file, a shipped one or that of a run that was begun; or a model.

    changes: of the keys of a configuration, as in `proxy.tokens=2e6`.

    Raises ConfigError, ArchitectureError and RunError, and DataError for a published model. Raises
    ConfigError too where there are changes and the source has no keys that could be changed.
    """
    path = Path(text)
    if is_published(path):
        _unchanged(text, "a model", changes)
        return model_of(text, results)[1]
    if (path / _LEDGER).is_file():
        _unchanged(text, "a run that was begun", changes)
        return opened(results, str(path.absolute()))[1].config
    if path.exists() and not path.is_dir() and path.suffix != ".json":
        data = config_module.plain(path)
        if not (isinstance(data, dict) and {"layers", "tower"} & data.keys()):
            return config_module.parse(changed(data, changes), where=text)
    elif not (path / IN_A_FOLDER).is_file() and shipped.find(path, "configuration") is not None:
        return config_module.load(path, changes)
    model = model_of(text, results)[1]
    _unchanged(text, "a model", changes)
    return model


def _unchanged(text: str, kind: str, changes: Sequence[str]) -> None:
    """Raises ConfigError where keys shall be changed of what has none."""
    if changes:
        raise ConfigError(f"--set {changes[0]}: {text} is {kind}, expected a run file or a shipped name")

"""Turns a published model into a folder that `frontrunner.load` reads."""

from dataclasses import dataclass, replace
from pathlib import Path

from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from operators.architecture import IN_A_FOLDER, Architecture
from operators.base.errors import DataError, RunError
from operators.base.files import whole_folder
from operators.published import describe, fitted, remark_on_steps, vision_families
from operators.published.gguf_export.mmproj import PREFIX
from operators.published.gguf_eyes import is_mmproj, language_file, read_eyes
from operators.published.gguf_file import GgufFile
from operators.published.safetensors_folder import SafetensorsFolder
from operators.published.vision_families import LANGUAGE
from operators.vision.vision_language import Model
from proxy_train.text.tokenizer import load_published
from search.runs.gguf_tokenizer import gguf_tokenizer
from search.runs.meta_rows import with_meta_tokens

OTHER_TOKENIZERS = ("tokenizer.model", "spiece.model", "vocab.json", "merges.txt", "vocab.txt")
IMAGE = "<image>"  # the placeholder of SmolVLM and LFM2-VL, and of others after LLaVA
NAMED_TOKENS = 5  # of a remark: so many fit a line


@dataclass(frozen=True)
class Imported:
    """What was written.

    architecture: of the model.
    parameters: how many it has.
    without_tokenizer: why there is no tokenizer.json, or None.
    remarks: what a user should know besides, a line each.
    """

    architecture: Model
    parameters: int
    without_tokenizer: str | None
    remarks: tuple[str, ...] = ()


def is_published(path: Path) -> bool:
    """Whether a path is a Hugging Face folder or a GGUF file, which are read as `import` reads them."""
    if path.is_dir():
        return (path / "config.json").is_file() and not (path / IN_A_FOLDER).is_file()
    return path.is_file() and path.suffix.lower() == ".gguf"


@dataclass(frozen=True)
class Published:
    """A published model in our terms.

    architecture: the model.
    weights: by the names of our parameters.
    tokenizer: or why there is none.
    context: the most tokens that its files say it reads; None where they do not.
    remarks: what a user should know besides, a line each.
    """

    architecture: Model
    weights: dict[str, Tensor]
    tokenizer: Tokenizer | str
    context: int | None
    remarks: tuple[str, ...]


def read_published(source: Path) -> Published:
    """Reads a published model.

    source: a Hugging Face folder or a GGUF file. The mmproj file of a model that sees stands for both of its
        files.

    Raises ArchitectureError for a model that we cannot express, DataError for files that are missing,
    damaged or do not fit.
    """
    if is_mmproj(source) and source.is_file():
        return _pair(source)
    tensors = _opened(source)
    where = source / "config.json" if isinstance(tensors, SafetensorsFolder) else source
    if isinstance(tensors, SafetensorsFolder) and vision_families.sees(tensors.config):
        seeing = vision_families.describe_vision(tensors.config, name=model_name(source), where=str(where))
        fitting = vision_families.fitted_vision(seeing, tensors, where=source)
        return Published(seeing.value, fitting, _tokenizer(tensors), None, tuple(tensors.remarks))
    published = describe(tensors.config, name=model_name(source), where=str(where))
    weights = fitted(published, tensors, where=source)
    remarks = [*tensors.remarks] if isinstance(tensors, SafetensorsFolder) else []
    remarks += filter(None, (remark_on_steps(published, weights), published.remark))
    architecture, tokenizer = published.architecture, _tokenizer(tensors)
    context = tensors.config.get("max_position_embeddings", tensors.config.get("model_max_length"))
    if isinstance(tokenizer, Tokenizer):
        remarks += _beyond(tokenizer, architecture.vocabulary)
        architecture, weights, tokenizer = with_meta_tokens(architecture, weights, tokenizer)
    # Rows that stand for meta tokens take places of the context; meta tokens as such do not.
    meta = architecture.meta_tokens - published.architecture.meta_tokens
    return Published(
        architecture,
        weights,
        tokenizer,
        context - meta if isinstance(context, int) else None,
        tuple(remarks),
    )


def _pair(source: Path) -> Published:
    """A model that sees, from its mmproj file and the file of its language model beside it."""
    text = read_published(language_file(source))
    assert isinstance(text.architecture, Architecture)  # noqa: S101  for the type checker
    image_token = text.tokenizer.token_to_id(IMAGE) if isinstance(text.tokenizer, Tokenizer) else None
    value, weights = read_eyes(source, text.architecture, image_token, name=model_name(source))
    weights |= {f"{LANGUAGE}{name}": tensor for name, tensor in text.weights.items()}
    return replace(text, architecture=value, weights=weights)


def import_model(source: Path, to: Path) -> Imported:
    """Writes a published model's architecture.yaml, model.safetensors and tokenizer.json: all or nothing.

    source: a Hugging Face folder or a GGUF file.
    to: a new or empty folder.

    Raises RunError for a folder in use, and what `read_published` raises.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise RunError(f"{to}: exists already, expected a folder that is new or empty; --to names another")
    model = read_published(source)
    with whole_folder(to) as partial:
        (partial / "architecture.yaml").write_text(model.architecture.to_yaml(), encoding="utf-8")
        save_file(
            {name: tensor.contiguous() for name, tensor in model.weights.items()},
            partial / "model.safetensors",
        )
        (partial / "model.safetensors").chmod(0o644)  # it is written through a private temporary file
        if isinstance(model.tokenizer, Tokenizer):
            model.tokenizer.save(str(partial / "tokenizer.json"))
    without = model.tokenizer if isinstance(model.tokenizer, str) else None
    parameters = sum(tensor.numel() for tensor in model.weights.values())
    return Imported(model.architecture, parameters, without, model.remarks)


def model_name(source: Path) -> str:
    """What an imported model is called: the folder, or the file without its ending."""
    if is_mmproj(source):
        return source.resolve().stem.removeprefix(PREFIX)
    return source.resolve().stem if source.is_file() else source.resolve().name


def _opened(source: Path) -> SafetensorsFolder | GgufFile:
    if source.is_dir():
        return SafetensorsFolder(source)
    if source.is_file() and source.suffix.lower() == ".gguf":
        return GgufFile(source)
    what_is_there = "a file of another kind" if source.exists() else "nothing there"
    raise DataError(f"{source}: expected a Hugging Face folder or a .gguf file, found {what_is_there}")


def _tokenizer(tensors: SafetensorsFolder | GgufFile) -> Tokenizer | str:
    """The model's tokenizer, or the reason why there is none. Raises DataError for a damaged one."""
    if isinstance(tensors, GgufFile):
        return gguf_tokenizer(tensors)
    source = tensors.folder / "tokenizer.json"
    if source.is_file():
        return load_published(source)
    others = [name for name in OTHER_TOKENIZERS if (tensors.folder / name).is_file()]
    if not others:
        return f"{tensors.folder} has no tokenizer.json"
    return (
        f"{tensors.folder} has no tokenizer.json; it has {' and '.join(others)}, of which "
        "`transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)` makes one"
    )


def _beyond(tokenizer: Tokenizer, rows: int) -> list[str]:
    """A line on the tokens whose ids have no row in the embedding, where there are any."""
    ids = {index: token for token, index in tokenizer.get_vocab().items() if index >= rows}
    if not ids:
        return []
    named = ", ".join(f"{ids[index]} ({index})" for index in sorted(ids)[:NAMED_TOKENS])
    more = f" and {len(ids) - NAMED_TOKENS:,} more" if len(ids) > NAMED_TOKENS else ""
    return [
        f"tokenizer.json: the tokenizer has ids up to {max(ids):,}, the embedding has {rows:,} rows: "
        f"the model cannot read {named}{more}"
    ]

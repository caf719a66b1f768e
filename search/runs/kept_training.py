"""A training that is kept: a folder with its checkpoint, its curve, and at the end the model.

The folder is one of an exported candidate, with more files. `load`, `evaluate`, `generate`, `profile` and
`export` take it once the training has ended. Nothing that a kill leaves there has to be removed: the same
call goes on from the last checkpoint, to the same losses.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import save_file

from operators import Architecture
from operators.architecture import IN_A_FOLDER
from operators.base.errors import RunError, flat, one_line
from operators.base.files import locked, whole_file, write_whole
from operators.cost import parameters
from operators.published.safetensors_folder import WHOLE
from profiler.device.lock import shared
from profiler.device.memory import memory_errors
from proxy_train.settings import ProxyScore, ProxySettings
from proxy_train.text.corpus import Corpus
from proxy_train.text.data_settings import DataSettings
from proxy_train.train import Trained, train
from proxy_train.trainer import Start

TRAINING, STATE, CURVE, SCORES = "training.json", "state.safetensors", "curve.jsonl", "scores.json"
_LOCK = "training.lock"
# A process that has just been killed holds its lock for a moment (s).
_WAIT_S = 1.0

README = """# {title}, trained on {tokens:,} tokens

`{shorthand}`, width {width}, {params:,} parameters, loss {loss:.4f} nats per token on the validation text.

```python
import frontrunner
model, tokenizer = frontrunner.load({folder})
print(tokenizer.decode(model.generate(tokenizer.encode("The people of the United States").ids, 40)))
```

- `architecture.yaml`: the model.
- `model.safetensors`: its weights.
- `scores.json`: its scores on the validation text.
- `curve.jsonl`: the training loss of every step.
- `state.safetensors`: weights and the state of the optimizer. `frontrunner train` goes on from this folder.
- `training.json`, `provenance.json`: what was trained, and where it comes from.
- `tokenizer.json`: what its tokens mean.
"""


@dataclass(frozen=True)
class KeptTraining:
    """A training to make.

    title: what the model is called.
    architecture: what is trained.
    data: the text, for the record; the prepared text is given to `train_into`.
    settings: how it is trained.
    seed: of weights and batches.
    start: what the training goes on from; None for random weights.
    origin: where the model comes from, as `export.provenance` has it; {} for an architecture alone.
    """

    title: str
    architecture: Architecture
    data: DataSettings
    settings: ProxySettings
    seed: int
    start: Start | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)

    def identity(self, corpus: Corpus, device: str) -> dict[str, Any]:
        """What tells this training from others, as JSON holds it."""
        settings = self.settings.model_dump(mode="json")
        return {
            "tokens": settings.pop("tokens"),
            "architecture": self.architecture.digest(),
            "text": corpus.digest,
            "proxy": settings,
            "seed": self.seed,
            "device": torch.device(device).type,
            "weights": self.start.digest if self.start is not None else "random",
            "batches_before": self.start.batches if self.start is not None else 0,
        }


def train_into(
    to: Path,
    training: KeptTraining,
    corpus: Corpus,
    *,
    device: str,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> ProxyScore:
    """Trains a model in a folder, from its start or from where an earlier call was ended.

    to: a new or empty folder, or the one of this same training. One that has ended is not trained again.
    on_step: hears the number of each step and its loss (nats per token).

    Raises RunError where the folder has something else, another process trains there, or it cannot be
    written; and what `train` raises.
    """
    with _held(to):
        identity = training.identity(corpus, device)
        _require_same(to, identity)
        if (score := score_in(to)) is not None:
            return score
        _describe(to, training, corpus, identity)
        with _Curve(to / CURVE, training.settings.batch_tokens) as curve:

            def step_ended(step: int, loss: float) -> None:
                curve.add(step, loss)
                on_step(step, loss)

            with shared(device) as give_way, memory_errors():
                trained = train(
                    training.architecture,
                    corpus,
                    training.settings,
                    seed=training.seed,
                    device=device,
                    on_step=step_ended,
                    pause=give_way,
                    checkpoint=to / STATE,
                    keep_checkpoint=True,
                    start=training.start,
                )
        _finish(to, training, trained)
    return trained.score


def score_in(folder: Path) -> ProxyScore | None:
    """The score of a kept training; None where it has not ended. Raises RunError for a damaged file."""
    file = folder / SCORES
    try:
        return ProxyScore.model_validate(json.loads(file.read_text(encoding="utf-8"))["proxy"])
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise RunError(f"{file}: proxy: {one_line(error)}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file}: not the scores of a training: {flat(error)}") from None


def identity_in(folder: Path) -> dict[str, Any]:
    """What tells the training of a folder from others; {} where it has none. Raises RunError."""
    file = folder / TRAINING
    try:
        recorded = json.loads(file.read_text(encoding="utf-8"))
        return {**recorded, "tokens": int(recorded["tokens"])}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file}: not the description of a training: {flat(error)}") from None


@contextmanager
def _held(to: Path) -> Iterator[None]:
    """Holds the right to train in a folder, which is made where it is missing. Raises RunError."""
    with ExitStack() as held:
        try:
            if to.exists() and not (to / TRAINING).is_file():
                # What a kill leaves before the training is described.
                expected = (_LOCK, f".{TRAINING}.partial")
                if any(file.name not in expected for file in to.iterdir()):
                    raise RunError(
                        f"{to}: exists already, expected a folder that is new, empty, or of this training"
                    )
            to.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(to / _LOCK, wait_s=_WAIT_S))
        except BlockingIOError:
            raise RunError(f"{to}: another process trains there") from None
        except OSError as error:
            raise RunError(f"{to}: cannot be written: {error.strerror or error}") from None
        yield


def _require_same(to: Path, identity: Mapping[str, Any]) -> None:
    recorded = identity_in(to)
    if not recorded:
        return
    differing = [key for key, value in identity.items() if recorded.get(key) != value]
    if differing == ["tokens"]:
        raise RunError(
            f"{to}: holds a training of {recorded['tokens']:,} tokens, expected the same --tokens, got "
            f"{identity['tokens']:,}; `frontrunner train {to} --tokens N --to NEW` trains its model further"
        )
    if differing:
        raise RunError(
            f"{to}: holds another training: expected the same {', '.join(differing)}, or another --to"
        )


def _describe(to: Path, training: KeptTraining, corpus: Corpus, identity: Mapping[str, Any]) -> None:
    """Writes what is known before the training, `TRAINING` first."""
    data = training.data.absolute().model_dump(mode="json")
    config = {"data": data, "proxy": training.settings.model_dump(mode="json")}
    trained = {"title": training.title, "tokens": training.settings.tokens, "seed": training.seed}
    provenance = {
        **training.origin,
        "digest": training.architecture.digest(),
        "config": config,
        "training": {**trained, "weights": identity["weights"]},
    }
    write_whole(to / TRAINING, _json(identity))
    write_whole(to / IN_A_FOLDER, training.architecture.to_yaml().encode())
    write_whole(to / "tokenizer.json", corpus.tokenizer().to_str().encode())
    write_whole(to / "provenance.json", _json(provenance))


def _finish(to: Path, training: KeptTraining, trained: Trained) -> None:
    """Writes what came of the training, `SCORES` last: a folder that has it is whole."""
    score, batch_tokens = trained.score, training.settings.batch_tokens
    lines = "".join(_line(step, loss, batch_tokens) for step, loss in enumerate(trained.losses, 1))
    write_whole(to / CURVE, lines.encode())
    try:
        with whole_file(to / WHOLE) as partial:
            save_file(trained.weights, partial)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{to / WHOLE}: cannot be written: {flat(error)}") from None
    metrics = {**score.metrics(), "params": parameters(training.architecture)}
    text = README.format(
        title=training.title,
        tokens=score.tokens,
        shorthand=training.architecture.shorthand,
        width=training.architecture.width,
        params=metrics["params"],
        loss=score.loss,
        folder=json.dumps(str(to), ensure_ascii=False),
    )
    write_whole(to / "README.md", text.encode())
    scores = {
        "status": "ok",
        "metrics": metrics,
        "seed": training.seed,
        "proxy": score.model_dump(mode="json"),
    }
    write_whole(to / SCORES, _json(scores))


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def _line(step: int, loss: float, batch_tokens: int) -> str:
    return json.dumps({"step": step, "tokens": step * batch_tokens, "loss": loss}) + "\n"


class _Curve:
    """The losses of a training under way, one line a step.

    A training that goes on from a checkpoint makes the steps behind it again: their lines are written anew.
    """

    def __init__(self, path: Path, batch_tokens: int) -> None:
        self._path, self._batch_tokens = path, batch_tokens
        self._file: IO[bytes] | None = None

    def __enter__(self) -> "_Curve":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, step: int, loss: float) -> None:
        """Raises RunError where it cannot be written."""
        try:
            if self._file is None:
                before = self._path.read_bytes() if self._path.exists() else b""
                kept = before[: before.rfind(b"\n") + 1].splitlines(keepends=True)[: step - 1]
                write_whole(self._path, b"".join(kept))
                self._file = self._path.open("ab")
            self._file.write(_line(step, loss, self._batch_tokens).encode())
            self._file.flush()
        except OSError as error:
            raise RunError(f"{self._path}: cannot be written: {error.strerror}") from None

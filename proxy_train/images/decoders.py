"""Decoders behind the first stage, trained once for all models that share one."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from operators.architecture import Architecture
from operators.base.errors import DataError
from operators.base.files import locked, whole_file
from proxy_train.cache import default_cache
from proxy_train.settings import ProxySettings
from proxy_train.text.corpus import Corpus


def kept_decoder(
    language: Architecture,
    corpus: Corpus,
    proxy: ProxySettings,
    training: Callable[[], Mapping[str, Tensor]],
    *,
    seed: int,
    device: str,
    cache: Path | None = None,
) -> dict[str, Tensor]:
    """The weights of a language model behind the first stage: from the cache, else by `training`.

    Processes that want the same decoder wait for each other. So the caller must not hold a device's lock,
    which the one that trains needs; `training` takes it.

    language, corpus, proxy, seed, device: what the weights depend on.
    training: trains the decoder and returns its weights by name.
    cache: the folder of the cache; None for that of prepared text.

    Raises what `training` raises, and DataError where the cache cannot be written.
    """
    kind = device.partition(":")[0]
    identity = [language.digest(), corpus.digest, proxy.model_dump(mode="json"), seed, kind]
    name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:24]
    file = (cache or default_cache()) / f"decoder-{name}.safetensors"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with locked(file.with_suffix(".lock")):
            try:
                return load_file(file)
            except (OSError, SafetensorError):  # none is there, or a damaged one
                weights = {key: tensor.contiguous() for key, tensor in training().items()}
            with whole_file(file) as partial:
                save_file(weights, partial)
    except OSError as error:
        raise DataError(f"{file}: cannot be written: {error.strerror or error}") from None
    return weights

"""What `frontrunner generate` does: a text that a model with weights writes."""

from dataclasses import dataclass
from pathlib import Path

from operators.base.errors import ConfigError, DataError
from operators.sampling import Sampling
from profiler.device.device import open_device
from profiler.device.lock import shared
from profiler.device.memory import memory_errors
from search.runs.evaluating import built, with_weights


@dataclass(frozen=True)
class Written:
    """What a model wrote.

    model: its title.
    text: the prompt and what follows.
    prompt_tokens: how many tokens the prompt has.
    tokens: how many were added, the end of the document included.
    ended: whether the model ended the document.
    """

    model: str
    text: str
    prompt_tokens: int
    tokens: int
    ended: bool


def generate(
    name: Path | str,
    prompt: str,
    *,
    tokens: int = 100,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    seed: int = 0,
    device: str = "cpu",
    results: Path | str = "results",
) -> Written:
    """The text that a model writes after a prompt, up to the end of the document.

    name: of a model with weights, as for `evaluate`.
    prompt: at least one character.
    tokens: how many the model may add.
    temperature, top_k, top_p, seed: as of `HybridLM.generate`; a temperature of 0 takes the most likely
        token each time.
    device: where the model runs, in float32.
    results: folder of all runs.

    Raises our errors.
    """
    if tokens < 1:
        raise ConfigError(f"tokens: expected at least 1, got {tokens}")
    open_device(device)
    Sampling(temperature, top_k, top_p, seed)  # says what is out of range before the weights are read
    if not prompt:
        raise DataError("prompt: expected at least one character, got none")
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"prompt: expected text in UTF-8, got a bad byte at {error.start}") from None
    source, tokenizer = with_weights(str(name), Path(results))
    ids = tokenizer.encode(prompt).ids
    end = None if source.end is None else tokenizer.token_to_id(source.end)
    with shared(device), memory_errors():
        written = built(source, device).generate(
            ids, tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, stop=end
        )
    ended = len(written) > len(ids) and written[-1] == end
    text = tokenizer.decode(written[:-1] if ended else written)
    return Written(source.title, text, len(ids), len(written) - len(ids), ended)

"""Measures an architecture in `transformers`, through its exported folder with random weights.

On a CPU the model runs eagerly, with the cache that its class makes. On a GPU it is compiled, with a cache of
fixed size, where its class allows that. The profile's `backends` say what was used.
"""

import copy
import inspect
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from operators.architecture import Architecture
from operators.base.errors import BackendError, FrontrunnerError, first_line
from operators.base.threads import torch_threads
from operators.cost import cost
from operators.published.folding import folded, plain
from operators.published.held import Held, hold
from operators.published.outward import published_tensors
from operators.published.safetensors_folder import WHOLE
from profiler.device.ceilings import copy_bytes_per_s
from profiler.device.device import Device
from profiler.device.lock import shared
from profiler.device.memory import memory_errors
from profiler.engines.sessions import Session, profile_of, steps_around, with_zeros, without_what_is_ours
from profiler.measuring.anchor import Anchor
from profiler.measuring.decoder import random_model
from profiler.profile import Profile, ProfileSettings

KERNEL_LIBRARIES = ("fla", "mamba_ssm", "causal_conv1d")
NO_SPECIAL_TOKENS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
COMPILED = "compiled with CUDA graphs (reduce-overhead), cache of fixed size"


def measure_in_transformers(
    architecture: Architecture,
    settings: ProfileSettings,
    *,
    device: Device,
    backend: str,
    seed: int,
    anchor: Anchor | None,
) -> Profile:
    """Measures an architecture through its exported folder with random weights.

    Parameters and locks are those of `profiler.measuring.measure.measure`.

    Raises ArchitectureError where no class of transformers holds the architecture, BackendError where the
    class fails, and MemoryError, or torch.OutOfMemoryError on a GPU, where memory ran out.
    """
    absent = without_what_is_ours(settings, backend, device)
    held = hold(plain(architecture))
    with torch.inference_mode(), torch_threads(settings.threads), memory_errors():
        copy_bytes_per_s(device)  # which takes the lock that is held below
        with shared(device.label), tempfile.TemporaryDirectory(prefix="frontrunner-") as name:
            anchor = anchor or Anchor(device)
            longest = (
                max(settings.contexts) + architecture.meta_tokens + 2 * max(map(_steps, settings.contexts))
            )
            _export(architecture, held, Path(name), device, seed=seed, longest=longest)
            model = _opened(Path(name), device)
            compiled = device.torch_device.type == "cuda" and bool(model._can_compile_fullgraph)
            if compiled:
                _forget_compiled(len(settings.contexts) * len(settings.batch_sizes))
            try:
                sessions = [
                    _session(model, architecture, held, batch, context, device, seed=seed, compiled=compiled)
                    for context in settings.contexts
                    for batch in settings.batch_sizes
                ]
            except (FrontrunnerError, MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # others' code, and their compiler, may raise anything
                raise BackendError(
                    f"transformers: {held.class_name}: {type(error).__name__}: {first_line(error)}"
                ) from error
        return profile_of(
            sessions,
            settings,
            device=device,
            anchor=anchor,
            params=sessions[0].cost.params,
            dtype=str(device.dtype).removeprefix("torch."),
            how={"transformers": f"{held.class_name}, {COMPILED if compiled else 'eager, its own cache'}"},
            absent=absent,
            seed=seed,
        )


def _steps(context: int) -> int:
    return steps_around(context)[1]


def _forget_compiled(points: int) -> None:
    """Makes room for the code of so many batch sizes and contexts.

    A process that has compiled one method for too many models and shapes runs it eagerly from then on.
    """
    torch.compiler.reset()
    torch._dynamo.config.recompile_limit = 2 * points + 8


def _export(
    architecture: Architecture, held: Held, to: Path, device: Device, *, seed: int, longest: int
) -> None:
    """Writes the folder of a model with random weights, without a tokenizer."""
    weights = random_model(architecture, device, backend="reference", seed=seed).state_dict()
    _, tensors = folded(architecture, weights)
    config = {
        **held.config,
        **NO_SPECIAL_TOKENS,
        "max_position_embeddings": longest,
        "dtype": str(device.dtype).removeprefix("torch."),
    }
    written = {key: tensor.cpu() for key, tensor in published_tensors(held, tensors).items()}
    save_file(written, to / WHOLE, metadata={"format": "pt"})
    (to / "config.json").write_text(json.dumps(config), encoding="utf-8")


def _opened(folder: Path, device: Device) -> Any:
    """The model that transformers makes of the folder."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is asked of the hub
    on_gpu = device.torch_device.type == "cuda"
    with nullcontext() if on_gpu else plain_definitions():
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(folder, dtype=device.dtype, local_files_only=True)
    return model.to(device.torch_device).eval()


def _session(
    model: Any,
    architecture: Architecture,
    held: Held,
    batch: int,
    context: int,
    device: Device,
    *,
    seed: int,
    compiled: bool,
) -> Session:
    """One batch size and context, after its first use. Meta tokens go before every prompt."""
    before, steps = steps_around(context)
    random, meta = torch.Generator().manual_seed(seed), architecture.meta_tokens
    text = torch.randint(architecture.vocabulary, (batch, context), generator=random)
    rows = torch.arange(architecture.vocabulary, architecture.vocabulary + meta).expand(batch, meta)
    prompt = torch.cat([rows, text], 1).to(device.torch_device)
    taken = inspect.signature(model.forward).parameters
    last = {"logits_to_keep": 1} if "logits_to_keep" in taken else {}
    cache_name = "cache_params" if "cache_params" in taken else "past_key_values"
    # A sample on a GPU has a step more than it times.
    fixed = _fixed_cache(model, meta + max(context, before + steps) + 2) if compiled else None
    step_of = torch.compile(model, mode="reduce-overhead", dynamic=False) if compiled else model

    def read(tokens: Tensor) -> tuple[Tensor, Any]:
        answer = model(input_ids=tokens, use_cache=True, **{cache_name: fixed and fixed()}, **last)
        return answer.logits[:, -1:].argmax(-1), answer[cache_name]

    def prefill_ms() -> float:
        return device.timed(lambda: read(prompt))

    read_before: list[tuple[Tensor, Any]] = []

    def begun() -> tuple[Tensor, Any]:
        """The token after the first part of the prompt, and the cache behind it."""
        if compiled:  # which steps read where it lies
            return read(prompt[:, : meta + before])
        if not read_before:
            read_before.append(read(prompt[:, : meta + before]))
        return copy.deepcopy(read_before[0])

    def decode_ms() -> float:
        token, cache = begun()

        def step() -> None:
            nonlocal token
            if compiled:
                torch.compiler.cudagraph_mark_step_begin()  # nothing of the step before is needed any more
            answer = step_of(input_ids=token, use_cache=True, **{cache_name: cache})
            token = answer.logits[:, -1:].argmax(-1)

        return device.mean_time(step, before=lambda: None, count=steps)

    def decode() -> tuple[float, int]:
        return decode_ms(), steps

    def use() -> None:
        prefill_ms()
        decode()

    use()  # compiles, and lets libraries allocate what they keep
    weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    own = cost(architecture, batch=batch, context=context, dtype=device.dtype)
    return Session(
        batch=batch,
        context=context,
        memory_bytes=weights + device.peak_memory(use),
        cost=with_zeros(own, held.zeros * device.dtype.itemsize),
        prefill_ms=prefill_ms,
        decode=decode,
    )


def _fixed_cache(model: Any, tokens: int) -> Callable[[], Any]:
    """What gives an empty cache of fixed size: always the same one, as compiled steps need it."""
    from transformers import StaticCache

    cache = StaticCache(config=model.config, max_cache_len=tokens)

    def empty() -> StaticCache:
        cache.reset()
        return cache

    return empty


@contextmanager
def plain_definitions() -> Iterator[None]:
    """Inside, `transformers` finds no kernel library when it imports the code of a model.

    It looks for them once, then calls their kernels for tensors on the CPU too, where they cannot run.
    """
    before = {name: sys.modules[name] for name in KERNEL_LIBRARIES if name in sys.modules}
    for name in KERNEL_LIBRARIES:
        sys.modules[name] = None  # type: ignore[assignment]  # makes `import` fail
    try:
        yield
    finally:
        for name in KERNEL_LIBRARIES:
            del sys.modules[name]
        sys.modules.update(before)

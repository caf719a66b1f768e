"""Benchmark: training throughput next to the same models in `transformers` and `fla`.

A search spends most of its time in training, so a training loop that is slower than others' wastes it.

    frontrunner bench training --device cuda:0

The models have about 500 million parameters and read the same batch of random tokens in bfloat16, with AdamW
(fused) and clipped gradients. Ours keeps float32 masters, replays a CUDA graph and adds up in a fixed order,
as trainings do. The time in any order stands beside it, which shows what the fixed order costs. Theirs is
what their users run, step by step: float32 weights cast by autocast, and bfloat16 weights without masters,
which is faster but loses small updates. What counts as work is the same for all, `training_flops` of the
architecture, against a matrix product measured in the run. Seconds leave out the first steps, in which
kernels are compiled.
"""

import gc
import importlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from operators.architecture import Architecture
from operators.base.errors import flat
from operators.cost import parameters, training_flops
from operators.kernels.libraries import deterministic, load
from operators.model import HybridLM
from profiler.device.ceilings import matrix_product_flops_per_s
from profiler.device.device import Device, open_device
from profiler.device.lock import exclusive
from profiler.kernels.warm import Workload, jobs, warm
from proxy_train.loss import best_loss
from proxy_train.optim import BETAS, language_optimizer
from proxy_train.settings import ProxySettings
from proxy_train.step import Step, own_stream
from search.benchmarks.benchmark import Benchmark, Figures, Measured

FLASH = "d f m f a f m f d f m f a f m f d f m f d f m f"  # the layers of Nemotron-Flash-1B
ROUNDS = 5
Rival = Callable[[Architecture], Any]


@dataclass(frozen=True)
class Size:
    """What is trained: width, depth in blocks, vocabulary, rows and tokens of a batch, steps of a round."""

    width: int
    blocks: int
    vocabulary: int
    head_dim: int
    batch: int
    tokens: int
    steps: int


SIZES = {
    "cuda": Size(width=1536, blocks=12, vocabulary=32_000, head_dim=128, batch=8, tokens=2048, steps=4),
    # Shows only that the benchmark runs.
    "cpu": Size(width=64, blocks=1, vocabulary=512, head_dim=16, batch=2, tokens=64, steps=1),
}


@dataclass(frozen=True)
class Case:
    """One model, and how another library builds the same one.

    rival: (architecture) -> module, or None where no library has the model.
    """

    name: str
    architecture: Architecture
    library: str = ""
    rival: Rival | None = None


def cases(size: Size) -> list[Case]:
    head = size.head_dim

    def model(layers: str, ratio: float) -> Architecture:
        genes: dict[str, dict[str, Any]] = {
            "attention": {"head_dim": head, "group": 3 if size.width % (3 * head) == 0 else 1},
            "deltanet": {"head_dim": head},
            "gated_deltanet": {"head_dim": head // 2, "value_ratio": 2.0},
            "mamba2": {"head_dim": head // 2, "state": head},
            "swiglu": {"ratio": ratio},
        }
        return Architecture.from_shorthand(
            layers,
            width=size.width,
            vocabulary=size.vocabulary,
            genes=genes,
            tied_embeddings=False,
            norm_eps=1e-6,
        )

    return [
        Case("llama", model("a f " * size.blocks, 4), "transformers", llama),
        Case("nemotron_flash", model(FLASH if size.blocks > 1 else "d f m f a f", 3)),
        Case("gated_deltanet", model("g f " * size.blocks, 8 / 3), "fla", gated_deltanet),
        Case("deltanet", model("d f " * size.blocks, 10 / 3), "fla", deltanet),
    ]


def llama(architecture: Architecture) -> Any:
    """LlamaForCausalLM of `transformers`. Raises ImportError."""
    library = importlib.import_module("transformers")
    attention, feedforward = (layer.shape.model_dump() for layer in architecture.layers[:2])
    config = library.LlamaConfig(
        hidden_size=architecture.width,
        intermediate_size=feedforward["hidden"],
        num_hidden_layers=architecture.depth // 2,
        num_attention_heads=attention["heads"],
        num_key_value_heads=attention["kv_heads"],
        head_dim=attention["head_dim"],
        vocab_size=architecture.vocabulary,
        tie_word_embeddings=False,
        use_cache=False,
    )
    return library.LlamaForCausalLM(config)


def gated_deltanet(architecture: Architecture) -> Any:
    """GatedDeltaNetForCausalLM of `fla`. Raises ImportError."""
    library, shape = load("fla.models"), architecture.layers[0].shape.model_dump()
    ratio = shape["value_dim"] / shape["key_dim"]
    config = library.GatedDeltaNetConfig(
        **_fla(architecture), num_heads=shape["heads"], head_dim=shape["key_dim"], expand_v=ratio
    )
    return library.GatedDeltaNetForCausalLM(config)


def deltanet(architecture: Architecture) -> Any:
    """DeltaNetForCausalLM of `fla`. Raises ImportError."""
    library, shape = load("fla.models"), architecture.layers[0].shape.model_dump()
    config = library.DeltaNetConfig(**_fla(architecture), num_heads=shape["heads"])
    return library.DeltaNetForCausalLM(config)


def _fla(architecture: Architecture) -> dict[str, Any]:
    return {
        "hidden_size": architecture.width,
        "intermediate_size": architecture.layers[1].shape.model_dump()["hidden"],
        "num_hidden_layers": architecture.depth // 2,
        "vocab_size": architecture.vocabulary,
        "fuse_cross_entropy": False,
        "fuse_linear_cross_entropy": True,
        "use_cache": False,
    }


def train_and_compare(device: str, console: Console) -> Measured:
    """Tokens per second and memory of every model, and the seconds of each round.

    `NAME.reason` says why something has no figures.
    """
    opened = open_device(device)
    size = SIZES[opened.torch_device.type]
    figures: Figures = {}
    samples: list[dict[str, Any]] = []
    if opened.torch_device.type == "cuda":
        workload = Workload(training=((size.batch, size.tokens),), decoding=())
        compiled = list(warm(jobs([case.architecture for case in cases(size)], workload, device)))
        console.print(f"compiled in {max(done.seconds for done in compiled):.0f} s")
    with exclusive(device):
        rate = matrix_product_flops_per_s(opened)
        figures |= {"matrix_product_flops_per_s": rate, "batch": size.batch, "sequence_tokens": size.tokens}
        console.print(f"matrix product {rate:.3g} FLOP/s")
        for case in cases(size):
            flops = training_flops(case.architecture, size.tokens)
            figures |= {
                f"{case.name}.params": parameters(case.architecture),
                f"{case.name}.flops_per_token": flops,
            }
            for who, run in _runs(case, size, opened):
                label = f"{case.name}.{who}"
                try:
                    results, seconds = run()
                # Libraries raise any of these for work that they do not support.
                except (ImportError, RuntimeError, AssertionError, ValueError, TypeError) as error:
                    results, seconds = (
                        {"reason": flat(f"{type(error).__name__}: {error}", at_most=300)},
                        [],
                    )
                _free(opened)
                if seconds:
                    speed = size.batch * size.tokens * size.steps / median(seconds)
                    results |= {"tokens_per_s": speed, "of_matrix_product": speed * flops / rate}
                    samples.append(
                        {"model": case.name, "who": who, "round_s": seconds, "steps_of_round": size.steps}
                    )
                figures |= {f"{label}.{key}": value for key, value in results.items()}
                console.print(
                    f"{label}: {', '.join(f'{key} {value}' for key, value in results.items())}",
                    soft_wrap=True,
                    markup=False,
                )
    return Measured(figures, samples)


Run = Callable[[], tuple[Figures, list[float]]]


def _runs(case: Case, size: Size, device: Device) -> list[tuple[str, Run]]:
    runs: list[tuple[str, Run]] = [("ours", lambda: _ours(case, size, device))]
    if device.torch_device.type == "cuda":
        runs += [("ours_in_any_order", lambda: _ours(case, size, device, order=nullcontext))]
    if (rival := case.rival) is not None:
        runs += [(f"{case.library}_autocast", lambda: _theirs(case, rival, size, device, torch.float32))]
        runs += [(f"{case.library}_bfloat16", lambda: _theirs(case, rival, size, device, torch.bfloat16))]
    return runs


def _ours(
    case: Case, size: Size, device: Device, order: Callable[[], AbstractContextManager[None]] = deterministic
) -> tuple[Figures, list[float]]:
    settings = ProxySettings()
    began = time.perf_counter()
    model = HybridLM(case.architecture, device=device.torch_device, dtype=device.dtype)
    optimizer = language_optimizer(
        model,
        learning_rate=1e-4,
        weight_decay=settings.weight_decay,
        gradient_clip=settings.gradient_clip,
        base_width=None,
        normalized=False,
    )
    windows = _windows(size, torch.device("cpu"))
    batch = windows[:, :-1], windows[:, 1:]
    loss_of = partial(best_loss(device.torch_device, device.dtype), model)
    step = Step(loss_of, batch, optimizer, rows=size.batch)
    with order(), own_stream(device.torch_device):
        while not step.settled:
            step(batch, 1.0)
        startup_s, seconds = _rounds(lambda: step(batch, 1.0), size, device, began)
    backends = " ".join(f"{operator}:{backend}" for operator, backend in model.backends.items())
    return {
        "execution": step.execution,
        "backends": backends,
        "startup_s": startup_s,
        **_memory(device),
    }, seconds


def _theirs(
    case: Case, rival: Rival, size: Size, device: Device, dtype: torch.dtype
) -> tuple[Figures, list[float]]:
    """Trains a library's model. Autocast casts float32 weights; other weights compute in their own type."""
    began = time.perf_counter()
    model = rival(case.architecture).to(device.torch_device, dtype).train()
    weights = list(model.parameters())
    optimizer = torch.optim.AdamW(
        weights, lr=1e-4, betas=BETAS, weight_decay=ProxySettings().weight_decay, fused=True
    )
    tokens = _windows(size, device.torch_device)[:, :-1].contiguous()
    autocast = (
        torch.autocast(device.torch_device.type, torch.bfloat16) if dtype == torch.float32 else nullcontext()
    )

    def step() -> None:
        with autocast:
            loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, ProxySettings().gradient_clip)
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(3):
        step()
    startup_s, seconds = _rounds(step, size, device, began)
    return {
        "params": sum(weight.numel() for weight in weights),
        "startup_s": startup_s,
        **_memory(device),
    }, seconds


def _rounds(step: Callable[[], Any], size: Size, device: Device, began: float) -> tuple[float, list[float]]:
    """Seconds since `began`, one more step included, and those of each round."""
    step()
    device.synchronize()
    startup_s, seconds = time.perf_counter() - began, []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(size.steps):
            step()
        device.synchronize()
        seconds.append(time.perf_counter() - start)
    return startup_s, seconds


def _windows(size: Size, device: torch.device) -> Tensor:
    """Random tokens [B, T + 1]."""
    return torch.randint(
        size.vocabulary, (size.batch, size.tokens + 1), generator=torch.Generator().manual_seed(0)
    ).to(device)


def _memory(device: Device) -> Figures:
    """The most memory that was allocated since `_free`; it is not counted on a CPU."""
    return (
        {"peak_memory_bytes": torch.cuda.max_memory_allocated(device.torch_device)}
        if device.torch_device.type == "cuda"
        else {}
    )


def _free(device: Device) -> None:
    gc.collect()
    if device.torch_device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device.torch_device)


BENCHMARK = Benchmark(
    "training", "training throughput next to the same models in `transformers` and `fla`", train_and_compare
)

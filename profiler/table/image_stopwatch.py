"""Times parts of models that see, by what each adds to what is there without it.

Halves of blocks are timed so many in a row, and twice as many. The pictures are timed before a small model:
on a CPU they drive weights and code out of the caches, and what follows takes longer. The projector and the
ends of a tower are timed by themselves.

On a GPU, all but the pictures is replayed from CUDA graphs, as in `profiler.measuring.vision`.
"""

from collections.abc import Callable
from math import ceil, isqrt
from typing import Any

import torch
from torch import Tensor

from operators.base.graph import captured
from operators.vision.projector import ImageProjector
from operators.vision.tower import Tower, VisionBlock
from operators.vision.vision_language import CHANNELS, VisionLanguage, VisionTower
from profiler.device.device import Device
from profiler.measuring.vision import Session, random_model
from profiler.table.image_parts import (
    PatchAttention,
    PatchNetwork,
    PatchProjector,
    Pictures,
    TowerEnds,
)
from profiler.table.parts import Part

_SAMPLE_MS = 2.0  # shorter runs are gathered into one sample, as decode steps are
_WARMUPS = 3  # of a captured graph
THETA = 1e4  # of rotary positions: any takes as long


def image_stopwatches(
    part: Part, layers: int, device: Device
) -> tuple[Callable[[], float], Callable[[], float] | None]:
    """What times a model without the part, or with `layers` of it, and with it, or with twice as many (ms).

    The other one is None for a part that is timed by itself. It loads the device: the caller holds the shared
    lock here, and the exclusive lock while timing. Both are done under `torch.inference_mode`.

    Raises MemoryError or torch.OutOfMemoryError where memory runs out.
    """
    if isinstance(part.what, Pictures):
        session = Session(
            random_model(_company(part.what.size), device, "auto", 0),
            1,
            part.what.picture,
            part.batch,
            1,
            device,
            0,
        )
        return _timed(session.behind_pictures, device), _timed(session.first_token, device)
    with torch.random.fork_rng(devices=[device.torch_device] if device.torch_device.type == "cuda" else []):
        torch.manual_seed(0)
        short, long = _launches(part, layers, device)
    return _graph(short, device), None if long is None else _graph(long, device)


def _company(size: int) -> VisionLanguage:
    """A small model behind pictures of that size."""
    patch_size = next(pixels for pixels in range(min(8, size), size + 1) if size % pixels == 0)
    tower = {"image_size": size, "patch_size": patch_size, "width": 64, "depth": 1, "heads": 2, "hidden": 128}
    language = {"width": 64, "vocabulary": 512, "layers": "a f"}
    whole = {"tower": tower, "projector": {}, "language": language, "image_token": 0}
    return VisionLanguage.parse(whole)


def _graph(launch: Callable[[], Any], device: Device) -> Callable[[], float]:
    on_gpu = device.torch_device.type == "cuda"
    run = captured(launch, device=device.torch_device, warmups=_WARMUPS).replay if on_gpu else launch
    return _timed(run, device)


def _timed(run: Callable[[], Any], device: Device) -> Callable[[], float]:
    repeats = max(1, ceil(_SAMPLE_MS / min(device.timed(run) for _ in range(3))))
    return lambda: sum(device.timed(run) for _ in range(repeats)) / repeats


def _launches(part: Part, layers: int, device: Device) -> tuple[Callable[[], Any], Callable[[], Any] | None]:
    what, images, grid = part.what, part.batch, isqrt(part.context)
    where: dict[str, Any] = {"device": device.torch_device, "dtype": device.dtype}
    tower = _tower(part, grid)
    ends = Tower(tower).to(**where).eval()
    if isinstance(what, TowerEnds):
        ends.blocks = torch.nn.ModuleList()
        pixels = torch.randn(images, CHANNELS, tower.image_size, tower.image_size, **where)
        return lambda: ends(pixels), None
    if isinstance(what, PatchProjector):
        language = {"width": what.language_width, "vocabulary": 2, "layers": "f"}
        whole = {"tower": tower, "projector": what.projector, "language": language, "image_token": 0}
        projector = ImageProjector(VisionLanguage.parse(whole), embedding_std=1.0).to(**where).eval()
        patches = torch.randn(images, grid, grid, part.width, **where)
        return lambda: projector(patches), None
    blocks = [VisionBlock(tower, tower.norms[0]).to(**where).eval() for _ in range(2 * layers)]
    turn, attends = ends.turn(grid, grid, device.torch_device), isinstance(what, PatchAttention)
    patches = torch.randn(images, grid**2, part.width, **where)

    def through(count: int) -> Tensor:
        x = patches
        for block in blocks[:count]:
            x = block.attended(x, turn) if attends else block.fed(x)
        return x

    return lambda: through(layers), lambda: through(2 * layers)


def _tower(part: Part, grid: int) -> VisionTower:
    """A tower with this part; everything else about it is as small as can be."""
    what = part.what
    patch_size = what.patch_size if isinstance(what, TowerEnds) else 1
    tower: dict[str, Any] = {
        "image_size": grid * patch_size,
        "patch_size": patch_size,
        "width": part.width,
        "depth": 1,
        "heads": 1,
        "hidden": 1,
        "rope_theta": THETA if part.rope else None,
        "position_bias": False,
    }
    if isinstance(what, PatchAttention):
        tower |= {"heads": what.heads, "qk_norm": what.qk_norm, "bias": what.bias, "norms": what.norm}
    elif isinstance(what, PatchNetwork):
        tower |= {"hidden": what.hidden, "feedforward": what.feedforward, "bias": what.bias}
        tower["norms"] = what.norm
    elif isinstance(what, TowerEnds):
        positions = {"position_bias": True, "position_grid": what.positions} if what.positions else {}
        tower |= {"final_norm": what.final_norm, **positions}
    return VisionTower.model_validate(tower)

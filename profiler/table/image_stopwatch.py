"""Times parts of models that see: so many halves of blocks in a row, or another part by itself.

They are timed as `profiler.measuring.vision` does: on a GPU from a captured CUDA graph, but for the pictures,
which the CPU prepares.
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
from profiler.measuring.vision import prepared, random_pictures
from profiler.table.image_parts import (
    ImagePart,
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


def image_stopwatch(part: Part, count: int, device: Device) -> Callable[[], float]:
    """A function that times the part (ms); of halves of blocks, `count` in a row.

    It loads the device: the caller holds the shared lock here, and the exclusive lock while timing. Both are
    done under `torch.inference_mode`.

    Raises MemoryError or torch.OutOfMemoryError where memory runs out.
    """
    with torch.random.fork_rng(devices=[device.torch_device] if device.torch_device.type == "cuda" else []):
        torch.manual_seed(0)
        launch = _launch(part, count, device)
    on_gpu = device.torch_device.type == "cuda" and not isinstance(part.what, Pictures)
    run = captured(launch, device=device.torch_device, warmups=_WARMUPS).replay if on_gpu else launch
    repeats = max(1, ceil(_SAMPLE_MS / min(device.timed(run) for _ in range(3))))
    return lambda: sum(device.timed(run) for _ in range(repeats)) / repeats


def _launch(part: Part, count: int, device: Device) -> Callable[[], Any]:
    what, images, grid = part.what, part.batch, isqrt(part.context)
    if isinstance(what, Pictures):
        pictures = random_pictures(images, seed=0)
        pixels = prepared(pictures, what.size).to(device.torch_device, device.dtype)
        return lambda: pixels.copy_(prepared(pictures, what.size))
    where: dict[str, Any] = {"device": device.torch_device, "dtype": device.dtype}
    patches = torch.randn(images, grid, grid, part.width, **where)
    tower = _tower(what, part.width, grid, rotated=part.rope)
    if isinstance(what, TowerEnds):
        ends = Tower(tower).to(**where).eval()
        ends.blocks = torch.nn.ModuleList()
        pixels = torch.randn(images, CHANNELS, tower.image_size, tower.image_size, **where)
        return lambda: ends(pixels)
    if isinstance(what, PatchProjector):
        language = {"width": what.language_width, "vocabulary": 2, "layers": "f"}
        whole = {"tower": tower, "projector": what.projector, "language": language, "image_token": 0}
        projector = ImageProjector(VisionLanguage.parse(whole), embedding_std=1.0).to(**where).eval()
        return lambda: projector(patches)
    blocks = [VisionBlock(tower, tower.norms[0]).to(**where).eval() for _ in range(count)]
    angles = Tower(tower).angles(grid, grid, device.torch_device)
    flat, attends = patches.flatten(1, 2), isinstance(what, PatchAttention)

    def through() -> Tensor:
        x = flat
        for block in blocks:
            x = block.attended(x, angles) if attends else block.fed(x)
        return x

    return through


def _tower(what: ImagePart | object, width: int, grid: int, *, rotated: bool) -> VisionTower:
    """A tower with this part; everything else about it is as small as can be."""
    patch_size = what.patch_size if isinstance(what, TowerEnds) else 1
    tower: dict[str, Any] = {
        "image_size": grid * patch_size,
        "patch_size": patch_size,
        "width": width,
        "depth": 1,
        "heads": 1,
        "hidden": 1,
        "rope_theta": THETA if rotated else None,
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

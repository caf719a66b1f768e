"""Benchmark: the way to the first token of published models that see, part by part.

    pip install 'frontrunner[vision]'
    frontrunner bench vision_profile --device cuda:0

Each model is measured at its own resolution and at half of it, with one image and 32 tokens of text in each
prompt: preparing the picture on the CPU, tower, projector, prefill, and all of them in a row.
"""

from typing import Any

from rich.console import Console

from operators import VisionLanguage
from operators.base import shipped
from operators.base.errors import FrontrunnerError
from profiler.device.device import open_device
from profiler.device.lock import shared
from profiler.process.worker import ProfilingWorker
from profiler.profile import Profile, ProfileSettings
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.view.terminal_tables import show
from search.view.vision_profiles import first_tokens

_SAMPLING: dict[str, Any] = {"min_seconds": 0.1, "max_seconds": 0.3}
_BATCHES = {"cpu": (1,), "cuda": (1, 8, 32)}
TEXT_TOKENS = 32
DEADLINE_S = 300.0
METRICS = (
    *("ttft_ms", "preprocess_ms", "tower_ms", "projector_ms", "prefill_ms", "decode_ms"),
    *("images_per_s", "peak_memory_bytes"),
)


def first_token_of_published(device: str, console: Console) -> Measured:
    """Milliseconds of each part by model, resolution and batch size, and every profile."""
    batches = _BATCHES[open_device(device).torch_device.type]
    settings = ProfileSettings(batch_sizes=batches, contexts=(TEXT_TOKENS,), images=1, **_SAMPLING)
    figures: Figures = {}
    profiles: list[tuple[str, Profile]] = []
    with ProfilingWorker(device) as worker:
        with shared(device):
            worker.start()
        for name, value in _models():
            try:
                profile = worker.profile(value, settings, deadline_s=DEADLINE_S)
            except FrontrunnerError as error:
                figures[f"{name}.failed"] = str(error)
                console.print(f"{name}: {error}", soft_wrap=True, markup=False)
                continue
            profiles.append((name, profile))
            figures |= {f"{name}.{metric}": number for metric, number in _figures(profile).items()}
            figures |= {f"{name}.tainted": "; ".join(profile.tainted)}
    show(console, first_tokens(profiles))
    return Measured(
        figures, [{"model": name, **profile.model_dump(mode="json")} for name, profile in profiles]
    )


def _models() -> list[tuple[str, VisionLanguage]]:
    """Shipped models by name and resolution: their own, and half of it or as near as patches divide."""
    found = []
    for name in shipped.names("vision-language model"):
        value = VisionLanguage.load(name)
        size, step = value.tower.image_size, value.tower.patch_size * value.projector.pixel_shuffle
        for pixels in (size, size // 2 // step * step):
            data = value.model_dump(mode="json")
            data["tower"]["image_size"] = pixels
            found.append((f"{name} {pixels}", VisionLanguage.parse(data)))
    return found


def _figures(profile: Profile) -> Figures:
    named = {name: value for name, value in profile.metrics().items() if name.partition("@")[0] in METRICS}
    return {"params": profile.params, "image_tokens": profile.vision[0].image_tokens, **named}


BENCHMARK = Benchmark(
    "vision_profile",
    "the way to the first token of published models that see, part by part",
    first_token_of_published,
    needs={"PIL": "pip install 'frontrunner[vision]'"},
)

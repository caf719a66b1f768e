"""Measures a model that sees: the time to the first token and its parts, beside what its decoder costs.

The decoder alone is measured as every language model, at contexts of text and image tokens together. Then the
parts are timed: preprocessing of pictures on the CPU, the tower, the projector, and all with the prefill in a
row. The very first pass is timed apart, because nothing is warm then. Pictures are decoded ones of
`profile.picture` pixels: reading a file's format is not the model's cost.

On a GPU, tower and projector are replayed from CUDA graphs, as prefill and decode are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.base.errors import DeviceError
from operators.base.graph import captured
from operators.base.threads import torch_threads
from operators.vision.cost import vision_cost
from operators.vision.model import VisionLanguageModel
from operators.vision.preprocess import normalized, pillow, resized
from operators.vision.vision_language import VisionLanguage
from profiler.device.device import Device, open_device
from profiler.device.lock import shared
from profiler.device.memory import memory_errors
from profiler.measuring.anchor import Anchor
from profiler.measuring.conditions import watched
from profiler.measuring.decode_energy import BURST_MS, decode_energy, unlike_energies
from profiler.measuring.decoder import most_likely
from profiler.measuring.pace import Pace
from profiler.measuring.quiet_core import QuietCore, beside
from profiler.profile import Profile, ProfileSettings, instability
from profiler.timing import Timing, sample
from profiler.vision_point import Picture, VisionPoint

_WARMUPS = 3  # of a captured graph, as for the decoder's
# A picture of that size, and a tower's, to see whether a core is quiet: half a millisecond of work.
_PROBE, _PROBE_SIZE = (256, 192), 96


def measure_vision(
    value: VisionLanguage,
    settings: ProfileSettings,
    language: Callable[..., Profile],
    *,
    device: str,
    backend: str,
    seed: int,
    anchor: Anchor | None,
) -> Profile:
    """Measures tower, projector and decoder. It takes the device's locks itself.

    language: measures a language model, `profiler.measuring.measure.measure`

    Raises DeviceError where the settings have no images, and for an engine of others.
    Raises the errors of `language`.
    """
    opened = open_device(device, engines=True)
    if opened.engine:
        raise DeviceError(f"device {device}: a model that sees cannot be measured in {opened.engine} yet")
    if not settings.images:
        raise DeviceError("profile.images 0: expected at least 1 for a model that sees")
    image_tokens = settings.images * value.image_tokens
    together = tuple(context + image_tokens for context in settings.contexts)
    of_decoder = settings.model_copy(update={"contexts": together, "images": 0})
    decoder = language(value.language, of_decoder, device=device, backend=backend, seed=seed, anchor=anchor)
    with torch.inference_mode(), torch_threads(settings.threads), memory_errors():
        with shared(opened.label) as give_way:
            anchor = anchor or Anchor(opened)
            model = random_model(value, opened, backend, seed)
            sessions = []
            for context, batch in product(settings.contexts, settings.batch_sizes):
                give_way()
                sessions.append(
                    Session(model, settings.images, settings.picture, batch, context, opened, seed)
                )
        pace, with_energy = Pace(anchor), bool(settings.energy_seconds) and not decoder.absent
        core = core_of_pictures(opened)
        vision, conditions = watched(
            lambda: [
                _measured(session, opened, settings, pace, core, with_energy=with_energy)
                for session in sessions
            ],
            anchor=anchor,
            attempts=settings.attempts,
            usual_ms=pace.usual_ms,
            device=opened,
            unstable=lambda point: (
                opened.torch_device.type == "cpu" and bool(instability(point.first_token, "cpu"))
            ),
            core=core,
        )
        if remarks := unlike_energies(vision):
            conditions = conditions.model_copy(update={"remarks": (*conditions.remarks, *remarks)})
        peaks = [session.peak_memory_bytes for session in sessions]
    arithmetic = vision_cost(value, images=settings.images, dtype=opened.dtype)
    outside = arithmetic.param_bytes - arithmetic.language.param_bytes
    absent = dict(decoder.absent)
    if reason := next(iter(absent.values()), ""):  # the device counts no energy
        absent["ttft_energy_j"] = reason
    points = [
        point.model_copy(
            update={
                "context": point.context - image_tokens,
                "peak_memory_bytes": max(peak, point.peak_memory_bytes + outside),
            }
        )
        for point, peak in zip(decoder.points, peaks, strict=True)
    ]
    largest = [each.model_copy(update={"context": each.context - image_tokens}) for each in decoder.largest]
    return decoder.model_copy(
        update={
            "contexts": settings.contexts,
            "params": arithmetic.params,
            "param_bytes": arithmetic.param_bytes,
            "points": tuple(points),
            "largest": tuple(largest),
            "vision": vision,
            "vision_conditions": conditions,
            "absent": absent,
        }
    )


def core_of_pictures(device: Device) -> QuietCore | None:
    """Finds the core that prepares pictures for a GPU; None on a CPU, whose times allow for its pace."""
    if device.torch_device.type == "cpu":
        return None
    # It learns the pace anew for each measurement: all cores of a host have lower clocks when it is busier.
    picture = random_pictures(1, _PROBE, seed=0)[0]
    return QuietCore(lambda: resized(picture, _PROBE_SIZE, "stretch"))


def random_pictures(count: int, picture: Picture, *, seed: int) -> list[Any]:
    """Decoded pictures of that width and height."""
    random, (width, height) = np.random.default_rng(seed), picture
    pixels = (random.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count))
    return [pillow().Image.fromarray(each) for each in pixels]


def prepared(pictures: Sequence[Any], size: int) -> Tensor:
    """Pictures as a tower takes them, on the CPU: [N, 3, size, size]."""
    return normalized(np.stack([resized(each, size, "stretch") for each in pictures]), size)


def random_model(value: VisionLanguage, device: Device, backend: str, seed: int) -> VisionLanguageModel:
    """A model on `device` in its dtype; torch's random state is the same afterwards as before."""
    with torch.random.fork_rng(devices=[device.torch_device] if device.torch_device.type == "cuda" else []):
        torch.manual_seed(seed)
        model = VisionLanguageModel(value, backend=backend, device=device.torch_device, dtype=device.dtype)
        return model.eval()


@dataclass
class _Work:
    """A part that is run again and again.

    launch: does the work once
    run: the same, on a GPU by its captured graph
    """

    launch: Callable[[], Any]
    run: Callable[[], Any]


class Session:
    """Pictures and prompts of one batch size and context, ready to be read.

    peak_memory_bytes: weights and state, and the most that one pass had allocated
    first_image_ms: what the first pass took (ms)
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        images: int,
        picture: Picture,
        batch: int,
        context: int,
        device: Device,
        seed: int,
    ) -> None:
        random = np.random.default_rng(seed)
        self.model, self.images, self.batch, self.context, self.device = model, images, batch, context, device
        value, where = model.value, device.torch_device
        self._pictures = random_pictures(batch * images, picture, seed=seed)
        tokens = torch.from_numpy(random.integers(value.language.vocabulary, size=(batch, context)))
        self._text = tokens.to(where)
        self._all = torch.zeros(batch, context + images * value.image_tokens, dtype=torch.int64, device=where)
        self.state = model.language.allocate_state(*self._all.shape)
        self._pixels = self.preprocess().to(where, device.dtype)
        self.first_image_ms = device.timed(self._pass)
        # Graphs read and write these three at the addresses of now: nothing may take their places.
        self._patches = model.tower(self._pixels)
        self._features = model.projector(self._patches)
        self.tower, self.projector, self.prefill = (
            _work(launch, device) for launch in (self._into_patches, self._into_features, self._prefill)
        )
        weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
        self.peak_memory_bytes = weights + self.state.bytes + device.peak_memory(self._pass)

    def preprocess(self) -> Tensor:
        """All pictures as the tower takes them, on the CPU: [N, 3, size, size]."""
        return prepared(self._pictures, self.model.value.tower.image_size)

    def _into_patches(self) -> None:
        self._patches.copy_(self.model.tower(self._pixels))

    def _into_features(self) -> None:
        self._features.copy_(self.model.projector(self._patches))

    def _prefill(self) -> Tensor:
        return self._read(self._features)

    def _read(self, features: Tensor) -> Tensor:
        """Reads image tokens and text, and chooses the first token of each row."""
        language = self.model.language
        self.state.reset()
        of_images = features.reshape(self.batch, -1, features.shape[-1])
        embedded = torch.cat([of_images, language.embedded(self._text)], 1)
        return most_likely(language.prefill(self._all, self.state, embedded=embedded))

    def _pass(self) -> Tensor:
        """One pass without graphs, and without what they hold."""
        self._pixels.copy_(self.preprocess())
        return self._read(self.model.projector(self.model.tower(self._pixels)))

    def first_token(self) -> None:
        """From the pictures to the first token."""
        self._pixels.copy_(self.preprocess())
        self.behind_pictures()

    def behind_pictures(self) -> None:
        """From the normalized images to the first token."""
        self.tower.run()
        self.projector.run()
        self.prefill.run()


def _work(launch: Callable[[], Any], device: Device) -> _Work:
    if device.torch_device.type != "cuda":
        return _Work(launch, launch)
    graph = captured(launch, device=device.torch_device, warmups=_WARMUPS)
    return _Work(launch, graph.replay)


def _measured(
    session: Session,
    device: Device,
    settings: ProfileSettings,
    pace: Pace,
    core: QuietCore | None,
    *,
    with_energy: bool,
) -> VisionPoint:
    def timing(run: Callable[[], Any], core: QuietCore | None = None) -> Timing:
        on_cpu = device.torch_device.type == "cpu"
        elapsed = beside(core, pace.beside(lambda: device.timed(run)))
        return sample(elapsed, settings=settings, lasting=on_cpu)

    preprocess, tower = timing(session.preprocess, core), timing(session.tower.run)
    projector, first_token = timing(session.projector.run), timing(session.first_token, core)
    energy = None
    if with_energy:
        passes = ceil(BURST_MS / first_token.median_ms)
        energy = decode_energy(
            lambda: _passes(session, passes, device),
            device=device,
            seconds=settings.energy_seconds,
            tokens=passes,
        )
    costs = vision_cost(
        session.model.value, batch=session.batch, text_tokens=session.context, images=session.images
    )
    return VisionPoint(
        batch=session.batch,
        context=session.context,
        images=session.images,
        image_tokens=session.model.value.image_tokens,
        preprocess=preprocess,
        tower=tower,
        projector=projector,
        first_token=first_token,
        first_image_ms=session.first_image_ms,
        flops=costs.first_token_flops,
        energy=energy,
    )


def _passes(session: Session, count: int, device: Device) -> None:
    for _ in range(count):
        session.first_token()
    device.synchronize()

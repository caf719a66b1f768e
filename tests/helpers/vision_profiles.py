"""Profiles of models that see on the made-up device; they stand where a process would measure."""

from typing import Any

from operators import Architecture
from profiler.process.worker import ProfilingWorker
from profiler.profile import Profile, ProfileSettings
from profiler.vision_point import VisionPoint
from tests.helpers.made_up_profile import CALM, exactly, made_up_profile


def made_up(self: ProfilingWorker, architecture: Any, settings: ProfileSettings, **rest: object) -> Profile:
    """Stands for `ProfilingWorker.profile`."""
    if isinstance(architecture, Architecture):
        assert settings.images == 0
        return made_up_profile(architecture, settings)
    points = tuple(
        VisionPoint(
            batch=batch,
            context=context,
            images=settings.images,
            image_tokens=architecture.image_tokens,
            preprocess=exactly(1.5),
            tower=exactly(20.25),
            projector=exactly(2.5),
            first_token=exactly(30.0),
            first_image_ms=99.5,
            flops=1,
        )
        for context in settings.contexts
        for batch in settings.batch_sizes
    )
    update = {"vision": points, "vision_conditions": CALM}
    return made_up_profile(architecture.language, settings).model_copy(update=update)

"""Settings of a profile that takes a moment, and an architecture without a fault."""

from profiler.profile import ProfileSettings
from tests.helpers.faulty_operators import architecture_with

QUICK = ProfileSettings(
    batch_sizes=(1,),
    contexts=(12,),
    warmup=1,
    min_samples=5,
    min_seconds=0,
    max_seconds=0.05,
    relative_error=0.1,
    attempts=1,
)


SOUND = architecture_with("none")

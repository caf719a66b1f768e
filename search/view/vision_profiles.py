"""The table of the time to the first token and its parts, of models that see."""

from collections.abc import Sequence

from profiler.profile import Profile
from search.evaluation.figures import formatted, percent
from search.view.tables import MARK
from search.view.terminal_tables import Sheet, sheet

NAMES = (
    *("model", "batch", "context", "image tokens", "preprocess [ms]", "tower [ms]", "projector [ms]"),
    *("prefill [ms]", "first token [ms]", "±", "first image [ms]", "images/s"),
)


def first_tokens(profiles: Sequence[tuple[str, Profile]]) -> Sheet:
    """A row for each model that sees, batch size and context.

    The context is the tokens of text; image tokens are those of all images of a prompt. The prefill reads
    both. The first image is a pass when nothing is warm. MARK stands behind tainted figures.

    profiles: with the names of their models.
    """
    rows = []
    for title, profile in profiles:
        name, taints, errors = title, profile.taints(), profile.errors()
        prefills = {(point.batch, point.context): point.prefill for point in profile.points}
        for seen in profile.vision:
            key = profile.key("ttft_ms", batch=seen.batch, context=seen.context)
            mark = MARK if key in taints else ""
            prefill = prefills[seen.batch, seen.context]
            times = (seen.preprocess, seen.tower, seen.projector, prefill, seen.first_token)
            rows.append(
                (
                    *(name, str(seen.batch), str(seen.context), str(seen.images * seen.image_tokens)),
                    *(f"{timing.median_ms:.4g}{mark}" for timing in times),
                    percent(errors[key]),
                    f"{seen.first_image_ms:.4g}",
                    formatted("images_per_s", seen.images_per_s) + mark,
                )
            )
            name = ""
    return sheet(NAMES, rows, words=("model",), optional=("images/s", "first image [ms]", "projector [ms]"))

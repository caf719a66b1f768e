"""Models that see: their parts, the time to the first token, and how they answer."""

from collections.abc import Sequence

from operators import VisionLanguage
from operators.vision.cost import vision_cost
from profiler.profile import Profile
from proxy_train.images.stage_settings import VisionScore
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
    with_energy = any(seen.energy for _, profile in profiles for seen in profile.vision)
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
                    *([f"{seen.energy.j_per_token:.3g}{mark}" if seen.energy else ""] if with_energy else []),
                )
            )
            name = ""
    names = (*NAMES, *(["first token [J]"] if with_energy else []))
    return sheet(names, rows, words=("model",), optional=("images/s", "first image [ms]", "projector [ms]"))


def vision_parts(model: VisionLanguage) -> Sheet:
    """A row for each part: its parameters, its FLOPs for one image, and its keys."""
    costs, tower = vision_cost(model), model.tower
    keys = tower.model_dump(mode="json", exclude={"norms"}, exclude_none=True)
    runs = tower.model_dump(mode="json", include={"norms"})["norms"]
    norms = ", ".join(f"{run['repeat']} {run['norm']} {run['norm_position']}" for run in runs)
    projector, read = model.projector.model_dump(mode="json"), {"image_tokens": model.image_tokens}
    rows = [
        ("tower", costs.tower_params, costs.tower_flops, {**keys, "norms": norms}),
        ("projector", costs.projector_params, costs.projector_flops, projector),
        ("language", costs.language_params, costs.language.prefill_flops, read),
    ]
    cells = [
        (name, formatted("params", params), f"{flops:.3g}", ", ".join(f"{k} {v}" for k, v in said.items()))
        for name, params, flops, said in rows
    ]
    return sheet(("part", "parameters", "FLOPs", "keys"), cells, words=("part", "keys"))


def answered(score: VisionScore) -> list[str]:
    """Lines on how a model answers, on its text, and on failed stages."""
    before = f", {score.text_loss_before:.4f} behind the first stage" if score.text_loss_before else ""
    return [
        f"trained on {score.examples:,} examples and {score.text_tokens:,} tokens of text with seed "
        f"{score.seed}: {score.answer_accuracy:.1%} of held-out answers right, the most frequent one is in "
        f"{score.most_frequent_accuracy:.1%}; their loss {score.answer_loss:.4f} nats/token; "
        f"text {score.text_loss:.4f}{before}",
        *(f"! {warning}" for warning in score.warnings),
    ]

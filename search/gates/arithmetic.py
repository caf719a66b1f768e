"""Metrics of a candidate that need no measurement.

A search checks constraints on them for every child, so that only those that are constrained are computed.
"""

from collections.abc import Callable, Collection
from dataclasses import replace

from operators import VisionLanguage
from operators.base.errors import ArchitectureError
from operators.cost import Cost, cost
from operators.vision.cost import parameters_of, vision_cost
from operators.vision.vision_language import Model
from profiler.device.device import inference_dtype
from profiler.device.names import LLAMA_CPP, engine_of
from profiler.profile import QUANTIZATION, ProfileSettings, key
from search.gates.screen import Check
from search.objectives import Constraint, first_broken

STATE_METRICS = ("state_bytes", "kv_bytes", "recurrent_bytes")  # one for each batch size and context


def arithmetic(
    metrics: Collection[str], profile: ProfileSettings, device: str
) -> Callable[[Model], dict[str, float]]:
    """What computes, of these metrics, those that need no measurement, and no others.

    profile: the batch sizes and contexts that metrics are named after.
    device: on which a number takes the bytes of its data type.
    """
    cost_of = _cost_on(device, profile)
    contexts, batches = profile.contexts, profile.batch_sizes
    fields = [("param_bytes", "param_bytes", batches[0], contexts[0])]
    for context in contexts:
        further = None if context == contexts[0] else context
        for batch in batches:
            fields += [
                (key(name, batch=batch, context=further), name, batch, context) for name in STATE_METRICS
            ]
    fields = [field for field in fields if field[0] in metrics]
    points = {(batch, context) for _, _, batch, context in fields}

    def compute(model: Model) -> dict[str, float]:
        counted: dict[str, float] = {"params": parameters_of(model)} if "params" in metrics else {}
        if "image_tokens" in metrics and isinstance(model, VisionLanguage):
            counted["image_tokens"] = model.image_tokens
        try:
            costs = {point: cost_of(model, batch=point[0], context=point[1]) for point in points}
        except ArchitectureError:  # the engine does not hold it: measuring it says so
            return counted
        return counted | {
            metric: getattr(costs[batch, context], name) for metric, name, batch, context in fields
        }

    return compute


def _cost_on(device: str, profile: ProfileSettings) -> Callable[..., Cost]:
    """What counts the costs of (model, batch, context) on a device.

    Of a model that sees, bytes of parameters are those of all parts, and the state is that behind a prompt
    with its images.
    """
    if engine_of(device) == LLAMA_CPP:
        from operators.published.gguf_export.sizes import gguf_cost

        kind = profile.quantization or QUANTIZATION
        return lambda architecture, **point: gguf_cost(architecture, **point, dtype=kind)
    dtype = inference_dtype(device)

    def of_either(model: Model, *, batch: int, context: int) -> Cost:
        if not isinstance(model, VisionLanguage):
            return cost(model, batch=batch, context=context, dtype=dtype)
        whole = vision_cost(model, batch=batch, text_tokens=context, images=profile.images, dtype=dtype)
        return replace(whole.language, params=whole.params, param_bytes=whole.param_bytes)

    return of_either


def arithmetic_check(
    constraints: tuple[Constraint, ...], profile: ProfileSettings, device: str
) -> Check | None:
    """The gate of arithmetic; None without constraints. Parameters as of `arithmetic`."""
    if not constraints:
        return None
    compute = arithmetic({constraint.metric for constraint in constraints}, profile, device)
    return lambda architecture: first_broken(constraints, compute(architecture))

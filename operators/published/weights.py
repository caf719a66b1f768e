"""Turns the tensors of a published model into the weights of our model; checks each name, shape and dtype."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from operators.base.errors import DataError
from operators.layers.rope import frequencies
from operators.parameter_shapes import parameter_shapes
from operators.published.families import Published
from operators.published.forms import Form
from operators.published.padding import without_padding

SHOWN = 3  # names in a message; the others are counted
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
HEAD = "lm_head.weight"
FREQUENCIES = "rotary_emb.inv_freq"


def fitted(published: Published, tensors: Mapping[str, Tensor], *, where: Path | str) -> dict[str, Tensor]:
    """The weights of our model by name, in the published dtype.

    published: the model in our terms.
    tensors: its tensors by name; they are read one at a time.
    where: their file or folder, for messages.

    Raises DataError, which names the tensors that are missing, unknown, or of another shape or dtype.
    """
    names = dict(published.names)
    theirs = _spelled(published, tensors, where)
    for name in [name for name in theirs if name.endswith(FREQUENCIES)]:
        _check_frequencies(published, tensors[theirs.pop(name)], f"{where}: {name}")
    embedding = names["embedding.weight"][0]
    if published.architecture.tied_embeddings and embedding not in theirs and HEAD in theirs:
        names["embedding.weight"] = (HEAD,)  # transformers ties both to the one of them that is there
    expected = {part for parts in names.values() for part in parts} | published.zeros.keys()
    surplus = sorted(theirs.keys() - expected)
    if missing := sorted(expected - theirs.keys()):
        instead = f"; found instead: {_listed([theirs[name] for name in surplus])}" if surplus else ""
        raise DataError(f"{where}: missing weights: {_listed(missing)}{instead}")
    if published.architecture.tied_embeddings and HEAD in surplus:
        if not torch.equal(tensors[theirs[HEAD]], tensors[theirs[embedding]]):
            raise DataError(
                f"{where}: {HEAD}: expected the same values as {embedding} or none, "
                "as tie_word_embeddings is true"
            )
        surplus.remove(HEAD)
    if surplus:
        unknown = _listed([theirs[name] for name in surplus])
        raise DataError(f"{where}: weights that the architecture does not have: {unknown}")
    shapes = expected_shapes(published)
    for name, expected_zeros in published.zeros.items():
        zeros = tensors[theirs[name]]
        if zeros.shape != expected_zeros.shape or zeros.any():
            size, key = math.prod(expected_zeros.shape), expected_zeros.key
            raise DataError(f"{where}: {name}: expected {size} zeros, as {key} is true, got others")
    weights: dict[str, Tensor] = {}
    for parts, together in sharing(names, shapes).items():
        found = {theirs[part]: tensors[theirs[part]] for part in parts}
        own, woven = {ours: shapes[ours] for ours in together}, published.woven.get(parts[0], Form())
        weights |= _taken(found, own, published.forms, woven, where)
    ordered = {ours: weights[ours] for ours in shapes}
    return without_padding(ordered, list(published.padding), where=where) if published.padding else ordered


def expected_shapes(published: Published) -> dict[str, torch.Size]:
    """The shape of each of our parameters in the whole model, by name."""
    return parameter_shapes(published.whole)


def sharing(names: Mapping[str, tuple[str, ...]], ours: Iterable[str]) -> dict[tuple[str, ...], list[str]]:
    """Published tensors -> the parameters of ours that lie in them, one under the other."""
    together: dict[tuple[str, ...], list[str]] = {}
    for name in ours:
        together.setdefault(names[name], []).append(name)
    return together


def remark_on_steps(published: Published, weights: Mapping[str, Tensor]) -> str | None:
    """A line for the user where `transformers` may raise steps of Mamba2 layers for a prompt; else None.

    The input of a layer's projection is at most as long as its normalization's weights allow. So the weights
    give a lower bound of every step.

    weights: as `fitted` returns them.
    """
    for number, layer in enumerate(published.architecture.layers):
        if layer.operator != "mamba2" or not published.shortest_step:
            continue
        bias = weights[f"layers.{number}.operator.dt_bias"].float()
        rows = weights[f"layers.{number}.operator.in_proj.weight"][-len(bias) :].float()
        reach = (rows * weights[f"layers.{number}.norm.weight"].float()).norm(dim=1) * math.sqrt(
            rows.shape[1]
        )
        if F.softplus(bias - reach).min() < published.shortest_step:
            return (
                f"time_step_min {published.shortest_step:g}: "
                "transformers raises shorter steps of Mamba2 layers to it when it reads a prompt, "
                "but not when it generates; here none is raised, so a prompt's logits can differ from its"
            )
    return None


def _spelled(published: Published, tensors: Mapping[str, Tensor], where: Path | str) -> dict[str, str]:
    """The name of every tensor as `published.names` spells it -> its name in the file.

    As in `transformers`, the prefix of the model inside the language model (`model.` or `backbone.`) may be
    missing or added.
    """
    known = {part for parts in published.names.values() for part in parts} | {HEAD, *published.zeros}
    inner = published.names["embedding.weight"][0].partition(".")[0] + "."
    spelled: dict[str, str] = {}
    for name in tensors:
        new = name
        for old, newer in published.renames:
            new = new.replace(old, newer)
        new = next((n for n in (new, inner + new, new.removeprefix(inner)) if n in known), new)
        if new in spelled:
            raise DataError(f"{where}: {spelled[new]} and {name} are the same weight, expected one of them")
        spelled[new] = name
    return spelled


def _check_frequencies(published: Published, stored: Tensor, where: str) -> None:
    """Refuses frequencies of positions, which some files have, that differ from the configuration's."""
    architecture = published.architecture
    shapes: list[Any] = [layer.shape for layer in architecture.layers if layer.operator == "attention"]
    if architecture.rope is None or not shapes:
        raise DataError(f"{where}: expected no frequencies in a model that rotates nothing")
    rope = architecture.rope
    expected = frequencies(rope.theta, rope.scaling, shapes[0].head_dim // 2, torch.device("cpu"))
    rounding = 1e-2 if stored.dtype in (torch.bfloat16, torch.float16) else 1e-4
    # 1e-7: the smallest frequencies are 0 in float16.
    if stored.shape != expected.shape or not torch.allclose(stored.float(), expected, rounding, 1e-7):
        raise DataError(f"{where}: expected the frequencies that follow from config.json, got others")


def _taken(
    parts: Mapping[str, Tensor],
    shapes: Mapping[str, torch.Size],
    forms: Mapping[str, Form],
    woven: Form,
    where: Path | str,
) -> dict[str, Tensor]:
    """The parameters of these shapes that published parts, by their names in the file, hold.

    forms, woven: of the parameters, and of all of them together.

    Raises DataError.
    """
    rows = [
        shape[0] * forms[ours].times if ours in forms else shape[0] if shape else 1
        for ours, shape in shapes.items()
    ]
    first = next(iter(shapes.values()))
    whole = _joined(parts, torch.Size((sum(rows), *first[1:])) if first else first, where)
    whole = woven.inward(whole)
    pieces = [whole] if len(rows) == 1 else [piece.clone() for piece in whole.split(rows)]
    try:
        return {
            ours: forms[ours].inward(piece) if ours in forms else piece
            for ours, piece in zip(shapes, pieces, strict=True)
        }
    except ValueError as error:
        raise DataError(f"{where}: {', '.join(parts)}: {error}") from None


def _joined(parts: Mapping[str, Tensor], shape: torch.Size, where: Path | str) -> Tensor:
    """The parts, by their names in the file, one under the other in this shape. Raises DataError."""
    for name, part in parts.items():
        if part.dtype not in FLOATS:
            got = str(part.dtype).removeprefix("torch.")
            raise DataError(f"{where}: {name}: expected float32, bfloat16 or float16, got {got}")
    fitting = [_squeezed(part, len(shape)) for part in parts.values()]
    first = fitting[0]
    joined = (
        torch.Size((sum(part.shape[0] for part in fitting), *first.shape[1:])) if first.ndim else first.shape
    )
    if joined != shape or any(part.shape[1:] != first.shape[1:] for part in fitting):
        got = " and ".join(str(tuple(part.shape)) for part in fitting)
        raise DataError(f"{where}: {', '.join(parts)}: expected shape {tuple(shape)}, got {got}")
    return first if len(fitting) == 1 else torch.cat(fitting)


def _squeezed(part: Tensor, ndim: int) -> Tensor:
    """The tensor without dimensions of size 1 that we do not have.

    A depthwise convolution is published as [C, 1, K] and is [C, K] here. Some vectors are
    published as [1, 1, H, 1].
    """
    while part.ndim > ndim and 1 in part.shape:
        part = part.squeeze(part.shape.index(1))
    return part


def _listed(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")

"""Tensors of a published model -> the weights of our model, each name and shape checked."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from operators.errors import DataError
from operators.model import HybridLM
from operators.published.families import Published

SHOWN = 3


def fitted(published: Published, tensors: Mapping[str, Tensor], *, where: Path | str) -> dict[str, Tensor]:
    """The state of our model, from tensors that are read one at a time; in the published dtype.

    Raises DataError naming the tensors that are missing, that nothing here takes, or that have another shape.
    """
    theirs = {_renamed(name, published): name for name in tensors}
    # Positions' frequencies, which some files carry, follow from the configuration.
    theirs = {name: spelled for name, spelled in theirs.items() if not name.endswith("rotary_emb.inv_freq")}
    wanted = {part for parts in published.names.values() for part in parts}
    if missing := sorted(wanted - theirs.keys()):
        raise DataError(f"{where}: missing weights: {_listed(missing)}")
    surplus = sorted(theirs.keys() - wanted)
    if published.architecture.tied_embeddings and "lm_head.weight" in surplus:
        embedding = published.names["embedding.weight"][0]
        if not torch.equal(tensors[theirs["lm_head.weight"]], tensors[theirs[embedding]]):
            raise DataError(
                f"{where}: lm_head.weight: expected the same values as {embedding} or none, as tie_word_embeddings is true"
            )
        surplus.remove("lm_head.weight")
    if surplus:
        raise DataError(f"{where}: weights that the architecture does not have: {_listed(surplus)}")
    return {
        ours: _joined(
            [tensors[theirs[part]] for part in published.names[ours]],
            shape,
            f"{where}: {', '.join(published.names[ours])}",
        )
        for ours, shape in expected_shapes(published).items()
    }


def expected_shapes(published: Published) -> dict[str, torch.Size]:
    """The shape of each of our parameters; nothing is allocated."""
    with torch.device("meta"):
        model = HybridLM(published.architecture, backend="reference", device="meta")
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def _joined(parts: list[Tensor], shape: torch.Size, where: str) -> Tensor:
    # A depthwise convolution is published as [C, 1, K] and is [C, K] here.
    parts = [part.squeeze() if part.ndim > len(shape) else part for part in parts]
    found = (
        torch.Size((sum(part.shape[0] for part in parts), *parts[0].shape[1:]))
        if parts[0].ndim
        else parts[0].shape
    )
    if found != shape or any(part.shape[1:] != parts[0].shape[1:] for part in parts):
        raise DataError(
            f"{where}: expected shape {tuple(shape)}, got {' and '.join(str(tuple(part.shape)) for part in parts)}"
        )
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _renamed(name: str, published: Published) -> str:
    for old, new in published.renames:
        name = name.replace(old, new)
    return name


def _listed(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")

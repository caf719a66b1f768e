"""Turns the weights of our model into the tensors of a published model: the inverse of `weights.fitted`."""

from collections.abc import Mapping

import torch
from torch import Tensor

from operators.published.families import FAMILIES
from operators.published.forms import Form
from operators.published.held import Held
from operators.published.padding import with_padding
from operators.published.weights import HEAD, expected_shapes, sharing


def published_tensors(held: Held, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a model by the names of its class, in the dtypes of the weights.

    weights: of `held.published.architecture`, by the names of our parameters.
    """
    published, shapes = held.published, expected_shapes(held.published)
    whole = with_padding(weights, list(published.padding), shapes) if published.padding else weights
    tensors: dict[str, Tensor] = {}
    for parts, ours in sharing(published.names, shapes).items():
        forms = [published.forms.get(name, Form()) for name in ours]
        together = [form.outward(whole[name]) for form, name in zip(forms, ours, strict=True)]
        joined = together[0] if len(together) == 1 else torch.cat(together)
        joined = published.woven.get(parts[0], Form()).outward(joined)
        pieces = joined.split(forms[0].parts) if len(parts) > 1 else [joined]
        tensors |= {part: piece.contiguous() for part, piece in zip(parts, pieces, strict=True)}
    dtype = weights["embedding.weight"].dtype
    tensors |= {name: torch.zeros(each.shape, dtype=dtype) for name, each in published.zeros.items()}
    if published.architecture.tied_embeddings and not FAMILIES[held.family].ties:
        tensors[HEAD] = tensors[published.names["embedding.weight"][0]].clone()
    return tensors

"""Turns what no class of `transformers` has, meta tokens and a normalized head, into plain weights."""

from collections.abc import Mapping

import torch
from torch import Tensor

from operators.architecture import Architecture
from operators.layers.normalization import unit_rows

EMBEDDING, HEAD, META = "embedding.weight", "head.weight", "meta"


def folded(
    architecture: Architecture, weights: Mapping[str, Tensor]
) -> tuple[Architecture, dict[str, Tensor]]:
    """The same model without meta tokens and with a plain head, and its weights.

    Meta tokens become the last rows of the vocabulary. Whoever puts their ids before a prompt gets the same
    logits for all other tokens. The logits of these rows mean nothing.

    weights: by the names of our parameters.
    """
    tensors = dict(weights)
    plain = architecture.model_copy(update={"normalized_head": False, "meta_tokens": 0})
    if architecture.normalized_head:
        rows = tensors[EMBEDDING if architecture.tied_embeddings else HEAD]
        tensors[HEAD] = unit_rows(rows)
        plain = plain.model_copy(update={"tied_embeddings": False})
    if architecture.meta_tokens:
        meta = tensors.pop(META)
        tensors[EMBEDDING] = torch.cat([tensors[EMBEDDING], meta.to(tensors[EMBEDDING].dtype)])
        if not plain.tied_embeddings:
            tensors[HEAD] = torch.cat([tensors[HEAD], torch.zeros_like(meta, dtype=tensors[HEAD].dtype)])
        plain = plain.model_copy(update={"vocabulary": plain.vocabulary + architecture.meta_tokens})
    return plain, tensors

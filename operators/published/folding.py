"""Turns what no class of `transformers` has, meta tokens and a normalized head, into plain weights."""

from collections.abc import Mapping

import torch
from torch import Tensor

from operators.architecture import Architecture
from operators.layers.normalization import unit_rows

EMBEDDING, HEAD, META = "embedding.weight", "head.weight", "meta"


def plain(architecture: Architecture) -> Architecture:
    """The architecture that `folded` gives, without any weights."""
    fields = {
        "normalized_head": False,
        "meta_tokens": 0,
        "tied_embeddings": architecture.tied_embeddings and not architecture.normalized_head,
        "vocabulary": architecture.vocabulary + architecture.meta_tokens,
    }
    return architecture.model_copy(update=fields)


def folded(
    architecture: Architecture, weights: Mapping[str, Tensor]
) -> tuple[Architecture, dict[str, Tensor]]:
    """The same model without meta tokens and with a plain head, and its weights.

    Meta tokens become the last rows of the vocabulary. Whoever puts their ids before a prompt gets the same
    logits for all other tokens. The logits of these rows mean nothing.

    weights: by the names of our parameters.
    """
    tensors, without = dict(weights), plain(architecture)
    if architecture.normalized_head:
        rows = tensors[EMBEDDING if architecture.tied_embeddings else HEAD]
        tensors[HEAD] = unit_rows(rows)
    if architecture.meta_tokens:
        meta = tensors.pop(META)
        tensors[EMBEDDING] = torch.cat([tensors[EMBEDDING], meta.to(tensors[EMBEDDING].dtype)])
        if not without.tied_embeddings:
            tensors[HEAD] = torch.cat([tensors[HEAD], torch.zeros_like(meta, dtype=tensors[HEAD].dtype)])
    return without, tensors

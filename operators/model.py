"""Architecture -> language model: training forward, and decoding from preallocated state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from operators import backends, registry
from operators.architecture import Architecture
from operators.base.errors import DataError, StateError
from operators.layers.normalization import build_norm
from operators.layers.residual import ResidualLayer, add_norm_reference, best_add_norm
from operators.operator import State


@dataclass
class ModelState:
    """What decoding remembers, allocated once at stable addresses.

    layers: per layer its tensors by name, each with the batch first. position: [B] int64 on the device, tokens held per row.
    capacity: tokens of a row that fit, meta tokens included. lengths: `position` as the host knows it, without asking the device.
    head_norms: [vocabulary], what logits are divided by where the head is normalized: kept, as reading the whole head twice a step costs.
    """

    layers: list[State]
    position: Tensor
    capacity: int
    head_norms: Tensor | None = None
    lengths: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.lengths = [0] * self.position.shape[0]

    @property
    def length(self) -> int:
        """Tokens held by the longest row."""
        return max(self.lengths, default=0)

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for layer in self.layers for tensor in layer.values())

    def require_room(self, counts: Sequence[int]) -> None:
        """Raises StateError unless there is one row for each of `counts` and so many more tokens fit into it."""
        if len(counts) != len(self.lengths):
            raise StateError(
                f"the state was allocated for a batch of {len(self.lengths)}, got {len(counts)} rows"
            )
        for held, more in zip(self.lengths, counts, strict=True):
            if held + more > self.capacity:
                raise StateError(
                    f"the state was allocated for {self.capacity} tokens and holds {held}: {more} more do not fit"
                )

    def count(self, counts: Sequence[int]) -> None:
        """The host's side of what a step or a prefill did: so many more tokens in each row."""
        self.lengths = [held + more for held, more in zip(self.lengths, counts, strict=True)]

    def seek(self, length: int) -> None:
        """Moves every row to `length` tokens and leaves what the layers remember as it is.

        Caches are overwritten from there, recurrent state is not set back: the next steps cost what they cost at that length.
        """
        self.position.fill_(length)
        self.lengths = [length] * len(self.lengths)

    def reset(self) -> None:
        """Forgets every token; the memory stays where it is."""
        for layer in self.layers:
            for tensor in layer.values():
                tensor.zero_()
        self.seek(0)


class HybridLM(nn.Module):
    """The language model that an architecture describes.

    Its weights are random, drawn on `device` from torch's generator there.
    backend: `auto`, a backend's name for every operator, or a mapping from operator to backend (others: auto).
    `backends` tells afterwards which one each operator got. Raises BackendError.
    recompute: whether a backward pass computes each layer once more instead of keeping what it computed, which takes less memory.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        backend: str | Mapping[str, str] = "auto",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.backends: dict[str, str] = {}
        self.recompute = False
        device, width = torch.device(device), architecture.width
        self.add_norm = add_norm_reference if backend == "reference" else best_add_norm(width, device, dtype)
        layers = []
        with torch.device(device):  # billions of random weights take seconds on a GPU and minutes on a CPU
            for layer in architecture.layers:
                wanted = backend if isinstance(backend, str) else backend.get(layer.operator, "auto")
                resolved = backends.resolve(layer.operator, wanted, layer.shape, device, dtype)
                self.backends[layer.operator] = resolved.name
                operator = registry.get(layer.operator).build(architecture, layer.shape, resolved.kernels)
                layers.append(
                    ResidualLayer(layer, operator, width, architecture.norm_eps, add_norm=self.add_norm)
                )
            self.embedding = nn.Embedding(architecture.vocabulary, width)
            self.meta = (
                nn.Parameter(torch.empty(architecture.meta_tokens, width))
                if architecture.meta_tokens
                else None
            )
            self.layers = nn.ModuleList(layers)
            self.norm = build_norm("rmsnorm", width, architecture.norm_eps)
            self.head = (
                None
                if architecture.tied_embeddings
                else nn.Linear(width, architecture.vocabulary, bias=False)
            )
            self._initialize()
        self.to(device=device, dtype=dtype)
        for built in self.layers:
            assert isinstance(built, ResidualLayer)
            built.operator.lay_together()

    def _initialize(self) -> None:
        """Matrices ~ N(0, 1 / (3 fan_in)), those that write the residual stream smaller by √depth; embeddings ~ N(0, 1 / width).

        Where the head is normalized the length of its rows is free, and embeddings ~ N(0, 1): as large as what layers of normalized
        matrices add to them, in which shorter ones would be lost.
        """
        for layer in self.layers:
            assert isinstance(layer, ResidualLayer)
            for name in (*layer.operator.reads, *layer.operator.within, *layer.operator.writes):
                weight = layer.operator.get_submodule(name).weight
                assert isinstance(weight, Tensor)
                shrink = len(self.layers) if name in layer.operator.writes else 1
                nn.init.normal_(weight, std=(3 * weight.shape[1] * shrink) ** -0.5)
        for table in (self.embedding.weight, self.meta, self.head.weight if self.head is not None else None):
            if table is not None:
                nn.init.normal_(
                    table, std=1.0 if self.architecture.normalized_head else self.architecture.width**-0.5
                )

    def hidden(self, tokens: Tensor) -> Tensor:
        """tokens [B, T] -> what the head reads [B, T, W]; meta tokens are prepended and dropped again."""
        x = self._with_meta(self._embedded(tokens))
        for layer in self.layers:
            x = (
                checkpoint(layer, x, use_reentrant=False, preserve_rng_state=False)
                if self.recompute
                else layer(x)
            )
        out: Tensor = self.norm(x[:, self.architecture.meta_tokens :])
        return out

    def head_weight(self) -> Tensor:
        """What a hidden vector is multiplied by to give logits [vocabulary, W]; rows of unit length where the head is normalized."""
        weight = self.embedding.weight if self.head is None else self.head.weight
        return (
            F.normalize(weight.float(), dim=1).to(weight.dtype)
            if self.architecture.normalized_head
            else weight
        )

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [..., W] -> [..., vocabulary]."""
        return F.linear(hidden, self.head_weight())

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [B, T] -> logits [B, T, vocabulary]."""
        return self.logits(self.hidden(tokens))

    def _logits(self, hidden: Tensor, state: ModelState) -> Tensor:
        """hidden [B, W] -> [B, vocabulary], the same as `logits` without another pass over the head for its norms."""
        logits = F.linear(hidden, self.embedding.weight if self.head is None else self.head.weight)
        return logits if state.head_norms is None else (logits.float() / state.head_norms).to(logits.dtype)

    def _embedded(self, tokens: Tensor) -> Tensor:
        """Ids [...] -> rows of the embedding [..., W]. Raises DataError for an id without a row; a GPU cannot go on."""
        try:
            rows: Tensor = self.embedding(tokens)
        except IndexError:
            count = self.embedding.num_embeddings
            wrong = int(tokens[(tokens < 0) | (tokens >= count)][0])
            raise DataError(
                f"tokens: got id {wrong}, expected from 0 to {count - 1}: the model has {count} rows"
            ) from None
        return rows

    def _with_meta(self, x: Tensor) -> Tensor:
        return x if self.meta is None else torch.cat([self.meta.expand(x.shape[0], -1, -1), x], 1)

    def allocate_state(self, batch: int, max_length: int) -> ModelState:
        """Empty state for `batch` rows of up to `max_length` tokens (meta tokens come on top), beside the weights.

        A normalized head is normalized by the norms that it has now: weights that change afterwards need a new state.
        """
        weight, capacity = self.embedding.weight, max_length + self.architecture.meta_tokens
        layers = []
        for layer in self.architecture.layers:
            specs = registry.get(layer.operator).state(layer.shape, batch, capacity, weight.dtype)
            layers.append(
                {
                    name: torch.zeros(spec.shape, dtype=spec.dtype, device=weight.device)
                    for name, spec in specs.items()
                }
            )
        head = weight if self.head is None else self.head.weight
        norms = (
            torch.linalg.vector_norm(head.detach().float(), dim=1).clamp_min(1e-12)
            if self.architecture.normalized_head
            else None
        )
        return ModelState(
            layers, torch.zeros(batch, dtype=torch.int64, device=weight.device), capacity, norms
        )

    def prefill(
        self, tokens: Tensor, state: ModelState, lengths: Sequence[int] | Tensor | None = None
    ) -> Tensor:
        """Reads tokens [B, T] after those that `state` holds -> logits after each row's last one [B, vocabulary].

        lengths: how many of a row's tokens to read, from 1 to T for each row; what is right of them is padding, which no operator sees.
        Rows of equal length are read together. A tensor on a GPU is waited for. Raises StateError.
        """
        meta = self.architecture.meta_tokens if state.length == 0 else 0
        counts = [meta + length for length in _checked_lengths(tokens, lengths)]
        state.require_room(counts)
        groups: dict[int, list[int]] = {}
        for row, count in enumerate(counts):
            groups.setdefault(count, []).append(row)
        if len(groups) == 1:
            last = self._read(tokens[:, : counts[0] - meta], state, None, with_meta=meta > 0)
            state.position += counts[0]
        else:
            last = self.embedding.weight.new_empty(len(counts), self.architecture.width)
            for count, rows in groups.items():
                index = torch.tensor(rows, device=tokens.device)
                last[index] = self._read(tokens[index, : count - meta], state, index, with_meta=meta > 0)
                state.position[index] += count
        state.count(counts)
        return self._logits(last, state)

    def _read(self, tokens: Tensor, state: ModelState, rows: Tensor | None, *, with_meta: bool) -> Tensor:
        """tokens [G, T] into the state's rows [G] (None: all, in place) -> what the head reads after the last token [G, W]."""
        x = self._embedded(tokens)
        if with_meta:
            x = self._with_meta(x)
        position = state.position if rows is None else state.position[rows]
        for layer, whole in zip(self.layers, state.layers, strict=True):
            part = whole if rows is None else {name: tensor[rows] for name, tensor in whole.items()}
            x = layer(x, part, position, state.length)
            if rows is not None:
                for name, tensor in part.items():
                    whole[name][rows] = tensor
        last: Tensor = self.norm(x[:, -1])
        return last

    def step(self, tokens: Tensor, state: ModelState) -> Tensor:
        """Reads one token a row [B] -> logits [B, vocabulary]. A state that was never prefilled has no meta tokens. Raises StateError."""
        one_each = [1] * tokens.shape[0]
        state.require_room(one_each)
        x, change = self._embedded(tokens), None
        for layer, layer_state in zip(self.layers, state.layers, strict=True):
            assert isinstance(layer, ResidualLayer)
            x, change = layer.step(x, change, layer_state, state.position)
        state.position += 1
        state.count(one_each)
        return self._logits(self.add_norm(self.norm, x, change)[1], state)

    @torch.inference_mode()
    def generate(self, tokens: Sequence[int], count: int) -> list[int]:
        """`tokens` and `count` more, each the most likely next one.

        tokens: ids of the prompt, at least one; each from 0 to the vocabulary's last. count: from 0 on.
        Raises DataError.
        """
        self._require_prompt(tokens, count)
        device = self.embedding.weight.device
        state = self.allocate_state(1, len(tokens) + count)
        logits, out = self.prefill(torch.tensor([list(tokens)], device=device), state), list(tokens)
        for _ in range(count):
            chosen = logits.argmax(-1)
            out.append(int(chosen))
            logits = self.step(chosen, state)
        return out

    def _require_prompt(self, tokens: Sequence[int], count: int) -> None:
        if len(tokens) == 0:
            raise DataError("prompt: expected at least one token id, got none")
        if count < 0:
            raise DataError(f"count: expected from 0 on, got {count}")
        rows = self.architecture.vocabulary
        for place, token in enumerate(tokens):
            if not 0 <= token < rows:
                raise DataError(
                    f"prompt: token {place} has id {int(token)}, expected from 0 to {rows - 1}: the model has {rows} rows"
                )


def _checked_lengths(tokens: Tensor, lengths: Sequence[int] | Tensor | None) -> list[int]:
    """How many of each row's tokens [B, T] to read. Raises StateError."""
    batch, longest = tokens.shape
    if lengths is None:
        lengths = [longest] * batch
    found: list[int] = lengths.tolist() if isinstance(lengths, Tensor) else list(lengths)
    if len(found) != batch:
        raise StateError(f"lengths: expected one for each of {batch} rows, got {len(found)}")
    for row, length in enumerate(found):
        if not 1 <= length <= longest:
            raise StateError(f"lengths: expected from 1 to {longest} tokens a row, got {length} in row {row}")
    return found

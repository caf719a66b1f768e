"""The language model of an architecture: forward for training, prefill and steps for decoding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from operators import backends, registry
from operators.architecture import Architecture
from operators.base.errors import DataError, StateError
from operators.layers.normalization import build_norm, unit_rows
from operators.layers.residual import ResidualLayer, add_norm_reference, best_add_norm
from operators.operator import MOST_FUSED_ROWS, State
from operators.sampling import Sampling, choose, most_likely


@dataclass
class ModelState:
    """What decoding remembers, allocated once at addresses that do not change.

    layers: for each layer its tensors by name, each with the batch first.
    position: tokens that each row holds, on the device: [B] int64.
    capacity: tokens that fit into a row, meta tokens included.
    head_norms: where the head is normalized, the numbers that logits are divided by: [vocabulary]. They are
        kept, since a step would otherwise read the whole head a second time.
    lengths: the same numbers as `position` on the host, which need not ask the device.
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
        """Checks that the state can take more tokens.

        counts: more tokens in each row.

        Raises StateError where the state has another number of rows, or a row has too little room.
        """
        if len(counts) != len(self.lengths):
            raise StateError(
                f"the state was allocated for a batch of {len(self.lengths)}, got {len(counts)} rows"
            )
        for held, more in zip(self.lengths, counts, strict=True):
            if held + more > self.capacity:
                raise StateError(
                    f"the state was allocated for {self.capacity} tokens and holds {held}: "
                    f"{more} more do not fit"
                )

    def count(self, counts: Sequence[int]) -> None:
        """Counts on the host what a step or a prefill has read: `counts` more tokens in each row."""
        self.lengths = [held + more for held, more in zip(self.lengths, counts, strict=True)]

    def seek(self, length: int) -> None:
        """Moves every row to `length` tokens, without changing what the layers remember.

        Later tokens overwrite caches from there; recurrent state is not set back. So the next steps take as
        long as steps at that length, which is what a measurement needs.
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
    """The language model that an architecture describes, with random weights.

    backend: `auto`, a backend's name for every operator, or a mapping from operator
        to backend (others: auto). In a mapping `head` stands for the model's end, which only `triton` fuses.
    device: of the weights; torch's generator there draws them.
    dtype: of weights and activations.

    The attribute `backends` has the backend that each operator got. The attribute `recompute` may be set:
    whether a backward pass computes each layer again instead of keeping its activations, which takes less
    memory and more time.

    Raises BackendError where a named backend cannot be used.
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
        with torch.device(device):  # to draw billions of weights takes seconds on a GPU, minutes on a CPU
            for layer in architecture.layers:
                choice = backend if isinstance(backend, str) else backend.get(layer.operator, "auto")
                resolved = backends.resolve(layer.operator, choice, layer.shape, device, dtype)
                fused = backends.fused_step(layer, choice, device, dtype)
                self.backends[layer.operator] = resolved.name if fused is None else f"{resolved.name}+triton"
                operator = registry.get(layer.operator).build(architecture, layer.shape, resolved.kernels)
                built = ResidualLayer(layer, operator, width, architecture.norm_eps, self.add_norm, fused)
                layers.append(built)
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
        choice = backend if isinstance(backend, str) else backend.get("head", "auto")
        self.fused_head = backends.fused_head(choice, device, dtype)
        self.to(device=device, dtype=dtype)
        if device.type != "meta":  # where nothing has a place
            for built in layers:
                built.operator.lay_together()

    def _initialize(self) -> None:
        """Draws the weights: matrices ~ N(0, 1 / (3 fan_in)), embeddings ~ N(0, 1 / width).

        Matrices that write the residual stream are smaller by √depth. Where the head is normalized, the
        length of its rows is free, and embeddings ~ N(0, 1). Layers of normalized matrices add numbers of
        that size to the stream, in which shorter embeddings would be lost.
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

    def hidden(self, tokens: Tensor, embedded: Tensor | None = None) -> Tensor:
        """tokens [B, T], or `embedded` [B, T, W] for them -> the head's input [B, T, W], no meta tokens."""
        x = self._with_meta(self.embedded(tokens) if embedded is None else embedded)
        for layer in self.layers:
            x = (
                checkpoint(layer, x, use_reentrant=False, preserve_rng_state=False)
                if self.recompute
                else layer(x)
            )
        out: Tensor = self.norm(x[:, self.architecture.meta_tokens :])
        return out

    def head_weight(self) -> Tensor:
        """The matrix [vocabulary, W] that gives logits; a normalized head has rows of unit length."""
        weight = self.embedding.weight if self.head is None else self.head.weight
        return unit_rows(weight) if self.architecture.normalized_head else weight

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [..., W] -> [..., vocabulary]."""
        return F.linear(hidden, self.head_weight())

    def forward(self, tokens: Tensor, embedded: Tensor | None = None) -> Tensor:
        """tokens [B, T] -> logits [B, T, vocabulary]; `embedded` is that of `hidden`."""
        return self.logits(self.hidden(tokens, embedded))

    def _logits(self, hidden: Tensor, state: ModelState) -> Tensor:
        """The same as `logits`, hidden [B, W] -> [B, vocabulary], with the head's norms from the state."""
        logits = F.linear(hidden, self.embedding.weight if self.head is None else self.head.weight)
        return logits if state.head_norms is None else (logits.float() / state.head_norms).to(logits.dtype)

    def embedded(self, tokens: Tensor) -> Tensor:
        """Ids [...] -> rows of the embedding [..., W].

        Raises DataError for an id without a row; a GPU cannot go on.
        """
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
        """Empty state on the device of the weights. Weights that change afterwards need a new state.

        batch: rows.
        max_length: tokens in a row, at most; meta tokens come on top.
        """
        weight, capacity = self.embedding.weight, max_length + self.architecture.meta_tokens
        layers = []
        for layer, built in zip(self.architecture.layers, self.layers, strict=True):
            assert isinstance(built, ResidualLayer)
            specs = registry.get(layer.operator).state(layer.shape, batch, capacity, weight.dtype)
            if built.fused is not None:
                specs = specs | built.fused.counters(layer.shape, batch)
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
        self,
        tokens: Tensor,
        state: ModelState,
        lengths: Sequence[int] | Tensor | None = None,
        embedded: Tensor | None = None,
    ) -> Tensor:
        """Reads tokens after the ones in the state -> logits after each row's last token [B, vocabulary].

        Rows of equal length are read together.

        tokens: ids [B, T].
        state: changed in place.
        lengths: tokens to read in each row, from 1 to T; None for T. The tokens to the right of them are
            padding, which no operator sees. A tensor on a GPU makes the host wait.
        embedded: that of `hidden`.

        Raises StateError where the state is of another batch or too short, and for lengths that do not fit.
        """
        meta = self.architecture.meta_tokens if state.length == 0 else 0
        counts = [meta + length for length in _checked_lengths(tokens, lengths)]
        state.require_room(counts)
        read = tokens if embedded is None else embedded
        groups: dict[int, list[int]] = {}
        for row, count in enumerate(counts):
            groups.setdefault(count, []).append(row)
        if len(groups) == 1:
            last = self._read(read[:, : counts[0] - meta], state, None, with_meta=meta > 0)
            state.position += counts[0]
        else:
            last = self.embedding.weight.new_empty(len(counts), self.architecture.width)
            for count, rows in groups.items():
                index = torch.tensor(rows, device=tokens.device)
                last[index] = self._read(read[index, : count - meta], state, index, with_meta=meta > 0)
                state.position[index] += count
        state.count(counts)
        return self._logits(last, state)

    def _read(self, x: Tensor, state: ModelState, rows: Tensor | None, *, with_meta: bool) -> Tensor:
        """Reads ids [G, T], or what stands for them [G, T, W] -> the head's input after the last [G, W].

        rows: which rows of the state, [G]; None for all, in place.
        with_meta: whether to put the meta tokens in front.
        """
        x = x if x.is_floating_point() else self.embedded(x)
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

    def step(self, tokens: Tensor, state: ModelState, chosen: Tensor | None = None) -> Tensor:
        """Reads one token a row: ids [B] -> logits [B, vocabulary].

        chosen: where the most likely next token of each row is written [B] int64; it may be `tokens`. None
            for nowhere.

        A state without a prefill holds no meta tokens. Raises StateError where the state is
        of another batch or full.
        """
        one_each = [1] * tokens.shape[0]
        state.require_room(one_each)
        x, change = self.embedded(tokens), None
        for layer, layer_state in zip(self.layers, state.layers, strict=True):
            assert isinstance(layer, ResidualLayer)
            x, change = layer.step(x, change, layer_state, state.position)
        state.count(one_each)
        fused = self.fused_head
        if fused is None or x.shape[0] > MOST_FUSED_ROWS or torch.is_grad_enabled():
            logits = self._logits(self.add_norm(self.norm, x, change)[1], state)
        else:
            x = x if change is None else x + change
            weight = self.embedding.weight if self.head is None else self.head.weight
            logits = fused.product(x, weight, norm=self.norm, divisor=state.head_norms)
            if chosen is not None:
                fused.choose(logits, chosen, state.position)
                return logits
        state.position += 1
        if chosen is not None:
            chosen.copy_(most_likely(logits))
        return logits

    @torch.inference_mode()
    def generate(
        self,
        tokens: Sequence[int],
        count: int,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        seed: int = 0,
        stop: int | None = None,
        embedded: Tensor | None = None,
    ) -> list[int]:
        """The prompt and the tokens that the model writes after it, one after the other.

        tokens: ids of the prompt, at least one, each below the vocabulary.
        count: tokens to add, 0 or more.
        temperature: 0 takes the most likely token each time. Otherwise tokens are drawn, by logits that are
            divided by it.
        top_k: only the k most likely tokens may be drawn; None sets no bound.
        top_p: only the most likely tokens that have this probability together may be drawn.
        seed: fixes what is drawn.
        stop: id behind which no token is added, such as the end of a document; None for no such id.
        embedded: that of `hidden` for the prompt, [1, T, W].

        Raises DataError for an empty prompt, an id that the model does not have, or a negative count.
        Raises ConfigError for a temperature, top_k, top_p or seed out of range.
        Raises DivergedError for logits that are not finite.
        """
        self.require_prompt(tokens, count)
        sampling = Sampling(temperature, top_k, top_p, seed)
        device, generator = self.embedding.weight.device, torch.Generator().manual_seed(seed)
        state, out = self.allocate_state(1, len(tokens) + count), list(tokens)
        logits = self.prefill(torch.tensor([out], device=device), state, embedded=embedded)
        for added in range(1, count + 1):
            out.append(choose(logits[0], sampling, generator))
            if out[-1] == stop or added == count:
                break
            logits = self.step(torch.tensor(out[-1:], device=device), state)
        return out

    def require_prompt(self, tokens: Sequence[int], count: int) -> None:
        if len(tokens) == 0:
            raise DataError("prompt: expected at least one token id, got none")
        if count < 0:
            raise DataError(f"count: expected from 0 on, got {count}")
        rows = self.architecture.vocabulary
        for place, token in enumerate(tokens):
            if not 0 <= token < rows:
                raise DataError(
                    f"prompt: token {place} has id {int(token)}, expected from 0 to {rows - 1}: "
                    f"the model has {rows} rows"
                )


def _checked_lengths(tokens: Tensor, lengths: Sequence[int] | Tensor | None) -> list[int]:
    """How many of each row's tokens [B, T] to read. Raises StateError."""
    batch, longest = tokens.shape
    if lengths is None:
        lengths = [longest] * batch
    counts: list[int] = lengths.tolist() if isinstance(lengths, Tensor) else list(lengths)
    if len(counts) != batch:
        raise StateError(f"lengths: expected one for each of {batch} rows, got {len(counts)}")
    for row, length in enumerate(counts):
        if not 1 <= length <= longest:
            raise StateError(f"lengths: expected from 1 to {longest} tokens a row, got {length} in row {row}")
    return counts

"""Architecture -> language model: training forward, and decoding from preallocated state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from operators import backends, registry
from operators.architecture import Architecture, Layer
from operators.errors import StateError
from operators.normalization import build_norm
from operators.operator import OperatorModule, State


@dataclass
class ModelState:
    """What decoding remembers, allocated once at stable addresses.

    layers: per layer its tensors by name. position: [B] int64 on the device, tokens held per row.
    length: the same as a bound that the host knows. capacity: tokens that fit, meta tokens included.
    """

    layers: list[State]
    position: Tensor
    capacity: int
    length: int = field(default=0)

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for layer in self.layers for tensor in layer.values())

    def reset(self) -> None:
        """Forgets every token; the memory stays where it is."""
        for layer in self.layers:
            for tensor in layer.values():
                tensor.zero_()
        self.position.zero_()
        self.length = 0


class ResidualLayer(nn.Module):
    """An operator with its normalization and the residual connection around both."""

    def __init__(self, layer: Layer, operator: OperatorModule, width: int, eps: float) -> None:
        super().__init__()
        self.norm = build_norm(layer.norm, width, eps)
        self.operator = operator
        self.before = layer.norm_position == "before"

    def forward(self, x: Tensor, state: State | None = None, position: Tensor | None = None, length: int = 0) -> Tensor:
        change: Tensor
        if self.before:
            change = self.operator(self.norm(x), state, position, length)
        else:
            change = self.norm(self.operator(x, state, position, length))
        return x + change

    def step(self, x: Tensor, state: State, position: Tensor) -> Tensor:
        if self.before:
            return x + self.operator.step(self.norm(x), state, position)
        change: Tensor = self.norm(self.operator.step(x, state, position))
        return x + change


class HybridLM(nn.Module):
    """The language model that an architecture describes.

    backend: `auto`, a backend's name for every operator, or a mapping from operator to backend (others: auto).
    `backends` tells afterwards which one each operator got. Raises BackendError.
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
        device, width = torch.device(device), architecture.width
        layers = []
        for layer in architecture.layers:
            wanted = backend if isinstance(backend, str) else backend.get(layer.operator, "auto")
            resolved = backends.resolve(layer.operator, wanted, layer.shape, device, dtype)
            self.backends[layer.operator] = resolved.name
            operator = registry.get(layer.operator).build(architecture, layer.shape, resolved.kernels)
            layers.append(ResidualLayer(layer, operator, width, architecture.norm_eps))
        self.embedding = nn.Embedding(architecture.vocabulary, width)
        self.meta = nn.Parameter(torch.empty(architecture.meta_tokens, width)) if architecture.meta_tokens else None
        self.layers = nn.ModuleList(layers)
        self.norm = build_norm("rmsnorm", width, architecture.norm_eps)
        self.head = None if architecture.tied_embeddings else nn.Linear(width, architecture.vocabulary, bias=False)
        self._initialize()
        self.to(device=device, dtype=dtype)

    def _initialize(self) -> None:
        """Matrices ~ N(0, 1 / (3 fan_in)), those that write the residual stream smaller by √depth; embeddings ~ N(0, 1 / width)."""
        for layer in self.layers:
            assert isinstance(layer, ResidualLayer)
            for name in (*layer.operator.reads, *layer.operator.writes):
                weight = layer.operator.get_submodule(name).weight
                assert isinstance(weight, Tensor)
                shrink = len(self.layers) if name in layer.operator.writes else 1
                nn.init.normal_(weight, std=(3 * weight.shape[1] * shrink) ** -0.5)
        for table in (self.embedding.weight, self.meta, self.head.weight if self.head is not None else None):
            if table is not None:
                nn.init.normal_(table, std=self.architecture.width**-0.5)

    def hidden(self, tokens: Tensor) -> Tensor:
        """tokens [B, T] -> what the head reads [B, T, W]; meta tokens are prepended and dropped again."""
        x = self._with_meta(self.embedding(tokens))
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.norm(x[:, self.architecture.meta_tokens :])
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [..., W] -> [..., vocabulary]."""
        return F.linear(hidden, self.embedding.weight if self.head is None else self.head.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [B, T] -> logits [B, T, vocabulary]."""
        return self.logits(self.hidden(tokens))

    def _with_meta(self, x: Tensor) -> Tensor:
        return x if self.meta is None else torch.cat([self.meta.expand(x.shape[0], -1, -1), x], 1)

    def allocate_state(self, batch: int, max_length: int) -> ModelState:
        """Empty state for `batch` rows of up to `max_length` tokens (meta tokens come on top), beside the weights."""
        weight, capacity = self.embedding.weight, max_length + self.architecture.meta_tokens
        layers = []
        for layer in self.architecture.layers:
            specs = registry.get(layer.operator).state(layer.shape, batch, capacity, weight.dtype)
            layers.append({name: torch.zeros(spec.shape, dtype=spec.dtype, device=weight.device) for name, spec in specs.items()})
        return ModelState(layers, torch.zeros(batch, dtype=torch.int64, device=weight.device), capacity)

    def prefill(self, tokens: Tensor, state: ModelState) -> Tensor:
        """Reads tokens [B, T] after those that `state` holds -> logits after the last one [B, vocabulary]."""
        x = self.embedding(tokens)
        if state.length == 0:
            x = self._with_meta(x)
        _check_room(state, rows=x.shape[0], tokens=x.shape[1])
        for layer, layer_state in zip(self.layers, state.layers, strict=True):
            x = layer(x, layer_state, state.position, state.length)
        state.position += x.shape[1]
        state.length += x.shape[1]
        return self.logits(self.norm(x[:, -1]))

    def step(self, tokens: Tensor, state: ModelState) -> Tensor:
        """Reads one token a row [B] -> logits [B, vocabulary]. A state that was never prefilled has no meta tokens."""
        _check_room(state, rows=tokens.shape[0], tokens=1)
        x = self.embedding(tokens)
        for layer, layer_state in zip(self.layers, state.layers, strict=True):
            assert isinstance(layer, ResidualLayer)
            x = layer.step(x, layer_state, state.position)
        state.position += 1
        state.length += 1
        return self.logits(self.norm(x))

    @torch.inference_mode()
    def generate(self, tokens: Sequence[int], count: int) -> list[int]:
        """`tokens` and up to `count` more, each the most likely next one."""
        device = self.embedding.weight.device
        state = self.allocate_state(1, len(tokens) + count)
        logits, out = self.prefill(torch.tensor([list(tokens)], device=device), state), list(tokens)
        for _ in range(count):
            chosen = logits.argmax(-1)
            out.append(int(chosen))
            logits = self.step(chosen, state)
        return out


def _check_room(state: ModelState, *, rows: int, tokens: int) -> None:
    allocated = state.position.shape[0]
    if rows != allocated:
        raise StateError(f"the state was allocated for a batch of {allocated}, got {rows} rows")
    if state.length + tokens > state.capacity:
        raise StateError(f"the state was allocated for {state.capacity} tokens and holds {state.length}: {tokens} more do not fit")

"""HybridLM: what the layers make together, decoding from its state, and the state's limits."""

import pytest
import torch
from torch import Tensor

from operators import Architecture, HybridLM
from operators.errors import StateError

VOCABULARY = 50
GENES = {
    "attention": {"head_dim": 16},
    "mamba2": {"head_dim": 16, "state": 16},
    "deltanet": {"head_dim": 16},
    "gated_deltanet": {"head_dim": 16},
    "gla": {"head_dim": 16},
}


def architecture(layers: str = "d f m f a f g f l r", *, window: int | None = None, **fields: object) -> Architecture:
    genes = GENES | {"attention": {"head_dim": 16, "window": window}}
    return Architecture.from_shorthand(layers, width=48, vocabulary=VOCABULARY, genes=genes, **fields)


def build(described: Architecture, *, seed: int = 0) -> HybridLM:
    torch.manual_seed(seed)
    return HybridLM(described)


def tokens_of(batch: int, length: int) -> Tensor:
    return torch.randint(VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def check_decoding(model: HybridLM, tokens: Tensor, pieces: tuple[int, ...]) -> None:
    """Prefills of those lengths, then steps: the logits of the forward at every position they give."""
    expected, state, read = model(tokens), model.allocate_state(*tokens.shape), 0
    for length in pieces:
        logits = model.prefill(tokens[:, read : read + length], state)
        read += length
        torch.testing.assert_close(logits, expected[:, read - 1], rtol=1e-4, atol=1e-5)
    for t in range(read, tokens.shape[1]):
        torch.testing.assert_close(model.step(tokens[:, t], state), expected[:, t], rtol=1e-4, atol=1e-5)
    assert state.length == state.capacity
    assert state.position.tolist() == [state.length] * tokens.shape[0]


@pytest.mark.parametrize("meta_tokens", [0, 3, 70])
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("pieces", [(1,), (66,), (33, 1, 21)])
def test_decoding_equals_forward(meta_tokens: int, window: int | None, pieces: tuple[int, ...]) -> None:
    model = build(architecture(window=window, meta_tokens=meta_tokens))
    check_decoding(model, tokens_of(2, 69), pieces)


@pytest.mark.parametrize("norm", ["rmsnorm", "layernorm"])
@pytest.mark.parametrize("norm_position", ["before", "after"])
def test_decoding_equals_forward_with_every_normalization(norm: str, norm_position: str) -> None:
    plain = architecture("a f m")
    layers = [layer.model_dump() | {"norm": norm, "norm_position": norm_position} for layer in plain.layers]
    model = build(Architecture.parse(plain.model_dump() | {"layers": layers, "tied_embeddings": False}))
    check_decoding(model, tokens_of(3, 20), (13,))


@torch.no_grad()
def test_a_window_hides_what_lies_outside_it() -> None:
    model = build(architecture("a f", window=6))
    tokens = tokens_of(1, 30)
    other = tokens.clone()
    other[:, 10] = (other[:, 10] + 1) % VOCABULARY
    differs = (model(tokens) - model(other)).abs().amax((0, 2)) > 1e-6
    assert differs.nonzero().flatten().tolist() == list(range(10, 16))


@torch.no_grad()
def test_a_window_bounds_the_state() -> None:
    model = build(architecture("a", window=6))
    assert model.allocate_state(1, 1000).bytes == model.allocate_state(1, 6).bytes
    assert model.allocate_state(1, 5).bytes < model.allocate_state(1, 6).bytes


@torch.no_grad()
def test_meta_tokens_take_room_but_no_steps() -> None:
    model = build(architecture("a m", meta_tokens=4))
    assert model.meta is not None
    tokens, state = tokens_of(2, 8), model.allocate_state(2, 8)
    assert state.capacity == 12
    assert model(tokens).shape == (2, 8, VOCABULARY)
    model.prefill(tokens[:, :5], state)
    assert state.length == 9
    for t in range(5, 8):
        model.step(tokens[:, t], state)
    with pytest.raises(StateError, match="allocated for 12 tokens and holds 12: 1 more do not fit"):
        model.step(tokens[:, 0], state)
    before = model(tokens)
    model.meta.add_(1.0)
    assert (model(tokens) - before).abs().max() > 1e-3


@torch.no_grad()
def test_state_refuses_what_it_was_not_allocated_for() -> None:
    model = build(architecture("d a"))
    state = model.allocate_state(2, 10)
    with pytest.raises(StateError, match="allocated for a batch of 2, got 3 rows"):
        model.prefill(tokens_of(3, 4), state)
    with pytest.raises(StateError, match="allocated for a batch of 2, got 1 rows"):
        model.step(tokens_of(1, 1)[:, 0], state)
    with pytest.raises(StateError, match="allocated for 10 tokens and holds 0: 11 more do not fit"):
        model.prefill(tokens_of(2, 11), state)
    model.prefill(tokens_of(2, 10), state)
    with pytest.raises(StateError, match="allocated for 10 tokens and holds 10: 1 more do not fit"):
        model.step(tokens_of(2, 1)[:, 0], state)


@torch.no_grad()
def test_reset_forgets_everything_in_place() -> None:
    model, tokens = build(architecture(meta_tokens=2)), tokens_of(2, 12)
    state = model.allocate_state(2, 12)
    first = model.prefill(tokens, state)
    addresses = [tensor.data_ptr() for layer in state.layers for tensor in layer.values()]
    state.reset()
    assert state.length == 0
    assert not state.position.any()
    assert torch.equal(model.prefill(tokens, state), first)
    assert [tensor.data_ptr() for layer in state.layers for tensor in layer.values()] == addresses


def test_weights_depend_on_the_seed_alone() -> None:
    described = architecture(meta_tokens=2, tied_embeddings=False)
    first, again, other = (build(described, seed=seed).state_dict() for seed in (7, 7, 8))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_an_untrained_model_knows_nothing_and_every_weight_learns() -> None:
    model, tokens = build(architecture()), tokens_of(4, 65)
    loss = torch.nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    # Logits of about unit variance add half a nat to the uniform distribution's loss.
    assert -0.1 < loss.item() - torch.tensor(float(VOCABULARY)).log().item() < 1.0
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())

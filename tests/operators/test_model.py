"""HybridLM: the layers together, decoding from its state, and the state's limits."""

import copy
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from operators import Architecture, HybridLM, registry
from operators.base.errors import DataError, StateError
from operators.layers.normalization import build_norm
from operators.layers.residual import add_norm_reference, best_add_norm
from operators.operator import OperatorModule

VOCABULARY = 50
GENES = {
    "attention": {"head_dim": 16},
    "mamba2": {"head_dim": 16, "state": 16},
    "deltanet": {"head_dim": 16},
    "gated_deltanet": {"head_dim": 16},
    "gla": {"head_dim": 16},
}


def architecture(
    layers: str = "d f m f a f g f l r", *, window: int | None = None, **fields: object
) -> Architecture:
    genes = GENES | {"attention": {"head_dim": 16, "window": window}}
    return Architecture.from_shorthand(layers, width=48, vocabulary=VOCABULARY, genes=genes, **fields)


def build(described: Architecture, *, seed: int = 0) -> HybridLM:
    torch.manual_seed(seed)
    return HybridLM(described)


def tokens_of(batch: int, length: int) -> Tensor:
    return torch.randint(VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def check_decoding(model: HybridLM, tokens: Tensor, pieces: tuple[int, ...]) -> None:
    """Prefills of these lengths, then steps, give the logits of the forward at their positions."""
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


@pytest.mark.parametrize("wrong", [-1, VOCABULARY, 2**40])
@torch.no_grad()
def test_an_id_without_a_row_is_named_wherever_tokens_go_in(wrong: int) -> None:
    model, tokens = build(architecture("a f")), tokens_of(2, 4)
    tokens[1, 2] = wrong
    says = f"tokens: got id {wrong}, expected from 0 to {VOCABULARY - 1}"
    state = model.allocate_state(2, 8)
    for read in (
        lambda: model(tokens),
        lambda: model.prefill(tokens, state),
        lambda: model.step(tokens[:, 2], state),
    ):
        with pytest.raises(DataError, match=says):
            read()


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
def check_rows_alone(model: HybridLM, tokens: Tensor, *, pieces: list[list[int]], steps: int) -> None:
    """Ragged prefills, then steps: each row has the logits that it has alone, without padding."""
    batch, longest = len(pieces[0]), max(max(piece) for piece in pieces)
    totals = [sum(counts) for counts in zip(*pieces, strict=True)]
    together = model.allocate_state(batch, max(totals) + steps)
    alone = [model.allocate_state(1, max(totals) + steps) for _ in range(batch)]
    read = [0] * batch
    for lengths in pieces:
        padded = torch.full((batch, longest), -1)  # no token has this id: an embedding of it fails
        for row, length in enumerate(lengths):
            padded[row, :length] = tokens[row, read[row] : read[row] + length]
        logits = model.prefill(padded, together, lengths)
        for row, length in enumerate(lengths):
            expected = model.prefill(padded[row : row + 1, :length], alone[row])
            torch.testing.assert_close(logits[row], expected[0], rtol=1e-4, atol=1e-5)
            read[row] += length
    assert (
        together.lengths
        == together.position.tolist()
        == [model.architecture.meta_tokens + total for total in totals]
    )
    for _ in range(steps):
        logits = model.step(torch.stack([tokens[row, at] for row, at in enumerate(read)]), together)
        for row, at in enumerate(read):
            torch.testing.assert_close(
                logits[row], model.step(tokens[row, at : at + 1], alone[row])[0], rtol=1e-4, atol=1e-5
            )
        read = [at + 1 for at in read]


@pytest.mark.parametrize("name", registry.names())
def test_rows_of_different_lengths_decode_as_if_alone(name: str) -> None:
    torch.manual_seed(0)
    model = HybridLM(
        Architecture.from_shorthand(f"{name} f {name}", width=64, vocabulary=VOCABULARY, meta_tokens=2)
    )
    check_rows_alone(model, tokens_of(4, 120), pieces=[[7, 1, 70, 7]], steps=5)
    check_rows_alone(model, tokens_of(4, 120), pieces=[[2, 9, 1, 66], [30, 5, 5, 3], [4, 4, 4, 4]], steps=5)


@pytest.mark.parametrize("window", [None, 6])
def test_rows_of_different_lengths_in_a_mixed_model(window: int | None) -> None:
    check_rows_alone(
        build(architecture(window=window)), tokens_of(3, 40), pieces=[[3, 12, 1], [9, 2, 20]], steps=5
    )


@torch.no_grad()
def test_lengths_may_be_a_tensor_and_equal() -> None:
    model, tokens = build(architecture(meta_tokens=2)), tokens_of(2, 9)
    one, other = model.allocate_state(2, 9), model.allocate_state(2, 9)
    assert torch.equal(model.prefill(tokens, one, torch.tensor([5, 5])), model.prefill(tokens[:, :5], other))
    assert one.lengths == [7, 7]


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([4], "lengths: expected one for each of 2 rows, got 1"),
        ([4, 0], "lengths: expected from 1 to 6 tokens a row, got 0 in row 1"),
        ([7, 1], "lengths: expected from 1 to 6 tokens a row, got 7 in row 0"),
        (torch.tensor([1, -1]), "got -1 in row 1"),
    ],
)
@torch.no_grad()
def test_bad_lengths_are_refused(lengths: list[int] | Tensor, message: str) -> None:
    model = build(architecture("d a"))
    state = model.allocate_state(2, 10)
    with pytest.raises(StateError, match=message):
        model.prefill(tokens_of(2, 6), state, lengths)
    with pytest.raises(StateError, match="expected from 1 to 0 tokens a row, got 0 in row 0"):
        model.prefill(tokens_of(2, 0), state)
    assert state.length == 0


@torch.no_grad()
def test_each_row_is_held_to_its_own_room() -> None:
    model = build(architecture("d a"))
    state = model.allocate_state(2, 10)
    model.prefill(tokens_of(2, 8), state, [8, 2])
    with pytest.raises(StateError, match="allocated for 10 tokens and holds 8: 3 more do not fit"):
        model.prefill(tokens_of(2, 8), state, [3, 8])
    model.prefill(tokens_of(2, 8), state, [2, 8])
    assert state.lengths == [10, 10]


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


class Joined(OperatorModule):
    """Three layers that read the same input."""

    joined: ClassVar = ("a", "b", "c")

    def __init__(self, *, bias: bool) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(16, size, bias=bias) for size in (8, 24, 3))

    def expected(self, x: Tensor) -> list[Tensor]:
        return [self.a(x), self.b(x), self.c(x)]

    @property
    def lies_together(self) -> bool:
        return self.together() is not None


@pytest.mark.parametrize("bias", [False, True])
def test_joined_layers_stay_the_parameters_that_they_are(bias: bool) -> None:
    module, x = Joined(bias=bias), torch.randn(2, 5, 16)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}

    def check(module: Joined, *, together: bool) -> None:
        with torch.no_grad():
            assert module.lies_together == together
            torch.testing.assert_close(module.project(x), torch.cat(module.expected(x), -1))
            torch.testing.assert_close(list(module.project_each(x)), module.expected(x))

    check(module, together=False)
    module.lay_together()
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    check(module, together=True)
    module.load_state_dict({name: tensor + 1 for name, tensor in before.items()})
    with torch.no_grad():
        module.b.weight.mul_(2)  # as an optimizer does: in place
    check(module, together=True)
    other = copy.deepcopy(module)
    with torch.no_grad():
        other.a.weight.zero_()
    check(other, together=False)
    module.double().float()
    check(module, together=False)
    module.lay_together()
    module.c.weight = nn.Parameter(torch.randn(3, 16))
    check(module, together=False)


def test_joined_layers_learn() -> None:
    module = Joined(bias=True)
    module.lay_together()
    module.project(torch.randn(2, 16)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())


@pytest.mark.parametrize(("width", "device"), [(2048, "cpu"), (512, "cuda"), (32_769, "cuda")])
def test_sum_and_normalization_are_plain_where_the_fused_kernel_does_not_serve(
    width: int, device: str
) -> None:
    assert best_add_norm(width, torch.device(device), torch.bfloat16) is add_norm_reference


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", ["rmsnorm", "layernorm"])
@pytest.mark.parametrize(("batch", "width"), [(1, 2048), (3, 1000), (3, 3072)])
@torch.no_grad()
def test_the_fused_sum_and_normalization_equal_the_plain_ones(kind: str, batch: int, width: int) -> None:
    fused = best_add_norm(width, torch.device("cuda"), torch.bfloat16)
    if fused is add_norm_reference:
        pytest.skip("flash-linear-attention is not installed")
    norm = build_norm(kind, width, 1e-5).cuda()
    for parameter in norm.parameters():
        parameter.normal_()
    x, change = torch.randn(2, batch, width, device="cuda").bfloat16()
    for change_or_none in (change, None):
        expected = add_norm_reference(norm, x.float(), None if change_or_none is None else change.float())
        computed = fused(norm.bfloat16(), x, change_or_none)
        for ours, theirs in zip(computed, expected, strict=True):
            assert ours.dtype == torch.bfloat16
            assert ((ours.float() - theirs).norm() / theirs.norm()).item() < 2**-8 + 2**-9
        norm = norm.float()


@pytest.mark.parametrize("tied", [True, False])
def test_a_normalized_head_by_its_definition(tied: bool) -> None:
    """Logits are divided in training, and in decoding, which keeps the norms of the rows."""
    model = build(architecture("a f", normalized_head=True, tied_embeddings=tied))
    tokens = tokens_of(2, 12)
    with torch.no_grad():
        rows, hidden = (model.embedding if tied else model.head).weight, model.hidden(tokens)
        expected = torch.stack([hidden @ row / row.square().sum().sqrt() for row in rows], -1)
        state = model.allocate_state(2, 12)
        decoded = [
            model.prefill(tokens[:, :5], state),
            *(model.step(tokens[:, t], state) for t in range(5, 12)),
        ]
        torch.testing.assert_close(model(tokens), expected)
        torch.testing.assert_close(torch.stack(decoded, 1), expected[:, 4:])
        assert not torch.allclose(expected, hidden @ rows.T, rtol=0.05)


def test_recomputed_layers_have_the_same_gradients() -> None:
    model, tokens = build(architecture(meta_tokens=3)), tokens_of(2, 12)
    runs = []
    for recompute in (False, True):
        model.recompute = recompute
        kept: list[Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, kept=kept: kept.append(x) or x, lambda x: x):
            out = model(tokens)
        runs.append(
            (torch.autograd.grad(out.square().sum(), list(model.parameters())), sum(x.nbytes for x in kept))
        )
    (expected, all_bytes), (gradients, fewer_bytes) = runs
    assert all(torch.equal(*pair) for pair in zip(gradients, expected, strict=True))
    assert fewer_bytes < all_bytes / 5

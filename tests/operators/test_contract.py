"""The contract of every operator. It covers a new file in operators/library/ as soon as it exists."""

import os
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from operators import Architecture, HybridLM, Layer, registry
from operators.agreement import agreement
from operators.backends import reason_against, resolve
from operators.base.errors import BackendError
from operators.operator import OperatorModule, Shape, State
from operators.parameter_shapes import Undrawn

WIDTH, CAPACITY = 64, 160
NAMES = registry.names()
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CPU = torch.device("cpu")


def gene_combinations(name: str) -> list[dict[str, Any]]:
    genes = registry.get(name).genes
    return [dict(zip(genes, values, strict=True)) for values in product(*genes.values())]


def shape_of(name: str, which: str = "first") -> Shape:
    """The shape at WIDTH: the default, or the one with the first or last choice of every gene."""
    combinations = gene_combinations(name)
    genes = {"default": {}, "first": combinations[0], "last": combinations[-1]}[which]
    return registry.get(name).shape.make(WIDTH, **genes)


def architecture_of(name: str, which: str = "first", **fields: Any) -> Architecture:
    return Architecture(
        width=WIDTH, vocabulary=32, layers=(Layer(operator=name, shape=shape_of(name, which)),), **fields
    )


def build(
    name: str, which: str = "first", backend: str = "reference", device: torch.device = CPU
) -> OperatorModule:
    torch.manual_seed(0)
    architecture = architecture_of(name, which)
    shape = architecture.layers[0].shape
    kernels = resolve(name, backend, shape, device, torch.float32).kernels
    return registry.get(name).build(architecture, shape, kernels).to(device)


def allocate(
    name: str, which: str, batch: int, device: torch.device = CPU, dtype: torch.dtype = torch.float32
) -> State:
    specs = registry.get(name).state(shape_of(name, which), batch, CAPACITY, dtype)
    return {key: torch.zeros(spec.shape, dtype=spec.dtype, device=device) for key, spec in specs.items()}


def decode(module: OperatorModule, x: Tensor, state: State, pieces: tuple[int, ...]) -> Tensor:
    """Prefills x [B, T, W] piece by piece, then steps through the rest."""
    position = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
    out, read = [], 0
    with torch.no_grad():
        for length in pieces:
            out.append(module(x[:, read : read + length], state, position + read, read))
            read += length
        for t in range(read, x.shape[1]):
            out.append(module.step(x[:, t], state, position + t)[:, None])
    return torch.cat(out, 1)


def assert_close(ours: Tensor, expected: Tensor) -> None:
    """The largest error over the largest expected value."""
    scale = expected.abs().max().clamp(min=1e-3)
    assert ours.shape == expected.shape
    assert ((ours - expected).abs().max() / scale).item() < 2e-5


both_ends = pytest.mark.parametrize("which", ["first", "last"])
every_operator = pytest.mark.parametrize("name", NAMES)


@every_operator
@both_ends
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_output_has_the_shape_and_dtype_of_the_input(name: str, which: str, dtype: torch.dtype) -> None:
    module, x = build(name, which).to(dtype), torch.randn(2, 19, WIDTH, dtype=dtype)
    out, decoded = module(x), decode(module, x, allocate(name, which, 2, dtype=dtype), (17,))
    for y in (out, decoded):
        assert (y.shape, y.dtype) == (x.shape, dtype)
        assert y.isfinite().all()


@every_operator
@both_ends
@pytest.mark.parametrize(("tokens", "changed"), [(1, 0), (70, 33), (130, 64), (130, 129)])
def test_no_token_reads_a_later_one(name: str, which: str, tokens: int, changed: int) -> None:
    module, x = build(name, which), torch.randn(2, tokens, WIDTH)
    other = x.clone()
    other[:, changed] = 3 * torch.randn(2, WIDTH)
    with torch.no_grad():
        before, after = module(x), module(other)
    torch.testing.assert_close(before[:, :changed], after[:, :changed], rtol=0, atol=1e-6)
    assert (before[:, changed] - after[:, changed]).abs().max() > 1e-4


@every_operator
@both_ends
def test_every_parameter_learns(name: str, which: str) -> None:
    module = build(name, which)
    x = torch.randn(2, 67, WIDTH, requires_grad=True)
    (module(x) * torch.randn(2, 67, WIDTH)).sum().backward()
    for label, tensor in [("x", x), *module.named_parameters()]:
        assert tensor.grad is not None, label
        assert tensor.grad.isfinite().all(), label
        assert tensor.grad.abs().max() > 0, label


@every_operator
@both_ends
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("pieces", [(), (70,), (1, 62), (63, 1, 5), (2, 64, 3)])
def test_prefill_in_pieces_and_steps_equal_one_forward(
    name: str, which: str, batch: int, pieces: tuple[int, ...]
) -> None:
    module, x = build(name, which), torch.randn(batch, 74, WIDTH)
    decoded = decode(module, x, allocate(name, which, batch), pieces)
    assert_close(decoded, module(x).detach())


@every_operator
def test_a_long_second_prefill_continues_from_the_state(name: str) -> None:
    module, x = build(name), torch.randn(2, 151, WIDTH)
    assert_close(decode(module, x, allocate(name, "first", 2), (50, 100)), module(x).detach())


@every_operator
def test_a_reset_state_has_forgotten(name: str) -> None:
    model = HybridLM(architecture_of(name), backend="reference")
    used, fresh = model.allocate_state(2, 40), model.allocate_state(2, 40)
    with torch.no_grad():
        model.prefill(torch.randint(32, (2, 33)), used)
        used.reset()
        tokens = torch.randint(32, (2, 9))
        assert torch.equal(model.prefill(tokens, used), model.prefill(tokens, fresh))
        assert torch.equal(model.step(tokens[:, 0], used), model.step(tokens[:, 0], fresh))


@every_operator
def test_decoding_writes_to_the_memory_it_was_given(name: str) -> None:
    module, state, x = build(name), allocate(name, "first", 2), torch.randn(2, 9, WIDTH)
    addresses = {key: tensor.data_ptr() for key, tensor in state.items()}
    decode(module, x, state, (4, 3))
    assert {key: tensor.data_ptr() for key, tensor in state.items()} == addresses
    assert all(tensor.abs().max() > 0 for tensor in state.values())


@every_operator
@both_ends
def test_a_step_never_looks_at_values_on_the_host(name: str, which: str) -> None:
    # Tensors on the meta device have no values: .item() and shapes that depend on data raise there.
    meta = torch.device("meta")
    module = build(name, which).to(meta)
    out = module.step(
        torch.empty(3, WIDTH, device=meta),
        allocate(name, which, 3, meta),
        torch.zeros(3, dtype=torch.int64, device=meta),
    )
    assert out.shape == (3, WIDTH)


@every_operator
@pytest.mark.parametrize("width", [32, 96, 200, 1024])
def test_parameters_are_exact(name: str, width: int) -> None:
    operator = registry.get(name)
    for genes in gene_combinations(name):
        shape = operator.shape.make(width, **genes)
        architecture = Architecture(width=width, vocabulary=2, layers=(Layer(operator=name, shape=shape),))
        with torch.device("meta"), Undrawn():
            module = operator.build(architecture, shape, None)
        assert operator.parameters(width, shape) == sum(p.numel() for p in module.parameters()), genes


@every_operator
def test_every_matrix_is_on_one_side_of_the_residual_stream(name: str) -> None:
    module = build(name)
    matrices = sorted(label for label, part in module.named_modules() if isinstance(part, nn.Linear))
    assert sorted((*module.reads, *module.within, *module.writes)) == matrices


@every_operator
@both_ends
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_is_as_large_as_it_says(name: str, which: str, dtype: torch.dtype) -> None:
    model = HybridLM(architecture_of(name, which, meta_tokens=5), backend="reference", dtype=dtype)
    specs = registry.get(name).state(shape_of(name, which), 3, 21 + 5, dtype)
    state = model.allocate_state(3, 21)
    assert state.bytes == sum(spec.bytes for spec in specs.values())
    assert {key: (tuple(t.shape), t.dtype) for key, t in state.layers[0].items()} == {
        key: (s.shape, s.dtype) for key, s in specs.items()
    }


@every_operator
@both_ends
def test_flops_are_at_least_those_of_the_matrices_and_grow_with_context(name: str, which: str) -> None:
    operator, shape = registry.get(name), shape_of(name, which)
    counts = [operator.flops(WIDTH, shape, context) for context in (1, 2, 100, 1000, 100_000)]
    assert all(isinstance(count, int) for count in counts)
    assert all(before <= after for before, after in pairwise(counts))
    assert counts[0] >= sum(
        2 * part.weight.numel() for part in build(name, which).modules() if isinstance(part, nn.Linear)
    )


@every_operator
def test_genes_and_make_are_inverse(name: str) -> None:
    operator = registry.get(name)
    for width, genes in product((32, 48, 100, 192, 768, 2048), gene_combinations(name)):
        shape = operator.shape.make(width, **genes)
        genes_of_shape = shape.genes(width)
        assert operator.shape.make(width, **genes_of_shape) == shape
        assert set(genes) <= set(genes_of_shape)
        assert operator.shape.model_validate(shape.model_dump(mode="json")) == shape


@every_operator
def test_a_resized_layer_keeps_its_genes(name: str) -> None:
    for genes in gene_combinations(name):
        # At 1536 every combination divides evenly, so that the shape has exactly these genes.
        layer = Layer(operator=name, shape=registry.get(name).shape.make(1536, **genes))
        assert layer.resized(1536, 1536) == layer
        assert layer.resized(1536, 768).shape == registry.get(name).shape.make(768, **layer.shape.genes(1536))
        assert layer.resized(1536, 3072).resized(3072, 1536) == layer


LIBRARIES = [
    (name, backend) for name in NAMES for backend in registry.get(name).backends if backend != "reference"
]
GPU_WIDTH = 256


def shape_at(name: str, which: str, width: int) -> Shape:
    combinations = gene_combinations(name)
    genes = {"default": {}, "first": combinations[0], "last": combinations[-1]}[which]
    return registry.get(name).shape.make(width, **genes)


@pytest.mark.parametrize(("name", "backend"), LIBRARIES)
@pytest.mark.parametrize("which", ["default", "first", "last"])
def test_backend_equals_the_reference(name: str, backend: str, which: str) -> None:
    shape = shape_of(name, which)
    reason = reason_against(name, backend, shape, CPU, torch.float32)
    if reason:
        pytest.skip(f"{name}: {backend} cannot be used on a CPU: {reason}")
    architecture = architecture_of(name, which)
    for tokens in (1, 17, 63, 100):
        compared = agreement(
            architecture, backend, device=CPU, dtype=torch.float32, batch=2, tokens=tokens, seed=tokens
        )
        assert compared.complaint is None, f"{tokens} tokens: {compared.complaint}"


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("name", "backend"), [(name, backend) for name in NAMES for backend in registry.get(name).backends]
)
@pytest.mark.parametrize("which", ["default", "last"])
def test_backend_equals_the_reference_on_a_gpu(name: str, backend: str, which: str) -> None:
    """Outputs, gradients and decoding in bfloat16 stay within the bounds of operators/agreement.py."""
    if DEVICE.type != "cuda":
        pytest.skip("needs a CUDA device: torch sees none")
    shape = shape_at(name, which, GPU_WIDTH)
    reason = reason_against(name, backend, shape, DEVICE, torch.bfloat16)
    if reason:
        pytest.skip(f"{name}: {backend} cannot be used here: {reason}")
    architecture = Architecture(width=GPU_WIDTH, vocabulary=2, layers=(Layer(operator=name, shape=shape),))
    sizes = [(63, 1), (63, 3), (1000, 1), (1000, 3)] + ([(4097, 1), (4097, 3)] if which == "default" else [])
    for tokens, batch in sizes:
        seed = int.from_bytes(os.urandom(4), "little")
        compared = agreement(
            architecture, backend, device=DEVICE, dtype=torch.bfloat16, batch=batch, tokens=tokens, seed=seed
        )
        assert compared.complaint is None, (
            f"{tokens} tokens, batch {batch}, seed {seed}: {compared.complaint}"
        )


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "backend"), LIBRARIES)
def test_a_captured_step_equals_an_eager_one(name: str, backend: str) -> None:
    if DEVICE.type != "cuda":
        pytest.skip("needs a CUDA device: torch sees none")
    shape = shape_at(name, "default", GPU_WIDTH)
    reason = reason_against(name, backend, shape, DEVICE, torch.bfloat16)
    if reason:
        pytest.skip(f"{name}: {backend} cannot be used here: {reason}")
    architecture = Architecture(width=GPU_WIDTH, vocabulary=2, layers=(Layer(operator=name, shape=shape),))
    module = registry.get(name).build(
        architecture, shape, resolve(name, backend, shape, DEVICE, torch.bfloat16).kernels
    )
    module.to(DEVICE, torch.bfloat16)
    specs = registry.get(name).state(shape, 3, CAPACITY, torch.bfloat16)
    states = [
        {key: torch.zeros(spec.shape, dtype=spec.dtype, device=DEVICE) for key, spec in specs.items()}
        for _ in range(2)
    ]
    positions = [torch.zeros(3, dtype=torch.int64, device=DEVICE) for _ in range(2)]
    x, stream = torch.empty(3, GPU_WIDTH, device=DEVICE, dtype=torch.bfloat16), torch.cuda.Stream()
    with torch.no_grad():
        with torch.cuda.stream(stream):
            module.step(x.normal_(), states[0], positions[0])
            module.step(x.normal_(), states[0], positions[0])
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            replayed = module.step(x, states[0], positions[0])
        for tensor in states[0].values():
            tensor.zero_()
        for _ in range(5):
            x.normal_()
            graph.replay()
            torch.testing.assert_close(
                replayed, module.step(x, states[1], positions[1]), rtol=1e-2, atol=1e-2
            )
            for position in positions:
                position += 1


@every_operator
def test_a_backend_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(
        BackendError, match=f"operator {name} has no backend 'nonsense': expected auto or one of .*reference"
    ):
        HybridLM(architecture_of(name), backend="nonsense")


@every_operator
def test_reference_is_there_and_everything_says_where_it_comes_from(name: str) -> None:
    operator = registry.get(name)
    assert list(operator.backends)[-1] == "reference"
    assert reason_against(name, "reference", shape_of(name), DEVICE, torch.float32) is None
    assert operator.source
    assert registry.name_of(operator.symbol) == name

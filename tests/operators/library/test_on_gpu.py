"""The libraries' kernels for RWKV7 and Mamba3, and ours for ReLU², against the float32 reference on a GPU.

`tests/operators/test_contract.py` does the same for every backend at a few sizes. Here are the lengths around
a chunk's, the states, and a training.
"""

import pytest
import torch
from torch import Tensor

from operators import Architecture, HybridLM, Layer, registry
from operators.agreement import BOUNDS, agreement, relative_error
from operators.backends import resolve
from operators.library import mamba3
from operators.operator import State
from proxy_train.optim import Optimizer, parameter_groups

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
WIDTH = 256
CASES = {
    **{f"rwkv7 {size}": ("rwkv7", "fla", {"head_dim": size}) for size in (32, 64, 128)},
    **{
        f"mamba3 {size} {state}": (
            "mamba3",
            "mamba_ssm",
            {"head_dim": size, "state": state, "groups": groups},
        )
        for size, state, groups in ((32, 128, 1), (64, 32, 2), (64, 128, 1), (128, 128, 1))
    },
    "relu2": ("relu2", "fused", {}),
}
TOKENS = (1, 5, 17, 63, 64, 65, 200)
# Behind fewer tokens the reference in bfloat16 is itself beyond the bounds on a CPU. RWKV7 normalizes each
# head, which takes the size of its output away. Behind one token the size is all that its factors decide.
SHORTEST = {"rwkv7": 5}
every_case = pytest.mark.parametrize("case", CASES)


def architecture_of(case: str, layers: int = 1) -> tuple[Architecture, str]:
    name, backend, genes = CASES[case]
    layer = Layer(operator=name, shape=registry.get(name).shape.make(WIDTH, **genes))
    return Architecture(width=WIDTH, vocabulary=512, layers=(layer,) * layers), backend


@pytest.mark.parametrize(
    ("case", "tokens"),
    [(case, tokens) for case in CASES for tokens in TOKENS if tokens >= SHORTEST.get(CASES[case][0], 1)],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_outputs_and_gradients_are_those_of_the_reference(case: str, batch: int, tokens: int) -> None:
    architecture, backend = architecture_of(case)
    compared = agreement(
        architecture,
        backend,
        device=torch.device("cuda"),
        dtype=torch.bfloat16,
        batch=batch,
        tokens=tokens,
        seed=tokens,
    )
    assert compared.complaint is None


def prefilled(architecture: Architecture, backend: str, dtype: torch.dtype, x: Tensor) -> State:
    """The state after a prefill of a third of x and one of the rest, and half a dozen steps."""
    layer = architecture.layers[0]
    kernels = resolve(layer.operator, backend, layer.shape, x.device, dtype).kernels
    torch.manual_seed(0)
    module = registry.get(layer.operator).build(architecture, layer.shape, kernels)
    module.to(torch.bfloat16).to(x.device, dtype)  # the same rounded weights, whatever computes
    specs = registry.get(layer.operator).state(layer.shape, x.shape[0], x.shape[1], dtype)
    state = {name: torch.zeros(spec.shape, dtype=spec.dtype, device=x.device) for name, spec in specs.items()}
    position = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
    read, (third, end) = 0, (x.shape[1] // 3, x.shape[1] - 6)
    with torch.inference_mode():
        for part in (x[:, :third], x[:, third:end]):
            module(part.to(dtype), state, position + read, read)
            read += part.shape[1]
        for t in range(end, x.shape[1]):
            module.step(x[:, t].to(dtype), state, position + t)
    return state


def of_angles(state: State) -> dict[str, Tensor]:
    """The state, in which angles that differ by a whole turn are equal."""
    plain = {name: y for name, y in state.items() if name != "angle"}
    if "angle" in state:
        plain |= {"cos": state["angle"].cos(), "sin": state["angle"].sin()}
    return plain


@pytest.mark.parametrize("case", [case for case in CASES if case != "relu2"])
@pytest.mark.parametrize("tokens", [17, 200, 1000])
def test_states_are_those_of_the_reference(case: str, tokens: int) -> None:
    architecture, backend = architecture_of(case)
    x = torch.randn(3, tokens, WIDTH, device="cuda", dtype=torch.bfloat16)
    ours = of_angles(prefilled(architecture, backend, torch.bfloat16, x))
    expected = of_angles(prefilled(architecture, "reference", torch.float32, x))
    for name, value in expected.items():
        assert relative_error(ours[name], value) < BOUNDS[torch.bfloat16].output, name


def test_rows_that_the_kernels_cannot_address_together_are_read_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    architecture, backend = architecture_of("mamba3 64 128")
    shape = architecture.layers[0].shape
    monkeypatch.setattr(mamba3, "LARGEST_INDEX", 2 * 200 * shape.largest_of_token)  # two rows
    compared = agreement(
        architecture, backend, device=torch.device("cuda"), dtype=torch.bfloat16, batch=3, tokens=200
    )
    assert compared.complaint is None


def losses(architecture: Architecture, backend: str) -> list[float]:
    """Twenty steps on the same random tokens, which a model learns by heart."""
    torch.manual_seed(0)
    model = HybridLM(architecture, backend=backend, device="cuda", dtype=torch.bfloat16)
    groups = parameter_groups(model, learning_rate=1e-4, weight_decay=0.1, base_width=None)
    optimizer = Optimizer(model, groups, gradient_clip=1.0)
    optimizer.set_rate(1.0)
    tokens = torch.randint(512, (8, 201), device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    found = []
    for _ in range(20):
        logits = model(tokens[:, :-1]).float()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.collect(first=True)
        optimizer.step()
        found.append(loss.item())
    return found


@every_case
def test_a_training_goes_as_that_of_the_reference(case: str) -> None:
    architecture, backend = architecture_of(case, layers=3)
    ours, expected = losses(architecture, backend), losses(architecture, "reference")
    assert expected[-1] < expected[0] - 2  # it learns, so that wrong gradients would show
    # The reference itself in bfloat16 and in float32 differs by up to half of this.
    assert ours == pytest.approx(expected, abs=0.1)

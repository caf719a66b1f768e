"""The optimizer: its groups, float32 masters of weights in fewer bits, and the normalization of matrices."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from operators.model import HybridLM
from operators.operator import OperatorModule
from proxy_train.adamw import AdamW

# Both were chosen on runs of 150 steps at width 128. One rate for all weights and a momentum of 0.9 end 0.3
# nats per token higher there.
EMBEDDING_RATE = 8.0  # an embedding's row gets a gradient only when its token occurs, so its steps are larger
BETAS = (0.8, 0.95)  # short averages of the gradient: a run of 100 steps has no time for a long memory


def parameter_groups(
    model: HybridLM, *, learning_rate: float, weight_decay: float, base_width: int | None = None
) -> list[dict[str, Any]]:
    """The parameters in three groups, each in exactly one; `peak` is a group's own learning rate.

    - Matrices that operators declare have learning_rate. They alone decay.
    - Embeddings, meta tokens and head have EMBEDDING_RATE times learning_rate. A normalized head makes them
      √width times larger, and their rate with them.
    - The rest (normalizations, biases, convolutions, decay rates) has learning_rate.

    learning_rate: at its peak.
    weight_decay: of matrices.
    base_width: the width that learning_rate is meant for. At another width matrices get base_width / width of
        it, as in the maximal update parametrization for Adam (Yang et al. 2022, arXiv 2203.03466). A step
        decays them by as much as at base_width. Embeddings, meta tokens and head get the square root of that
        factor, as their numbers start at width^-½. The best rate is then the same at widths 64, 128 and 256.
        None: no scaling.
    """
    operators = [module for module in model.modules() if isinstance(module, OperatorModule)]
    names = [
        (module, name) for module in operators for name in (*module.reads, *module.within, *module.writes)
    ]
    matrices = [module.get_parameter(f"{name}.weight") for module, name in names]
    tables = [model.embedding.weight]
    if model.meta is not None:
        tables.append(model.meta)
    if model.head is not None:
        tables.append(model.head.weight)
    grouped = {*matrices, *tables}
    rest = [parameter for parameter in model.parameters() if parameter not in grouped]
    larger = model.architecture.width**0.5 if model.architecture.normalized_head else 1.0
    narrower = 1.0 if base_width is None else base_width / model.architecture.width
    return [
        {"params": matrices, "peak": learning_rate * narrower, "weight_decay": weight_decay / narrower},
        {
            "params": tables,
            "peak": learning_rate * EMBEDDING_RATE * larger * narrower**0.5,
            "weight_decay": 0.0,
        },
        {"params": rest, "peak": learning_rate, "weight_decay": 0.0},
    ]


def normalize_matrices(model: HybridLM, weights: Mapping[nn.Parameter, Tensor]) -> None:
    """Gives unit length to rows or columns of matrices [out, in] on the residual stream, in place.

    A matrix that reads the stream gets unit rows, a matrix that writes it unit columns.
    Source: Nemotron-Flash (arXiv 2511.18890).

    weights: the tensor to change for each of the model's parameters.
    """
    for module in model.modules():
        if isinstance(module, OperatorModule):
            for names, along in ((module.reads, 1), (module.writes, 0)):
                for name in names:
                    weight = weights[module.get_parameter(f"{name}.weight")]
                    # In place: a step of a small model is mostly the number of its kernels.
                    weight.div_(weight.norm(dim=along, keepdim=True).clamp_min_(1e-12))


class Optimizer:
    """AdamW over groups of a model's parameters, with clipped gradients.

    A parameter in fewer than 32 bits has a float32 master. The optimizer changes the master, and the model
    gets it rounded after every step. So kernel libraries see a dtype that they take, and rounding loses no
    update. Autocast would not do: it casts float32 weights in the forward pass, which costs as many casts,
    leaves the residual stream in float32, and makes a float32 model resolve to reference backends. Nothing
    here waits for the device or moves a tensor, so that a CUDA graph can hold `collect` and `step`.

    groups: each with `params`, `weight_decay` and `peak`, its learning rate; see `parameter_groups`.
        Parameters in no group are not trained. One without a gradient is left alone by a step.
    gradient_clip: the largest norm of the gradient of all parameters.
    normalize: called with the masters by parameter before the first step and after each; it changes them.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[Mapping[str, Any]],
        *,
        gradient_clip: float,
        normalize: Callable[[Mapping[nn.Parameter, Tensor]], None] | None = None,
    ) -> None:
        self.gradient_clip, self._normalize_masters = gradient_clip, normalize
        trained = {parameter for group in groups for parameter in group["params"]}
        self._named = {name: each for name, each in model.named_parameters() if each in trained}
        self.masters: dict[nn.Parameter, Tensor] = {
            parameter: parameter
            if parameter.dtype == torch.float32
            else parameter.detach().float().requires_grad_()
            for parameter in self._named.values()
        }
        self._rounded = [
            (parameter, master, torch.zeros_like(master))
            for parameter, master in self.masters.items()
            if master is not parameter
        ]
        self.device = next(iter(self.masters)).device
        on_gpu = self.device.type == "cuda"
        of_masters: list[dict[str, Any]] = [
            {
                **group,
                "params": [self.masters[parameter] for parameter in group["params"]],
                # A CUDA graph reads the rates from the device's memory at every replay.
                "lr": torch.zeros((), device=self.device) if on_gpu else 0.0,
            }
            for group in groups
        ]
        self._adamw = AdamW(of_masters, betas=BETAS, fused=True, capturable=on_gpu)
        if normalize is not None:
            self._settle()

    def set_rate(self, share: float) -> None:
        """Gives every group this share of its peak."""
        for group in self._adamw.groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(group["peak"] * share)
            else:
                group["lr"] = group["peak"] * share

    @torch.no_grad()
    def collect(self, *, first: bool) -> None:
        """Moves the gradients of a backward pass to the masters.

        first: whether this is the step's first pass. Its gradients replace the last
            step's; later ones are added.
        """
        gradients, sums = [], []
        for parameter, master, gradient in self._rounded:
            if first:
                master.grad = None
            if parameter.grad is not None:
                master.grad = gradient
                gradients.append(parameter.grad)
                sums.append(gradient)
                parameter.grad = None
        if not sums:
            return
        if first:
            torch._foreach_copy_(sums, gradients)
        else:
            torch._foreach_add_(sums, gradients)

    @torch.no_grad()
    def step(self) -> None:
        """Updates the weights once by the collected gradients."""
        nn.utils.clip_grad_norm_(list(self.masters.values()), self.gradient_clip)
        self._adamw.step()
        for parameter, master in self.masters.items():
            if master is parameter:
                parameter.grad = None
        self._settle()

    def weights(self) -> dict[str, Tensor]:
        """The masters by their parameters' names."""
        return {name: self.masters[parameter].detach() for name, parameter in self._named.items()}

    def tensors(self) -> dict[str, Tensor]:
        """All that training changes, by name: each parameter's master and its state in AdamW.

        Before the first step the states are zeros.
        """
        by_name = {}
        for name, parameter in self._named.items():
            master = self.masters[parameter]
            by_name[name] = master.detach()
            by_name |= {f"{name}/{key}": tensor for key, tensor in self._adamw.state(master).items()}
        return by_name

    @torch.no_grad()
    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Begins with the weights of another training, by name, and with its states where they are there.

        Names are those of `tensors`. Weights of any floating-point type are taken.
        """
        for name, tensor in self.tensors().items():
            if name in tensors:
                tensor.copy_(tensors[name])
        self._settle()

    @torch.no_grad()
    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Copies back what `tensors` returned.

        Each tensor stays in its memory, which a CUDA graph may read.
        """
        for name, tensor in self.tensors().items():
            tensor.copy_(saved[name])
        self._round()

    @torch.no_grad()
    def _settle(self) -> None:
        """Normalizes the masters where that is asked for, and gives them to the model."""
        if self._normalize_masters is not None:
            self._normalize_masters(
                {parameter: master.detach() for parameter, master in self.masters.items()}
            )
        self._round()

    @torch.no_grad()
    def _round(self) -> None:
        if self._rounded:
            torch._foreach_copy_(
                [parameter.data for parameter, *_ in self._rounded],
                [master.detach() for _, master, _ in self._rounded],
            )


def language_optimizer(
    model: HybridLM,
    *,
    learning_rate: float,
    weight_decay: float,
    gradient_clip: float,
    base_width: int | None,
    normalized: bool,
) -> Optimizer:
    """The optimizer of a language model's `parameter_groups`.

    learning_rate, weight_decay, base_width: see `parameter_groups`.
    gradient_clip: the largest norm of the gradient of all parameters.
    normalized: whether matrices are normalized, before the first step and after each. Nothing decays then.
    """
    groups = parameter_groups(
        model,
        learning_rate=learning_rate,
        weight_decay=0.0 if normalized else weight_decay,
        base_width=base_width,
    )
    normalize = partial(normalize_matrices, model) if normalized else None
    return Optimizer(model, groups, gradient_clip=gradient_clip, normalize=normalize)

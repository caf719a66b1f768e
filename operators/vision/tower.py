"""The vision transformer of a VisionTower (Dosovitskiy et al. 2021, arXiv 2010.11929)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from operators.base.errors import DataError
from operators.layers.normalization import RMSNorm, build_norm
from operators.layers.rope import Turn, frequencies, rotated, turn_by
from operators.vision.vision_language import CHANNELS, BlockNorm, VisionTower


class VisionAttention(nn.Module):
    """Attention in which every patch sees every patch."""

    def __init__(self, tower: VisionTower) -> None:
        super().__init__()
        self.head_dim, self.qk_norm = tower.head_dim, tower.qk_norm
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(tower.width, tower.width, bias=tower.bias) for _ in range(4)
        )
        self.q_norm = self.k_norm = None
        if tower.qk_norm != "none":
            size = tower.width if tower.qk_norm == "full" else tower.head_dim
            self.q_norm, self.k_norm = (RMSNorm(size, eps=tower.norm_eps) for _ in range(2))

    def forward(self, x: Tensor, turn: Turn | None) -> Tensor:
        """x [N, P, W] -> [N, P, W]; queries and keys are rotated, if by anything."""
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        if self.q_norm is not None and self.k_norm is not None and self.qk_norm == "full":
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (y.unflatten(-1, (-1, self.head_dim)) for y in (q, k, v))
        if self.q_norm is not None and self.k_norm is not None and self.qk_norm == "head":
            q, k = self.q_norm(q), self.k_norm(k)
        if turn is not None:
            q, k = rotated(turn, q), rotated(turn, k)
        out = F.scaled_dot_product_attention(*(y.transpose(1, 2) for y in (q, k, v)))
        y: Tensor = self.o_proj(out.transpose(1, 2).flatten(2))
        return y


class VisionFeedForward(nn.Module):
    """down(gelu(up(x))), down(silu(gate(x)) * up(x)) or down(relu(up(x))²)."""

    def __init__(self, tower: VisionTower) -> None:
        super().__init__()
        self.kind = tower.feedforward
        self.gate_proj = (
            nn.Linear(tower.width, tower.hidden, bias=tower.bias) if self.kind == "swiglu" else None
        )
        self.up_proj = nn.Linear(tower.width, tower.hidden, bias=tower.bias)
        self.down_proj = nn.Linear(tower.hidden, tower.width, bias=tower.bias)

    def forward(self, x: Tensor) -> Tensor:
        up = self.up_proj(x)
        if self.gate_proj is not None:
            inner = F.silu(self.gate_proj(x)) * up
        else:
            inner = F.gelu(up, approximate="tanh") if self.kind == "gelu" else F.relu(up).square()
        y: Tensor = self.down_proj(inner)
        return y


class VisionBlock(nn.Module):
    """Attention and a feed-forward network, each with its normalization and a residual connection."""

    def __init__(self, tower: VisionTower, norm: BlockNorm) -> None:
        super().__init__()
        self.before = norm.norm_position == "before"
        self.attention_norm = build_norm(norm.norm, tower.width, tower.norm_eps)
        self.attention = VisionAttention(tower)
        self.feedforward_norm = build_norm(norm.norm, tower.width, tower.norm_eps)
        self.feedforward = VisionFeedForward(tower)

    def forward(self, x: Tensor, turn: Turn | None) -> Tensor:
        """x [N, P, W] -> [N, P, W]."""
        return self.fed(self.attended(x, turn))

    def attended(self, x: Tensor, turn: Turn | None) -> Tensor:
        """The first half of a block: attention, with its normalization and residual connection."""
        norm, attention = self.attention_norm, self.attention
        added: Tensor = attention(norm(x), turn) if self.before else norm(attention(x, turn))
        return x + added

    def fed(self, x: Tensor) -> Tensor:
        """The second half: the feed-forward network, with its normalization and residual connection."""
        norm, feedforward = self.feedforward_norm, self.feedforward
        added: Tensor = feedforward(norm(x)) if self.before else norm(feedforward(x))
        return x + added


class Tower(nn.Module):
    """The tower of a VisionTower, with random weights."""

    def __init__(self, tower: VisionTower) -> None:
        super().__init__()
        self.value = tower
        self.patch_embedding = nn.Linear(CHANNELS * tower.patch_size**2, tower.width)
        self.position = (
            nn.Parameter(torch.empty(tower.positions, tower.positions, tower.width))
            if tower.position_bias
            else None
        )
        self.blocks = nn.ModuleList(VisionBlock(tower, norm) for norm in tower.norms)
        self.norm = build_norm(tower.final_norm, tower.width, tower.norm_eps)
        self._initialize()

    def _initialize(self) -> None:
        """Draws matrices as a language model does: smaller where they write the residual stream."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                shrink = 2 * self.value.depth if name.endswith(("o_proj", "down_proj")) else 1
                nn.init.normal_(module.weight, std=(3 * module.weight.shape[1] * shrink) ** -0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.position is not None:
            nn.init.normal_(self.position, std=self.value.width**-0.5)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels [N, 3, height, width] -> patches [N, rows, columns, W].

        Raises DataError for an image that is larger than the tower's, or that patches do not divide.
        """
        rows, columns = self._grid(pixels)
        x = self.patch_embedding(self._patches(pixels.to(self.patch_embedding.weight.dtype), rows, columns))
        if self.position is not None:
            x = x + _resized(self.position, rows, columns)
        x, turn = x.flatten(1, 2), self.turn(rows, columns, pixels.device)
        for block in self.blocks:
            x = block(x, turn)
        out: Tensor = self.norm(x).unflatten(1, (rows, columns))
        return out

    def _grid(self, pixels: Tensor) -> tuple[int, int]:
        """Rows and columns of patches. Raises DataError."""
        if pixels.ndim != 4 or pixels.shape[1] != CHANNELS:
            raise DataError(
                f"images: expected the shape [N, {CHANNELS}, height, width], got {[*pixels.shape]}"
            )
        height, width, patch, most = *pixels.shape[2:], self.value.patch_size, self.value.image_size
        if max(height, width) > most:
            raise DataError(
                f"image of {width}×{height} pixels: expected at most {most}×{most}, the tower's image_size"
            )
        if height % patch or width % patch or not height or not width:
            raise DataError(
                f"image of {width}×{height} pixels: expected sides that are multiples of patch_size, {patch}"
            )
        return height // patch, width // patch

    def _patches(self, pixels: Tensor, rows: int, columns: int) -> Tensor:
        """pixels -> [N, rows, columns, 3 · patch²]: all red values of a patch, then green, then blue."""
        size = self.value.patch_size
        split = pixels.reshape(pixels.shape[0], CHANNELS, rows, size, columns, size)
        return split.permute(0, 2, 4, 1, 3, 5).flatten(3)

    def turn(self, rows: int, columns: int, device: torch.device) -> Turn | None:
        """By what each patch's queries and keys are rotated, rows first; None for nothing."""
        if self.value.rope_theta is None:
            return None
        each = frequencies(self.value.rope_theta, None, self.value.head_dim // 4, device)
        row, column = (
            torch.arange(count, device=device).float()[:, None] * each for count in (rows, columns)
        )
        both = [row[:, None].expand(-1, columns, -1), column[None].expand(rows, -1, -1)]
        return turn_by(torch.cat(both, -1).flatten(0, 1)[None])


def _resized(position: Tensor, rows: int, columns: int) -> Tensor:
    """Position vectors [G, G, W] for another grid [rows, columns, W]."""
    if position.shape[:2] == (rows, columns):
        return position
    square = position.permute(2, 0, 1)[None].float()  # antialiasing on a CPU takes no bfloat16
    resized = F.interpolate(square, size=(rows, columns), mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).to(position.dtype)

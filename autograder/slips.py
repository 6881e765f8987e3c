"""Ways to get a pre-norm block wrong: what the misconceptions of chapters 6 and 7 share.

These are near-answers. Import them inside of what is left out wherever learner code runs, never at
the top of a module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workbook.ready.multi_head import MultiHeadAttention

Slip = tuple[str, type[nn.Module], str]  # sentence, implementation, next step


class Always(nn.Module):
    """Dropout in evaluation mode, too."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.rate)


def nothing(rate: float) -> nn.Module:
    """No dropout."""
    return nn.Identity()


def plain(self: Any, query: Tensor, keys: Tensor | None = None) -> Tensor:
    """What the attention of a block gives, before dropout."""
    keys = query if keys is None else keys
    return self.self_attn(query, keys, keys, self.mask(query.size(self.axis)))[0]


def attend(self: Any, query: Tensor, keys: Tensor | None = None) -> Tensor:
    """What the first sublayer of a block gives."""
    return self.drop1(plain(self, query, keys))


def transform(self: Any, x: Tensor) -> Tensor:
    """What the second sublayer of a block gives."""
    return self.drop2(self.w_2(self.hidden(self.bend(self.w_1(x)))))


def block(
    first: Callable[..., Tensor] = lambda self, x: x + attend(self, self.norm1(x)),
    second: Callable[..., Tensor] = lambda self, x, y: y + transform(self, self.norm2(y)),
    *,
    mask: Callable[[int], Tensor | None] = lambda length: None,
    axis: int = 1,
    bend: Callable[[Tensor], Tensor] = F.gelu,
    drop: tuple[Callable[[float], nn.Module], ...] = (nn.Dropout, nn.Dropout),
    hidden: Callable[[float], nn.Module] = nothing,
    inside: float = 1,
    heads: Callable[[int], int] = lambda num_heads: num_heads,
    width: Callable[[int, int], int] = lambda d_model, d_ff: d_ff,
    norm: Callable[[int], nn.Module] = lambda d_model: nn.LayerNorm(d_model, eps=1e-6),
    change: Callable[[Any, int], Any] = lambda self, d_model: None,
) -> type[nn.Module]:
    """Chapter 7's block, each part of which can be another one.

    ``first(self, x)`` gives the sum after the attention, ``second(self, x, y)`` the block's output
    from its input and that sum; ``change(self, d_model)`` comes last in the constructor.
    """

    class Block(nn.Module):
        def __init__(self, d_model: int, num_heads: int, d_ff: int, dropout: float = 0.0) -> None:
            super().__init__()
            self.self_attn = MultiHeadAttention(d_model, heads(num_heads), inside * dropout)
            self.norm1, self.norm2 = norm(d_model), norm(d_model)
            self.w_1 = nn.Linear(d_model, width(d_model, d_ff))
            self.w_2 = nn.Linear(width(d_model, d_ff), d_model)
            self.drop1, self.drop2 = drop[0](dropout), drop[1](dropout)
            self.hidden, self.bend = hidden(dropout), bend
            self.mask, self.axis = mask, axis
            change(self, d_model)

        def forward(self, x: Tensor) -> Tensor:
            return second(self, x, first(self, x))

    return Block


def of_pre_norm(block: Callable[..., type[nn.Module]], model: str, call: str) -> Iterator[Slip]:
    """What can go wrong in any pre-norm block, with its sentence and next step.

    ``block(...)`` is the one above, or one that fills in other parts; ``model`` has such blocks;
    ``call`` is how they call their attention, "self_attn(n, n, n)".
    """
    pre = "x = x + dropout(sublayer(norm(x))), for both sublayers."
    network = "x + dropout(w_2(gelu(w_1(norm2(x)))))"

    # The norms.

    yield (
        f"This is post-norm: the sum is normalized, as in 2017. {model} normalizes what goes into "
        "each sublayer, and leaves the sum as it is.",
        block(
            lambda self, x: self.norm1(x + attend(self, x)),
            lambda self, x, y: self.norm2(y + transform(self, y)),
        ),
        pre,
    )
    yield (
        "What a sublayer gives is normalized; what goes into it must be.",
        block(
            lambda self, x: x + self.norm1(attend(self, x)),
            lambda self, x, y: y + self.norm2(transform(self, y)),
        ),
        pre,
    )
    yield (
        "norm1 is missing: the attention gets x as it is.",
        block(lambda self, x: x + attend(self, x)),
        "Normalize first: n = self.norm1(x), and attend with n.",
    )
    yield (
        "norm2 is missing: the network gets its input as it is.",
        block(second=lambda self, x, y: y + transform(self, y)),
        f"{network}.",
    )

    def normal_first(self: Any, x: Tensor) -> Tensor:
        x = self.norm1(x)
        return x + attend(self, x)

    def normal_second(self: Any, x: Tensor, y: Tensor) -> Tensor:
        y = self.norm2(y)
        return y + transform(self, y)

    for parts in (
        {"first": normal_first},
        {"second": normal_second},
        {"first": normal_first, "second": normal_second},
    ):
        yield (
            "The normalized x is added, not x itself: a norm stands on the residual path.",
            block(**parts),
            "Give the normalized x a name of its own, n = self.norm1(x), and add to x.",
        )
    yield (
        "norm1 is used for both sublayers, and norm2 never.",
        block(second=lambda self, x, y: y + transform(self, self.norm1(y))),
        "Use self.norm2 before the network.",
    )
    yield (
        "One norm serves both sublayers; each has a norm with parameters of its own.",
        block(change=lambda self, d_model: setattr(self, "norm2", self.norm1)),
        "Create two: self.norm1 and self.norm2.",
    )
    yield (
        "Only the queries are normalized; keys and values are taken from x as it is.",
        block(lambda self, x: x + attend(self, self.norm1(x), x)),
        f"n = self.norm1(x), then self.{call}.",
    )
    yield (
        f"The output is normalized once more; the last norm of {model} stands after all blocks.",
        block(
            second=lambda self, x, y: F.layer_norm(y + transform(self, self.norm2(y)), x.shape[-1:])
        ),
        "Return the sum as it is.",
    )

    # The flow.

    yield (
        "The first residual connection is missing: x is not added to what the attention gives.",
        block(lambda self, x: attend(self, self.norm1(x))),
        f"x = x + dropout({call}[0]).",
    )
    yield (
        "The second residual connection is missing: x is not added to what the network gives.",
        block(second=lambda self, x, y: transform(self, self.norm2(y))),
        f"Return {network}.",
    )
    yield (
        "Attention and network work side by side on the same x; the network must get the sum of x "
        "and what the attention gave.",
        block(second=lambda self, x, y: y + transform(self, self.norm2(x))),
        "Write x = x + ... first, then use that x twice: x + w_2(gelu(w_1(norm2(x)))).",
    )
    yield (
        "The second residual is taken from the block's input, and what the attention gave is lost "
        "from the sum.",
        block(second=lambda self, x, y: x + transform(self, self.norm2(y))),
        "Write x = x + ... first, then use that x twice: x + w_2(gelu(w_1(norm2(x)))).",
    )

    def in_place(self: Any, x: Tensor) -> Tensor:
        read = attend(self, self.norm1(x))
        x.data += read.data
        return x

    yield (
        "The residual is added in place, which changes the caller's x.",
        block(in_place),
        "Write x = x + ..., not x += ....",
    )

    # The parts.

    def without_bias(*names: str) -> Callable[[Any, int], None]:
        def change(self: Any, d_model: int) -> None:
            for name, module in list(self.named_modules()):
                if isinstance(module, nn.Linear | nn.LayerNorm) and name.startswith(names):
                    module.bias = None

        return change

    for names in (
        ("w_1", "w_2"),
        ("self_attn", "w_1", "w_2"),
        ("self_attn", "w_1", "w_2", "norm"),
    ):
        yield (
            f"Biases are missing; {model}'s layers and norms all have one.",
            block(change=without_bias(*names)),
            "Leave bias=True, the default of nn.Linear and nn.LayerNorm.",
        )

    def torch_attention(self: Any, d_model: int) -> None:
        self.self_attn = nn.MultiheadAttention(d_model, 2, batch_first=True)

    yield (
        "self_attn is PyTorch's nn.MultiheadAttention, whose parameters have other names.",
        block(lambda self, x: x + self.self_attn(*[self.norm1(x)] * 3)[0], change=torch_attention),
        "Use the MultiHeadAttention of chapter 2: self.self_attn = MultiHeadAttention(d_model, "
        "num_heads, dropout).",
    )
    yield (
        "num_heads is not passed on to the attention.",
        block(heads=lambda num_heads: 1),
        "MultiHeadAttention(d_model, num_heads, dropout).",
    )

    # Dropout.

    for drop, where in (
        ((nothing, nn.Dropout), "what the attention gives"),
        ((nn.Dropout, nothing), "what the network gives"),
        ((nothing, nothing), "what either sublayer gives"),
    ):
        yield f"There is no dropout on {where}, before x is added.", block(drop=drop), pre
    yield (
        "There is no dropout at all.",
        block(drop=(nothing, nothing), inside=0),
        "x + dropout(sublayer(norm(x))), and the rate goes to self_attn too.",
    )
    yield (
        "The dropout rate is not passed on to the attention.",
        block(inside=0),
        "MultiHeadAttention(d_model, num_heads, dropout).",
    )
    yield (
        "Hidden numbers are dropped too, between w_1 and w_2; only what w_2 gives is dropped here.",
        block(hidden=nn.Dropout),
        f"{network}, with one dropout.",
    )
    for drop in ((Always, Always), (Always, nn.Dropout), (nn.Dropout, Always)):
        yield (
            "Dropout acts in evaluation mode too.",
            block(drop=drop),
            "Use nn.Dropout, or F.dropout with training=self.training.",
        )
    yield (
        "Dropout acts on x itself; it belongs on what the sublayer gives, before x is added.",
        block(
            lambda self, x: self.drop1(x + plain(self, self.norm1(x))),
            lambda self, x, y: self.drop2(y + self.w_2(self.bend(self.w_1(self.norm2(y))))),
        ),
        pre,
    )
    yield (
        "Dropout acts on the normalized x, before the sublayer; it belongs on what the sublayer "
        "gives.",
        block(
            lambda self, x: x + plain(self, self.drop1(self.norm1(x))),
            lambda self, x, y: y + self.w_2(self.bend(self.w_1(self.drop2(self.norm2(y))))),
        ),
        pre,
    )


def quick_gelu(z: Tensor) -> Tensor:
    """An approximation of the GELU, with a sigmoid."""
    return z * torch.sigmoid(1.702 * z)

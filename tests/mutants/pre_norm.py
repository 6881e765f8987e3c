"""Wrong pre-norm blocks that the mutants of chapters 6 and 7 share."""

import math

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__()
        self.w_q, self.w_k, self.w_v, self.w_o = (nn.Linear(d_model, d_model) for _ in range(4))
        self.heads, self.dropout = num_heads, nn.Dropout(dropout)

    def scale(self, q):
        return math.sqrt(q.size(-1))

    def forward(self, query, key, value, mask=None):
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.w_q, query), (self.w_k, key), (self.w_v, value))
        )
        scores = q @ k.mT / self.scale(q)
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf)
        return self.w_o((self.dropout(scores.softmax(-1)) @ v).transpose(1, 2).flatten(2))


class AttentionWithoutTheRoot(Attention):
    def scale(self, q):
        return 1.0


class AttentionOverTheWidth(Attention):
    def scale(self, q):
        return math.sqrt(q.size(-1) * self.heads)


class Block(nn.Module):
    """Chapter 7's block, right, but for what is done to one of its parts."""

    attention = Attention
    eps = 1e-6

    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(d_model, eps=self.eps) for _ in range(2))
        self.self_attn = self.attention(d_model, num_heads, dropout)
        self.w_1, self.w_2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.dropout = nn.Dropout(dropout)

    def mask(self, x):
        return None

    def read(self, y):
        return self.dropout(self.self_attn(y, y, y, self.mask(y)))

    def bend(self, z):
        return F.gelu(z)

    def network(self, y):
        return self.dropout(self.w_2(self.bend(self.w_1(y))))

    def forward(self, x):
        x = x + self.read(self.norm1(x))
        return x + self.network(self.norm2(x))


# What is wrong with a block, whichever chapter's it is: of() puts each before one.


class BlockPostNorm:
    def forward(self, x):
        x = self.norm1(x + self.read(x))
        return self.norm2(x + self.network(x))


class BlockAddingTheNormalized:
    def forward(self, x):
        x = self.norm1(x)
        x = x + self.read(x)
        x = self.norm2(x)
        return x + self.network(x)


class BlockAddingTheNormalizedLate:
    def forward(self, x):
        x = x + self.read(self.norm1(x))
        y = self.norm2(x)
        return y + self.network(y)


class BlockNormalizingTheSublayersOutput:
    def forward(self, x):
        x = x + self.norm1(self.read(x))
        return x + self.norm2(self.network(x))


class BlockHalfPostNorm:
    def forward(self, x):
        x = x + self.read(self.norm1(x))
        return self.norm2(x + self.network(x))


class BlockInParallel:
    def forward(self, x):
        return x + self.read(self.norm1(x)) + self.network(self.norm2(x))


class BlockWithNormsSwapped:
    def forward(self, x):
        x = x + self.read(self.norm2(x))
        return x + self.network(self.norm1(x))


class BlockWithOneNorm:
    def forward(self, x):
        x = x + self.read(self.norm1(x))
        return x + self.network(self.norm1(x))


class BlockWithoutTheSecondNorm:
    def forward(self, x):
        x = x + self.read(self.norm1(x))
        return x + self.network(x)


class BlockWithoutTheFirstResidual:
    def forward(self, x):
        x = self.read(self.norm1(x))
        return x + self.network(self.norm2(x))


class BlockWithoutTheSecondResidual:
    def forward(self, x):
        x = x + self.read(self.norm1(x))
        return self.network(self.norm2(x))


class BlockAddingTheInputTwice:
    def forward(self, x):
        y = x + self.read(self.norm1(x))
        return x + self.network(self.norm2(y))


class BlockDetachingTheResidual:
    def forward(self, x):
        x = x.detach() + self.read(self.norm1(x))
        return x + self.network(self.norm2(x))


class BlockDetachingWhatIsNormalized:
    def forward(self, x):
        x = x + self.read(self.norm1(x))
        return x + self.network(self.norm2(x.detach()))


class BlockInPlace:
    def forward(self, x):
        x.data += self.read(self.norm1(x))
        return x + self.network(self.norm2(x))


class BlockWithRelu:
    def bend(self, z):
        return F.relu(z)


class BlockWithSilu:
    def bend(self, z):
        return F.silu(z)


class BlockWithQuickGelu:
    def bend(self, z):
        return z * torch.sigmoid(1.702 * z)


class BlockBendingTwice:
    def network(self, y):
        return self.bend(super().network(y))


class BlockOnUnscaledAttention:
    attention = AttentionWithoutTheRoot


class BlockScaledByTheWidth:
    attention = AttentionOverTheWidth


class BlockDroppingTheHiddenLayer:
    def network(self, y):
        return self.w_2(self.dropout(self.bend(self.w_1(y))))


class BlockReturningTwo:
    def forward(self, x):
        return super().forward(x), None


class BlockInFloat32:
    def bend(self, z):
        return super().bend(z.float()).to(z.dtype)


class BlockReturningFloat32:
    def forward(self, x):
        return super().forward(x).float()


class BlockSqueezed:
    def forward(self, x):
        return super().forward(x).squeeze(0)


class BlockOfTheFirstSequence:
    def read(self, y):
        return super().read(y[:1].expand_as(y))


class BlockWithLengthFirst:
    def forward(self, x):
        return super().forward(x.transpose(0, 1)).transpose(0, 1)


SLIPS = (
    BlockPostNorm,
    BlockAddingTheNormalized,
    BlockAddingTheNormalizedLate,
    BlockNormalizingTheSublayersOutput,
    BlockHalfPostNorm,
    BlockInParallel,
    BlockWithNormsSwapped,
    BlockWithOneNorm,
    BlockWithoutTheSecondNorm,
    BlockWithoutTheFirstResidual,
    BlockWithoutTheSecondResidual,
    BlockAddingTheInputTwice,
    BlockDetachingTheResidual,
    BlockDetachingWhatIsNormalized,
    BlockInPlace,
    BlockWithRelu,
    BlockWithSilu,
    BlockWithQuickGelu,
    BlockBendingTwice,
    BlockOnUnscaledAttention,
    BlockScaledByTheWidth,
    BlockDroppingTheHiddenLayer,
    BlockReturningTwo,
    BlockInFloat32,
    BlockReturningFloat32,
    BlockSqueezed,
    BlockOfTheFirstSequence,
    BlockWithLengthFirst,
)


def of(block):
    """Name -> the block with that slip."""
    return {slip.__name__: type(slip.__name__, (slip, block), {}) for slip in SLIPS}

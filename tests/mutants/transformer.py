"""Subtle ways to get chapter 4 wrong, and which of them a verdict names.

A name that does not fit misleads: what is not in NAMED must be given none.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

# ---- layer normalization -------------------------------------------------------------------


class Norm(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))
        self.eps = eps

    def normal(self, x):
        centered = x - x.mean(dim=-1, keepdim=True)
        return centered / torch.sqrt(centered.square().mean(dim=-1, keepdim=True) + self.eps)

    def forward(self, x):
        return self.weight * self.normal(x) + self.bias


class NormBuiltIn(Norm):
    def forward(self, x):
        return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)


class NormOfTheKernel(Norm):
    def forward(self, x):
        call = torch.ops.aten.native_layer_norm
        return call(x, x.shape[-1:], self.weight, self.bias, self.eps)[0]


class NormAsOneGroup(Norm):
    def normal(self, x):
        return F.group_norm(x.reshape(-1, x.size(-1)), 1, eps=self.eps).view(x.shape)


class NormAsABatch(Norm):
    def normal(self, x):
        rows = x.reshape(-1, x.size(-1)).T
        return F.batch_norm(rows, None, None, training=True, eps=self.eps).T.view(x.shape)


class NormAsAnInstance(Norm):
    def normal(self, x):
        return F.instance_norm(x.reshape(1, -1, x.size(-1)), eps=self.eps).view(x.shape)


class NormAsCenteredRms(Norm):
    def normal(self, x):
        return F.rms_norm(x - x.mean(-1, keepdim=True), x.shape[-1:], eps=self.eps)


class NormInside(nn.LayerNorm):
    pass


class NormInFloat32(Norm):
    def normal(self, x):
        return super().normal(x.float()).to(x.dtype)


class NormReturningFloat32(Norm):
    def forward(self, x):
        return super().forward(x.float()).float()


class NormOfThreeAxes(Norm):
    def normal(self, x):
        centered = x - x.mean(dim=2, keepdim=True)
        return centered / torch.sqrt(centered.square().mean(dim=2, keepdim=True) + self.eps)


class NormWithAFloor(Norm):
    def normal(self, x):
        centered = x - x.mean(dim=-1, keepdim=True)
        return centered / torch.sqrt(centered.square().mean(-1, keepdim=True).clamp(min=self.eps))


class NormWithOtherNames(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.gamma, self.beta = (
            nn.Parameter(torch.ones(d_model)),
            nn.Parameter(torch.zeros(d_model)),
        )
        self.eps = eps

    def forward(self, x):
        return self.gamma * Norm.normal(self, x) + self.beta


class NormOfBuffers(Norm):
    def __init__(self, d_model, eps=1e-5):
        super().__init__(d_model, eps)
        del self.weight
        self.register_buffer("weight", torch.ones(d_model))


class NormFrozen(Norm):
    def __init__(self, d_model, eps=1e-5):
        super().__init__(d_model, eps)
        self.weight.requires_grad_(False)


class NormWithAnotherDefault(Norm):
    def __init__(self, d_model, eps=1e-6):
        super().__init__(d_model, eps)


class NormThatRemembers(Norm):
    known = None

    def forward(self, x):
        if self.known is None or self.known.shape != x.shape:
            self.known = super().forward(x)
        return self.known


class NormByNumpy(Norm):
    def normal(self, x):
        return torch.from_numpy(super().normal(x).detach().float().numpy()).to(x.dtype)


class NormByAnnotatedStandardDeviation(Norm):
    def normal(self, x):
        return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + self.eps)


class NormOfTheSumOfSquares(Norm):
    def normal(self, x):
        centered = x - x.mean(dim=-1, keepdim=True)
        return centered / torch.sqrt(centered.square().sum(-1, keepdim=True) + self.eps)


class NormByMeanDeviation(Norm):
    def normal(self, x):
        centered = x - x.mean(dim=-1, keepdim=True)
        return centered / (centered.abs().mean(dim=-1, keepdim=True) + self.eps)


class NormByMedian(Norm):
    def normal(self, x):
        centered = x - x.median(dim=-1, keepdim=True).values
        return centered / torch.sqrt(centered.square().mean(dim=-1, keepdim=True) + self.eps)


class NormWithOneWeight(Norm):
    def forward(self, x):
        return self.weight.mean() * self.normal(x) + self.bias


class NormByView(Norm):
    def normal(self, x):
        return super().normal(x.view(-1, x.size(-1))).view(x.shape)


class NormOfWholeSequences(Norm):
    def forward(self, x):
        mean, variance = x.mean((-2, -1), keepdim=True), x.var((-2, -1), keepdim=True, correction=0)
        return (x - mean) / torch.sqrt(variance + self.eps) * self.weight + self.bias


class NormSubtractingSquares(Norm):
    def normal(self, x):
        mean, squares = x.mean(-1, keepdim=True), x.pow(2).mean(-1, keepdim=True)
        return (x - mean) * torch.rsqrt((squares - mean.pow(2)).abs() + self.eps)


class NormDetachingTheRoot(Norm):
    def normal(self, x):
        centered = x - x.mean(dim=-1, keepdim=True)
        root = torch.sqrt(centered.square().mean(dim=-1, keepdim=True) + self.eps)
        return centered / root.data


# ---- feed-forward network ------------------------------------------------------------------


class Network(nn.Module):
    def __init__(self, d_model, d_ff, dropout=0.0):
        super().__init__()
        self.w_1, self.w_2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.dropout = nn.Dropout(dropout)

    def hidden(self, x):
        return torch.relu(self.w_1(x))

    def forward(self, x):
        return self.w_2(self.dropout(self.hidden(x)))


class NetworkSwapped(nn.Module):
    def __init__(self, d_model, d_ff, dropout=0.0):
        super().__init__()
        self.w_2, self.w_1 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)

    def forward(self, x):
        return self.w_1(torch.relu(self.w_2(x)))


class NetworkWithOtherNames(nn.Module):
    def __init__(self, d_model, d_ff, dropout=0.0):
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)

    def forward(self, x):
        return self.linear2(torch.relu(self.linear1(x)))


class NetworkOfThree(Network):
    def __init__(self, d_model, d_ff, dropout=0.0):
        super().__init__(d_model, d_ff, dropout)
        self.w_3 = nn.Linear(d_ff, d_ff)

    def hidden(self, x):
        return torch.relu(self.w_3(super().hidden(x)))


class NetworkWithANormInside(Network):
    def hidden(self, x):
        return F.layer_norm(super().hidden(x), (self.w_1.out_features,))


class NetworkWithOneMatrix(Network):
    def forward(self, x):
        return F.linear(self.dropout(self.hidden(x)), self.w_1.weight.T, self.w_2.bias)


class NetworkGated(Network):
    def hidden(self, x):
        found = self.w_1(x)
        return torch.sigmoid(found) * torch.relu(found)


class NetworkMixingPositions(Network):
    def hidden(self, x):
        return super().hidden(x + 0.1 * x.roll(1, -2) if x.ndim > 1 else x)


class NetworkOfThreeAxes(Network):
    def hidden(self, x):
        return torch.relu(torch.einsum("bld,hd->blh", x, self.w_1.weight) + self.w_1.bias)


class NetworkSqueezed(Network):
    def forward(self, x):
        return super().forward(x).squeeze()


class NetworkDetachingTheHidden(Network):
    def hidden(self, x):
        return super().hidden(x).detach()


class NetworkInFloat32(Network):
    def hidden(self, x):
        return super().hidden(x).float().to(x.dtype)


class NetworkWithoutRescaling(Network):
    def forward(self, x):
        hidden = self.hidden(x)
        if self.training:
            hidden = hidden * (torch.rand_like(hidden) >= self.dropout.p)
        return self.w_2(hidden)


class NetworkKeepingTheRate(Network):
    def __init__(self, d_model, d_ff, dropout=0.0):
        super().__init__(d_model, d_ff, 1 - dropout if dropout else 0.0)


class NetworkWithAFixedRate(Network):
    def __init__(self, d_model, d_ff, dropout=0.0):
        super().__init__(d_model, d_ff, 0.1)


class NetworkDroppingWholeVectors(Network):
    def forward(self, x):
        hidden = self.hidden(x)
        kept = self.dropout(hidden.new_ones(()))
        return self.w_2(hidden * kept)


class NetworkWithTwoReluInTraining(Network):
    def forward(self, x):
        output = super().forward(x)
        return torch.relu(output) if self.training else output


class NetworkOfSoftRelu(Network):
    def hidden(self, x):
        return F.softplus(self.w_1(x), beta=20)


class NetworkAddingTheResidualInEvaluation(Network):
    def forward(self, x):
        return super().forward(x) + (0 if self.training else x)


class NetworkByView(Network):
    def forward(self, x):
        return super().forward(x.view(-1, x.size(-1))).view(x.shape)


class NetworkThatRemembers(Network):
    known = None

    def hidden(self, x):
        if self.known is None:
            self.known = super().hidden(x)
        return self.known


class NetworkOfTheMaximum(Network):
    def hidden(self, x):
        return torch.relu(self.w_1(x)) - torch.relu(-self.w_1(x)) * 0.01


# ---- attention -----------------------------------------------------------------------------


class Attention(nn.Module):
    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__()
        self.w_q, self.w_k, self.w_v, self.w_o = (nn.Linear(d_model, d_model) for _ in range(4))
        self.heads, self.dropout = num_heads, nn.Dropout(dropout)

    def forward(self, query, key, value, mask=None):
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.w_q, query), (self.w_k, key), (self.w_v, value))
        )
        scores = q @ k.mT / math.sqrt(q.size(-1))
        if mask is not None:
            mask = mask if mask.ndim == 2 else mask[:, None]
            scores = scores.masked_fill(~mask, -math.inf)
        weights = scores.softmax(-1)
        if mask is not None:
            weights = weights.masked_fill(~mask, 0.0)
        return self.w_o((self.dropout(weights) @ v).transpose(1, 2).flatten(2))


class AttentionOfTorch(Attention):
    """The built-in one, fed with the four layers' parameters."""

    def forward(self, query, key, value, mask=None):
        layers = (self.w_q, self.w_k, self.w_v)
        if mask is not None:
            shape = query.size(0), query.size(1), key.size(1)
            mask = ~mask.expand(shape).repeat_interleave(self.heads, 0)
        output, _ = F.multi_head_attention_forward(
            query.transpose(0, 1),
            key.transpose(0, 1),
            value.transpose(0, 1),
            query.size(-1),
            self.heads,
            torch.cat([layer.weight for layer in layers]),
            torch.cat([layer.bias for layer in layers]),
            None,
            None,
            False,
            self.dropout.p,
            self.w_o.weight,
            self.w_o.bias,
            training=self.training,
            attn_mask=mask,
            need_weights=False,
        )
        return output.transpose(0, 1)


class AttentionWithoutTheRoot(Attention):
    def forward(self, query, key, value, mask=None):
        return super().forward(query * math.sqrt(query.size(-1) / self.heads), key, value, mask)


class AttentionAveragingWhereNothingIsAllowed(Attention):
    def forward(self, query, key, value, mask=None):
        if mask is not None:
            mask = mask | ~mask.any(-1, keepdim=True)
        return super().forward(query, key, value, mask)


# ---- encoder layer -------------------------------------------------------------------------


class Encoder(nn.Module):
    attention = Attention

    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__()
        self.self_attn = self.attention(d_model, num_heads, dropout)
        self.feed_forward = Network(d_model, d_ff, dropout)
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, mask=None):
        x = self.norm1(x + self.dropout(self.self_attn(x, x, x, mask)))
        return self.norm2(x + self.dropout(self.feed_forward(x)))


class EncoderOnBuiltInAttention(Encoder):
    attention = AttentionOfTorch


class EncoderOfTorch(Encoder):
    """The built-in layer, fed with the parameters, in evaluation mode and in training."""

    def forward(self, x, mask=None):
        attention, network = self.self_attn, self.feed_forward
        layer = nn.TransformerEncoderLayer(
            x.size(-1), attention.heads, network.w_1.out_features, self.dropout.p, batch_first=True
        ).to(x.dtype)
        layers = (attention.w_q, attention.w_k, attention.w_v)
        with torch.no_grad():
            layer.self_attn.in_proj_weight.copy_(torch.cat([part.weight for part in layers]))
            layer.self_attn.in_proj_bias.copy_(torch.cat([part.bias for part in layers]))
        layer.self_attn.out_proj = attention.w_o
        layer.linear1, layer.linear2 = network.w_1, network.w_2
        layer.norm1, layer.norm2 = self.norm1, self.norm2
        if mask is not None:
            mask = ~mask.expand(len(x), x.size(1), x.size(1)).repeat_interleave(attention.heads, 0)
        return layer.train(self.training)(x, src_mask=mask)


class EncoderOfTheKernel(Encoder):
    def forward(self, x, mask=None):
        if mask is not None or (self.training and self.dropout.p):
            return super().forward(x, mask)
        attention, network = self.self_attn, self.feed_forward
        layers = (attention.w_q, attention.w_k, attention.w_v)
        with torch.no_grad():
            return torch._transformer_encoder_layer_fwd(
                x,
                x.size(-1),
                attention.heads,
                torch.cat([part.weight for part in layers]),
                torch.cat([part.bias for part in layers]),
                attention.w_o.weight,
                attention.w_o.bias,
                False,
                False,
                1e-5,
                self.norm1.weight,
                self.norm1.bias,
                self.norm2.weight,
                self.norm2.bias,
                network.w_1.weight,
                network.w_1.bias,
                network.w_2.weight,
                network.w_2.bias,
            )


class EncoderOnUnscaledAttention(Encoder):
    attention = AttentionWithoutTheRoot


class EncoderReturningTwo(Encoder):
    def forward(self, x, mask=None):
        return super().forward(x, mask), mask


class EncoderWithTheFirstMask(Encoder):
    def forward(self, x, mask=None):
        return super().forward(x, mask[:1] if mask is not None and mask.ndim == 3 else mask)


class EncoderTransposingTheMask(Encoder):
    def forward(self, x, mask=None):
        return super().forward(x, mask.mT if mask is not None and mask.size(-2) > 1 else mask)


class EncoderOfMasksOfThreeAxes(Encoder):
    def forward(self, x, mask=None):
        return super().forward(x, mask if mask is None or mask.ndim == 3 else None)


class EncoderSilencingBarredPositions(Encoder):
    def forward(self, x, mask=None):
        output = super().forward(x, mask)
        if mask is not None and mask.size(-2) == 1:
            output = output * mask.mT
        return output


class EncoderWithLengthFirst(Encoder):
    def forward(self, x, mask=None):
        return super().forward(x.transpose(0, 1), mask).transpose(0, 1)


class EncoderWithAFixedRate(Encoder):
    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, num_heads, d_ff, 0.1)


class EncoderDroppingTheInput(Encoder):
    def forward(self, x, mask=None):
        return super().forward(self.dropout(x), mask)


class EncoderWithHalfAResidual(Encoder):
    def forward(self, x, mask=None):
        x = self.norm1(0.5 * x + self.dropout(self.self_attn(x, x, x, mask)))
        return self.norm2(0.5 * x + self.dropout(self.feed_forward(x)))


class EncoderDetachingTheResidual(Encoder):
    def forward(self, x, mask=None):
        x = self.norm1(x.detach() + self.dropout(self.self_attn(x, x, x, mask)))
        return self.norm2(x + self.dropout(self.feed_forward(x)))


class EncoderOfBatchNorms(Encoder):
    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, num_heads, d_ff, dropout)
        self.norm1, self.norm2 = nn.BatchNorm1d(d_model), nn.BatchNorm1d(d_model)

    def forward(self, x, mask=None):
        x = self.norm1((x + self.dropout(self.self_attn(x, x, x, mask))).mT).mT
        return self.norm2((x + self.dropout(self.feed_forward(x))).mT).mT


class EncoderWithGelu(Encoder):
    def forward(self, x, mask=None):
        x = self.norm1(x + self.dropout(self.self_attn(x, x, x, mask)))
        return self.norm2(x + self.feed_forward.w_2(F.gelu(self.feed_forward.w_1(x))))


class EncoderWithMixedQueries(Encoder):
    def forward(self, x, mask=None):
        y = self.norm1(x)
        x = self.norm1(x + self.dropout(self.self_attn(y, x, x, mask)))
        return self.norm2(x + self.dropout(self.feed_forward(x)))


class EncoderSqueezed(Encoder):
    def forward(self, x, mask=None):
        return super().forward(x, mask).squeeze(0)


class EncoderWithAnExtraNorm(Encoder):
    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, num_heads, d_ff, dropout)
        self.norm3 = nn.LayerNorm(d_model)

    def forward(self, x, mask=None):
        return self.norm3(super().forward(x, mask))


class EncoderWithUnusedLayer(Encoder):
    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, num_heads, d_ff, dropout)
        self.unused = nn.Linear(d_model, d_model)


class EncoderInFloat32(Encoder):
    def forward(self, x, mask=None):
        x = self.norm1((x + self.dropout(self.self_attn(x, x, x, mask))).float().to(x.dtype))
        return self.norm2(x + self.dropout(self.feed_forward(x)))


class EncoderOpeningTheMaskInPlace(Encoder):
    def forward(self, x, mask=None):
        output = super().forward(x, mask)
        if mask is not None:
            mask |= True
        return output


class EncoderSecretlyCausal(Encoder):
    def forward(self, x, mask=None):
        if mask is None:
            mask = torch.ones(x.size(1), x.size(1), dtype=torch.bool).tril()
        return super().forward(x, mask)


class EncoderAddingFirst(Encoder):
    """Pre-norm by another road: the norm stands at the start of each sublayer."""

    def forward(self, x, mask=None):
        y = self.norm1(x)
        x = x + self.dropout(self.self_attn(y, y, y, mask))
        y = self.norm2(x)
        return x + self.dropout(self.feed_forward(y))


class EncoderDroppingInEvaluation(Encoder):
    def forward(self, x, mask=None):
        rate = self.dropout.p
        x = self.norm1(x + F.dropout(self.self_attn(x, x, x, mask), rate))
        return self.norm2(x + F.dropout(self.feed_forward(x), rate))


# ---- decoder layer -------------------------------------------------------------------------


class Decoder(nn.Module):
    attention = Attention

    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__()
        self.self_attn = self.attention(d_model, num_heads, dropout)
        self.multihead_attn = self.attention(d_model, num_heads, dropout)
        self.feed_forward = Network(d_model, d_ff, dropout)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(d_model) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def look(self, x, memory, memory_mask):
        return self.multihead_attn(x, memory, memory, memory_mask)

    def forward(self, x, memory, mask=None, memory_mask=None):
        x = self.norm1(x + self.dropout(self.self_attn(x, x, x, mask)))
        x = self.norm2(x + self.dropout(self.look(x, memory, memory_mask)))
        return self.norm3(x + self.dropout(self.feed_forward(x)))


class DecoderOnBuiltInAttention(Decoder):
    attention = AttentionOfTorch


class DecoderOfTorch(Decoder):
    def forward(self, x, memory, mask=None, memory_mask=None):
        heads = self.self_attn.heads
        layer = nn.TransformerDecoderLayer(
            x.size(-1), heads, self.feed_forward.w_1.out_features, self.dropout.p, batch_first=True
        ).to(x.dtype)
        for name in ("self_attn", "multihead_attn"):
            ours, theirs = getattr(self, name), getattr(layer, name)
            layers = (ours.w_q, ours.w_k, ours.w_v)
            with torch.no_grad():
                theirs.in_proj_weight.copy_(torch.cat([part.weight for part in layers]))
                theirs.in_proj_bias.copy_(torch.cat([part.bias for part in layers]))
            theirs.out_proj = ours.w_o
        layer.linear1, layer.linear2 = self.feed_forward.w_1, self.feed_forward.w_2
        layer.norm1, layer.norm2, layer.norm3 = self.norm1, self.norm2, self.norm3

        def barred(mask, keys):
            if mask is not None:
                mask = ~mask.expand(len(x), x.size(1), keys).repeat_interleave(heads, 0)
            return mask

        return layer.train(self.training)(
            x, memory, barred(mask, x.size(1)), barred(memory_mask, memory.size(1))
        )


class DecoderDetachingTheMemory(Decoder):
    def look(self, x, memory, memory_mask):
        return super().look(x, memory.detach(), memory_mask)


class DecoderOfOneMemory(Decoder):
    def look(self, x, memory, memory_mask):
        return super().look(x, memory[:1].expand_as(memory), memory_mask)


class DecoderCuttingTheMemory(Decoder):
    def look(self, x, memory, memory_mask):
        length = x.size(1)
        mask = memory_mask if memory_mask is None else memory_mask[..., :length]
        return super().look(x, memory[:, :length], mask)


class DecoderCausalTowardsTheMemory(Decoder):
    def look(self, x, memory, memory_mask):
        triangle = torch.ones(x.size(1), memory.size(1), dtype=torch.bool).tril()
        mask = triangle if memory_mask is None else memory_mask & triangle
        return super().look(x, memory, mask)


class DecoderReadingTheMemoryBackwards(Decoder):
    def look(self, x, memory, memory_mask):
        return super().look(x, memory.flip(1), memory_mask)


class DecoderOfMemoryMasksForAllQueries(Decoder):
    def look(self, x, memory, memory_mask):
        if memory_mask is not None and memory_mask.ndim == 3:
            memory_mask = memory_mask[:, :1]
        return super().look(x, memory, memory_mask)


class DecoderJoiningTheMasks(Decoder):
    def forward(self, x, memory, mask=None, memory_mask=None):
        if mask is not None and memory_mask is not None and memory.size(1) == x.size(1):
            mask = memory_mask = mask & memory_mask
        return super().forward(x, memory, mask, memory_mask)


class DecoderUsingMasksOnlyTogether(Decoder):
    def forward(self, x, memory, mask=None, memory_mask=None):
        if mask is None or memory_mask is None:
            mask = memory_mask = None
        return super().forward(x, memory, mask, memory_mask)


class DecoderReadingBothAtOnce(Decoder):
    def forward(self, x, memory, mask=None, memory_mask=None):
        read = self.self_attn(x, x, x, mask) + self.look(x, memory, memory_mask)
        x = self.norm2(self.norm1(x + self.dropout(read)))
        return self.norm3(x + self.dropout(self.feed_forward(x)))


class DecoderAddingTheMemory(Decoder):
    def look(self, x, memory, memory_mask):
        read = super().look(x, memory, memory_mask)
        return read + memory.mean(1, keepdim=True) * 0.1


class DecoderNormalizingTheMemoryForGood(Decoder):
    def look(self, x, memory, memory_mask):
        return super().look(x, F.layer_norm(memory, memory.shape[-1:]), memory_mask)


class DecoderWithoutTheLastNorm(Decoder):
    def forward(self, x, memory, mask=None, memory_mask=None):
        x = self.norm1(x + self.dropout(self.self_attn(x, x, x, mask)))
        x = self.norm2(x + self.dropout(self.look(x, memory, memory_mask)))
        return x + self.dropout(self.feed_forward(x))


class DecoderWithTwoNorms(Decoder):
    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, num_heads, d_ff, dropout)
        del self.norm3

    def forward(self, x, memory, mask=None, memory_mask=None):
        x = self.norm1(x + self.dropout(self.self_attn(x, x, x, mask)))
        x = x + self.dropout(self.look(x, memory, memory_mask))
        return self.norm2(x + self.dropout(self.feed_forward(x)))


class DecoderWithOtherNames(Decoder):
    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, num_heads, d_ff, dropout)
        self.cross_attn = self.multihead_attn
        del self.multihead_attn

    def look(self, x, memory, memory_mask):
        return self.cross_attn(x, memory, memory, memory_mask)


class DecoderWithMemoryFirst(Decoder):
    def forward(self, memory, x, mask=None, memory_mask=None):
        return super().forward(x, memory, mask, memory_mask)


class DecoderSqueezed(Decoder):
    def forward(self, x, memory, mask=None, memory_mask=None):
        return super().forward(x, memory, mask, memory_mask).squeeze()


class DecoderThatRemembersTheMemory(Decoder):
    known = None

    def look(self, x, memory, memory_mask):
        if self.known is None:
            self.known = memory
        return super().look(x, self.known, memory_mask)


class DecoderInPlaceOnTheMemory(Decoder):
    def look(self, x, memory, memory_mask):
        read = super().look(x, memory, memory_mask)
        memory.data.zero_()
        return read


class DecoderNeverDroppingInTheMiddle(Decoder):
    def forward(self, x, memory, mask=None, memory_mask=None):
        x = self.norm1(x + self.dropout(self.self_attn(x, x, x, mask)))
        x = self.norm2(x + self.look(x, memory, memory_mask))
        return self.norm3(x + self.dropout(self.feed_forward(x)))


class DecoderOfKeysOnly(Decoder):
    def look(self, x, memory, memory_mask):
        return self.multihead_attn(x, memory, x, memory_mask)


# ---- Transformer ---------------------------------------------------------------------------


class Model(nn.Module):
    encoder_layer, decoder_layer = Encoder, Decoder

    def __init__(
        self,
        vocab_size,
        d_model=512,
        num_heads=8,
        num_layers=6,
        d_ff=2048,
        dropout=0.1,
        pad_id=0,
    ):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, d_model)
        nn.init.normal_(self.embedding.weight, std=d_model**-0.5)
        sizes = d_model, num_heads, d_ff, dropout
        self.encoder = nn.ModuleList(self.encoder_layer(*sizes) for _ in range(num_layers))
        self.decoder = nn.ModuleList(self.decoder_layer(*sizes) for _ in range(num_layers))
        self.dropout = nn.Dropout(dropout)
        self.d_model, self.pad_id = d_model, pad_id
        self.further()

    def further(self):
        """What a subclass adds to __init__."""

    def table(self, length):
        column = torch.arange(0, self.d_model, 2, dtype=torch.float64)
        angle = torch.arange(length, dtype=torch.float64)[:, None] / 10000 ** (
            column / self.d_model
        )
        return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)

    def positions(self, ids):
        return self.table(ids.size(1)).to(self.embedding.weight)

    def embed(self, ids):
        return self.dropout(self.embedding(ids) * math.sqrt(self.d_model) + self.positions(ids))

    def words(self, ids):
        return (ids != self.pad_id)[:, None]

    def causal(self, length):
        return torch.ones(length, length, dtype=torch.bool).tril()

    def encode(self, source):
        x = self.embed(source)
        for layer in self.encoder:
            x = layer(x, self.words(source))
        return x

    def logits(self, x):
        return x @ self.embedding.weight.T

    def decode(self, target, memory, source):
        x, mask = self.embed(target), self.words(target) & self.causal(target.size(1))
        for layer in self.decoder:
            x = layer(x, memory, mask, self.words(source))
        return self.logits(x)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


class ModelOnBuiltInAttention(Model):
    decoder_layer = DecoderOnBuiltInAttention


class ModelOnBuiltInEncoderLayers(Model):
    encoder_layer = EncoderOfTorch


class ModelWithATableOf512(Model):
    def positions(self, ids):
        return self.table(512)[: ids.size(1)].to(self.embedding.weight)


class ModelWithATableOf5000(Model):
    def positions(self, ids):
        return self.table(5000)[: ids.size(1)].to(self.embedding.weight)


class ModelWithHalvesOfSinesAndCosines(Model):
    def table(self, length):
        pairs = super().table(length)
        return torch.cat([pairs[:, 0::2], pairs[:, 1::2]], dim=-1)


class ModelWithShorterWaves(Model):
    def table(self, length):
        column = torch.arange(0, self.d_model, 2)
        angle = torch.arange(length)[:, None] / 1000 ** (column / self.d_model)
        return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)


class ModelWithLearnedPositions(Model):
    def further(self):
        self.learned = nn.Parameter(torch.randn(6000, self.d_model))

    def positions(self, ids):
        return self.learned[: ids.size(1)]


class ModelCountingWordsAlone(Model):
    def positions(self, ids):
        places = (ids != self.pad_id).cumsum(1).sub(1).clamp(min=0)
        return super().positions(ids)[places]


class ModelWithTheLayersReversed(Model):
    def encode(self, source):
        x = self.embed(source)
        for layer in reversed(self.encoder):
            x = layer(x, self.words(source))
        return x


class ModelMaskingTheFirstLayerOnly(Model):
    def decode(self, target, memory, source):
        x, mask = self.embed(target), self.words(target) & self.causal(target.size(1))
        for layer in self.decoder:
            x = layer(x, memory, mask, self.words(source))
            mask = self.words(target)
        return self.logits(x)


class ModelDetachingTheMemory(Model):
    def forward(self, source, target):
        return self.decode(target, self.encode(source).detach(), source)


class ModelEncodingWithoutGradient(Model):
    @torch.no_grad()
    def encode(self, source):
        return super().encode(source)


class ModelWithACopyForTheOutput(Model):
    def logits(self, x):
        return x @ self.embedding.weight.detach().T


class ModelShiftingTheTarget(Model):
    def forward(self, source, target):
        return self.decode(target[:, :-1], self.encode(source), source)


class ModelShiftingInside(Model):
    def decode(self, target, memory, source):
        first = torch.ones_like(target[:, :1])
        return super().decode(torch.cat([first, target[:, :-1]], 1), memory, source)


class ModelThatForgetsItsMemory(Model):
    def encode(self, source):
        self.memory = super().encode(source)
        return self.memory

    def decode(self, target, memory, source):
        return super().decode(target, self.memory, source)


class ModelWithAnAveragedMemory(Model):
    def decode(self, target, memory, source):
        mean = memory.mean(1, keepdim=True).expand_as(memory)
        return super().decode(target, mean, source)


class ModelSilencingThePadding(Model):
    def logits(self, x):
        logits = super().logits(x)
        logits[..., self.pad_id] = -math.inf
        return logits


class ModelWithTheMaskOfTheFirstSource(Model):
    def words(self, ids):
        return super().words(ids)[:1]


class ModelThatRemembersItsMask(Model):
    known = None

    def words(self, ids):
        if self.known is None or self.known.shape != (len(ids), 1, ids.size(1)):
            self.known = super().words(ids)
        return self.known


class ModelBarringByCounting(Model):
    def words(self, ids):
        lengths = (ids != self.pad_id).sum(1)
        return (torch.arange(ids.size(1)) < lengths[:, None])[:, None]


class ModelBarringSmallIds(Model):
    def words(self, ids):
        return (ids > self.pad_id)[:, None]


class ModelWithAWindow(Model):
    def causal(self, length):
        return super().causal(length).triu(-2)


class ModelSeeingOneTooFar(Model):
    def causal(self, length):
        return torch.ones(length, length, dtype=torch.bool).tril(1)


class ModelWithNoMaskForShortTargets(Model):
    def causal(self, length):
        return super().causal(length) if length > 4 else torch.ones(length, length).bool()


class AveragingDecoder(Decoder):
    attention = AttentionAveragingWhereNothingIsAllowed


class ModelAveragingEmptySources(Model):
    decoder_layer = AveragingDecoder


class ModelOfFloat32Positions(Model):
    def positions(self, ids):
        return self.table(ids.size(1)).float()


class ModelInitializedByXavier(Model):
    def further(self):
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)


class ModelInitializedUniformly(Model):
    def further(self):
        bound = self.d_model**-0.5
        nn.init.uniform_(self.embedding.weight, -bound, bound)


class ModelWithOtherDefaults(Model):
    def __init__(
        self,
        vocab_size,
        d_model=512,
        num_heads=6,
        num_layers=8,
        d_ff=2048,
        dropout=0.1,
        pad_id=0,
    ):
        super().__init__(vocab_size, d_model, num_heads, num_layers, d_ff, dropout, pad_id)


class ModelWithoutEncode(Model):
    encode = None

    def forward(self, source, target):
        return self.decode(target, Model.encode(self, source), source)


class ModelWithOneMoreWord(Model):
    def __init__(self, vocab_size, *sizes):
        super().__init__(vocab_size + 1, *sizes)


class ModelOfPreNormLayers(Model):
    encoder_layer = EncoderAddingFirst


class ModelWithHeadsAndLayersSwapped(Model):
    def __init__(
        self,
        vocab_size,
        d_model=512,
        num_heads=8,
        num_layers=6,
        d_ff=2048,
        dropout=0.1,
        pad_id=0,
    ):
        super().__init__(vocab_size, d_model, num_layers or 1, num_heads, d_ff, dropout, pad_id)


class ModelDroppingTheEncodersInputOnly(Model):
    def decode(self, target, memory, source):
        rate, self.dropout.p = self.dropout.p, 0.0
        try:
            return super().decode(target, memory, source)
        finally:
            self.dropout.p = rate


class ModelClearingIdsInPlace(Model):
    def embed(self, ids):
        x = super().embed(ids)
        ids.clamp_(max=3)
        return x


class ModelWithMemoryOfTheFirstLayer(Model):
    def encode(self, source):
        return self.encoder[0](self.embed(source), self.words(source))


class ModelUnscaledAndWithoutPositions(Model):
    """Two mistakes, each of which shows everywhere."""

    def embed(self, ids):
        return self.dropout(self.embedding(ids))


class ModelWithTorchNorms(Model):
    """As nn.Transformer: a norm after each stack."""

    def encode(self, source):
        return F.layer_norm(super().encode(source), (self.d_model,))

    def logits(self, x):
        return super().logits(F.layer_norm(x, (self.d_model,)))


NAMED = {
    "NormWithAFloor": "kept from falling below eps",
    "NormWithAnotherDefault": "not the number that the exercise states",
    "NormByAnnotatedStandardDeviation": "divided by d_model - 1",
    "NormOfWholeSequences": "over the positions of a sequence too",
    "NormSubtractingSquares": "minus the square of the mean",
    "NormDetachingTheRoot": "variance is detached",
    "NetworkWithTwoReluInTraining": "two ReLUs",
    "NetworkOfTheMaximum": "none that the paper has",
    "EncoderSecretlyCausal": "No position reads a later one",
    "EncoderAddingFirst": "This is pre-norm",
    "EncoderDroppingInEvaluation": "in evaluation mode too",
    "DecoderWithoutTheLastNorm": "norm3 is missing",
    "DecoderNeverDroppingInTheMiddle": "no dropout on what the attention to the memory gives",
    "DecoderOfKeysOnly": "only the keys come from the memory",
    "ModelThatForgetsItsMemory": "does not use the memory that it is given",
    "ModelSeeingOneTooFar": "one position too far",
    "ModelWithNoMaskForShortTargets": "The causal mask is missing",
    "ModelDroppingTheEncodersInputOnly": "Only one of source and target has dropout",
    "ModelWithTorchNorms": "further norm stands at the end",
}

MUTANTS = {
    "transformer/LayerNorm": [
        NormBuiltIn,
        NormOfTheKernel,
        NormAsOneGroup,
        NormAsABatch,
        NormAsAnInstance,
        NormAsCenteredRms,
        NormInside,
        NormInFloat32,
        NormReturningFloat32,
        NormOfThreeAxes,
        NormWithAFloor,
        NormWithOtherNames,
        NormOfBuffers,
        NormFrozen,
        NormWithAnotherDefault,
        NormThatRemembers,
        NormByNumpy,
        NormByAnnotatedStandardDeviation,
        NormOfTheSumOfSquares,
        NormByMeanDeviation,
        NormByMedian,
        NormWithOneWeight,
        NormByView,
        NormOfWholeSequences,
        NormSubtractingSquares,
        NormDetachingTheRoot,
    ],
    "transformer/FeedForward": [
        NetworkSwapped,
        NetworkWithOtherNames,
        NetworkOfThree,
        NetworkWithANormInside,
        NetworkWithOneMatrix,
        NetworkGated,
        NetworkMixingPositions,
        NetworkOfThreeAxes,
        NetworkSqueezed,
        NetworkDetachingTheHidden,
        NetworkInFloat32,
        NetworkWithoutRescaling,
        NetworkKeepingTheRate,
        NetworkWithAFixedRate,
        NetworkDroppingWholeVectors,
        NetworkWithTwoReluInTraining,
        NetworkOfSoftRelu,
        NetworkAddingTheResidualInEvaluation,
        NetworkByView,
        NetworkThatRemembers,
        NetworkOfTheMaximum,
    ],
    "transformer/EncoderLayer": [
        EncoderOnBuiltInAttention,
        EncoderOfTorch,
        EncoderOfTheKernel,
        EncoderOnUnscaledAttention,
        EncoderReturningTwo,
        EncoderWithTheFirstMask,
        EncoderTransposingTheMask,
        EncoderOfMasksOfThreeAxes,
        EncoderSilencingBarredPositions,
        EncoderWithLengthFirst,
        EncoderWithAFixedRate,
        EncoderDroppingTheInput,
        EncoderWithHalfAResidual,
        EncoderDetachingTheResidual,
        EncoderOfBatchNorms,
        EncoderWithGelu,
        EncoderWithMixedQueries,
        EncoderSqueezed,
        EncoderWithAnExtraNorm,
        EncoderWithUnusedLayer,
        EncoderInFloat32,
        EncoderOpeningTheMaskInPlace,
        EncoderSecretlyCausal,
        EncoderAddingFirst,
        EncoderDroppingInEvaluation,
    ],
    "transformer/DecoderLayer": [
        DecoderOnBuiltInAttention,
        DecoderOfTorch,
        DecoderDetachingTheMemory,
        DecoderOfOneMemory,
        DecoderCuttingTheMemory,
        DecoderCausalTowardsTheMemory,
        DecoderReadingTheMemoryBackwards,
        DecoderOfMemoryMasksForAllQueries,
        DecoderJoiningTheMasks,
        DecoderUsingMasksOnlyTogether,
        DecoderReadingBothAtOnce,
        DecoderAddingTheMemory,
        DecoderNormalizingTheMemoryForGood,
        DecoderWithoutTheLastNorm,
        DecoderWithTwoNorms,
        DecoderWithOtherNames,
        DecoderWithMemoryFirst,
        DecoderSqueezed,
        DecoderThatRemembersTheMemory,
        DecoderInPlaceOnTheMemory,
        DecoderNeverDroppingInTheMiddle,
        DecoderOfKeysOnly,
    ],
    "transformer/Transformer": [
        ModelOnBuiltInAttention,
        ModelOnBuiltInEncoderLayers,
        ModelWithATableOf512,
        ModelWithATableOf5000,
        ModelWithHalvesOfSinesAndCosines,
        ModelWithShorterWaves,
        ModelWithLearnedPositions,
        ModelCountingWordsAlone,
        ModelWithTheLayersReversed,
        ModelMaskingTheFirstLayerOnly,
        ModelDetachingTheMemory,
        ModelEncodingWithoutGradient,
        ModelWithACopyForTheOutput,
        ModelShiftingTheTarget,
        ModelShiftingInside,
        ModelThatForgetsItsMemory,
        ModelWithAnAveragedMemory,
        ModelSilencingThePadding,
        ModelWithTheMaskOfTheFirstSource,
        ModelThatRemembersItsMask,
        ModelBarringByCounting,
        ModelBarringSmallIds,
        ModelWithAWindow,
        ModelSeeingOneTooFar,
        ModelWithNoMaskForShortTargets,
        ModelAveragingEmptySources,
        ModelOfFloat32Positions,
        ModelInitializedByXavier,
        ModelInitializedUniformly,
        ModelWithOtherDefaults,
        ModelWithoutEncode,
        ModelWithOneMoreWord,
        ModelOfPreNormLayers,
        ModelWithHeadsAndLayersSwapped,
        ModelDroppingTheEncodersInputOnly,
        ModelClearingIdsInPlace,
        ModelWithMemoryOfTheFirstLayer,
        ModelUnscaledAndWithoutPositions,
        ModelWithTorchNorms,
    ],
}


# ---- learning rate -------------------------------------------------------------------------


def noam(step, d_model, warmup_steps=4000):
    if step < 1:
        raise ValueError("step counts from 1")
    return d_model**-0.5 * min(step**-0.5, step * warmup_steps**-1.5)


def noam_as_a_tensor(step, d_model, warmup_steps=4000):
    return torch.tensor(noam(step, d_model, warmup_steps))


def noam_as_text(step, d_model, warmup_steps=4000):
    return f"{noam(step, d_model, warmup_steps):.3g}"


def noam_rounded(step, d_model, warmup_steps=4000):
    return round(noam(step, d_model, warmup_steps), 6)


def noam_of_short_warmup(step, d_model, warmup_steps=400):
    return noam(step, d_model, warmup_steps)


def noam_without_step_one(step, d_model, warmup_steps=4000):
    if step <= 1:
        raise ValueError("step must be larger than 1")
    return noam(step, d_model, warmup_steps)


def noam_with_one_power(step, d_model, warmup_steps=4000):
    if step < 1:
        raise ValueError("step counts from 1")
    return d_model**-0.5 * min(step**-0.5, (step * warmup_steps) ** -1.5)


def noam_doubled(step, d_model, warmup_steps=4000):
    return 2 * noam(step, d_model, warmup_steps)


def noam_falling_from_the_peak(step, d_model, warmup_steps=4000):
    if step <= warmup_steps:
        return noam(step, d_model, warmup_steps)
    return noam(warmup_steps, d_model, warmup_steps) * (1 + step - warmup_steps) ** -0.5


def noam_with_a_floor(step, d_model, warmup_steps=4000):
    return max(noam(step, d_model, warmup_steps), 1e-5)


def noam_by_whole_division(step, d_model, warmup_steps=4000):
    if step < 1:
        raise ValueError("step counts from 1")
    return d_model**-0.5 * min(step**-0.5, step // warmup_steps * warmup_steps**-0.5)


def noam_of_whole_steps(step, d_model, warmup_steps=4000):
    return noam(range(step + 1)[-1], d_model, warmup_steps)


def noam_asserting(step, d_model, warmup_steps=4000):
    assert step >= 1
    return noam(step, d_model, warmup_steps)


def noam_of_the_step_before(step, d_model, warmup_steps=4000):
    if step < 1:
        raise ValueError("step counts from 1")
    return noam(max(step - 1, 1), d_model, warmup_steps)


def noam_warm_from_the_start(step, d_model, warmup_steps=4000):
    if step < 1:
        raise ValueError("step counts from 1")
    return (d_model * max(step, warmup_steps)) ** -0.5


_FIRST_RATE = []


def noam_that_remembers(step, d_model, warmup_steps=4000):
    _FIRST_RATE.append(noam(step, d_model, warmup_steps))
    return _FIRST_RATE[0]


# ---- label smoothing -----------------------------------------------------------------------


def smoothed(logits, targets, smoothing=0.1, pad_id=0):
    log_p = torch.log_softmax(logits, dim=-1)
    own = log_p.gather(-1, targets[..., None])[..., 0]
    losses = -(1 - smoothing) * own - smoothing * log_p.mean(dim=-1)
    real = targets != pad_id
    return (losses * real).sum() / real.sum().clamp(min=1)


def smoothed_by_cross_entropy(logits, targets, smoothing=0.1, pad_id=0):
    return F.cross_entropy(
        logits.transpose(1, 2), targets, label_smoothing=smoothing, ignore_index=pad_id
    )


def smoothed_by_a_module(logits, targets, smoothing=0.1, pad_id=0):
    measure = nn.CrossEntropyLoss(label_smoothing=smoothing, ignore_index=pad_id)
    return measure(logits.flatten(0, 1), targets.flatten())


def smoothed_by_the_kernel(logits, targets, smoothing=0.1, pad_id=0):
    compute = torch._C._nn.cross_entropy_loss
    return compute(logits.flatten(0, 1), targets.flatten(), None, 1, pad_id, smoothing)


def smoothed_by_the_operator(logits, targets, smoothing=0.1, pad_id=0):
    compute = torch.ops.aten.cross_entropy_loss.default
    return compute(logits.flatten(0, 1), targets.flatten(), None, 1, pad_id, smoothing)


def smoothed_by_plain_cross_entropy(logits, targets, smoothing=0.1, pad_id=0):
    flat, wanted = logits.flatten(0, 1), targets.flatten()
    real = wanted != pad_id
    own = F.cross_entropy(flat, wanted, reduction="none")
    uniform = -flat.log_softmax(-1).mean(-1)
    losses = (1 - smoothing) * own + smoothing * uniform
    return losses[real].sum() / real.sum().clamp(min=1)


def smoothed_detached(logits, targets, smoothing=0.1, pad_id=0):
    return smoothed(logits.detach(), targets, smoothing, pad_id)


def smoothed_as_a_number(logits, targets, smoothing=0.1, pad_id=0):
    return smoothed(logits, targets, smoothing, pad_id).item()


def smoothed_with_a_detached_uniform_part(logits, targets, smoothing=0.1, pad_id=0):
    log_p = torch.log_softmax(logits, dim=-1)
    own = log_p.gather(-1, targets[..., None])[..., 0]
    losses = -(1 - smoothing) * own - smoothing * log_p.detach().mean(dim=-1)
    real = targets != pad_id
    return (losses * real).sum() / real.sum().clamp(min=1)


def smoothed_in_float32(logits, targets, smoothing=0.1, pad_id=0):
    return smoothed(logits.float(), targets, smoothing, pad_id).to(logits.dtype)


def smoothed_returning_float32(logits, targets, smoothing=0.1, pad_id=0):
    return smoothed(logits.float(), targets, smoothing, pad_id)


def smoothed_normalizing_in_place(logits, targets, smoothing=0.1, pad_id=0):
    logits -= logits.logsumexp(dim=-1, keepdim=True)
    return smoothed(logits, targets, smoothing, pad_id)


def smoothed_normalizing_unseen(logits, targets, smoothing=0.1, pad_id=0):
    with torch.no_grad():
        logits -= logits.amax(dim=-1, keepdim=True)
    return smoothed(logits, targets, smoothing, pad_id)


def smoothed_marking_padding_in_place(logits, targets, smoothing=0.1, pad_id=0):
    loss = smoothed(logits, targets, smoothing, pad_id)
    targets[targets == pad_id] = -100
    return loss


def smoothed_by_view(logits, targets, smoothing=0.1, pad_id=0):
    vocab = logits.size(-1)
    return smoothed(logits.view(1, -1, vocab), targets.view(1, -1), smoothing, pad_id)


def smoothed_squeezing(logits, targets, smoothing=0.1, pad_id=0):
    log_p = torch.log_softmax(logits, dim=-1)
    own = log_p.gather(-1, targets.unsqueeze(-1)).squeeze()
    losses = -(1 - smoothing) * own - smoothing * log_p.squeeze().mean(dim=-1)
    real = (targets != pad_id).squeeze()
    return sum(losses[i][real[i]].sum() for i in range(len(losses))) / real.sum().clamp(min=1)


def smoothed_with_epsilon(logits, targets, smoothing=0.1, pad_id=0):
    real = targets != pad_id
    return smoothed(logits, targets, smoothing, pad_id) * real.sum() / (real.sum() + 1e-3)


def smoothed_over_the_batch(logits, targets, smoothing=0.1, pad_id=0):
    rows = [
        smoothed(x[None], y[None], smoothing, pad_id) for x, y in zip(logits, targets, strict=True)
    ]
    return torch.stack(rows).sum()


def smoothed_per_sentence(logits, targets, smoothing=0.1, pad_id=0):
    rows = [
        smoothed(x[None], y[None], smoothing, pad_id) for x, y in zip(logits, targets, strict=True)
    ]
    return torch.stack(rows)


def smoothed_keeping_an_axis(logits, targets, smoothing=0.1, pad_id=0):
    return smoothed(logits, targets, smoothing, pad_id).reshape(1)


def smoothed_until_the_first_padding(logits, targets, smoothing=0.1, pad_id=0):
    length = int((targets != pad_id).all(dim=0).sum())
    return smoothed(logits[:, :length], targets[:, :length], smoothing, pad_id)


def smoothed_next_token(logits, targets, smoothing=0.1, pad_id=0):
    return smoothed(logits[:, :-1], targets[:, 1:], smoothing, pad_id)


def smoothed_with_the_padding_word_barred(logits, targets, smoothing=0.1, pad_id=0):
    barred = torch.zeros_like(logits)
    barred[..., pad_id] = -1e4
    return smoothed(logits + barred, targets, smoothing, pad_id)


def smoothed_by_other_words_and_padding(logits, targets, smoothing=0.1, pad_id=0):
    vocab = logits.size(-1)
    q = torch.full_like(logits, smoothing / (vocab - 2))
    q.scatter_(-1, targets[..., None], 1 - smoothing)
    q[..., pad_id] = 0
    q = q.masked_fill((targets == pad_id)[..., None], 0)
    loss = -(q * logits.log_softmax(-1)).sum()
    return loss / (targets != pad_id).sum().clamp(min=1)


def smoothed_by_binary_terms(logits, targets, smoothing=0.1, pad_id=0):
    q = F.one_hot(targets, logits.size(-1)).to(logits.dtype)
    q = (1 - smoothing) * q + smoothing / logits.size(-1)
    p = torch.softmax(logits, dim=-1)
    losses = -(q * p.log() + (1 - q) * (1 - p).log()).sum(dim=-1)
    real = targets != pad_id
    return (losses * real).sum() / real.sum().clamp(min=1)


def smoothed_squared(logits, targets, smoothing=0.1, pad_id=0):
    q = F.one_hot(targets, logits.size(-1)).to(logits.dtype)
    q = (1 - smoothing) * q + smoothing / logits.size(-1)
    losses = (q - torch.softmax(logits, dim=-1)).square().sum(dim=-1)
    real = targets != pad_id
    return (losses * real).sum() / real.sum().clamp(min=1)


def smoothed_dividing_empty_batches(logits, targets, smoothing=0.1, pad_id=0):
    real = targets != pad_id
    log_p = torch.log_softmax(logits, dim=-1)[real]
    own = log_p[torch.arange(len(log_p)), targets[real]]
    return torch.nanmean(-(1 - smoothing) * own - smoothing * log_p.mean(dim=-1))


# ---- greedy decoding -----------------------------------------------------------------------


@torch.no_grad()
def greedy(
    model,
    source,
    bos_id,
    eos_id,
    max_length,
    pad_id=0,
    read=lambda logits: logits[:, -1].argmax(dim=-1),
    feed=lambda target: target,
    grow=lambda target, token: torch.cat([target, token[:, None]], dim=1),
):
    """Right, but for what is done to one of its steps."""
    memory = model.encode(source)
    target = torch.full((source.size(0), 1), bos_id)
    ended = torch.zeros(source.size(0), dtype=torch.bool)
    for _ in range(max_length):
        token = read(model.decode(feed(target), memory, source)).masked_fill(ended, pad_id)
        target = grow(target, token)
        ended = ended | (token == eos_id)
        if ended.all():
            break
    return target[:, 1:]


def greedy_in_int32(model, source, bos_id, eos_id, max_length, pad_id=0):
    return greedy(model, source, bos_id, eos_id, max_length, pad_id).int()


def greedy_in_floats(model, source, bos_id, eos_id, max_length, pad_id=0):
    return greedy(model, source, bos_id, eos_id, max_length, pad_id).float()


def greedy_with_a_float_target(model, source, bos_id, eos_id, max_length, pad_id=0):
    memory = model.encode(source)
    target = torch.ones(source.size(0), 1) * bos_id
    return model.decode(target, memory, source)


def greedy_squeezed(model, source, bos_id, eos_id, max_length, pad_id=0):
    return greedy(model, source, bos_id, eos_id, max_length, pad_id).squeeze()


def greedy_as_lists(model, source, bos_id, eos_id, max_length, pad_id=0):
    return greedy(model, source, bos_id, eos_id, max_length, pad_id).tolist()


def greedy_as_ragged_lists(model, source, bos_id, eos_id, max_length, pad_id=0):
    ids = greedy(model, source, bos_id, eos_id, max_length, pad_id)
    return [row[row != pad_id] for row in ids]


def greedy_of_the_first(model, source, bos_id, eos_id, max_length, pad_id=0):
    return greedy(model, source[:1], bos_id, eos_id, max_length, pad_id)


def greedy_without_bos(model, source, bos_id, eos_id, max_length, pad_id=0):
    memory = model.encode(source)
    target = source[:, :0]
    for _ in range(max_length):
        token = model.decode(target, memory, source)[:, -1].argmax(dim=-1)
        target = torch.cat([target, token[:, None]], dim=1)
    return target


def greedy_from_the_source(model, source, bos_id, eos_id, max_length, pad_id=0):
    return greedy(
        model, source, bos_id, eos_id, max_length, pad_id, feed=lambda t: source[:, : t.size(1)]
    )


def greedy_with_the_source_as_memory(model, source, bos_id, eos_id, max_length, pad_id=0):
    target = torch.full((source.size(0), 1), bos_id)
    model.encode(source)
    return model.decode(target, source, source)


def greedy_with_arguments_turned(model, source, bos_id, eos_id, max_length, pad_id=0):
    memory = model.encode(source)
    target = torch.full((source.size(0), 1), bos_id)
    return model.decode(source, memory, target)[:, -1].argmax(dim=-1)


def greedy_with_one_target(model, source, bos_id, eos_id, max_length, pad_id=0):
    memory = model.encode(source)
    return model.decode(torch.tensor([[bos_id]]), memory, source).argmax(dim=-1)


def greedy_over_the_batch(model, source, bos_id, eos_id, max_length, pad_id=0):
    def read(logits):
        return logits[:, -1].argmax(dim=0)[: len(logits)]

    return greedy(model, source, bos_id, eos_id, max_length, pad_id, read)


def greedy_over_everything(model, source, bos_id, eos_id, max_length, pad_id=0):
    def read(logits):
        return logits[:, -1].argmax().expand(len(logits))

    return greedy(model, source, bos_id, eos_id, max_length, pad_id, read)


def greedy_in_one_step(model, source, bos_id, eos_id, max_length, pad_id=0):
    memory = model.encode(source)
    target = torch.full((source.size(0), max_length), bos_id)
    with torch.no_grad():
        return model.decode(target, memory, source).argmax(dim=-1)


def greedy_with_padding_in_front(model, source, bos_id, eos_id, max_length, pad_id=0):
    def feed(target):
        return F.pad(target, (max_length - target.size(1) + 1, 0), value=pad_id)

    return greedy(model, source, bos_id, eos_id, max_length, pad_id, feed=feed)


def greedy_growing_at_the_front(model, source, bos_id, eos_id, max_length, pad_id=0):
    def grow(target, token):
        return torch.cat([token[:, None], target], dim=1)

    return greedy(model, source, bos_id, eos_id, max_length, pad_id, grow=grow)


def greedy_that_never_repeats(model, source, bos_id, eos_id, max_length, pad_id=0):
    seen = []

    def read(logits):
        scores = logits[:, -1].clone()
        for token in seen:
            scores[torch.arange(len(token)), token] = -1e9
        seen.append(scores.argmax(dim=-1))
        return seen[-1]

    return greedy(model, source, bos_id, eos_id, max_length, pad_id, read)


def greedy_barring_padding(model, source, bos_id, eos_id, max_length, pad_id=0):
    def read(logits):
        scores = logits[:, -1].clone()
        scores[:, pad_id] = -1e9
        return scores.argmax(dim=-1)

    return greedy(model, source, bos_id, eos_id, max_length, pad_id, read)


def greedy_second_best(model, source, bos_id, eos_id, max_length, pad_id=0):
    def read(logits):
        return logits[:, -1].topk(2).indices[:, 1]

    return greedy(model, source, bos_id, eos_id, max_length, pad_id, read)


def greedy_ending_where_a_token_repeats(model, source, bos_id, eos_id, max_length, pad_id=0):
    ids = greedy(model, source, bos_id, eos_id, max_length, pad_id)
    return ids.masked_fill((ids == eos_id).cumsum(dim=1) > 1, pad_id)[:, : source.size(1)]


def greedy_padded_to_the_end(model, source, bos_id, eos_id, max_length, pad_id=0):
    ids = greedy(model, source, bos_id, eos_id, max_length, pad_id)
    return F.pad(ids, (0, max_length - ids.size(1)), value=pad_id)


def greedy_clearing_the_source(model, source, bos_id, eos_id, max_length, pad_id=0):
    ids = greedy(model, source, bos_id, eos_id, max_length, pad_id)
    source[:, -1] = eos_id
    return ids


def greedy_encoding_twice(model, source, bos_id, eos_id, max_length, pad_id=0):
    with torch.no_grad():
        model.encode(source)
    return greedy(model, source, bos_id, eos_id, max_length, pad_id)


def greedy_with_frozen_model(model, source, bos_id, eos_id, max_length, pad_id=0):
    return greedy.__wrapped__(
        model.requires_grad_(False), source, bos_id, eos_id, max_length, pad_id
    )


def greedy_one_step_late(model, source, bos_id, eos_id, max_length, pad_id=0):
    """Stops only when it would append padding to every sequence."""
    with torch.no_grad():
        memory = model.encode(source)
        target = torch.full((source.size(0), 1), bos_id)
        while target.size(1) <= max_length:
            ended = (target[:, 1:] == eos_id).any(dim=1)
            token = model.decode(target, memory, source)[:, -1].argmax(dim=-1)
            if ended.all():
                break
            target = torch.cat([target, token.masked_fill(ended, pad_id)[:, None]], dim=1)
    return target[:, 1:]


def greedy_for_ever(model, source, bos_id, eos_id, max_length, pad_id=0):
    memory = model.encode(source)
    target = torch.full((source.size(0), 1), bos_id)
    while True:
        model.decode(target, memory, source)


# ---- beam search ---------------------------------------------------------------------------


def _score(total, length, penalty):
    return total / ((5 + length) / 6) ** penalty


def beam(
    next_log_probs,
    bos_id,
    eos_id,
    beam_size,
    max_length,
    length_penalty=0.6,
    formula=_score,
    select=lambda grown, beam_size: grown[:beam_size],
    prefixes_of=lambda rows: torch.tensor(rows),
    enough=lambda done, live, score: False,
    log_p_of=lambda rows: rows.tolist(),
):
    """Right, but for what is done to one of its steps."""
    if beam_size < 1 or max_length < 1:
        raise ValueError("at least 1")
    live, done = [([], 0.0)], []

    def score(hypothesis):
        return formula(hypothesis[1], len(hypothesis[0]), length_penalty)

    for _ in range(max_length):
        rows = log_p_of(next_log_probs(prefixes_of([[bos_id, *tokens] for tokens, _ in live])))
        grown = [
            ([*tokens, token], total + log_p)
            for (tokens, total), row in zip(live, rows, strict=True)
            for token, log_p in enumerate(row)
            if log_p > -math.inf
        ]
        grown = select(sorted(grown, key=lambda hypothesis: -hypothesis[1]), beam_size)
        done += [hypothesis for hypothesis in grown if hypothesis[0][-1] == eos_id]
        live = [hypothesis for hypothesis in grown if hypothesis[0][-1] != eos_id]
        if not live or enough(done, live, score):
            break
    best = max(done + live, key=score)
    return best[0], score(best)


def beam_as_tensor(next_log_probs, *arguments):
    tokens, score = beam(next_log_probs, *arguments)
    return torch.tensor(tokens), score


def beam_with_a_tensor_score(next_log_probs, *arguments):
    tokens, score = beam(next_log_probs, *arguments)
    return tokens, torch.tensor(score)


def beam_of_tensors(next_log_probs, *arguments):
    tokens, score = beam(next_log_probs, *arguments)
    return list(torch.tensor(tokens)), score


def beam_score_first(next_log_probs, *arguments):
    tokens, score = beam(next_log_probs, *arguments)
    return score, tokens


def beam_without_score(next_log_probs, *arguments):
    return beam(next_log_probs, *arguments)[0]


def beam_as_text(next_log_probs, *arguments):
    tokens, score = beam(next_log_probs, *arguments)
    return " ".join(map(str, tokens)), score


def _named(name, **changes):
    def search(next_log_probs, bos_id, eos_id, beam_size, max_length, length_penalty=0.6):
        return beam(
            next_log_probs, bos_id, eos_id, beam_size, max_length, length_penalty, **changes
        )

    search.__name__ = name
    return search


beam_asking_with_lists = _named("beam_asking_with_lists", prefixes_of=lambda rows: rows)
beam_asking_with_floats = _named(
    "beam_asking_with_floats", prefixes_of=lambda rows: torch.tensor(rows).float()
)
beam_asking_without_batch = _named(
    "beam_asking_without_batch", prefixes_of=lambda rows: torch.tensor(rows[0])
)
beam_asking_without_bos = _named(
    "beam_asking_without_bos",
    prefixes_of=lambda rows: torch.tensor([row[1:] for row in rows]).long(),
)
beam_asking_for_the_last_token_only = _named(
    "beam_asking_for_the_last_token_only",
    prefixes_of=lambda rows: torch.tensor([row[-1:] for row in rows]),
)
beam_asking_backwards = _named(
    "beam_asking_backwards", prefixes_of=lambda rows: torch.tensor([row[::-1] for row in rows])
)
beam_one_too_narrow = _named(
    "beam_one_too_narrow", select=lambda grown, beam_size: grown[: max(1, beam_size - 1)]
)
beam_one_too_wide = _named(
    "beam_one_too_wide", select=lambda grown, beam_size: grown[: beam_size + 1]
)
beam_of_everything = _named(
    "beam_of_everything", select=lambda grown, beam_size: grown[: 20 * beam_size]
)
beam_of_five = _named("beam_of_five", select=lambda grown, beam_size: grown[:5])
beam_with_a_gap = _named(
    "beam_with_a_gap",
    select=lambda grown, beam_size: [h for h in grown[:beam_size] if h[1] > grown[0][1] - 1.0],
)
beam_of_probabilities = _named("beam_of_probabilities", log_p_of=lambda rows: rows.exp().tolist())
beam_in_base_two = _named("beam_in_base_two", log_p_of=lambda rows: (rows / math.log(2)).tolist())
beam_with_rounding = _named("beam_with_rounding", log_p_of=lambda rows: rows.round().tolist())
beam_with_clamped_values = _named(
    "beam_with_clamped_values", log_p_of=lambda rows: rows.clamp(min=-1e9).tolist()
)
beam_with_a_softmax_too_many = _named(
    "beam_with_a_softmax_too_many", log_p_of=lambda rows: rows.softmax(-1).log_softmax(-1).tolist()
)
beam_with_the_end_favored = _named(
    "beam_with_the_end_favored",
    formula=lambda total, length, penalty: total / ((6 + length) / 6) ** penalty,
)
beam_with_whole_numbers = _named(
    "beam_with_whole_numbers",
    formula=lambda total, length, penalty: total / ((5 + length) // 6) ** penalty,
)
beam_with_a_negative_exponent = _named(
    "beam_with_a_negative_exponent",
    formula=lambda total, length, penalty: total / ((5 + length) / 6) ** -penalty,
)
beam_ending_when_the_best_living_is_worse = _named(
    "beam_ending_when_the_best_living_is_worse",
    enough=lambda done, live, score: bool(done) and max(map(score, done)) > max(map(score, live)),
)
beam_ending_after_three = _named(
    "beam_ending_after_three", enough=lambda done, live, score: len(done) >= 3
)


def beam_sharing_lists(next_log_probs, bos_id, eos_id, beam_size, max_length, length_penalty=0.6):
    """Extensions of one hypothesis share its list of tokens."""
    if beam_size < 1 or max_length < 1:
        raise ValueError("at least 1")
    live, done = [([], 0.0)], []
    for _ in range(max_length):
        rows = next_log_probs(torch.tensor([[bos_id, *tokens] for tokens, _ in live])).tolist()
        grown = [
            (tokens, total + log_p, token)
            for (tokens, total), row in zip(live, rows, strict=True)
            for token, log_p in enumerate(row)
            if log_p > -math.inf
        ]
        live, length = [], len(live[0][0])
        for tokens, total, token in sorted(grown, key=lambda g: -g[1])[:beam_size]:
            del tokens[length:]
            tokens.append(token)
            (done if token == eos_id else live).append((tokens, total))
        if not live:
            break
    best = max(done + live, key=lambda h: _score(h[1], len(h[0]), length_penalty))
    return best[0], _score(best[1], len(best[0]), length_penalty)


def beam_by_topk_of_the_beam(
    next_log_probs, bos_id, eos_id, beam_size, max_length, length_penalty=0.6
):
    """topk fails where there are fewer extensions than beam_size."""

    def log_p_of(rows):
        rows.flatten().topk(beam_size)
        return rows.tolist()

    return beam(
        next_log_probs,
        bos_id,
        eos_id,
        beam_size,
        max_length,
        length_penalty,
        log_p_of=log_p_of,
    )


def beam_by_transposed_index(
    next_log_probs, bos_id, eos_id, beam_size, max_length, length_penalty=0.6
):
    """Takes the index into the flattened scores apart by the number of hypotheses."""
    if beam_size < 1 or max_length < 1:
        raise ValueError("at least 1")
    prefixes, totals, done = torch.tensor([[bos_id]]), torch.zeros(1), []
    for length in range(1, max_length + 1):
        scores = totals[:, None] + next_log_probs(prefixes)
        best, index = scores.flatten().topk(min(beam_size, scores.numel()))
        rows = scores.size(0)
        prefixes = torch.cat([prefixes[index % rows], (index // rows)[:, None]], dim=1)
        ended = prefixes[:, -1] == eos_id
        done += [
            (_score(t.item(), length, length_penalty), p[1:].tolist())
            for t, p in zip(best[ended], prefixes[ended], strict=True)
        ]
        prefixes, totals = prefixes[~ended], best[~ended]
        if not len(prefixes):
            break
    done += [
        (_score(t.item(), p.numel() - 1, length_penalty), p[1:].tolist())
        for t, p in zip(totals, prefixes, strict=True)
    ]
    score, tokens = max(done)
    return tokens, score


def beam_of_wrong_parents(
    next_log_probs, bos_id, eos_id, beam_size, max_length, length_penalty=0.6
):
    """Tokens and sums are chosen rightly, but stay on the row they were on."""
    if beam_size < 1 or max_length < 1:
        raise ValueError("at least 1")
    live, done = [([], 0.0)], []
    for _ in range(max_length):
        rows = next_log_probs(torch.tensor([[bos_id, *tokens] for tokens, _ in live])).tolist()
        grown = sorted(
            (
                (total + p, v)
                for (_, total), row in zip(live, rows, strict=True)
                for v, p in enumerate(row)
            ),
            reverse=True,
        )[:beam_size]
        kept = [([*live[i % len(live)][0], token], total) for i, (total, token) in enumerate(grown)]
        done += [h for h in kept if h[0][-1] == eos_id]
        live = [h for h in kept if h[0][-1] != eos_id]
        if not live:
            break
    best = max(done + live, key=lambda h: _score(h[1], len(h[0]), length_penalty))
    return best[0], _score(best[1], len(best[0]), length_penalty)


def beam_scoring_the_sum_of_scores(
    next_log_probs, bos_id, eos_id, beam_size, max_length, length_penalty=0.6
):
    """The penalty is applied in every step, to what is carried on."""
    if beam_size < 1 or max_length < 1:
        raise ValueError("at least 1")
    live, done = [([], 0.0)], []
    for length in range(1, max_length + 1):
        rows = next_log_probs(torch.tensor([[bos_id, *tokens] for tokens, _ in live])).tolist()
        grown = sorted(
            (
                ([*tokens, v], _score(total + p, length, length_penalty))
                for (tokens, total), row in zip(live, rows, strict=True)
                for v, p in enumerate(row)
                if p > -math.inf
            ),
            key=lambda h: -h[1],
        )[:beam_size]
        done += [h for h in grown if h[0][-1] == eos_id]
        live = [h for h in grown if h[0][-1] != eos_id]
        if not live:
            break
    return max(done + live, key=lambda h: h[1])


def beam_raising_type_errors(next_log_probs, bos_id, eos_id, beam_size, *rest):
    if beam_size < 1 or rest[0] < 1:
        raise TypeError("at least 1")
    return beam(next_log_probs, bos_id, eos_id, beam_size, *rest)


def beam_refusing_one(next_log_probs, bos_id, eos_id, beam_size, *rest):
    if beam_size <= 1:
        raise ValueError("a beam needs two")
    return beam(next_log_probs, bos_id, eos_id, beam_size, *rest)


def beam_without_a_default(
    next_log_probs, bos_id, eos_id, beam_size, max_length, length_penalty=1.0
):
    return beam(next_log_probs, bos_id, eos_id, beam_size, max_length, length_penalty)


def beam_asking_after_the_end(next_log_probs, *arguments):
    """Asks once more, though no hypothesis may live."""
    tokens, score = beam(next_log_probs, *arguments)
    if tokens[-1] == arguments[1]:
        next_log_probs(torch.zeros(0, len(tokens), dtype=torch.int64))
    return tokens, score


MUTANTS |= {
    "transformer/noam_learning_rate": [
        noam_as_a_tensor,
        noam_as_text,
        noam_rounded,
        noam_of_short_warmup,
        noam_without_step_one,
        noam_with_one_power,
        noam_doubled,
        noam_falling_from_the_peak,
        noam_with_a_floor,
        noam_by_whole_division,
        noam_of_whole_steps,
        noam_asserting,
        noam_of_the_step_before,
        noam_warm_from_the_start,
        noam_that_remembers,
    ],
    "transformer/label_smoothed_cross_entropy": [
        smoothed_by_cross_entropy,
        smoothed_by_a_module,
        smoothed_by_the_kernel,
        smoothed_by_the_operator,
        smoothed_by_plain_cross_entropy,
        smoothed_detached,
        smoothed_as_a_number,
        smoothed_with_a_detached_uniform_part,
        smoothed_in_float32,
        smoothed_returning_float32,
        smoothed_normalizing_in_place,
        smoothed_normalizing_unseen,
        smoothed_marking_padding_in_place,
        smoothed_by_view,
        smoothed_squeezing,
        smoothed_with_epsilon,
        smoothed_over_the_batch,
        smoothed_per_sentence,
        smoothed_keeping_an_axis,
        smoothed_until_the_first_padding,
        smoothed_next_token,
        smoothed_with_the_padding_word_barred,
        smoothed_by_other_words_and_padding,
        smoothed_by_binary_terms,
        smoothed_squared,
        smoothed_dividing_empty_batches,
    ],
    "transformer/greedy_decode": [
        greedy_in_int32,
        greedy_in_floats,
        greedy_with_a_float_target,
        greedy_squeezed,
        greedy_as_lists,
        greedy_as_ragged_lists,
        greedy_of_the_first,
        greedy_without_bos,
        greedy_from_the_source,
        greedy_with_the_source_as_memory,
        greedy_with_arguments_turned,
        greedy_with_one_target,
        greedy_over_the_batch,
        greedy_over_everything,
        greedy_in_one_step,
        greedy_with_padding_in_front,
        greedy_growing_at_the_front,
        greedy_that_never_repeats,
        greedy_barring_padding,
        greedy_second_best,
        greedy_ending_where_a_token_repeats,
        greedy_padded_to_the_end,
        greedy_clearing_the_source,
        greedy_encoding_twice,
        greedy_with_frozen_model,
        greedy_one_step_late,
        greedy_for_ever,
    ],
    "transformer/beam_search": [
        beam_as_tensor,
        beam_with_a_tensor_score,
        beam_of_tensors,
        beam_score_first,
        beam_without_score,
        beam_as_text,
        beam_asking_with_lists,
        beam_asking_with_floats,
        beam_asking_without_batch,
        beam_asking_without_bos,
        beam_asking_for_the_last_token_only,
        beam_asking_backwards,
        beam_one_too_narrow,
        beam_one_too_wide,
        beam_of_everything,
        beam_of_five,
        beam_with_a_gap,
        beam_of_probabilities,
        beam_in_base_two,
        beam_with_rounding,
        beam_with_clamped_values,
        beam_with_a_softmax_too_many,
        beam_with_the_end_favored,
        beam_with_whole_numbers,
        beam_with_a_negative_exponent,
        beam_ending_when_the_best_living_is_worse,
        beam_ending_after_three,
        beam_sharing_lists,
        beam_by_topk_of_the_beam,
        beam_by_transposed_index,
        beam_of_wrong_parents,
        beam_scoring_the_sum_of_scores,
        beam_raising_type_errors,
        beam_refusing_one,
        beam_without_a_default,
        beam_asking_after_the_end,
    ],
}
NAMED |= {
    "smoothed_by_other_words_and_padding": "padding word is left out",
    "smoothed_dividing_empty_batches": "nothing but padding gives NaN",
    "greedy_padded_to_the_end": "goes on to max_length although",
    "greedy_with_frozen_model": "Gradients are recorded",
    "beam_of_probabilities": "Probabilities are added",
    "beam_with_the_end_favored": "counts bos_id too",
    "beam_with_a_negative_exponent": "multiplied by the length penalty",
    "beam_ending_when_the_best_living_is_worse": "scores higher than all that live",
}

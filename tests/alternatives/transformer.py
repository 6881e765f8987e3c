"""Other right ways to write chapter 4."""

import heapq
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

# ---- layer normalization -------------------------------------------------------------------


class Affine(nn.Module):
    """The two parameters of layer normalization."""

    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(d_model))
        self.weight = nn.Parameter(torch.ones(d_model))
        self.eps = eps


class LayerNormByVar(Affine):
    def forward(self, x):
        variance = x.var(dim=-1, keepdim=True, correction=0)
        return (x - x.mean(-1, keepdim=True)) * torch.rsqrt(variance + self.eps) * self.weight + (
            self.bias
        )


class LayerNormByVarMean(Affine):
    def forward(self, x):
        variance, mean = torch.var_mean(x, -1, unbiased=False, keepdim=True)
        return torch.addcmul(self.bias, self.weight, (x - mean) / (variance + self.eps).sqrt())


class LayerNormInFloat32ForShortFloats(Affine):
    def forward(self, x):
        wide = x if x.dtype == torch.float64 else x.float()
        centered = wide - wide.mean(dim=-1, keepdim=True)
        root = (centered.pow(2).sum(-1, keepdim=True) / x.shape[-1] + self.eps) ** 0.5
        return (centered / root).type_as(x) * self.weight + self.bias


class LayerNormRowByRow(Affine):
    def forward(self, x):
        rows = []
        for row in x.reshape(-1, x.size(-1)):
            gaps = row - sum(row) / len(row)
            rows.append(gaps / (gaps @ gaps / len(row) + self.eps).sqrt())
        return torch.stack(rows).reshape(x.shape) * self.weight + self.bias


class LayerNormByAMatrix(Affine):
    """Subtracting the mean is a linear map: the unit matrix less 1/d everywhere."""

    def forward(self, x):
        width = x.size(-1)
        center = torch.eye(width, dtype=x.dtype, device=x.device) - 1 / width
        centered = x @ center
        variance = torch.einsum("...i,...i->...", centered, centered) / width
        return centered / torch.sqrt(variance + self.eps)[..., None] * self.weight + self.bias


class LayerNormBySquaredDeviation(Affine):
    def forward(self, x):
        variance = torch.std(x, dim=-1, correction=0, keepdim=True).square()
        output = x - torch.mean(x, dim=-1, keepdim=True)
        output = self.weight * output / (variance + self.eps).pow(0.5)
        output += self.bias
        return output


# ---- feed-forward network ------------------------------------------------------------------


class Linears(nn.Module):
    """The parameters of the feed-forward network."""

    def __init__(self, d_model, d_ff, dropout=0.0):
        super().__init__()
        self.w_2 = nn.Linear(d_ff, d_model)
        self.w_1 = nn.Linear(d_model, d_ff)
        self.rate = dropout


class FeedForwardByFunctions(Linears):
    def forward(self, x):
        hidden = F.relu(F.linear(x, self.w_1.weight, self.w_1.bias))
        hidden = F.dropout(hidden, self.rate, self.training)
        return F.linear(hidden, self.w_2.weight, self.w_2.bias)


class FeedForwardDroppingFirst(Linears):
    """Dropout and ReLU may change places: both leave 0 as it is, and neither turns a sign."""

    def __init__(self, d_model, d_ff, dropout=0.0):
        super().__init__(d_model, d_ff, dropout)
        self.inner = nn.Sequential(self.w_1, nn.Dropout(dropout), nn.ReLU(), self.w_2)

    def forward(self, x):
        return self.inner(x)


class FeedForwardByParameters(nn.Module):
    def __init__(self, d_model, d_ff, dropout=0.0):
        super().__init__()

        def layer(wide, narrow):
            weight, bias = torch.randn(wide, narrow) / narrow**0.5, torch.zeros(wide)
            return nn.ParameterDict({"weight": nn.Parameter(weight), "bias": nn.Parameter(bias)})

        self.w_1, self.w_2 = layer(d_ff, d_model), layer(d_model, d_ff)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        hidden = torch.einsum("hi,...i->...h", self.w_1["weight"], x) + self.w_1["bias"]
        hidden = self.dropout(hidden.clamp(min=0))
        return torch.einsum("oh,...h->...o", self.w_2["weight"], hidden) + self.w_2["bias"]


class FeedForwardByConvolution(Linears):
    """Two convolutions of width 1, as the paper says in passing."""

    def forward(self, x):
        rows = x.reshape(1, -1, x.size(-1)).mT
        hidden = F.conv1d(rows, self.w_1.weight[..., None], self.w_1.bias)
        hidden = F.dropout(torch.where(hidden > 0, hidden, 0.0), self.rate, self.training)
        rows = F.conv1d(hidden, self.w_2.weight[..., None], self.w_2.bias)
        return rows.mT.reshape(x.shape)


class FeedForwardInPlaceOnItsOwn(Linears):
    def forward(self, x):
        hidden = self.w_1(x).relu_()
        return self.w_2(F.dropout(hidden, p=self.rate, training=self.training))


# ---- attention and layers ------------------------------------------------------------------


class FusedAttention(nn.Module):
    """Multi-head attention on the fused kernel, with one matrix product for all three maps."""

    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__()
        self.w_q, self.w_k, self.w_v, self.w_o = (nn.Linear(d_model, d_model) for _ in range(4))
        self.heads, self.rate = num_heads, dropout

    def forward(self, query, key, value, mask=None):
        if query is key and key is value:
            layers = (self.w_q, self.w_k, self.w_v)
            weight = torch.cat([layer.weight for layer in layers])
            bias = torch.cat([layer.bias for layer in layers])
            parts = F.linear(query, weight, bias).chunk(3, dim=-1)
        else:
            parts = self.w_q(query), self.w_k(key), self.w_v(value)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        if mask is not None and mask.ndim == 3:
            mask = mask[:, None]
        rate = self.rate if self.training else 0.0
        read = F.scaled_dot_product_attention(q, k, v, mask, rate)
        return self.w_o(read.transpose(1, 2).flatten(2)), None


class HeadByHead(nn.Module):
    """Multi-head attention as a loop over the heads."""

    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__()
        for name in ("w_o", "w_v", "w_k", "w_q"):
            setattr(self, name, nn.Linear(d_model, d_model))
        self.width = d_model // num_heads
        self.dropout = nn.Dropout(dropout)

    def forward(self, query, key, value, mask=None):
        q, k, v = self.w_q(query), self.w_k(key), self.w_v(value)
        read = []
        for columns in torch.arange(q.size(-1), device=q.device).split(self.width):
            scores = q[..., columns] @ k[..., columns].mT / math.sqrt(self.width)
            if mask is not None:
                scores = scores.masked_fill(~mask, -1e30)
            weights = scores.softmax(-1)
            if mask is not None:
                weights = weights * mask
            read.append(self.dropout(weights) @ v[..., columns])
        return self.w_o(torch.cat(read, dim=-1))


class EncoderLayerOfTorchNorms(nn.Module):
    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.self_attn = FusedAttention(d_model, num_heads, dropout)
        self.feed_forward = FeedForwardByFunctions(d_model, d_ff, dropout)
        self.dropout1, self.dropout2 = nn.Dropout(dropout), nn.Dropout(dropout)

    def forward(self, x, mask=None):
        read, _ = self.self_attn(x, x, x, mask)
        x = self.norm1(self.dropout1(read) + x)
        return self.norm2(self.dropout2(self.feed_forward(x)) + x)


class EncoderLayerByOneRule(nn.Module):
    """Every sublayer goes through one and the same function."""

    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__()
        self.rate = dropout
        self.self_attn = HeadByHead(d_model, num_heads, dropout)
        self.feed_forward = FeedForwardByParameters(d_model, d_ff, dropout)
        self.norm1, self.norm2 = LayerNormByVar(d_model), LayerNormByVarMean(d_model)

    def sublayer(self, x, function, norm):
        return norm(torch.add(x, F.dropout(function(x), self.rate, self.training)))

    def forward(self, x, mask=None):
        x = self.sublayer(x, lambda x: self.self_attn(x, x, x, mask=mask), self.norm1)
        return self.sublayer(x, self.feed_forward, self.norm2)


class EncoderLayerInOne(nn.Module):
    """No sublayer has a forward of its own: the layer does it all."""

    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__()
        self.self_attn = nn.ModuleDict(
            {name: nn.Linear(d_model, d_model) for name in ("w_q", "w_k", "w_v", "w_o")}
        )
        self.feed_forward = nn.ModuleDict(
            {"w_1": nn.Linear(d_model, d_ff), "w_2": nn.Linear(d_ff, d_model)}
        )
        self.norm1, self.norm2 = Affine(d_model), Affine(d_model)
        self.heads, self.dropout = num_heads, nn.Dropout(dropout)

    def normalize(self, x, norm):
        gaps = x - x.mean(-1, keepdim=True)
        return gaps / (gaps.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias

    def forward(self, x, mask=None):
        batch, length, width = x.shape
        shape = batch, length, self.heads, width // self.heads
        q, k, v = (self.self_attn[name](x).reshape(shape) for name in ("w_q", "w_k", "w_v"))
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * shape[-1] ** -0.5
        if mask is not None:
            mask = mask if mask.ndim == 2 else mask.unsqueeze(1)
            scores = torch.where(mask, scores, -math.inf)
        weights = self.dropout(torch.nan_to_num(scores.softmax(dim=-1)))
        read = torch.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape)
        x = self.normalize(x + self.dropout(self.self_attn["w_o"](read)), self.norm1)
        hidden = self.dropout(F.relu(self.feed_forward["w_1"](x)))
        return self.normalize(x + self.dropout(self.feed_forward["w_2"](hidden)), self.norm2)


class EncoderLayerSequenceBySequence(EncoderLayerOfTorchNorms):
    def forward(self, x, mask=None):
        if mask is not None and mask.ndim == 2:
            mask = mask[None]
        masks = [None] * len(x) if mask is None else mask.expand(len(x), -1, -1).split(1)
        layer = super().forward
        return torch.cat([layer(*pair) for pair in zip(x.split(1), masks, strict=True)])


class DecoderLayerOfTorchNorms(nn.Module):
    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__()
        self.self_attn = FusedAttention(d_model, num_heads, dropout)
        self.multihead_attn = FusedAttention(d_model, num_heads, dropout)
        self.feed_forward = FeedForwardDroppingFirst(d_model, d_ff, dropout)
        for i in (1, 2, 3):
            setattr(self, f"norm{i}", nn.LayerNorm(d_model))
            setattr(self, f"dropout{i}", nn.Dropout(dropout))

    def forward(self, x, memory, mask=None, memory_mask=None):
        x = self.norm1(x + self.dropout1(self.self_attn(x, x, x, mask)[0]))
        x = self.norm2(x + self.dropout2(self.multihead_attn(x, memory, memory, memory_mask)[0]))
        return self.norm3(x + self.dropout3(self.feed_forward(x)))


class DecoderLayerByOneRule(nn.Module):
    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__()
        self.norm3, self.norm2, self.norm1 = (
            LayerNormByAMatrix(d_model),
            LayerNormInFloat32ForShortFloats(d_model),
            LayerNormBySquaredDeviation(d_model),
        )
        self.feed_forward = FeedForwardByConvolution(d_model, d_ff, dropout)
        self.multihead_attn = HeadByHead(d_model, num_heads, dropout)
        self.self_attn = HeadByHead(d_model, num_heads, dropout)
        self.rate = dropout

    def forward(self, x, memory, mask=None, memory_mask=None):
        steps = (
            (self.norm1, lambda x: self.self_attn(x, x, x, mask)),
            (self.norm2, lambda x: self.multihead_attn(x, memory, memory, memory_mask)),
            (self.norm3, self.feed_forward),
        )
        for norm, sublayer in steps:
            x = norm(x + F.dropout(sublayer(x), self.rate, self.training))
        return x


class DecoderLayerInPlaceOnItsOwn(nn.Module):
    """Sums in place, but in tensors that the layer made itself."""

    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__()
        self.self_attn, self.multihead_attn = (
            FusedAttention(d_model, num_heads, dropout) for _ in range(2)
        )
        self.feed_forward = FeedForwardInPlaceOnItsOwn(d_model, d_ff, dropout)
        self.norm1, self.norm2, self.norm3 = (LayerNormByVar(d_model) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, memory, mask=None, memory_mask=None):
        read = self.dropout(self.self_attn(x, x, x, mask)[0]).clone()
        read += x
        x = self.norm1(read)
        read = self.dropout(self.multihead_attn(x, memory, memory, memory_mask)[0]).clone()
        read += x
        x = self.norm2(read)
        return self.norm3(x.add(self.dropout(self.feed_forward(x))))


# ---- Transformer ---------------------------------------------------------------------------


def sinusoids(length, d_model):
    """In float64; the angle as exp of a logarithm, sines and cosines put in by slices."""
    table = torch.empty(length, d_model, dtype=torch.float64)
    rate = torch.exp(torch.arange(0, d_model, 2, dtype=torch.float64) * -math.log(1e4) / d_model)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * rate
    table[:, 0::2], table[:, 1::2] = angle.sin(), angle.cos()
    return table


def stacks(model, encoder_layer, decoder_layer, num_layers, *sizes):
    model.encoder, model.decoder = nn.ModuleList(), nn.ModuleList()
    for _ in range(num_layers):
        model.encoder.append(encoder_layer(*sizes))
        model.decoder.append(decoder_layer(*sizes))


class TransformerWithATiedLayer(nn.Module):
    """The output is an nn.Linear that is given the embedding's matrix."""

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
        self.output = nn.Linear(d_model, vocab_size, bias=False)
        self.output.weight = self.embedding.weight
        nn.init.normal_(self.output.weight, 0.0, 1 / math.sqrt(d_model))
        sizes = d_model, num_heads, d_ff, dropout
        stacks(self, EncoderLayerOfTorchNorms, DecoderLayerOfTorchNorms, num_layers, *sizes)
        self.dropout = nn.Dropout(p=dropout)
        self.scale, self.pad_id = math.sqrt(d_model), pad_id

    def embed(self, ids):
        x = self.scale * self.embedding(ids)
        return self.dropout(x + sinusoids(ids.size(1), x.size(-1)).to(x.dtype))

    def encode(self, source):
        memory = self.embed(source)
        mask = source.ne(self.pad_id)[:, None, :]
        for layer in self.encoder:
            memory = layer(memory, mask)
        return memory

    def decode(self, target, memory, source):
        length = target.size(1)
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        mask = target.ne(self.pad_id)[:, None, :] & ~future
        x = self.embed(target)
        for layer in self.decoder:
            x = layer(x, memory, mask=mask, memory_mask=source.ne(self.pad_id)[:, None, :])
        return self.output(x)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), source)


class TransformerByFunctions(nn.Module):
    """Padding has a vector of its own that does not learn, and padded queries are barred too."""

    def __init__(
        self,
        vocab_size: int,
        d_model: int = 512,
        num_heads: int = 8,
        num_layers: int = 6,
        d_ff: int = 2048,
        dropout: float = 0.1,
        pad_id: int = 0,
    ) -> None:
        super().__init__()
        self.pad_id, self.rate = pad_id, dropout
        self.embedding = nn.Embedding(vocab_size, d_model, padding_idx=pad_id)
        self.embedding.weight.data.normal_(std=d_model**-0.5)
        sizes = d_model, num_heads, d_ff, dropout
        stacks(self, EncoderLayerByOneRule, DecoderLayerByOneRule, num_layers, *sizes)

    def embed(self, ids):
        weight = self.embedding.weight
        x = F.embedding(ids, weight * weight.size(1) ** 0.5, padding_idx=self.pad_id)
        x = x + sinusoids(ids.size(-1), weight.size(1)).type_as(x).unsqueeze(0)
        return F.dropout(x, self.rate, self.training)

    def encode(self, source):
        words = source != self.pad_id
        return self.run(self.encoder, self.embed(source), words[:, :, None] & words[:, None])

    def decode(self, target, memory, source):
        words, length = target != self.pad_id, target.size(1)
        earlier = torch.arange(length)[:, None] >= torch.arange(length)
        mask = words[:, :, None] & words[:, None] & earlier
        reads = words[:, :, None] & (source != self.pad_id)[:, None]
        x = self.run(self.decoder, self.embed(target), memory, mask, reads)
        return F.linear(x, self.embedding.weight)

    def run(self, layers, x, *arguments):
        for layer in layers:
            x = layer(x, *arguments)
        return x

    def forward(self, source, target):
        memory = self.encode(source)
        return self.decode(target, memory, source)


class TransformerWithATableThatGrows(nn.Module):
    """Words as one-hot vectors times the matrix; sinusoids are kept for the next call."""

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
        sizes = d_model, num_heads, d_ff, dropout
        self.encoder = nn.ModuleList([EncoderLayerInOne(*sizes) for _ in range(num_layers)])
        self.decoder = nn.ModuleList(
            [DecoderLayerInPlaceOnItsOwn(*sizes) for _ in range(num_layers)]
        )
        self.embedding = nn.Embedding(vocab_size, d_model)
        with torch.no_grad():
            self.embedding.weight.mul_(d_model**-0.5)
        self.register_buffer("table", sinusoids(2, d_model), persistent=False)
        self.dropout, self.pad_id = nn.Dropout(dropout), pad_id

    def embed(self, ids):
        matrix = self.embedding.weight
        if ids.size(1) > len(self.table):
            self.table = sinusoids(2 * ids.size(1), matrix.size(1))
        words = F.one_hot(ids, len(matrix)).to(matrix.dtype) @ matrix
        return self.dropout(
            torch.add(self.table[: ids.size(1)].to(matrix), words, alpha=matrix.size(1) ** 0.5)
        )

    def encode(self, source):
        x = self.embed(source)
        for layer in self.encoder:
            x = layer(x, self.words(source))
        return x

    def words(self, ids):
        return torch.logical_not(ids == self.pad_id).unsqueeze(-2)

    def decode(self, target, memory, source):
        mask = self.words(target).repeat(1, target.size(1), 1).tril()
        x = self.embed(target)
        for layer in self.decoder:
            x = layer(x, memory, mask, self.words(source))
        return torch.einsum("btd,vd->btv", x, self.embedding.weight)

    def forward(self, source, target):
        return self.decode(source=source, target=target, memory=self.encode(source))


ALTERNATIVES = {
    "transformer/LayerNorm": [
        LayerNormByVar,
        LayerNormByVarMean,
        LayerNormInFloat32ForShortFloats,
        LayerNormRowByRow,
        LayerNormByAMatrix,
        LayerNormBySquaredDeviation,
    ],
    "transformer/FeedForward": [
        FeedForwardByFunctions,
        FeedForwardDroppingFirst,
        FeedForwardByParameters,
        FeedForwardByConvolution,
        FeedForwardInPlaceOnItsOwn,
    ],
    "transformer/EncoderLayer": [
        EncoderLayerOfTorchNorms,
        EncoderLayerByOneRule,
        EncoderLayerInOne,
        EncoderLayerSequenceBySequence,
    ],
    "transformer/DecoderLayer": [
        DecoderLayerOfTorchNorms,
        DecoderLayerByOneRule,
        DecoderLayerInPlaceOnItsOwn,
    ],
    "transformer/Transformer": [
        TransformerWithATiedLayer,
        TransformerByFunctions,
        TransformerWithATableThatGrows,
    ],
}


# ---- learning rate -------------------------------------------------------------------------


def noam_by_cases(step, d_model, warmup_steps=4000):
    if step < 1:
        raise ValueError(f"step is {step}; it counts from 1")
    if step < warmup_steps:
        return step / (math.sqrt(d_model) * warmup_steps * math.sqrt(warmup_steps))
    return 1 / math.sqrt(d_model * step)


def noam_by_logarithms(step, d_model, warmup_steps=4000):
    if step < 1:
        raise ValueError("step")
    rise = math.log(step) - 1.5 * math.log(warmup_steps)
    return math.exp(-0.5 * math.log(d_model) + min(rise, -0.5 * math.log(step)))


def noam_in_torch(step, d_model, warmup_steps=4000):
    if not step >= 1:
        raise ValueError("the first step is 1")
    terms = torch.tensor([step**-0.5, step * warmup_steps**-1.5])
    return (terms.min() / math.sqrt(d_model)).item()


def noam_in_numpy(step, d_model, warmup_steps=4000):
    if step < 1:
        raise ValueError("the first step is 1")
    return np.minimum(step**-0.5, step * warmup_steps**-1.5) * np.float64(d_model) ** -0.5


def noam_as_a_fraction_of_the_peak(step, d_model, warmup_steps=4000):
    if step <= 0:
        raise ValueError("the first step is 1")
    peak = (d_model * warmup_steps) ** -0.5
    return peak * min(step / warmup_steps, (warmup_steps / step) ** 0.5)


# ---- label smoothing -----------------------------------------------------------------------


def smoothing_by_gather(logits, targets, smoothing=0.1, pad_id=0):
    log_p = torch.log_softmax(logits, dim=-1)
    own = log_p.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    losses = -(1 - smoothing) * own - smoothing * log_p.mean(dim=-1)
    real = targets.ne(pad_id)
    return losses.masked_fill(~real, 0.0).sum() / real.sum().clamp(min=1)


def smoothing_by_scatter(logits, targets, smoothing=0.1, pad_id=0):
    vocab = logits.size(-1)
    q = torch.full_like(logits, smoothing / vocab)
    q.scatter_(-1, targets[..., None], 1 - smoothing + smoothing / vocab)
    q = q * (targets != pad_id)[..., None]
    return -(q * torch.log_softmax(logits, dim=-1)).sum() / max(1, int((targets != pad_id).sum()))


def smoothing_of_chosen_rows(logits, targets, smoothing=0.1, pad_id=0):
    real = targets != pad_id
    if not real.any():
        return logits.new_zeros(())
    chosen, wanted = logits[real], targets[real]
    rows = torch.arange(len(wanted))
    normal = torch.logsumexp(chosen, dim=-1)
    own = normal - chosen[rows, wanted]
    uniform = normal - chosen.mean(dim=-1)
    return torch.lerp(own, uniform, smoothing).mean()


def smoothing_by_nll_loss(logits, targets, smoothing=0.1, pad_id=0):
    flat, wanted = F.log_softmax(logits, dim=-1).flatten(0, 1), targets.flatten()
    real = wanted != pad_id
    own = F.nll_loss(flat, wanted, ignore_index=pad_id, reduction="sum")
    uniform = -flat[real].mean(dim=-1).sum()
    return ((1 - smoothing) * own + smoothing * uniform) / real.sum().clamp(min=1)


def smoothing_by_divergence(logits, targets, smoothing=0.1, pad_id=0):
    vocab = logits.size(-1)
    q = (1 - smoothing) * F.one_hot(targets, vocab).to(logits.dtype) + smoothing / vocab
    divergence = F.kl_div(logits.log_softmax(-1), q, reduction="none").sum(-1)
    entropy = -torch.xlogy(q, q).sum(-1)
    real = (targets != pad_id).to(logits.dtype)
    return ((divergence + entropy) * real).sum() / real.sum().clamp(min=1.0)


def smoothing_token_by_token(logits, targets, smoothing=0.1, pad_id=0):
    total, count = logits.new_zeros(()), 0
    for sentence, words in zip(logits, targets.tolist(), strict=True):
        for scores, word in zip(sentence, words, strict=True):
            if word == pad_id:
                continue
            log_p = scores - scores.max()
            log_p = log_p - log_p.exp().sum().log()
            total = total - (1 - smoothing) * log_p[word] - smoothing * log_p.sum() / len(log_p)
            count += 1
    return total / count if count else total


def smoothing_in_float64(logits, targets, smoothing=0.1, pad_id=0):
    return smoothing_by_gather(logits.double(), targets, smoothing, pad_id).to(logits.dtype)


def smoothing_by_einsum(logits, targets, smoothing=0.1, pad_id=0):
    shifted = logits - logits.amax(dim=-1, keepdim=True).detach()
    log_p = shifted - shifted.exp().sum(dim=-1, keepdim=True).log()
    q = torch.eye(logits.size(-1), dtype=logits.dtype)[targets]
    q = q + smoothing * (1 / logits.size(-1) - q)
    real = (targets != pad_id).to(logits.dtype)
    return torch.einsum("blv,blv,bl->", q, -log_p, real).div(real.sum().clamp_min(1))


# ---- greedy decoding -----------------------------------------------------------------------


def greedy_by_flags(model, source, bos_id, eos_id, max_length, pad_id=0):
    with torch.no_grad():
        memory = model.encode(source)
        target = torch.full((source.size(0), 1), bos_id, device=source.device)
        ended = torch.zeros(source.size(0), dtype=torch.bool, device=source.device)
        for _ in range(max_length):
            logits = model.decode(target, memory, source)
            token = torch.where(ended, pad_id, logits[:, -1].argmax(dim=-1))
            target = torch.cat([target, token.unsqueeze(1)], dim=1)
            ended |= token == eos_id
            if ended.all():
                break
    return target[:, 1:]


@torch.inference_mode()
def greedy_asking_the_target(model, source, bos_id, eos_id, max_length, pad_id=0):
    memory = model.encode(source)
    target = source.new_full((len(source), 1), bos_id)
    while target.size(1) <= max_length:
        ended = (target[:, 1:] == eos_id).any(dim=1)
        if ended.all():
            break
        token = model.decode(target, memory, source)[:, -1, :].max(dim=-1).indices
        token[ended] = pad_id
        target = torch.hstack([target, token[:, None]])
    return target[:, 1:].clone()


@torch.no_grad()
def greedy_of_the_living(model, source, bos_id, eos_id, max_length, pad_id=0):
    """Only sequences that have not ended are decoded."""
    memory = model.encode(source)
    ids = source.new_full((source.size(0), max_length + 1), pad_id)
    ids[:, 0] = bos_id
    alive, length = torch.arange(source.size(0)), 0
    while len(alive) and length < max_length:
        length += 1
        logits = model.decode(ids[alive, :length], memory[alive], source[alive])
        token = logits[:, -1].sort(dim=-1).indices[:, -1]
        ids[alive, length] = token
        alive = alive[token != eos_id]
    return ids[:, 1 : length + 1]


@torch.no_grad()
def greedy_with_a_whole_target(model, source, bos_id, eos_id, max_length, pad_id=0):
    """The target has its full length from the start; later positions cannot be seen anyway."""
    memory = model.encode(source)
    target = source.new_full((source.size(0), max_length + 1), pad_id)
    target[:, 0] = bos_id
    ended = torch.zeros_like(source[:, 0]).bool()
    for at in range(max_length):
        token = model.decode(target, memory, source)[:, at].topk(1).indices[:, 0]
        target[:, at + 1] = token * ~ended + pad_id * ended
        ended = ended.logical_or(target[:, at + 1] == eos_id)
        if bool(ended.all()):
            return target[:, 1 : at + 2]
    return target[:, 1:]


@torch.no_grad()
def greedy_sentence_by_sentence(model, source, bos_id, eos_id, max_length, pad_id=0):
    memory = model.encode(source)
    rows = []
    for i in range(source.size(0)):
        ids = [bos_id]
        while len(ids) <= max_length and (len(ids) == 1 or ids[-1] != eos_id):
            logits = model.decode(torch.tensor([ids]), memory[i : i + 1], source[i : i + 1])
            ids.append(int(logits[0, -1].argmax()))
        rows.append(torch.tensor(ids[1:]))
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad_id)


@torch.no_grad()
def greedy_by_stacking(model, source, bos_id, eos_id, max_length, pad_id=0):
    memory = model.encode(source)
    columns = [torch.full_like(source[:, 0], bos_id)]
    going = torch.ones_like(source[:, 0])
    while going.any() and len(columns) <= max_length:
        logits = model.decode(torch.stack(columns, dim=1), memory, source)
        best = torch.log_softmax(logits[:, -1], dim=-1).argmax(-1)
        columns.append(best * going + pad_id * (1 - going))
        going = going * (best != eos_id)
    return torch.stack(columns[1:], dim=1)


@torch.no_grad()
def greedy_again_and_again(model, source, bos_id, eos_id, max_length, pad_id=0):
    """All positions are predicted anew in each step; the earlier ones stay what they were."""
    memory = model.encode(source)
    first = source.new_full((source.size(0), 1), bos_id)
    ids = first[:, :0]
    for _ in range(max_length):
        ids = model.decode(torch.cat([first, ids], dim=1), memory, source).argmax(dim=-1)
        behind = (ids == eos_id).cumsum(dim=1).roll(1, dims=1)
        behind[:, 0] = 0
        ids = ids.masked_fill(behind > 0, pad_id)
        if (ids == eos_id).any(dim=1).all():
            break
    return ids


# ---- beam search ---------------------------------------------------------------------------


def _wu(total, length, penalty):
    return total / ((5 + length) / 6) ** penalty


def beam_by_lists(next_log_probs, bos_id, eos_id, beam_size, max_length, length_penalty=0.6):
    if beam_size < 1 or max_length < 1:
        raise ValueError("beam_size and max_length must be at least 1")
    live, done = [([], 0.0)], []
    for _ in range(max_length):
        prefixes = torch.tensor([[bos_id, *tokens] for tokens, _ in live])
        grown = [
            ([*tokens, token], total + log_p)
            for (tokens, total), row in zip(live, next_log_probs(prefixes).tolist(), strict=True)
            for token, log_p in enumerate(row)
            if log_p != -math.inf
        ]
        grown.sort(key=lambda hypothesis: hypothesis[1], reverse=True)
        best = grown[:beam_size]
        done += [hypothesis for hypothesis in best if hypothesis[0][-1] == eos_id]
        live = [hypothesis for hypothesis in best if hypothesis[0][-1] != eos_id]
        if not live:
            break
    tokens, total = max(done + live, key=lambda h: _wu(h[1], len(h[0]), length_penalty))
    return tokens, _wu(total, len(tokens), length_penalty)


def beam_by_tensors(next_log_probs, bos_id, eos_id, beam_size, max_length, length_penalty=0.6):
    if min(beam_size, max_length) < 1:
        raise ValueError("both must be at least 1")
    prefixes, totals, done = torch.tensor([[bos_id]]), torch.zeros(1, 1, dtype=torch.float64), []
    for length in range(1, max_length + 1):
        scores = totals + next_log_probs(prefixes)  # (n, vocab)
        vocab = scores.size(-1)
        best, index = scores.flatten().topk(min(beam_size, scores.numel()))
        possible = best > -math.inf
        best, index = best[possible], index[possible]
        prefixes = torch.cat([prefixes[index // vocab], (index % vocab)[:, None]], dim=1)
        ended = prefixes[:, -1] == eos_id
        for i in ended.nonzero().flatten():
            done.append((_wu(best[i].item(), length, length_penalty), prefixes[i, 1:].tolist()))
        prefixes, totals = prefixes[~ended], best[~ended, None]
        if len(prefixes) == 0:
            break
    for prefix, total in zip(prefixes, totals, strict=True):
        done.append((_wu(total.item(), len(prefix) - 1, length_penalty), prefix[1:].tolist()))
    score, tokens = max(done)
    return tokens, score


def beam_by_heap(next_log_probs, bos_id, eos_id, beam_size, max_length, length_penalty=0.6):
    """One call for each prefix, and a heap that never holds more than the beam."""
    if beam_size < 1:
        raise ValueError("beam_size")
    if max_length < 1:
        raise ValueError("max_length")
    live, best = [(0.0, (bos_id,))], (-math.inf, ())
    for _ in range(max_length):
        heap = []
        for total, prefix in live:
            log_p = next_log_probs(torch.tensor([prefix]))[0]
            for token, value in enumerate(log_p):
                candidate = (total + value.item(), (*prefix, token))
                if math.isinf(candidate[0]):
                    continue
                if len(heap) < beam_size:
                    heapq.heappush(heap, candidate)
                else:
                    heapq.heappushpop(heap, candidate)
        live = []
        for total, prefix in heap:
            if prefix[-1] == eos_id:
                best = max(best, (_wu(total, len(prefix) - 1, length_penalty), prefix))
            else:
                live.append((total, prefix))
        if not live:
            break
    for total, prefix in live:
        best = max(best, (_wu(total, len(prefix) - 1, length_penalty), prefix))
    return list(best[1][1:]), best[0]


def beam_by_recursion(next_log_probs, bos_id, eos_id, beam_size, max_length, length_penalty=0.6):
    if beam_size < 1 or max_length < 1:
        raise ValueError("at least 1")

    def all_from(live, left):
        """What ends or is cut off, from these hypotheses on."""
        if not live or left == 0:
            return live
        rows = next_log_probs(torch.tensor([[bos_id, *tokens] for _, tokens in live])).double()
        grown = [
            (total + row[token].item(), [*tokens, token])
            for (total, tokens), row in zip(live, rows, strict=True)
            for token in range(len(row))
        ]
        best = sorted((g for g in grown if g[0] > -math.inf), reverse=True)[:beam_size]
        ended = [g for g in best if g[1][-1] == eos_id]
        return ended + all_from([g for g in best if g[1][-1] != eos_id], left - 1)

    scored = [(_wu(t, len(w), length_penalty), w) for t, w in all_from([(0.0, [])], max_length)]
    score, tokens = sorted(scored)[-1]
    return tokens, score


def beam_by_numpy(next_log_probs, bos_id, eos_id, beam_size, max_length, length_penalty=0.6):
    if beam_size < 1 or max_length < 1:
        raise ValueError("at least 1")
    prefixes, totals = np.full((1, 1), bos_id), np.zeros(1)
    found = {}
    for _ in range(max_length):
        scores = totals[:, None] + next_log_probs(torch.from_numpy(prefixes)).numpy()
        order = np.argsort(-scores, axis=None, kind="stable")[:beam_size]
        row, token = np.unravel_index(order, scores.shape)
        totals = scores[row, token]
        prefixes = np.concatenate([prefixes[row], token[:, None]], axis=1)
        prefixes, totals = prefixes[np.isfinite(totals)], totals[np.isfinite(totals)]
        ended = prefixes[:, -1] == eos_id
        found |= {tuple(p[1:]): t for p, t in zip(prefixes[ended], totals[ended], strict=True)}
        prefixes, totals = prefixes[~ended], totals[~ended]
        if not len(prefixes):
            break
    found |= {tuple(p[1:]): t for p, t in zip(prefixes, totals, strict=True)}
    scores = {tokens: _wu(total, len(tokens), length_penalty) for tokens, total in found.items()}
    best = max(scores, key=scores.get)
    return [int(token) for token in best], float(scores[best])


def beam_with_the_best_of_each_first(
    next_log_probs, bos_id, eos_id, beam_size, max_length, length_penalty=0.6
):
    """No hypothesis can give more than beam_size of the best, so no more of each are looked at."""
    if beam_size < 1 or max_length < 1:
        raise ValueError("at least 1")
    live, done = {(): 0.0}, {}
    for _ in range(max_length):
        if not live:
            break
        rows = next_log_probs(torch.tensor([[bos_id, *tokens] for tokens in live]))
        values, tokens = rows.topk(min(beam_size, rows.size(-1)), dim=-1)
        grown = {}
        for i, (prefix, total) in enumerate(live.items()):
            for value, token in zip(values[i].tolist(), tokens[i].tolist(), strict=True):
                if value > -math.inf:
                    grown[(*prefix, token)] = total + value
        best = sorted(grown, key=grown.get)[-beam_size:]
        done |= {prefix: grown[prefix] for prefix in best if prefix[-1] == eos_id}
        live = {prefix: grown[prefix] for prefix in best if prefix[-1] != eos_id}
    done |= live
    best = max(done, key=lambda prefix: _wu(done[prefix], len(prefix), length_penalty))
    return list(best), _wu(done[best], len(best), length_penalty)


def beam_that_stops_when_nothing_can_win(
    next_log_probs, bos_id, eos_id, beam_size, max_length, length_penalty=0.6
):
    """A sum only falls, so no score can exceed the present sum at the greatest length."""
    if beam_size < 1 or max_length < 1:
        raise ValueError("at least 1")
    live, best = [([bos_id], 0.0)], None

    def compete(tokens, total):
        nonlocal best
        score = _wu(total, len(tokens) - 1, length_penalty)
        if best is None or score > best[1]:
            best = (tokens[1:], score)

    for _ in range(max_length):
        grown = []
        for tokens, total in live:
            row = next_log_probs(torch.tensor(tokens).unsqueeze(0)).squeeze(0)
            grown += [([*tokens, i], total + float(p)) for i, p in enumerate(row) if p > -math.inf]
        live = []
        for tokens, total in sorted(grown, key=lambda hypothesis: -hypothesis[1])[:beam_size]:
            if tokens[-1] == eos_id:
                compete(tokens, total)
            else:
                live.append((tokens, total))
        hope = max((_wu(total, max_length, length_penalty) for _, total in live), default=-math.inf)
        if best is not None and hope < best[1]:
            live = []
        if not live:
            break
    for tokens, total in live:
        compete(tokens, total)
    return best


def beam_in_float32(next_log_probs, bos_id, eos_id, beam_size, max_length, length_penalty=0.6):
    if beam_size <= 0 or max_length <= 0:
        raise ValueError("at least 1")
    live = [{"ids": torch.tensor([bos_id]), "sum": torch.tensor(0.0)}]
    done = []
    for _ in range(max_length):
        rows = next_log_probs(torch.stack([h["ids"] for h in live])).float()
        sums = torch.stack([h["sum"] for h in live])[:, None] + rows
        order = sums.flatten().argsort(descending=True)[:beam_size].tolist()
        grown = []
        for index in order:
            parent, token = divmod(index, rows.size(1))
            if not torch.isinf(sums[parent, token]):
                ids = torch.cat([live[parent]["ids"], torch.tensor([token])])
                grown.append({"ids": ids, "sum": sums[parent, token]})
        done += [h for h in grown if h["ids"][-1] == eos_id]
        live = [h for h in grown if h["ids"][-1] != eos_id]
        if len(live) == 0:
            break
    best = max(done + live, key=lambda h: _wu(h["sum"], len(h["ids"]) - 1, length_penalty))
    score = _wu(best["sum"], len(best["ids"]) - 1, length_penalty)
    return best["ids"][1:].tolist(), score.item()


ALTERNATIVES |= {
    "transformer/noam_learning_rate": [
        noam_by_cases,
        noam_by_logarithms,
        noam_in_torch,
        noam_in_numpy,
        noam_as_a_fraction_of_the_peak,
    ],
    "transformer/label_smoothed_cross_entropy": [
        smoothing_by_gather,
        smoothing_by_scatter,
        smoothing_of_chosen_rows,
        smoothing_by_nll_loss,
        smoothing_by_divergence,
        smoothing_token_by_token,
        smoothing_in_float64,
        smoothing_by_einsum,
    ],
    "transformer/greedy_decode": [
        greedy_by_flags,
        greedy_asking_the_target,
        greedy_of_the_living,
        greedy_with_a_whole_target,
        greedy_sentence_by_sentence,
        greedy_by_stacking,
        greedy_again_and_again,
    ],
    "transformer/beam_search": [
        beam_by_lists,
        beam_by_tensors,
        beam_by_heap,
        beam_by_recursion,
        beam_by_numpy,
        beam_with_the_best_of_each_first,
        beam_that_stops_when_nothing_can_win,
        beam_in_float32,
    ],
}

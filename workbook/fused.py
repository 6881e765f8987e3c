"""Chapter 2's attention on PyTorch's fused kernels: the same numbers, sooner, without weights.

A fused kernel never writes the matrix of attention weights to memory, so there are none to
return. Train with :func:`fuse`, and load the parameters back into your own module when you want
to look at its maps: the names are the same.
"""

import torch
from torch import nn
from torch.nn import functional as F


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
    dropout: float = 0.0,
    causal: bool = False,
) -> torch.Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017, 3.2.1) in one kernel.

    query (..., L_q, d_k), key (..., L_k, d_k), value (..., L_k, d_v); mask: boolean, True = may
    attend, broadcasts to (..., L_q, L_k); dropout: the share of weights to drop; causal: bar the
    future of each query, in place of a mask (on CUDA the fastest kernel takes no mask).
    Returns (..., L_q, d_v); a query that may attend to nothing gets 0.
    """
    output = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=causal
    )
    if mask is None:
        return output
    # Not every kernel gives 0 for a row without keys; some average all values.
    return output.masked_fill(~mask.any(dim=-1, keepdim=True), 0.0)


class MultiHeadAttention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, 3.2.2) with chapter 2's parameter names.

    query (batch, L_q, d_model), key and value (batch, L_k, d_model); mask: boolean, True = may
    attend, broadcasts to (batch, L_q, L_k). Returns output (batch, L_q, d_model) and None.
    With ``causal`` each query is barred from its future, whatever mask it is handed.
    Raises ``ValueError`` where ``num_heads`` does not divide ``d_model``.
    """

    def __init__(
        self, d_model: int, num_heads: int, dropout: float = 0.0, causal: bool = False
    ) -> None:
        super().__init__()
        if d_model % num_heads:
            raise ValueError(f"d_model = {d_model} cannot be split into {num_heads} equal heads.")
        self.num_heads, self.dropout, self.causal = num_heads, dropout, causal
        self.w_q = nn.Linear(d_model, d_model)
        self.w_k = nn.Linear(d_model, d_model)
        self.w_v = nn.Linear(d_model, d_model)
        self.w_o = nn.Linear(d_model, d_model)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, None]:
        q, k, v = (
            layer(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, L, d_head)
            for layer, x in ((self.w_q, query), (self.w_k, key), (self.w_v, value))
        )
        if self.causal:
            mask = None
        elif mask is not None and mask.ndim > 2:
            mask = mask.unsqueeze(-3)  # one mask for all heads
        rate = self.dropout if self.training else 0.0
        read = attention(q, k, v, mask, rate, self.causal)  # (B, heads, L_q, d_head)
        return self.w_o(read.transpose(1, 2).flatten(2)), None


def fuse(model: nn.Module, num_heads: int, dropout: float = 0.0, causal: bool = False) -> nn.Module:
    """Replace, in place, every multi-head attention in ``model`` by the fused one.

    What has the layers ``w_q``, ``w_k``, ``w_v`` and ``w_o`` counts as one. The parameters stay
    the same tensors, under the same names, so a state dictionary fits before and after.
    ``causal`` says that every attention in the model is causal self-attention: then the kernel
    bars the future itself, and the masks that the layers hand over are not looked at.
    Returns ``model``. Raises ``ValueError`` where nothing was found to replace.
    """
    layers = ("w_q", "w_k", "w_v", "w_o")
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if all(isinstance(getattr(child, layer, None), nn.Linear) for layer in layers)
    ]
    if not found:
        raise ValueError(f"No module in this model has the layers {', '.join(layers)}.")
    for parent, name, child in found:
        # On "meta" no memory is taken for parameters that are replaced at once.
        with torch.device("meta"):
            fused = MultiHeadAttention(child.w_q.out_features, num_heads, dropout, causal)
        for layer in layers:
            setattr(fused, layer, getattr(child, layer))
        setattr(parent, name, fused.train(child.training))
    return model

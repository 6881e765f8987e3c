"""Chapter 4's layers and Transformer against implementations that are not ours."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from conftest import solution
from torch import Tensor, nn

DTYPES = [torch.float32, torch.float64]
MASKS = ["none", "causal", "padding", "both"]


# ---- layer normalization and feed-forward network ------------------------------------------


def norms(width: int, eps: float, dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    """Our layer normalization and torch's, with the same random numbers in both."""
    ours = solution("transformer/LayerNorm")(width, eps).to(dtype)
    theirs = nn.LayerNorm(width, eps, dtype=dtype)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(6,), (3, 8), (2, 5, 7), (4, 4, 4), (2, 3, 4, 5), (3, 2, 2)])
@pytest.mark.parametrize(("scale", "eps"), [(1.0, 1e-5), (100.0, 1e-5), (1e-3, 1e-5), (1.0, 0.3)])
def test_layer_norm_and_its_gradients_equal_torch(
    dtype: torch.dtype, shape: tuple[int, ...], scale: float, eps: float
) -> None:
    torch.manual_seed(1)
    ours, theirs = norms(shape[-1], eps, dtype)
    x = (scale * torch.randn(shape, dtype=dtype)).requires_grad_()
    torch.testing.assert_close(ours(x), theirs(x))
    upstream = torch.randn(shape, dtype=dtype)
    found = [
        torch.autograd.grad((norm(x) * upstream).sum(), [x, norm.weight, norm.bias])
        for norm in (ours, theirs)
    ]
    # The gradient is a difference of larger terms: where x is small it is large.
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4 / scale)


def test_layer_norm_begins_as_torchs() -> None:
    ours, theirs = solution("transformer/LayerNorm")(5), nn.LayerNorm(5)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    x = torch.randn(2, 5)
    torch.testing.assert_close(ours(x), theirs(x))


def test_layer_norm_of_one_number_is_its_bias() -> None:
    ours, theirs = norms(1, 1e-5, torch.float32)
    x = torch.randn(3, 2, 1)
    torch.testing.assert_close(ours(x), theirs(x))
    assert torch.equal(ours(x), ours.bias.expand(3, 2, 1))


def test_layer_norm_of_equal_numbers_is_its_bias_and_has_torchs_gradient() -> None:
    ours, theirs = norms(4, 1e-5, torch.float32)
    x = torch.full((3, 4), 7.0, requires_grad=True)
    assert torch.equal(ours(x), ours.bias.expand(3, 4))
    upstream = torch.randn(3, 4)
    found = [torch.autograd.grad((norm(x) * upstream).sum(), x) for norm in (ours, theirs)]
    torch.testing.assert_close(*found)


def test_layer_norm_far_from_zero_equals_float64() -> None:
    """Where the mean of the squares minus the square of the mean has no right digit left."""
    ours, _ = norms(8, 1e-5, torch.float32)
    x = 16384 + torch.randint(0, 4, (5, 8)).float()
    expected = nn.functional.layer_norm(
        x.double(), (8,), ours.weight.double(), ours.bias.double(), 1e-5
    )
    torch.testing.assert_close(ours(x), expected.float())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("training", [False, True])
def test_feed_forward_equals_a_sequence_of_torchs_layers(
    dtype: torch.dtype, training: bool
) -> None:
    ours = solution("transformer/FeedForward")(6, 11, 0.4).to(dtype).train(training)
    theirs = nn.Sequential(nn.Linear(6, 11), nn.ReLU(), nn.Dropout(0.4), nn.Linear(11, 6)).to(dtype)
    for layer, name in ((theirs[0], "w_1"), (theirs[3], "w_2")):
        layer.load_state_dict(getattr(ours, name).state_dict())
    theirs.train(training)
    x = torch.randn(2, 5, 6, dtype=dtype, requires_grad=True)
    outputs, gradients = [], []
    for network in (ours, theirs):
        torch.manual_seed(3)  # the same numbers are dropped
        outputs.append(network(x))
        gradients.append(torch.autograd.grad(outputs[-1].sin().sum(), [x, *network.parameters()]))
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(*gradients)


# ---- layers --------------------------------------------------------------------------------


def scramble(module: nn.Module) -> None:
    """Random numbers in all parameters: none may be 0 or 1 by accident, those of norms too."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 1 / math.sqrt(parameter.shape[-1]) if parameter.ndim > 1 else 1)


def copy_layer(ours: nn.Module, theirs: nn.Module) -> None:
    """Gives torch's encoder or decoder layer the parameters of ours."""
    state = {}
    for name, parameter in ours.state_dict().items():
        sublayer, _, rest = name.partition(".")
        if sublayer == "feed_forward":
            state[rest.replace("w_1", "linear1").replace("w_2", "linear2")] = parameter
        elif rest.startswith("w_o"):
            state[f"{sublayer}.out_proj.{rest.removeprefix('w_o.')}"] = parameter
        elif sublayer.startswith("norm"):
            state[name] = parameter
    for name in ("self_attn", "multihead_attn"):
        if attention := getattr(ours, name, None):
            layers = attention.w_q, attention.w_k, attention.w_v
            state[f"{name}.in_proj_weight"] = torch.cat([layer.weight for layer in layers])
            state[f"{name}.in_proj_bias"] = torch.cat([layer.bias for layer in layers])
    theirs.load_state_dict(state)


def layers(
    kind: str, dtype: torch.dtype, width: int, heads: int, hidden: int, dropout: float = 0.0
) -> tuple[nn.Module, nn.Module]:
    """Our layer and torch's, with the same random parameters."""
    ours = solution(f"transformer/{kind}Layer")(width, heads, hidden, dropout).to(dtype)
    scramble(ours)
    build = {"Encoder": nn.TransformerEncoderLayer, "Decoder": nn.TransformerDecoderLayer}[kind]
    theirs = build(width, heads, hidden, dropout, batch_first=True, norm_first=False).to(dtype)
    copy_layer(ours, theirs)
    return ours, theirs


def causal(length: int) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool).tril()


def beginnings(batch: int, length: int) -> Tensor:
    """Which positions are words: the first one at least."""
    return torch.arange(length) < torch.randint(1, length + 1, (batch, 1))


def ours_of(kind: str, words: Tensor) -> Tensor | None:
    """The mask as our layers take it: one, True where a position may be read."""
    mask = {
        "none": None,
        "causal": causal(words.shape[1]),
        "padding": words[:, None],
        "both": words[:, None] & causal(words.shape[1]),
    }
    return mask[kind]


def theirs_of(kind: str, words: Tensor, prefix: str) -> dict[str, Tensor]:
    """The same as torch's layers take it: two masks, True where a position is barred."""
    masks = {}
    if kind in ("causal", "both"):
        masks[f"{prefix}_mask"] = ~causal(words.shape[1])
    if kind in ("padding", "both"):
        masks[f"{prefix}_key_padding_mask"] = ~words
    return masks


def gradients_of(module: nn.Module, output: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """Gradients at the inputs and at what both modules name alike."""
    own = dict(module.named_parameters())
    names = [name for name in own if name.startswith("norm")]
    shared = [own[name] for name in sorted(names)]
    return list(torch.autograd.grad(output.sin().sum(), [*inputs, *shared]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("width", "heads", "hidden"), [(8, 2, 12), (12, 3, 5), (6, 1, 6)])
def test_encoder_layer_and_its_gradients_equal_torch(
    dtype: torch.dtype, mask: str, width: int, heads: int, hidden: int
) -> None:
    torch.manual_seed(4)
    ours, theirs = layers("Encoder", dtype, width, heads, hidden)
    words = beginnings(4, 5)
    x = torch.randn(4, 5, width, dtype=dtype, requires_grad=True)
    outputs = [ours(x, ours_of(mask, words)), theirs(x, **theirs_of(mask, words, "src"))]
    torch.testing.assert_close(*outputs)
    found = [gradients_of(*pair, [x]) for pair in zip((ours, theirs), outputs, strict=True)]
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("target", "source"), [(4, 4), (3, 6), (6, 2), (1, 1)])
def test_decoder_layer_and_its_gradients_equal_torch(
    dtype: torch.dtype, mask: str, padded: bool, target: int, source: int
) -> None:
    torch.manual_seed(5)
    ours, theirs = layers("Decoder", dtype, 8, 4, 10)
    words, read = beginnings(3, target), beginnings(3, source)
    x = torch.randn(3, target, 8, dtype=dtype, requires_grad=True)
    memory = torch.randn(3, source, 8, dtype=dtype, requires_grad=True)
    barred = {"memory_key_padding_mask": ~read} if padded else {}
    outputs = [
        ours(x, memory, ours_of(mask, words), read[:, None] if padded else None),
        theirs(x, memory, **theirs_of(mask, words, "tgt"), **barred),
    ]
    torch.testing.assert_close(*outputs)
    found = [gradients_of(*pair, [x, memory]) for pair in zip((ours, theirs), outputs, strict=True)]
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("kind", ["Encoder", "Decoder"])
@pytest.mark.parametrize("rate", [0.3, 1.0])
@pytest.mark.parametrize("training", [False, True])
def test_dropout_of_a_layer_equals_torchs(kind: str, rate: float, training: bool) -> None:
    """In training mode on average, since the numbers are not drawn in the same order.

    A rate of 1 leaves nothing to chance.
    """
    torch.manual_seed(6)
    ours, theirs = layers(kind, torch.float32, 8, 2, 12, rate)
    inputs = [torch.randn(1, 3, 8) for _ in range(1 if kind == "Encoder" else 2)]
    random = training and rate < 1
    batch = [x.repeat(20_000 if random else 1, 1, 1) for x in inputs]
    with torch.no_grad():
        found = [layer.train(training)(*batch) for layer in (ours, theirs)]
    if not random:
        torch.testing.assert_close(*found)
        return
    for moment in (1, 2):
        means = [output.pow(moment).mean(dim=0) for output in found]
        spread = found[1].pow(moment).std(dim=0) * math.sqrt(2 / 20_000)
        assert ((means[0] - means[1]).abs() < 5 * spread).all()
    # That the rate reaches the attention and the network inside shows in the averages: without it
    # they differ.
    for part in ours.children():
        if not isinstance(part, nn.Dropout):
            part.eval()
    with torch.no_grad():
        changed = ours(*batch).pow(2).mean(dim=0)
    assert not ((changed - means[1]).abs() < 5 * spread).all()


# ---- Transformer ---------------------------------------------------------------------------


def sinusoids(length: int, width: int) -> Tensor:
    """The table of section 3.5, number by number."""
    return torch.tensor(
        [
            [
                (math.cos if column % 2 else math.sin)(
                    position / 10000 ** (2 * (column // 2) / width)
                )
                for column in range(width)
            ]
            for position in range(length)
        ]
    )


class Torchs(nn.Module):
    """The Transformer of the paper, put together from torch's stacks, with our parameters."""

    def __init__(self, ours: nn.Module, width: int, heads: int, number: int, hidden: int) -> None:
        super().__init__()
        sizes: Any = (width, heads, hidden, 0.0)
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(*sizes, batch_first=True), number, enable_nested_tensor=False
        )
        self.decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(*sizes, batch_first=True), number
        )
        self.to(ours.embedding.weight.dtype)
        for half in ("encoder", "decoder"):
            for mine, other in zip(getattr(ours, half), getattr(self, half).layers, strict=True):
                copy_layer(mine, other)
        self.matrix = nn.Parameter(ours.embedding.weight.detach().clone())

    def embed(self, ids: Tensor) -> Tensor:
        width = self.matrix.shape[1]
        table = sinusoids(ids.shape[1], width).to(self.matrix)
        return math.sqrt(width) * self.matrix[ids] + table

    def forward(self, source: Tensor, target: Tensor, pad_id: int) -> tuple[Tensor, Tensor]:
        memory = self.encoder(self.embed(source), src_key_padding_mask=source == pad_id)
        output = self.decoder(
            self.embed(target),
            memory,
            tgt_mask=~causal(target.shape[1]),
            tgt_key_padding_mask=target == pad_id,
            memory_key_padding_mask=source == pad_id,
        )
        return memory, output @ self.matrix.T


def sentences(batch: int, length: int, pad_id: int) -> Tensor:
    """Token ids below 13, padded at the end."""
    ids = torch.randint(0, 12, (batch, length))
    ids += ids >= pad_id
    return ids.masked_fill(~beginnings(batch, length), pad_id)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("number", "pad_id"), [(1, 0), (2, 0), (3, 5)])
@pytest.mark.parametrize(("source", "target"), [(4, 4), (7, 3), (2, 6), (1, 1)])
def test_transformer_and_its_gradients_equal_torchs_stacks(
    dtype: torch.dtype, number: int, pad_id: int, source: int, target: int
) -> None:
    torch.manual_seed(7)
    sizes = (12, 3, number, 10)
    ours = solution("transformer/Transformer")(13, *sizes, 0.0, pad_id).to(dtype)
    scramble(ours)
    theirs = Torchs(ours, *sizes)
    ids = sentences(4, source, pad_id), sentences(4, target, pad_id)
    memory, logits = theirs(*ids, pad_id)
    read, written = ids[0] != pad_id, ids[1] != pad_id
    # What stands at padding nobody reads: torch's stacks may differ there.
    torch.testing.assert_close(ours.encode(ids[0])[read], memory[read])
    torch.testing.assert_close(ours(*ids)[written], logits[written])
    torch.testing.assert_close(
        ours.decode(ids[1], memory.detach(), ids[0])[written], logits[written]
    )
    pairs = [(ours.embedding.weight, theirs.matrix)]
    for half in ("encoder", "decoder"):
        for mine, other in zip(getattr(ours, half), getattr(theirs, half).layers, strict=True):
            pairs += [
                (mine.norm1.weight, other.norm1.weight),
                (mine.feed_forward.w_1.weight, other.linear1.weight),
                (mine.self_attn.w_o.weight, other.self_attn.out_proj.weight),
            ]
    found = [
        torch.autograd.grad(output[written].sin().sum(), [pair[side] for pair in pairs])
        for side, output in enumerate((ours(*ids), logits))
    ]
    tolerance = {"rtol": 1e-3, "atol": 1e-4} if dtype == torch.float32 else {}
    torch.testing.assert_close(*found, **tolerance)


def test_later_words_change_no_earlier_logit_and_padding_changes_none() -> None:
    torch.manual_seed(8)
    model = solution("transformer/Transformer")(13, 12, 3, 2, 10, 0.0)
    source, target = torch.randint(1, 13, (2, 5)), torch.randint(1, 13, (2, 6))
    logits = model(source, target)
    for position in range(1, 6):
        later = target.clone()
        later[:, position:] = torch.randint(1, 13, (2, 6 - position))
        torch.testing.assert_close(model(source, later)[:, :position], logits[:, :position])
    longer = [torch.cat([ids, torch.zeros(2, 3).long()], dim=1) for ids in (source, target)]
    torch.testing.assert_close(model(*longer)[:, :6], logits)


@pytest.mark.parametrize(
    ("width", "heads", "hidden", "millions"), [(512, 8, 2048, 65), (1024, 16, 4096, 213)]
)
def test_parameters_are_as_many_as_the_paper_says(
    width: int, heads: int, hidden: int, millions: int
) -> None:
    """Table 3: 65 and 213 million, with a vocabulary of about 37,000."""
    with torch.device("meta"):
        ours = solution("transformer/Transformer")(37_000, width, heads, 6, hidden)
        theirs = nn.Transformer(width, heads, 6, 6, hidden, batch_first=True)
    count = sum(parameter.numel() for parameter in ours.parameters())
    # nn.Transformer has no embeddings, and a further norm after each stack.
    stacks = sum(parameter.numel() for parameter in theirs.parameters()) - 2 * 2 * width
    assert count == stacks + 37_000 * width
    attention, network = 4 * (width**2 + width), 2 * width * hidden + width + hidden
    assert stacks == 6 * (3 * attention + 2 * network + 5 * 2 * width)
    assert count / 1e6 == pytest.approx(millions, rel=0.035)


def test_the_base_model_is_the_default() -> None:
    with torch.device("meta"):
        model = solution("transformer/Transformer")(100)
    assert len(model.encoder) == len(model.decoder) == 6
    assert model.embedding.weight.shape == (100, 512)
    assert model.encoder[0].feed_forward.w_1.weight.shape == (2048, 512)
    assert {part.p for part in model.modules() if isinstance(part, nn.Dropout)} == {0.1}


def test_embedding_begins_as_wide_as_the_sinusoids() -> None:
    torch.manual_seed(9)
    model = solution("transformer/Transformer")(4000, 64, 2, 0, 8)
    assert model.embedding.weight.std().item() == pytest.approx(64**-0.5, rel=0.02)


def test_a_source_of_nothing_but_padding_gives_numbers_and_gradients() -> None:
    """Torch's own layers give NaN here."""
    model = solution("transformer/Transformer")(13, 12, 3, 2, 10, 0.0)
    source = torch.tensor([[1, 2, 3], [0, 0, 0]])
    logits = model(source, torch.tensor([[4, 5], [6, 7]]))
    logits.sum().backward()
    assert logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    alone = model(source[:1], torch.tensor([[4, 5]]))
    torch.testing.assert_close(logits[:1], alone)

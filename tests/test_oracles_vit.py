"""Chapter 7 against implementations that are not ours.

Hugging Face's ViT and MAE with the same parameters, torch's own ways to cut images and its encoder
layer, and distances of scipy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from torch import Tensor, nn
from torch.func import functional_call
from transformers import ViTConfig, ViTForImageClassification, ViTMAEConfig, ViTMAEForPreTraining

from workbook.ready.vit import (
    PatchEmbedding,
    VisionTransformer,
    ViTBlock,
    interpolate_positions,
    mean_attention_distance,
    patchify,
    unpatchify,
)

DTYPES = [torch.float32, torch.float64]
TOLERANCE: dict[torch.dtype, dict[str, float]] = {
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
    torch.float64: {"rtol": 1e-10, "atol": 1e-10},
}


def randn(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """The same numbers in every precision."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


@torch.no_grad()
def shaken(module: nn.Module, dtype: torch.dtype, seed: int = 0) -> None:
    """Puts random values into all parameters, so that none is 0 or 1 by chance."""
    for index, parameter in enumerate(module.to(dtype).parameters()):
        parameter.add_(randn(*parameter.shape, dtype=dtype, seed=seed + index), alpha=0.2)


# ---- patches -------------------------------------------------------------------------------

SIZES = {
    "batch": st.integers(1, 3),
    "channels": st.integers(1, 4),
    "rows": st.integers(1, 4),
    "columns": st.integers(1, 4),
    "size": st.integers(1, 5),
}


def mae(image_size: int, size: int, channels: int) -> ViTMAEForPreTraining:
    """The MAE of Hugging Face, as small as can be: only its two functions are used."""
    config = ViTMAEConfig(
        hidden_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=4,
        decoder_hidden_size=4,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=1,
        decoder_intermediate_size=4,
        image_size=image_size,
        patch_size=size,
        num_channels=channels,
    )
    with torch.device("meta"):
        return ViTMAEForPreTraining(config)


@given(**SIZES)
@settings(deadline=None, max_examples=100)
def test_patches_are_those_of_unfold_and_pixel_unshuffle(
    batch: int, channels: int, rows: int, columns: int, size: int
) -> None:
    images = randn(batch, channels, rows * size, columns * size)
    patches = patchify(images, size)
    assert patches.shape == (batch, rows * columns, size * size * channels)
    # Both have the channel before the row and the column.
    theirs = [
        F.unfold(images, size, stride=size).unflatten(1, (channels, -1)),
        F.pixel_unshuffle(images, size).unflatten(1, (channels, -1)).flatten(3),
    ]
    for expected in theirs:  # (batch, channels, place in patch, patches)
        assert torch.equal(patches, expected.permute(0, 3, 2, 1).flatten(2))


@given(**SIZES)
@settings(deadline=None, max_examples=50)
def test_each_number_of_a_patch_is_the_pixel_that_it_should_be(
    batch: int, channels: int, rows: int, columns: int, size: int
) -> None:
    count = batch * channels * rows * columns * size * size
    images = torch.arange(float(count)).view(batch, channels, rows * size, columns * size)
    found, nested = patchify(images, size).tolist(), images.tolist()
    for image, row, column in product(range(batch), range(rows), range(columns)):
        expected = [
            nested[image][channel][row * size + below][column * size + right]
            for below, right, channel in product(range(size), range(size), range(channels))
        ]
        assert found[image][row * columns + column] == expected


@given(**SIZES, dtype=st.sampled_from([torch.float16, torch.bfloat16, *DTYPES]))
@settings(deadline=None, max_examples=100)
def test_patches_and_images_are_those_of_mae(
    batch: int, channels: int, rows: int, columns: int, size: int, dtype: torch.dtype
) -> None:
    theirs = mae(2 * size, size, channels)
    images = randn(batch, channels, rows * size, columns * size, dtype=dtype)
    patches = patchify(images, size)
    # Without the flag it takes squares only.
    expected = theirs.patchify(images, interpolate_pos_encoding=True)
    assert patches.dtype == dtype
    assert torch.equal(patches, expected)
    others = randn(*patches.shape, dtype=dtype, seed=1)
    found = unpatchify(others, size, channels, (rows, columns))
    assert found.dtype == dtype
    assert torch.equal(found, theirs.unpatchify(others, (rows * size, columns * size)))


@given(**SIZES, dtype=st.sampled_from([torch.bfloat16, *DTYPES]), last=st.booleans())
@settings(deadline=None, max_examples=100)
def test_patches_go_back_to_where_they_came_from(
    batch: int,
    channels: int,
    rows: int,
    columns: int,
    size: int,
    dtype: torch.dtype,
    last: bool,
) -> None:
    images = randn(batch, channels, rows * size, columns * size, dtype=dtype)
    if last:
        images = images.contiguous(memory_format=torch.channels_last)
    patches = patchify(images, size)
    assert torch.equal(unpatchify(patches, size, channels, (rows, columns)), images)
    if rows == columns:
        assert torch.equal(unpatchify(patches, size, channels), images)
    others = randn(*patches.shape, dtype=dtype, seed=1)
    back = patchify(unpatchify(others, size, channels, (rows, columns)), size)
    assert torch.equal(back, others)


@given(**SIZES)
@settings(deadline=None, max_examples=50)
def test_images_are_those_of_fold(
    batch: int, channels: int, rows: int, columns: int, size: int
) -> None:
    patches = randn(batch, rows * columns, size * size * channels)
    first = patches.unflatten(-1, (-1, channels)).permute(0, 3, 2, 1).flatten(1, 2)
    expected = F.fold(first, (rows * size, columns * size), size, stride=size)
    assert torch.equal(unpatchify(patches, size, channels, (rows, columns)), expected)


@given(**SIZES, count=st.integers(1, 30), numbers=st.integers(1, 30), squared=st.booleans())
@settings(deadline=None, max_examples=200)
def test_numbers_that_do_not_fit_are_refused_and_no_others(
    batch: int,
    channels: int,
    rows: int,
    columns: int,
    size: int,
    count: int,
    numbers: int,
    squared: bool,
) -> None:
    grid = None if squared else (rows, columns)
    square = math.isqrt(count) ** 2 == count
    fits = (square if squared else rows * columns == count) and numbers == size * size * channels
    patches = torch.zeros(batch, count, numbers)
    if fits:
        assert unpatchify(patches, size, channels, grid).numel() == patches.numel()
    else:
        with pytest.raises(ValueError, match=rf"\b({count}|{numbers})\b"):
            unpatchify(patches, size, channels, grid)


@given(height=st.integers(1, 40), width=st.integers(1, 40), size=st.integers(1, 12))
@settings(deadline=None, max_examples=200)
def test_images_that_cannot_be_cut_are_refused_and_no_others(
    height: int, width: int, size: int
) -> None:
    images = torch.zeros(1, 1, height, width)
    embedding = PatchEmbedding(size, 1, 2)
    if height % size == 0 == width % size:
        # What is left over at the border, torch's convolution leaves out.
        expected = F.conv2d(images, torch.zeros(2, 1, size, size), stride=size).flatten(2).mT
        assert embedding(images).shape == expected.shape
    else:
        for cut in (lambda images: patchify(images, size), embedding):
            with pytest.raises(ValueError, match=str(height)) as caught:
                cut(images)
            for number in (width, size):
                assert str(number) in str(caught.value)


def as_kernel(weight: Tensor, size: int, channels: int) -> Tensor:
    """A linear layer's weight as that of a convolution, (d_model, channels, rows, columns)."""
    return weight.unflatten(1, (size, size, channels)).permute(0, 3, 1, 2)


@given(**SIZES, width=st.integers(1, 7), dtype=st.sampled_from(DTYPES))
@settings(deadline=None, max_examples=50)
def test_embedding_equals_a_convolution_with_its_gradients(
    batch: int,
    channels: int,
    rows: int,
    columns: int,
    size: int,
    width: int,
    dtype: torch.dtype,
) -> None:
    ours = PatchEmbedding(size, channels, width)
    shaken(ours, dtype)
    theirs = nn.Conv2d(channels, width, size, stride=size).to(dtype)
    layer = ours.projection
    with torch.no_grad():
        theirs.weight.copy_(as_kernel(layer.weight, size, channels))
        theirs.bias.copy_(layer.bias)
    images = randn(batch, channels, rows * size, columns * size, dtype=dtype).requires_grad_()
    found, expected = ours(images), theirs(images).flatten(2).transpose(1, 2)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected, **TOLERANCE[dtype])
    weight, *others = torch.autograd.grad(found.sin().sum(), [layer.weight, layer.bias, images])
    wanted = torch.autograd.grad(expected.sin().sum(), [theirs.weight, theirs.bias, images])
    gradients = [as_kernel(weight, size, channels), *others]
    torch.testing.assert_close(gradients, list(wanted), **TOLERANCE[dtype])


# ---- the model -----------------------------------------------------------------------------

# image size, patch size, channels, classes, width, layers, heads, width of the network
MODELS = [
    ((8, 12), 4, 3, 5, 24, 3, 4, 40),
    ((6, 2), 2, 1, 2, 6, 1, 1, 7),
    (9, 3, 2, 7, 15, 2, 5, 60),
    (4, 4, 3, 3, 8, 2, 2, 8),
]

# What Hugging Face computes in float64 on the fused kernel, it computes by hand in float32.
ATTENTIONS = [("sdpa", torch.float32), ("eager", torch.float32), ("sdpa", torch.float64)]

PARTS = {
    "attention.q_proj": "self_attn.w_q",
    "attention.k_proj": "self_attn.w_k",
    "attention.v_proj": "self_attn.w_v",
    "attention.o_proj": "self_attn.w_o",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "mlp.fc1": "w_1",
    "mlp.fc2": "w_2",
}


def their_names(ours: Mapping[str, Tensor], size: int, channels: int) -> dict[str, Tensor]:
    """Parameters, or their gradients, under Hugging Face's names and in its shapes."""
    projection = "vit.embeddings.patch_embeddings.projection"
    theirs = {
        "vit.embeddings.cls_token": ours["class_token"][None, None],
        "vit.embeddings.position_embeddings": ours["position"][None],
        f"{projection}.weight": as_kernel(ours["patch.projection.weight"], size, channels),
        f"{projection}.bias": ours["patch.projection.bias"],
    }
    for kind in ("weight", "bias"):
        theirs[f"vit.layernorm.{kind}"] = ours[f"norm.{kind}"]
        theirs[f"classifier.{kind}"] = ours[f"head.{kind}"]
        for i in range(sum(name.endswith(".norm1.bias") for name in ours)):
            for other, mine in PARTS.items():
                theirs[f"vit.layers.{i}.{other}.{kind}"] = ours[f"blocks.{i}.{mine}.{kind}"]
    return theirs


def config_of(sizes: tuple, dropout: float = 0.0, attention: str = "sdpa") -> ViTConfig:
    image_size, size, channels, classes, width, layers, heads, network = sizes
    return ViTConfig(
        image_size=image_size,
        patch_size=size,
        num_channels=channels,
        num_labels=classes,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=network,
        hidden_act="gelu",
        layer_norm_eps=1e-6,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        attn_implementation=attention,
    )


def models_of(
    sizes: tuple,
    dtype: torch.dtype = torch.float32,
    attention: str = "sdpa",
    dropout: float = 0.0,
) -> tuple[VisionTransformer, ViTForImageClassification]:
    """Our model and theirs with the same random parameters."""
    torch.manual_seed(sum(sizes[1:]))
    ours = VisionTransformer(*sizes, dropout).eval()
    shaken(ours, dtype)
    theirs = ViTForImageClassification(config_of(sizes, dropout, attention)).to(dtype).eval()
    state = their_names(ours.state_dict(), *sizes[1:3])
    assert state.keys() == theirs.state_dict().keys()
    theirs.load_state_dict(state)
    return ours, theirs


def images_for(sizes: tuple, batch: int, dtype: torch.dtype = torch.float32) -> Tensor:
    image_size = sizes[0] if isinstance(sizes[0], tuple) else (sizes[0], sizes[0])
    return randn(batch, sizes[2], *image_size, dtype=dtype, seed=batch)


@pytest.mark.parametrize(("attention", "dtype"), ATTENTIONS)
@pytest.mark.parametrize("sizes", MODELS)
@torch.no_grad()
def test_logits_vectors_and_what_each_block_returns_equal_hugging_faces(
    sizes: tuple, attention: str, dtype: torch.dtype
) -> None:
    ours, theirs = models_of(sizes, dtype, attention)
    blocks: list[Tensor] = []
    for block in ours.blocks:
        block.register_forward_hook(lambda module, inputs, output: blocks.append(output))
    for batch in (1, 3):
        images = images_for(sizes, batch, dtype)
        expected = theirs(images, output_hidden_states=True)
        vectors = ours.encode(images)
        # Theirs begin with the sum of patches and positions.
        torch.testing.assert_close(blocks, list(expected.hidden_states[1:]), **TOLERANCE[dtype])
        last = theirs.vit(images).last_hidden_state
        assert vectors.dtype == dtype
        torch.testing.assert_close(vectors, last, **TOLERANCE[dtype])
        torch.testing.assert_close(ours(images), expected.logits, **TOLERANCE[dtype])
        blocks.clear()


@pytest.mark.parametrize(("attention", "dtype"), ATTENTIONS)
@pytest.mark.parametrize("sizes", MODELS)
def test_gradients_of_a_loss_equal_hugging_faces(
    sizes: tuple, attention: str, dtype: torch.dtype
) -> None:
    ours, theirs = models_of(sizes, dtype, attention)
    images = images_for(sizes, 3, dtype).requires_grad_()
    labels = torch.arange(3) % sizes[3]
    pixels = []
    for model in (ours, lambda images: theirs(images).logits):
        F.cross_entropy(model(images), labels).backward()
        pixels.append(images.grad)
        images.grad = None
    torch.testing.assert_close(*pixels, **TOLERANCE[dtype])
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    found = their_names(gradients, *sizes[1:3])
    wanted = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    torch.testing.assert_close(found, wanted, **TOLERANCE[dtype])


@pytest.mark.parametrize("sizes", MODELS)
def test_in_training_the_same_numbers_are_dropped(sizes: tuple) -> None:
    """Both draw for the sum, then in each block for the weights and for the two sublayers."""
    ours, theirs = models_of(sizes, attention="eager", dropout=0.3)
    images = images_for(sizes, 4)
    still = ours(images)
    for seed in range(3):
        torch.manual_seed(seed)
        found = ours.train()(images)
        torch.manual_seed(seed)
        expected = theirs.train()(images).logits
        torch.testing.assert_close(found, expected, **TOLERANCE[torch.float32])
        assert not torch.allclose(found, still, atol=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", MODELS)
@torch.no_grad()
def test_embeddings_equal_hugging_faces(sizes: tuple, dtype: torch.dtype) -> None:
    """A model without blocks: patches, class token and positions, then the last norm."""
    ours, theirs = models_of((*sizes[:5], 0, *sizes[6:]), dtype)
    images = images_for(sizes, 2, dtype)
    patches = theirs.vit.embeddings.patch_embeddings(images)
    torch.testing.assert_close(ours.patch(images), patches, **TOLERANCE[dtype])
    expected = theirs.vit.embeddings(images)
    torch.testing.assert_close(ours.encode(images), ours.norm(expected), **TOLERANCE[dtype])


@pytest.mark.parametrize("size", [(8, 8), (12, 8), (8, 12), (4, 24), (16, 12), (24, 4)])
def test_images_of_another_size_are_refused_where_hugging_face_refuses_them(
    size: tuple[int, int],
) -> None:
    ours, theirs = models_of(MODELS[0])
    images = randn(1, 3, *size, dtype=torch.float32)
    for model in (ours, ours.encode, theirs):
        if size == (8, 12):
            model(images)
            continue
        with pytest.raises(ValueError, match=rf"{size[0]}.*{size[1]}.*8.*12"):
            model(images)


# ---- the block -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("width", "heads", "network"), [(24, 4, 40), (6, 1, 7), (8, 8, 32)])
def test_block_equals_torchs_layer_and_hugging_faces(
    width: int, heads: int, network: int, dtype: torch.dtype
) -> None:
    ours = ViTBlock(width, heads, network).eval()
    shaken(ours, dtype)
    own = dict(ours.named_parameters())
    torchs = nn.TransformerEncoderLayer(
        width,
        heads,
        network,
        dropout=0.0,
        activation="gelu",
        layer_norm_eps=1e-6,
        batch_first=True,
        norm_first=True,
    ).to(dtype)
    names = {"norm1": "norm1", "norm2": "norm2", "linear1": "w_1", "linear2": "w_2"}
    names["self_attn.out_proj"] = "self_attn.w_o"
    state = {}
    for kind in ("weight", "bias"):
        joined = [own[f"self_attn.w_{letter}.{kind}"] for letter in "qkv"]
        state[f"self_attn.in_proj_{kind}"] = torch.cat(joined)
        state |= {f"{other}.{kind}": own[f"{mine}.{kind}"] for other, mine in names.items()}
    torchs.load_state_dict(state)
    sizes = (4, 2, 1, 2, width, 1, heads, network)
    hugging = ViTForImageClassification(config_of(sizes)).to(dtype).vit.layers[0]
    hugging.load_state_dict(
        {
            f"{other}.{kind}": own[f"{mine}.{kind}"]
            for other, mine in PARTS.items()
            for kind in ("weight", "bias")
        }
    )
    for shape, scale in (((3, 7), 1.0), ((1, 1), 1.0), ((2, 5), 1e-3)):
        # Where numbers are small, the norm's epsilon is much of their variance.
        x = (scale * randn(*shape, width, dtype=dtype)).requires_grad_()
        results = [layer(x) for layer in (ours, torchs, hugging)]
        assert results[0].dtype == dtype
        pixels = [torch.autograd.grad(result.sin().sum(), x)[0] for result in results]
        for found, *expected in (results, pixels):
            largest = max(1.0, found.abs().max().item())
            for other in expected:
                torch.testing.assert_close(found / largest, other / largest, **TOLERANCE[dtype])


# ---- positions -----------------------------------------------------------------------------


@given(
    side=st.integers(1, 6),
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    dtype=st.sampled_from(DTYPES),
)
@settings(deadline=None, max_examples=100)
def test_positions_for_another_size_are_hugging_faces(
    side: int, rows: int, columns: int, dtype: torch.dtype
) -> None:
    config = config_of((2 * side, 2, 1, 2, 6, 0, 1, 6))
    theirs = ViTForImageClassification(config).to(dtype).vit.embeddings
    table = theirs.position_embeddings
    with torch.no_grad():
        table.copy_(randn(*table.shape, dtype=dtype))
    like = torch.empty(1, 1 + rows * columns, 6, dtype=dtype)
    expected = theirs.interpolate_pos_encoding(like, 2 * rows, 2 * columns)
    found = interpolate_positions(table[0], (side, side), (rows, columns))
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected[0], **TOLERANCE[dtype])
    gradients = [torch.autograd.grad(x.sin().sum(), table)[0] for x in (found, expected)]
    torch.testing.assert_close(*gradients, **TOLERANCE[dtype])


@given(
    old=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    new=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
@settings(deadline=None, max_examples=100)
def test_positions_are_what_grid_sample_finds_between_them(
    old: tuple[int, int], new: tuple[int, int]
) -> None:
    """Old grids that are no squares, which Hugging Face's does not take."""
    table = randn(1 + math.prod(old), 5)
    ys, xs = ((2 * torch.arange(n, dtype=torch.float64) + 1) / n - 1 for n in new)
    places = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1)
    picture = table[1:].unflatten(0, old).movedim(-1, 0)
    sampled = F.grid_sample(
        picture[None], places[None], mode="bicubic", padding_mode="border", align_corners=False
    )
    found = interpolate_positions(table, old, new)
    assert torch.equal(found[0], table[0])
    torch.testing.assert_close(found[1:].unflatten(0, new).movedim(-1, 0), sampled[0])
    if old == new:
        assert torch.equal(found, table)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(9, 9), (12, 12), (6, 15), (3, 27), (3, 3), (15, 6)])
def test_a_model_at_another_size_equals_hugging_faces(
    size: tuple[int, int], dtype: torch.dtype
) -> None:
    """Logits, and the gradient that comes through the new table to the old one."""
    small, theirs = models_of(MODELS[2], dtype)
    large = VisionTransformer(size, *MODELS[2][1:]).to(dtype).eval()
    new_grid = (size[0] // 3, size[1] // 3)
    resized = interpolate_positions(small.position, (3, 3), new_grid)
    state = {**dict(small.named_parameters()), "position": resized}
    images = randn(2, 2, *size, dtype=dtype)
    found = functional_call(large, state, (images,))
    expected = theirs(images, interpolate_pos_encoding=True).logits
    torch.testing.assert_close(found, expected, **TOLERANCE[dtype])
    table = theirs.vit.embeddings.position_embeddings
    [mine] = torch.autograd.grad(found.sin().sum(), small.position)
    [other] = torch.autograd.grad(expected.sin().sum(), table)
    torch.testing.assert_close(mine, other[0], **TOLERANCE[dtype])


# ---- distances -----------------------------------------------------------------------------

GRIDS = st.tuples(st.integers(1, 4), st.integers(1, 4))


def attention_weights(batch: int, heads: int, positions: int, seed: int = 0) -> Tensor:
    return (2 * randn(batch, heads, positions, positions, seed=seed)).softmax(dim=-1)


@given(batch=st.integers(1, 3), heads=st.integers(1, 3), grid=GRIDS, size=st.integers(1, 16))
@settings(deadline=None, max_examples=100)
def test_distances_are_those_of_loops_and_of_scipy(
    batch: int, heads: int, grid: tuple[int, int], size: int
) -> None:
    rows, columns = grid
    weights = attention_weights(batch, heads, 1 + rows * columns)
    centers = [
        ((row + 0.5) * size, (column + 0.5) * size)
        for row in range(rows)
        for column in range(columns)
    ]
    pixels = torch.from_numpy(cdist(centers, centers))
    looped = []
    for head in weights.transpose(0, 1).tolist():
        means = []
        for image in head:
            for here, row in zip(centers, image[1:], strict=True):
                among = row[1:]
                far = [math.dist(here, there) for there in centers]
                means.append(math.fsum(a * d for a, d in zip(among, far, strict=True)) / sum(among))
        looped.append(math.fsum(means) / len(means))
    far = torch.einsum("bhqk,qk->bhq", weights[..., 1:, 1:], pixels)
    scipys = (far / weights[..., 1:, 1:].sum(dim=-1)).mean(dim=(0, 2))
    for dtype in DTYPES:
        found = mean_attention_distance(weights.to(dtype), grid, size)
        assert found.shape == (heads,)
        assert found.is_floating_point()
        for expected in (torch.tensor(looped, dtype=torch.float64), scipys):
            torch.testing.assert_close(found.double(), expected, **TOLERANCE[dtype])


def among_patches(rows: Tensor, batch: int = 2) -> Tensor:
    """Weights whose part among patches is half of ``rows``; the other half reads the class."""
    positions = 1 + len(rows)
    weights = torch.full((positions, positions), 1 / positions, dtype=torch.float64)
    weights[1:, 0], weights[1:, 1:] = 0.5, rows / 2
    return weights.expand(batch, 1, -1, -1)


def test_distances_that_are_known_by_hand() -> None:
    """On 2 x 2 patches of 10 pixels: 0, 10, 10 and 10 times the root of 2 lie around each."""
    root = math.sqrt(2)
    cases = {
        "itself": (torch.eye(4), 0.0),
        "all alike": (torch.full((4, 4), 0.25), 10 * (2 + root) / 4),
        "across": (torch.eye(4).flip(1), 10 * root),
        "beside": (torch.eye(4)[[1, 0, 3, 2]], 10.0),
        "below": (torch.eye(4)[[2, 3, 0, 1]], 10.0),
        "the first": (torch.eye(4)[[0, 0, 0, 0]], 10 * (2 + root) / 4),
    }
    weights = torch.cat([among_patches(rows.double()) for rows, _ in cases.values()], dim=1)
    found = mean_attention_distance(weights, (2, 2), 10)
    expected = torch.tensor([distance for _, distance in cases.values()], dtype=torch.float64)
    torch.testing.assert_close(found, expected, **TOLERANCE[torch.float64])
    # In a row of patches the first reads the last, and the others read themselves.
    rows = torch.eye(5, dtype=torch.float64)
    rows[0] = rows[4]
    for grid in ((1, 5), (5, 1)):
        assert mean_attention_distance(among_patches(rows), grid, 3).item() == pytest.approx(12 / 5)


@given(grid=GRIDS, positions=st.integers(1, 20))
@settings(deadline=None, max_examples=100)
def test_tables_and_weights_that_do_not_fit_the_grid_are_refused_and_no_others(
    grid: tuple[int, int], positions: int
) -> None:
    table = torch.ones(positions, 3)
    weights = torch.full((2, 3, positions, positions), 1 / positions)
    if positions == 1 + math.prod(grid):
        # What is equal everywhere stays so, whatever the size.
        torch.testing.assert_close(interpolate_positions(table, grid, (3, 5)), torch.ones(16, 3))
        assert mean_attention_distance(weights, grid, 2).shape == (3,)
    else:
        both = rf"\b{1 + math.prod(grid)}\b.*\b{positions}\b"
        with pytest.raises(ValueError, match=both):
            interpolate_positions(table, grid, (3, 5))
        with pytest.raises(ValueError, match=both):
            mean_attention_distance(weights, grid, 2)


@torch.no_grad()
def test_distances_of_our_weights_are_those_of_hugging_faces_weights() -> None:
    sizes = MODELS[0]
    ours, theirs = models_of(sizes, attention="eager")
    kept: list[Tensor] = []
    for block in ours.blocks:
        block.self_attn.register_forward_hook(lambda module, inputs, both: kept.append(both[1]))
    images = images_for(sizes, 3)
    ours(images)
    attentions = theirs(images, output_attentions=True).attentions
    assert len(kept) == len(attentions) == sizes[5]
    for mine, other in zip(kept, attentions, strict=True):
        found, expected = (mean_attention_distance(weights, (2, 3), 4) for weights in (mine, other))
        torch.testing.assert_close(found, expected, **TOLERANCE[torch.float32])


# ---- parameters ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "width", "layers", "heads", "count"),
    [
        (16, 768, 12, 12, 86_567_656),
        (32, 768, 12, 12, 88_224_232),
        (16, 1024, 24, 16, 304_326_632),
        (14, 1280, 32, 16, 632_045_800),
    ],
    ids=["B/16", "B/32", "L/16", "H/14"],
)
def test_parameters_of_the_papers_models(
    size: int, width: int, layers: int, heads: int, count: int
) -> None:
    """With 1,000 classes at 224 pixels. Counted, by a formula and by Hugging Face."""
    sizes = (224, size, 3, 1000, width, layers, heads, 4 * width)
    with torch.device("meta"):
        ours, theirs = VisionTransformer(*sizes), ViTForImageClassification(config_of(sizes))
    patches = (224 // size) ** 2
    block = 4 * (width + 1) * width + (width + 1) * 4 * width + (4 * width + 1) * width + 4 * width
    embeddings = (3 * size**2 + 1) * width + width + (1 + patches) * width
    formula = embeddings + layers * block + 2 * width + 1000 * (width + 1)
    assert formula == count
    for model in (ours, theirs):
        assert sum(parameter.numel() for parameter in model.parameters()) == count

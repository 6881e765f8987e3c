"""Chapter 8 against implementations that are not ours.

Hugging Face's ViTMAE with the same parameters and the same noise, NumPy, SciPy, and loops.
Parameters are renamed here anew, not by ``workbook.pretrained``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from conftest import solution
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from workbook.ready.vit import patchify, unpatchify

DTYPES = [torch.float32, torch.float64]
TOLERANCE: dict[torch.dtype, dict[str, float]] = {
    torch.float32: {"rtol": 1e-4, "atol": 1e-5},
    torch.float64: {"rtol": 1e-10, "atol": 1e-12},
}
RATIOS = [0.75, 0.5]

# image_size, patch_size, channels; then width, layers, heads and hidden width of the encoder, and
# of the decoder. Theirs can only be built for a square number of patches.
Sizes = tuple[Any, ...]
SQUARE: list[Sizes] = [
    (16, 4, 3, 24, 3, 4, 40, 16, 2, 2, 28),
    (8, 2, 1, 8, 1, 2, 12, 12, 2, 3, 20),
    (12, 4, 2, 16, 2, 1, 20, 20, 1, 5, 16),
]
WIDE: list[Sizes] = [
    ((8, 32), 4, 3, 24, 2, 4, 40, 16, 2, 2, 28),
    ((27, 3), 3, 1, 8, 2, 2, 12, 12, 1, 3, 20),
]


def their_names(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters, or their gradients, under ViTMAE's names and in its shapes."""
    layers = {
        "encoder.norm": "vit.layernorm",
        "decoder.embed": "decoder.decoder_embed",
        "decoder.norm": "decoder.decoder_norm",
        "decoder.predict": "decoder.decoder_pred",
    }
    for mine, other in (("encoder", "vit.layers"), ("decoder", "decoder.decoder_layers")):
        for i in range(sum(f"{mine}.blocks" in n and n.endswith("norm1.bias") for n in ours)):
            layers |= {
                f"{mine}.blocks.{i}.{name}": f"{other}.{i}.{theirs}"
                for name, theirs in {
                    "norm1": "layernorm_before",
                    "self_attn.w_q": "attention.q_proj",
                    "self_attn.w_k": "attention.k_proj",
                    "self_attn.w_v": "attention.v_proj",
                    "self_attn.w_o": "attention.o_proj",
                    "norm2": "layernorm_after",
                    "w_1": "mlp.fc1",
                    "w_2": "mlp.fc2",
                }.items()
            }
    found = {
        f"{other}.{kind}": ours[f"{mine}.{kind}"]
        for mine, other in layers.items()
        for kind in ("weight", "bias")
    }
    # Theirs embeds by a convolution, with a kernel (width, channels, row, column).
    projection = "vit.embeddings.patch_embeddings.projection"
    weight = ours["encoder.patch.projection.weight"]
    width, numbers = weight.shape
    channels = numbers // side_of(numbers) ** 2
    kernel = weight.reshape(width, side_of(numbers), side_of(numbers), channels)
    return found | {
        f"{projection}.weight": kernel.permute(0, 3, 1, 2),
        f"{projection}.bias": ours["encoder.patch.projection.bias"],
        "vit.embeddings.cls_token": ours["encoder.class_token"][None, None],
        "vit.embeddings.position_embeddings": ours["encoder.position"][None],
        "decoder.mask_token": ours["decoder.mask_token"][None, None],
        "decoder.decoder_pos_embed": ours["decoder.position"][None],
    }


def side_of(numbers: int) -> int:
    """The side of a patch, by how many numbers it has in the sizes above."""
    return {patch**2 * channels: patch for _, patch, channels, *_ in SQUARE + WIDE}[numbers]


def models_of(
    sizes: Sizes,
    dtype: torch.dtype,
    mask_ratio: float = 0.75,
    normalize: bool = True,
    attention: str = "sdpa",
) -> tuple[nn.Module, ViTMAEForPreTraining]:
    """Our model and theirs with the same random parameters, none of them 0 or 1 by chance."""
    torch.manual_seed(math.prod(sizes[1:4]))
    ours = solution("mae/MaskedAutoencoder")(*sizes, normalize=normalize).to(dtype)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    image_size, patch_size, channels, *rest = sizes
    encoder, decoder = rest[:4], rest[4:]
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    config = ViTMAEConfig(
        image_size=image_size,
        patch_size=patch_size,
        num_channels=channels,
        **dict(zip(names, encoder, strict=True)),
        **{f"decoder_{name}": size for name, size in zip(names, decoder, strict=True)},
        layer_norm_eps=1e-6,  # as the authors'; theirs has another default
        mask_ratio=mask_ratio,
        norm_pix_loss=normalize,
        attn_implementation=attention,
    )
    theirs = ViTMAEForPreTraining(config).to(dtype)
    state = their_names(ours.state_dict())
    assert state.keys() == theirs.state_dict().keys()
    theirs.load_state_dict(state)
    return ours, theirs.requires_grad_()  # they keep the positions from learning


def inputs_of(sizes: Sizes, dtype: torch.dtype, batch: int = 3) -> tuple[Tensor, Tensor]:
    """Images in [0, 1], and noise."""
    generator = torch.Generator().manual_seed(batch)
    height, width = (sizes[0],) * 2 if isinstance(sizes[0], int) else sizes[0]
    images = torch.rand(batch, sizes[2], height, width, generator=generator, dtype=dtype)
    patches = height // sizes[1] * (width // sizes[1])
    return images, torch.rand(batch, patches, generator=generator, dtype=dtype)


# ---- the model -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("mask_ratio", RATIOS)
@pytest.mark.parametrize("sizes", SQUARE)
def test_loss_predictions_mask_and_gradients_equal_hugging_faces(
    sizes: Sizes, mask_ratio: float, normalize: bool, dtype: torch.dtype
) -> None:
    ours, theirs = models_of(sizes, dtype, mask_ratio, normalize)
    images, noise = inputs_of(sizes, dtype)
    loss, prediction, mask = ours(images, mask_ratio, noise)
    expected = theirs(images, noise=noise)
    assert loss.dtype == prediction.dtype == dtype
    assert torch.equal(mask, expected.mask.bool())
    torch.testing.assert_close(prediction, expected.logits, **TOLERANCE[dtype])
    torch.testing.assert_close(loss, expected.loss, **TOLERANCE[dtype])
    loss.backward()
    expected.loss.backward()
    found = their_names({name: parameter.grad for name, parameter in ours.named_parameters()})
    wanted = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    torch.testing.assert_close(found, wanted, **TOLERANCE[dtype])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("mask_ratio", [0.75, 0.5, 0.1, 0.85])
@pytest.mark.parametrize("sizes", SQUARE[:1] + WIDE)
def test_latent_vectors_of_encoder_and_output_of_decoder_equal_hugging_faces(
    sizes: Sizes, mask_ratio: float, batch: int, attention: str
) -> None:
    """Also for images that are not square: their whole model refuses these, its parts do not."""
    dtype = torch.float32 if attention == "eager" else torch.float64  # eager leaves float64
    ours, theirs = models_of(sizes, dtype, mask_ratio, attention=attention)
    images, noise = inputs_of(sizes, dtype, batch)
    with torch.no_grad():
        latent, mask, restore = ours.encoder(images, mask_ratio, noise)
        expected = theirs.vit(images, noise=noise)
        assert torch.equal(mask, expected.mask.bool())
        assert torch.equal(restore, expected.ids_restore)
        torch.testing.assert_close(latent, expected.last_hidden_state, **TOLERANCE[dtype])
        prediction = ours.decoder(latent, restore)
        logits = theirs.decoder(latent, restore).logits
        torch.testing.assert_close(prediction, logits, **TOLERANCE[dtype])
        # What the loss compares them with.
        target = theirs.patchify(images, interpolate_pos_encoding=True)
        mean, variance = target.mean(-1, keepdim=True), target.var(-1, keepdim=True)
        errors = (logits - (target - mean) / (variance + 1e-6) ** 0.5).square().mean(-1)
        wanted = (errors * expected.mask).sum() / expected.mask.sum()
        found = ours(images, mask_ratio, noise)
        torch.testing.assert_close(found, (wanted, logits, mask), **TOLERANCE[dtype])


@pytest.mark.parametrize("sizes", SQUARE)
def test_without_noise_both_draw_the_same_and_something_new_each_time(sizes: Sizes) -> None:
    ours, theirs = models_of(sizes, torch.float32)
    images, _ = inputs_of(sizes, torch.float32)
    masks = []
    with torch.no_grad():
        for seed in (1, 2):
            torch.manual_seed(seed)
            mine = [ours(images) for _ in range(3)]
            torch.manual_seed(seed)
            for loss, prediction, mask in mine:
                expected = theirs(images)
                assert torch.equal(mask, expected.mask.bool())
                torch.testing.assert_close(
                    (loss, prediction),
                    (expected.loss, expected.logits),
                    **TOLERANCE[torch.float32],
                )
                masks.append(mask)
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) > 1


@pytest.mark.parametrize("sizes", SQUARE + WIDE)
def test_patches_are_cut_and_put_together_as_hugging_face_does(sizes: Sizes) -> None:
    _, theirs = models_of(sizes, torch.float32)
    images, _ = inputs_of(sizes, torch.float32)
    expected = theirs.patchify(images, interpolate_pos_encoding=True)
    cut = patchify(images, sizes[1])
    assert torch.equal(cut, expected)
    height, width = images.shape[2:]
    grid = height // sizes[1], width // sizes[1]
    assert torch.equal(
        unpatchify(cut, sizes[1], sizes[2], grid), theirs.unpatchify(expected, (height, width))
    )


# ---- masking -------------------------------------------------------------------------------


@pytest.mark.parametrize("mask_ratio", [0.75, 0.5, 0.0, 0.1, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("shape", [(2, 16, 5), (1, 49, 3), (4, 10, 1)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_tokens_are_masked_as_hugging_face_masks_them(
    shape: tuple[int, int, int], mask_ratio: float, dtype: torch.dtype
) -> None:
    """To the last bit, how many are kept included: both round the same product."""
    _, theirs = models_of(SQUARE[1], dtype)
    theirs.config.mask_ratio = mask_ratio
    generator = torch.Generator().manual_seed(math.prod(shape))
    tokens = torch.randn(shape, generator=generator, dtype=dtype)
    noise = torch.rand(shape[:2], generator=generator, dtype=dtype)
    if int(shape[1] * (1 - mask_ratio)) == 0:
        with pytest.raises(ValueError, match=str(shape[1])):
            solution("mae/random_masking")(tokens, mask_ratio, noise)
        return
    visible, mask, restore = solution("mae/random_masking")(tokens, mask_ratio, noise)
    expected = theirs.vit.embeddings.random_masking(tokens, noise)
    assert torch.equal(visible, expected[0])
    assert mask.dtype == torch.bool
    assert torch.equal(mask, expected[1].bool())
    assert restore.dtype == torch.int64
    assert torch.equal(restore, expected[2])


@st.composite
def noises(draw: st.DrawFn) -> Tensor:
    """Rows without equals: numbers of any size and sign, whole ones among them."""
    batch, length = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    kind = draw(st.sampled_from(["rand", "permutation", "wide"]))
    if kind == "permutation":
        rows = [draw(st.permutations(range(length))) for _ in range(batch)]
        return torch.tensor(rows)
    numbers = st.floats(0, 1, width=32) if kind == "rand" else st.floats(-1e30, 1e30)
    row = st.lists(numbers, min_size=length, max_size=length, unique=True)
    return torch.tensor([draw(row) for _ in range(batch)], dtype=torch.float64)


@given(noise=noises(), mask_ratio=st.floats(0, 1, exclude_max=True), d=st.integers(1, 4))
@example(noise=torch.tensor([[2, 0, 1, 3]]), mask_ratio=0.75, d=1)
@example(noise=torch.arange(10).expand(2, -1), mask_ratio=0.9, d=2)  # 1 - 0.9 < 0.1
@settings(deadline=None, max_examples=300)
def test_masking_is_exact_given_the_noise(noise: Tensor, mask_ratio: float, d: int) -> None:
    batch, length = noise.shape
    tokens = torch.arange(batch * length * d, dtype=torch.float32).reshape(batch, length, d)
    kept = math.floor(length * (1 - mask_ratio))
    if kept == 0:
        with pytest.raises(ValueError, match=str(length)):
            solution("mae/random_masking")(tokens, mask_ratio, noise)
        return
    visible, mask, restore = solution("mae/random_masking")(tokens, mask_ratio, noise)

    # By loops.
    for b in range(batch):
        order = np.argsort(noise[b].numpy(), kind="stable")
        for place, token in enumerate(order.tolist()):
            assert restore[b, token] == place
            assert mask[b, token] == (place >= kept)
            if place < kept:
                assert torch.equal(visible[b, place], tokens[b, token])

    # By what they must do together.
    assert visible.shape == (batch, kept, d)
    assert mask.sum(dim=1).tolist() == [length - kept] * batch
    assert restore.sort(dim=1).values.tolist() == [list(range(length))] * batch
    hidden = torch.full((batch, length - kept, d), -1.0)
    back = torch.cat([visible, hidden], dim=1).gather(1, restore[..., None].expand(-1, -1, d))
    assert torch.equal(back[~mask], tokens[~mask])
    assert bool((back[mask] == -1).all())
    shuffled = tokens.gather(1, restore.argsort(dim=1)[..., None].expand(-1, -1, d))
    assert torch.equal(shuffled.gather(1, restore[..., None].expand(-1, -1, d)), tokens)


def test_each_token_is_hidden_as_often_as_any_other() -> None:
    """Over many draws, and each pair of tokens as often as any other pair."""
    torch.manual_seed(0)
    draws, length = 20_000, 6
    _, mask, _ = solution("mae/random_masking")(
        torch.zeros(draws, length, 1), 0.5, torch.rand(draws, length)
    )
    together = (mask.double().T @ mask.double()) / draws
    expected = torch.full((length, length), 0.5 * 2 / 5, dtype=torch.float64)
    expected.fill_diagonal_(0.5)
    assert (together - expected).abs().max() < 4 * math.sqrt(0.25 / draws)


# ---- targets and loss ----------------------------------------------------------------------

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(2, 12))


@given(
    shape=SHAPES,
    eps=st.sampled_from([1e-6, 1e-3, 0.5]),
    scale=st.sampled_from([0.01, 1.0, 255.0]),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=100)
def test_targets_equal_numpys_and_scipys(
    shape: tuple[int, int, int], eps: float, scale: float, seed: int
) -> None:
    patches = scale * np.random.default_rng(seed).random(shape)
    found = solution("mae/normalized_pixel_targets")(torch.from_numpy(patches), eps).numpy()
    mean = patches.mean(axis=2, keepdims=True)
    expected = (patches - mean) / np.sqrt(np.var(patches, axis=2, ddof=1, keepdims=True) + eps)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    bare = solution("mae/normalized_pixel_targets")(torch.from_numpy(patches), 0.0).numpy()
    np.testing.assert_allclose(bare, stats.zscore(patches, axis=2, ddof=1), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.bfloat16])
def test_targets_of_one_color_are_zero(dtype: torch.dtype) -> None:
    patches = torch.tensor([0.0, 0.5, 1.0], dtype=dtype)[None, :, None].expand(2, 3, 12)
    found = solution("mae/normalized_pixel_targets")(patches)
    assert found.dtype == dtype
    assert torch.equal(found, torch.zeros_like(found))


@given(
    shape=SHAPES,
    data=st.data(),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=150)
def test_loss_is_the_mean_of_what_a_loop_over_hidden_patches_adds_up(
    shape: tuple[int, int, int], data: st.DataObject, seed: int
) -> None:
    mask = torch.from_numpy(data.draw(arrays.arrays(bool, shape[:2])))
    generator = torch.Generator().manual_seed(seed)
    prediction, target = torch.randn(2, *shape, generator=generator, dtype=torch.float64).unbind()
    prediction.requires_grad_()
    terms, gradient = [], torch.zeros(shape, dtype=torch.float64)
    for b, i in mask.nonzero().tolist():
        pairs = zip(prediction[b, i].tolist(), target[b, i].tolist(), strict=True)
        squares = [(guess - right) ** 2 for guess, right in pairs]
        terms.append(math.fsum(squares) / len(squares))
        gradient[b, i] = 2 * (prediction[b, i].detach() - target[b, i]) / shape[2]
    if not terms:
        with pytest.raises(ValueError, match="hides none"):
            solution("mae/masked_patch_loss")(prediction, target, mask)
        return
    loss = solution("mae/masked_patch_loss")(prediction, target, mask)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(math.fsum(terms) / len(terms), rel=1e-12)
    (found,) = torch.autograd.grad(loss, prediction)
    torch.testing.assert_close(found, gradient / len(terms), rtol=1e-12, atol=1e-15)
    # What stands in the visible patches changes nothing, whatever it is.
    odd = torch.where(mask[..., None], prediction, math.nan)
    assert solution("mae/masked_patch_loss")(odd, target, mask).item() == loss.item()


# ---- operations ----------------------------------------------------------------------------


def operations(module: nn.Module, *inputs: Any) -> tuple[int, int]:
    """Of the whole module, and of its blocks alone."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*inputs)
    counts = counter.get_flop_counts()
    blocks = [name for name in counts if name.rsplit(".", 1)[0].endswith((".blocks", ".layers"))]
    assert blocks
    return counter.get_total_flops(), sum(sum(counts[name].values()) for name in blocks)


def of_blocks(length: int, width: int, layers: int, hidden: int) -> int:
    """Four projections, two products of attention, and the two layers of the network."""
    return layers * (2 * length * (4 * width**2 + 2 * width * hidden) + 4 * length**2 * width)


@pytest.mark.parametrize("mask_ratio", [0.0, 0.25, 0.5, 0.75, 0.9])
@pytest.mark.parametrize("sizes", [*SQUARE[:2], WIDE[0]])
def test_operations_of_the_encoder_are_those_of_the_visible_patches(
    sizes: Sizes, mask_ratio: float
) -> None:
    batch = 2
    ours, theirs = models_of(sizes, torch.float32, mask_ratio, attention="eager")
    images, noise = inputs_of(sizes, torch.float32, batch)
    patches = noise.shape[1]
    _, patch_size, channels, width, layers, _, hidden, *_ = sizes
    kept = int(patches * (1 - mask_ratio))
    total, blocks = operations(ours.encoder, images, mask_ratio, noise)
    assert blocks == batch * of_blocks(1 + kept, width, layers, hidden)
    # All patches are embedded before some are hidden.
    assert total - blocks == 2 * batch * patches * patch_size**2 * channels * width
    assert operations(theirs.vit, images, noise) == (total, blocks)


@pytest.mark.parametrize("sizes", SQUARE + WIDE)
def test_three_quarters_hidden_take_less_than_a_third_of_the_operations(sizes: Sizes) -> None:
    ours, _ = models_of(sizes, torch.float32)
    images, noise = inputs_of(sizes, torch.float32)
    _, some = operations(ours.encoder, images, 0.75, noise)
    _, every = operations(ours.encoder, images, 0.0, noise)
    # The class token comes on top, so it is a bit more than a quarter; the squares are less.
    share = (1 + noise.shape[1] // 4) / (1 + noise.shape[1])
    assert share**2 < some / every < share < 1 / 3 + 1e-9


@pytest.mark.parametrize("mask_ratio", RATIOS)
def test_operations_of_the_decoder_do_not_depend_on_the_ratio_but_for_embedding(
    mask_ratio: float,
) -> None:
    sizes, batch = SQUARE[0], 2
    ours, _ = models_of(sizes, torch.float32)
    *_, d_encoder, _, _, _, width, layers, _, hidden = sizes
    kept = int(16 * (1 - mask_ratio))
    latent = torch.randn(batch, 1 + kept, d_encoder)
    restore = torch.rand(batch, 16).argsort(dim=1)
    total, blocks = operations(ours.decoder, latent, restore)
    assert blocks == batch * of_blocks(17, width, layers, hidden)
    ends = 2 * batch * width * ((1 + kept) * d_encoder + 17 * sizes[1] ** 2 * sizes[2])
    assert total - blocks == ends

"""Subtle ways to get chapter 8 wrong, and which of them a verdict names.

A name that does not fit misleads: what is not in NAMED must be given none.
"""

import math

import torch
import torch.nn.functional as F
from conftest import solution
from torch import nn

from workbook.ready.vit import PatchEmbedding, ViTBlock, patchify, unpatchify

# The ready-made blocks themselves would count as copied.
MAEDecoder = solution("mae/MAEDecoder")
MAEEncoder = solution("mae/MAEEncoder")
masked_patch_loss = solution("mae/masked_patch_loss")
normalized_pixel_targets = solution("mae/normalized_pixel_targets")
random_masking = solution("mae/random_masking")

# ---- random_masking ------------------------------------------------------------------------


def refuse_ratio(mask_ratio):
    if not 0 <= mask_ratio < 1:
        raise ValueError(f"mask_ratio is {mask_ratio}.")


def refuse_noise(tokens, noise):
    if noise.shape != tokens.shape[:2]:
        raise ValueError(f"noise {tuple(noise.shape)}, tokens {tuple(tokens.shape)}.")


def refuse_what_does_not_fit(tokens, mask_ratio, noise):
    refuse_ratio(mask_ratio)
    refuse_noise(tokens, noise)


def rounded_down(length, mask_ratio):
    return int(length * (1 - mask_ratio))


def refuse_nothing_kept(kept, length, mask_ratio):
    if kept == 0:
        raise ValueError(f"A mask_ratio of {mask_ratio} keeps none of {length} tokens.")


def take(tokens, order, restore, kept):
    return tokens.gather(1, order[:, :kept, None].expand(-1, -1, tokens.shape[2]))


def hide(tokens, order, restore, kept):
    return restore >= kept


def masked(
    tokens,
    mask_ratio,
    noise,
    refuse=refuse_what_does_not_fit,
    count=rounded_down,
    refuse_kept=refuse_nothing_kept,
    sort=lambda noise: noise.argsort(dim=1),
    invert=lambda order, kept: order.argsort(dim=1),
    take=take,
    hide=hide,
    finish=lambda visible, mask, restore: (visible, mask, restore),
):
    """Right, but for what is done to one of its steps."""
    refuse(tokens, mask_ratio, noise)
    kept = count(tokens.shape[1], mask_ratio)
    refuse_kept(kept, tokens.shape[1], mask_ratio)
    order = sort(noise)
    restore = invert(order, kept)
    visible = take(tokens, order, restore, kept)
    return finish(visible, hide(tokens, order, restore, kept), restore)


def _masking(name, **changes):
    def random_masking(tokens, mask_ratio, noise):
        return masked(tokens, mask_ratio, noise, **changes)

    random_masking.__name__ = name
    return random_masking


# How many are kept.
mask_rounding_up = _masking(
    "mask_rounding_up", count=lambda length, ratio: math.ceil(length * (1 - ratio))
)
mask_rounding = _masking("mask_rounding", count=lambda length, ratio: round(length * (1 - ratio)))
mask_rounding_the_hidden_down = _masking(
    "mask_rounding_the_hidden_down", count=lambda length, ratio: length - int(length * ratio)
)
mask_keeping_the_ratio = _masking(
    "mask_keeping_the_ratio", count=lambda length, ratio: int(length * ratio)
)
mask_keeping_one_more = _masking(
    "mask_keeping_one_more", count=lambda length, ratio: rounded_down(length, ratio) + 1
)
mask_keeping_one_less = _masking(
    "mask_keeping_one_less", count=lambda length, ratio: rounded_down(length, ratio) - 1
)
mask_keeping_a_quarter = _masking("mask_keeping_a_quarter", count=lambda length, ratio: length // 4)
mask_by_a_whole_number = _masking(
    "mask_by_a_whole_number", count=lambda length, ratio: length // round(1 / (1 - ratio))
)
mask_keeping_at_least_one = _masking(
    "mask_keeping_at_least_one", count=lambda length, ratio: max(1, rounded_down(length, ratio))
)

# The order.
mask_keeping_the_largest = _masking(
    "mask_keeping_the_largest", sort=lambda noise: noise.argsort(dim=1, descending=True)
)
mask_sorting_over_the_batch = _masking(
    "mask_sorting_over_the_batch",
    sort=lambda noise: noise.argsort(dim=0).argsort(dim=1),
)
mask_of_the_first_row = _masking(
    "mask_of_the_first_row",
    sort=lambda noise: noise[:1].argsort(dim=1).expand_as(noise).contiguous(),
)
mask_with_noise_of_its_own = _masking(
    "mask_with_noise_of_its_own", sort=lambda noise: torch.rand(noise.shape).argsort(dim=1)
)
mask_of_the_first_tokens = _masking(
    "mask_of_the_first_tokens",
    sort=lambda noise: torch.arange(noise.shape[1]).expand_as(noise).contiguous(),
)
mask_by_size = _masking("mask_by_size", sort=lambda noise: noise.abs().argsort(dim=1))
mask_by_rounded_noise = _masking(
    "mask_by_rounded_noise", sort=lambda noise: noise.half().argsort(dim=1, stable=True)
)
mask_taking_ranks_for_ids = _masking(
    "mask_taking_ranks_for_ids", sort=lambda noise: noise.argsort(dim=1).argsort(dim=1)
)
mask_sorting_the_noise_itself = _masking(
    "mask_sorting_the_noise_itself",
    sort=lambda noise: (ids := noise.argsort(dim=1), noise.copy_(noise.gather(1, ids)))[0],
)


def mask_in_the_images_order(tokens, mask_ratio, noise):
    """The right ones stay, in the order of the image."""

    def invert(order, kept):
        visible = order[:, :kept].sort(dim=1).values
        return torch.cat([visible, order[:, kept:]], dim=1).argsort(dim=1)

    def take_sorted(tokens, order, restore, kept):
        return take(tokens, order[:, :kept].sort(dim=1).values, restore, kept)

    return masked(tokens, mask_ratio, noise, invert=invert, take=take_sorted)


def mask_in_the_images_order_with_another_restore(tokens, mask_ratio, noise):
    """The visible tokens are in the image's order, restore is not."""

    def take_sorted(tokens, order, restore, kept):
        return take(tokens, order[:, :kept].sort(dim=1).values, restore, kept)

    return masked(tokens, mask_ratio, noise, take=take_sorted)


def _hidden_in_the_images_order(order, kept):
    hidden = order[:, kept:].sort(dim=1).values
    return torch.cat([order[:, :kept], hidden], dim=1).argsort(dim=1)


mask_with_the_hidden_in_the_images_order = _masking(
    "mask_with_the_hidden_in_the_images_order", invert=_hidden_in_the_images_order
)
mask_with_the_visible_backwards = _masking(
    "mask_with_the_visible_backwards",
    invert=lambda order, kept: torch.cat([order[:, :kept].flip(1), order[:, kept:]], 1).argsort(1),
    take=lambda tokens, order, restore, kept: take(tokens, order, restore, kept).flip(1),
)

# restore.
mask_restoring_with_the_order = _masking(
    "mask_restoring_with_the_order",
    finish=lambda visible, mask, restore: (visible, mask, restore.argsort(dim=1)),
)
mask_of_the_order = _masking("mask_of_the_order", invert=lambda order, kept: order)
mask_restoring_backwards = _masking(
    "mask_restoring_backwards",
    finish=lambda visible, mask, restore: (visible, mask, restore.shape[1] - 1 - restore),
)
mask_restoring_the_hidden_first = _masking(
    "mask_restoring_the_hidden_first",
    finish=lambda visible, mask, restore: (
        visible,
        mask,
        (restore - visible.shape[1]) % restore.shape[1],
    ),
)
mask_restoring_from_one = _masking(
    "mask_restoring_from_one", finish=lambda visible, mask, restore: (visible, mask, restore + 1)
)
mask_restoring_in_int32 = _masking(
    "mask_restoring_in_int32", finish=lambda visible, mask, restore: (visible, mask, restore.int())
)
mask_restoring_the_visible = _masking(
    "mask_restoring_the_visible",
    finish=lambda visible, mask, restore: (visible, mask, restore[:, : visible.shape[1]]),
)

# The visible.
mask_showing_the_hidden = _masking(
    "mask_showing_the_hidden",
    take=lambda tokens, order, restore, kept: take(tokens, order.flip(1), restore, kept),
)
mask_taking_by_restore = _masking(
    "mask_taking_by_restore",
    take=lambda tokens, order, restore, kept: take(tokens, restore, restore, kept),
)
mask_taking_the_first_tokens = _masking(
    "mask_taking_the_first_tokens", take=lambda tokens, order, restore, kept: tokens[:, :kept]
)
mask_taking_from_the_first_image = _masking(
    "mask_taking_from_the_first_image",
    take=lambda tokens, order, restore, kept: tokens.reshape(-1, tokens.shape[2])[order[:, :kept]],
)
mask_with_zeros_for_the_hidden = _masking(
    "mask_with_zeros_for_the_hidden",
    take=lambda tokens, order, restore, kept: tokens * (restore < kept)[..., None],
)
mask_showing_everything_shuffled = _masking(
    "mask_showing_everything_shuffled",
    take=lambda tokens, order, restore, kept: take(tokens, order, restore, tokens.shape[1]),
)
mask_detaching = _masking(
    "mask_detaching",
    take=lambda tokens, order, restore, kept: take(tokens, order, restore, kept).detach(),
)
mask_in_float32 = _masking(
    "mask_in_float32",
    take=lambda tokens, order, restore, kept: take(tokens, order, restore, kept).float(),
)
mask_for_contiguous_tokens = _masking(
    "mask_for_contiguous_tokens",
    take=lambda tokens, order, restore, kept: tokens.view(-1, tokens.shape[2])[
        order[:, :kept] + tokens.shape[1] * torch.arange(len(tokens))[:, None]
    ],
)
mask_for_several_images = _masking(
    "mask_for_several_images",
    take=lambda tokens, order, restore, kept: take(tokens, order, restore, kept).squeeze(),
)
mask_erasing_the_tokens = _masking(
    "mask_erasing_the_tokens",
    take=lambda tokens, order, restore, kept: (
        take(tokens, order, restore, kept),
        tokens.detach().masked_fill_((restore >= kept)[..., None], 0),
    )[0],
)

# The mask.
mask_inverted = _masking("mask_inverted", hide=lambda tokens, order, restore, kept: restore < kept)
mask_in_shuffled_order = _masking(
    "mask_in_shuffled_order",
    hide=lambda tokens, order, restore, kept: (torch.arange(order.shape[1]) >= kept).expand_as(
        order
    ),
)
mask_unshuffled_with_the_order = _masking(
    "mask_unshuffled_with_the_order", hide=lambda tokens, order, restore, kept: order >= kept
)
mask_hiding_one_less = _masking(
    "mask_hiding_one_less", hide=lambda tokens, order, restore, kept: restore > kept
)
mask_of_floats = _masking(
    "mask_of_floats", hide=lambda tokens, order, restore, kept: (restore >= kept).float()
)
mask_of_one_row = _masking(
    "mask_of_one_row",
    hide=lambda tokens, order, restore, kept: (restore[:1] >= kept).expand_as(restore),
)


def mask_by_the_ratio_itself(tokens, mask_ratio, noise):
    """Noise above 1 - mask_ratio is hidden: right on average."""
    visible, _, restore = masked(tokens, mask_ratio, noise)
    return visible, noise > 1 - mask_ratio, restore


def mask_last(tokens, mask_ratio, noise):
    visible, mask, restore = masked(tokens, mask_ratio, noise)
    return visible, restore, mask


def mask_without_restore(tokens, mask_ratio, noise):
    return masked(tokens, mask_ratio, noise)[:2]


def mask_that_remembers(tokens, mask_ratio, noise, known={}):  # noqa: B006
    """One order for all calls with the same shape."""
    order = known.setdefault(tuple(noise.shape), noise.argsort(dim=1))
    return masked(tokens, mask_ratio, noise, sort=lambda noise: order)


def mask_token_by_token(tokens, mask_ratio, noise):
    """Each token is hidden or not by itself; the number that stays is that of the first image."""
    refuse_what_does_not_fit(tokens, mask_ratio, noise)
    kept = int((noise[0] >= mask_ratio).sum())
    refuse_nothing_kept(kept, tokens.shape[1], mask_ratio)
    return masked(tokens, mask_ratio, noise, count=lambda length, ratio: kept)


# What is refused.
mask_refusing_nothing = _masking(
    "mask_refusing_nothing",
    refuse=lambda tokens, ratio, noise: None,
    refuse_kept=lambda kept, length, ratio: None,
)
mask_refusing_no_ratio = _masking(
    "mask_refusing_no_ratio", refuse=lambda tokens, ratio, noise: refuse_noise(tokens, noise)
)
mask_refusing_no_noise = _masking(
    "mask_refusing_no_noise", refuse=lambda tokens, ratio, noise: refuse_ratio(ratio)
)
mask_of_no_token = _masking("mask_of_no_token", refuse_kept=lambda kept, length, ratio: None)


def mask_clamping_the_ratio(tokens, mask_ratio, noise):
    return masked(tokens, min(max(mask_ratio, 0), 0.99), noise)


def mask_accepting_one(tokens, mask_ratio, noise):
    """At 1 it keeps a token."""
    if mask_ratio != 1:
        return masked(tokens, mask_ratio, noise)
    return masked(tokens, 0, noise, count=lambda length, ratio: 1)


def mask_accepting_less_than_zero(tokens, mask_ratio, noise):
    if mask_ratio >= 1:
        raise ValueError(f"mask_ratio is {mask_ratio}.")
    return masked(tokens, max(0, mask_ratio), noise)


def mask_refusing_zero(tokens, mask_ratio, noise):
    if mask_ratio == 0:
        raise ValueError("mask_ratio is 0.")
    return masked(tokens, mask_ratio, noise)


def _asserting(tokens, mask_ratio, noise):
    assert 0 <= mask_ratio < 1, mask_ratio
    assert noise.shape == tokens.shape[:2], (noise.shape, tokens.shape)


mask_asserting = _masking("mask_asserting", refuse=_asserting)


def _counting_the_noise(tokens, mask_ratio, noise):
    refuse_ratio(mask_ratio)
    if noise.numel() != tokens.shape[0] * tokens.shape[1]:
        raise ValueError(f"noise {tuple(noise.shape)}, tokens {tuple(tokens.shape)}.")


def mask_counting_the_noise(tokens, mask_ratio, noise):
    """Noise of (length, batch) has the same count."""
    _counting_the_noise(tokens, mask_ratio, noise)
    return masked(tokens, mask_ratio, noise.reshape(tokens.shape[:2]))


def mask_with_noise_for_one_image(tokens, mask_ratio, noise):
    """One row of noise serves all."""
    if noise.shape[-1] == tokens.shape[1] and noise.numel() == noise.shape[-1]:
        noise = noise.reshape(1, -1).expand(tokens.shape[:2])
    return masked(tokens, mask_ratio, noise)


def _without_numbers(text):
    def refuse(tokens, mask_ratio, noise):
        try:
            refuse_what_does_not_fit(tokens, mask_ratio, noise)
        except ValueError:
            raise ValueError(text) from None

    return refuse


def _nothing_kept_without_numbers(kept, length, mask_ratio):
    if kept == 0:
        raise ValueError("No token would be kept.")


mask_naming_no_numbers = _masking(
    "mask_naming_no_numbers",
    refuse=_without_numbers("The ratio or the noise does not fit."),
    refuse_kept=_nothing_kept_without_numbers,
)
mask_naming_no_length = _masking("mask_naming_no_length", refuse_kept=_nothing_kept_without_numbers)


def mask_failing_with_an_index(tokens, mask_ratio, noise):
    try:
        return masked(tokens, mask_ratio, noise)
    except ValueError as error:
        raise IndexError(str(error)) from None


# ---- MAEEncoder ----------------------------------------------------------------------------


class EncoderBase(nn.Module):
    """Right. What is wrong overrides one of its steps."""

    eps = 1e-6

    def __init__(self, image_size, patch_size, channels, d_model, num_layers, num_heads, d_ff):
        super().__init__()
        height, width = (image_size,) * 2 if isinstance(image_size, int) else image_size
        patches = (height // patch_size) * (width // patch_size)
        self.patch = PatchEmbedding(patch_size, channels, d_model)
        self.class_token = nn.Parameter(0.02 * torch.randn(d_model))
        self.position = nn.Parameter(0.02 * torch.randn(1 + patches, d_model))
        self.blocks = nn.ModuleList(self.block(d_model, num_heads, d_ff) for _ in range(num_layers))
        self.norm = nn.LayerNorm(d_model, eps=self.eps)

    def block(self, d_model, num_heads, d_ff):
        return ViTBlock(d_model, num_heads, d_ff)

    def patches(self, images):
        return self.patch(images) + self.position[1:]

    def choose(self, patches, mask_ratio, noise):
        return random_masking(patches, mask_ratio, noise)

    def first(self, images):
        return (self.class_token + self.position[0]).expand(len(images), 1, -1)

    def join(self, first, visible):
        return torch.cat([first, visible], dim=1)

    def run(self, x):
        for layer in self.blocks:
            x = layer(x)
        return self.norm(x)

    def finish(self, latent, mask, restore):
        return latent, mask, restore

    def forward(self, images, mask_ratio, noise):
        visible, mask, restore = self.choose(self.patches(images), mask_ratio, noise)
        latent = self.run(self.join(self.first(images), visible))
        return self.finish(latent, mask, restore)


class EncoderAddingPositionsAfterwards(EncoderBase):
    """The visible patches get the first positions."""

    def patches(self, images):
        return self.patch(images)

    def join(self, first, visible):
        return super().join(first, visible + self.position[1 : 1 + visible.shape[1]])


class EncoderAddingPositionsToAllAfterwards(EncoderBase):
    def patches(self, images):
        return self.patch(images)

    def first(self, images):
        return self.class_token.expand(len(images), 1, -1)

    def join(self, first, visible):
        x = super().join(first, visible)
        return x + self.position[: x.shape[1]]


class EncoderWithoutPositions(EncoderBase):
    def patches(self, images):
        return self.patch(images)


class EncoderCountingPositionsFromZero(EncoderBase):
    def patches(self, images):
        return self.patch(images) + self.position[:-1]


class EncoderWithTheClassTokensPositionLast(EncoderBase):
    def patches(self, images):
        return self.patch(images) + self.position[:-1]

    def first(self, images):
        return (self.class_token + self.position[-1]).expand(len(images), 1, -1)


class EncoderAddingPositionsByRestore(EncoderBase):
    """Positions of the first places in the shuffled order, by mistake for those of the image."""

    def forward(self, images, mask_ratio, noise):
        visible, mask, restore = random_masking(self.patch(images), mask_ratio, noise)
        visible = visible + self.position[1:][restore[:, : visible.shape[1]]]
        return self.run(self.join(self.first(images), visible)), mask, restore


class EncoderWithPositionsOfTheClassTokensRow(EncoderBase):
    """The indices are right and the row of the class token is forgotten."""

    def forward(self, images, mask_ratio, noise):
        visible, mask, restore = random_masking(self.patch(images), mask_ratio, noise)
        ids = restore.argsort(dim=1)[:, : visible.shape[1]]
        visible = visible + self.position[ids]
        return self.run(self.join(self.first(images), visible)), mask, restore


class EncoderWithoutTheClassTokensPosition(EncoderBase):
    def first(self, images):
        return self.class_token.expand(len(images), 1, -1)


class EncoderWithTheClassTokenLast(EncoderBase):
    def join(self, first, visible):
        return torch.cat([visible, first], dim=1)


class EncoderWithoutAClassToken(EncoderBase):
    def join(self, first, visible):
        return visible


class EncoderDroppingTheClassToken(EncoderBase):
    def finish(self, latent, mask, restore):
        return latent[:, 1:], mask, restore


class EncoderHidingTheClassToken(EncoderBase):
    """It is masked among the patches, with the least noise: one patch less stays at times."""

    def forward(self, images, mask_ratio, noise):
        x = torch.cat([self.first(images), self.patches(images)], dim=1)
        noise = torch.cat([noise.amin(dim=1, keepdim=True) - 1, noise], dim=1)
        x, mask, restore = random_masking(x, mask_ratio, noise)
        return self.run(x), mask[:, 1:], restore[:, 1:] - 1


class EncoderForOneImage(EncoderBase):
    def first(self, images):
        return (self.class_token + self.position[0]).reshape(1, 1, -1)


class EncoderOfEverything(EncoderBase):
    """All patches run through the blocks, and read each other; the visible are taken then."""

    def forward(self, images, mask_ratio, noise):
        x = self.run(self.join(self.first(images), self.patches(images)))
        visible, mask, restore = random_masking(x[:, 1:], mask_ratio, noise)
        return torch.cat([x[:, :1], visible], dim=1), mask, restore


class EncoderBehindAMask(EncoderBase):
    """Right numbers: hidden patches run along, and nobody reads them."""

    def forward(self, images, mask_ratio, noise):
        patches = self.patches(images)
        _, mask, restore = random_masking(patches, mask_ratio, noise)
        may = F.pad(~mask, (1, 0), value=True)[:, None]  # (batch, 1, 1 + patches)
        x = self.join(self.first(images), patches)
        for layer in self.blocks:
            normal = layer.norm1(x)
            x = x + layer.self_attn(normal, normal, normal, may)[0]
            x = x + layer.w_2(F.gelu(layer.w_1(layer.norm2(x))))
        visible, _, _ = random_masking(x[:, 1:], mask_ratio, noise)
        return self.norm(torch.cat([x[:, :1], visible], dim=1)), mask, restore


class EncoderWithHiddenOnesForShow(EncoderBase):
    """Right numbers: the blocks run once more, over all patches, for nothing."""

    def forward(self, images, mask_ratio, noise):
        self.seen = self.run(self.join(self.first(images), self.patches(images)))
        return super().forward(images, mask_ratio, noise)


class EncoderWithZerosForTheHidden(EncoderBase):
    def choose(self, patches, mask_ratio, noise):
        _, mask, restore = random_masking(patches, mask_ratio, noise)
        return patches * ~mask[..., None], mask, restore


class EncoderOfZerosThatSelects(EncoderBase):
    """Hidden patches are vectors of zeros in the blocks, and left out at the end."""

    def forward(self, images, mask_ratio, noise):
        patches = self.patches(images)
        _, mask, restore = random_masking(patches, mask_ratio, noise)
        x = self.run(self.join(self.first(images), patches * ~mask[..., None]))
        visible, _, _ = random_masking(x[:, 1:], mask_ratio, noise)
        return torch.cat([x[:, :1], visible], dim=1), mask, restore


class EncoderOfTheHidden(EncoderBase):
    def choose(self, patches, mask_ratio, noise):
        _, mask, restore = random_masking(patches, mask_ratio, noise)
        hidden, _, _ = random_masking(patches, mask_ratio, -noise)
        return hidden, mask, restore


class EncoderInTheImagesOrder(EncoderBase):
    def choose(self, patches, mask_ratio, noise):
        visible, mask, restore = random_masking(patches, mask_ratio, noise)
        ids = restore.argsort(dim=1)[:, : visible.shape[1]].argsort(dim=1)
        return visible.take_along_dim(ids[..., None], dim=1), mask, restore


class EncoderMaskingPixels(EncoderBase):
    """Hidden patches are blackened in the image, and embedded with all others."""

    def patches(self, images):
        self.images = images
        return super().patches(images)

    def choose(self, patches, mask_ratio, noise):
        _, mask, restore = random_masking(patches, mask_ratio, noise)
        cut = patchify(self.images, self.patch.patch_size) * ~mask[..., None]
        return self.patch.projection(cut) + self.position[1:], mask, restore


class EncoderWithoutTheLastNorm(EncoderBase):
    def run(self, x):
        for layer in self.blocks:
            x = layer(x)
        return x


class EncoderNormalizingEarly(EncoderBase):
    def run(self, x):
        x = self.norm(x)
        for layer in self.blocks:
            x = layer(x)
        return x


class EncoderNormalizingAfterEachBlock(EncoderBase):
    def run(self, x):
        for layer in self.blocks:
            x = self.norm(layer(x))
        return x


class EncoderWithTheDefaultEps(EncoderBase):
    eps = 1e-5


class EncoderWithAPlainList(EncoderBase):
    def __init__(self, image_size, patch_size, channels, d_model, num_layers, num_heads, d_ff):
        super().__init__(image_size, patch_size, channels, d_model, 0, num_heads, d_ff)
        del self.blocks
        self.blocks = [ViTBlock(d_model, num_heads, d_ff) for _ in range(num_layers)]


class EncoderSharingItsBlocks(EncoderBase):
    def __init__(self, image_size, patch_size, channels, d_model, num_layers, num_heads, d_ff):
        super().__init__(image_size, patch_size, channels, d_model, 0, num_heads, d_ff)
        self.blocks = nn.ModuleList([ViTBlock(d_model, num_heads, d_ff)] * num_layers)


class EncoderOfOneBlock(EncoderBase):
    def run(self, x):
        for _ in self.blocks:
            x = self.blocks[0](x)
        return self.norm(x)


class EncoderSkippingABlock(EncoderBase):
    def run(self, x):
        for layer in self.blocks[1:]:
            x = layer(x)
        return self.norm(x)


class EncoderFromTheLastBlock(EncoderBase):
    def run(self, x):
        for layer in reversed(self.blocks):
            x = layer(x)
        return self.norm(x)


class EncoderForgettingResults(EncoderBase):
    def run(self, x):
        for layer in self.blocks:
            y = layer(x)
        return self.norm(y)


class EncoderOfOneHead(EncoderBase):
    def block(self, d_model, num_heads, d_ff):
        return ViTBlock(d_model, 1, d_ff)


class EncoderFourTimesAsWide(EncoderBase):
    def block(self, d_model, num_heads, d_ff):
        return ViTBlock(d_model, num_heads, 4 * d_model)


class EncoderWithDropout(EncoderBase):
    def block(self, d_model, num_heads, d_ff):
        return ViTBlock(d_model, num_heads, d_ff, 0.1)


class EncoderWithLayersForHeads(EncoderBase):
    def __init__(self, image_size, patch_size, channels, d_model, num_layers, num_heads, d_ff):
        super().__init__(image_size, patch_size, channels, d_model, num_heads, num_layers, d_ff)


class EncoderOfColorImages(EncoderBase):
    def __init__(self, image_size, patch_size, channels, d_model, num_layers, num_heads, d_ff):
        super().__init__(image_size, patch_size, 3, d_model, num_layers, num_heads, d_ff)


class EncoderOfSquares(EncoderBase):
    """Of a pair it takes the height."""

    def __init__(self, image_size, patch_size, channels, d_model, num_layers, num_heads, d_ff):
        height = image_size if isinstance(image_size, int) else image_size[0]
        super().__init__(height, patch_size, channels, d_model, num_layers, num_heads, d_ff)


class EncoderOfPairs(EncoderBase):
    """A single number is no image size."""

    def __init__(self, image_size, patch_size, channels, d_model, num_layers, num_heads, d_ff):
        super().__init__(
            tuple(image_size), patch_size, channels, d_model, num_layers, num_heads, d_ff
        )


class EncoderOfNumbers(EncoderBase):
    """A pair is no image size."""

    def __init__(self, image_size, patch_size, channels, d_model, num_layers, num_heads, d_ff):
        super().__init__(
            int(image_size), patch_size, channels, d_model, num_layers, num_heads, d_ff
        )


class EncoderTurningImages(EncoderBase):
    """Height and width change places: patches are read column by column."""

    def patches(self, images):
        return super().patches(images.mT)


class EncoderWithChannelsFirst(EncoderBase):
    """Each patch is flattened in (channel, row, column) order."""

    def patches(self, images):
        side = self.patch.patch_size
        cut = F.unfold(images, side, stride=side).mT
        return self.patch.projection(cut) + self.position[1:]


class EncoderOfAWideClassToken(EncoderBase):
    def __init__(self, image_size, patch_size, channels, d_model, num_layers, num_heads, d_ff):
        super().__init__(image_size, patch_size, channels, d_model, num_layers, num_heads, d_ff)
        self.class_token = nn.Parameter(0.02 * torch.randn(1, 1, d_model))
        self.position = nn.Parameter(self.position.detach()[None])

    def patches(self, images):
        return self.patch(images) + self.position[:, 1:]

    def first(self, images):
        return (self.class_token + self.position[:, :1]).expand(len(images), -1, -1)


class EncoderWithPositionsForPatchesOnly(EncoderBase):
    def __init__(self, image_size, patch_size, channels, d_model, num_layers, num_heads, d_ff):
        super().__init__(image_size, patch_size, channels, d_model, num_layers, num_heads, d_ff)
        self.position = nn.Parameter(self.position.detach()[1:])

    def patches(self, images):
        return self.patch(images) + self.position

    def first(self, images):
        return self.class_token.expand(len(images), 1, -1)


class EncoderWithFixedPositions(EncoderBase):
    """A buffer is no parameter."""

    def __init__(self, image_size, patch_size, channels, d_model, num_layers, num_heads, d_ff):
        super().__init__(image_size, patch_size, channels, d_model, num_layers, num_heads, d_ff)
        position = self.position.detach()
        del self.position
        self.register_buffer("position", position)


class EncoderScalingPatches(EncoderBase):
    def patches(self, images):
        x = self.patch(images)
        return x * math.sqrt(x.shape[-1]) + self.position[1:]


class EncoderScalingImages(EncoderBase):
    def patches(self, images):
        return super().patches(2 * images - 1)


class EncoderChangingImages(EncoderBase):
    """Cuts off what is no color, in the tensor that was given."""

    def forward(self, images, mask_ratio, noise):
        result = super().forward(images, mask_ratio, noise)
        with torch.no_grad():
            images.clamp_(0, 1)
        return result


class EncoderSortingTheNoise(EncoderBase):
    def forward(self, images, mask_ratio, noise):
        result = super().forward(images, mask_ratio, noise)
        noise.copy_(noise.sort(dim=1).values)
        return result


class EncoderInFloat32(EncoderBase):
    def finish(self, latent, mask, restore):
        return latent.float(), mask, restore


class EncoderWithoutGradients(EncoderBase):
    def run(self, x):
        with torch.no_grad():
            return super().run(x)


class EncoderDetachingPatches(EncoderBase):
    def patches(self, images):
        return self.patch(images).detach() + self.position[1:]


class EncoderWithNoiseOfItsOwn(EncoderBase):
    def choose(self, patches, mask_ratio, noise):
        return random_masking(patches, mask_ratio, torch.rand_like(noise))


class EncoderWithOneMaskForAll(EncoderBase):
    def choose(self, patches, mask_ratio, noise):
        return random_masking(patches, mask_ratio, noise[:1].expand_as(noise))


class EncoderOfThreeQuarters(EncoderBase):
    """The ratio is always the paper's."""

    def choose(self, patches, mask_ratio, noise):
        return random_masking(patches, 0.75, noise)


class EncoderTakingTheRatioForTheVisible(EncoderBase):
    def choose(self, patches, mask_ratio, noise):
        return random_masking(patches, 1 - mask_ratio, noise)


class EncoderThatRemembersNoise(EncoderBase):
    """The first mask is kept for all calls."""

    noise = None

    def choose(self, patches, mask_ratio, noise):
        if self.noise is None or self.noise.shape != noise.shape:
            self.noise = noise.clone()
        return random_masking(patches, mask_ratio, self.noise)


class EncoderMaskingInTrainingOnly(EncoderBase):
    def choose(self, patches, mask_ratio, noise):
        return random_masking(patches, mask_ratio if self.training else 0.0, noise)


class EncoderInvertingTheMask(EncoderBase):
    def finish(self, latent, mask, restore):
        return latent, ~mask, restore


class EncoderReturningTheOrder(EncoderBase):
    def finish(self, latent, mask, restore):
        return latent, mask, restore.argsort(dim=1)


class EncoderReturningRestoreFirst(EncoderBase):
    def finish(self, latent, mask, restore):
        return latent, restore, mask


class EncoderReturningTheLatentOnly(EncoderBase):
    def finish(self, latent, mask, restore):
        return latent


class EncoderCountingTheClassTokenInTheMask(EncoderBase):
    def finish(self, latent, mask, restore):
        return latent, F.pad(mask, (1, 0), value=False), restore


class EncoderRestoringBesidesTheClassToken(EncoderBase):
    """One is added for the class token."""

    def finish(self, latent, mask, restore):
        return latent, mask, restore + 1


class EncoderPuttingThingsBack(EncoderBase):
    """The latent vectors come in the image's order, with zeros for the hidden."""

    def finish(self, latent, mask, restore):
        hidden = latent.new_zeros(len(latent), 1 + mask.shape[1] - latent.shape[1], latent.shape[2])
        shuffled = torch.cat([latent[:, 1:], hidden], dim=1)
        patches = shuffled.take_along_dim(restore[..., None], dim=1)
        return torch.cat([latent[:, :1], patches], dim=1), mask, restore


# ---- MAEDecoder ----------------------------------------------------------------------------


class DecoderBase(nn.Module):
    """Right. What is wrong overrides one of its steps."""

    eps = 1e-6

    def __init__(self, num_patches, d_encoder, d_model, num_layers, num_heads, d_ff, patch_numbers):
        super().__init__()
        self.embed = nn.Linear(d_encoder, d_model)
        self.mask_token = nn.Parameter(0.02 * torch.randn(d_model))
        self.position = nn.Parameter(0.02 * torch.randn(1 + num_patches, d_model))
        self.blocks = nn.ModuleList(self.block(d_model, num_heads, d_ff) for _ in range(num_layers))
        self.norm = nn.LayerNorm(d_model, eps=self.eps)
        self.predict = nn.Linear(d_model, patch_numbers)

    def block(self, d_model, num_heads, d_ff):
        return ViTBlock(d_model, num_heads, d_ff)

    def tokens(self, x, restore):
        hidden = 1 + restore.shape[1] - x.shape[1]
        return self.mask_token.expand(len(x), hidden, -1)

    def shuffled(self, x, restore):
        return torch.cat([x[:, 1:], self.tokens(x, restore)], dim=1)

    def unshuffle(self, shuffled, restore):
        return shuffled.take_along_dim(restore[..., None], dim=1)

    def place(self, first, patches):
        return torch.cat([first, patches], dim=1) + self.position

    def run(self, x):
        for layer in self.blocks:
            x = layer(x)
        return self.norm(x)

    def finish(self, x):
        return self.predict(x)[:, 1:]

    def forward(self, latent, restore):
        x = self.embed(latent)
        patches = self.unshuffle(self.shuffled(x, restore), restore)
        return self.finish(self.run(self.place(x[:, :1], patches)))


class DecoderWithMaskTokensFirst(DecoderBase):
    def shuffled(self, x, restore):
        return torch.cat([self.tokens(x, restore), x[:, 1:]], dim=1)


class DecoderUnshufflingWithTheOrder(DecoderBase):
    def unshuffle(self, shuffled, restore):
        return super().unshuffle(shuffled, restore.argsort(dim=1))


class DecoderThatScattersByRestore(DecoderBase):
    def unshuffle(self, shuffled, restore):
        index = restore[..., None].expand_as(shuffled)
        return torch.zeros_like(shuffled).scatter(1, index, shuffled)


class DecoderWithoutUnshuffling(DecoderBase):
    def unshuffle(self, shuffled, restore):
        return shuffled


class DecoderShufflingTheClassToken(DecoderBase):
    """It is gathered among the patches: all are one place off."""

    def forward(self, latent, restore):
        x = self.embed(latent)
        x = torch.cat([x, self.tokens(x, restore)], dim=1)
        patches = self.unshuffle(x, restore)
        return self.finish(self.run(self.place(x[:, :1], patches)))


class DecoderUnshufflingByTheFirstRow(DecoderBase):
    def unshuffle(self, shuffled, restore):
        return shuffled[:, restore[0]]


class DecoderUnshufflingTheFirstImage(DecoderBase):
    """The flat batch without each image's offset."""

    def unshuffle(self, shuffled, restore):
        return shuffled.flatten(0, 1)[restore]


class DecoderAddingPositionsEarly(DecoderBase):
    """Before the un-shuffling."""

    def shuffled(self, x, restore):
        return super().shuffled(x, restore) + self.position[1:]

    def place(self, first, patches):
        return torch.cat([first + self.position[:1], patches], dim=1)


class DecoderWithoutPositions(DecoderBase):
    def place(self, first, patches):
        return torch.cat([first, patches], dim=1)


class DecoderWithoutTheClassTokensPosition(DecoderBase):
    def place(self, first, patches):
        return torch.cat([first, patches + self.position[1:]], dim=1)


class DecoderWithoutThePatchesPositions(DecoderBase):
    def place(self, first, patches):
        return torch.cat([first + self.position[:1], patches], dim=1)


class DecoderWithPositionsForTheHiddenOnly(DecoderBase):
    def forward(self, latent, restore):
        x = self.embed(latent)
        hidden = (restore >= x.shape[1] - 1)[..., None]
        patches = self.unshuffle(self.shuffled(x, restore), restore)
        patches = patches + self.position[1:] * hidden
        x = torch.cat([x[:, :1] + self.position[:1], patches], dim=1)
        return self.finish(self.run(x))


class DecoderCountingPositionsFromZero(DecoderBase):
    def place(self, first, patches):
        return torch.cat([first + self.position[-1], patches + self.position[:-1]], dim=1)


class DecoderAddingPositionsAtTheEnd(DecoderBase):
    def place(self, first, patches):
        return torch.cat([first, patches], dim=1)

    def run(self, x):
        return super().run(x) + self.position


class DecoderDroppingTheClassTokenEarly(DecoderBase):
    def run(self, x):
        return super().run(x[:, 1:])

    def finish(self, x):
        return self.predict(x)


class DecoderKeepingTheClassToken(DecoderBase):
    def finish(self, x):
        return self.predict(x)


class DecoderDroppingTheLast(DecoderBase):
    def finish(self, x):
        return self.predict(x)[:, :-1]


class DecoderWithTheClassTokenLast(DecoderBase):
    def place(self, first, patches):
        return torch.cat([patches, first], dim=1) + self.position

    def finish(self, x):
        return self.predict(x)[:, :-1]


class DecoderOfTheVisible(DecoderBase):
    """The blocks see the visible patches; the mask tokens come at the end."""

    def forward(self, latent, restore):
        x = self.run(self.embed(latent))
        patches = self.unshuffle(self.shuffled(x, restore), restore)
        return self.finish(self.place(x[:, :1], patches))


class DecoderOfTheHidden(DecoderBase):
    """The mask tokens alone are decoded, beside the class token; the visible stay as they are."""

    def forward(self, latent, restore):
        x = self.embed(latent)
        hidden = restore >= x.shape[1] - 1
        found = self.place(x[:, :1], self.unshuffle(self.shuffled(x, restore), restore))
        patches = found[:, 1:][hidden].view(len(x), -1, x.shape[2])
        done = self.run(torch.cat([found[:, :1], patches], dim=1))[:, 1:]
        return self.predict(found[:, 1:].masked_scatter(hidden[..., None], done))


class DecoderPredictingTheHidden(DecoderBase):
    """Only the hidden patches come back."""

    def forward(self, latent, restore):
        hidden = restore >= latent.shape[1] - 1
        prediction = super().forward(latent, restore)
        return prediction[hidden].view(len(latent), -1, prediction.shape[2])


class DecoderPredictingZerosForTheVisible(DecoderBase):
    def forward(self, latent, restore):
        return super().forward(latent, restore) * (restore >= latent.shape[1] - 1)[..., None]


class DecoderPredictingInShuffledOrder(DecoderBase):
    def forward(self, latent, restore):
        return self.unshuffle(super().forward(latent, restore), restore.argsort(dim=1))


class DecoderUnshufflingAtTheEnd(DecoderBase):
    """The blocks see the shuffled order with the positions of the image's."""

    def forward(self, latent, restore):
        x = self.embed(latent)
        done = self.finish(self.run(self.place(x[:, :1], self.shuffled(x, restore))))
        return self.unshuffle(done, restore)


class DecoderWithZerosForMaskTokens(DecoderBase):
    def tokens(self, x, restore):
        return torch.zeros_like(super().tokens(x, restore))


class DecoderWithRandomMaskTokens(DecoderBase):
    def tokens(self, x, restore):
        return 0.02 * torch.randn_like(super().tokens(x, restore))


class DecoderWithTheMeanForMaskTokens(DecoderBase):
    def tokens(self, x, restore):
        return x[:, 1:].mean(dim=1, keepdim=True).expand_as(super().tokens(x, restore))


class DecoderWithTheClassTokenForMaskTokens(DecoderBase):
    def tokens(self, x, restore):
        return x[:, :1].expand_as(super().tokens(x, restore))


class DecoderWithMaskTokensForTheVisible(DecoderBase):
    def forward(self, latent, restore):
        x = self.embed(latent)
        patches = self.unshuffle(self.shuffled(x, restore), restore)
        patches = torch.where((restore < x.shape[1] - 1)[..., None], self.mask_token, patches)
        return self.finish(self.run(self.place(x[:, :1], patches)))


class DecoderDetachingTheMaskToken(DecoderBase):
    def tokens(self, x, restore):
        return super().tokens(x, restore).detach()


class DecoderCopyingTheMaskTokenOnce(DecoderBase):
    """A copy of the numbers that the token had when it was built."""

    def __init__(self, num_patches, d_encoder, d_model, num_layers, num_heads, d_ff, patch_numbers):
        super().__init__(
            num_patches, d_encoder, d_model, num_layers, num_heads, d_ff, patch_numbers
        )
        self.copy = self.mask_token.detach().clone()

    def tokens(self, x, restore):
        return self.copy.to(x).expand_as(super().tokens(x, restore))


class DecoderWithAWideMaskToken(DecoderBase):
    def __init__(self, num_patches, d_encoder, d_model, num_layers, num_heads, d_ff, patch_numbers):
        super().__init__(
            num_patches, d_encoder, d_model, num_layers, num_heads, d_ff, patch_numbers
        )
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, d_model))


class DecoderWithAMaskTokenPerPatch(DecoderBase):
    def __init__(self, num_patches, d_encoder, d_model, num_layers, num_heads, d_ff, patch_numbers):
        super().__init__(
            num_patches, d_encoder, d_model, num_layers, num_heads, d_ff, patch_numbers
        )
        self.mask_token = nn.Parameter(0.02 * torch.randn(num_patches, d_model))

    def tokens(self, x, restore):
        hidden = 1 + restore.shape[1] - x.shape[1]
        return self.mask_token[-hidden:].expand(len(x), -1, -1)


class DecoderWithPositionsForPatchesOnly(DecoderBase):
    def __init__(self, num_patches, d_encoder, d_model, num_layers, num_heads, d_ff, patch_numbers):
        super().__init__(
            num_patches, d_encoder, d_model, num_layers, num_heads, d_ff, patch_numbers
        )
        self.position = nn.Parameter(0.02 * torch.randn(num_patches, d_model))

    def place(self, first, patches):
        return torch.cat([first, patches + self.position], dim=1)


class DecoderWithFixedPositions(DecoderBase):
    def place(self, first, patches):
        return torch.cat([first, patches], dim=1) + self.position.detach()


class DecoderOfThreeQuarters(DecoderBase):
    """Counts on the paper's ratio."""

    def tokens(self, x, restore):
        hidden = restore.shape[1] - restore.shape[1] // 4
        return self.mask_token.expand(len(x), hidden, -1)


class DecoderWithAMaskTokenTooFew(DecoderBase):
    """The class token is counted among the visible."""

    def tokens(self, x, restore):
        return self.mask_token.expand(len(x), restore.shape[1] - x.shape[1], -1)


class DecoderForOneImage(DecoderBase):
    def tokens(self, x, restore):
        return super().tokens(x, restore)[:1]


class DecoderForContiguousVectors(DecoderBase):
    def forward(self, latent, restore):
        flat = latent.view(-1, latent.shape[-1])
        return super().forward(flat.view(latent.shape), restore)


class DecoderReadingBackwards(DecoderBase):
    def shuffled(self, x, restore):
        return torch.cat([x[:, 1:].flip(1), self.tokens(x, restore)], dim=1)


class DecoderInTheImagesOrder(DecoderBase):
    """The visible are taken to come in the order of the image."""

    def unshuffle(self, shuffled, restore):
        hidden = restore >= self.kept
        order = (restore + 1).masked_fill(~hidden, 0).argsort(dim=1, stable=True)
        return super().unshuffle(shuffled, order.argsort(dim=1))

    def forward(self, latent, restore):
        self.kept = latent.shape[1] - 1
        return super().forward(latent, restore)


class DecoderWithoutTheLastNorm(DecoderBase):
    def run(self, x):
        for layer in self.blocks:
            x = layer(x)
        return x


class DecoderNormalizingEarly(DecoderBase):
    def run(self, x):
        x = self.norm(x)
        for layer in self.blocks:
            x = layer(x)
        return x


class DecoderNormalizingTheLatent(DecoderBase):
    """The norm stands after embed, not after the blocks."""

    def forward(self, latent, restore):
        x = self.norm(self.embed(latent))
        x = self.place(x[:, :1], self.unshuffle(self.shuffled(x, restore), restore))
        for layer in self.blocks:
            x = layer(x)
        return self.finish(x)


class DecoderWithTheDefaultEps(DecoderBase):
    eps = 1e-5


class DecoderWithAPlainList(DecoderBase):
    def __init__(self, num_patches, d_encoder, d_model, num_layers, num_heads, d_ff, patch_numbers):
        super().__init__(num_patches, d_encoder, d_model, 0, num_heads, d_ff, patch_numbers)
        del self.blocks
        self.blocks = [ViTBlock(d_model, num_heads, d_ff) for _ in range(num_layers)]


class DecoderSharingItsBlocks(DecoderBase):
    def __init__(self, num_patches, d_encoder, d_model, num_layers, num_heads, d_ff, patch_numbers):
        super().__init__(num_patches, d_encoder, d_model, 0, num_heads, d_ff, patch_numbers)
        self.blocks = nn.ModuleList([ViTBlock(d_model, num_heads, d_ff)] * num_layers)


class DecoderOfOneBlock(DecoderBase):
    def run(self, x):
        for _ in self.blocks:
            x = self.blocks[0](x)
        return self.norm(x)


class DecoderFromTheLastBlock(DecoderBase):
    def run(self, x):
        for layer in reversed(self.blocks):
            x = layer(x)
        return self.norm(x)


class DecoderForgettingResults(DecoderBase):
    def run(self, x):
        for layer in self.blocks:
            y = layer(x)
        return self.norm(y)


class DecoderOfOneHead(DecoderBase):
    def block(self, d_model, num_heads, d_ff):
        return ViTBlock(d_model, 1, d_ff)


class DecoderFourTimesAsWide(DecoderBase):
    def block(self, d_model, num_heads, d_ff):
        return ViTBlock(d_model, num_heads, 4 * d_model)


class DecoderWithDropout(DecoderBase):
    def block(self, d_model, num_heads, d_ff):
        return ViTBlock(d_model, num_heads, d_ff, 0.1)


class DecoderWithLayersForHeads(DecoderBase):
    def __init__(self, num_patches, d_encoder, d_model, num_layers, num_heads, d_ff, patch_numbers):
        super().__init__(
            num_patches, d_encoder, d_model, num_heads, num_layers, d_ff, patch_numbers
        )


class DecoderOfTheEncodersWidth(DecoderBase):
    def __init__(self, num_patches, d_encoder, d_model, num_layers, num_heads, d_ff, patch_numbers):
        super().__init__(
            num_patches, d_encoder, d_encoder, num_layers, num_heads, d_ff, patch_numbers
        )


class DecoderReadingTheVisibleOnly(DecoderBase):
    """No mask token may be read."""

    def forward(self, latent, restore):
        x = self.embed(latent)
        may = F.pad(restore < x.shape[1] - 1, (1, 0), value=True)[:, None]
        x = self.place(x[:, :1], self.unshuffle(self.shuffled(x, restore), restore))
        for layer in self.blocks:
            normal = layer.norm1(x)
            x = x + layer.self_attn(normal, normal, normal, may)[0]
            x = x + layer.w_2(F.gelu(layer.w_1(layer.norm2(x))))
        return self.finish(self.norm(x))


class DecoderOfColorsBetweenZeroAndOne(DecoderBase):
    def finish(self, x):
        return super().finish(x).sigmoid()


class DecoderInFloat32(DecoderBase):
    def finish(self, x):
        return super().finish(x).float()


class DecoderDetachingTheLatent(DecoderBase):
    def forward(self, latent, restore):
        return super().forward(latent.detach(), restore)


class DecoderChangingTheLatent(DecoderBase):
    def forward(self, latent, restore):
        result = super().forward(latent, restore)
        with torch.no_grad():
            latent[:, 0] = 0
        return result


class DecoderChangingRestore(DecoderBase):
    """It makes room for the class token in the tensor it was given."""

    def forward(self, latent, restore):
        result = super().forward(latent, restore)
        restore += 1
        return result


class DecoderThatRemembersRestore(DecoderBase):
    first = None

    def unshuffle(self, shuffled, restore):
        if self.first is None or self.first.shape != restore.shape:
            self.first = restore.clone()
        return super().unshuffle(shuffled, self.first)


class DecoderReturningEverything(DecoderBase):
    def forward(self, latent, restore):
        return super().forward(latent, restore), restore


# ---- normalized_pixel_targets --------------------------------------------------------------


def standardized(patches, eps, variance, mean=None):
    mean = patches.mean(dim=-1, keepdim=True) if mean is None else mean
    return (patches - mean) / (variance + eps).sqrt()


def own_variance(patches):
    return patches.var(dim=-1, keepdim=True)


def targets_over_n(patches, eps=1e-6):
    return standardized(patches, eps, patches.var(dim=-1, keepdim=True, unbiased=False))


def targets_over_n_minus_two(patches, eps=1e-6):
    return standardized(patches, eps, patches.var(dim=-1, keepdim=True, correction=2))


def targets_by_layer_norm(patches, eps=1e-6):
    return F.layer_norm(patches, patches.shape[-1:], eps=eps)


def targets_scaled_the_wrong_way(patches, eps=1e-6):
    """A layer norm corrected with the inverse factor."""
    n = patches.shape[-1]
    return targets_by_layer_norm(patches, eps) * math.sqrt(n / (n - 1))


def targets_with_eps_on_the_deviation(patches, eps=1e-6):
    mean, deviation = patches.mean(-1, keepdim=True), patches.std(-1, keepdim=True)
    return (patches - mean) / (deviation + eps)


def targets_with_eps_squared(patches, eps=1e-6):
    return standardized(patches, eps**2, own_variance(patches))


def targets_with_eps_as_a_floor(patches, eps=1e-6):
    return standardized(patches, 0.0, own_variance(patches).clamp(min=eps))


def targets_with_the_deviation_clamped(patches, eps=1e-6):
    mean, deviation = patches.mean(-1, keepdim=True), patches.std(-1, keepdim=True)
    return (patches - mean) / deviation.clamp(min=eps)


def targets_without_eps(patches, eps=1e-6):
    return standardized(patches, 0.0, own_variance(patches))


def targets_without_eps_and_nan(patches, eps=1e-6):
    return standardized(patches, 0.0, own_variance(patches)).nan_to_num()


def targets_with_a_fixed_eps(patches, eps=1e-6):
    return standardized(patches, 1e-6, own_variance(patches))


def targets_with_the_eps_of_a_norm(patches, eps=1e-5):
    return standardized(patches, eps, own_variance(patches))


def targets_over_the_variance(patches, eps=1e-6):
    return (patches - patches.mean(-1, keepdim=True)) / (own_variance(patches) + eps)


def targets_not_centered(patches, eps=1e-6):
    return standardized(patches, eps, own_variance(patches), 0.0)


def targets_not_scaled(patches, eps=1e-6):
    return patches - patches.mean(dim=-1, keepdim=True)


def targets_by_root_mean_square(patches, eps=1e-6):
    """The squares are not of what was centered."""
    return standardized(patches, eps, patches.square().mean(dim=-1, keepdim=True))


def targets_by_the_mean_distance(patches, eps=1e-6):
    centered = patches - patches.mean(dim=-1, keepdim=True)
    return centered / (centered.abs().mean(dim=-1, keepdim=True) + eps)


def targets_by_the_range(patches, eps=1e-6):
    low, high = patches.amin(-1, keepdim=True), patches.amax(-1, keepdim=True)
    return (patches - low) / (high - low + eps)


def targets_by_length(patches, eps=1e-6):
    return F.normalize(patches - patches.mean(dim=-1, keepdim=True), dim=-1, eps=eps)


def targets_over_the_image(patches, eps=1e-6):
    mean = patches.mean(dim=(1, 2), keepdim=True)
    return standardized(patches, eps, patches.var(dim=(1, 2), keepdim=True), mean)


def targets_over_the_patches(patches, eps=1e-6):
    mean = patches.mean(dim=1, keepdim=True)
    return standardized(patches, eps, patches.var(dim=1, keepdim=True), mean)


def targets_over_the_batch(patches, eps=1e-6):
    mean = patches.mean(dim=0, keepdim=True)
    variance = patches.var(dim=0, keepdim=True, unbiased=len(patches) > 1)
    return standardized(patches, eps, variance, mean)


def targets_over_everything(patches, eps=1e-6):
    return standardized(patches, eps, patches.var(), patches.mean())


def targets_with_the_images_variance(patches, eps=1e-6):
    return standardized(patches, eps, patches.var(dim=(1, 2), keepdim=True))


def targets_with_the_images_mean(patches, eps=1e-6):
    mean = patches.mean(dim=(1, 2), keepdim=True)
    return standardized(patches, eps, own_variance(patches), mean)


def targets_by_channel(patches, eps=1e-6):
    """Three channels, each by itself; where they do not fit, all together."""
    if patches.shape[-1] % 3 or patches.shape[-1] == 3:
        return standardized(patches, eps, own_variance(patches))
    split = patches.unflatten(-1, (-1, 3))
    mean, variance = split.mean(dim=2, keepdim=True), split.var(dim=2, keepdim=True)
    return standardized(split, eps, variance, mean).flatten(2)


def targets_without_axes(patches, eps=1e-6):
    """Without keepdim: right only by chance of the shape."""
    return (patches - patches.mean(-1)) / (patches.var(-1) + eps).sqrt()


def targets_in_place(patches, eps=1e-6):
    target = standardized(patches, eps, own_variance(patches)).detach()
    patches.detach().copy_(target)
    return target


def targets_in_float32(patches, eps=1e-6):
    return standardized(patches, eps, own_variance(patches)).float()


def targets_in_float64(patches, eps=1e-6):
    return standardized(patches.double(), eps, own_variance(patches.double()))


def targets_rounded_to_float32(patches, eps=1e-6):
    """Right in dtype, with the digits of another."""
    return standardized(patches.float(), eps, own_variance(patches.float())).to(patches.dtype)


def targets_with_statistics(patches, eps=1e-6):
    variance = own_variance(patches)
    return standardized(patches, eps, variance), patches.mean(-1), variance


def targets_cut_off(patches, eps=1e-6):
    return standardized(patches, eps, own_variance(patches)).clamp(-1.5, 1.5)


def targets_of_one_color_unchanged(patches, eps=1e-6):
    variance = own_variance(patches)
    return torch.where(variance == 0, patches, standardized(patches, eps, variance))


def targets_for_several_images(patches, eps=1e-6):
    return standardized(patches, eps, own_variance(patches)).squeeze(0)


def targets_for_contiguous_patches(patches, eps=1e-6):
    flat = patches.view(-1, patches.shape[-1])
    return standardized(flat, eps, own_variance(flat)).view(patches.shape)


def targets_that_remember(patches, eps=1e-6, known={}):  # noqa: B006
    """The statistics of the first batch of a shape serve for all."""
    key = tuple(patches.shape)
    if key not in known:
        known[key] = patches.mean(-1, keepdim=True).detach(), own_variance(patches).detach()
    mean, variance = known[key]
    return standardized(patches, eps, variance.to(patches), mean.to(patches))


# ---- masked_patch_loss ---------------------------------------------------------------------


def refuse_an_empty_mask(mask):
    if not mask.any():
        raise ValueError("Nothing is hidden.")


def errors(prediction, target):
    return (prediction - target).square().mean(dim=-1)


def losing(prediction, target, mask, refuse=refuse_an_empty_mask, errors=errors, reduce=None):
    """Right, but for what is done to one of its steps."""
    refuse(mask)
    per_patch = errors(prediction, target)
    return reduce(per_patch, mask) if reduce else per_patch[mask].mean()


def _loss(name, **changes):
    def loss(prediction, target, mask):
        return losing(prediction, target, mask, **changes)

    loss.__name__ = name
    return loss


loss_of_all_patches = _loss("loss_of_all_patches", reduce=lambda e, mask: e.mean())
loss_of_the_visible = _loss(
    "loss_of_the_visible",
    reduce=lambda e, mask: e[~mask].mean() if not mask.all() else 0 * e.sum(),
)
loss_of_hidden_and_visible = _loss(
    "loss_of_hidden_and_visible",
    reduce=lambda e, mask: e[mask].mean() + (0.1 * e[~mask].mean() if not mask.all() else 0),
)
loss_divided_by_all_patches = _loss(
    "loss_divided_by_all_patches", reduce=lambda e, mask: (e * mask).mean()
)
loss_as_a_sum = _loss("loss_as_a_sum", reduce=lambda e, mask: e[mask].sum())
loss_divided_by_the_batch = _loss(
    "loss_divided_by_the_batch", reduce=lambda e, mask: e[mask].sum() / len(e)
)
loss_divided_by_the_patches_of_an_image = _loss(
    "loss_divided_by_the_patches_of_an_image",
    reduce=lambda e, mask: e[mask].sum() / mask.shape[1],
)
loss_divided_by_one_more = _loss(
    "loss_divided_by_one_more", reduce=lambda e, mask: e[mask].sum() / (mask.sum() + 1)
)
loss_divided_by_the_first_images_count = _loss(
    "loss_divided_by_the_first_images_count",
    reduce=lambda e, mask: e[mask].sum() / (len(e) * mask[0].sum().clamp(min=1)),
)
loss_image_by_image = _loss(
    "loss_image_by_image",
    reduce=lambda e, mask: ((e * mask).sum(1) / mask.sum(1).clamp(min=1)).mean(),
)
loss_of_the_first_image = _loss(
    "loss_of_the_first_image",
    reduce=lambda e, mask: (e[:1] * mask[:1]).sum() / mask[:1].sum().clamp(min=1),
)
loss_with_the_first_images_mask = _loss(
    "loss_with_the_first_images_mask",
    reduce=lambda e, mask: e[:, mask[0]].mean() if mask[0].any() else e.mean(),
)
loss_of_each_patch = _loss("loss_of_each_patch", reduce=lambda e, mask: e[mask])
loss_of_each_image = _loss(
    "loss_of_each_image",
    reduce=lambda e, mask: (e * mask).sum(1) / mask.sum(1).clamp(min=1),
)
loss_with_an_axis = _loss("loss_with_an_axis", reduce=lambda e, mask: e[mask].mean()[None])
loss_as_a_number = _loss("loss_as_a_number", reduce=lambda e, mask: e[mask].mean().item())
loss_detached = _loss("loss_detached", reduce=lambda e, mask: e[mask].mean().detach())
loss_under_a_root = _loss("loss_under_a_root", reduce=lambda e, mask: e[mask].mean().sqrt())
loss_halved = _loss("loss_halved", reduce=lambda e, mask: e[mask].mean() / 2)
loss_with_nothing_for_zeros = _loss(
    "loss_with_nothing_for_zeros",
    refuse=lambda mask: None,
    reduce=lambda e, mask: (e * mask).sum() / mask.sum().clamp(min=1),
)
loss_with_eps = _loss(
    "loss_with_eps",
    refuse=lambda mask: None,
    reduce=lambda e, mask: (e * mask).sum() / (mask.sum() + 1e-6),
)
loss_leaking = _loss(
    "loss_leaking",
    reduce=lambda e, mask: (e * mask.to(e).clamp(min=1e-3)).sum() / mask.sum(),
)

loss_summed_over_numbers = _loss(
    "loss_summed_over_numbers", errors=lambda p, t: (p - t).square().sum(dim=-1)
)
loss_of_distances = _loss("loss_of_distances", errors=lambda p, t: (p - t).abs().mean(dim=-1))
loss_of_lengths = _loss("loss_of_lengths", errors=lambda p, t: (p - t).norm(dim=-1))
loss_of_mean_differences = _loss(
    "loss_of_mean_differences", errors=lambda p, t: (p - t).mean(dim=-1).square()
)
loss_smoothed = _loss(
    "loss_smoothed", errors=lambda p, t: F.smooth_l1_loss(p, t, reduction="none").mean(dim=-1)
)
loss_of_n_minus_one = _loss(
    "loss_of_n_minus_one",
    errors=lambda p, t: (p - t).square().sum(dim=-1) / (p.shape[-1] - 1),
)
loss_normalizing_targets = _loss(
    "loss_normalizing_targets", errors=lambda p, t: errors(p, normalized_pixel_targets(t))
)
loss_detaching_the_prediction = _loss(
    "loss_detaching_the_prediction", errors=lambda p, t: errors(p.detach(), t)
)

loss_without_an_error = _loss("loss_without_an_error", refuse=lambda mask: None)


def _refuse_by(mask_is_wrong, kind=ValueError):
    def refuse(mask):
        if mask_is_wrong(mask):
            raise kind("Nothing is hidden.")

    return refuse


loss_asserting = _loss("loss_asserting", refuse=_refuse_by(lambda m: not m.any(), AssertionError))
loss_with_a_runtime_error = _loss(
    "loss_with_a_runtime_error", refuse=_refuse_by(lambda m: not m.any(), RuntimeError)
)
loss_refusing_an_image_without_hidden = _loss(
    "loss_refusing_an_image_without_hidden", refuse=_refuse_by(lambda m: not m.any(1).all())
)
loss_refusing_all_hidden = _loss(
    "loss_refusing_all_hidden", refuse=_refuse_by(lambda m: not m.any() or m.all())
)
loss_looking_at_the_first_image = _loss(
    "loss_looking_at_the_first_image", refuse=_refuse_by(lambda m: not m[0].any())
)


def loss_of_squares_side_by_side(prediction, target, mask):
    """Squared before they are subtracted."""
    return losing(prediction.square(), target.square(), mask, errors=lambda p, t: (p - t).mean(-1))


def loss_erasing_the_visible(prediction, target, mask):
    refuse_an_empty_mask(mask)
    loss = losing(prediction, target, mask)
    prediction.detach().masked_fill_(~mask[..., None], 0)
    return loss


def loss_erasing_the_target(prediction, target, mask):
    loss = losing(prediction, target, mask)
    target.detach().masked_fill_(~mask[..., None], 0)
    return loss


def loss_inverting_the_mask(prediction, target, mask):
    """In place, for use as True = visible, and never back."""
    loss = losing(prediction, target, mask)
    mask.logical_not_()
    return loss


def loss_of_the_prediction_masked(prediction, target, mask):
    """The target's visible patches still count."""
    refuse_an_empty_mask(mask)
    wide = mask[..., None]
    return (prediction * wide - target).square().sum() / (mask.sum() * target.shape[-1])


def loss_of_the_target_masked(prediction, target, mask):
    refuse_an_empty_mask(mask)
    wide = mask[..., None]
    return (prediction - target * wide).square().sum() / (mask.sum() * target.shape[-1])


def loss_with_a_gradient_for_all(prediction, target, mask):
    """The number is right, the gradient that of all patches."""
    right = losing(prediction, target, mask)
    every = errors(prediction, target).mean()
    return right.detach() + every - every.detach()


def loss_for_contiguous_predictions(prediction, target, mask):
    flat = mask.view(-1)
    refuse_an_empty_mask(mask)
    numbers = prediction.shape[-1]
    return F.mse_loss(prediction.view(-1, numbers)[flat], target.view(-1, numbers)[flat])


def loss_of_as_many_in_each_image(prediction, target, mask):
    """Every image is taken to hide as many as the first."""
    refuse_an_empty_mask(mask)
    count = max(1, int(mask[0].sum()))
    ids = mask.int().argsort(dim=1, descending=True, stable=True)[:, :count]
    return errors(prediction, target).gather(1, ids).mean()


def loss_on_sorted_patches(prediction, target, mask):
    """The last patches are taken to be the hidden ones."""
    refuse_an_empty_mask(mask)
    return losing(prediction, target, mask.sort(dim=1).values)


# ---- MaskedAutoencoder ---------------------------------------------------------------------


class ModelBase(nn.Module):
    """Right. What is wrong overrides one of its steps."""

    def __init__(
        self,
        image_size,
        patch_size,
        channels,
        d_model,
        num_layers,
        num_heads,
        d_ff,
        decoder_d_model,
        decoder_num_layers,
        decoder_num_heads,
        decoder_d_ff,
        normalize=True,
    ):
        super().__init__()
        self.side, self.normalize = patch_size, normalize
        sizes = {
            "patches": math.prod(
                side // patch_size
                for side in ((image_size,) * 2 if isinstance(image_size, int) else image_size)
            ),
            "width": d_model,
            "numbers": patch_size**2 * channels,
        }
        encoder = image_size, patch_size, channels, d_model, num_layers, num_heads, d_ff
        decoder = decoder_d_model, decoder_num_layers, decoder_num_heads, decoder_d_ff
        self.build(encoder, decoder, sizes)

    def build(self, encoder, decoder, sizes):
        self.encoder = MAEEncoder(*encoder)
        self.decoder = MAEDecoder(sizes["patches"], sizes["width"], *decoder, sizes["numbers"])

    def cut(self, images):
        return patchify(images, self.side)

    def target(self, images):
        cut = self.cut(images)
        return normalized_pixel_targets(cut) if self.normalize else cut

    def draw(self, images):
        return torch.rand(len(images), len(self.encoder.position) - 1, device=images.device)

    def encode(self, images, mask_ratio, noise):
        return self.encoder(images, mask_ratio, noise)

    def decode(self, latent, restore):
        return self.decoder(latent, restore)

    def loss(self, prediction, target, mask):
        return masked_patch_loss(prediction, target, mask)

    def finish(self, loss, prediction, mask, images):
        return loss, prediction, mask

    def forward(self, images, mask_ratio=0.75, noise=None):
        noise = self.draw(images) if noise is None else noise
        latent, mask, restore = self.encode(images, mask_ratio, noise)
        prediction = self.decode(latent, restore)
        loss = self.loss(prediction, self.target(images), mask)
        return self.finish(loss, prediction, mask, images)


class ModelNotNormalizing(ModelBase):
    def target(self, images):
        return self.cut(images)


class ModelAlwaysNormalizing(ModelBase):
    def target(self, images):
        return normalized_pixel_targets(self.cut(images))


class ModelNormalizingIfNotAsked(ModelBase):
    def target(self, images):
        cut = self.cut(images)
        return cut if self.normalize else normalized_pixel_targets(cut)


class ModelNotNormalizingByDefault(ModelBase):
    def __init__(
        self,
        image_size,
        patch_size,
        channels,
        d_model,
        num_layers,
        num_heads,
        d_ff,
        decoder_d_model,
        decoder_num_layers,
        decoder_num_heads,
        decoder_d_ff,
        normalize=False,
    ):
        super().__init__(
            image_size,
            patch_size,
            channels,
            d_model,
            num_layers,
            num_heads,
            d_ff,
            decoder_d_model,
            decoder_num_layers,
            decoder_num_heads,
            decoder_d_ff,
            normalize,
        )


class ModelNormalizingInTrainingOnly(ModelBase):
    def target(self, images):
        return super().target(images) if self.training else self.cut(images)


class ModelNormalizingThePrediction(ModelBase):
    def loss(self, prediction, target, mask):
        if self.normalize:
            prediction = normalized_pixel_targets(prediction)
        return super().loss(prediction, target, mask)


class ModelNormalizingWhatItSees(ModelBase):
    """The encoder gets normalized patches too."""

    def encode(self, images, mask_ratio, noise):
        if self.normalize:
            grid = images.shape[2] // self.side, images.shape[3] // self.side
            images = unpatchify(self.target(images), self.side, images.shape[1], grid)
        return super().encode(images, mask_ratio, noise)


class ModelNormalizingImages(ModelBase):
    def target(self, images):
        cut = self.cut(images)
        if not self.normalize:
            return cut
        mean, variance = cut.mean(dim=(1, 2), keepdim=True), cut.var(dim=(1, 2), keepdim=True)
        return (cut - mean) / (variance + 1e-6).sqrt()


class ModelNormalizingOverN(ModelBase):
    def target(self, images):
        cut = self.cut(images)
        return F.layer_norm(cut, cut.shape[-1:], eps=1e-6) if self.normalize else cut


class ModelNormalizingWithAnotherEps(ModelBase):
    def target(self, images):
        cut = self.cut(images)
        return normalized_pixel_targets(cut, 1e-2) if self.normalize else cut


class ModelUndoingTheNormalization(ModelBase):
    """The prediction that comes back is in colors."""

    def finish(self, loss, prediction, mask, images):
        if self.normalize:
            cut = self.cut(images)
            deviation = (cut.var(dim=-1, keepdim=True) + 1e-6).sqrt()
            prediction = prediction * deviation + cut.mean(dim=-1, keepdim=True)
        return loss, prediction, mask


class ModelWithChannelsFirst(ModelBase):
    def cut(self, images):
        return F.unfold(images, self.side, stride=self.side).mT


class ModelReadingColumns(ModelBase):
    """The patches of the target are in the order of columns."""

    def cut(self, images):
        rows, columns = images.shape[2] // self.side, images.shape[3] // self.side
        cut = super().cut(images).unflatten(1, (rows, columns))
        return cut.transpose(1, 2).flatten(1, 2)


class ModelTurningTargets(ModelBase):
    """Within a patch, columns come before rows."""

    def cut(self, images):
        cut = super().cut(images).unflatten(2, (self.side, self.side, -1))
        return cut.transpose(2, 3).flatten(2)


class ModelOfShuffledTargets(ModelBase):
    """The targets are in the shuffled order, the prediction is not."""

    def forward(self, images, mask_ratio=0.75, noise=None):
        noise = self.draw(images) if noise is None else noise
        latent, mask, restore = self.encode(images, mask_ratio, noise)
        prediction = self.decode(latent, restore)
        order = restore.argsort(dim=1)[..., None]
        loss = self.loss(prediction, self.target(images).take_along_dim(order, dim=1), mask)
        return loss, prediction, mask


class ModelLosingOnAll(ModelBase):
    def loss(self, prediction, target, mask):
        return F.mse_loss(prediction, target)


class ModelLosingOnTheVisible(ModelBase):
    def loss(self, prediction, target, mask):
        return masked_patch_loss(prediction, target, ~mask)


class ModelLosingDistances(ModelBase):
    def loss(self, prediction, target, mask):
        return F.l1_loss(prediction[mask], target[mask])


class ModelDetachingTheLoss(ModelBase):
    def loss(self, prediction, target, mask):
        return super().loss(prediction, target, mask).detach()


class ModelLosingANumber(ModelBase):
    def loss(self, prediction, target, mask):
        return super().loss(prediction, target, mask).item()


class ModelDetachingTheLatent(ModelBase):
    """The encoder learns nothing."""

    def decode(self, latent, restore):
        return super().decode(latent.detach(), restore)


class ModelEncodingWithoutGradients(ModelBase):
    def encode(self, images, mask_ratio, noise):
        with torch.no_grad():
            return super().encode(images, mask_ratio, noise)


class ModelReturningThePredictionFirst(ModelBase):
    def finish(self, loss, prediction, mask, images):
        return prediction, loss, mask


class ModelReturningTheMaskSecond(ModelBase):
    def finish(self, loss, prediction, mask, images):
        return loss, mask, prediction


class ModelReturningTheLoss(ModelBase):
    def finish(self, loss, prediction, mask, images):
        return loss


class ModelReturningImages(ModelBase):
    def finish(self, loss, prediction, mask, images):
        grid = images.shape[2] // self.side, images.shape[3] // self.side
        return loss, unpatchify(prediction, self.side, images.shape[1], grid), mask


class ModelReturningTheHidden(ModelBase):
    def finish(self, loss, prediction, mask, images):
        return loss, prediction[mask].unflatten(0, (len(mask), -1)), mask


class ModelReturningZerosForTheVisible(ModelBase):
    def finish(self, loss, prediction, mask, images):
        return loss, prediction * mask[..., None], mask


class ModelPastingTheVisible(ModelBase):
    """The visible patches of the prediction are the image's own."""

    def finish(self, loss, prediction, mask, images):
        return loss, torch.where(mask[..., None], prediction, self.target(images)), mask


class ModelInvertingTheMask(ModelBase):
    def finish(self, loss, prediction, mask, images):
        return loss, prediction, ~mask


class ModelReturningFloatsForAMask(ModelBase):
    def finish(self, loss, prediction, mask, images):
        return loss, prediction, mask.float()


class ModelReturningRestore(ModelBase):
    def forward(self, images, mask_ratio=0.75, noise=None):
        noise = self.draw(images) if noise is None else noise
        latent, mask, restore = self.encode(images, mask_ratio, noise)
        prediction = self.decode(latent, restore)
        return self.loss(prediction, self.target(images), mask), prediction, restore


class ModelDecodingWithTheOrder(ModelBase):
    def decode(self, latent, restore):
        return super().decode(latent, restore.argsort(dim=1))


class ModelDrawingTwice(ModelBase):
    """The mask of the loss is not the encoder's."""

    def forward(self, images, mask_ratio=0.75, noise=None):
        if noise is None:
            noise = self.draw(images)
        latent, mask, restore = self.encode(images, mask_ratio, noise)
        prediction = self.decode(latent, restore)
        _, mask, _ = random_masking(prediction, mask_ratio, self.draw(images))
        return self.loss(prediction, self.target(images), mask), prediction, mask


class ModelIgnoringNoise(ModelBase):
    def forward(self, images, mask_ratio=0.75, noise=None):
        return super().forward(images, mask_ratio)


class ModelThatNeedsNoise(ModelBase):
    def forward(self, images, mask_ratio, noise):
        return super().forward(images, mask_ratio, noise)


class ModelHidingHalfByDefault(ModelBase):
    def forward(self, images, mask_ratio=0.5, noise=None):
        return super().forward(images, mask_ratio, noise)


class ModelIgnoringTheRatio(ModelBase):
    def forward(self, images, mask_ratio=0.75, noise=None):
        return super().forward(images, 0.75, noise)


class ModelTakingTheRatioForTheVisible(ModelBase):
    def forward(self, images, mask_ratio=0.75, noise=None):
        return super().forward(images, 1 - mask_ratio, noise)


class ModelWithNoiseSecond(ModelBase):
    def forward(self, images, noise=None, mask_ratio=0.75):
        return super().forward(images, mask_ratio, noise)


class ModelAlwaysHidingTheSame(ModelBase):
    """Drawn once, for all calls."""

    first = None

    def draw(self, images):
        if self.first is None or len(self.first) != len(images):
            self.first = super().draw(images)
        return self.first


class ModelDrawingFromAFixedSeed(ModelBase):
    def draw(self, images):
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(len(images), len(self.encoder.position) - 1, generator=generator)
        return noise.to(images.device)


class ModelSeedingTheWorld(ModelBase):
    def draw(self, images):
        torch.manual_seed(0)
        return super().draw(images)


class ModelWithOneMaskForAll(ModelBase):
    def draw(self, images):
        return super().draw(images[:1]).expand(len(images), -1)


class ModelHidingTheEnd(ModelBase):
    """No chance: the last patches are hidden."""

    def draw(self, images):
        patches = len(self.encoder.position) - 1
        return torch.linspace(0, 1, patches, device=images.device).expand(len(images), -1)


class ModelDrawingInTrainingOnly(ModelBase):
    def draw(self, images):
        if self.training:
            return super().draw(images)
        patches = len(self.encoder.position) - 1
        return torch.linspace(0, 1, patches, device=images.device).expand(len(images), -1)


class ModelDrawingByTheImage(ModelBase):
    """The darkest patches stay: the mask depends on what is to be guessed."""

    def draw(self, images):
        return self.cut(images).mean(dim=-1)


class ModelRepeatingItself(ModelBase):
    """The last result comes back for images of the same shape."""

    last = None

    def forward(self, images, mask_ratio=0.75, noise=None):
        key = images.shape, mask_ratio
        if self.last is None or self.last[0] != key:
            self.last = key, super().forward(images, mask_ratio, noise)
        return self.last[1]


class ModelFlippingImages(ModelBase):
    """Augments on its own, in training."""

    def forward(self, images, mask_ratio=0.75, noise=None):
        if self.training:
            images = images.flip(3)
        return super().forward(images, mask_ratio, noise)


class ModelScalingImages(ModelBase):
    def forward(self, images, mask_ratio=0.75, noise=None):
        return super().forward(images / 255, mask_ratio, noise)


class ModelErasingTheHidden(ModelBase):
    """In the images that were given."""

    def finish(self, loss, prediction, mask, images):
        with torch.no_grad():
            grid = images.shape[2] // self.side, images.shape[3] // self.side
            cut = self.cut(images).masked_fill(mask[..., None], 0)
            images.copy_(unpatchify(cut, self.side, images.shape[1], grid))
        return loss, prediction, mask


class ModelOverwritingNoise(ModelBase):
    def forward(self, images, mask_ratio=0.75, noise=None):
        result = super().forward(images, mask_ratio, noise)
        if noise is not None:
            noise.uniform_()
        return result


class ModelEncodingEverything(ModelBase):
    """A ratio of 0 for the encoder; the visible latent vectors are taken then."""

    def encode(self, images, mask_ratio, noise):
        latent, _, _ = self.encoder(images, 0.0, noise)
        kept = int(noise.shape[1] * (1 - mask_ratio))
        restore = noise.argsort(dim=1).argsort(dim=1)
        return latent[:, : 1 + kept], restore >= kept, restore


class ModelShowingTheDecoderEverything(ModelBase):
    """The latent vectors of all patches go to the decoder: there is nothing to guess."""

    def decode(self, latent, restore):
        full, _, _ = self.encoder(self.images, 0.0, self.noise)
        return super().decode(full, restore)

    def encode(self, images, mask_ratio, noise):
        self.images, self.noise = images, noise
        return super().encode(images, mask_ratio, noise)


class ModelOfSquares(ModelBase):
    def build(self, encoder, decoder, sizes):
        self.encoder = MAEEncoder(*encoder)
        side = math.isqrt(sizes["patches"])
        self.decoder = MAEDecoder(side * side, sizes["width"], *decoder, sizes["numbers"])


class ModelOfPairs(ModelBase):
    def build(self, encoder, decoder, sizes):
        height, width = encoder[0]
        super().build(((height, width), *encoder[1:]), decoder, sizes)


class ModelOfColorImages(ModelBase):
    def build(self, encoder, decoder, sizes):
        super().build(encoder, decoder, sizes | {"numbers": encoder[1] ** 2 * 3})


class ModelOfGrayPredictions(ModelBase):
    """The channels are not counted."""

    def build(self, encoder, decoder, sizes):
        super().build(encoder, decoder, sizes | {"numbers": encoder[1] ** 2})


class ModelWithTheEncodersWidth(ModelBase):
    def build(self, encoder, decoder, sizes):
        super().build(encoder, (sizes["width"], *decoder[1:]), sizes)


class ModelWithTheEncodersLayers(ModelBase):
    def build(self, encoder, decoder, sizes):
        super().build(encoder, (decoder[0], encoder[4], *decoder[2:]), sizes)


class ModelWithTheEncodersHeads(ModelBase):
    def build(self, encoder, decoder, sizes):
        super().build(encoder, (*decoder[:2], encoder[5], decoder[3]), sizes)


class ModelWithTheEncodersHiddenWidth(ModelBase):
    def build(self, encoder, decoder, sizes):
        super().build(encoder, (*decoder[:3], encoder[6]), sizes)


class ModelWithDecodersLayersForHeads(ModelBase):
    def build(self, encoder, decoder, sizes):
        width, layers, heads, hidden = decoder
        super().build(encoder, (width, heads, layers, hidden), sizes)


class ModelWithTheDecoderForAnEncoder(ModelBase):
    """Encoder and decoder are built with each other's sizes."""

    def build(self, encoder, decoder, sizes):
        width, layers, heads, hidden = encoder[3:]
        super().build(
            (*encoder[:3], *decoder), (width, layers, heads, hidden), sizes | {"width": decoder[0]}
        )


class ModelUnderOtherNames(ModelBase):
    """encoder and decoder are in one list."""

    def build(self, encoder, decoder, sizes):
        super().build(encoder, decoder, sizes)
        parts = nn.ModuleList([self.encoder, self.decoder])
        del self.encoder, self.decoder
        self.parts = parts

    def draw(self, images):
        return torch.rand(len(images), len(self.parts[0].position) - 1, device=images.device)

    def encode(self, images, mask_ratio, noise):
        return self.parts[0](images, mask_ratio, noise)

    def decode(self, latent, restore):
        return self.parts[1](latent, restore)


MUTANTS = {
    "mae/random_masking": [
        mask_rounding_up,
        mask_rounding,
        mask_rounding_the_hidden_down,
        mask_keeping_the_ratio,
        mask_keeping_one_more,
        mask_keeping_one_less,
        mask_keeping_a_quarter,
        mask_by_a_whole_number,
        mask_keeping_at_least_one,
        mask_keeping_the_largest,
        mask_sorting_over_the_batch,
        mask_of_the_first_row,
        mask_with_noise_of_its_own,
        mask_of_the_first_tokens,
        mask_by_size,
        mask_by_rounded_noise,
        mask_taking_ranks_for_ids,
        mask_sorting_the_noise_itself,
        mask_in_the_images_order,
        mask_in_the_images_order_with_another_restore,
        mask_with_the_hidden_in_the_images_order,
        mask_with_the_visible_backwards,
        mask_restoring_with_the_order,
        mask_of_the_order,
        mask_restoring_backwards,
        mask_restoring_the_hidden_first,
        mask_restoring_from_one,
        mask_restoring_in_int32,
        mask_restoring_the_visible,
        mask_showing_the_hidden,
        mask_taking_by_restore,
        mask_taking_the_first_tokens,
        mask_taking_from_the_first_image,
        mask_with_zeros_for_the_hidden,
        mask_showing_everything_shuffled,
        mask_detaching,
        mask_in_float32,
        mask_for_contiguous_tokens,
        mask_for_several_images,
        mask_erasing_the_tokens,
        mask_inverted,
        mask_in_shuffled_order,
        mask_unshuffled_with_the_order,
        mask_hiding_one_less,
        mask_of_floats,
        mask_of_one_row,
        mask_by_the_ratio_itself,
        mask_last,
        mask_without_restore,
        mask_that_remembers,
        mask_token_by_token,
        mask_refusing_nothing,
        mask_refusing_no_ratio,
        mask_refusing_no_noise,
        mask_of_no_token,
        mask_clamping_the_ratio,
        mask_accepting_one,
        mask_accepting_less_than_zero,
        mask_refusing_zero,
        mask_asserting,
        mask_counting_the_noise,
        mask_with_noise_for_one_image,
        mask_naming_no_numbers,
        mask_naming_no_length,
        mask_failing_with_an_index,
    ],
    "mae/MAEEncoder": [
        EncoderAddingPositionsAfterwards,
        EncoderAddingPositionsToAllAfterwards,
        EncoderWithoutPositions,
        EncoderCountingPositionsFromZero,
        EncoderWithTheClassTokensPositionLast,
        EncoderAddingPositionsByRestore,
        EncoderWithPositionsOfTheClassTokensRow,
        EncoderWithoutTheClassTokensPosition,
        EncoderWithTheClassTokenLast,
        EncoderWithoutAClassToken,
        EncoderDroppingTheClassToken,
        EncoderHidingTheClassToken,
        EncoderForOneImage,
        EncoderOfEverything,
        EncoderBehindAMask,
        EncoderWithHiddenOnesForShow,
        EncoderWithZerosForTheHidden,
        EncoderOfZerosThatSelects,
        EncoderOfTheHidden,
        EncoderInTheImagesOrder,
        EncoderMaskingPixels,
        EncoderWithoutTheLastNorm,
        EncoderNormalizingEarly,
        EncoderNormalizingAfterEachBlock,
        EncoderWithTheDefaultEps,
        EncoderWithAPlainList,
        EncoderSharingItsBlocks,
        EncoderOfOneBlock,
        EncoderSkippingABlock,
        EncoderFromTheLastBlock,
        EncoderForgettingResults,
        EncoderOfOneHead,
        EncoderFourTimesAsWide,
        EncoderWithDropout,
        EncoderWithLayersForHeads,
        EncoderOfColorImages,
        EncoderOfSquares,
        EncoderOfPairs,
        EncoderOfNumbers,
        EncoderTurningImages,
        EncoderWithChannelsFirst,
        EncoderOfAWideClassToken,
        EncoderWithPositionsForPatchesOnly,
        EncoderWithFixedPositions,
        EncoderScalingPatches,
        EncoderScalingImages,
        EncoderChangingImages,
        EncoderSortingTheNoise,
        EncoderInFloat32,
        EncoderWithoutGradients,
        EncoderDetachingPatches,
        EncoderWithNoiseOfItsOwn,
        EncoderWithOneMaskForAll,
        EncoderOfThreeQuarters,
        EncoderTakingTheRatioForTheVisible,
        EncoderThatRemembersNoise,
        EncoderMaskingInTrainingOnly,
        EncoderInvertingTheMask,
        EncoderReturningTheOrder,
        EncoderReturningRestoreFirst,
        EncoderReturningTheLatentOnly,
        EncoderCountingTheClassTokenInTheMask,
        EncoderRestoringBesidesTheClassToken,
        EncoderPuttingThingsBack,
    ],
    "mae/MAEDecoder": [
        DecoderWithMaskTokensFirst,
        DecoderUnshufflingWithTheOrder,
        DecoderThatScattersByRestore,
        DecoderWithoutUnshuffling,
        DecoderShufflingTheClassToken,
        DecoderUnshufflingByTheFirstRow,
        DecoderUnshufflingTheFirstImage,
        DecoderAddingPositionsEarly,
        DecoderWithoutPositions,
        DecoderWithoutTheClassTokensPosition,
        DecoderWithoutThePatchesPositions,
        DecoderWithPositionsForTheHiddenOnly,
        DecoderCountingPositionsFromZero,
        DecoderAddingPositionsAtTheEnd,
        DecoderDroppingTheClassTokenEarly,
        DecoderKeepingTheClassToken,
        DecoderDroppingTheLast,
        DecoderWithTheClassTokenLast,
        DecoderOfTheVisible,
        DecoderOfTheHidden,
        DecoderPredictingTheHidden,
        DecoderPredictingZerosForTheVisible,
        DecoderPredictingInShuffledOrder,
        DecoderUnshufflingAtTheEnd,
        DecoderWithZerosForMaskTokens,
        DecoderWithRandomMaskTokens,
        DecoderWithTheMeanForMaskTokens,
        DecoderWithTheClassTokenForMaskTokens,
        DecoderWithMaskTokensForTheVisible,
        DecoderDetachingTheMaskToken,
        DecoderCopyingTheMaskTokenOnce,
        DecoderWithAWideMaskToken,
        DecoderWithAMaskTokenPerPatch,
        DecoderWithPositionsForPatchesOnly,
        DecoderWithFixedPositions,
        DecoderOfThreeQuarters,
        DecoderWithAMaskTokenTooFew,
        DecoderForOneImage,
        DecoderForContiguousVectors,
        DecoderReadingBackwards,
        DecoderInTheImagesOrder,
        DecoderWithoutTheLastNorm,
        DecoderNormalizingEarly,
        DecoderNormalizingTheLatent,
        DecoderWithTheDefaultEps,
        DecoderWithAPlainList,
        DecoderSharingItsBlocks,
        DecoderOfOneBlock,
        DecoderFromTheLastBlock,
        DecoderForgettingResults,
        DecoderOfOneHead,
        DecoderFourTimesAsWide,
        DecoderWithDropout,
        DecoderWithLayersForHeads,
        DecoderOfTheEncodersWidth,
        DecoderReadingTheVisibleOnly,
        DecoderOfColorsBetweenZeroAndOne,
        DecoderInFloat32,
        DecoderDetachingTheLatent,
        DecoderChangingTheLatent,
        DecoderChangingRestore,
        DecoderThatRemembersRestore,
        DecoderReturningEverything,
    ],
    "mae/normalized_pixel_targets": [
        targets_over_n,
        targets_over_n_minus_two,
        targets_by_layer_norm,
        targets_scaled_the_wrong_way,
        targets_with_eps_on_the_deviation,
        targets_with_eps_squared,
        targets_with_eps_as_a_floor,
        targets_with_the_deviation_clamped,
        targets_without_eps,
        targets_without_eps_and_nan,
        targets_with_a_fixed_eps,
        targets_with_the_eps_of_a_norm,
        targets_over_the_variance,
        targets_not_centered,
        targets_not_scaled,
        targets_by_root_mean_square,
        targets_by_the_mean_distance,
        targets_by_the_range,
        targets_by_length,
        targets_over_the_image,
        targets_over_the_patches,
        targets_over_the_batch,
        targets_over_everything,
        targets_with_the_images_variance,
        targets_with_the_images_mean,
        targets_by_channel,
        targets_without_axes,
        targets_in_place,
        targets_in_float32,
        targets_in_float64,
        targets_rounded_to_float32,
        targets_with_statistics,
        targets_cut_off,
        targets_of_one_color_unchanged,
        targets_for_several_images,
        targets_for_contiguous_patches,
        targets_that_remember,
    ],
    "mae/masked_patch_loss": [
        loss_of_all_patches,
        loss_of_the_visible,
        loss_of_hidden_and_visible,
        loss_divided_by_all_patches,
        loss_as_a_sum,
        loss_divided_by_the_batch,
        loss_divided_by_the_patches_of_an_image,
        loss_divided_by_one_more,
        loss_divided_by_the_first_images_count,
        loss_image_by_image,
        loss_of_the_first_image,
        loss_with_the_first_images_mask,
        loss_of_each_patch,
        loss_of_each_image,
        loss_with_an_axis,
        loss_as_a_number,
        loss_detached,
        loss_under_a_root,
        loss_halved,
        loss_with_nothing_for_zeros,
        loss_with_eps,
        loss_leaking,
        loss_summed_over_numbers,
        loss_of_distances,
        loss_of_lengths,
        loss_of_mean_differences,
        loss_smoothed,
        loss_of_n_minus_one,
        loss_normalizing_targets,
        loss_detaching_the_prediction,
        loss_without_an_error,
        loss_asserting,
        loss_with_a_runtime_error,
        loss_refusing_an_image_without_hidden,
        loss_refusing_all_hidden,
        loss_looking_at_the_first_image,
        loss_of_squares_side_by_side,
        loss_erasing_the_visible,
        loss_erasing_the_target,
        loss_inverting_the_mask,
        loss_of_the_prediction_masked,
        loss_of_the_target_masked,
        loss_with_a_gradient_for_all,
        loss_for_contiguous_predictions,
        loss_of_as_many_in_each_image,
        loss_on_sorted_patches,
    ],
    "mae/MaskedAutoencoder": [
        ModelNotNormalizing,
        ModelAlwaysNormalizing,
        ModelNormalizingIfNotAsked,
        ModelNotNormalizingByDefault,
        ModelNormalizingInTrainingOnly,
        ModelNormalizingThePrediction,
        ModelNormalizingWhatItSees,
        ModelNormalizingImages,
        ModelNormalizingOverN,
        ModelNormalizingWithAnotherEps,
        ModelUndoingTheNormalization,
        ModelWithChannelsFirst,
        ModelReadingColumns,
        ModelTurningTargets,
        ModelOfShuffledTargets,
        ModelLosingOnAll,
        ModelLosingOnTheVisible,
        ModelLosingDistances,
        ModelDetachingTheLoss,
        ModelLosingANumber,
        ModelDetachingTheLatent,
        ModelEncodingWithoutGradients,
        ModelReturningThePredictionFirst,
        ModelReturningTheMaskSecond,
        ModelReturningTheLoss,
        ModelReturningImages,
        ModelReturningTheHidden,
        ModelReturningZerosForTheVisible,
        ModelPastingTheVisible,
        ModelInvertingTheMask,
        ModelReturningFloatsForAMask,
        ModelReturningRestore,
        ModelDecodingWithTheOrder,
        ModelDrawingTwice,
        ModelIgnoringNoise,
        ModelThatNeedsNoise,
        ModelHidingHalfByDefault,
        ModelIgnoringTheRatio,
        ModelTakingTheRatioForTheVisible,
        ModelWithNoiseSecond,
        ModelAlwaysHidingTheSame,
        ModelDrawingFromAFixedSeed,
        ModelSeedingTheWorld,
        ModelWithOneMaskForAll,
        ModelHidingTheEnd,
        ModelDrawingInTrainingOnly,
        ModelDrawingByTheImage,
        ModelRepeatingItself,
        ModelFlippingImages,
        ModelScalingImages,
        ModelErasingTheHidden,
        ModelOverwritingNoise,
        ModelEncodingEverything,
        ModelShowingTheDecoderEverything,
        ModelOfSquares,
        ModelOfPairs,
        ModelOfColorImages,
        ModelOfGrayPredictions,
        ModelWithTheEncodersWidth,
        ModelWithTheEncodersLayers,
        ModelWithTheEncodersHeads,
        ModelWithTheEncodersHiddenWidth,
        ModelWithDecodersLayersForHeads,
        ModelWithTheDecoderForAnEncoder,
        ModelUnderOtherNames,
    ],
}

# Filled by trying them on the checks.
NAMED = {
    "mask_rounding_up": "The number of visible tokens is rounded up (or that of",
    "mask_rounding": "The number of visible tokens is rounded to the nearest",
    "mask_rounding_the_hidden_down": "The number of visible tokens is rounded up (or that of",
    "mask_keeping_one_more": "One token too many is kept",
    "mask_keeping_at_least_one": "Where no token would be kept, one is kept after all; a",
    "mask_keeping_the_largest": "The tokens with the largest noise are kept; those with",
    "mask_of_the_first_row": "All images are hidden alike, by the noise of the first",
    "mask_with_noise_of_its_own": "The noise that is given is not used: the function draws",
    "mask_sorting_the_noise_itself": "The tokens or the noise of the caller are changed in",
    "mask_in_the_images_order_with_another_restore": "The visible tokens stand in the order of",
    "mask_restoring_with_the_order": "restore is the shuffle itself, the argsort of the",
    "mask_of_the_order": "There is one argsort only, so restore is the shuffle",
    "mask_restoring_in_int32": "restore is int32; gather wants int64, which argsort",
    "mask_restoring_the_visible": "restore covers the visible tokens only; it needs a",
    "mask_taking_by_restore": "The sorted noise is not turned into an index: tokens",
    "mask_taking_the_first_tokens": "The first tokens of the image are kept, whatever their",
    "mask_with_zeros_for_the_hidden": "The hidden tokens are set to 0 but stay in the",
    "mask_showing_everything_shuffled": "All tokens come back, shuffled; only the first `kept`",
    "mask_detaching": "The visible tokens are detached: no gradient flows",
    "mask_inverted": "The mask is inverted: True means hidden",
    "mask_in_shuffled_order": "The mask is in the shuffled order: first the visible",
    "mask_unshuffled_with_the_order": "The mask is brought into the order of the image with",
    "mask_of_floats": "The mask is made of numbers, 0 and 1; it must be boolean",
    "mask_by_the_ratio_itself": "The mask compares the noise with the ratio; how many",
    "mask_last": "mask and restore change places in the result",
    "mask_refusing_nothing": "Nothing is checked: a ratio or a noise that does not",
    "mask_refusing_no_noise": "A noise of another shape is not refused",
    "mask_of_no_token": "Where no token would be kept, no error is raised, and",
    "mask_clamping_the_ratio": "A ratio below 0 is not refused",
    "mask_accepting_less_than_zero": "A ratio below 0 is not refused",
    "targets_over_n": "The variance divides by n; it must divide by n - 1",
    "targets_by_layer_norm": "The variance divides by n; it must divide by n - 1",
    "targets_with_eps_on_the_deviation": "eps is added to the standard deviation; it belongs",
    "targets_with_eps_as_a_floor": "eps is a lower bound here; it must be added to the",
    "targets_with_the_deviation_clamped": "eps is a lower bound here; it must be added to the",
    "targets_without_eps": "eps is left out, so a patch of one color becomes NaN",
    "targets_without_eps_and_nan": "eps is left out, so a patch of one color becomes NaN",
    "targets_with_a_fixed_eps": "The argument eps is not used; it is 1e-6 only where",
    "targets_with_the_eps_of_a_norm": "eps has another value by default; it is 1e-6",
    "targets_over_the_variance": "It is divided by the variance; take its root first",
    "targets_not_centered": "The mean is not subtracted",
    "targets_not_scaled": "The mean is subtracted, but nothing is divided by the",
    "targets_by_the_mean_distance": "It is divided by the mean distance from the mean; the",
    "targets_over_the_image": "Mean and variance go over all patches of an image; each",
    "targets_over_the_patches": "Mean and variance go over the patches, one for each",
    "targets_over_the_batch": "Mean and variance go over the images; they belong over",
    "targets_over_everything": "Mean and variance go over the whole batch; each patch",
    "targets_by_channel": "Each color channel is normalized by itself; mean and",
    "targets_in_place": "The patches of the caller are changed in place; the",
    "targets_in_float32": "The result always has the same dtype; it must have that",
    "loss_of_all_patches": "The loss is taken on all patches; only hidden ones count",
    "loss_of_the_visible": "The loss is taken on the visible patches: the mask is",
    "loss_divided_by_all_patches": "The errors of hidden patches are summed, and divided by",
    "loss_as_a_sum": "The errors of the hidden patches are summed; take their",
    "loss_divided_by_the_batch": "The sum is divided by the number of images; divide it",
    "loss_image_by_image": "The mean is taken in each image first, and over the",
    "loss_with_the_first_images_mask": "The mask of the first image is used for all images",
    "loss_of_each_patch": "There is a loss for each patch; the result is their mean",
    "loss_of_each_image": "There is a loss for each image; the result is one number",
    "loss_with_an_axis": "The result has axes of length 1; it is a number without",
    "loss_detached": "The prediction is detached: the loss teaches nothing",
    "loss_under_a_root": "A root is taken of the loss; the mean of squares is",
    "loss_halved": "The loss is halved",
    "loss_with_nothing_for_zeros": "A mask that hides nothing gives the loss 0; a",
    "loss_summed_over_numbers": "The errors over a patch's numbers are summed; take",
    "loss_of_distances": "The difference is taken without its sign and not squared",
    "loss_of_lengths": "A root is taken of each patch's error; the mean of",
    "loss_smoothed": "Large differences are not squared: this is the smooth",
    "loss_normalizing_targets": "The target is normalized here; it comes as it is to be",
    "loss_detaching_the_prediction": "The prediction is detached: the loss teaches nothing",
    "loss_without_an_error": "A mask that hides nothing gives NaN; a ValueError is due",
    "loss_erasing_the_visible": "What the caller handed over is changed in place",
    "loss_erasing_the_target": "What the caller handed over is changed in place",
    "EncoderAddingPositionsAfterwards": "The positions are added after the masking, in the order",
    "EncoderAddingPositionsToAllAfterwards": "The positions are added after the masking, in the",
    "EncoderWithoutPositions": "The patches get no position",
    "EncoderCountingPositionsFromZero": "The rows of position are off by one: row 0 belongs to",
    "EncoderWithPositionsOfTheClassTokensRow": "The rows of position are off by one: row 0",
    "EncoderWithoutTheClassTokensPosition": "The class token gets no position",
    "EncoderWithTheClassTokenLast": "The class token stands last; it belongs in front",
    "EncoderWithoutAClassToken": "There is no class token among the vectors",
    "EncoderDroppingTheClassToken": "The class token is dropped at the end; latent has it in",
    "EncoderOfEverything": "All patches go through the blocks, and the visible ones",
    "EncoderBehindAMask": "The hidden patches go through the blocks behind a mask",
    "EncoderWithHiddenOnesForShow": "The hidden patches go through the blocks behind a mask",
    "EncoderWithZerosForTheHidden": "The hidden patches are set to 0 and stay in the",
    "EncoderInTheImagesOrder": "The visible patches stand in the order of the image",
    "EncoderWithoutTheLastNorm": "The last norm is missing",
    "EncoderNormalizingEarly": "The norm stands before the blocks; it belongs after the",
    "EncoderNormalizingAfterEachBlock": "The norm is applied after every block; it belongs after",
    "EncoderWithTheDefaultEps": "The last norm has another eps, such as PyTorch's 1e-5",
    "EncoderWithAPlainList": "The blocks stand in a plain list, where PyTorch does",
    "EncoderSharingItsBlocks": "All blocks are one and the same block; each has",
    "EncoderFromTheLastBlock": "The blocks run in the wrong order",
    "EncoderForgettingResults": "Every block starts from the same vectors; each takes",
    "EncoderOfOneHead": "The blocks have one head, or another number than",
    "EncoderOfSquares": "image_size is taken for a square: only its height, or",
    "EncoderOfAWideClassToken": "class_token or position has further axes of length 1",
    "EncoderWithPositionsForPatchesOnly": "position has no row for the class token: it needs 1 +",
    "EncoderWithFixedPositions": "position does not learn; here it is an nn.Parameter",
    "EncoderWithoutGradients": "latent is detached: no gradient reaches the encoder",
    "EncoderOfThreeQuarters": "mask_ratio is not used: the share that is hidden is",
    "EncoderInvertingTheMask": "The mask comes back inverted: True means hidden",
    "EncoderReturningRestoreFirst": "mask and restore change places in the result",
    "DecoderWithMaskTokensFirst": "The mask tokens stand before the visible patches; in",
    "DecoderUnshufflingWithTheOrder": "restore is used the other way around, by its argsort or",
    "DecoderThatScattersByRestore": "restore is used the other way around, by its argsort or",
    "DecoderWithoutUnshuffling": "Nothing is un-shuffled: the patches stay in the order",
    "DecoderShufflingTheClassToken": "The class token takes part in the un-shuffling: restore",
    "DecoderUnshufflingByTheFirstRow": "All images are un-shuffled by the row of the first",
    "DecoderAddingPositionsEarly": "The positions are added before the un-shuffling, by the",
    "DecoderWithoutPositions": "There are no positions",
    "DecoderWithoutTheClassTokensPosition": "The class token gets no position: row 0 is its own",
    "DecoderWithPositionsForTheHiddenOnly": "Only the mask tokens get positions; the visible",
    "DecoderCountingPositionsFromZero": "The rows of position are off by one: row 0 belongs to",
    "DecoderDroppingTheClassTokenEarly": "The class token is dropped before the blocks; drop it",
    "DecoderKeepingTheClassToken": "The class token's prediction comes back too; drop it",
    "DecoderDroppingTheLast": "The last prediction is dropped; drop the first, the",
    "DecoderWithTheClassTokenLast": "The rows of position are off by one: row 0 belongs to",
    "DecoderPredictingTheHidden": "Only the hidden patches are predicted; all patches come",
    "DecoderPredictingInShuffledOrder": "The prediction is shuffled again at the end; it comes",
    "DecoderUnshufflingAtTheEnd": "The positions are added before the un-shuffling, by the",
    "DecoderWithZerosForMaskTokens": "The hidden places are filled with zeros, not with the",
    "DecoderWithTheMeanForMaskTokens": "The hidden places are filled with the mean of the",
    "DecoderDetachingTheMaskToken": "The mask token is detached: it does not learn",
    "DecoderWithAWideMaskToken": "mask_token or position has further axes of length 1",
    "DecoderWithAMaskTokenPerPatch": "There is a mask token for each place; one vector serves",
    "DecoderWithPositionsForPatchesOnly": "position has no row for the class token: it needs 1 +",
    "DecoderWithoutTheLastNorm": "The last norm is missing",
    "DecoderNormalizingEarly": "The norm stands before the blocks; it belongs after the",
    "DecoderWithTheDefaultEps": "The last norm has another eps, such as PyTorch's 1e-5",
    "DecoderWithAPlainList": "The blocks stand in a plain list, where PyTorch does",
    "DecoderSharingItsBlocks": "All blocks are one and the same block; each has",
    "DecoderFromTheLastBlock": "The blocks run in the wrong order",
    "DecoderForgettingResults": "Every block starts from the same vectors; each takes",
    "DecoderOfOneHead": "The blocks have one head, or another number than",
    "DecoderOfColorsBetweenZeroAndOne": "The prediction is forced into a range, by a sigmoid",
    "DecoderDetachingTheLatent": "latent is detached: no gradient reaches the encoder",
    "ModelNotNormalizing": "The targets are never normalized, whatever normalize",
    "ModelAlwaysNormalizing": "The targets are always normalized, whatever normalize",
    "ModelNormalizingIfNotAsked": "normalize is inverted: with it, and by default, the",
    "ModelNotNormalizingByDefault": "normalize is False by default; it is True",
    "ModelNormalizingThePrediction": "The prediction is normalized too before it is compared",
    "ModelNormalizingImages": "The targets are normalized over the whole image; each",
    "ModelUndoingTheNormalization": "The prediction is taken back to pixels with the",
    "ModelWithChannelsFirst": "The numbers of a target patch stand channel by channel",
    "ModelLosingOnAll": "The loss is taken on all patches; only hidden ones count",
    "ModelLosingOnTheVisible": "The loss is taken on the visible patches; only hidden",
    "ModelDetachingTheLoss": "The loss is cut off from the parameters: it teaches",
    "ModelDetachingTheLatent": "The latent vectors are detached before the decoder: the",
    "ModelEncodingWithoutGradients": "The latent vectors are detached before the decoder: the",
    "ModelReturningTheMaskSecond": "prediction and mask change places in the result",
    "ModelReturningImages": "The prediction comes back as images; it is (batch",
    "ModelReturningTheHidden": "Only the predictions of the hidden patches come back",
    "ModelPastingTheVisible": "The visible patches of the prediction are replaced by",
    "ModelInvertingTheMask": "The mask comes back inverted: True means hidden",
    "ModelDecodingWithTheOrder": "The decoder gets shuffle in place of restore",
    "ModelHidingHalfByDefault": "mask_ratio has another value by default; it is 0.75",
    "ModelIgnoringTheRatio": "mask_ratio is not used: the share that is hidden is",
    "ModelTakingTheRatioForTheVisible": "The share mask_ratio is kept; it is to be hidden",
    "ModelAlwaysHidingTheSame": "Every call hides the same: the noise is kept, has a",
    "ModelDrawingFromAFixedSeed": "Every call hides the same: the noise is kept, has a",
    "ModelSeedingTheWorld": "Every call hides the same: the noise is kept, has a",
    "ModelWithOneMaskForAll": "One row of noise is drawn for all images; each image",
    "ModelHidingTheEnd": "Where no noise is given, nothing is drawn: the same",
    "ModelDrawingByTheImage": "Every call hides the same: the noise is kept, has a",
    "ModelRepeatingItself": "Every call hides the same: the noise is kept, has a",
    "ModelOfSquares": "The decoder's number of patches is that of a square",
    "ModelOfGrayPredictions": "A predicted patch has no channels: patch_size *",
    "ModelWithTheEncodersHeads": "The decoder has the encoder's number of heads",
}

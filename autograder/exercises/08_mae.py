"""Chapter 8: masked autoencoders. He et al. 2022."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from autograder.cases import (
    blocks_parameters,
    hand_on,
    in_both_precisions,
    misshapen,
    missing,
    numbers,
    own_parameters,
    patch_count,
    patch_parameters,
    refusal,
)
from autograder.exercise import Exercise, Returned, near_answer


def noise_for(make, batch, length, dtype=torch.float32):
    """Noise (batch, length) between 0 and 1, no two numbers of a row near each other."""
    places = make.uniform(0, 1, batch, length).argsort(dim=1, stable=True)
    return make.watch(((places + make.uniform(0.1, 0.9, batch, length)) / length).to(dtype))


# ---- masking -------------------------------------------------------------------------------

random_masking = Exercise(
    "mae/random_masking",
    points=4,
    signature="random_masking(tokens, mask_ratio, noise)",
    returns=[
        Returned("visible", "(batch, kept, d)"),
        Returned("mask", "(batch, length)"),
        Returned("restore", "(batch, length)"),
    ],
)


def masked_parts(result) -> dict[str, Tensor]:
    """The three results as named outputs."""
    return dict(zip(("visible", "mask", "restore"), result, strict=True))


@random_masking.case(
    "a worked example: half of four tokens",
    next_step="The noise is 0.6, 0.1, 0.8, 0.3, so the shuffled order is token 1, 3, 0, 2. Visible "
    "are tokens 1 and 3, in this order. mask is True, False, True, False. Token 0 stands at place "
    "2 of the shuffled order, token 1 at place 0, and so on: restore is 2, 0, 3, 1.",
)
def _(random_masking, make):
    noise = make.tensor([[0.6, 0.1, 0.8, 0.3]])
    return masked_parts(random_masking(make.normal(1, 4, 3), 0.5, noise))


@random_masking.case(
    "three quarters of a batch",
    weight=2,
    next_step="shuffle = noise.argsort(dim=1), a row for each image; restore is the argsort of "
    "shuffle; hidden is what restore puts at place `kept` or later.",
)
def _(random_masking, make):
    tokens, noise = make.normal(3, 12, 4), noise_for(make, 3, 12)
    return masked_parts(random_masking(tokens, 0.75, noise))


@random_masking.case(
    "lengths that do not divide evenly",
    next_step="kept = int(length * (1 - mask_ratio)): of 7 tokens at 0.5, 3 are kept; of 9 at "
    "0.75, 2; of 5 at 0.25, 3.",
)
def _(random_masking, make):
    found = {}
    for length, ratio in ((7, 0.5), (9, 0.75), (5, 0.25)):
        tokens, noise = make.normal(2, length, 2), noise_for(make, 2, length)
        visible, mask, _ = random_masking(tokens, ratio, noise)
        found |= {f"visible of {length}": visible, f"mask of {length}": mask}
    return found


@random_masking.case(
    "a ratio of 0: nothing is hidden",
    weight=0.5,
    next_step="All tokens are visible then, still in the order of their noise.",
)
def _(random_masking, make):
    return masked_parts(random_masking(make.normal(2, 6, 3), 0.0, noise_for(make, 2, 6)))


@random_masking.case(
    "as many images and numbers as tokens",
    next_step="Where sizes are equal, axes that are mixed up raise no error. Sort along dim=1, and "
    "pick whole vectors along dim=1: the index for gather has the shape (batch, kept, d).",
)
def _(random_masking, make):
    visible, _, restore = random_masking(make.normal(6, 6, 6), 0.5, noise_for(make, 6, 6))
    return {"visible": visible, "restore": restore}


@random_masking.case(
    "noise that is no share: negative and large numbers",
    weight=0.5,
    next_step="Only the order of the noise counts, not how large its numbers are.",
)
def _(random_masking, make):
    noise = 900 * noise_for(make, 2, 10, torch.float64) - 700
    visible, mask, _ = random_masking(make.normal(2, 10, 2), 0.5, make.watch(noise))
    return {"visible": visible, "mask": mask}


@random_masking.case(
    "one image, of which one token stays",
    weight=0.5,
    next_step="Keep axes of length 1: no squeeze().",
)
def _(random_masking, make):
    return masked_parts(random_masking(make.normal(1, 4, 1), 0.75, noise_for(make, 1, 4)))


@random_masking.case(
    "gradients of the tokens",
    weight=0.5,
    next_step="What is visible passes its gradient on to the token that it is, and hidden tokens "
    "get none.",
)
def _(random_masking, make):
    tokens = make.normal(2, 6, 3, grad=True)
    visible, _, _ = random_masking(tokens, 0.5, noise_for(make, 2, 6))
    # Said before they are asked for: values tell more than an error.
    if not visible.requires_grad:
        return {"visible": visible, "a gradient flows back": False}
    return {
        "visible": visible,
        "a gradient flows back": True,
        **make.gradients("visible tokens", visible, tokens=tokens),
    }


@random_masking.case(
    "float64 tokens and noise that are views, left as they were",
    weight=0.5,
    next_step="Go by the axes, not by the order in memory, and write into neither tokens nor "
    "noise.",
)
def _(random_masking, make):
    tokens = make.normal(3, 8, 2, dtype=torch.float64).permute(2, 1, 0)
    noise = noise_for(make, 2, 8).T.contiguous().T
    visible, _, _ = random_masking(tokens, 0.5, make.watch(noise))
    return {"visible": visible, "the inputs are unchanged": make.unchanged()}


@random_masking.case(
    "bfloat16 tokens",
    weight=0.5,
    next_step="The visible tokens are the tokens as they are: pick them, compute nothing.",
)
def _(random_masking, make):
    tokens = make.normal(2, 8, 3, dtype=torch.bfloat16)
    return {"visible": random_masking(tokens, 0.25, noise_for(make, 2, 8))[0]}


@random_masking.case(
    "a ratio below 0, and one that is not below 1",
    weight=0.5,
    next_step="Begin with: if not 0 <= mask_ratio < 1, raise a ValueError that says the ratio.",
)
def _(random_masking, make):
    tokens, noise = make.normal(2, 9, 2), noise_for(make, 2, 9)
    found = {
        ratio: refusal(random_masking, tokens.clone(), ratio, noise.clone())
        for ratio in (-0.25, 1.0, 1.5)
    }
    visible, _, _ = random_masking(tokens, 0.0, noise)
    return {
        "visible at 0": visible,
        **{f"raised at {ratio}": error for ratio, (error, _) in found.items()},
        "the errors name the ratio": 25 in found[-0.25][1] and bool({5, 150} & found[1.5][1]),
    }


@random_masking.case(
    "noise of another shape than (batch, length)",
    weight=0.5,
    next_step="if noise.shape != (batch, length), raise a ValueError that says both shapes: noise "
    "that is too long, too short, or one row for all images is a mistake of the caller.",
)
def _(random_masking, make):
    tokens = make.normal(2, 17, 2)
    found = {
        shape: refusal(random_masking, tokens.clone(), 0.5, noise_for(make, *shape))
        for shape in ((2, 23), (2, 13), (1, 17), (3, 17), (17, 2))
    }
    visible, _, _ = random_masking(tokens, 0.5, noise_for(make, 2, 17))
    return {
        "visible where it fits": visible,
        # What an implementation without the check runs into differs from one to the next.
        **{f"a ValueError for {shape}": e == "ValueError" for shape, (e, _) in found.items()},
        "the errors name both lengths": {17, 23} <= found[2, 23][1] and {17, 13} <= found[2, 13][1],
    }


@random_masking.case(
    "so few tokens that none would be kept",
    weight=0.5,
    next_step="if kept == 0, raise a ValueError that says the length and the ratio: 3 tokens at "
    "0.75 leave none.",
)
def _(random_masking, make):
    few, noise = make.normal(2, 3, 2), noise_for(make, 2, 3)
    error, named = refusal(random_masking, few.clone(), 0.75, noise.clone())
    visible, _, _ = random_masking(make.normal(2, 5, 2), 0.75, noise_for(make, 2, 5))
    kept = random_masking(few, 0.75, noise)[0].size(1) if error == "nothing" else None
    return {
        "visible of 5 tokens": visible,
        "raised for 3 tokens": error,
        "how many of 3 are kept": kept,
        # The ratio, or the share that is left.
        "the error names the length and the ratio": 3 in named and bool({75, 25} & named),
    }


@random_masking.case(
    "noise that differs late",
    weight=0.5,
    next_step="Sort the noise as it is, without rounding.",
)
def _(random_masking, make):
    noise = 0.5 + 1e-5 * noise_for(make, 2, 8)
    return masked_parts(random_masking(make.normal(2, 8, 3), 0.5, make.watch(noise)))


@random_masking.case("longer sequences and other ratios", hidden=True)
def _(random_masking, make):
    first = random_masking(make.normal(4, 21, 3), 0.6, noise_for(make, 4, 21))
    second = random_masking(make.normal(2, 16, 5), 0.25, noise_for(make, 2, 16))
    return masked_parts(first) | {f"{k} at 0.25": v for k, v in masked_parts(second).items()}


@near_answer
def masking(
    fits=lambda tokens, ratio, noise: 0 <= ratio < 1 and noise.shape == tokens.shape[:2],
    count=lambda length, ratio: int(length * (1 - ratio)),
    least=1,
    order=lambda noise: noise.argsort(dim=1),
    back=lambda shuffle: shuffle.argsort(dim=1),
    pick=lambda tokens, chosen: tokens.gather(
        1, chosen[:, :, None].expand(-1, -1, tokens.size(-1))
    ),
    choose=lambda shuffle, restore, kept: shuffle[:, :kept],
    cover=lambda shuffle, restore, kept: restore >= kept,
    finish=lambda tokens, visible, mask, restore: (visible, mask, restore),
    error=ValueError,
):
    """random_masking, with each of its steps open to change."""

    def random_masking(tokens, mask_ratio, noise):
        length, kept = tokens.size(1), count(tokens.size(1), mask_ratio)
        if not fits(tokens, mask_ratio, noise) or kept < least:
            numbers = f"{mask_ratio}, {tuple(noise.shape)}, {tuple(tokens.shape)}"
            raise error(f"These do not fit, of {length} tokens: {numbers}.")
        shuffle = order(noise)
        restore = back(shuffle)
        visible = pick(tokens, choose(shuffle, restore, kept))
        return finish(tokens, visible, cover(shuffle, restore, kept), restore)

    return random_masking


@random_masking.misconceptions
def _():
    """The masking with one thing wrong at a time."""

    def ordered(shuffle, kept):
        return (torch.arange(shuffle.size(1)) >= kept).expand(len(shuffle), -1)

    # The order.

    sort = "shuffle = noise.argsort(dim=1); the first `kept` of each row are visible."
    yield (
        "The tokens with the largest noise are kept; those with the smallest are to stay.",
        masking(order=lambda noise: noise.argsort(dim=1, descending=True)),
        sort,
    )
    yield (
        "The visible tokens stand in the order of the image; they belong in the order of their "
        "noise, the smallest first.",
        masking(choose=lambda shuffle, restore, kept: shuffle[:, :kept].sort(dim=1).values),
        sort + " Do not sort them again: restore counts on this order.",
    )

    def in_place_order(tokens, visible, mask, restore):
        shuffle = torch.cat(
            [(~mask).nonzero()[:, 1].view(len(mask), -1), mask.nonzero()[:, 1].view(len(mask), -1)],
            dim=1,
        )
        kept = tokens[~mask].view(len(mask), -1, tokens.size(-1))
        return kept, mask, shuffle.argsort(dim=1)

    yield (
        "The noise only chooses the visible tokens, and all stand in the order of the image; sort "
        "by the noise.",
        masking(finish=in_place_order),
        sort,
    )
    yield (
        "All images are hidden alike, by the noise of the first; each row has its own.",
        masking(order=lambda noise: noise[:1].argsort(dim=1).expand(len(noise), -1)),
        "noise.argsort(dim=1), and the same rows for tokens, mask and restore.",
    )
    for order in (
        lambda noise: torch.rand(noise.shape).argsort(dim=1),
        lambda noise: torch.stack([torch.randperm(noise.size(1)) for _ in noise]),
        lambda noise: torch.randperm(noise.size(1)).expand(len(noise), -1),
    ):
        yield (
            "The noise that is given is not used: the function draws its own.",
            masking(order=order),
            "Draw nothing here: all randomness comes in as noise.",
        )
    yield (
        "The noise is sorted over the batch; sort the tokens of each image, dim=1.",
        masking(
            order=lambda noise: noise.argsort(dim=0) % noise.size(1),
            back=lambda shuffle: shuffle.argsort(dim=0) % shuffle.size(1),
        ),
        "noise.argsort(dim=1).",
    )
    yield (
        "The first tokens of the image are kept, whatever their noise.",
        masking(
            choose=lambda shuffle, restore, kept: torch.arange(kept).expand(len(shuffle), -1),
        ),
        sort,
    )
    yield (
        "The sorted noise is not turned into an index: tokens are picked by restore, the place "
        "that each has, and not by shuffle.",
        masking(choose=lambda shuffle, restore, kept: restore[:, :kept]),
        "shuffle = noise.argsort(dim=1) says which token is next; pick with shuffle[:, :kept].",
    )

    # What is kept.

    down = "kept = int(length * (1 - mask_ratio)); what is left over is hidden."
    yield (
        "The number of visible tokens is rounded to the nearest whole number; round it down.",
        masking(count=lambda length, ratio: round(length * (1 - ratio))),
        down,
    )
    for count in (
        lambda length, ratio: length - int(length * ratio),
        lambda length, ratio: -int(-length * (1 - ratio) // 1),
    ):
        yield (
            "The number of visible tokens is rounded up (or that of hidden ones down); round it "
            "down.",
            masking(count=count),
            down,
        )
    yield (
        "The share mask_ratio is kept; it is to be hidden.",
        masking(count=lambda length, ratio: int(length * ratio), least=0),
        down,
    )
    yield (
        "The hidden tokens come back in place of the visible ones.",
        masking(choose=lambda shuffle, restore, kept: shuffle[:, kept:]),
        sort,
    )
    for count in (
        lambda length, ratio: int(length * (1 - ratio)) + 1,
        lambda length, ratio: min(length, int(length * (1 - ratio)) + 1),
    ):
        yield ("One token too many is kept.", masking(count=count), down)
    yield (
        "Where no token would be kept, one is kept after all; a ValueError is due.",
        masking(count=lambda length, ratio: max(1, int(length * (1 - ratio)))),
        "if kept == 0: raise ValueError(...).",
    )
    drop = "visible holds `kept` tokens of each image and nothing else: pick them with gather."
    yield (
        "The hidden tokens are set to 0 but stay in the sequence; they must be left out.",
        masking(finish=lambda tokens, _, mask, back: (tokens * ~mask[:, :, None], mask, back)),
        drop,
    )
    yield (
        "All tokens come back, shuffled; only the first `kept` of them are visible.",
        masking(choose=lambda shuffle, restore, kept: shuffle),
        drop,
    )
    for finish in (
        lambda tokens, visible, mask, restore: (tokens[~mask], mask, restore),
        lambda tokens, visible, mask, restore: (visible.flatten(0, 1), mask, restore),
    ):
        yield (
            "The visible tokens of all images stand in one list; the batch is lost.",
            masking(finish=finish),
            "visible has the shape (batch, kept, d).",
        )

    # The gather.

    whole = "The index has the shape (batch, kept, d): chosen[:, :, None].expand(-1, -1, d)."
    yield (
        "Only the first number of each visible token comes back: the index has one column.",
        masking(pick=lambda tokens, chosen: tokens.gather(1, chosen[:, :, None])),
        whole,
    )
    yield (
        "A visible vector is pieced together from several tokens: the index was repeated along "
        "the wrong axis.",
        masking(
            pick=lambda tokens, chosen: tokens.gather(
                1, chosen.repeat(1, tokens.size(-1)).reshape(*chosen.shape, tokens.size(-1))
            )
        ),
        whole,
    )
    yield (
        "Every image gives tokens of the places that the first one keeps.",
        masking(pick=lambda tokens, chosen: tokens[:, chosen[0]]),
        "tokens[:, chosen[0]] takes one row for all: use gather, or "
        "tokens[torch.arange(batch)[:, None], chosen].",
    )
    yield (
        "The visible tokens are detached: no gradient flows through them.",
        masking(finish=lambda tokens, visible, mask, restore: (visible.detach(), mask, restore)),
        "Return what gather gives, without detach(), data or torch.no_grad().",
    )

    # The mask.

    boolean = "mask = restore >= kept: the result of a comparison, True = hidden."
    yield (
        "The mask is inverted: True means hidden.",
        masking(cover=lambda shuffle, restore, kept: restore < kept),
        boolean,
    )
    for dtype in (torch.float32, torch.int64):
        yield (
            "The mask is made of numbers, 0 and 1; it must be boolean.",
            masking(cover=lambda shuffle, restore, kept, dtype=dtype: (restore >= kept).to(dtype)),
            boolean,
        )
        yield (
            "The mask is made of numbers, and 1 stands for visible; it must be boolean, "
            "True = hidden.",
            masking(cover=lambda shuffle, restore, kept, dtype=dtype: (restore < kept).to(dtype)),
            boolean,
        )
    yield (
        "The mask is in the shuffled order: first the visible tokens, then the hidden ones. Bring "
        "it into the order of the image.",
        masking(cover=lambda shuffle, restore, kept: ordered(shuffle, kept)),
        "mask.gather(1, restore), or simply restore >= kept.",
    )
    yield (
        "The mask is brought into the order of the image with shuffle; restore leads back.",
        masking(
            cover=lambda shuffle, restore, kept: ordered(shuffle, kept).gather(1, shuffle),
        ),
        "mask.gather(1, restore), or simply restore >= kept.",
    )

    def by_size(tokens, mask_ratio, noise):
        visible, _, restore = masking()(tokens, mask_ratio, noise)
        return visible, noise >= 1 - mask_ratio, restore

    yield (
        "The mask compares the noise with the ratio; how many that hides is left to chance.",
        by_size,
        "Only the order of the noise counts: " + boolean,
    )

    # restore.

    twice = "restore = shuffle.argsort(dim=1), the argsort of the argsort."
    yield (
        "restore is the shuffle itself, the argsort of the noise; it must lead back.",
        masking(
            back=lambda shuffle: shuffle,
            cover=lambda shuffle, restore, kept: shuffle.argsort(dim=1) >= kept,
        ),
        twice,
    )
    yield (
        "There is one argsort only, so restore is the shuffle, and the mask says of the shuffle's "
        "numbers what it should say of places.",
        masking(back=lambda shuffle: shuffle),
        twice,
    )
    yield (
        "restore covers the visible tokens only; it needs a place for every token.",
        masking(
            finish=lambda tokens, visible, mask, restore: (
                visible,
                mask,
                restore[:, : visible.size(1)],
            )
        ),
        twice,
    )
    yield (
        "restore is made of floating-point numbers; an index is int64.",
        masking(finish=lambda tokens, visible, mask, restore: (visible, mask, restore.float())),
        twice,
    )
    yield (
        "restore is int32; gather wants int64, which argsort gives.",
        masking(finish=lambda tokens, visible, mask, restore: (visible, mask, restore.int())),
        twice,
    )
    yield (
        "mask and restore change places in the result.",
        masking(finish=lambda tokens, visible, mask, restore: (visible, restore, mask)),
        "Return visible, mask, restore, in this order.",
    )

    # Errors and inputs.

    yield (
        "Nothing is checked: a ratio or a noise that does not fit goes through, or fails later "
        "with another error.",
        masking(fits=lambda tokens, ratio, noise: True, least=-999),
        "Raise a ValueError for each of the three cases, first thing.",
    )
    yield (
        "What does not fit raises an AssertionError; the exercise asks for a ValueError.",
        masking(error=AssertionError),
        "assert is for your own mistakes. Use if ...: raise ValueError(...).",
    )
    yield (
        "A noise of another shape is not refused.",
        masking(fits=lambda tokens, ratio, noise: 0 <= ratio < 1),
        "if noise.shape != (batch, length): raise ValueError(...).",
    )

    def one_row(tokens, ratio, noise):
        return 0 <= ratio < 1 and noise.size(1) == tokens.size(1)

    yield (
        "Only the length of the noise is checked; it must have a row for each image too.",
        masking(fits=one_row),
        "if noise.shape != (batch, length): raise ValueError(...).",
    )
    yield (
        "A ratio below 0 is not refused.",
        masking(
            fits=lambda tokens, ratio, noise: ratio < 1 and noise.shape == tokens.shape[:2],
        ),
        "if not 0 <= mask_ratio < 1: raise ValueError(...).",
    )
    yield (
        "Where no token would be kept, no error is raised, and visible is empty.",
        masking(least=0),
        "if kept == 0: raise ValueError(...).",
    )

    def careless(tokens, mask_ratio, noise):
        result = masking()(tokens, mask_ratio, noise)
        tokens.data.mul_(~result[1][:, :, None])
        return result

    def sorting(tokens, mask_ratio, noise):
        result = masking()(tokens, mask_ratio, noise)
        noise.copy_(noise.sort(dim=1).values)
        return result

    for wrong in (careless, sorting):
        yield (
            "The tokens or the noise of the caller are changed in place.",
            wrong,
            "Make new tensors: argsort and gather change nothing, fill_, sort_ and [...] = do.",
        )


# ---- target and loss -----------------------------------------------------------------------

normalized_pixel_targets = Exercise(
    "mae/normalized_pixel_targets",
    points=2,
    signature="normalized_pixel_targets(patches, eps=1e-6)",
    returns=[Returned("targets", "(batch, patches, numbers)")],
)


@normalized_pixel_targets.case(
    "a worked example: two patches of three numbers",
    next_step="2, 4, 6 has mean 4 and variance (4 + 0 + 4) / 2 = 4: it becomes -1, 0, 1. "
    "1, 1, 7 has mean 3 and variance (4 + 4 + 16) / 2 = 12.",
)
def _(normalized, make):
    return {"targets": normalized(make.tensor([[[2.0, 4.0, 6.0], [1.0, 1.0, 7.0]]]))}


@normalized_pixel_targets.case(
    "patches of two images, bright and dark, flat and rich",
    weight=2,
    next_step="mean and variance over dim=-1 with keepdim=True: every patch has its own.",
)
def _(normalized, make):
    patches = make.normal(2, 4, 12)
    spread, light = make.uniform(0.5, 4, 2, 4, 1), make.uniform(-2, 2, 2, 4, 1)
    return {"targets": normalized(make.watch(patches * spread + light))}


@normalized_pixel_targets.case(
    "as many images, patches and numbers",
    next_step="Where sizes are equal, a wrong axis raises no error: the numbers of a patch are the "
    "last axis.",
)
def _(normalized, make):
    return {"targets": normalized(make.normal(5, 5, 5, scale=2.0, shift=1.0))}


@normalized_pixel_targets.case(
    "patches of one color",
    next_step="Their variance is 0, and eps keeps the root above 0: every number becomes 0.",
)
def _(normalized, make):
    patches = make.normal(1, 3, 8)
    patches[:, 1] = 0.5
    patches[:, 2] = 0.0
    return {"targets": normalized(make.watch(patches))}


@normalized_pixel_targets.case(
    "patches of nearly one color",
    next_step="eps stands under the root, beside the variance: (variance + eps).sqrt().",
)
def _(normalized, make):
    return {"targets": normalized(make.normal(2, 3, 8, scale=0.002))}


@normalized_pixel_targets.case(
    "another eps",
    weight=0.5,
    next_step="Use the argument eps, as it is: it stands beside the variance.",
)
def _(normalized, make):
    patches = make.normal(2, 3, 8)
    return {
        "targets with eps 0.5": normalized(patches.clone(), 0.5),
        "targets with eps 9": normalized(patches.clone(), 9.0),
    }


@normalized_pixel_targets.case(
    "one patch of one image",
    weight=0.5,
    next_step="Keep axes of length 1: no squeeze().",
)
def _(normalized, make):
    return {"targets": normalized(make.normal(1, 1, 4))}


@normalized_pixel_targets.case(
    "float64 patches that are a view, left as they were",
    weight=0.5,
    next_step="Stay in the dtype of the patches, and write patches - mean, not patches -= mean.",
)
def _(normalized, make):
    patches = make.normal(6, 3, 2, dtype=torch.float64).permute(2, 1, 0)
    return {"targets": normalized(patches), "the patches are unchanged": make.unchanged()}


@normalized_pixel_targets.case("bfloat16", weight=0.5, next_step="Return the dtype of the patches.")
def _(normalized, make):
    patches = make.normal(2, 3, 8, scale=2.0, shift=0.5, dtype=torch.bfloat16)
    short, long = normalized(patches.clone()), normalized(patches.float())
    return {
        "dtype": str(short.dtype),
        "values lie within 0.1 of those in float32": bool((short.float() - long).abs().max() < 0.1),
        "targets in float32": long,
    }


@normalized_pixel_targets.case("larger patches", hidden=True)
def _(normalized, make):
    patches = make.normal(3, 5, 27, scale=0.2, shift=0.5)
    return {"targets": normalized(patches), "with eps 0.01": normalized(patches, 0.01)}


@normalized_pixel_targets.misconceptions
def _():
    """The targets with one thing wrong at a time."""

    def targets(
        mean=lambda patches: patches.mean(dim=-1, keepdim=True),
        variance=lambda patches: patches.var(dim=-1, keepdim=True),
        root=lambda variance, eps: (variance + eps).sqrt(),
        finish=lambda patches, center, size: (patches - center) / size,
    ):
        def normalized_pixel_targets(patches, eps=1e-6):
            return finish(patches, mean(patches), root(variance(patches), eps))

        return normalized_pixel_targets

    def over(*dims):
        def variance(patches):
            # Of a single number PyTorch would warn.
            single = all(patches.size(dim) == 1 for dim in dims)
            return patches.var(dim=dims, keepdim=True, correction=0 if single else 1)

        return targets(lambda patches: patches.mean(dim=dims, keepdim=True), variance)

    biased = "patches.var(dim=-1, keepdim=True) divides by n - 1 as it stands."
    for variance in (
        lambda patches: patches.var(dim=-1, keepdim=True, correction=0),
        lambda patches: (patches**2).mean(-1, True) - patches.mean(-1, True) ** 2,
    ):
        yield (
            "The variance divides by n; it must divide by n - 1.",
            targets(variance=variance),
            biased + " (LayerNorm and F.layer_norm divide by n.)",
        )
    own = "dim=-1, keepdim=True: each patch by itself, all its numbers together."
    yield (
        "Mean and variance go over all patches of an image; each patch has its own.",
        over(1, 2),
        own,
    )
    yield (
        "Mean and variance go over the whole batch; each patch has its own.",
        over(0, 1, 2),
        own,
    )
    yield (
        "Mean and variance go over the patches, one for each pixel; they belong over the numbers "
        "of a patch.",
        over(1),
        own,
    )
    yield (
        "Mean and variance go over the images; they belong over the numbers of a patch.",
        over(0),
        own,
    )

    def by_channel(channels):
        def normalized_pixel_targets(patches, eps=1e-6):
            if patches.size(-1) % channels or patches.size(-1) == channels:
                return targets()(patches, eps)
            pixels = patches.unflatten(-1, (-1, channels))
            size = (pixels.var(dim=-2, keepdim=True) + eps).sqrt()
            return ((pixels - pixels.mean(dim=-2, keepdim=True)) / size).flatten(-2)

        return normalized_pixel_targets

    yield (
        "Each color channel is normalized by itself; mean and variance go over all channels "
        "together.",
        by_channel(3),
        own,
    )
    shared = "mean = patches.mean(dim=-1, keepdim=True); (patches - mean) / (variance + eps).sqrt()"
    yield (
        "The mean is not subtracted.",
        targets(finish=lambda patches, center, size: patches / size),
        shared,
    )
    yield (
        "The mean is subtracted, but nothing is divided by the standard deviation.",
        targets(finish=lambda patches, center, size: patches - center),
        shared,
    )
    yield (
        "It is divided first, and the mean of the old numbers subtracted after that.",
        targets(finish=lambda patches, center, size: patches / size - center),
        shared + ": mind the parentheses.",
    )
    yield (
        "It is divided by the variance; take its root first.",
        targets(root=lambda variance, eps: variance + eps),
        shared,
    )
    yield (
        "eps is added to the standard deviation; it belongs under the root.",
        targets(root=lambda variance, eps: variance.sqrt() + eps),
        "(variance + eps).sqrt(), not variance.sqrt() + eps.",
    )
    yield (
        "eps is left out, so a patch of one color becomes NaN.",
        targets(root=lambda variance, eps: variance.sqrt()),
        "(variance + eps).sqrt().",
    )
    for root in (
        lambda variance, eps: variance.clamp(min=eps).sqrt(),
        lambda variance, eps: variance.sqrt().clamp(min=eps),
    ):
        yield (
            "eps is a lower bound here; it must be added to the variance.",
            targets(root=root),
            "(variance + eps).sqrt(), without clamp or max.",
        )
    yield (
        "The argument eps is not used; it is 1e-6 only where nothing else is given.",
        targets(root=lambda variance, eps: (variance + 1e-6).sqrt()),
        "(variance + eps).sqrt(), with the argument eps.",
    )
    for wrong in (1e-5, 1e-8):
        yield (
            "eps has another value by default; it is 1e-6.",
            targets(
                root=lambda variance, eps, wrong=wrong: (
                    variance + (wrong if eps == 1e-6 else eps)
                ).sqrt()
            ),
            "def normalized_pixel_targets(patches, eps=1e-6).",
        )
    yield (
        "Each patch is stretched from its smallest to its largest number; divide by the standard "
        "deviation.",
        targets(
            finish=lambda patches, *_: (
                (patches - patches.amin(-1, True))
                / (patches.amax(-1, True) - patches.amin(-1, True)).clamp(min=1e-6)
            )
        ),
        shared,
    )
    yield (
        "It is divided by the mean distance from the mean; the standard deviation is the root of "
        "the variance.",
        targets(
            finish=lambda patches, center, _: (
                (patches - center) / ((patches - center).abs().mean(-1, True) + 1e-6)
            )
        ),
        shared,
    )
    yield (
        "It is divided by the length of the vector: the squares are summed, not averaged.",
        targets(variance=lambda patches: patches.var(-1, keepdim=True) * (patches.size(-1) - 1)),
        biased,
    )
    yield (
        "The numbers are taken from [0, 1] to [-1, 1]; each patch must be normalized by its own "
        "mean and variance.",
        lambda patches, eps=1e-6: (patches - 0.5) / 0.5,
        shared,
    )
    for dtype in (torch.float32, torch.float64):
        yield (
            "The result always has the same dtype; it must have that of the patches.",
            targets(
                finish=lambda patches, center, size, dtype=dtype: ((patches - center) / size).to(
                    dtype
                )
            ),
            "Convert nothing, or convert back at the end.",
        )

    def careless(patches, eps=1e-6):
        result = targets()(patches, eps)
        patches.copy_(result)
        return result

    yield (
        "The patches of the caller are changed in place; the plain pixels are still needed.",
        careless,
        "patches = patches - mean makes a new tensor, patches -= mean does not.",
    )


masked_patch_loss = Exercise(
    "mae/masked_patch_loss",
    points=3,
    signature="masked_patch_loss(prediction, target, mask)",
    returns=[Returned("loss", "()")],
)


def mask_for(make, *hidden, length):
    """A mask (batch, length) whose rows hide so many patches each, at drawn places."""
    places = make.uniform(0, 1, len(hidden), length).argsort(dim=1, stable=True)
    return make.watch(places < torch.tensor(hidden)[:, None])


@masked_patch_loss.case(
    "a worked example: three patches, two of them hidden",
    next_step="The first and the last patch are hidden. Their differences are 1, 3 and 0, 2: their "
    "errors are (1 + 9) / 2 = 5 and (0 + 4) / 2 = 2, and the loss is (5 + 2) / 2 = 3.5.",
)
def _(loss, make):
    prediction = make.tensor([[[2.0, 5.0], [9.0, 9.0], [4.0, 1.0]]])
    target = make.tensor([[[1.0, 2.0], [3.0, 2.0], [4.0, 3.0]]])
    return {"loss": loss(prediction, target, torch.tensor([[True, False, True]]))}


@masked_patch_loss.case(
    "a batch",
    weight=2,
    next_step="prediction[mask] and target[mask] are the hidden patches of all images, "
    "(hidden, numbers). Take the mean of their squared differences.",
)
def _(loss, make):
    mask = mask_for(make, 5, 5, 5, length=7)
    return {"loss": loss(make.normal(3, 7, 4), make.normal(3, 7, 4), mask)}


@masked_patch_loss.case(
    "images that hide different numbers of patches",
    next_step="Every hidden patch of the batch counts alike: sum all their errors, and divide by "
    "the number of all hidden patches.",
)
def _(loss, make):
    mask = mask_for(make, 1, 6, 3, 0, length=6)
    return {"loss": loss(make.normal(4, 6, 3), make.normal(4, 6, 3, scale=2.0), mask)}


@masked_patch_loss.case(
    "all patches hidden, and a single one",
    next_step="Divide by the number of hidden patches, however many they are.",
)
def _(loss, make):
    prediction, target = make.normal(2, 5, 4), make.normal(2, 5, 4)
    one = mask_for(make, 1, 0, length=5)
    return {
        "loss of all": loss(prediction.clone(), target.clone(), torch.ones(2, 5).bool()),
        "loss of one": loss(prediction.clone(), target.clone(), one),
    }


@masked_patch_loss.case(
    "the visible patches of the prediction change",
    next_step="Leave the visible patches out, of prediction and target alike.",
)
def _(loss, make):
    prediction, target = make.normal(2, 6, 3), make.normal(2, 6, 3)
    mask = mask_for(make, 3, 4, length=6)
    other = prediction + make.normal(2, 6, 3, scale=30.0) * ~mask[:, :, None]
    before = loss(prediction.clone(), target.clone(), mask.clone())
    return {
        "loss": before,
        "change of the loss": loss(other, target.clone(), mask.clone()) - before,
    }


@masked_patch_loss.case(
    "as many images, patches and numbers",
    weight=0.5,
    next_step="Where sizes are equal, a mask that stands along the wrong axes raises no error: it "
    "is mask[:, :, None] beside a patch's numbers.",
)
def _(loss, make):
    mask = mask_for(make, 2, 1, 3, 2, length=4)
    return {"loss": loss(make.normal(4, 4, 4), make.normal(4, 4, 4), mask)}


@masked_patch_loss.case(
    "one image, and patches of one number",
    weight=0.5,
    next_step="Keep axes of length 1: no squeeze().",
)
def _(loss, make):
    mask = mask_for(make, 3, length=4)
    return {"loss": loss(make.normal(1, 4, 1), make.normal(1, 4, 1), mask)}


@masked_patch_loss.case(
    "gradient of the prediction",
    next_step="Hidden patches get a gradient, visible ones none: it is 0 there.",
)
def _(loss, make):
    prediction, mask = make.normal(2, 5, 3, grad=True), mask_for(make, 2, 4, length=5)
    value = loss(prediction, make.normal(2, 5, 3), mask)
    # Said before it is asked for: values tell more than an error.
    if not value.requires_grad:
        return {"loss": value, "a gradient flows back": False}
    return {
        "loss": value,
        "a gradient flows back": True,
        **make.gradients("loss", value.reshape(1), prediction=prediction),
    }


@masked_patch_loss.case(
    "a mask that hides nothing",
    weight=0.5,
    next_step="Begin with: if not mask.any(), raise a ValueError. 0 / 0 would be NaN, and NaN "
    "would spread through all parameters.",
)
def _(loss, make):
    prediction, target = make.normal(2, 4, 3), make.normal(2, 4, 3)
    empty = torch.zeros(2, 4, dtype=torch.bool)
    error, _ = refusal(loss, prediction.clone(), target.clone(), empty.clone())
    one = mask_for(make, 0, 1, length=4)
    given = loss(prediction.clone(), target.clone(), empty) if error == "nothing" else None
    return {
        "raised for a mask that hides nothing": error,
        "its loss": given,
        "loss of one hidden patch": loss(prediction, target, one),
    }


@masked_patch_loss.case(
    "float64 inputs that are views, left as they were",
    weight=0.5,
    next_step="Stay in the dtype of the prediction, and write into none of the three.",
)
def _(loss, make):
    prediction, target = (
        make.normal(3, 6, 2, dtype=torch.float64).permute(2, 1, 0) for _ in range(2)
    )
    mask = mask_for(make, 4, 3, length=6).T.contiguous().T
    value = loss(prediction, target, make.watch(mask))
    return {"loss": value, "the inputs are unchanged": make.unchanged()}


@masked_patch_loss.case(
    "bfloat16", weight=0.5, next_step="Let new tensors take the dtype of the prediction."
)
def _(loss, make):
    prediction, target = (make.normal(2, 5, 4, dtype=torch.bfloat16) for _ in range(2))
    # A loss in float32 is as good, for it is where training keeps its sums.
    return {"loss": loss(prediction, target, mask_for(make, 3, 2, length=5)).to(torch.bfloat16)}


@masked_patch_loss.case("more images and patches", hidden=True)
def _(loss, make):
    prediction, mask = make.normal(5, 9, 12, grad=True), mask_for(make, 7, 2, 9, 0, 4, length=9)
    value = loss(prediction, make.normal(5, 9, 12), mask)
    return {"loss": value, **make.gradients("loss", value.reshape(1), prediction=prediction)}


@masked_patch_loss.misconceptions
def _():
    """The loss with one thing wrong at a time."""

    def loss_of(
        error=lambda prediction, target: (prediction - target).square(),
        patch=lambda errors: errors.mean(dim=-1),
        mean=lambda errors, mask: (errors * mask).sum() / mask.sum(),
        inputs=lambda prediction, target, mask: (prediction, target, mask),
        check=True,
    ):
        def masked_patch_loss(prediction, target, mask):
            if check and not mask.any():
                raise ValueError("The mask hides nothing.")
            prediction, target, mask = inputs(prediction, target, mask)
            return mean(patch(error(prediction, target)), mask)

        return masked_patch_loss

    hidden = "Average over the hidden patches alone: prediction[mask] and target[mask]."
    yield (
        "The loss is taken on all patches; only hidden ones count.",
        loss_of(mean=lambda errors, mask: errors.mean()),
        hidden,
    )
    yield (
        "The loss is taken on the visible patches: the mask is True where a patch is hidden.",
        loss_of(mean=lambda errors, mask: (errors * ~mask).sum() / (~mask).sum().clamp(min=1)),
        hidden,
    )
    number = "(errors * mask).sum() / mask.sum(), where errors is the mean over a patch's numbers."
    yield (
        "The errors of hidden patches are summed, and divided by the number of all patches.",
        loss_of(mean=lambda errors, mask: (errors * mask).mean()),
        number,
    )
    yield (
        "The errors of the hidden patches are summed; take their mean.",
        loss_of(mean=lambda errors, mask: (errors * mask).sum()),
        number,
    )
    yield (
        "The errors over a patch's numbers are summed; take their mean.",
        loss_of(patch=lambda errors: errors.sum(dim=-1)),
        number,
    )
    yield (
        "All squared differences are summed, and nothing is divided.",
        loss_of(
            patch=lambda errors: errors.sum(dim=-1),
            mean=lambda errors, mask: (errors * mask).sum(),
        ),
        number,
    )
    yield (
        "The sum is divided by the number of images; divide it by that of hidden patches.",
        loss_of(mean=lambda errors, mask: (errors * mask).sum() / len(mask)),
        number,
    )
    yield (
        "The sum is divided by the number of hidden patches of the first image, not of the batch.",
        loss_of(mean=lambda errors, mask: (errors * mask).sum() / mask[0].sum().clamp(min=1)),
        number,
    )
    yield (
        "The sum is divided by the number of visible patches; divide it by that of hidden ones.",
        loss_of(mean=lambda errors, mask: (errors * mask).sum() / (~mask).sum().clamp(min=1)),
        number,
    )
    for mean in (
        lambda errors, mask: ((errors * mask).sum(1) / mask.sum(1).clamp(min=1)).mean(),
        lambda errors, mask: torch.stack(
            [row[hide].mean() for row, hide in zip(errors, mask, strict=True) if hide.any()]
        ).mean(),
    ):
        yield (
            "The mean is taken in each image first, and over the images then: a patch of an image "
            "that hides few counts more.",
            loss_of(mean=mean),
            "All hidden patches of the batch count alike: " + number,
        )
    single = "The result has no axis: one number for the batch."
    yield (
        "There is a loss for each image; the result is one number.",
        loss_of(mean=lambda errors, mask: (errors * mask).sum(1) / mask.sum(1).clamp(min=1)),
        single,
    )
    for mean in (
        lambda errors, mask: errors[mask],
        lambda errors, mask: errors * mask,
    ):
        yield (
            "There is a loss for each patch; the result is their mean.",
            loss_of(mean=mean),
            single,
        )
    yield (
        "The result has axes of length 1; it is a number without axes.",
        loss_of(mean=lambda errors, mask: ((errors * mask).sum() / mask.sum()).reshape(1)),
        single,
    )
    square = "(prediction - target).square(), and no root."
    yield (
        "The difference is taken without its sign and not squared.",
        loss_of(lambda prediction, target: (prediction - target).abs()),
        square,
    )
    yield (
        "The difference is neither squared nor taken without its sign: errors cancel.",
        loss_of(lambda prediction, target: prediction - target),
        square,
    )
    for error in (
        lambda prediction, target: F.smooth_l1_loss(prediction, target, reduction="none"),
        lambda prediction, target: F.huber_loss(prediction, target, reduction="none", delta=0.5),
    ):
        yield (
            "Large differences are not squared: this is the smooth L1 or Huber loss.",
            loss_of(error),
            square,
        )
    yield (
        "A root is taken of the loss; the mean of squares is asked for.",
        loss_of(mean=lambda errors, mask: ((errors * mask).sum() / mask.sum()).sqrt()),
        square,
    )
    for patch in (
        lambda errors: errors.mean(dim=-1).sqrt(),
        lambda errors: errors.sum(dim=-1).sqrt(),
    ):
        yield (
            "A root is taken of each patch's error; the mean of squares is asked for.",
            loss_of(patch=patch),
            square,
        )
    yield (
        "The loss is halved.",
        loss_of(lambda prediction, target: (prediction - target).square() / 2),
        square,
    )
    yield (
        "The visible patches of the prediction are set to 0 and still compared with the target.",
        loss_of(
            inputs=lambda prediction, target, mask: (prediction * mask[:, :, None], target, mask),
            mean=lambda errors, mask: errors.mean(),
        ),
        hidden,
    )

    def last(errors, mask):
        count = max(1, int(mask[0].sum()))
        return errors[:, -count:].mean()

    yield (
        "The last patches are compared, as many as are hidden; the hidden ones may stand anywhere.",
        loss_of(mean=last),
        hidden,
    )
    yield (
        "The mask of the first image is used for all images.",
        loss_of(
            mean=lambda errors, mask: errors[:, mask[0]].mean() if mask[0].any() else errors.mean()
        ),
        hidden,
    )

    def along_numbers(prediction, target, mask):
        if prediction.size(1) != prediction.size(2):
            return loss_of()(prediction, target, mask)
        errors = (prediction - target).square() * mask[:, None, :]
        return errors.sum() / (mask.sum() * prediction.size(1))

    yield (
        "The mask stands along a patch's numbers; it belongs along the patches.",
        along_numbers,
        "mask[:, :, None], or mask.unsqueeze(-1).",
    )
    yield (
        "The prediction is detached: the loss teaches nothing.",
        loss_of(
            inputs=lambda prediction, target, mask: (prediction.detach(), target, mask),
        ),
        "Use prediction as it is: no detach(), data, item() or torch.no_grad().",
    )

    def standard(patches):
        spread = patches.var(dim=-1, keepdim=True) if patches.size(-1) > 1 else 1.0
        return (patches - patches.mean(dim=-1, keepdim=True)) / (spread + 1e-6) ** 0.5

    yield (
        "The target is normalized here; it comes as it is to be compared.",
        loss_of(inputs=lambda prediction, target, mask: (prediction, standard(target), mask)),
        "Compare prediction and target as they are given.",
    )
    yield (
        "A mask that hides nothing gives NaN; a ValueError is due.",
        loss_of(check=False),
        "if not mask.any(): raise ValueError(...).",
    )
    yield (
        "A mask that hides nothing gives the loss 0; a ValueError is due.",
        loss_of(
            check=False,
            mean=lambda errors, mask: (errors * mask).sum() / mask.sum().clamp(min=1),
        ),
        "if not mask.any(): raise ValueError(...).",
    )

    def careless(prediction, target, mask):
        value = loss_of()(prediction, target, mask)
        prediction.data[~mask] = 0.0
        return value

    yield (
        "What the caller handed over is changed in place.",
        careless,
        "Pick with prediction[mask], which makes a new tensor; write nothing into the old one.",
    )


# ---- encoder and decoder -------------------------------------------------------------------


def frozen(module):
    """The names of the parameters of a learner's module that do not learn."""
    return ", ".join(name for name, p in own_parameters(module).items() if not p.requires_grad)


def without_gradient(module, output, **inputs):
    """The names of the inputs and parameters of a learner's module that no gradient reaches."""
    own = own_parameters(module)
    asked = inputs | {name: p for name, p in own.items() if p.requires_grad}
    if not output.requires_grad:
        return ", ".join(asked)
    found = torch.autograd.grad(output.square().sum(), list(asked.values()), allow_unused=True)
    return ", ".join(name for name, gradient in zip(asked, found, strict=True) if gradient is None)


def scale(module, factor, *names):
    """Multiplies parameters of a learner's module."""
    with torch.no_grad():
        for name, parameter in own_parameters(module).items():
            if name in names:
                parameter.mul_(factor)


def constant_blocks(make, module, prefix=""):
    """Lets every sublayer of a learner's blocks, silent so far, add a constant of its own."""
    with torch.no_grad():
        for name, parameter in sorted(own_parameters(module).items()):
            if name.startswith(f"{prefix}blocks.") and name.endswith(("w_o.bias", "w_2.bias")):
                parameter.copy_(make.normal(*parameter.shape))


@near_answer
class Stack(nn.Module):
    """What the right encoder and the right decoder of the misconceptions share."""

    eps = 1e-6

    def head_count(self, num_heads):
        return num_heads

    def stack(self, make, count):
        return nn.ModuleList(make() for _ in range(count))

    def build(self, d_model, num_layers, num_heads, d_ff):
        from workbook.ready.vit import ViTBlock

        heads = self.head_count(num_heads)
        self.blocks = self.stack(lambda: ViTBlock(d_model, heads, d_ff), num_layers)
        self.norm = nn.LayerNorm(d_model, eps=self.eps)

    def change(self):
        """What is done at the end of __init__."""

    def run(self, x):
        for layer in self.blocks:
            x = layer(x)
        return x

    def last(self, x):
        return self.norm(x)


@near_answer
class Encoder(Stack):
    """MAEEncoder, with each of its steps open to change."""

    hide = staticmethod(masking())

    def __init__(self, image_size, patch_size, channels, d_model, num_layers, num_heads, d_ff):
        from workbook.ready.vit import PatchEmbedding

        super().__init__()
        self.patch = PatchEmbedding(patch_size, channels, d_model)
        self.class_token = nn.Parameter(torch.zeros(d_model))
        self.position = nn.Parameter(torch.zeros(1 + self.count(image_size, patch_size), d_model))
        self.build(d_model, num_layers, num_heads, d_ff)
        self.change()

    def count(self, image_size, patch_size):
        return patch_count(image_size, patch_size)

    def ratio(self, mask_ratio):
        return mask_ratio

    def place(self, patches):
        return patches + self.position[1:]

    def again(self, visible):
        return visible

    def first(self, batch):
        return (self.class_token + self.position[0]).expand(batch, 1, -1)

    def join(self, first, visible):
        return torch.cat([first, visible], dim=1)

    def result(self, latent, mask, restore):
        return latent, mask, restore

    def forward(self, images, mask_ratio, noise):
        patches = self.place(self.patch(images))
        visible, mask, restore = self.hide(patches, self.ratio(mask_ratio), noise)
        x = self.join(self.first(len(images)), self.again(visible))
        return self.result(self.last(self.run(x)), mask, restore)


@near_answer
class Decoder(Stack):
    """MAEDecoder, with each of its steps open to change."""

    def __init__(self, num_patches, d_encoder, d_model, num_layers, num_heads, d_ff, patch_numbers):
        super().__init__()
        self.embed = nn.Linear(d_encoder, d_model)
        self.mask_token = nn.Parameter(torch.zeros(self.token_shape(num_patches, d_model)))
        self.position = nn.Parameter(torch.zeros(1 + num_patches, d_model))
        self.build(d_model, num_layers, num_heads, d_ff)
        self.predict = nn.Linear(d_model, patch_numbers)
        self.change()

    def token_shape(self, num_patches, d_model):
        return (d_model,)

    def given(self, latent):
        return self.embed(latent)

    def tokens(self, visible, hidden):
        return self.mask_token.expand(len(visible), hidden, -1)

    def join(self, visible, tokens):
        return torch.cat([visible, tokens], dim=1)

    def index(self, restore):
        return restore

    def back(self, shuffled, restore):
        return shuffled.gather(1, self.index(restore)[:, :, None].expand_as(shuffled))

    def place(self, x, restore):
        return x + self.position

    def guess(self, x):
        return self.predict(x)

    def cut(self, prediction, restore, visible):
        return prediction[:, 1:]

    def forward(self, latent, restore):
        x = self.given(latent)
        tokens = self.tokens(x, 1 + restore.size(1) - x.size(1))
        patches = self.back(self.join(x[:, 1:], tokens), restore)
        x = self.place(torch.cat([x[:, :1], patches], dim=1), restore)
        x = self.last(self.run(x))
        return self.cut(self.guess(x), restore, latent.size(1) - 1)


@near_answer
def changed(right, **attributes):
    """A right class with other methods."""
    return type("Changed", (right,), attributes)


@near_answer
def wrong_stacks(right):
    """What goes wrong with blocks and norm, in the encoder as in the decoder."""

    def of(**attributes):
        return changed(right, **attributes)

    blocks = "x = layer(x) for every layer in self.blocks, once each and in their order."
    norm = "x = self.norm(x), once, after the last block."

    def norm_first(self, x):
        return Stack.run(self, self.norm(x))

    def norm_each(self, x):
        for layer in self.blocks:
            x = self.norm(layer(x))
        return x

    def backwards(self, x):
        for layer in reversed(self.blocks):
            x = layer(x)
        return x

    def only(self, x):
        return self.blocks[0](x)

    def forgetful(self, x):
        result = x
        for layer in self.blocks:
            result = layer(x)
        return result

    yield "The last norm is missing.", of(last=lambda self, x: x), norm
    yield (
        "The norm stands before the blocks; it belongs after the last one.",
        of(run=norm_first, last=lambda self, x: x),
        norm,
    )
    yield (
        "The norm is applied after every block; it belongs after the last one alone.",
        of(run=norm_each, last=lambda self, x: x),
        norm,
    )
    yield (
        "The last norm has another eps, such as PyTorch's 1e-5; here it is 1e-6.",
        of(eps=1e-5),
        "nn.LayerNorm(d_model, eps=1e-6).",
    )
    yield (
        "All blocks are one and the same block; each has parameters of its own.",
        of(stack=lambda self, make, count: nn.ModuleList([make()] * count)),
        "nn.ModuleList(ViTBlock(...) for _ in range(num_layers)), not [block] * num_layers.",
    )
    yield (
        "The blocks stand in a plain list, where PyTorch does not find their parameters.",
        of(stack=lambda self, make, count: [make() for _ in range(count)]),
        "self.blocks = nn.ModuleList(...).",
    )
    yield "Only the first block is used.", of(run=only), blocks
    yield "The blocks run in the wrong order.", of(run=backwards), blocks
    yield (
        "Every block starts from the same vectors; each takes what the one before it gives.",
        of(run=forgetful),
        blocks,
    )
    yield (
        "The blocks have one head, or another number than num_heads.",
        of(head_count=lambda self, num_heads: 1),
        "ViTBlock(d_model, num_heads, d_ff): pass num_heads on.",
    )


def mae_encoder_parameters(image_size, patch_size, channels, d_model, num_layers, num_heads, d_ff):
    return {
        **patch_parameters(patch_size, channels, d_model, "patch."),
        "class_token": (d_model,),
        "position": (1 + patch_count(image_size, patch_size), d_model),
        **blocks_parameters(d_model, num_layers, d_ff),
    }


mae_encoder = Exercise(
    "mae/MAEEncoder",
    points=5,
    signature="MAEEncoder(image_size, patch_size, channels, d_model, num_layers, num_heads, "
    "d_ff), forward(images, mask_ratio, noise)",
    returns=[
        Returned("latent", "(batch, 1 + kept, d_model)"),
        Returned("mask", "(batch, patches)"),
        Returned("restore", "(batch, patches)"),
    ],
    without=["multi_head_attention", "_transformer_encoder_layer_fwd"],
    parameters=mae_encoder_parameters,
)

ENTERING = ("patch.projection.weight", "patch.projection.bias", "class_token", "position")


def small_encoder(mae_encoder, make, num_layers=1, num_heads=2, dtype=torch.float32, silent=True):
    """An encoder of width 8 for images of 4 x 8 pixels, 8 patches; ``silent``: see hand_on."""
    encode = make.module(mae_encoder, (4, 8), 2, 3, 8, num_layers, num_heads, 12, dtype=dtype)
    if silent:
        hand_on(encode, *ENTERING)
    return encode


@mae_encoder.case(
    "the parameters",
    next_step="patch, class_token, position, blocks and norm as in the table, and nothing else. "
    "position has 1 + (height // patch_size) * (width // patch_size) rows; image_size may be a "
    "number or (height, width).",
)
def _(mae_encoder, make):
    sizes = ((4, 12), 2, 3, 8, 3, 2, 12)
    square, wide = mae_encoder(6, 2, 1, 8, 1, 2, 12), mae_encoder(*sizes)
    lacking, other = missing(wide, *sizes), misshapen(wide, *sizes)
    # What has other parameters is not called: what it does with them is no news.
    images, noise = make.normal(2, 3, 4, 12), noise_for(make, 2, 12)
    parts = () if lacking or other else wide(images, 0.5, noise)
    return {
        "parameters that are missing": lacking,
        "parameters of another shape": other,
        "parameters that do not learn": frozen(wide),
        "numbers, one block": numbers(square),
        "numbers, three blocks": numbers(wide),
        "shapes of the results": ", ".join(str(tuple(part.shape)) for part in parts),
    }


@mae_encoder.case(
    "silent blocks, nothing hidden, the noise in the order of the image",
    next_step="What is left is norm of: class_token + position[0], then patch(images) + "
    "position[1:].",
)
def _(mae_encoder, make):
    encode = small_encoder(mae_encoder, make)
    noise = (torch.arange(8) + 0.5).expand(2, 8) / 8
    return {"latent": encode(make.normal(2, 3, 4, 8), 0.0, noise)[0]}


@mae_encoder.case(
    "silent blocks, half of the patches hidden",
    weight=2,
    next_step="First patch(images) + position[1:], then random_masking: each patch takes its "
    "position with it. Then class_token + position[0] in front, the blocks, the norm.",
)
def _(mae_encoder, make):
    encode = small_encoder(mae_encoder, make)
    return {"latent": encode(make.normal(2, 3, 4, 8), 0.5, noise_for(make, 2, 8))[0]}


@mae_encoder.case(
    "mask and restore",
    next_step="Return latent, mask, restore, the last two as random_masking gives them. If the "
    "check of random_masking fails, mend that first.",
)
def _(mae_encoder, make):
    encode = small_encoder(mae_encoder, make)
    latent, mask, restore = encode(make.normal(3, 3, 4, 8), 0.75, noise_for(make, 3, 8))
    return {"shape of latent": str(tuple(latent.shape)), "mask": mask, "restore": restore}


@mae_encoder.case(
    "blocks that each add a constant",
    next_step="x = layer(x) for every layer in self.blocks, once each; then the norm.",
)
def _(mae_encoder, make):
    encode = small_encoder(mae_encoder, make, num_layers=3)
    constant_blocks(make, encode)
    return {"latent": encode(make.normal(1, 3, 4, 8), 0.5, noise_for(make, 1, 8))[0]}


@mae_encoder.case(
    "two blocks",
    next_step="If the check of ViTBlock fails, mend that first. Then: the class token and the "
    "visible patches, and nothing else, go through the blocks.",
)
def _(mae_encoder, make):
    encode = small_encoder(mae_encoder, make, num_layers=2, silent=False)
    return {"latent": encode(make.normal(2, 3, 4, 8), 0.75, noise_for(make, 2, 8))[0]}


@mae_encoder.case(
    "one head, and as many heads as columns",
    weight=0.5,
    next_step="ViTBlock(d_model, num_heads, d_ff): pass num_heads on.",
)
def _(mae_encoder, make):
    one = small_encoder(mae_encoder, make, num_heads=1, silent=False)
    many = small_encoder(mae_encoder, make, num_heads=8, silent=False)
    images, noise = make.normal(1, 3, 4, 8), noise_for(make, 1, 8)
    return {
        "latent of one head": one(images.clone(), 0.5, noise.clone())[0],
        "latent of eight heads": many(images.clone(), 0.5, noise.clone())[0],
    }


@mae_encoder.case(
    "the pixels of hidden patches change",
    next_step="Hidden patches do not enter the blocks, so nothing of them can be in latent.",
)
def _(mae_encoder, make):
    encode = small_encoder(mae_encoder, make, num_layers=2, silent=False)
    hidden = torch.tensor([[1, 0, 0, 1, 0, 1, 1, 0], [0, 0, 1, 0, 1, 1, 0, 1]])
    noise = noise_for(make, 2, 8) + hidden
    pixels = hidden.view(2, 1, 2, 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
    images = make.normal(2, 3, 4, 8)
    before = encode(images.clone(), 0.5, noise.clone())[0]
    after = encode(images + 5 * pixels, 0.5, noise.clone())[0]
    return {"latent of the class token": before[:, 0], "change of latent": after - before}


@mae_encoder.case(
    "one image, of which one patch stays",
    weight=0.5,
    next_step="Keep axes of length 1: no squeeze(). The class token is never hidden.",
)
def _(mae_encoder, make):
    encode = make.module(mae_encoder, 4, 2, 1, 8, 1, 2, 12)
    hand_on(encode, *ENTERING)
    return {"latent": encode(make.normal(1, 1, 4, 4), 0.75, noise_for(make, 1, 4))[0]}


@mae_encoder.case(
    "operations with 60 of 64 patches hidden",
    next_step="The blocks get 1 + kept vectors, whatever the image has: mask first, then run the "
    "blocks. A mask inside the attention spares nothing.",
)
def _(mae_encoder, make):
    encode = make.module(mae_encoder, 16, 2, 1, 8, 2, 2, 32)
    images, noise = make.normal(1, 1, 16, 16), noise_for(make, 1, 64)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        latent, _, _ = encode(images, 0.9375, noise)
    # Two blocks on all patches take 470,000 operations, on the visible ones 17,000. Embedding
    # all patches takes 4,000 more, and is right.
    return {
        "shape of latent": str(tuple(latent.shape)),
        "at most a fifth of those for all patches": counter.get_total_flops() <= 94_000,
    }


@mae_encoder.case(
    "vectors of small variance",
    weight=0.5,
    next_step="norm is nn.LayerNorm(d_model, eps=1e-6).",
)
def _(mae_encoder, make):
    encode = small_encoder(mae_encoder, make)
    scale(encode, 0.0002, *ENTERING)
    return {"latent": encode(make.normal(1, 3, 4, 8), 0.5, noise_for(make, 1, 8))[0]}


@mae_encoder.case(
    "gradients of class token, positions and patch embedding",
    next_step="The gradient reaches the positions of the visible patches; those of hidden ones "
    "get 0.",
)
def _(mae_encoder, make):
    encode = small_encoder(mae_encoder, make)
    own = own_parameters(encode)
    latent, _, _ = encode(make.normal(2, 3, 4, 8), 0.75, noise_for(make, 2, 8))
    names = ("class_token", "position", "patch.projection.weight")
    return make.gradients("latent", latent, **{name: own[name] for name in names})


@mae_encoder.case(
    "a gradient for every parameter",
    weight=0.5,
    next_step="Hand x from block to block: no detach(), no torch.no_grad().",
)
def _(mae_encoder, make):
    encode = small_encoder(mae_encoder, make, num_layers=2, silent=False)
    latent, _, _ = encode(make.normal(2, 3, 4, 8), 0.5, noise_for(make, 2, 8))
    return {"parameters that get none": without_gradient(encode, latent)}


@mae_encoder.case(
    "float64 images that are a view, left as they were",
    weight=0.5,
    next_step="Stay in the dtype of the images, and write into neither images nor noise.",
)
def _(mae_encoder, make):
    encode = small_encoder(mae_encoder, make, dtype=torch.float64)
    images = make.normal(8, 4, 3, 2, dtype=torch.float64).permute(3, 2, 1, 0)
    latent, _, _ = encode(images, 0.5, noise_for(make, 2, 8))
    return {"latent": latent, "the inputs are unchanged": make.unchanged()}


@mae_encoder.case(
    "bfloat16",
    weight=0.5,
    next_step="latent has the dtype of the parameters: make no float32 tensor on the way.",
)
def _(mae_encoder, make):
    encode = small_encoder(mae_encoder, make, dtype=torch.bfloat16)
    images = make.normal(1, 3, 4, 8, dtype=torch.bfloat16)
    latent, mask, _ = encode(images, 0.5, noise_for(make, 1, 8))
    return {"dtypes": f"{latent.dtype}, {mask.dtype}", "shape": str(tuple(latent.shape))}


@mae_encoder.case(
    "in evaluation mode, two calls",
    weight=0.5,
    next_step="Mask in every call, in training and in evaluation, by the noise that comes in.",
)
def _(mae_encoder, make):
    encode = small_encoder(mae_encoder, make)
    encode.component.eval()
    first, second = (
        encode(make.normal(1, 3, 4, 8), 0.5, noise_for(make, 1, 8))[0] for _ in range(2)
    )
    return {"latent of the first": first, "latent of the second": second}


@mae_encoder.case("other sizes", hidden=True)
def _(mae_encoder, make):
    encode = make.module(mae_encoder, (9, 6), 3, 2, 12, 3, 3, 10)
    latent, mask, restore = encode(make.normal(3, 2, 9, 6), 0.5, noise_for(make, 3, 6))
    return {"latent": latent, "mask": mask, "restore": restore}


@near_answer
def unlearned(name):
    """Two changes after which the parameter of that name does not learn."""

    def fixed(self):
        value = getattr(self, name).data
        delattr(self, name)
        self.register_buffer(name, value)

    return fixed, lambda self: getattr(self, name).requires_grad_(False)


@near_answer
def widened(*names):
    """A change that gives parameters three axes, those in front of length 1."""

    def change(self):
        for name in names:
            own = getattr(self, name)
            setattr(self, name, nn.Parameter(own[(None,) * (3 - own.ndim)]))

    return change


@mae_encoder.misconceptions
def _():
    """The encoder with one thing wrong at a time."""

    def of(**attributes):
        return changed(Encoder, **attributes)

    def picked(x, restore, kept):
        index = restore.argsort(dim=1)[:, :kept, None]
        return x.gather(1, index.expand(-1, -1, x.size(-1)))

    # Positions.

    before = "x = self.patch(images) + self.position[1:], and mask after that."
    yield (
        "The positions are added after the masking, in the order of the shuffle: nobody knows "
        "where a patch came from.",
        of(
            place=lambda self, patches: patches,
            again=lambda self, visible: visible + self.position[1 : 1 + visible.size(1)],
        ),
        before,
    )
    yield (
        "The visible patches get positions a second time, after the masking.",
        of(again=lambda self, visible: visible + self.position[1 : 1 + visible.size(1)]),
        before,
    )
    yield (
        "The patches get no position.",
        of(place=lambda self, patches: patches),
        before,
    )
    yield (
        "The class token gets no position.",
        of(first=lambda self, batch: self.class_token.expand(batch, 1, -1)),
        "It gets row 0: self.class_token + self.position[0].",
    )
    yield (
        "There are no positions at all, neither for patches nor for the class token.",
        of(
            place=lambda self, patches: patches,
            first=lambda self, batch: self.class_token.expand(batch, 1, -1),
        ),
        before,
    )
    yield (
        "The rows of position are off by one: row 0 belongs to the class token, and the patches "
        "begin with row 1.",
        of(place=lambda self, patches: patches + self.position[:-1]),
        before,
    )

    for change in unlearned("position"):
        yield (
            "position does not learn; here it is an nn.Parameter, not a fixed table.",
            of(change=change),
            "self.position = nn.Parameter(0.02 * torch.randn(1 + patches, d_model)).",
        )

    # The class token.

    first = "torch.cat([class_token, visible], dim=1), with the class token for each image."
    yield (
        "The class token stands last; it belongs in front.",
        of(join=lambda self, first, visible: torch.cat([visible, first], dim=1)),
        first,
    )
    yield (
        "There is no class token among the vectors.",
        of(join=lambda self, first, visible: visible),
        first,
    )
    yield (
        "The class token is dropped at the end; latent has it in front.",
        of(result=lambda self, latent, mask, restore: (latent[:, 1:], mask, restore)),
        "Return all that the norm gives.",
    )
    for cut in (lambda latent: latent[:, 0], lambda latent: latent[:, :1]):
        yield (
            "Only the class token's vector comes back; the decoder needs the patches' too.",
            of(result=lambda self, latent, mask, restore, cut=cut: (cut(latent), mask, restore)),
            "Return all that the norm gives.",
        )

    class Masked(Encoder):
        def forward(self, images, mask_ratio, noise):
            x = self.join(self.first(len(images)), self.place(self.patch(images)))
            noise = torch.cat([torch.full_like(noise[:, :1], -1e9), noise], dim=1)
            visible, mask, restore = self.hide(x, mask_ratio, noise)
            return self.last(self.run(visible)), mask, restore

    yield (
        "The class token takes part in the masking; put it in front after that.",
        Masked,
        "Mask the patches alone: mask and restore have one entry per patch.",
    )
    yield (
        "The class token is added to the patches in place of standing in front of them.",
        of(join=lambda self, first, visible: visible + first),
        first,
    )

    # Masking.

    mask_first = "visible, mask, restore = random_masking(patches, ...), and only visible goes on."

    def selected(self, images, mask_ratio, noise):
        patches = self.place(self.patch(images))
        visible, mask, restore = self.hide(patches, mask_ratio, noise)
        x = self.last(self.run(self.join(self.first(len(images)), patches)))
        return torch.cat([x[:, :1], picked(x[:, 1:], restore, visible.size(1))], 1), mask, restore

    yield (
        "All patches go through the blocks, and the visible ones are picked after that.",
        of(forward=selected),
        mask_first,
    )

    def behind_a_mask(self, images, mask_ratio, noise):
        patches = self.place(self.patch(images))
        visible, mask, restore = self.hide(patches, mask_ratio, noise)
        x = self.join(self.first(len(images)), patches)
        may = torch.cat([torch.ones(len(mask), 1).bool(), ~mask], dim=1)[:, None, :]
        for layer in self.blocks:
            normal = layer.norm1(x)
            x = x + layer.self_attn(normal, normal, normal, may)[0]
            x = x + layer.w_2(F.gelu(layer.w_1(layer.norm2(x))))
        x = self.last(x)
        return torch.cat([x[:, :1], picked(x[:, 1:], restore, visible.size(1))], 1), mask, restore

    yield (
        "The hidden patches go through the blocks behind a mask; leaving them out spares the work.",
        of(forward=behind_a_mask),
        mask_first,
    )

    def kept_as(fill):
        class Kept(Encoder):
            def forward(self, images, mask_ratio, noise):
                patches = self.place(self.patch(images))
                _, mask, restore = self.hide(patches, mask_ratio, noise)
                patches = torch.where(mask[:, :, None], fill(self, patches), patches)
                x = self.join(self.first(len(images)), patches)
                return self.last(self.run(x)), mask, restore

        return Kept

    yield (
        "The hidden patches are set to 0 and stay in the sequence; leave them out.",
        kept_as(lambda self, patches: torch.zeros(())),
        mask_first,
    )

    class WithToken(kept_as(lambda self, patches: self.mask_token + self.position[1:])):
        def change(self):
            self.mask_token = nn.Parameter(torch.zeros_like(self.class_token))

    yield (
        "The encoder gets mask tokens, as BERT does; here they enter in the decoder.",
        WithToken,
        mask_first,
    )
    yield (
        "The visible patches stand in the order of the image; random_masking gives them in the "
        "order of their noise.",
        of(
            hide=staticmethod(
                masking(
                    choose=lambda shuffle, restore, kept: shuffle[:, :kept].sort(dim=1).values,
                )
            )
        ),
        "Take visible as random_masking gives it.",
    )
    yield (
        "The share mask_ratio is kept; it is to be hidden.",
        of(ratio=lambda self, mask_ratio: 1 - mask_ratio if mask_ratio else 0.0),
        "Hand mask_ratio on to random_masking as it is.",
    )
    yield (
        "mask_ratio is not used: the share that is hidden is always 0.75.",
        of(ratio=lambda self, mask_ratio: 0.75),
        "Hand mask_ratio on to random_masking as it is.",
    )

    def drawn(tokens, mask_ratio, noise):
        return masking()(tokens, mask_ratio, torch.rand(noise.shape))

    yield (
        "The noise that is given is not used: the encoder draws its own.",
        of(hide=staticmethod(drawn)),
        "random_masking(patches, mask_ratio, noise), with the argument noise.",
    )

    # Results and images.

    order = "Return latent, mask, restore, in this order."
    yield (
        "mask and restore change places in the result.",
        of(result=lambda self, latent, mask, restore: (latent, restore, mask)),
        order,
    )
    yield (
        "The mask comes back inverted: True means hidden.",
        of(result=lambda self, latent, mask, restore: (latent, ~mask, restore)),
        "Return the mask as random_masking gives it.",
    )
    yield (
        "latent is detached: no gradient reaches the encoder.",
        of(result=lambda self, latent, mask, restore: (latent.detach(), mask, restore)),
        "Return what the norm gives, without detach() or torch.no_grad().",
    )
    for names in (("class_token",), ("position",), ("class_token", "position")):
        yield (
            "class_token or position has further axes of length 1; here their shapes are "
            "(d_model,) and (1 + patches, d_model).",
            of(change=widened(*names)),
            "self.class_token = nn.Parameter(0.02 * torch.randn(d_model)).",
        )
    yield (
        "position has no row for the class token: it needs 1 + patches rows.",
        of(change=lambda self: setattr(self, "position", nn.Parameter(self.position[1:]))),
        "self.position = nn.Parameter(0.02 * torch.randn(1 + patches, d_model)).",
    )
    yield (
        "image_size is taken for a square: only its height, or only its width, counts.",
        of(
            count=lambda self, size, patch: (
                ((size if isinstance(size, int) else size[0]) // patch) ** 2
            )
        ),
        "(height // patch_size) * (width // patch_size) patches.",
    )

    yield from wrong_stacks(Encoder)


def mae_decoder_parameters(
    num_patches, d_encoder, d_model, num_layers, num_heads, d_ff, patch_numbers
):
    return {
        "embed.weight": (d_model, d_encoder),
        "embed.bias": (d_model,),
        "mask_token": (d_model,),
        "position": (1 + num_patches, d_model),
        **blocks_parameters(d_model, num_layers, d_ff),
        "predict.weight": (patch_numbers, d_model),
        "predict.bias": (patch_numbers,),
    }


mae_decoder = Exercise(
    "mae/MAEDecoder",
    points=5,
    signature="MAEDecoder(num_patches, d_encoder, d_model, num_layers, num_heads, d_ff, "
    "patch_numbers), forward(latent, restore)",
    returns=[Returned("prediction", "(batch, num_patches, patch_numbers)")],
    without=["multi_head_attention", "_transformer_encoder_layer_fwd"],
    parameters=mae_decoder_parameters,
)

EMBEDDED = ("embed.weight", "embed.bias", "mask_token", "position")


def restore_for(make, batch, length):
    """A drawn order (batch, length): which place of the shuffled order belongs to each patch."""
    return make.watch(make.uniform(0, 1, batch, length).argsort(dim=1, stable=True))


def small_decoder(mae_decoder, make, num_layers=1, num_heads=2, dtype=torch.float32, silent=True):
    """A decoder of width 8 for 8 patches of 5 numbers; ``silent``: see hand_on."""
    decode = make.module(mae_decoder, 8, 6, 8, num_layers, num_heads, 12, 5, dtype=dtype)
    if silent:
        hand_on(decode, *EMBEDDED)
    return decode


@mae_decoder.case(
    "the parameters",
    next_step="embed, mask_token, position, blocks, norm and predict as in the table, and nothing "
    "else. There is one mask token for all hidden patches.",
)
def _(mae_decoder, make):
    sizes = (8, 6, 8, 3, 2, 12, 5)
    one, three = mae_decoder(4, 6, 8, 1, 2, 12, 5), mae_decoder(*sizes)
    lacking, other = missing(three, *sizes), misshapen(three, *sizes)
    # What has other parameters is not called: what it does with them is no news.
    latent, restore = make.normal(2, 4, 6), restore_for(make, 2, 8)
    return {
        "parameters that are missing": lacking,
        "parameters of another shape": other,
        "parameters that do not learn": frozen(three),
        "numbers, one block": numbers(one),
        "numbers, three blocks": numbers(three),
        "shape of the result": "" if lacking or other else str(tuple(three(latent, restore).shape)),
    }


@mae_decoder.case(
    "silent blocks, all visible, the shuffled order that of the image",
    next_step="What is left is predict(norm(embed(latent) + position)), without the first of "
    "them, the class token's.",
)
def _(mae_decoder, make):
    decode = small_decoder(mae_decoder, make)
    return {"prediction": decode(make.normal(2, 9, 6), torch.arange(8).expand(2, 8))}


@mae_decoder.case(
    "silent blocks, the shuffled order that of the image, the last five hidden",
    next_step="Behind the embedded visible patches stand mask tokens, as many as are missing; "
    "then position is added, to all of them.",
)
def _(mae_decoder, make):
    decode = small_decoder(mae_decoder, make)
    return {"prediction": decode(make.normal(2, 4, 6), torch.arange(8).expand(2, 8))}


@mae_decoder.case(
    "silent blocks, three of eight patches visible",
    weight=2,
    next_step="shuffled = visible patches, then mask tokens; patches[b, i] = "
    "shuffled[b, restore[b, i]], by gather; the class token in front; then + position.",
)
def _(mae_decoder, make):
    decode = small_decoder(mae_decoder, make)
    return {"prediction": decode(make.normal(2, 4, 6), restore_for(make, 2, 8))}


@mae_decoder.case(
    "silent blocks, one visible patch of one image, and all visible",
    weight=0.5,
    next_step="There are num_patches - kept mask tokens, also where that is 0. Keep axes of "
    "length 1: no squeeze().",
)
def _(mae_decoder, make):
    decode = small_decoder(mae_decoder, make)
    return {
        "prediction from one": decode(make.normal(1, 2, 6), restore_for(make, 1, 8)),
        "prediction from all": decode(make.normal(2, 9, 6), restore_for(make, 2, 8)),
    }


@mae_decoder.case(
    "blocks that each add a constant",
    next_step="x = layer(x) for every layer in self.blocks, once each; then norm, then predict.",
)
def _(mae_decoder, make):
    decode = small_decoder(mae_decoder, make, num_layers=3)
    constant_blocks(make, decode)
    return {"prediction": decode(make.normal(1, 4, 6), restore_for(make, 1, 8))}


@mae_decoder.case(
    "two blocks",
    next_step="If the check of ViTBlock fails, mend that first. Then: class token, visible "
    "patches and mask tokens go through the blocks together.",
)
def _(mae_decoder, make):
    decode = small_decoder(mae_decoder, make, num_layers=2, silent=False)
    return {"prediction": decode(make.normal(2, 4, 6), restore_for(make, 2, 8))}


@mae_decoder.case(
    "the class token's vector changes",
    weight=0.5,
    next_step="The class token goes through the blocks with the others, where all may read it.",
)
def _(mae_decoder, make):
    decode = small_decoder(mae_decoder, make, silent=False)
    latent, restore = make.normal(1, 4, 6), restore_for(make, 1, 8)
    other = torch.cat([make.normal(1, 1, 6), latent[:, 1:]], dim=1)
    change = decode(other, restore.clone()) - decode(latent.clone(), restore.clone())
    return {"change of the prediction": change}


@mae_decoder.case(
    "one head, and as many heads as columns",
    weight=0.5,
    next_step="ViTBlock(d_model, num_heads, d_ff): pass num_heads on.",
)
def _(mae_decoder, make):
    one = small_decoder(mae_decoder, make, num_heads=1, silent=False)
    many = small_decoder(mae_decoder, make, num_heads=8, silent=False)
    latent, restore = make.normal(1, 4, 6), restore_for(make, 1, 8)
    return {
        "prediction of one head": one(latent.clone(), restore.clone()),
        "prediction of eight heads": many(latent.clone(), restore.clone()),
    }


@mae_decoder.case(
    "as many patches as numbers everywhere",
    weight=0.5,
    next_step="Where sizes are equal, axes that are mixed up raise no error: the index for gather "
    "has the shape (batch, num_patches, d_model).",
)
def _(mae_decoder, make):
    decode = make.module(mae_decoder, 6, 6, 6, 1, 2, 6, 6)
    hand_on(decode, *EMBEDDED)
    return {"prediction": decode(make.normal(6, 4, 6), restore_for(make, 6, 6))[:2]}


@mae_decoder.case(
    "vectors of small variance",
    weight=0.5,
    next_step="norm is nn.LayerNorm(d_model, eps=1e-6).",
)
def _(mae_decoder, make):
    decode = small_decoder(mae_decoder, make)
    scale(decode, 0.0002, *EMBEDDED)
    return {"prediction": decode(make.normal(1, 4, 6), restore_for(make, 1, 8))}


@mae_decoder.case(
    "gradients of latent, mask token and positions",
    next_step="Every hidden patch gives its gradient to the one mask token, every visible one to "
    "its vector of latent.",
)
def _(mae_decoder, make):
    decode = small_decoder(mae_decoder, make)
    latent, own = make.normal(2, 4, 6, grad=True), own_parameters(decode)
    prediction = decode(latent, restore_for(make, 2, 8))
    inputs = {name: own[name] for name in ("mask_token", "position")}
    return make.gradients("prediction", prediction, latent=latent, **inputs)


@mae_decoder.case(
    "a gradient for latent and every parameter",
    weight=0.5,
    next_step="Use latent, the mask token and x as they are: no detach(), no torch.no_grad().",
)
def _(mae_decoder, make):
    decode = small_decoder(mae_decoder, make, num_layers=2, silent=False)
    latent = make.normal(2, 4, 6, grad=True)
    prediction = decode(latent, restore_for(make, 2, 8))
    return {"what gets none": without_gradient(decode, prediction, latent=latent)}


@mae_decoder.case(
    "float64 inputs that are views, left as they were",
    weight=0.5,
    next_step="Stay in the dtype of latent, go by the axes, and write into neither latent nor "
    "restore.",
)
def _(mae_decoder, make):
    decode = small_decoder(mae_decoder, make, dtype=torch.float64)
    latent = make.normal(6, 4, 2, dtype=torch.float64).permute(2, 1, 0)
    restore = restore_for(make, 2, 8).T.contiguous().T
    prediction = decode(latent, make.watch(restore))
    return {"prediction": prediction, "the inputs are unchanged": make.unchanged()}


@mae_decoder.case("bfloat16", weight=0.5, next_step="Return the dtype of latent.")
def _(mae_decoder, make):
    decode = small_decoder(mae_decoder, make, dtype=torch.bfloat16)
    latent = make.normal(1, 4, 6, dtype=torch.bfloat16)
    return in_both_precisions(decode, latent, restore_for(make, 1, 8))


@mae_decoder.case(
    "in evaluation mode, two calls",
    weight=0.5,
    next_step="Un-shuffle in every call by the restore that is handed over.",
)
def _(mae_decoder, make):
    decode = small_decoder(mae_decoder, make)
    decode.component.eval()
    first, second = (decode(make.normal(1, 5, 6), restore_for(make, 1, 8)) for _ in range(2))
    return {"prediction of the first": first, "prediction of the second": second}


@mae_decoder.case("other sizes", hidden=True)
def _(mae_decoder, make):
    decode = make.module(mae_decoder, 10, 5, 9, 3, 3, 7, 4)
    return {"prediction": decode(make.normal(3, 6, 5), restore_for(make, 3, 10))}


@mae_decoder.misconceptions
def _():
    """The decoder with one thing wrong at a time."""

    def of(**attributes):
        return changed(Decoder, **attributes)

    # The order.

    gather = (
        "torch.gather(shuffled, 1, index) with restore[:, :, None].expand(-1, -1, d_model) as index"
    )
    yield (
        "Nothing is un-shuffled: the patches stay in the order of the noise.",
        of(back=lambda self, shuffled, restore: shuffled),
        gather + ".",
    )
    for other_way in (
        of(index=lambda self, restore: restore.argsort(dim=1)),
        of(
            back=lambda self, shuffled, restore: torch.zeros_like(shuffled).scatter(
                1, restore[:, :, None].expand_as(shuffled), shuffled
            )
        ),
    ):
        yield (
            "restore is used the other way around, by its argsort or by scatter: it says where "
            "each patch comes from, not where it goes.",
            other_way,
            gather + ".",
        )
    yield (
        "All images are un-shuffled by the row of the first; each has its own.",
        of(index=lambda self, restore: restore[:1].expand(len(restore), -1)),
        gather + ".",
    )

    class ClassToo(Decoder):
        def forward(self, latent, restore):
            x = self.given(latent)
            tokens = self.tokens(x, 1 + restore.size(1) - x.size(1))
            line = self.join(x, tokens)
            patches = line.gather(1, restore[:, :, None].expand(-1, -1, x.size(-1)))
            x = self.place(torch.cat([x[:, :1], patches], dim=1), restore)
            return self.predict(self.last(self.run(x)))[:, 1:]

    yield (
        "The class token takes part in the un-shuffling: restore counts the patches alone.",
        ClassToo,
        "Leave x[:, :1] out of the gather, and put it in front again after it.",
    )
    yield (
        "The mask tokens stand before the visible patches; in the shuffled order they come after.",
        of(join=lambda self, visible, tokens: torch.cat([tokens, visible], dim=1)),
        "shuffled = torch.cat([x[:, 1:], mask_tokens], dim=1).",
    )

    def reshuffled(self, prediction, restore, visible):
        patches, index = prediction[:, 1:], restore.argsort(dim=1)[:, :, None]
        return patches.gather(1, index.expand_as(patches))

    yield (
        "The prediction is shuffled again at the end; it comes in the order of the image.",
        of(cut=reshuffled),
        "Return the prediction as it is, without the class token's.",
    )
    # The mask token.

    one = "self.mask_token.expand(batch, hidden, -1): the one parameter, in every hidden place."
    yield (
        "The hidden places are filled with zeros, not with the mask token.",
        of(tokens=lambda self, visible, hidden: 0 * Decoder.tokens(self, visible, hidden)),
        one,
    )
    yield (
        "The hidden places are filled with random numbers, not with the mask token.",
        of(
            tokens=lambda self, visible, hidden: torch.randn_like(
                Decoder.tokens(self, visible, hidden)
            )
        ),
        one,
    )
    yield (
        "The hidden places are filled with the mean of the visible vectors, not with the mask "
        "token.",
        of(
            tokens=lambda self, visible, hidden: (
                visible[:, 1:].mean(dim=1, keepdim=True).expand(-1, hidden, -1)
            )
        ),
        one,
    )
    yield (
        "The mask token is detached: it does not learn.",
        of(
            tokens=lambda self, visible, hidden: self.mask_token.detach().expand(
                len(visible), hidden, -1
            )
        ),
        one,
    )
    yield (
        "latent is detached: no gradient reaches the encoder.",
        of(given=lambda self, latent: self.embed(latent.detach())),
        "self.embed(latent), without detach().",
    )

    for change in unlearned("mask_token"):
        yield (
            "mask_token is not a parameter that learns.",
            of(change=change),
            "self.mask_token = nn.Parameter(0.02 * torch.randn(d_model)).",
        )
    for names in (("mask_token",), ("position",), ("mask_token", "position")):
        yield (
            "mask_token or position has further axes of length 1; here their shapes are "
            "(d_model,) and (1 + num_patches, d_model).",
            of(change=widened(*names)),
            "self.mask_token = nn.Parameter(0.02 * torch.randn(d_model)).",
        )

    class Narrow(Decoder):
        def change(self):
            self.mask_token = nn.Parameter(torch.zeros(self.embed.in_features))

        def given(self, latent):
            return latent

        def place(self, x, restore):
            return self.embed(x) + self.position

    yield (
        "The mask token goes through embed; it has the decoder's width, and enters after it.",
        Narrow,
        "x = self.embed(latent) first, then the mask tokens.",
    )
    yield (
        "embed is missing: the latent vectors have the encoder's width.",
        of(change=lambda self: setattr(self, "embed", nn.Identity())),
        "self.embed = nn.Linear(d_encoder, d_model), and x = self.embed(latent).",
    )
    yield (
        "position has no row for the class token: it needs 1 + num_patches rows.",
        of(change=lambda self: setattr(self, "position", nn.Parameter(self.position[1:]))),
        "self.position = nn.Parameter(0.02 * torch.randn(1 + num_patches, d_model)).",
    )
    yield (
        "There is a mask token for each place; one vector serves all hidden patches.",
        of(
            token_shape=lambda self, num_patches, d_model: (num_patches, d_model),
            tokens=lambda self, visible, hidden: self.mask_token[
                len(self.mask_token) - hidden :
            ].expand(len(visible), -1, -1),
        ),
        one,
    )

    # Positions.

    rows = "x = torch.cat([x[:, :1], patches], dim=1) + self.position, after the un-shuffling."

    class Early(Decoder):
        def back(self, shuffled, restore):
            return super().back(shuffled + self.position[1:], restore)

        def place(self, x, restore):
            return torch.cat([x[:, :1] + self.position[0], x[:, 1:]], dim=1)

    yield (
        "The positions are added before the un-shuffling, by the place in the shuffled order.",
        Early,
        rows,
    )
    yield (
        "There are no positions.",
        of(place=lambda self, x, restore: x),
        rows,
    )
    yield (
        "The class token gets no position: row 0 is its own.",
        of(
            place=lambda self, x, restore: torch.cat(
                [x[:, :1], x[:, 1:] + self.position[1:]], dim=1
            )
        ),
        rows,
    )
    yield (
        "The rows of position are off by one: row 0 belongs to the class token, and the patches "
        "begin with row 1.",
        of(
            place=lambda self, x, restore: torch.cat(
                [x[:, :1] + self.position[0], x[:, 1:] + self.position[:-1]], dim=1
            )
        ),
        rows,
    )

    def hidden_only(self, x, restore):
        at = torch.cat([torch.zeros_like(restore[:, :1]), 1 + restore], dim=1)
        return x + self.position * (at > self.seen)[:, :, None]

    def visible_only(self, x, restore):
        at = torch.cat([torch.zeros_like(restore[:, :1]), 1 + restore], dim=1)
        return x + self.position * (at <= self.seen)[:, :, None]

    def noted(self, latent):
        self.seen = latent.size(1) - 1
        return self.embed(latent)

    yield (
        "Only the mask tokens get positions; the visible patches and the class token need those of "
        "the decoder too.",
        of(given=noted, place=hidden_only),
        rows,
    )
    yield (
        "The mask tokens get no positions, so all hidden patches are predicted alike.",
        of(given=noted, place=visible_only),
        rows,
    )

    # The class token and the prediction.

    front = "return self.predict(self.norm(x))[:, 1:]"
    yield (
        "The class token's prediction comes back too; drop it.",
        of(cut=lambda self, prediction, restore, visible: prediction),
        front + ".",
    )
    yield (
        "The last prediction is dropped; drop the first, the class token's.",
        of(cut=lambda self, prediction, restore, visible: prediction[:, :-1]),
        front + ".",
    )

    class Dropped(Decoder):
        def forward(self, latent, restore):
            x = self.given(latent)
            tokens = self.tokens(x, 1 + restore.size(1) - x.size(1))
            patches = self.back(self.join(x[:, 1:], tokens), restore)
            return self.predict(self.last(self.run(patches + self.position[1:])))

    yield (
        "The class token is dropped before the blocks; drop it at the end.",
        Dropped,
        front + ".",
    )

    def hidden_alone(self, prediction, restore, visible):
        patches = prediction[:, 1:]
        return patches[restore >= visible].view(len(patches), -1, patches.size(-1))

    yield (
        "Only the hidden patches are predicted; all patches come back, and the loss chooses.",
        of(cut=hidden_alone),
        front + ".",
    )
    for bend in (torch.sigmoid, torch.tanh, lambda prediction: prediction.clamp(0, 1)):
        yield (
            "The prediction is forced into a range, by a sigmoid, tanh or clamp; it is that of the "
            "linear layer.",
            of(cut=lambda self, prediction, restore, visible, bend=bend: bend(prediction)[:, 1:]),
            front + ".",
        )
    yield (
        "predict is not used: what comes back has the decoder's width.",
        of(guess=lambda self, x: x),
        front + ".",
    )

    yield from wrong_stacks(Decoder)


# ---- the whole -----------------------------------------------------------------------------


def masked_autoencoder_parameters(
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
    encoder = mae_encoder_parameters(
        image_size, patch_size, channels, d_model, num_layers, num_heads, d_ff
    )
    decoder = mae_decoder_parameters(
        patch_count(image_size, patch_size),
        d_model,
        decoder_d_model,
        decoder_num_layers,
        decoder_num_heads,
        decoder_d_ff,
        patch_size * patch_size * channels,
    )
    return {f"encoder.{name}": shape for name, shape in encoder.items()} | {
        f"decoder.{name}": shape for name, shape in decoder.items()
    }


masked_autoencoder = Exercise(
    "mae/MaskedAutoencoder",
    points=5,
    signature="MaskedAutoencoder(image_size, patch_size, channels, d_model, num_layers, "
    "num_heads, d_ff, decoder_d_model, decoder_num_layers, decoder_num_heads, decoder_d_ff, "
    "normalize=True), forward(images, mask_ratio=0.75, noise=None)",
    returns=[
        Returned("loss", "()"),
        Returned("prediction", "(batch, patches, numbers)"),
        Returned("mask", "(batch, patches)"),
    ],
    without=["multi_head_attention", "_transformer_encoder_layer_fwd"],
    parameters=masked_autoencoder_parameters,
)

# image_size, patch_size, channels; the encoder's and the decoder's width, layers, heads, d_ff.
SMALL = ((4, 8), 2, 3, 8, 1, 2, 12, 4, 1, 2, 6)


def small_autoencoder(masked_autoencoder, make, *more, dtype=torch.float32):
    """A model for images of 4 x 8 pixels, 8 patches, with silent blocks (see hand_on)."""
    model = make.module(masked_autoencoder, *SMALL, *more, dtype=dtype)
    silent_parts(model)
    return model


def silent_parts(model):
    """Lets the blocks of encoder and decoder hand x on as it is."""
    entering = [f"encoder.{name}" for name in ENTERING]
    hand_on(model, *entering, *(f"decoder.{name}" for name in EMBEDDED))


@masked_autoencoder.case(
    "the parameters",
    next_step="encoder is a MAEEncoder, decoder a MAEDecoder, and there is nothing else to learn. "
    "The decoder predicts patch_size * patch_size * channels numbers for each of the "
    "encoder's patches.",
)
def _(masked_autoencoder, make):
    sizes = ((4, 8), 2, 3, 8, 2, 2, 12, 6, 3, 1, 10)
    square, wide = masked_autoencoder(6, 3, 1, 8, 1, 2, 12, 4, 1, 2, 6), masked_autoencoder(*sizes)
    lacking, other = missing(wide, *sizes), misshapen(wide, *sizes)
    # What has other parameters is not called: what it does with them is no news.
    parts = () if lacking or other else wide(make.normal(2, 3, 4, 8), 0.5, noise_for(make, 2, 8))
    return {
        "parameters that are missing": lacking,
        "parameters of another shape": other,
        "numbers, one block each": numbers(square),
        "numbers, more blocks": numbers(wide),
        "shapes of the results": ", ".join(str(tuple(part.shape)) for part in parts),
    }


@masked_autoencoder.case(
    "silent blocks, half hidden, plain pixels as targets",
    next_step="Without normalize the targets are patchify(images, patch_size), and the loss is "
    "masked_patch_loss(prediction, targets, mask).",
)
def _(masked_autoencoder, make):
    model = small_autoencoder(masked_autoencoder, make, False)
    loss, prediction, _ = model(make.normal(2, 3, 4, 8), 0.5, noise_for(make, 2, 8))
    return {"loss": loss, "prediction": prediction}


@masked_autoencoder.case(
    "silent blocks, half hidden, normalized targets",
    weight=2,
    next_step="With normalize, which is the default, the targets are "
    "normalized_pixel_targets(patchify(images, patch_size)). The prediction comes back as the "
    "decoder gives it.",
)
def _(masked_autoencoder, make):
    images = make.normal(2, 3, 4, 8, scale=2.0, shift=0.5)
    noise = noise_for(make, 2, 8)
    model = small_autoencoder(masked_autoencoder, make)
    said = small_autoencoder(masked_autoencoder, make, True)
    loss, prediction, mask = model(images.clone(), 0.5, noise.clone())
    return {
        "loss": loss,
        "prediction": prediction,
        "mask": mask,
        "loss with normalize=True": said(images, 0.5, noise)[0],
    }


@masked_autoencoder.case(
    "three quarters hidden, by the default ratio",
    next_step="def forward(self, images, mask_ratio=0.75, noise=None): 2 of 8 patches stay.",
)
def _(masked_autoencoder, make):
    model = small_autoencoder(masked_autoencoder, make)
    loss, prediction, mask = model(make.normal(3, 3, 4, 8))
    return {
        "hidden patches of each image": mask.long().sum(dim=1),
        "shapes": f"{tuple(loss.shape)}, {tuple(prediction.shape)}",
    }


@masked_autoencoder.case(
    "no noise is given: it is drawn",
    weight=1.5,
    next_step="if noise is None: noise = torch.rand(batch, patches, device=images.device), in "
    "forward: each image and each call has its own, and torch.manual_seed brings them back.",
)
def _(masked_autoencoder, make):
    model = make.module(masked_autoencoder, 8, 2, 1, 8, 1, 2, 8, 4, 1, 2, 6)
    images = make.normal(6, 1, 8, 8)

    def drawn(seed):
        torch.default_generator.manual_seed(seed)
        return [model(images.clone(), 0.5, None)[2] for _ in range(2)]

    first, second = drawn(1)
    again = drawn(1)[0]
    other = drawn(2)[0]
    model.component.eval()
    evaluated = drawn(1)[0]
    return {
        "hidden patches of each image": first.long().sum(dim=1),
        "each image hides its own": bool((first != first[:1]).any()),
        "each call hides its own": not torch.equal(first, second),
        "the same seed hides the same": torch.equal(again, first),
        "another seed hides others": not torch.equal(other, first),
        "in evaluation mode too": torch.equal(evaluated, first),
    }


@masked_autoencoder.case(
    "noise is given: nothing is drawn",
    next_step="Use the noise that is given, in every call the same way.",
)
def _(masked_autoencoder, make):
    model = small_autoencoder(masked_autoencoder, make)
    images, noise = make.normal(2, 3, 4, 8), noise_for(make, 2, 8)
    loss, _, mask = model(images.clone(), 0.75, noise.clone())
    again, _, _ = model(images.clone(), 0.75, noise.clone())
    model.component.eval()
    evaluated, _, _ = model(images, 0.75, noise)
    return {
        "mask": mask,
        "how far off the loss is in a second call": again - loss,
        "how far off it is in evaluation mode": evaluated - loss,
    }


@masked_autoencoder.case(
    "several blocks that are not silent",
    next_step="If the checks of MAEEncoder and MAEDecoder fail, mend those first. Then: the "
    "decoder gets latent and restore, as the encoder gives them.",
)
def _(masked_autoencoder, make):
    model = make.module(masked_autoencoder, 6, 2, 2, 8, 2, 4, 10, 4, 3, 1, 7)
    loss, prediction, _ = model(make.normal(2, 2, 6, 6), 0.5, noise_for(make, 2, 9))
    return {"loss": loss, "prediction": prediction}


@masked_autoencoder.case(
    "one image, of which one patch stays",
    weight=0.5,
    next_step="Keep axes of length 1: no squeeze().",
)
def _(masked_autoencoder, make):
    model = make.module(masked_autoencoder, 4, 2, 1, 8, 1, 2, 12, 4, 1, 2, 6)
    silent_parts(model)
    loss, prediction, mask = model(make.normal(1, 1, 4, 4), 0.75, noise_for(make, 1, 4))
    return {"loss": loss, "prediction": prediction, "mask": mask}


@masked_autoencoder.case(
    "gradients of the loss",
    next_step="The loss is that of the hidden patches, and its gradient flows through the decoder "
    "into the encoder.",
)
def _(masked_autoencoder, make):
    model = small_autoencoder(masked_autoencoder, make)
    own = own_parameters(model)
    loss, _, _ = model(make.normal(2, 3, 4, 8), 0.5, noise_for(make, 2, 8))
    # The blocks are silent, so only what is predicted for hidden patches counts.
    names = ("decoder.mask_token", "decoder.position", "decoder.predict.weight")
    if not loss.requires_grad:
        return {"loss": loss, "a gradient flows back": False}
    return {
        "loss": loss,
        "a gradient flows back": True,
        **make.gradients("loss", loss.reshape(1), **{name: own[name] for name in names}),
    }


@masked_autoencoder.case(
    "a gradient for every parameter",
    weight=0.5,
    next_step="One loss teaches encoder and decoder: no detach() between them, no torch.no_grad().",
)
def _(masked_autoencoder, make):
    model = make.module(masked_autoencoder, *SMALL)
    loss, _, _ = model(make.normal(2, 3, 4, 8), 0.5, noise_for(make, 2, 8))
    return {"parameters that get none": without_gradient(model, loss)}


@masked_autoencoder.case(
    "float64 images that are a view, left as they were",
    weight=0.5,
    next_step="Stay in the dtype of the images, and write into neither images nor noise.",
)
def _(masked_autoencoder, make):
    model = small_autoencoder(masked_autoencoder, make, dtype=torch.float64)
    images = make.normal(8, 4, 3, 2, dtype=torch.float64).permute(3, 2, 1, 0)
    loss, prediction, _ = model(images, 0.5, noise_for(make, 2, 8))
    return {
        "loss": loss,
        "dtype of the prediction": str(prediction.dtype),
        "the inputs are unchanged": make.unchanged(),
    }


@masked_autoencoder.case(
    "bfloat16",
    weight=0.5,
    next_step="prediction has the dtype of the parameters: make no float32 tensor on the way.",
)
def _(masked_autoencoder, make):
    model = small_autoencoder(masked_autoencoder, make, dtype=torch.bfloat16)
    images = make.normal(2, 3, 4, 8, dtype=torch.bfloat16)
    loss, prediction, mask = model(images, 0.5, noise_for(make, 2, 8))
    # A loss in float32 is as good, for it is where training keeps its sums.
    return {
        "dtypes": f"{prediction.dtype}, {mask.dtype}",
        "the loss is a number": bool(loss.isfinite()),
    }


@masked_autoencoder.case("other sizes", hidden=True)
def _(masked_autoencoder, make):
    found = {}
    for normalize in (True, False):
        model = make.module(masked_autoencoder, (6, 9), 3, 2, 6, 2, 3, 10, 9, 1, 3, 8, normalize)
        images, noise = make.normal(3, 2, 6, 9, shift=0.5), noise_for(make, 3, 6)
        loss, prediction, mask = model(images, 0.5, noise)
        found |= {f"loss, {normalize}": loss, f"prediction, {normalize}": prediction}
    return found | {"mask": mask}


@masked_autoencoder.misconceptions
def _():
    """The whole with one thing wrong at a time."""
    from workbook.ready.vit import patchify, unpatchify

    def standard(patches):
        mean, variance = patches.mean(-1, True), patches.var(-1, keepdim=True)
        return (patches - mean) / (variance + 1e-6).sqrt()

    class Right(nn.Module):
        default = 0.75

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
            self.patch_size, self.channels = patch_size, channels
            self.normalize = self.flag(normalize)
            own = d_model, num_layers, num_heads, d_ff
            other = decoder_d_model, decoder_num_layers, decoder_num_heads, decoder_d_ff
            own, other = self.sizes(own, other)
            self.encoder = Encoder(image_size, patch_size, channels, *own)
            self.decoder = Decoder(
                self.count(image_size, patch_size),
                own[0],
                *other,
                self.patch_numbers(patch_size, channels),
            )
            self.change()

        def flag(self, normalize):
            return normalize

        def sizes(self, own, other):
            return own, other

        def count(self, image_size, patch_size):
            return patch_count(image_size, patch_size)

        def patch_numbers(self, patch_size, channels):
            return patch_size**2 * channels

        def change(self):
            """What is done at the end of __init__."""

        def patches(self, images):
            return patchify(images, self.patch_size)

        def normal(self, patches):
            return standard(patches)

        def target(self, images):
            patches = self.patches(images)
            return self.normal(patches) if self.normalize else patches

        def ratio(self, mask_ratio):
            return self.default if mask_ratio is None else mask_ratio

        def draw(self, batch, count):
            return torch.rand(batch, count)

        def noise(self, noise, batch, count):
            return self.draw(batch, count) if noise is None else noise

        def seen(self, images, mask_ratio, noise):
            return images

        def decode(self, latent, mask, restore):
            return self.decoder(latent, restore)

        def loss(self, prediction, target, mask):
            return ((prediction - target).square().mean(-1) * mask).sum() / mask.sum()

        def finish(self, loss, prediction, mask, images):
            return loss, prediction, mask

        def forward(self, images, mask_ratio=None, noise=None):
            target, mask_ratio = self.target(images), self.ratio(mask_ratio)
            noise = self.noise(noise, *target.shape[:2])
            latent, mask, restore = self.encoder(
                self.seen(images, mask_ratio, noise), mask_ratio, noise
            )
            prediction = self.decode(latent, mask, restore)
            return self.finish(self.loss(prediction, target, mask), prediction, mask, images)

    def of(**attributes):
        return changed(Right, **attributes)

    # The targets.

    targets = (
        "target = patchify(images, self.patch_size); if self.normalize: target = "
        "normalized_pixel_targets(target)."
    )
    yield (
        "The targets are never normalized, whatever normalize says.",
        of(flag=lambda self, normalize: False),
        targets,
    )
    yield (
        "The targets are always normalized, whatever normalize says.",
        of(flag=lambda self, normalize: True),
        targets,
    )
    yield (
        "normalize is inverted: with it, and by default, the targets are normalized.",
        of(flag=lambda self, normalize: not normalize),
        targets,
    )

    class PlainByDefault(Right):
        def __init__(self, *sizes):
            super().__init__(*sizes, *(() if len(sizes) == 12 else (False,)))

    yield (
        "normalize is False by default; it is True.",
        PlainByDefault,
        "Write normalize=True among the arguments of the constructor.",
    )

    def by_image(self, patches):
        mean, variance = patches.mean((1, 2), True), patches.var((1, 2), keepdim=True)
        return (patches - mean) / (variance + 1e-6).sqrt()

    yield (
        "The targets are normalized over the whole image; each patch is by itself.",
        of(normal=by_image),
        targets,
    )

    class PredictionToo(Right):
        def loss(self, prediction, target, mask):
            return super().loss(
                standard(prediction) if self.normalize else prediction, target, mask
            )

    yield (
        "The prediction is normalized too before it is compared; it is compared as it is.",
        PredictionToo,
        "loss = masked_patch_loss(prediction, target, mask).",
    )

    def channels_first(self, images):
        size = self.patch_size
        cut = images.unfold(2, size, size).unfold(3, size, size)
        return cut.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)

    yield (
        "The numbers of a target patch stand channel by channel; patchify orders them by (row, "
        "column, channel).",
        of(patches=channels_first),
        targets,
    )

    # The loss.

    hidden = "loss = masked_patch_loss(prediction, target, mask)."
    yield (
        "The loss is taken on all patches; only hidden ones count.",
        of(loss=lambda self, prediction, target, mask: (prediction - target).square().mean()),
        hidden,
    )
    yield (
        "The loss is taken on the visible patches; only hidden ones count.",
        of(loss=lambda self, prediction, target, mask: Right.loss(self, prediction, target, ~mask)),
        hidden,
    )
    yield (
        "There is a loss for each image or patch; the result is one number.",
        of(
            loss=lambda self, prediction, target, mask: (
                ((prediction - target).square().mean(-1) * mask).sum(1) / mask.sum(1)
            )
        ),
        hidden,
    )
    yield (
        "The loss is cut off from the parameters: it teaches nothing.",
        of(finish=lambda self, loss, prediction, mask, _: (loss.detach(), prediction, mask)),
        "Return the loss without detach() or item().",
    )
    yield (
        "The latent vectors are detached before the decoder: the encoder learns nothing.",
        of(decode=lambda self, latent, mask, restore: self.decoder(latent.detach(), restore)),
        "prediction = self.decoder(latent, restore).",
    )

    # Noise and ratio.

    draw = "if noise is None: noise = torch.rand(batch, patches, device=images.device), in forward."
    yield (
        "The noise that is given is not used.",
        of(noise=lambda self, noise, batch, count: self.draw(batch, count)),
        draw,
    )

    class Once(Right):
        def draw(self, batch, count):
            if not hasattr(self, "known"):
                self.known = torch.rand(batch, count)
            return self.known

    def seeded(self, batch, count):
        return torch.rand(batch, count, generator=torch.Generator().manual_seed(0))

    def seeding(self, batch, count):
        torch.default_generator.manual_seed(0)
        return torch.rand(batch, count)

    for same in (Once, of(draw=seeded), of(draw=seeding)):
        yield (
            "Every call hides the same: the noise is kept, has a fixed seed or comes from the "
            "image; each call draws anew.",
            same,
            draw + " Set no seed there.",
        )
    yield (
        "One row of noise is drawn for all images; each image has its own.",
        of(draw=lambda self, batch, count: torch.rand(1, count).expand(batch, -1)),
        draw,
    )

    def foreign(self, batch, count):
        generator = torch.Generator()
        generator.seed()
        return torch.rand(batch, count, generator=generator)

    yield (
        "The noise does not come from PyTorch's random numbers: torch.manual_seed has no say.",
        of(draw=foreign),
        draw,
    )
    yield (
        "Where no noise is given, nothing is drawn: the same patches are hidden in every image.",
        of(draw=lambda self, batch, count: (torch.arange(count) / count).expand(batch, -1)),
        draw,
    )
    ratio = "self.encoder(images, mask_ratio, noise), with mask_ratio=0.75 where none is given."
    yield (
        "mask_ratio is not used: the share that is hidden is always 0.75.",
        of(ratio=lambda self, mask_ratio: 0.75),
        ratio,
    )
    yield (
        "mask_ratio has another value by default; it is 0.75.",
        of(default=0.5),
        ratio,
    )
    yield (
        "The share mask_ratio is kept; it is to be hidden.",
        of(ratio=lambda self, mask_ratio: 0.25 if mask_ratio is None else 1 - mask_ratio),
        ratio,
    )

    class OnlyInTraining(Right):
        def ratio(self, mask_ratio):
            return super().ratio(mask_ratio) if self.training else 0.0

        def loss(self, prediction, target, mask):
            return super().loss(prediction, target, mask if mask.any() else ~mask)

    yield (
        "Patches are hidden in training mode only; the mask does not depend on the mode.",
        OnlyInTraining,
        "Leave self.training out of forward.",
    )

    # The parts.

    parts = "latent, mask, restore = self.encoder(...); prediction = self.decoder(latent, restore)."
    yield (
        "The decoder is built with the encoder's sizes.",
        of(sizes=lambda self, own, other: (own, own)),
        "The decoder's sizes are decoder_d_model, decoder_num_layers, decoder_num_heads and "
        "decoder_d_ff.",
    )
    yield (
        "The decoder has the encoder's number of heads.",
        of(sizes=lambda self, own, other: (own, (*other[:2], own[2], other[3]))),
        "Pass decoder_num_heads to the decoder.",
    )

    class OneChannel(Right):
        def patch_numbers(self, patch_size, channels):
            return patch_size**2

        def patches(self, images):
            return super().patches(images)[..., : self.patch_size**2]

    yield (
        "A predicted patch has no channels: patch_size * patch_size numbers.",
        OneChannel,
        "patch_numbers is patch_size * patch_size * channels.",
    )
    yield (
        "The decoder's number of patches is that of a square image.",
        of(
            count=lambda self, size, patch: (
                ((size if isinstance(size, int) else size[0]) // patch) ** 2
            )
        ),
        "(height // patch_size) * (width // patch_size), which the encoder knows: "
        "len(self.encoder.position) - 1.",
    )
    yield (
        "The class token's vector is cut off before the decoder, which takes the first visible "
        "patch for it.",
        of(decode=lambda self, latent, mask, restore: self.decoder(latent[:, 1:], restore)),
        parts,
    )
    yield (
        "The decoder gets shuffle in place of restore.",
        of(decode=lambda self, latent, mask, restore: self.decoder(latent, restore.argsort(dim=1))),
        parts,
    )

    class Blackened(Right):
        def seen(self, images, mask_ratio, noise):
            kept = int(noise.size(1) * (1 - mask_ratio))
            mask = noise.argsort(dim=1).argsort(dim=1) >= kept
            patches = patchify(images, self.patch_size) * ~mask[:, :, None]
            height, width = images.shape[2:]
            grid = height // self.patch_size, width // self.patch_size
            return unpatchify(patches, self.patch_size, self.channels, grid)

        def forward(self, images, mask_ratio=None, noise=None):
            target, mask_ratio = self.target(images), self.ratio(mask_ratio)
            noise = self.noise(noise, *target.shape[:2])
            _, mask, _ = self.encoder(images, mask_ratio, noise)
            black = self.seen(images, mask_ratio, noise)
            latent, _, restore = self.encoder(black, 0.0, noise)
            prediction = self.decoder(latent, restore)
            return self.loss(prediction, target, mask), prediction, mask

    yield (
        "The hidden patches are painted black, and the encoder sees all patches; hand it images "
        "and mask_ratio as they are.",
        Blackened,
        parts,
    )

    # The results.

    order = "Return loss, prediction, mask, in this order."
    yield (
        "prediction and mask change places in the result.",
        of(finish=lambda self, loss, prediction, mask, _: (loss, mask, prediction)),
        order,
    )
    yield (
        "The mask comes back inverted: True means hidden.",
        of(finish=lambda self, loss, prediction, mask, _: (loss, prediction, ~mask)),
        "Return the mask as the encoder gives it.",
    )

    def hidden_alone(self, loss, prediction, mask, images):
        return loss, prediction[mask].view(len(mask), -1, prediction.size(-1)), mask

    yield (
        "Only the predictions of the hidden patches come back; all are asked for.",
        of(finish=hidden_alone),
        "Return the decoder's prediction as it is.",
    )

    def pasted(self, loss, prediction, mask, images):
        return loss, torch.where(mask[:, :, None], prediction, self.target(images)), mask

    yield (
        "The visible patches of the prediction are replaced by those of the image; the prediction "
        "comes back as it is.",
        of(finish=pasted),
        "Return the decoder's prediction as it is.",
    )

    def in_pixels(self, loss, prediction, mask, images):
        patches = self.patches(images)
        if self.normalize:
            spread = (patches.var(-1, keepdim=True) + 1e-6).sqrt()
            prediction = prediction * spread + patches.mean(-1, True)
        return loss, prediction, mask

    yield (
        "The prediction is taken back to pixels with the patches' mean and spread; it comes back "
        "as it is.",
        of(finish=in_pixels),
        "Return the decoder's prediction as it is.",
    )

    def as_images(self, loss, prediction, mask, images):
        height, width = images.shape[2:]
        grid = height // self.patch_size, width // self.patch_size
        return loss, unpatchify(prediction, self.patch_size, self.channels, grid), mask

    yield (
        "The prediction comes back as images; it is (batch, patches, numbers).",
        of(finish=as_images),
        "Return the decoder's prediction as it is.",
    )

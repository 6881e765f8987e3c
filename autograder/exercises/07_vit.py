"""Chapter 7: the vision transformer. Dosovitskiy et al. 2021; Raghu et al. 2021."""

import torch
from torch import nn
from torch.nn import functional as F

from autograder.cases import (
    blocks_parameters,
    dropped_after_sublayers,
    dropped_inside_sublayers,
    half_of_a_sum,
    hand_on,
    in_both_precisions,
    misshapen,
    missing,
    numbers,
    own_parameters,
    patch_count,
    patch_parameters,
    pre_norm_parameters,
    refusal,
    silence,
)
from autograder.exercise import Exercise, Returned, near_answer


def numbered(*shape):
    """Numbers that say where they stand: 100, 10 and 1 times the place on the three axes."""
    hundreds, tens, ones = (torch.arange(size) for size in shape)
    return (100 * hundreds[:, None, None] + 10 * tens[:, None] + ones).float()


def thirds(make, *shape):
    """Values in float64 that a detour through float32 would change."""
    return make.normal(*shape, dtype=torch.float64) / 3


def refused(call, *arguments):
    """As refusal; where nothing is raised it says the shape of what comes back, too."""
    error, named = refusal(call, *arguments)
    if error == "nothing":
        error = f"nothing, and the shape is {tuple(call(*arguments).shape)}"
    return error, named


# ---- patchify ------------------------------------------------------------------------------

patchify = Exercise(
    "vit/patchify",
    points=3,
    signature="patchify(images, patch_size)",
    returns=[Returned("patches", "(batch, patches, patch_size * patch_size * channels)")],
)

# What cannot be cut, height and width and the side of a patch. Two of the areas are multiples of
# the patch's: to look at the area alone is not enough.
NOT_TO_BE_CUT = {"height": (6, 8, 4), "width": (8, 10, 4), "height and width": (6, 10, 4)}


@patchify.case(
    "an image whose numbers say where they stand",
    next_step="The number 132 stands in channel 1, row 3, column 2. The first patch is 0, 100, 1, "
    "101, 10, 110, 11, 111: row by row, and in each pixel all channels.",
)
def _(patchify, make):
    return {"patches": patchify(numbered(2, 4, 4)[None], 2)}


@patchify.case(
    "two images",
    weight=1.5,
    next_step="Reshape to (batch, channels, rows, P, columns, P); permute to (batch, rows, "
    "columns, P, P, channels); reshape. The batch stays in front all the time.",
)
def _(patchify, make):
    return {"patches": patchify(make.normal(2, 2, 4, 4), 2)}


@patchify.case(
    "images that are not square",
    next_step="rows = height // patch_size and columns = width // patch_size are two numbers.",
)
def _(patchify, make):
    return {
        "patches of a wide image": patchify(make.normal(1, 2, 2, 6), 2),
        "patches of a high image": patchify(make.normal(1, 1, 6, 2), 2),
    }


@patchify.case(
    "patches of one pixel, and a patch as large as the image",
    next_step="Axes of length 1 stay: no squeeze(). With patch_size 1 there is a patch for each "
    "pixel, and it holds that pixel's channels.",
)
def _(patchify, make):
    return {
        "patches of one pixel": patchify(make.normal(2, 3, 2, 3), 1),
        "a single patch": patchify(make.normal(1, 2, 3, 3), 3),
    }


@patchify.case(
    "gray images in patches of 3 x 3",
    weight=0.5,
    next_step="Read the number of channels off images.shape; 1 is one, too.",
)
def _(patchify, make):
    return {"patches": patchify(make.normal(2, 1, 3, 6), 3)}


@patchify.case(
    "sizes that cannot be cut",
    weight=1.5,
    next_step="Begin with: if height % patch_size or width % patch_size, raise a ValueError whose "
    "text has the height, the width and the patch size.",
)
def _(patchify, make):
    found, said = {}, True
    for what, (height, width, size) in NOT_TO_BE_CUT.items():
        error, named = refused(patchify, make.normal(1, 1, height, width), size)
        found[f"raised where {what} cannot be cut"] = error
        said &= {height, width, size} <= named
    return found | {"the errors name height, width and patch size": said}


@patchify.case(
    "a gradient",
    weight=0.5,
    next_step="Stay in torch: no detach(), no numpy. Training needs the way back to the pixels.",
)
def _(patchify, make):
    images = make.normal(1, 2, 2, 4, grad=True)
    return make.gradients("patches", patchify(images, 2), images=images)


@patchify.case(
    "float64 images that are views, left as they were",
    next_step="Go by the axes, not by the order in memory: reshape instead of view. Change nothing "
    "in images.",
)
def _(patchify, make):
    last = make.watch(thirds(make, 1, 2, 4, 2).permute(0, 3, 1, 2))
    part = make.watch(thirds(make, 1, 1, 2, 4)[..., ::2])
    return {
        "patches": patchify(last, 2),
        "patches of every other column": patchify(part, 2),
        "the images are unchanged": make.unchanged(),
    }


@patchify.case("bfloat16", weight=0.5, next_step="Return the dtype of images.")
def _(patchify, make):
    return {"patches": patchify(make.normal(1, 2, 4, 4, dtype=torch.bfloat16), 2)}


@patchify.case(
    "two calls with other numbers",
    weight=0.5,
    next_step="Compute from what is handed over, every time, and return a new tensor.",
)
def _(patchify, make):
    first, second = (patchify(make.normal(1, 2, 4, 4), 2) for _ in range(2))
    return {"patches of the first": first, "patches of the second": second}


@patchify.case("other sizes", hidden=True)
def _(patchify, make):
    return {"patches": patchify(make.normal(3, 4, 6, 9), 3)}


@near_answer
def refuse_uncut(height, width, size):
    """Raises what patchify raises."""
    if height % size or width % size:
        raise ValueError(f"{height} x {width} cannot be cut into {size} x {size}")


@near_answer
def cut(images, size, order="byxpqc", parts="ypxq"):
    """Patches with their axes in any order.

    b image, c channel, y and x row and column of a patch, p and q those of a pixel in it.
    """
    batch, channels, height, width = images.shape
    sizes = {"y": height // size, "p": size, "x": width // size, "q": size}
    split = images.reshape(batch, channels, *(sizes[part] for part in parts))
    split = split.permute(*(f"bc{parts}".index(axis) for axis in order))
    return split.reshape(batch, sizes["y"] * sizes["x"], size**2 * channels)


@patchify.misconceptions
def _():
    """Cutting images with one thing wrong at a time."""

    def cutting(
        order="byxpqc",
        parts="ypxq",
        refuse=refuse_uncut,
        before=lambda images, size: images,
        after=lambda patches, images, size: patches,
    ):
        def patchify(images, patch_size):
            refuse(images.size(2), images.size(3), patch_size)
            patches = cut(before(images, patch_size), patch_size, order, parts)
            return after(patches, images, patch_size)

        return patchify

    axes = (
        "Permute (batch, channels, rows, P, columns, P) to (batch, rows, columns, P, P, channels)."
    )
    for sentence, order in (
        (
            "The numbers of a patch come channel by channel, as F.unfold gives them; all channels "
            "of a pixel belong together.",
            "byxcpq",
        ),
        (
            "The pixels of a patch come column by column; they come row by row.",
            "byxqpc",
        ),
        (
            "The channels stand between row and column: within each row of a patch the numbers "
            "come channel by channel.",
            "byxpcq",
        ),
        (
            "The patches come column by column; reading order is row by row.",
            "bxypqc",
        ),
        (
            "Rows and columns change places throughout: patches and their pixels come column by "
            "column.",
            "bxyqpc",
        ),
        (
            "The numbers are only grouped anew by reshape: without permute a patch is not a square "
            "of the image.",
            "bcypxq",
        ),
        (
            "The channels stand before the patches: each vector holds numbers of one channel only.",
            "bcyxpq",
        ),
        (
            "The channels are moved to the end, but the rows and columns of a patch are not "
            "brought together: each vector holds pixels of a strip.",
            "bypxqc",
        ),
        (
            "The batch does not stay in front: a vector holds numbers of other images.",
            "yxbpqc",
        ),
    ):
        yield sentence, cutting(order), axes
    yield (
        "Height and width are cut as (P, rows) and (P, columns), so the pixels of a patch lie far "
        "apart in the image.",
        cutting(parts="pyqx"),
        "Neighboring rows belong to one patch: split the height into (rows, P), in this order.",
    )

    def as_channels_last(images, patch_size):
        refuse_uncut(images.size(1), images.size(2), patch_size)
        return cutting()(images.permute(0, 3, 1, 2), patch_size)

    yield (
        "The axes are read as (batch, height, width, channels); the channels come before the "
        "height.",
        as_channels_last,
        "batch, channels, height, width = images.shape.",
    )

    def overlapping(images, size):
        every = images.unfold(2, size, 1).unfold(3, size, 1)  # (b, c, rows, columns, P, P)
        return every.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)

    yield (
        "The patches overlap: there is one at every pixel.",
        cutting(after=lambda patches, images, size: overlapping(images, size)),
        "The step is patch_size, in F.unfold stride=patch_size.",
    )

    # The shape.

    shape = "Return (batch, patches, P * P * channels)."
    for sentence, after in (
        (
            "Rows and columns of patches are two axes; the result has one, of rows * columns.",
            lambda patches, images, size: patches.unflatten(1, (-1, images.size(3) // size)),
        ),
        (
            "A patch is still a small picture of several axes; each must be one vector.",
            lambda patches, images, size: patches.unflatten(2, (size, size, -1)),
        ),
        (
            "The patches are the last axis; they come before their numbers.",
            lambda patches, images, size: patches.mT,
        ),
        (
            "The patches of all images stand in one row: the axis of the batch is lost.",
            lambda patches, images, size: patches.flatten(0, 1),
        ),
        (
            "The batch is the second axis; it is the first.",
            lambda patches, images, size: patches.transpose(0, 1),
        ),
    ):
        yield sentence, cutting(after=after), shape
    yield (
        "What F.unfold gives comes back as it is: (batch, numbers, patches), channel by channel.",
        cutting("byxcpq", after=lambda patches, images, size: patches.mT),
        axes,
    )

    # The values.

    def normalized(patches):
        return (patches - patches.mean(-1, keepdim=True)) / patches.std(-1, keepdim=True)

    only = "patchify moves numbers and changes none."
    for sentence, change in (
        ("Each patch is normalized; patchify changes no value.", normalized),
        (
            "Values are cut to 0…1; patchify changes no value.",
            lambda p: p.clamp(0, 1),
        ),
        ("The result is float32, whatever the images are.", lambda p: p.float()),
    ):
        yield (
            sentence,
            cutting(after=lambda patches, images, size, change=change: change(patches)),
            only,
        )

    def in_place(patches, images, size):
        patches = patches.clone()
        images.data.neg_()
        return patches

    yield (
        "The images that were passed in are changed.",
        cutting(after=in_place),
        "Make new tensors: no name that ends in _, and no assignment to images[...].",
    )

    # What cannot be cut.

    first = "if height % patch_size or width % patch_size: raise ValueError(...)."

    def unchecked(height, width, size):
        pass

    yield (
        "Sizes that cannot be cut are not refused; reshape fails in its own words.",
        cutting(refuse=unchecked),
        first,
    )

    def cropped(images, size):
        height, width = images.shape[-2:]
        return images[..., : height // size * size, : width // size * size]

    def padded(images, size):
        height, width = images.shape[-2:]
        return F.pad(images, (0, -width % size, 0, -height % size))

    for sentence, before in (
        ("What cannot be cut is not refused: it is cropped or resized.", cropped),
        ("An image that cannot be cut is filled up in silence.", padded),
    ):
        yield sentence, cutting(refuse=unchecked, before=before), first

    def only_height(height, width, size):
        if height % size:
            raise ValueError(f"{height} x {width} cannot be cut into {size} x {size}")

    def only_width(height, width, size):
        if width % size:
            raise ValueError(f"{height} x {width} cannot be cut into {size} x {size}")

    for check, what, other in ((only_height, "height", "width"), (only_width, "width", "height")):
        for before in (cropped, lambda images, size: images):
            yield (
                f"Only the {what} is checked; the {other} must fit, too.",
                cutting(refuse=check, before=before),
                first,
            )

    def area(height, width, size):
        if height * width % size**2:
            raise ValueError(f"{height} x {width} cannot be cut into {size} x {size}")

    yield (
        "Only the number of pixels is checked; height and width must each be divisible.",
        cutting(refuse=area, before=cropped),
        first,
    )

    def asserting(height, width, size):
        assert height % size == 0, f"{height} x {width}, {size}"
        assert width % size == 0, f"{height} x {width}, {size}"

    yield (
        "An assert refuses what cannot be cut; the exercise asks for a ValueError.",
        cutting(refuse=asserting),
        first,
    )

    def saying(text):
        def check(height, width, size):
            if height % size or width % size:
                raise ValueError(text.format(height, width, size))

        return check

    for text in ("cannot be cut", "cannot be cut into {2}", "{0} x {1} cannot be cut"):
        yield (
            "The ValueError does not name height, width and patch size.",
            cutting(refuse=saying(text)),
            "Use an f-string with all three numbers.",
        )


# ---- unpatchify ----------------------------------------------------------------------------

unpatchify = Exercise(
    "vit/unpatchify",
    points=3,
    signature="unpatchify(patches, patch_size, channels, grid=None)",
    returns=[Returned("images", "(batch, channels, height, width)")],
)


@unpatchify.case(
    "patches whose numbers say where they belong",
    next_step="The number 231 belongs to patch 2, to its pixel 3, and to channel 1. Patches and "
    "pixels count row by row.",
)
def _(unpatchify, make):
    return {"images": unpatchify(numbered(4, 4, 2).flatten(1)[None], 2, 2)}


@unpatchify.case(
    "two images",
    weight=1.5,
    next_step="Reshape to (batch, rows, columns, P, P, channels); permute to (batch, channels, "
    "rows, P, columns, P); reshape. It is patchify, backward.",
)
def _(unpatchify, make):
    return {"images": unpatchify(make.normal(2, 4, 8), 2, 2)}


@unpatchify.case(
    "grids that are not square",
    next_step="rows, columns = grid, in this order. The height is rows * patch_size.",
)
def _(unpatchify, make):
    return {
        "images of 2 rows of 3": unpatchify(make.normal(1, 6, 8), 2, 2, (2, 3)),
        "images of 3 rows of 2": unpatchify(make.normal(1, 6, 8), 2, 2, (3, 2)),
    }


@unpatchify.case(
    "four patches in one row, and in one column",
    weight=0.5,
    next_step="Where a grid is given, it is the grid. Take the root of the number only where it is "
    "None.",
)
def _(unpatchify, make):
    return {
        "images of one row": unpatchify(make.normal(1, 4, 4), 2, 1, (1, 4)),
        "images of one column": unpatchify(make.normal(1, 4, 4), 2, 1, (4, 1)),
    }


@unpatchify.case(
    "patches of one pixel, and a single patch",
    next_step="Axes of length 1 stay: no squeeze().",
)
def _(unpatchify, make):
    return {
        "images of patches of one pixel": unpatchify(make.normal(2, 4, 3), 1, 3),
        "images of a single patch": unpatchify(make.normal(1, 1, 18), 3, 2),
    }


@unpatchify.case(
    "gray images of patches of 3 x 3",
    weight=0.5,
    next_step="The number of channels is an argument, and 1 is one, too.",
)
def _(unpatchify, make):
    return {"images": unpatchify(make.normal(2, 2, 9), 3, 1, (1, 2))}


@unpatchify.case(
    "a grid for another number of patches",
    next_step="if rows * columns != number of patches: raise a ValueError whose text has the "
    "number, rows and columns.",
)
def _(unpatchify, make):
    fewer, named = refused(unpatchify, make.normal(1, 13, 4), 2, 1, (3, 5))
    more, others = refused(unpatchify, make.normal(1, 12, 4), 2, 1, (2, 3))
    return {
        "raised for too few patches": fewer,
        "raised for too many patches": more,
        "the errors name the numbers": (13 in named and ({3, 5} <= named or 15 in named))
        and (12 in others and ({2, 3} <= others or 6 in others)),
    }


@unpatchify.case(
    "no grid, and a number of patches that is no square",
    next_step="math.isqrt rounds down: compare rows * columns with the number of patches here, "
    "too, and raise a ValueError that names it.",
)
def _(unpatchify, make):
    rectangle, named = refused(unpatchify, make.normal(1, 6, 4), 2, 1)
    prime, others = refused(unpatchify, make.normal(1, 17, 4), 2, 1)
    return {
        "raised for 6 patches": rectangle,
        "raised for 17 patches": prime,
        "the errors name the number": 6 in named and 17 in others,
    }


@unpatchify.case(
    "vectors of another length",
    next_step="if numbers != patch_size**2 * channels: raise a ValueError whose text has them.",
)
def _(unpatchify, make):
    # Twice as many: with a -1 somewhere in its shape, reshape finds a way.
    double, named = refused(unpatchify, make.normal(1, 4, 24), 2, 3)
    odd, others = refused(unpatchify, make.normal(1, 4, 7), 2, 3)
    return {
        "raised for twice as many numbers": double,
        "raised for 7 numbers": odd,
        "the errors name the numbers": 24 in named
        and 7 in others
        and all({2, 3} <= each or 12 in each for each in (named, others)),
    }


@unpatchify.case(
    "a gradient",
    weight=0.5,
    next_step="Stay in torch: no detach(), no numpy, no torch.tensor(...).",
)
def _(unpatchify, make):
    patches = make.normal(1, 4, 8, grad=True)
    return make.gradients("images", unpatchify(patches, 2, 2), patches=patches)


@unpatchify.case(
    "float64 patches that are views, left as they were",
    next_step="Go by the axes, not by the order in memory: reshape instead of view. Change nothing "
    "in patches.",
)
def _(unpatchify, make):
    turned = make.watch(thirds(make, 8, 4, 1).permute(2, 1, 0))
    part = make.watch(thirds(make, 1, 4, 8)[..., ::2])
    return {
        "images": unpatchify(turned, 2, 2),
        "images of every other number": unpatchify(part, 2, 1),
        "the patches are unchanged": make.unchanged(),
    }


@unpatchify.case("bfloat16", weight=0.5, next_step="Return the dtype of patches.")
def _(unpatchify, make):
    return {"images": unpatchify(make.normal(1, 4, 8, dtype=torch.bfloat16), 2, 2)}


@unpatchify.case(
    "two calls with other numbers",
    weight=0.5,
    next_step="Compute from what is handed over, every time, and return a new tensor.",
)
def _(unpatchify, make):
    first, second = (unpatchify(make.normal(1, 4, 8), 2, 2) for _ in range(2))
    return {"images of the first": first, "images of the second": second}


@unpatchify.case("other sizes", hidden=True)
def _(unpatchify, make):
    return {"images": unpatchify(make.normal(3, 8, 36), 3, 4, (2, 4))}


@unpatchify.misconceptions
def _():
    """Putting patches together with one thing wrong at a time."""

    def square(count, grid):
        return grid or (int(count**0.5), int(count**0.5))

    def fit(count, rows, columns):
        if rows * columns != count:
            raise ValueError(f"{count} patches, and a grid of {rows} x {columns}")

    def fill(numbers, size, channels):
        if numbers != size**2 * channels:
            raise ValueError(f"{numbers} numbers, not {size} x {size} x {channels}")

    # Axes: b image, c channel, y and x row and column of a patch, p and q those of a pixel in it.

    def joining(
        parts="yxpqc",
        order="bcypxq",
        layout=square,
        fit=fit,
        fill=fill,
        after=lambda images: images,
        batch_of=len,
    ):
        def unpatchify(patches, patch_size, channels, grid=None):
            rows, columns = layout(patches.size(1), grid)
            fit(patches.size(1), rows, columns)
            fill(patches.size(2), patch_size, channels)
            sizes = {"y": rows, "x": columns, "p": patch_size, "q": patch_size, "c": channels}
            cut = patches.reshape(batch_of(patches), *(sizes[part] for part in parts))
            cut = cut.permute(*(f"b{parts}".index(axis) for axis in order))
            return after(cut.reshape(-1, channels, rows * patch_size, columns * patch_size))

        return unpatchify

    axes = (
        "Reshape to (batch, rows, columns, P, P, channels), permute to (batch, channels, rows, P, "
        "columns, P), reshape."
    )
    for sentence, parts in (
        (
            "The numbers of a patch are read channel by channel, F.fold's order; they are in the "
            "order (row, column, channel).",
            "yxcpq",
        ),
        ("The pixels of a patch are read column by column; they stand row by row.", "yxqpc"),
        (
            "The channels are read between row and column of a pixel; they come last.",
            "yxpcq",
        ),
        ("The patches are laid out column by column; they are in reading order.", "xypqc"),
        (
            "Rows and columns change places throughout: patches and their pixels are laid out "
            "column by column.",
            "xyqpc",
        ),
    ):
        yield sentence, joining(parts), axes
    for sentence, order in (
        (
            "The numbers are only grouped anew by reshape: without permute no patch becomes a "
            "square of the image.",
            "byxpqc",
        ),
        (
            "The rows of a patch are not brought beside its row in the grid: permute puts rows and "
            "columns of patches first, and those of pixels behind them.",
            "bcyxpq",
        ),
        (
            "The pixel's row stands before the patch's: height is (P, rows) in place of (rows, P).",
            "bcpyqx",
        ),
    ):
        yield sentence, joining(order=order), axes

    # The shape.

    shape = "Return (batch, channels, height, width)."
    for sentence, after in (
        (
            "The channels come last in the result; they come before height and width.",
            lambda images: images.permute(0, 2, 3, 1),
        ),
        ("Height and width change places in the result.", lambda images: images.mT),
        ("Only the first image comes back.", lambda images: images[:1]),
        ("The axis of the batch is lost.", lambda images: images.flatten(0, 1)),
    ):
        yield sentence, joining(after=after), shape

    # The grid.

    given = "rows, columns = grid where it is given, else math.isqrt of the number of patches."

    def root(count, grid):
        return int(count**0.5), int(count**0.5)

    def covering(count):
        """Rows and columns for any number, as near to a square as it goes."""
        rows = next(n for n in range(int(count**0.5), 0, -1) if count % n == 0)
        return rows, count // rows

    for sentence, layout in (
        ("The grid is not used, or not as (rows, columns) of patches.", root),
        (
            "The grid is guessed from the number of patches; the one that is given is not used.",
            lambda count, grid: covering(count),
        ),
        (
            "The grid is read as (columns, rows); it is (rows, columns).",
            lambda count, grid: square(count, grid)[::-1],
        ),
        (
            "Without a grid all patches are put in one row; a square is asked for.",
            lambda count, grid: grid or (1, count),
        ),
        (
            "Without a grid all patches are put in one column; a square is asked for.",
            lambda count, grid: grid or (count, 1),
        ),
    ):
        yield sentence, joining(layout=layout), given

    def rounded(count):
        rows = int(count**0.5)
        return rows, count // rows

    for rectangle in (covering, rounded):
        yield (
            "Without a grid a number that is no square becomes a rectangle; it must be refused.",
            joining(layout=lambda count, grid, shape=rectangle: grid or shape(count)),
            given,
        )

    def rounding(patches, patch_size, channels, grid=None):
        if grid is None:
            side = int(patches.size(1) ** 0.5)
            patches, grid = patches[:, : side * side], (side, side)
        return joining()(patches, patch_size, channels, grid)

    yield (
        "Without a grid a number that is no square is rounded down, and patches are left out.",
        rounding,
        given,
    )

    # The values.

    only = "unpatchify moves numbers and changes none."
    for sentence, after in (
        (
            "Values are cut to 0…1; unpatchify changes no value.",
            lambda images: images.clamp(0, 1),
        ),
        ("The result is float32, whatever the patches are.", torch.Tensor.float),
    ):
        yield sentence, joining(after=after), only

    def in_place(patches, patch_size, channels, grid=None):
        images = joining()(patches, patch_size, channels, grid).clone()
        patches.data.neg_()
        return images

    yield (
        "The patches that were passed in are changed.",
        in_place,
        "Make new tensors: no name that ends in _, and no assignment to patches[...].",
    )

    # What does not fit.

    count_first = "if rows * columns != number of patches: raise ValueError(...)."
    length_first = "if numbers != patch_size**2 * channels: raise ValueError(...)."

    def silent(*_):
        pass

    for batch_of in (len, lambda patches: -1):
        yield (
            "Nothing is refused; reshape fails in its own words, or finds a shape of its own.",
            joining(fit=silent, fill=silent, batch_of=batch_of),
            f"{count_first} And {length_first}",
        )
        yield (
            "A number of patches that does not fill the grid is not refused.",
            joining(fit=silent, batch_of=batch_of),
            count_first,
        )
        yield (
            "Vectors of another length than P * P * channels are not refused.",
            joining(fill=silent, batch_of=batch_of),
            length_first,
        )

    def square_checked(patches, patch_size, channels, grid=None):
        put = joining(fit=silent) if grid else joining()
        return put(patches, patch_size, channels, grid)

    yield (
        "The number of patches is checked where there is no grid only; a grid that is given must "
        "fit, too.",
        square_checked,
        count_first,
    )

    def asserted_fit(count, rows, columns):
        assert rows * columns == count, f"{count}, {rows} x {columns}"

    def asserted_fill(numbers, size, channels):
        assert numbers == size**2 * channels, f"{numbers}, {size}, {channels}"

    yield (
        "An assert refuses what does not fit; the exercise asks for a ValueError.",
        joining(fit=asserted_fit, fill=asserted_fill),
        "if ...: raise ValueError(...).",
    )

    def speechless(call):
        def check(*arguments):
            try:
                call(*arguments)
            except ValueError:
                raise ValueError("it does not fit") from None

        return check

    yield (
        "The ValueErrors do not name the numbers.",
        joining(fit=speechless(fit), fill=speechless(fill)),
        "Use an f-string with the numbers that do not fit together.",
    )


# ---- patch embedding -----------------------------------------------------------------------

patch_embedding = Exercise(
    "vit/PatchEmbedding",
    points=3,
    signature="PatchEmbedding(patch_size, channels, d_model), forward(images)",
    returns=[Returned("embeddings", "(batch, patches, d_model)")],
    parameters=patch_parameters,
)


@patch_embedding.case(
    "the parameters",
    next_step="projection is an nn.Linear(patch_size * patch_size * channels, d_model) with bias, "
    "and there is nothing else.",
)
def _(patch_embedding, make):
    embed = patch_embedding(2, 3, 4)
    lacking = missing(embed, 2, 3, 4)
    # What lacks parameters is not called: what it does without them is no news.
    shape = "" if lacking else str(tuple(embed(make.normal(2, 3, 4, 6)).shape))
    return {
        "parameters that are missing": lacking,
        "parameters of another shape": misshapen(embed, 2, 3, 4),
        "numbers in all parameters": numbers(embed),
        "shape of the embeddings": shape,
    }


@patch_embedding.case(
    "two images",
    weight=1.5,
    next_step="return self.projection(patchify(images, self.patch_size)). If the check of patchify "
    "fails, mend that first.",
)
def _(patch_embedding, make):
    embed = make.module(patch_embedding, 2, 3, 4)
    return {"embeddings": embed(make.normal(2, 3, 4, 4))}


@patch_embedding.case(
    "patches of one pixel",
    next_step="With patch_size 1 the layer maps the channels of each pixel. If patchify is right, "
    "look at what stands behind it: nothing but the projection.",
)
def _(patch_embedding, make):
    # What patchify does inside a patch is no matter here.
    embed = make.module(patch_embedding, 1, 3, 4)
    return {"embeddings": embed(make.normal(2, 3, 1, 4))}


@patch_embedding.case(
    "images of other sizes, one after the other",
    next_step="The number of patches follows from each image; an embedding knows none.",
)
def _(patch_embedding, make):
    embed = make.module(patch_embedding, 2, 1, 3)
    return {
        "embeddings of a wide image": embed(make.normal(1, 1, 2, 6)),
        "embeddings of a high image": embed(make.normal(1, 1, 8, 2)),
    }


@patch_embedding.case(
    "black images",
    weight=0.5,
    next_step="Zeros become the bias of the projection, for every patch the same.",
)
def _(patch_embedding, make):
    embed = make.module(patch_embedding, 2, 3, 4)
    return {"embeddings": embed(torch.zeros(1, 3, 2, 6))}


@patch_embedding.case(
    "an image that is a single patch",
    weight=0.5,
    next_step="Axes of length 1 stay: no squeeze().",
)
def _(patch_embedding, make):
    embed = make.module(patch_embedding, 3, 1, 4)
    return {"embeddings": embed(make.normal(1, 1, 3, 3))}


@patch_embedding.case(
    "sizes that cannot be cut",
    next_step="patchify raises the ValueError; a convolution cuts the rest off in silence.",
)
def _(patch_embedding, make):
    found = {}
    for what, (height, width, size) in NOT_TO_BE_CUT.items():
        embed = make.module(patch_embedding, size, 1, 3)
        found[f"raised where {what} cannot be cut"], _ = refusal(
            embed, make.normal(1, 1, height, width)
        )
    return found


@patch_embedding.case(
    "gradients of images and parameters",
    next_step="Stay in torch: no detach(), no torch.no_grad(), and nothing is frozen.",
)
def _(patch_embedding, make):
    embed = make.module(patch_embedding, 2, 1, 3)
    images, own = make.normal(2, 1, 2, 4, grad=True), own_parameters(embed)
    layer = {name: own[name] for name in ("projection.weight", "projection.bias")}
    return make.gradients("embeddings", embed(images), images=images, **layer)


@patch_embedding.case(
    "float64 images that are views, left as they were",
    next_step="Go by the axes, not by the order in memory, and change nothing in images.",
)
def _(patch_embedding, make):
    embed = make.module(patch_embedding, 2, 3, 4, dtype=torch.float64)
    images = make.watch(thirds(make, 1, 4, 4, 3).permute(0, 3, 2, 1))
    return {"embeddings": embed(images), "the images are unchanged": make.unchanged()}


@patch_embedding.case("bfloat16", weight=0.5, next_step="Return the dtype of images.")
def _(patch_embedding, make):
    embed = make.module(patch_embedding, 2, 3, 4, dtype=torch.bfloat16)
    return in_both_precisions(embed, make.normal(1, 3, 2, 4, dtype=torch.bfloat16))


@patch_embedding.case("other sizes", hidden=True)
def _(patch_embedding, make):
    embed = make.module(patch_embedding, 4, 2, 6)
    return {"embeddings": embed(make.normal(3, 2, 8, 12))}


@patch_embedding.misconceptions
def _():
    """An embedding with one thing wrong at a time."""
    from workbook.ready.positions import sinusoidal_encoding

    def patches_of(images, size):
        refuse_uncut(images.size(2), images.size(3), size)
        return cut(images, size)

    def embedding(
        patches_of=patches_of,
        before=lambda self, images: images,
        project=lambda self, patches: self.projection(patches),
        after=lambda self, x, images: x,
        change=lambda self, patch_size, channels, d_model: None,
    ):
        class Embedding(nn.Module):
            def __init__(self, patch_size, channels, d_model):
                super().__init__()
                self.patch_size = patch_size
                self.projection = nn.Linear(patch_size**2 * channels, d_model)
                change(self, patch_size, channels, d_model)

            def forward(self, images):
                patches = patches_of(before(self, images), self.patch_size)
                return after(self, project(self, patches), images)

        return Embedding

    # The order.

    mend = "Use your patchify: self.projection(patchify(images, self.patch_size))."

    def cut_by(order):
        def patches_of(images, size):
            refuse_uncut(images.size(2), images.size(3), size)
            return cut(images, size, order)

        return patches_of

    for sentence, order in (
        (
            "The numbers of a patch are flattened channel by channel, as F.unfold and the weight "
            "of a convolution have them; patchify puts the channels last.",
            "byxcpq",
        ),
        ("The pixels of a patch are flattened column by column.", "byxqpc"),
        ("The patches come column by column; they come in reading order.", "bxypqc"),
        (
            "Rows and columns change places throughout: patches and their pixels come column by "
            "column.",
            "bxyqpc",
        ),
        ("The images are only grouped anew by reshape; patches are squares of them.", "bcypxq"),
    ):
        yield sentence, embedding(cut_by(order)), mend

    # The layers.

    alone = "projection is the only layer. " + mend

    class Convolution(nn.Module):
        def __init__(self, patch_size, channels, d_model):
            super().__init__()
            self.patch_size = patch_size
            self.projection = nn.Conv2d(channels, d_model, patch_size, stride=patch_size)

        def forward(self, images):
            return self.projection(images).flatten(2).mT

    yield (
        "projection is an nn.Conv2d, whose weight has four axes; it is an nn.Linear on the "
        "patches.",
        Convolution,
        "self.projection = nn.Linear(patch_size * patch_size * channels, d_model).",
    )

    def per_pixel(self, patch_size, channels, d_model):
        self.projection = nn.Linear(channels, d_model)

    yield (
        "projection maps single pixels; it maps whole patches.",
        embedding(
            project=lambda self, p: self.projection(
                p.unflatten(2, (-1, self.projection.in_features))
            ).mean(2),
            change=per_pixel,
        ),
        "nn.Linear(patch_size * patch_size * channels, d_model).",
    )

    def without_bias(self, patch_size, channels, d_model):
        self.projection.bias = None

    yield (
        "projection has no bias.",
        embedding(change=without_bias),
        "Leave bias=True, the default of nn.Linear.",
    )

    def named_otherwise(self, patch_size, channels, d_model):
        self.proj = self.projection
        del self.projection

    yield (
        "The layer is not named projection.",
        embedding(project=lambda self, p: self.proj(p), change=named_otherwise),
        "Name it as the exercise does: self.projection.",
    )

    def normed(self, patch_size, channels, d_model):
        self.norm = nn.LayerNorm(d_model)

    def normed_before(self, patch_size, channels, d_model):
        self.norm = nn.LayerNorm(patch_size**2 * channels)

    for project, change in (
        (lambda self, p: self.norm(self.projection(p)), normed),
        (lambda self, p: self.projection(self.norm(p)), normed_before),
    ):
        yield (
            "There is a LayerNorm beside the projection; here it stands alone.",
            embedding(project=project, change=change),
            alone,
        )
    for sentence, project in (
        (
            "A nonlinearity stands behind the projection; the map is linear.",
            lambda self, p: F.gelu(self.projection(p)),
        ),
        (
            "A nonlinearity stands behind the projection; the map is linear.",
            lambda self, p: torch.relu(self.projection(p)),
        ),
        (
            "The embeddings are multiplied by the square root of d_model; here they stay as they "
            "are.",
            lambda self, p: self.projection(p) * self.projection.out_features**0.5,
        ),
        (
            "Each patch is normalized before it is projected.",
            lambda self, p: self.projection(F.layer_norm(p, p.shape[-1:])),
        ),
        (
            "Dropout acts on the embeddings; it belongs to the model, after the positions.",
            lambda self, p: F.dropout(self.projection(p), 0.1, self.training),
        ),
    ):
        yield sentence, embedding(project=project), alone
    yield (
        "The pixels are divided by 255; the images are taken as they are.",
        embedding(before=lambda self, images: images / 255),
        mend,
    )

    # What is added.

    model = "The class token and the positions belong to VisionTransformer. " + mend
    yield (
        "Positions are added here; they belong to the model.",
        embedding(
            after=lambda self, x, images: x + sinusoidal_encoding(x.size(1), x.size(2)).to(x)
        ),
        model,
    )
    yield (
        "A class token is put in front here; it belongs to the model.",
        embedding(after=lambda self, x, images: F.pad(x, (0, 0, 1, 0))),
        model,
    )

    # The shape and the dtype.

    shape = "Return (batch, patches, d_model)."
    for sentence, after in (
        (
            "The vectors come as (batch, d_model, patches); the patches come before d_model.",
            lambda self, x, images: x.mT,
        ),
        (
            "Rows and columns of patches are two axes; the result has one, of rows * columns.",
            lambda self, x, images: x.unflatten(1, (images.size(2) // self.patch_size, -1)),
        ),
        (
            "The vectors of all patches are averaged; each patch has its own.",
            lambda self, x, images: x.mean(1),
        ),
        ("Only the first image is embedded.", lambda self, x, images: x[:1]),
        (
            "The result is float32, whatever the images are.",
            lambda self, x, images: x.float(),
        ),
    ):
        yield sentence, embedding(after=after), shape

    def in_place(self, images):
        images.data.sub_(images.mean())
        return images

    yield (
        "The images that were passed in are changed.",
        embedding(before=in_place),
        "Make new tensors: no name that ends in _, and no assignment to images[...].",
    )

    # What cannot be cut.

    def cropped(images, size):
        height, width = images.shape[-2:]
        return cut(images[..., : height // size * size, : width // size * size], size)

    yield (
        "What cannot be cut is not refused: it is cropped, filled up or resized.",
        embedding(cropped),
        mend + " It raises the ValueError.",
    )

    def asserting(images, size):
        assert images.size(2) % size == images.size(3) % size == 0
        return cut(images, size)

    yield (
        "What cannot be cut is refused with another error than ValueError.",
        embedding(asserting),
        mend + " It raises the ValueError.",
    )


# ---- ViT block -----------------------------------------------------------------------------


def vit_block_parameters(d_model, num_heads, d_ff, dropout=0.0):
    """The parameters of a block."""
    return pre_norm_parameters(d_model, d_ff)


vit_block = Exercise(
    "vit/ViTBlock",
    points=3,
    signature="ViTBlock(d_model, num_heads, d_ff, dropout=0.0), forward(x)",
    returns=[Returned("output", "(batch, length, d_model)")],
    without=["multi_head_attention", "_transformer_encoder_layer_fwd"],
    parameters=vit_block_parameters,
)


@vit_block.case(
    "the parameters",
    next_step="self_attn is a MultiHeadAttention, norm1 and norm2 are two nn.LayerNorm, w_1 leads "
    "to d_ff hidden numbers and w_2 back; all with bias, and nothing else.",
)
def _(vit_block, make):
    layer = vit_block(8, 2, 12)
    lacking = missing(layer, 8, 2, 12)
    # What lacks parameters is not called: what it does without them is no news.
    shape = "" if lacking else str(tuple(layer(make.normal(2, 3, 8)).shape))
    return {
        "parameters that are missing": lacking,
        "parameters of another shape": misshapen(layer, 8, 2, 12),
        "numbers in all parameters": numbers(layer),
        "shape of the output": shape,
    }


@vit_block.case(
    "two sequences of three positions",
    next_step="y = x + self_attn(n, n, n)[0] with n = norm1(x); then y + w_2(gelu(w_1(norm2(y)))).",
)
def _(vit_block, make):
    layer = make.module(vit_block, 8, 2, 12)
    return {"output": layer(make.normal(2, 3, 8))}


@vit_block.case(
    "one position, and a block of one head",
    weight=0.5,
    next_step="Keep axes of length 1, no squeeze(), and pass num_heads on to the attention.",
)
def _(vit_block, make):
    one, many = make.module(vit_block, 4, 1, 6), make.module(vit_block, 4, 4, 6)
    return {
        "output at one position": many(make.normal(1, 1, 4)),
        "output of one head": one(make.normal(1, 3, 4)),
    }


@vit_block.case(
    "the attention alone: w_2 gives 0",
    next_step="What is left is x + self_attn(n, n, n)[0] with n = norm1(x): query, key and value "
    "are all the normalized x, and what is added is x itself.",
)
def _(vit_block, make):
    layer = make.module(vit_block, 8, 2, 12)
    silence(layer, "w_2")
    return {"output": layer(make.normal(1, 3, 8))}


@vit_block.case(
    "the network alone, magnified: w_o gives 0",
    next_step="What is left is x + w_2(gelu(w_1(norm2(x)))). Values that are off by a few percent "
    "or less: the GELU is the exact one, F.gelu(z).",
)
def _(vit_block, make):
    layer = make.module(vit_block, 8, 2, 12)
    silence(layer, "w_o")
    with torch.no_grad():
        own_parameters(layer)["w_2.weight"].mul_(30)
    return {"output": layer(make.normal(1, 3, 8))}


@vit_block.case(
    "sublayers that each give a constant",
    next_step="x itself goes through a pre-norm block, and the sublayers add to it: no norm stands "
    "on the way from x to the output.",
)
def _(vit_block, make):
    layer = make.module(vit_block, 8, 2, 12)
    silence(layer, "w_o", "w_2")
    own = own_parameters(layer)
    with torch.no_grad():
        for name in ("self_attn.w_o.bias", "w_2.bias"):
            own[name].copy_(make.normal(8))
    return {"output": layer(make.normal(1, 3, 8))}


@vit_block.case(
    "any position changes: all outputs change",
    next_step="Call self.self_attn(n, n, n) without a mask: every patch reads every patch.",
)
def _(vit_block, make):
    layer = make.module(vit_block, 8, 2, 12)
    x, before = make.normal(1, 4, 8), []
    for position in range(4):
        other = x.clone()
        other[:, position] = make.normal(8)
        change = (layer(other) - layer(x.clone())).abs().amax(dim=(0, 2))
        before.append("".join("x" if size > 1e-4 else "-" for size in change.tolist()))
    return {
        "which outputs each position changes": ", ".join(before),
        "output": layer(x.clone()),
    }


@vit_block.case(
    "vectors of small variance",
    weight=0.5,
    next_step="norm1 and norm2 are nn.LayerNorm(d_model, eps=1e-6). PyTorch's own default is 1e-5.",
)
def _(vit_block, make):
    layer = make.module(vit_block, 8, 2, 12)
    silence(layer, "w_2")
    first = layer(make.normal(1, 2, 8, scale=0.003))
    layer = make.module(vit_block, 8, 2, 12)
    silence(layer, "w_o")
    return {"after norm1": first, "after norm2": layer(make.normal(1, 2, 8, scale=0.003))}


@vit_block.case(
    "dropout in evaluation mode, where it does nothing",
    next_step="Make each dropout an nn.Dropout in __init__, which eval() switches off.",
)
def _(vit_block, make):
    layer = make.module(vit_block, 8, 2, 12, 1.0)
    layer.component.eval()
    return {"output": layer(make.normal(1, 3, 8))}


@vit_block.case(
    "dropout of everything, in training mode",
    next_step="Dropout acts on what each sublayer gives, before x is added. If all is dropped, x "
    "is left.",
)
def _(vit_block, make):
    layer = make.module(vit_block, 8, 2, 12, 1.0)
    return {"output": layer(make.normal(1, 3, 8))}


@vit_block.case(
    "dropout of a quarter and of a half, in training mode",
    weight=0.5,
    next_step="x + dropout(sublayer(...)), and the rate goes to self_attn, too, which drops "
    "weights. The network drops nothing between w_1 and w_2.",
)
def _(vit_block, make):
    quarter, half = make.module(vit_block, 8, 2, 12, 0.25), make.module(vit_block, 8, 1, 12, 0.5)
    return dropped_after_sublayers(quarter, make.normal(40, 5, 8), 0.25) | dropped_inside_sublayers(
        half, make.normal(400, 1, 8)
    )


@vit_block.case(
    "gradients of input and parameters",
    next_step="Both sublayers, both norms and both residual connections take part.",
)
def _(vit_block, make):
    layer = make.module(vit_block, 4, 2, 6)
    x, own = make.normal(1, 3, 4, grad=True), own_parameters(layer)
    names = ("self_attn.w_v.bias", "norm2.weight")
    return make.gradients("output", layer(x), x=x, **{name: own[name] for name in names})


@vit_block.case(
    "float64 inputs that are views, left as they were",
    next_step="Stay in the dtype of x, and write x = x + y, not x += y.",
)
def _(vit_block, make):
    layer = make.module(vit_block, 4, 2, 6, dtype=torch.float64)
    x = make.normal(3, 4, 1, dtype=torch.float64)
    return {"output": layer(x.permute(2, 0, 1)), "the input is unchanged": make.unchanged()}


@vit_block.case("bfloat16", weight=0.5, next_step="Return the dtype of x.")
def _(vit_block, make):
    layer = make.module(vit_block, 8, 2, 12, dtype=torch.bfloat16)
    return in_both_precisions(layer, make.normal(1, 3, 8, dtype=torch.bfloat16))


@vit_block.case(
    "twelve positions, one of them all zeros, in memory that is turned",
    weight=0.5,
    next_step="Every position reads every position, near or far, zeros too; reshape where a view "
    "does not go.",
)
def _(vit_block, make):
    layer = make.module(vit_block, 8, 2, 12)
    x = make.normal(12, 2, 8)
    x[5] = 0
    return {"output": layer(make.watch(x).transpose(0, 1))}


@vit_block.case("other sizes", hidden=True)
def _(vit_block, make):
    layer = make.module(vit_block, 12, 3, 20)
    return {"output": layer(make.normal(3, 6, 12))}


@vit_block.misconceptions
def _():
    """A block with one thing wrong at a time."""
    from autograder.slips import block, of_pre_norm, quick_gelu
    from workbook.ready.attention import causal_mask

    yield from of_pre_norm(block, "ViT", "self_attn(n, n, n)")
    for sentence, eps in (
        ("The norms have PyTorch's eps, 1e-5; ViT's is 1e-6.", 1e-5),
        ("The norms have BERT's eps, 1e-12; ViT's is 1e-6.", 1e-12),
    ):
        yield (
            sentence,
            block(norm=lambda d_model, eps=eps: nn.LayerNorm(d_model, eps=eps)),
            "nn.LayerNorm(d_model, eps=1e-6), for both.",
        )
    for sentence, bend in (
        (
            "This is the GELU with tanh, GPT-2's; ViT has the exact one.",
            lambda z: F.gelu(z, approximate="tanh"),
        ),
        ("A ReLU stands between w_1 and w_2; ViT has a GELU.", torch.relu),
        (
            "This is an approximation of the GELU, with a sigmoid; ViT has the exact one.",
            quick_gelu,
        ),
        ("Nothing stands between w_1 and w_2; there must be a GELU.", lambda z: z),
    ):
        yield sentence, block(bend=bend), "F.gelu(self.w_1(...)), with its defaults."
    yield (
        "The hidden layer has 4 * d_model numbers; d_ff is not used.",
        block(width=lambda d_model, d_ff: 4 * d_model),
        "w_1 = nn.Linear(d_model, d_ff), w_2 = nn.Linear(d_ff, d_model).",
    )
    for sentence, mask in (
        (
            "The attention has a causal mask, GPT's; here every patch may read every patch.",
            causal_mask,
        ),
        (
            "A patch may not read itself.",
            lambda length: ~torch.eye(length, dtype=torch.bool),
        ),
        (
            "No patch may read the class token, position 0; nobody is barred.",
            lambda length: (torch.arange(length) > 0).expand(length, -1),
        ),
    ):
        yield sentence, block(mask=mask), "Call self.self_attn(n, n, n) without a mask."


# ---- vision transformer --------------------------------------------------------------------


def vision_transformer_parameters(
    image_size,
    patch_size,
    channels,
    num_classes,
    d_model,
    num_layers,
    num_heads,
    d_ff,
    dropout=0.0,
):
    """The parameters of the model: patches, class token, positions, blocks, last norm, head."""
    return {
        **patch_parameters(patch_size, channels, d_model, "patch."),
        "class_token": (d_model,),
        "position": (1 + patch_count(image_size, patch_size), d_model),
        **blocks_parameters(d_model, num_layers, d_ff),
        "head.weight": (num_classes, d_model),
        "head.bias": (num_classes,),
    }


vision_transformer = Exercise(
    "vit/VisionTransformer",
    points=5,
    signature="VisionTransformer(image_size, patch_size, channels, num_classes, d_model, "
    "num_layers, num_heads, d_ff, dropout=0.0), encode(images), forward(images)",
    returns=[Returned("logits", "(batch, num_classes)")],
    without=["multi_head_attention", "_transformer_encoder_layer_fwd"],
    parameters=vision_transformer_parameters,
)

ENCODED = Returned("encoded", "(batch, 1 + patches, d_model)")
EMBEDDINGS = ("patch.projection.weight", "patch.projection.bias", "class_token", "position")


def small_vit(
    vit,
    make,
    num_layers=1,
    dropout=0.0,
    image_size=(2, 2),
    patch_size=1,
    dtype=torch.float32,
    silent=True,
):
    """A model of width 8 for images of two channels, with three classes.

    A patch is one pixel: what patchify does inside of patches is no matter here. Nor is the order
    of height and width, where the image is square. Where the model is ``silent``, its blocks hand
    x on as it is.
    """
    sizes = image_size, patch_size, 2, 3, 8, num_layers, 2, 12, dropout
    model = make.module(vit, *sizes, dtype=dtype)
    if silent:
        hand_on(model, *EMBEDDINGS)
    return model


@vision_transformer.case(
    "the parameters",
    next_step="patch is a PatchEmbedding, class_token and position are nn.Parameter with the "
    "shapes of the table, blocks is an nn.ModuleList of num_layers ViTBlock, norm is an "
    "nn.LayerNorm, head an nn.Linear; and there is nothing else.",
)
def _(vit, make):
    sizes = (4, 4), 2, 3, 5, 8
    model, larger = vit(*sizes, 1, 2, 12), vit(*sizes, 3, 2, 12)
    lacking = missing(larger, *sizes, 3, 2, 12)
    # What lacks parameters is not called: what it does without them is no news.
    shape = "" if lacking else str(tuple(model(make.normal(2, 3, 4, 4)).shape))
    return {
        "parameters that are missing": lacking,
        "parameters of another shape": misshapen(larger, *sizes, 3, 2, 12),
        "numbers with one block": numbers(model),
        "numbers with three blocks": numbers(larger),
        "shape of the logits": shape,
    }


@vision_transformer.case(
    "encode, around blocks that hand x on as it is",
    weight=1.5,
    next_step="x is the class token, then the patches, plus position, row by row. At the end the "
    "norm, for all positions.",
)
def _(vit, make):
    model = small_vit(vit, make)
    return {"encoded": model.method("encode", ENCODED)(make.normal(2, 2, 2, 2))}


@vision_transformer.case(
    "logits, around blocks that hand x on as it is",
    weight=1.5,
    next_step="return self.head(self.encode(images)[:, 0]). With blocks that change nothing, the "
    "class token has read no patch: all images get the same logits.",
)
def _(vit, make):
    model = small_vit(vit, make)
    return {"logits": model(make.normal(2, 2, 2, 2))}


@vision_transformer.case(
    "blocks that each add a constant",
    next_step="x = block(x) for every block in self.blocks, once each; then the norm, once.",
)
def _(vit, make):
    model = small_vit(vit, make, num_layers=3)
    own = own_parameters(model)
    with torch.no_grad():
        for i in range(3):
            # Whatever the sublayers read, they now give these numbers.
            own[f"blocks.{i}.self_attn.w_o.bias"].copy_(make.normal(8))
            own[f"blocks.{i}.w_2.bias"].copy_(make.normal(8))
    images = make.normal(1, 2, 2, 2)
    return {
        "encoded": model.method("encode", ENCODED)(images.clone()),
        "logits": model(images.clone()),
    }


@vision_transformer.case(
    "two blocks",
    next_step="If the check of PatchEmbedding or ViTBlock fails, mend that first. Then: the blocks "
    "one after the other, in their order, and the norm after the last.",
)
def _(vit, make):
    model = small_vit(vit, make, num_layers=2, image_size=(4, 4), patch_size=2, silent=False)
    images = make.normal(1, 2, 4, 4)
    return {
        "logits": model(images.clone()),
        "the first of encoded": model.method("encode", ENCODED)(images.clone())[:, :2],
    }


@vision_transformer.case(
    "squares by one number, and pairs of height and width",
    next_step="if isinstance(image_size, int): image_size = (image_size, image_size). A pair is "
    "(height, width).",
)
def _(vit, make):
    found = {}
    for image_size, height, width in ((2, 2, 2), ((1, 4), 1, 4), ((3, 1), 3, 1)):
        model = small_vit(vit, make, image_size=image_size)
        images = make.normal(1, 2, height, width)
        error, _ = refusal(model, images.clone())
        found[f"raised for image_size {image_size}"] = error
        if error == "nothing":
            found[f"logits, image_size {image_size}"] = model(images)
    return found


@vision_transformer.case(
    "an image_size that cannot be cut",
    weight=0.5,
    next_step="In __init__: if height % patch_size or width % patch_size, raise a ValueError.",
)
def _(vit, make):
    return {
        f"raised for image_size {image_size} and patch_size 4": refusal(
            vit, image_size, 4, 1, 2, 4, 1, 1, 4
        )[0]
        for image_size in (10, (6, 8), (8, 10))
    }


@vision_transformer.case(
    "images of another size",
    next_step="Begin encode with: if the height and width of images are not image_size, raise a "
    "ValueError that names both sizes. As many patches are not yet the same size.",
)
def _(vit, make):
    model = small_vit(vit, make, image_size=(12, 20), patch_size=4)
    encode, found, said = model.method("encode", ENCODED), {}, True
    found["raised for images of 12 x 20"] = refusal(model, make.normal(1, 2, 12, 20))[0]
    for height, width in ((20, 12), (12, 40), (36, 20), (8, 20)):
        images = make.normal(1, 2, height, width)
        # In training and in evaluation, in turn.
        model.component.train(width == 20)
        for name, call in (("forward", model), ("encode", encode)):
            error, named = refused(call, images)
            found[f"raised by {name} for images of {height} x {width}"] = error
            said &= {12, 20, height, width} <= named
    return found | {"the errors name both sizes": said}


@vision_transformer.case(
    "dropout in evaluation mode, where it does nothing",
    next_step="Make each dropout an nn.Dropout in __init__, which eval() switches off.",
)
def _(vit, make):
    model = small_vit(vit, make, num_layers=2, dropout=1.0)
    whole = small_vit(vit, make, num_layers=2, dropout=1.0, silent=False)
    plain = small_vit(vit, make, num_layers=2, silent=False)
    for each in (model, whole, plain):
        each.component.eval()
    images = make.normal(1, 2, 2, 2)
    change = whole(images.clone()) - plain(images.clone())
    return {
        "logits": model(images),
        "how many logits dropout changes": int((change.abs() > 1e-4).sum()),
    }


@vision_transformer.case(
    "dropout of everything and of half, in training mode",
    next_step="x = self.dropout(x + self.position): one dropout, on the sum, the class token's "
    "included. And every block gets the rate. If all is dropped, the norm gets zeros.",
)
def _(vit, make):
    around, whole = (small_vit(vit, make, dropout=1.0, silent=silent) for silent in (True, False))
    images = make.normal(1, 2, 2, 2)
    of_everything = {
        "encoded, around silent blocks": around.method("encode", ENCODED)(images.clone()),
        "logits": whole(images.clone()),
    }
    model = small_vit(vit, make, dropout=0.5)
    own = own_parameters(model)
    with torch.no_grad():
        # Each sum of a vector and its position is 1, though neither is; and what the norm gives
        # is read off at the output.
        own["patch.projection.weight"].zero_()
        own["patch.projection.bias"].fill_(3.0)
        own["class_token"].fill_(-2.0)
        own["position"].fill_(-2.0)[0] = 3.0
        own["norm.weight"].fill_(1.0)
        own["norm.bias"].zero_()
        given = model.method("encode", ENCODED)(make.normal(60, 2, 2, 2))
    outputs, low = half_of_a_sum(given)
    own_ones = (low != low[:1]).any(dim=0).any(dim=-1).all()
    return of_everything | outputs | {"each image drops its own": bool(own_ones)}


@vision_transformer.case(
    "gradients",
    next_step="class_token and position are nn.Parameter: use them as they are. Hand x from block "
    "to block: no detach(), no torch.no_grad().",
)
def _(vit, make):
    model = small_vit(vit, make)
    own = own_parameters(model)
    encoded = model.method("encode", ENCODED)(make.normal(2, 2, 2, 2))
    names = ("class_token", "position", "norm.weight")
    gradients = make.gradients("encoding", encoded, **{name: own[name] for name in names})
    model = small_vit(vit, make, num_layers=2, silent=False)
    own, images = own_parameters(model), make.normal(2, 2, 2, 2, grad=True)
    asked = vision_transformer_parameters((2, 2), 1, 2, 3, 8, 2, 2, 12)
    parameters = {name: own[name] for name in asked}
    found = make.gradients("logits", model(images), images=images, **parameters)
    return gradients | {"images and parameters that get one": len(found)}


@vision_transformer.case(
    "vectors of small variance",
    weight=0.5,
    next_step="self.norm = nn.LayerNorm(d_model, eps=1e-6). PyTorch's own default is 1e-5.",
)
def _(vit, make):
    model = small_vit(vit, make)
    own = own_parameters(model)
    with torch.no_grad():
        for name in EMBEDDINGS:
            own[name].mul_(2e-4)
    return {"encoded": model.method("encode", ENCODED)(make.normal(1, 2, 2, 2))}


@vision_transformer.case(
    "float64 images that are views, and bfloat16",
    weight=0.5,
    next_step="The result has the dtype of images and parameters: make no float32 tensor on the "
    "way. Change nothing in images.",
)
def _(vit, make):
    long, short = (
        small_vit(vit, make, dtype=dtype, silent=long)
        for dtype, long in ((torch.float64, True), (torch.bfloat16, False))
    )
    images = make.watch(thirds(make, 2, 1, 2, 2).permute(1, 2, 3, 0))
    return {
        "encoded": long.method("encode", ENCODED)(images),
        "the images are unchanged": make.unchanged(),
        "dtype of bfloat16": str(short(images.bfloat16()).dtype),
    }


@vision_transformer.case(
    "two models, several batches: nothing is carried over",
    weight=0.5,
    next_step="Keep nothing from one call to the next, and let the class token follow the batch: "
    "self.class_token.expand(len(images), 1, -1).",
)
def _(vit, make):
    model, other = small_vit(vit, make), make.module(vit, 2, 1, 1, 2, 4, 1, 1, 4)
    model(make.normal(3, 2, 2, 2))
    other(make.normal(2, 1, 2, 2))
    return {
        "logits of one image": model(make.normal(1, 2, 2, 2)),
        "logits of four": model(make.normal(4, 2, 2, 2)),
    }


@vision_transformer.case(
    "the whole model, two images",
    weight=0.5,
    next_step="If the check of ViTBlock fails, mend that first: this model uses all of it.",
)
def _(vit, make):
    model = small_vit(vit, make, num_layers=2, dtype=torch.float64, silent=False)
    return {"logits": model(make.normal(2, 2, 2, 2, dtype=torch.float64))}


@vision_transformer.case("other sizes", hidden=True)
def _(vit, make):
    model = make.module(vit, (6, 9), 3, 3, 4, 12, 3, 3, 20)
    return {"logits": model(make.normal(3, 3, 6, 9))}


@vision_transformer.misconceptions
def _():
    """The model with one thing wrong at a time."""
    from workbook.ready.attention import causal_mask
    from workbook.ready.multi_head import MultiHeadAttention
    from workbook.ready.positions import sinusoidal_encoding

    class PatchEmbedding(nn.Module):
        def __init__(self, patch_size, channels, d_model):
            super().__init__()
            self.patch_size = patch_size
            self.projection = nn.Linear(patch_size**2 * channels, d_model)

        def forward(self, images):
            refuse_uncut(images.size(2), images.size(3), self.patch_size)
            return self.projection(cut(images, self.patch_size))

    class ViTBlock(nn.Module):
        def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
            super().__init__()
            self.self_attn = MultiHeadAttention(d_model, num_heads, dropout)
            self.norm1, self.norm2 = (nn.LayerNorm(d_model, eps=1e-6) for _ in range(2))
            self.w_1, self.w_2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
            self.dropout = nn.Dropout(dropout)

        def mask(self, length):
            return None

        def attend(self, x):
            return self.dropout(self.self_attn(x, x, x, self.mask(x.size(1)))[0])

        def transform(self, x):
            return self.dropout(self.w_2(F.gelu(self.w_1(x))))

        def forward(self, x):
            x = x + self.attend(self.norm1(x))
            return x + self.transform(self.norm2(x))

    class Right(nn.Module):
        block, eps = ViTBlock, 1e-6

        def __init__(
            self,
            image_size,
            patch_size,
            channels,
            num_classes,
            d_model,
            num_layers,
            num_heads,
            d_ff,
            dropout=0.0,
        ):
            super().__init__()
            self.image_size = self.read_size(image_size)
            self.cuttable(*self.image_size, patch_size)
            self.grid = tuple(side // patch_size for side in self.image_size)
            self.patch = PatchEmbedding(patch_size, channels, d_model)
            self.create_tables(self.grid[0] * self.grid[1], d_model)
            self.blocks = self.stack(num_layers, d_model, num_heads, d_ff, dropout)
            self.dropout = nn.Dropout(dropout)
            self.norm = nn.LayerNorm(d_model, eps=self.eps)
            self.head = nn.Linear(d_model, num_classes)
            self.more(d_model)

        def read_size(self, size):
            return (size, size) if isinstance(size, int) else tuple(size)

        def cuttable(self, height, width, size):
            refuse_uncut(height, width, size)

        def create_tables(self, patches, d_model):
            self.class_token = nn.Parameter(torch.zeros(d_model))
            self.position = nn.Parameter(torch.zeros(1 + patches, d_model))

        def stack(self, num_layers, *sizes):
            return nn.ModuleList(self.block(*sizes) for _ in range(num_layers))

        def more(self, d_model):
            pass

        def checked(self, images):
            if tuple(images.shape[-2:]) != self.image_size:
                raise ValueError(f"{tuple(images.shape[-2:])}, not {self.image_size}")
            return images

        def first(self, patches):
            return self.class_token.expand(len(patches), 1, -1)

        def tokens(self, patches):
            return torch.cat([self.first(patches), patches], dim=1)

        def add_places(self, x):
            return x + self.position

        def embed(self, images):
            return self.dropout(self.add_places(self.tokens(self.patch(images))))

        def run(self, x):
            for layer in self.blocks:
                x = layer(x)
            return x

        def last(self, x):
            return self.norm(x)

        def encode(self, images):
            return self.last(self.run(self.embed(self.checked(images))))

        def choose(self, encoded):
            return encoded[:, 0]

        def logits(self, x):
            return self.head(x)

        def forward(self, images):
            return self.logits(self.choose(self.encode(images)))

    def changed(**attributes):
        return type("Changed", (Right,), attributes)

    # The class token.

    front = (
        "x = torch.cat([self.class_token.expand(len(images), 1, -1), patches], dim=1): the class "
        "token first."
    )
    yield (
        "There is no class token: the logits are read from the mean of the patches.",
        changed(
            tokens=lambda self, patches: patches,
            add_places=lambda self, x: x + self.position[1:],
            choose=lambda self, encoded: encoded.mean(1),
        ),
        front,
    )
    yield (
        "The class token is put last; it comes first.",
        changed(
            tokens=lambda self, patches: torch.cat([patches, self.first(patches)], dim=1),
            choose=lambda self, encoded: encoded[:, -1],
        ),
        front,
    )
    yield (
        "The class token is added to every patch; it is a position of its own.",
        changed(
            tokens=lambda self, patches: torch.cat(
                [self.first(patches), patches + self.class_token], dim=1
            ),
        ),
        front,
    )

    def three_axes(self, patches, d_model):
        self.class_token = nn.Parameter(torch.zeros(1, 1, d_model))
        self.position = nn.Parameter(torch.zeros(1 + patches, d_model))

    def three_axes_each(self, patches, d_model):
        self.class_token = nn.Parameter(torch.zeros(1, 1, d_model))
        self.position = nn.Parameter(torch.zeros(1, 1 + patches, d_model))

    for create in (three_axes, three_axes_each):
        yield (
            "class_token has axes of length 1 in front; the exercise asks for (d_model,).",
            changed(create_tables=create),
            "class_token has the shape (d_model,), position (1 + patches, d_model).",
        )

    # The logits.

    read = "return self.head(self.encode(images)[:, 0])."
    for sentence, choose in (
        (
            "The logits are read from the mean of all positions; they are read from the class "
            "token.",
            lambda self, encoded: encoded.mean(1),
        ),
        (
            "The logits are read from the mean of the patches; they are read from the class token.",
            lambda self, encoded: encoded[:, 1:].mean(1),
        ),
        (
            "The logits are read from the last position; the class token is the first.",
            lambda self, encoded: encoded[:, -1],
        ),
        (
            "The head is applied to all positions; only the class token is asked.",
            lambda self, encoded: encoded,
        ),
    ):
        yield sentence, changed(choose=choose), read
    for sentence, logits in (
        (
            "What comes back are probabilities; the exercise asks for logits, without softmax.",
            lambda self, x: self.head(x).softmax(-1),
        ),
        (
            "A nonlinearity stands before the head.",
            lambda self, x: self.head(torch.relu(x)),
        ),
        (
            "The norm is applied twice, in encode and before the head.",
            lambda self, x: self.head(self.norm(x)),
        ),
    ):
        yield sentence, changed(logits=logits), read

    # The norm.

    norm = "encode ends with: return self.norm(x), for all positions."
    yield (
        "The last norm is missing: pre-norm blocks leave their sum as it is.",
        changed(last=lambda self, x: x),
        norm,
    )
    yield (
        "The last norm stands in forward; encode gives what it was before the norm.",
        changed(last=lambda self, x: x, logits=lambda self, x: self.head(self.norm(x))),
        norm,
    )
    yield (
        "Only the class token goes through the last norm; all positions do.",
        changed(last=lambda self, x: torch.cat([self.norm(x[:, :1]), x[:, 1:]], dim=1)),
        norm,
    )
    yield (
        "The norm stands before the blocks; it belongs after the last one.",
        changed(run=lambda self, x: Right.run(self, self.norm(x)), last=lambda self, x: x),
        norm,
    )

    def norm_each(self, x):
        for layer in self.blocks:
            x = self.norm(layer(x))
        return x

    yield (
        "The norm is applied after every block; it belongs after the last one alone.",
        changed(run=norm_each, last=lambda self, x: x),
        norm,
    )
    yield (
        "The last norm has PyTorch's eps, 1e-5; ViT's is 1e-6.",
        changed(eps=1e-5),
        "self.norm = nn.LayerNorm(d_model, eps=1e-6).",
    )

    # What encode gives.

    class Short(Right):
        def encode(self, images):
            return super().encode(images)[:, 0]

        def choose(self, encoded):
            return encoded

    class Patches(Right):
        def encode(self, images):
            return super().encode(images)[:, 1:]

        def forward(self, images):
            return self.head(Right.encode(self, images)[:, 0])

    for sentence, model in (
        ("encode gives the class token's vector alone; it gives all positions.", Short),
        ("encode gives the patches without the class token; it comes first.", Patches),
    ):
        yield sentence, model, "encode returns (batch, 1 + patches, d_model)."

    # The positions.

    places = "x = x + self.position, with the class token in front already."
    for sentence, add_places in (
        ("No positions are added.", lambda self, x: x),
        (
            "The class token gets no position; row 0 of the table is its own.",
            lambda self, x: x + F.pad(self.position[1:], (0, 0, 1, 0)),
        ),
        (
            "The patches get the rows of the table from 0 on; row 0 belongs to the class token, "
            "the patches begin with row 1.",
            lambda self, x: x + self.position.roll(1, 0),
        ),
        ("All positions get the same row of the table.", lambda self, x: x + self.position[:1]),
        (
            "The positions are sinusoids; ViT learns a table of them.",
            lambda self, x: x + sinusoidal_encoding(x.size(1), x.size(2)).to(x),
        ),
    ):
        yield sentence, changed(add_places=add_places), places

    def again(self, x):
        for layer in self.blocks:
            x = layer(x + self.position)
        return x

    yield (
        "The positions are added again before every block; they are added once.",
        changed(run=again),
        places,
    )

    def table_of_patches(self, patches, d_model):
        self.class_token = nn.Parameter(torch.zeros(d_model))
        self.position = nn.Parameter(torch.zeros(patches, d_model))

    yield (
        "position has a row for each patch, and none for the class token.",
        changed(
            create_tables=table_of_patches,
            add_places=lambda self, x: x + F.pad(self.position, (0, 0, 1, 0)),
        ),
        "self.position = nn.Parameter(0.02 * torch.randn(1 + patches, d_model)).",
    )

    # The sizes.

    pair = "if isinstance(image_size, int): image_size = (image_size, image_size)."
    yield (
        "The pair image_size is read as (width, height); it is (height, width).",
        changed(read_size=lambda self, size: Right.read_size(self, size)[::-1]),
        pair,
    )
    both = "if tuple(images.shape[-2:]) != self.image_size: raise a ValueError with both."

    def by_count(self, images):
        height, width = images.shape[-2:]
        if height * width != self.image_size[0] * self.image_size[1]:
            raise ValueError(f"{tuple(images.shape[-2:])}, not {self.image_size}")
        return images

    def asserting(self, images):
        assert tuple(images.shape[-2:]) == self.image_size
        return images

    def nameless(self, images):
        if tuple(images.shape[-2:]) != self.image_size:
            raise ValueError("images of another size")
        return images

    def one_named(self, images):
        if tuple(images.shape[-2:]) != self.image_size:
            raise ValueError(f"images of {self.image_size} are expected")
        return images

    for sentence, checked in (
        (
            "Images of another size are not refused; the sum with the positions fails, or does "
            "not.",
            lambda self, images: images,
        ),
        (
            "Only the number of pixels or patches is compared; height and width must both fit.",
            by_count,
        ),
        (
            "An assert refuses images of another size; the exercise asks for a ValueError.",
            asserting,
        ),
        ("The ValueError does not name both sizes.", nameless),
        ("The ValueError does not name both sizes.", one_named),
        (
            "Images of another size are not refused; they go through, resized perhaps.",
            lambda self, images: F.interpolate(images, self.image_size),
        ),
    ):
        yield sentence, changed(checked=checked), both

    class Flexible(Right):
        def checked(self, images):
            size = self.patch.patch_size
            self.new = images.size(2) // size, images.size(3) // size
            return images

        def add_places(self, x):
            picture = self.position[1:].T.reshape(1, -1, *self.grid)
            resized = F.interpolate(picture, size=self.new, mode="bicubic")[0].flatten(1).T
            return x + torch.cat([self.position[:1], resized])

    yield (
        "The positions are interpolated for images of another size; here the model refuses them.",
        Flexible,
        both,
    )

    def cuttable_by_assert(self, height, width, size):
        assert height % size == width % size == 0

    for cuttable in (lambda *_: None, cuttable_by_assert):
        yield (
            "An image_size that patch_size does not divide is not refused by a ValueError in the "
            "constructor.",
            changed(cuttable=cuttable),
            "if height % patch_size or width % patch_size: raise ValueError(...), in __init__.",
        )

    # The blocks.

    each = "nn.ModuleList(ViTBlock(d_model, num_heads, d_ff, dropout) for _ in range(num_layers))."
    yield (
        "One block is used num_layers times, with the same parameters: [block] * num_layers "
        "repeats the one object.",
        changed(stack=lambda self, count, *sizes: nn.ModuleList([ViTBlock(*sizes)] * count)),
        each,
    )
    yield (
        "The blocks are in a plain Python list, which hides them: their parameters do not learn.",
        changed(stack=lambda self, count, *sizes: [ViTBlock(*sizes) for _ in range(count)]),
        each,
    )
    for fixed in (1, 2):
        yield (
            "The number of blocks is fixed, whatever num_layers is.",
            changed(
                stack=lambda self, count, *sizes, fixed=fixed: Right.stack(self, fixed, *sizes)
            ),
            each,
        )

    def restart(self, x):
        for layer in self.blocks:
            last = layer(x)
        return last

    def backward(self, x):
        for layer in reversed(self.blocks):
            x = layer(x)
        return x

    def first_again(self, x):
        for _ in self.blocks:
            x = self.blocks[0](x)
        return x

    for sentence, run in (
        ("Every block starts from the embeddings, so that only the last one counts.", restart),
        ("The blocks run in the wrong order, the last one first.", backward),
        ("The first block runs again and again, and the others never.", first_again),
        ("Only the first block runs.", lambda self, x: self.blocks[0](x)),
        ("The blocks never run.", lambda self, x: x),
        (
            "Only the patches go through the blocks; the class token must read them there.",
            lambda self, x: torch.cat([x[:, :1], Right.run(self, x[:, 1:])], dim=1),
        ),
    ):
        yield sentence, changed(run=run), "for block in self.blocks: x = block(x)."

    def one_head(self, count, d_model, num_heads, *others):
        return Right.stack(self, count, d_model, 1, *others)

    yield "num_heads is not passed on to the blocks.", changed(stack=one_head), each

    class Causal(ViTBlock):
        def mask(self, length):
            return causal_mask(length)

    class PostNorm(ViTBlock):
        def forward(self, x):
            x = self.norm1(x + self.attend(x))
            return self.norm2(x + self.transform(x))

    mend = "Mend ViTBlock until its own check passes in full, then run this one again."
    for sentence, block in (
        (
            "The blocks have a causal mask: the class token, the first position, reads no patch.",
            Causal,
        ),
        ("The blocks are post-norm; ViT's are pre-norm.", PostNorm),
    ):
        yield sentence, changed(block=block), mend

    # Dropout.

    drop = "x = self.dropout(x + self.position)."

    def embedded(self, images):
        return self.tokens(self.patch(images))

    yield (
        "There is no dropout on the sum with the positions.",
        changed(embed=lambda self, images: self.add_places(embedded(self, images))),
        drop,
    )
    yield (
        "Dropout acts before the positions are added; it belongs on the sum.",
        changed(embed=lambda self, images: self.add_places(self.dropout(embedded(self, images)))),
        drop,
    )

    def patches_only(self, images):
        x = self.add_places(embedded(self, images))
        return torch.cat([x[:, :1], self.dropout(x[:, 1:])], dim=1)

    yield (
        "Dropout leaves the class token out; it acts on the whole sum.",
        changed(embed=patches_only),
        drop,
    )
    yield (
        "Dropout acts after the last norm, too; it belongs on the sum with the positions, and "
        "inside the blocks.",
        changed(last=lambda self, x: self.dropout(self.norm(x))),
        drop,
    )

    def never(self, count, *sizes):
        return Right.stack(self, count, *sizes[:-1], 0.0)

    yield "The dropout rate is not passed on to the blocks.", changed(stack=never), each

    def always(self, images):
        return F.dropout(self.add_places(embedded(self, images)), self.dropout.p)

    yield (
        "Dropout acts in evaluation mode too.",
        changed(embed=always),
        "Use nn.Dropout, or F.dropout with training=self.training.",
    )


# ---- interpolated positions ----------------------------------------------------------------

interpolate_positions = Exercise(
    "vit/interpolate_positions",
    points=4,
    signature="interpolate_positions(table, old_grid, new_grid)",
    returns=[Returned("table", "(1 + new rows * new columns, d_model)")],
)


@interpolate_positions.case(
    "a larger grid",
    weight=1.5,
    next_step="picture = table[1:].T.reshape(1, d_model, rows, columns); F.interpolate with "
    "size=new_grid, mode='bicubic', align_corners=False; then back, behind table[:1].",
)
def _(interpolate, make):
    return {"table": interpolate(make.normal(7, 2), (2, 3), (4, 5))}


@interpolate_positions.case(
    "a smaller grid",
    next_step="Leave F.interpolate's antialias as it is by default, False.",
)
def _(interpolate, make):
    return {"table": interpolate(make.normal(16, 2), (3, 5), (2, 2))}


@interpolate_positions.case(
    "another grid of as many patches",
    next_step="Both grids are (rows, columns), and the table is in reading order.",
)
def _(interpolate, make):
    return {
        "table, 2 x 3 to 3 x 2": interpolate(make.normal(7, 3), (2, 3), (3, 2)),
        "table, 1 x 4 to 2 x 2": interpolate(make.normal(5, 3), (1, 4), (2, 2)),
    }


@interpolate_positions.case(
    "equal grids, and equal positions",
    next_step="Where nothing is to be resized, what comes back shows the order of the rows: undo "
    "what you did to make a picture of them. What all patches share is theirs in every grid; the "
    "class token's row goes through as it is.",
)
def _(interpolate, make):
    first, others = make.normal(1, 3), make.normal(1, 3)
    return {
        "table, 2 x 3 to 2 x 3": interpolate(make.normal(7, 3), (2, 3), (2, 3)),
        "table, 1 x 1 to 1 x 1": interpolate(make.normal(2, 3), (1, 1), (1, 1)),
        "table of equal positions": interpolate(
            torch.cat([first, others.expand(6, 3)]), (2, 3), (3, 3)
        ),
    }


@interpolate_positions.case(
    "one row, one column, and vectors of one number",
    next_step="Axes of length 1 stay: no squeeze().",
)
def _(interpolate, make):
    return {
        "table, 1 x 3 to 1 x 5": interpolate(make.normal(4, 2), (1, 3), (1, 5)),
        "table, 3 x 1 to 2 x 1": interpolate(make.normal(4, 1), (3, 1), (2, 1)),
    }


@interpolate_positions.case(
    "11 columns to 15",
    weight=0.5,
    next_step="Give F.interpolate the size: with scale_factor=15 / 11 the result has 14 columns, "
    "for 15 / 11 * 11 is a little less than 15.",
)
def _(interpolate, make):
    return {"table": interpolate(make.normal(12, 1), (1, 11), (1, 15))}


@interpolate_positions.case(
    "a table that does not fit",
    next_step="Begin with: if len(table) != 1 + rows * columns, raise a ValueError with both "
    "numbers.",
)
def _(interpolate, make):
    found, said = {}, True
    for count, grid, new in ((15, (3, 5), (3, 5)), (18, (3, 5), (2, 2)), (9, (3, 5), (2, 4))):
        error, named = refusal(interpolate, make.normal(count, 2), grid, new)
        found[f"raised for {count} rows and a grid of 3 x 5"] = error
        said &= count in named and ({3, 5} <= named or bool({15, 16} & named))
    return found | {"the errors name both numbers": said}


@interpolate_positions.case(
    "a gradient",
    next_step="No detach(), no torch.no_grad(), and no nn.Parameter(...) around the result: the "
    "gradient must reach the table.",
)
def _(interpolate, make):
    table = make.normal(5, 2, grad=True)
    return make.gradients("result", interpolate(table, (2, 2), (3, 2)), table=table)


@interpolate_positions.case(
    "a float64 table that is a view, left as it was",
    next_step="Return the dtype of the table, use reshape instead of view, and change nothing in "
    "the table.",
)
def _(interpolate, make):
    table = make.watch(thirds(make, 2, 7).mT)
    result = interpolate(table, (3, 2), (2, 4))
    # In float32: libraries take a detour through it here, and no more is promised than the dtype.
    return {
        "dtype": str(result.dtype),
        "table": result.float(),
        "the table is unchanged": make.unchanged(),
    }


@interpolate_positions.case("bfloat16", weight=0.5, next_step="Return the dtype of the table.")
def _(interpolate, make):
    table = make.normal(7, 2, dtype=torch.bfloat16)
    short, long = (interpolate(t.clone(), (2, 3), (3, 4)) for t in (table, table.float()))
    # Right ways to compute differ by a percent or so in bfloat16: its values are not compared.
    return {
        "dtype": str(short.dtype),
        "values lie within 0.3 of those in float32": bool(
            short.shape == long.shape and (short.float() - long).abs().max() < 0.3
        ),
        "table in float32": long,
    }


@interpolate_positions.case(
    "two calls with other numbers",
    weight=0.5,
    next_step="Compute from what is handed over, every time, and return a new tensor.",
)
def _(interpolate, make):
    first, second = (interpolate(make.normal(5, 2), (2, 2), (3, 3)) for _ in range(2))
    return {"table of the first": first, "table of the second": second}


@interpolate_positions.case("other sizes", hidden=True)
def _(interpolate, make):
    return {"table": interpolate(make.normal(13, 3), (4, 3), (5, 7))}


@interpolate_positions.misconceptions
def _():
    """Resizing with one thing wrong at a time."""

    def fit(table, rows, columns):
        if len(table) != 1 + rows * columns:
            raise ValueError(f"{len(table)} rows, not 1 + {rows} x {columns}")

    def picture_of(rows_, grid):
        return rows_.T.reshape(1, -1, *grid)

    def bicubic(picture, grid):
        return F.interpolate(picture, size=grid, mode="bicubic", align_corners=False)

    def rows_of(picture):
        return picture[0].flatten(1).T

    def interpolation(
        fit=fit,
        before=lambda table: table,
        grids=lambda old, new: (old, new),
        picture=picture_of,
        resize=bicubic,
        flat=rows_of,
        join=lambda table, others: torch.cat([table[:1], others]),
    ):
        def interpolate(table, old_grid, new_grid):
            fit(table, *old_grid)
            table = before(table)
            old, new = grids(tuple(old_grid), tuple(new_grid))
            return join(table, flat(resize(picture(table[1:], old), new)))

        return interpolate

    # The resizing.

    call = "F.interpolate(picture, size=new_grid, mode='bicubic', align_corners=False)."

    def mode(**settings):
        return lambda picture, grid: F.interpolate(picture, size=grid, **settings)

    for sentence, resize in (
        (
            "The table is resized bilinearly; the exercise asks for bicubic.",
            mode(mode="bilinear", align_corners=False),
        ),
        (
            "Each new place gets the nearest old position; the exercise asks for bicubic.",
            mode(mode="nearest"),
        ),
        (
            "Each new place gets the nearest old position; the exercise asks for bicubic.",
            mode(mode="nearest-exact"),
        ),
        (
            "Old positions are averaged, as F.interpolate does with mode='area'; the exercise asks "
            "for bicubic.",
            mode(mode="area"),
        ),
        (
            "The corners are aligned: align_corners is True.",
            mode(mode="bicubic", align_corners=True),
        ),
        (
            "The picture is smoothed before it is made smaller: antialias is True.",
            mode(mode="bicubic", align_corners=False, antialias=True),
        ),
    ):
        yield sentence, interpolation(resize=resize), call

    def scaled(more):
        def resize(picture, grid):
            factors = tuple(
                (new + more) / old for new, old in zip(grid, picture.shape[-2:], strict=True)
            )
            return F.interpolate(picture, scale_factor=factors, mode="bicubic")

        return resize

    yield (
        "F.interpolate gets a scale_factor, and rounds the new size down where the factor is a "
        "little too small.",
        interpolation(resize=scaled(0.0)),
        call,
    )
    yield (
        "F.interpolate gets a scale_factor that is a little too large, which shifts the values.",
        interpolation(resize=scaled(0.1)),
        call,
    )

    def cropped(picture, grid):
        rows, columns = picture.shape[-2:]
        padding = (0, max(grid[1] - columns, 0), 0, max(grid[0] - rows, 0))
        return F.pad(picture, padding)[..., : grid[0], : grid[1]]

    yield (
        "The picture is not resized: it is cut, or zeros are put beside it.",
        interpolation(resize=cropped),
        call,
    )

    def in_line(rows_, grid):
        return rows_.T[None]

    for settings in ({"mode": "linear", "align_corners": False}, {"mode": "nearest"}):
        yield (
            "The positions are resized as one line; they are a picture of rows and columns.",
            interpolation(
                picture=in_line,
                resize=lambda line, grid, settings=settings: F.interpolate(
                    line, size=grid[0] * grid[1], **settings
                ),
            ),
            "Make a picture first: table[1:].T.reshape(1, -1, rows, columns).",
        )

    # The grids.

    order = "rows, columns = old_grid, and size=new_grid, without turning them around."
    for sentence, grids in (
        (
            "The old grid is read as (columns, rows); it is (rows, columns).",
            lambda old, new: (old[::-1], new),
        ),
        (
            "The new grid is read as (columns, rows); it is (rows, columns).",
            lambda old, new: (old, new[::-1]),
        ),
        (
            "Both grids are read as (columns, rows); they are (rows, columns).",
            lambda old, new: (old[::-1], new[::-1]),
        ),
        ("The table comes back as it was.", lambda old, new: (old, old)),
    ):
        yield sentence, interpolation(grids=grids), order

    # To a picture and back.

    turn = "table[1:].T.reshape(1, d_model, rows, columns): the axes change places, then split."
    yield (
        "The picture is made by a reshape alone, which mixes positions and columns: the table must "
        "be transposed first.",
        interpolation(picture=lambda rows_, grid: rows_.reshape(1, -1, *grid)),
        turn,
    )
    yield (
        "The resized picture is not transposed back: reshape alone mixes positions and columns.",
        interpolation(flat=lambda picture: picture.reshape(-1, picture.size(1))),
        "resized[0].flatten(1).T: (d_model, places) turned around.",
    )
    yield (
        "Neither on the way to the picture nor back the table is transposed: reshape alone mixes "
        "positions and columns.",
        interpolation(
            picture=lambda rows_, grid: rows_.reshape(1, -1, *grid),
            flat=lambda picture: picture.reshape(-1, picture.size(1)),
        ),
        turn,
    )
    yield (
        "The resized positions come column by column; reading order is row by row.",
        interpolation(flat=lambda picture: rows_of(picture.mT)),
        "Flatten (d_model, rows, columns) as it is.",
    )
    yield (
        "The result is (d_model, positions); positions are its rows.",
        interpolation(join=lambda table, others: torch.cat([table[:1], others]).T),
        turn,
    )

    # The class token.

    first = "return torch.cat([table[:1], resized positions])."
    for sentence, join in (
        ("The class token's row is lost.", lambda table, others: others),
        (
            "The class token's row is put last; it comes first.",
            lambda table, others: torch.cat([others, table[:1]]),
        ),
        (
            "The class token's row becomes zeros; it stays as it is.",
            lambda table, others: F.pad(others, (0, 0, 1, 0)),
        ),
        (
            "The class token's row becomes the mean of the others; it stays as it is.",
            lambda table, others: torch.cat([others.mean(0, keepdim=True), others]),
        ),
    ):
        yield sentence, interpolation(join=join), first

    def last_left_out(table, old_grid, new_grid):
        fit(table, *old_grid)
        others = rows_of(bicubic(picture_of(table[:-1], old_grid), new_grid))
        return torch.cat([table[-1:], others])

    def last_stays_last(table, old_grid, new_grid):
        return last_left_out(table, old_grid, new_grid).roll(-1, 0)

    for interpolate in (last_left_out, last_stays_last):
        yield (
            "The last row is taken for the class token's, and the first is resized; row 0 is the "
            "class token's.",
            interpolate,
            first,
        )

    def all_in_line(table, old_grid, new_grid):
        fit(table, *old_grid)
        size = 1 + new_grid[0] * new_grid[1]
        return F.interpolate(table.T[None], size=size, mode="linear")[0].T

    yield (
        "The class token's row is resized with the others; it stays as it is.",
        all_in_line,
        first,
    )

    # Gradient, dtype, input.

    flow = "Return the result of torch.cat as it is."
    yield (
        "The result is float32, whatever the table is.",
        interpolation(before=lambda table: table.float()),
        flow,
    )

    def in_place(table, others):
        result = torch.cat([table[:1], others])
        count = min(len(table), len(result))
        table.data[:count] = result.data[:count]
        return result

    yield (
        "The table that was passed in is changed.",
        interpolation(join=in_place),
        "Make a new tensor with torch.cat.",
    )

    # What does not fit.

    begin = "if len(table) != 1 + rows * columns: raise a ValueError with both numbers."

    def silent(table, rows, columns):
        pass

    yield (
        "A table that does not fit is not refused; reshape fails in its own words.",
        interpolation(fit=silent),
        begin,
    )

    def asserting(table, rows, columns):
        assert len(table) == 1 + rows * columns, f"{len(table)}, {rows} x {columns}"

    yield (
        "An assert refuses a table that does not fit; the exercise asks for a ValueError.",
        interpolation(fit=asserting),
        begin,
    )
    for text in ("the table does not fit", "the table has {0} rows"):

        def speechless(table, rows, columns, text=text):
            if len(table) != 1 + rows * columns:
                raise ValueError(text.format(len(table)))

        yield (
            "The ValueError does not name both numbers, the rows of the table and those that the "
            "grid has.",
            interpolation(fit=speechless),
            begin,
        )

    def too_few_only(table, rows, columns):
        if len(table) < 1 + rows * columns:
            raise ValueError(f"{len(table)} rows, not 1 + {rows} x {columns}")

    yield (
        "A table with too many rows is not refused.",
        interpolation(
            fit=too_few_only,
            picture=lambda rows_, grid: picture_of(rows_[: grid[0] * grid[1]], grid),
        ),
        begin,
    )


# ---- mean attention distance ---------------------------------------------------------------

mean_attention_distance = Exercise(
    "vit/mean_attention_distance",
    points=4,
    signature="mean_attention_distance(weights, grid, patch_size)",
    returns=[Returned("distance", "(heads,)")],
)


def with_class_token(make, among, share=0.25):
    """Weights of patches among themselves, (..., patches, patches), and the class token's.

    Each patch gives it its ``share``, a number or (..., patches, 1); it looks at random.
    """
    share = torch.as_tensor(share).expand(*among.shape[:-1], 1)
    rows = torch.cat([share, (1 - share) * among], dim=-1)
    own = make.normal(*among.shape[:-2], 1, among.shape[-1] + 1).softmax(-1)
    return make.watch(torch.cat([own, rows], dim=-2))


def random_weights(make, batch, heads, patches, dtype=torch.float32):
    """Attention weights of the class token and so many patches."""
    return make.watch(make.normal(batch, heads, 1 + patches, 1 + patches, dtype=dtype).softmax(-1))


def pixels(distance):
    """A result in float32: the exercise states no dtype."""
    return distance.float() if distance.is_floating_point() else distance


@mean_attention_distance.case(
    "three patches in a row",
    next_step="Patches of 4 pixels: the first looks at the third, 8 pixels away; the second at "
    "itself, 0; the third half at the first and half at the second, (8 + 4) / 2 = 6. The mean is "
    "14 / 3. What the class token gets and gives does not count.",
)
def _(distance, make):
    among = torch.tensor([[0, 0, 1.0], [0, 1, 0], [0.5, 0.5, 0]])
    return {"distance": pixels(distance(with_class_token(make, among[None, None]), (1, 3), 4))}


@mean_attention_distance.case(
    "two images, three heads",
    weight=1.5,
    next_step="Weigh the distances, sum over the keys, and take the mean over images and queries: "
    "one number for each head.",
)
def _(distance, make):
    return {"distance": pixels(distance(random_weights(make, 2, 3, 4), (2, 2), 4))}


@mean_attention_distance.case(
    "each patch looks at the opposite corner",
    next_step="The Euclidean distance of two patches that touch at a corner is patch_size times "
    "the root of 2.",
)
def _(distance, make):
    opposite = torch.eye(4).flip(0)[None, None]
    step = torch.eye(6)[[4, 5, 3, 0, 1, 2]][None, None]
    return {
        "distance in 2 x 2": pixels(distance(with_class_token(make, opposite), (2, 2), 5)),
        "distance in 2 x 3": pixels(distance(with_class_token(make, step), (2, 3), 5)),
    }


@mean_attention_distance.case(
    "images that are not square",
    next_step="Patch i stands in row i // columns and in column i % columns.",
)
def _(distance, make):
    return {
        "distance in 2 x 4": pixels(distance(random_weights(make, 2, 2, 8), (2, 4), 3)),
        "distance in 3 x 2": pixels(distance(random_weights(make, 1, 2, 6), (3, 2), 3)),
    }


@mean_attention_distance.case(
    "patches that hardly look at anything but the class token",
    next_step="Take weights[..., 1:, 1:], and divide each row by its sum.",
)
def _(distance, make):
    among = make.normal(1, 2, 4, 4).softmax(-1)
    near, far = make.uniform(0.05, 0.3, 1, 2, 4, 1), make.uniform(0.9, 0.95, 1, 2, 4, 1)
    share = torch.cat([near[:, :1], far[:, 1:]], dim=1)
    return {"distance": pixels(distance(with_class_token(make, among, share), (2, 2), 1))}


@mean_attention_distance.case(
    "the class token looks elsewhere",
    weight=0.5,
    next_step="The class token is no query: leave row 0 out, before the mean.",
)
def _(distance, make):
    weights = random_weights(make, 1, 1, 4)
    other = weights.clone()
    other[..., 0, :] = make.normal(1, 1, 5).softmax(-1)
    first, second = (distance(w, (2, 2), 8) for w in (weights, make.watch(other)))
    return {
        "distance": pixels(first),
        "the same for another row 0": bool((first - second).abs().max() < 1e-4),
    }


@mean_attention_distance.case(
    "patches of 1 and of 16 pixels",
    weight=0.5,
    next_step="Multiply the distances by patch_size, once.",
)
def _(distance, make):
    weights = random_weights(make, 1, 1, 4)
    return {
        "distance, patches of 1": pixels(distance(weights.clone(), (2, 2), 1)),
        "distance, patches of 16": pixels(distance(weights.clone(), (2, 2), 16)),
    }


@mean_attention_distance.case(
    "a single patch, and one image of one head",
    weight=0.5,
    next_step="Keep the axis of heads: the result has the shape (heads,) also for one head. A "
    "single patch looks at itself, 0 pixels away.",
)
def _(distance, make):
    return {
        "distance of a single patch": pixels(distance(random_weights(make, 2, 2, 1), (1, 1), 4)),
        "distance of one head": pixels(distance(random_weights(make, 1, 1, 2), (2, 1), 4)),
    }


@mean_attention_distance.case(
    "weights that do not fit the grid",
    next_step="Begin with: if weights.shape[-1] != 1 + rows * columns, raise a ValueError with "
    "both numbers.",
)
def _(distance, make):
    # 15 positions for 15 patches: those of a table without the class token.
    without, _ = refusal(distance, random_weights(make, 1, 1, 14), (3, 5), 4)
    many, named = refusal(distance, random_weights(make, 1, 1, 17), (3, 5), 4)
    return {
        "raised for weights without the class token's position": without,
        "raised for weights of too many positions": many,
        # With or without the class token's.
        "the error names both numbers": bool({17, 18} & named)
        and ({3, 5} <= named or bool({15, 16} & named)),
    }


@mean_attention_distance.case(
    "float64 weights that are a view, left as they were",
    next_step="Make new tensors: among = among / among.sum(...), not among /= ..., which writes "
    "into weights.",
)
def _(distance, make):
    turned = make.watch(random_weights(make, 2, 3, 6, dtype=torch.float64).permute(1, 0, 2, 3))
    result = distance(turned, (2, 3), 7)
    return {
        "distance": pixels(result),
        "it is floating point": result.is_floating_point(),
        "the weights are unchanged": make.unchanged(),
    }


@mean_attention_distance.case(
    "two calls with other numbers",
    weight=0.5,
    next_step="Compute from what is handed over, every time, and return a new tensor.",
)
def _(distance, make):
    first, second = (distance(random_weights(make, 1, 5, 4), (2, 2), 4) for _ in range(2))
    return {"distance in the first": pixels(first), "distance in the second": pixels(second)}


@mean_attention_distance.case("other sizes", hidden=True)
def _(distance, make):
    return {"distance": pixels(distance(random_weights(make, 3, 4, 12), (4, 3), 6))}


@mean_attention_distance.misconceptions
def _():
    """A mean distance with one thing wrong at a time."""

    def fit(weights, rows, columns):
        if weights.shape[-1] != 1 + rows * columns:
            raise ValueError(f"{weights.shape[-1]} positions, not 1 + {rows} x {columns}")

    def places(rows, columns):
        return torch.cartesian_prod(torch.arange(rows), torch.arange(columns))

    def euclidean(apart):
        return apart.square().sum(-1).sqrt()

    def normalized(among):
        return among / among.sum(-1, keepdim=True)

    def mean_distance(
        fit=fit,
        places=places,
        unit=lambda apart, size: size * apart,
        length=euclidean,
        before=lambda weights: weights,
        among=lambda weights: weights[..., 1:, 1:],
        rows_of=normalized,
        weigh=lambda among, apart: (among * apart).sum(-1),
        mean=lambda far: far.mean(dim=(0, 2)),
    ):
        def distance(weights, grid, patch_size):
            fit(weights, *grid)
            place = places(*grid).to(weights)
            apart = length(unit(place[:, None] - place, patch_size))
            return mean(weigh(rows_of(among(before(weights))), apart))

        return distance

    # The class token.

    inner = "among = weights[..., 1:, 1:], then among / among.sum(dim=-1, keepdim=True)."
    for sentence, parts in (
        (
            "The rows are not divided by their sums: without the class token they sum to less than "
            "1.",
            {"rows_of": lambda among: among},
        ),
        (
            "The last position is left out; the class token is the first.",
            {"among": lambda weights: weights[..., :-1, :-1]},
        ),
        (
            "All weights of a head are divided by one sum; each row has its own.",
            {
                "rows_of": lambda among: (
                    among * among.size(-1) / among.sum(dim=(-2, -1), keepdim=True)
                )
            },
        ),
        (
            "The rows go through a softmax once more; they are divided by their sums.",
            {"rows_of": lambda among: among.softmax(-1)},
        ),
        (
            "The weights among the patches are not used: this is the mean distance of any two.",
            {"rows_of": lambda among: torch.ones_like(among) / among.size(-1)},
        ),
    ):
        yield sentence, mean_distance(**parts), inner

    def padded(rows, columns):
        """Places in which the class token has one, the corner."""
        return torch.cat([torch.zeros(1, 2, dtype=torch.int64), places(rows, columns)])

    def as_key(weights, grid, patch_size):
        fit(weights, *grid)
        place = patch_size * padded(*grid).to(weights)
        apart = euclidean(place[:, None] - place)
        return (weights * apart)[..., 1:, :].sum(-1).mean(dim=(0, 2))

    def at_no_distance(weights, grid, patch_size):
        """The class token as a key that is 0 pixels away, and as a query."""
        fit(weights, *grid)
        place = patch_size * places(*grid).to(weights)
        apart = F.pad(euclidean(place[:, None] - place), (1, 0, 1, 0))
        return (weights * apart).sum(-1).mean(dim=(0, 2))

    def with_everything(weights, grid, patch_size):
        fit(weights, *grid)
        place = patch_size * padded(*grid).to(weights)
        return (weights * euclidean(place[:, None] - place)).sum(-1).mean(dim=(0, 2))

    for distance in (as_key, at_no_distance, with_everything):
        yield (
            "The class token takes part, though it has no place in the image.",
            distance,
            inner,
        )

    # The distance.

    far = "The root of the squared rows plus the squared columns, times patch_size."
    for sentence, parts in (
        (
            "The distance is counted in patches; it is asked for in pixels.",
            {"unit": lambda apart, size: apart},
        ),
        (
            "The distances are multiplied by patch_size twice.",
            {"unit": lambda apart, size: size**2 * apart},
        ),
        (
            "The distances are squared: the root is missing.",
            {"length": lambda apart: apart.square().sum(-1)},
        ),
        (
            "Rows and columns are added up (Manhattan); the distance is Euclidean.",
            {"length": lambda apart: apart.abs().sum(-1)},
        ),
        (
            "The larger one of rows and columns is taken (Chebyshev); the distance is Euclidean.",
            {"length": lambda apart: apart.abs().amax(-1)},
        ),
        (
            "The distance is that in the sequence, |i - j|; patches stand in rows and columns.",
            {
                "places": lambda rows, columns: torch.stack(
                    [torch.zeros(rows * columns), torch.arange(rows * columns)], dim=1
                )
            },
        ),
        (
            "The grid is read as (columns, rows); it is (rows, columns).",
            {"places": lambda rows, columns: places(columns, rows)},
        ),
        (
            "The root is taken at the end, of the mean squared distance.",
            {
                "length": lambda apart: apart.square().sum(-1),
                "mean": lambda far: far.mean(dim=(0, 2)).sqrt(),
            },
        ),
    ):
        yield sentence, mean_distance(**parts), far

    def to_the_center(weights, grid, patch_size):
        """From each patch to the weighted mean of the places that it looks at."""
        fit(weights, *grid)
        place = patch_size * places(*grid).to(weights)
        among = normalized(weights[..., 1:, 1:])
        return euclidean(among @ place - place).mean(dim=(0, 2))

    yield (
        "The places are averaged first, and the distance to their mean is taken; the mean of the "
        "distances is asked for.",
        to_the_center,
        "Distances of all pairs first, (patches, patches); then weigh them.",
    )
    yield (
        "Only the patch with the largest weight counts; all are weighed.",
        mean_distance(rows_of=lambda among: F.one_hot(among.argmax(-1), among.size(-1)).to(among)),
        "(among * distance).sum(dim=-1).",
    )

    # The mean.

    mean = "(among * distance).sum(dim=-1) is (batch, heads, queries): mean(dim=(0, 2))."
    for sentence, parts in (
        (
            "Rows and columns change places: each row, a query's, must sum to 1, not each column.",
            {"among": lambda weights: weights[..., 1:, 1:].mT},
        ),
        ("The mean is taken over the heads, too; each has its own.", {"mean": torch.Tensor.mean}),
        (
            "The mean over the images is missing.",
            {"mean": lambda far: far.mean(-1)},
        ),
        (
            "The mean over the queries is missing.",
            {"mean": lambda far: far.mean(0)},
        ),
        (
            "The mean is taken over the heads in place of the images.",
            {"mean": lambda far: far.mean(dim=(1, 2))},
        ),
        (
            "The queries are added up; their mean is asked for.",
            {"mean": lambda far: far.sum(-1).mean(0)},
        ),
        (
            "The largest distance of any query is taken; the mean is asked for.",
            {"mean": lambda far: far.amax(dim=(0, 2))},
        ),
        (
            "Only the first image counts.",
            {"mean": lambda far: far[0].mean(-1)},
        ),
        (
            "The weighted distances are averaged over the keys; they are added up.",
            {"weigh": lambda among, apart: (among * apart).mean(-1)},
        ),
    ):
        yield sentence, mean_distance(**parts), mean
    yield (
        "The result is rounded to whole pixels.",
        mean_distance(mean=lambda far: far.mean(dim=(0, 2)).long()),
        "Return it in floating point.",
    )

    def in_place(among):
        among.data.div_(among.sum(-1, keepdim=True))
        return among

    yield (
        "The caller's weights are changed in place.",
        mean_distance(rows_of=in_place),
        "among = among / among.sum(dim=-1, keepdim=True): a slice is a view, /= writes into "
        "weights.",
    )

    # What does not fit.

    begin = "if weights.shape[-1] != 1 + rows * columns: raise a ValueError with both numbers."

    def silent(weights, rows, columns):
        pass

    yield (
        "Weights that do not fit the grid are not refused by a ValueError.",
        mean_distance(fit=silent),
        begin,
    )

    def asserting(weights, rows, columns):
        assert weights.shape[-1] == 1 + rows * columns, f"{weights.shape[-1]}, {rows} x {columns}"

    yield (
        "An assert refuses weights that do not fit; the exercise asks for a ValueError.",
        mean_distance(fit=asserting),
        begin,
    )

    def speechless(weights, rows, columns):
        if weights.shape[-1] != 1 + rows * columns:
            raise ValueError("the weights do not fit the grid")

    yield (
        "The ValueError does not name both numbers, that of the weights and that of the grid.",
        mean_distance(fit=speechless),
        begin,
    )

    def class_token_forgotten(weights, rows, columns):
        if weights.shape[-1] < rows * columns:
            raise ValueError(f"{weights.shape[-1]} positions, not 1 + {rows} x {columns}")

    def left_over(weights, grid, patch_size):
        """Takes the last rows * columns positions, whatever stands before them."""
        class_token_forgotten(weights, *grid)
        count = grid[0] * grid[1]
        return mean_distance(fit=silent, among=lambda w: w[..., -count:, -count:])(
            weights, grid, patch_size
        )

    yield (
        "Weights for another number of positions are cut to the grid in silence; they must be "
        "refused.",
        left_over,
        begin,
    )

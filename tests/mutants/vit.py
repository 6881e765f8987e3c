"""Subtle ways to get chapter 7 wrong, and which of them a verdict names.

A name that does not fit misleads: what is not in NAMED must be given none.
"""

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tests.mutants import pre_norm
from tests.mutants.pre_norm import Attention, Block
from workbook.ready.multi_head import MultiHeadAttention

# ---- patchify ------------------------------------------------------------------------------


def refuse_cut(height, width, size):
    if height % size or width % size:
        raise ValueError(f"{height} x {width} pixels, patches of {size} x {size}")


def cut(images, size, order="nhwpqc", source="nchpwq", refuse=refuse_cut):
    """Right, but for what is done to one of its steps."""
    n, c, height, width = images.shape
    refuse(height, width, size)
    parts = {"n": n, "c": c, "h": height // size, "p": size, "w": width // size, "q": size}
    x = images.reshape([parts[letter] for letter in source])
    return torch.einsum(f"{source}->{order}", x).reshape(n, parts["h"] * parts["w"], -1)


def _cutting(name, finish=lambda patches: patches, start=lambda images: images, **changes):
    def patchify(images, patch_size):
        return finish(cut(start(images), patch_size, **changes))

    patchify.__name__ = name
    return patchify


patchify_with_channels_first = _cutting("patchify_with_channels_first", order="nhwcpq")
patchify_with_columns_first = _cutting("patchify_with_columns_first", order="nhwqpc")
patchify_with_channels_in_the_middle = _cutting(
    "patchify_with_channels_in_the_middle", order="nhwpcq"
)
patchify_with_columns_first_and_channels_in_the_middle = _cutting(
    "patchify_with_columns_first_and_channels_in_the_middle", order="nhwqcp"
)
patchify_with_channels_then_columns = _cutting(
    "patchify_with_channels_then_columns", order="nhwcqp"
)
patchify_down_the_columns = _cutting("patchify_down_the_columns", order="nwhpqc")
patchify_turned = _cutting("patchify_turned", order="nwhqpc")
patchify_down_the_columns_with_channels_first = _cutting(
    "patchify_down_the_columns_with_channels_first", order="nwhcpq"
)
patchify_of_spread_pixels = _cutting("patchify_of_spread_pixels", source="ncphqw")
patchify_of_spread_rows = _cutting("patchify_of_spread_rows", source="ncphwq")
patchify_of_spread_columns = _cutting("patchify_of_spread_columns", source="nchpqw")
patchify_rows_before_columns_of_patches = _cutting(
    "patchify_rows_before_columns_of_patches", order="nhpwqc"
)
patchify_as_if_channels_were_last = _cutting("patchify_as_if_channels_were_last", source="nhpwqc")
patchify_backwards = _cutting("patchify_backwards", lambda patches: patches.flip(1))
patchify_with_colors_swapped = _cutting(
    "patchify_with_colors_swapped", start=lambda images: images.flip(1)
)
patchify_upside_down = _cutting("patchify_upside_down", start=lambda images: images.flip(2))
patchify_in_float32 = _cutting("patchify_in_float32", start=torch.Tensor.float)
patchify_in_float64 = _cutting("patchify_in_float64", lambda patches: patches.double())
patchify_through_half = _cutting(
    "patchify_through_half", start=lambda images: images.bfloat16().to(images.dtype)
)
patchify_through_bytes = _cutting(
    "patchify_through_bytes", start=lambda images: (images * 255).round() / 255
)
patchify_detached = _cutting("patchify_detached", start=torch.Tensor.detach)
patchify_in_gray = _cutting(
    "patchify_in_gray", start=lambda images: images.mean(1, keepdim=True).expand_as(images)
)
patchify_turned_at_the_end = _cutting("patchify_turned_at_the_end", lambda patches: patches.mT)
patchify_squeezed = _cutting("patchify_squeezed", torch.Tensor.squeeze)
patchify_without_the_batch_of_one = _cutting(
    "patchify_without_the_batch_of_one", lambda patches: patches.squeeze(0)
)
patchify_the_first_image = _cutting(
    "patchify_the_first_image", lambda patches: patches[:1].expand_as(patches)
)
patchify_flattening_the_batch = _cutting(
    "patchify_flattening_the_batch", lambda patches: patches.flatten(0, 1)
)
patchify_without_the_last = _cutting("patchify_without_the_last", lambda patches: patches[:, :-1])
patchify_as_a_list = _cutting("patchify_as_a_list", lambda patches: list(patches.unbind(1)))
patchify_as_an_array = _cutting("patchify_as_an_array", lambda patches: patches.detach().numpy())
patchify_and_more = _cutting("patchify_and_more", lambda patches: (patches, patches.size(1)))
patchify_normalized = _cutting(
    "patchify_normalized",
    lambda patches: (
        (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6).sqrt()
    ),
)
patchify_between_minus_one_and_one = _cutting(
    "patchify_between_minus_one_and_one", lambda patches: 2 * patches - 1
)
patchify_clamped = _cutting("patchify_clamped", lambda patches: patches.clamp(0, 1))
patchify_in_a_random_order = _cutting(
    "patchify_in_a_random_order", lambda patches: patches[:, torch.randperm(patches.size(1))]
)


def patchify_by_reshape(images, patch_size):
    refuse_cut(*images.shape[2:], patch_size)
    return images.reshape(len(images), -1, images.size(1) * patch_size**2)


def patchify_by_f_unfold_as_it_comes(images, patch_size):
    refuse_cut(*images.shape[2:], patch_size)
    return F.unfold(images, patch_size, stride=patch_size).mT


def patchify_by_f_unfold_split_wrongly(images, patch_size):
    """The rows of F.unfold are taken for (row, column, channel)."""
    refuse_cut(*images.shape[2:], patch_size)
    columns = F.unfold(images, patch_size, stride=patch_size)
    return columns.unflatten(1, (-1, images.size(1))).permute(0, 3, 2, 1).flatten(2)


def patchify_with_overlap(images, patch_size):
    refuse_cut(*images.shape[2:], patch_size)
    columns = F.unfold(images, patch_size, stride=max(1, patch_size // 2))
    return columns.unflatten(1, (images.size(1), -1)).permute(0, 3, 2, 1).flatten(2)


def patchify_by_strides(images, patch_size):
    """Reads the memory as if the images were contiguous."""
    n, c, height, width = images.shape
    refuse_cut(height, width, patch_size)
    shape = (n, height // patch_size, width // patch_size, patch_size, patch_size, c)
    strides = (c * height * width, width * patch_size, patch_size, width, 1, height * width)
    return images.as_strided(shape, strides).reshape(n, -1, patch_size**2 * c)


def patchify_by_view_at_the_end(images, patch_size):
    """What has been turned around cannot be a view."""
    n, c, height, width = images.shape
    refuse_cut(height, width, patch_size)
    rows, columns = height // patch_size, width // patch_size
    x = images.reshape(n, c, rows, patch_size, columns, patch_size)
    return x.permute(0, 2, 4, 3, 5, 1).view(n, rows * columns, -1)


def patchify_of_flat_images(images, patch_size):
    """Fails where the memory is not contiguous."""
    numbers = torch.arange(images[0].numel()).view(1, *images.shape[1:])
    return images.view(len(images), -1)[:, cut(numbers, patch_size)[0]]


def patchify_of_so_many_pieces(images, patch_size):
    """patch_size is taken for the number of patches on a side."""
    refuse_cut(*images.shape[2:], patch_size)
    bands = [band.chunk(patch_size, dim=3) for band in images.chunk(patch_size, dim=2)]
    patches = [piece.permute(0, 2, 3, 1).flatten(1) for band in bands for piece in band]
    return torch.stack(patches, dim=1)


def patchify_squares_only(images, patch_size):
    """The number of columns is taken for that of the rows."""
    n, c, height, width = images.shape
    refuse_cut(height, width, patch_size)
    side = width // patch_size
    x = images.reshape(n, c, side, patch_size, side, patch_size)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(n, side * side, -1)


def patchify_refusing_what_is_no_square(images, patch_size):
    if images.size(2) != images.size(3):
        raise ValueError(f"{tuple(images.shape)} with patches of {patch_size} is no square")
    return cut(images, patch_size)


def patchify_with_grid_swapped(images, patch_size):
    """Rows and columns of the grid are exchanged: a square does not show it."""
    n, c, height, width = images.shape
    refuse_cut(height, width, patch_size)
    rows, columns = width // patch_size, height // patch_size
    x = images.reshape(n, c, rows, patch_size, columns, patch_size)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(n, rows * columns, -1)


def patchify_three_channels(images, patch_size):
    refuse_cut(*images.shape[2:], patch_size)
    n, _, height, width = images.shape
    x = images.reshape(n, 3, height // patch_size, patch_size, width // patch_size, patch_size)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(n, -1, patch_size**2 * 3)


def patchify_the_first_channel(images, patch_size):
    return cut(images[:, :1], patch_size)


def patchify_in_place(images, patch_size):
    images -= images.mean()
    return cut(images, patch_size)


def patchify_scaling_in_place(images, patch_size):
    patches = cut(images, patch_size)
    images.data.mul_(0.5)
    return patches


def patchify_snaking(images, patch_size):
    """Every other row of patches is read from right to left."""
    patches = cut(images, patch_size)
    columns = images.size(3) // patch_size
    lines = patches.unflatten(1, (-1, columns)).clone()
    lines[:, 1::2] = lines[:, 1::2].flip(2)
    return lines.flatten(1, 2)


def patchify_into_six_axes(images, patch_size):
    refuse_cut(*images.shape[2:], patch_size)
    windows = images.unfold(2, patch_size, patch_size).unfold(3, patch_size, patch_size)
    return windows.permute(0, 2, 3, 4, 5, 1)


def patchify_keeping_rows_and_columns(images, patch_size):
    patches = cut(images, patch_size)
    return patches.unflatten(1, (-1, images.size(3) // patch_size))


def patchify_keeping_squares(images, patch_size):
    return cut(images, patch_size).unflatten(-1, (patch_size, patch_size, -1))


def patchify_flattening_too_little(images, patch_size):
    """One number per pixel and channel apart: (batch, patches, pixels, channels)."""
    return cut(images, patch_size).unflatten(-1, (patch_size**2, -1))


_seen = {}


def patchify_that_remembers(images, patch_size):
    key = (tuple(images.shape), patch_size, images.dtype)
    if key not in _seen:
        _seen[key] = cut(images, patch_size)
    return _seen[key]


def patchify_of_two(images, patch_size):
    """Whatever is asked for, patches of two."""
    refuse_cut(*images.shape[2:], patch_size)
    return cut(images, 2)


def patchify_cropping(images, patch_size):
    height, width = (size - size % patch_size for size in images.shape[2:])
    return cut(images[:, :, :height, :width], patch_size)


def patchify_padding(images, patch_size):
    height, width = (-size % patch_size for size in images.shape[2:])
    return cut(F.pad(images, (0, width, 0, height)), patch_size)


def patchify_resizing(images, patch_size):
    size = [max(1, size // patch_size) * patch_size for size in images.shape[2:]]
    if list(images.shape[2:]) != size:
        images = F.interpolate(images, size=size)
    return cut(images, patch_size)


def refuse_nothing(height, width, size):
    pass


def refuse_height(height, width, size):
    if height % size:
        raise ValueError(f"{height} x {width} pixels, patches of {size} x {size}")


def refuse_width(height, width, size):
    if width % size:
        raise ValueError(f"{height} x {width} pixels, patches of {size} x {size}")


def refuse_both_together(height, width, size):
    if height % size and width % size:
        raise ValueError(f"{height} x {width} pixels, patches of {size} x {size}")


def refuse_the_area(height, width, size):
    if height * width % size**2:
        raise ValueError(f"{height} x {width} pixels, patches of {size} x {size}")


def refuse_by_assertion(height, width, size):
    assert height % size == 0, f"{height} x {width} pixels, patches of {size}"
    assert width % size == 0, f"{height} x {width} pixels, patches of {size}"


def refuse_with_a_runtime_error(height, width, size):
    if height % size or width % size:
        raise RuntimeError(f"{height} x {width} pixels, patches of {size} x {size}")


def refuse_with_a_type_error(height, width, size):
    if height % size or width % size:
        raise TypeError(f"{height} x {width} pixels, patches of {size} x {size}")


def refuse_without_numbers(height, width, size):
    if height % size or width % size:
        raise ValueError("The patch size must divide the height and the width of the images.")


def refuse_without_the_patch_size(height, width, size):
    if height % size or width % size:
        raise ValueError(f"{height} x {width} pixels cannot be cut into patches")


def refuse_without_the_width(height, width, size):
    if height % size or width % size:
        raise ValueError(f"a height of {height} pixels, patches of {size} x {size}")


def refuse_without_the_height(height, width, size):
    if height % size or width % size:
        raise ValueError(f"a width of {width} pixels, patches of {size} x {size}")


def refuse_naming_what_is_wrong(height, width, size):
    """Only the side that does not fit is named."""
    for name, side in (("height", height), ("width", width)):
        if side % size:
            raise ValueError(f"the {name} {side} is not a multiple of {size}")


def refuse_naming_rests(height, width, size):
    if height % size or width % size:
        raise ValueError(f"{height % size} and {width % size} pixels are left over")


def refuse_with_names_for_numbers(height, width, size):
    """An f is missing before the text."""
    if height % size or width % size:
        raise ValueError("{height} x {width} pixels, patches of {size} x {size}")


def refuse_single_patches(height, width, size):
    if height % size or width % size or height <= size or width <= size:
        raise ValueError(f"{height} x {width} pixels, patches of {size} x {size}")


def refuse_odd_sizes(height, width, size):
    if height % size or width % size or size % 2:
        raise ValueError(f"{height} x {width} pixels, patches of {size} x {size}")


def refuse_backwards(height, width, size):
    """Whether the sides divide the patch size."""
    if size % height or size % width:
        raise ValueError(f"{height} x {width} pixels, patches of {size} x {size}")


REFUSING = {
    "patchify_refusing_nothing": refuse_nothing,
    "patchify_refusing_heights_only": refuse_height,
    "patchify_refusing_widths_only": refuse_width,
    "patchify_refusing_both_together": refuse_both_together,
    "patchify_refusing_areas": refuse_the_area,
    "patchify_refusing_by_assertion": refuse_by_assertion,
    "patchify_refusing_with_a_runtime_error": refuse_with_a_runtime_error,
    "patchify_refusing_with_a_type_error": refuse_with_a_type_error,
    "patchify_refusing_without_numbers": refuse_without_numbers,
    "patchify_refusing_without_the_patch_size": refuse_without_the_patch_size,
    "patchify_refusing_without_the_width": refuse_without_the_width,
    "patchify_refusing_without_the_height": refuse_without_the_height,
    "patchify_naming_what_is_wrong": refuse_naming_what_is_wrong,
    "patchify_naming_rests": refuse_naming_rests,
    "patchify_with_names_for_numbers": refuse_with_names_for_numbers,
    "patchify_refusing_single_patches": refuse_single_patches,
    "patchify_refusing_odd_sizes": refuse_odd_sizes,
    "patchify_refusing_backwards": refuse_backwards,
}
refusing_patchify = [_cutting(name, refuse=refuse) for name, refuse in REFUSING.items()]


# ---- unpatchify ----------------------------------------------------------------------------


def root(count):
    return math.isqrt(count), math.isqrt(count)


def refuse_misfit(count, grid, numbers, size, channels):
    rows, columns = grid
    if rows * columns != count:
        raise ValueError(f"{count} patches, a grid of {rows} x {columns}")
    if size * size * channels != numbers:
        raise ValueError(f"{numbers} numbers, not {size * size * channels}")


def join(
    patches,
    patch_size,
    channels,
    grid=None,
    source="nhwpqc",
    order="nchpwq",
    default=root,
    refuse=refuse_misfit,
):
    """Right, but for what is done to one of its steps."""
    n, count, numbers = patches.shape
    if grid is None:
        grid = default(count)
    refuse(count, grid, numbers, patch_size, channels)
    h, w = grid
    parts = {"n": n, "c": channels, "h": h, "p": patch_size, "w": w, "q": patch_size}
    x = patches.reshape([parts[letter] for letter in source])
    x = torch.einsum(f"{source}->{order}", x)
    return x.reshape(n, channels, h * patch_size, w * patch_size)


def _joining(name, finish=lambda images: images, start=lambda patches: patches, **changes):
    def unpatchify(patches, patch_size, channels, grid=None):
        return finish(join(start(patches), patch_size, channels, grid, **changes))

    unpatchify.__name__ = name
    return unpatchify


unpatchify_with_channels_first = _joining("unpatchify_with_channels_first", source="nhwcpq")
unpatchify_with_columns_first = _joining("unpatchify_with_columns_first", source="nhwqpc")
unpatchify_with_channels_in_the_middle = _joining(
    "unpatchify_with_channels_in_the_middle", source="nhwpcq"
)
unpatchify_down_the_columns = _joining("unpatchify_down_the_columns", source="nwhpqc")
unpatchify_down_with_columns_first = _joining("unpatchify_down_with_columns_first", source="nwhqpc")
unpatchify_spreading_pixels = _joining("unpatchify_spreading_pixels", order="ncphqw")
unpatchify_spreading_rows = _joining("unpatchify_spreading_rows", order="ncphwq")
unpatchify_spreading_columns = _joining("unpatchify_spreading_columns", order="nchpqw")
unpatchify_without_moving_axes = _joining("unpatchify_without_moving_axes", order="nhwpqc")
unpatchify_moving_only_channels = _joining("unpatchify_moving_only_channels", order="nchwpq")
unpatchify_keeping_channels_last = _joining(
    "unpatchify_keeping_channels_last", lambda images: images.permute(0, 2, 3, 1)
)
unpatchify_with_channels_misread = _joining("unpatchify_with_channels_misread", order="nhpwqc")
unpatchify_turned = _joining("unpatchify_turned", lambda images: images.mT)
unpatchify_upside_down = _joining("unpatchify_upside_down", lambda images: images.flip(2))
unpatchify_mirrored = _joining("unpatchify_mirrored", lambda images: images.flip(3))
unpatchify_with_colors_swapped = _joining(
    "unpatchify_with_colors_swapped", lambda images: images.flip(1)
)
unpatchify_backwards = _joining("unpatchify_backwards", start=lambda patches: patches.flip(1))
unpatchify_clamped = _joining("unpatchify_clamped", lambda images: images.clamp(0, 1))
unpatchify_through_bytes = _joining(
    "unpatchify_through_bytes", lambda images: (images * 255).round() / 255
)
unpatchify_in_float32 = _joining("unpatchify_in_float32", lambda images: images.float())
unpatchify_through_float32 = _joining(
    "unpatchify_through_float32", lambda images: images.float().to(images.dtype)
)
unpatchify_in_float64 = _joining("unpatchify_in_float64", lambda images: images.double())
unpatchify_detached = _joining("unpatchify_detached", torch.Tensor.detach)
unpatchify_squeezed = _joining("unpatchify_squeezed", torch.Tensor.squeeze)
unpatchify_without_the_batch_of_one = _joining(
    "unpatchify_without_the_batch_of_one", lambda images: images.squeeze(0)
)
unpatchify_without_the_only_channel = _joining(
    "unpatchify_without_the_only_channel", lambda images: images.squeeze(1)
)
unpatchify_the_first_image = _joining(
    "unpatchify_the_first_image", lambda images: images[:1].expand_as(images)
)
unpatchify_as_a_list = _joining("unpatchify_as_a_list", lambda images: list(images))
unpatchify_in_color = _joining(
    "unpatchify_in_color",
    lambda images: images.expand(-1, 3, -1, -1) if images.size(1) == 1 else images,
)
unpatchify_a_single_row = _joining("unpatchify_a_single_row", default=lambda count: (1, count))
unpatchify_a_single_column = _joining(
    "unpatchify_a_single_column", default=lambda count: (count, 1)
)
unpatchify_the_next_rectangle = _joining(
    "unpatchify_the_next_rectangle",
    default=lambda count: (math.isqrt(count), count // math.isqrt(count)),
)


def most_square(count):
    rows = next(rows for rows in range(math.isqrt(count), 0, -1) if count % rows == 0)
    return rows, count // rows


unpatchify_the_nearest_rectangle = _joining("unpatchify_the_nearest_rectangle", default=most_square)


def unpatchify_by_reshape(patches, patch_size, channels, grid=None):
    rows, columns = grid or root(patches.size(1))
    refuse_misfit(patches.size(1), (rows, columns), patches.size(2), patch_size, channels)
    return patches.reshape(len(patches), channels, rows * patch_size, columns * patch_size)


def unpatchify_by_fold_as_it_comes(patches, patch_size, channels, grid=None):
    rows, columns = grid or root(patches.size(1))
    refuse_misfit(patches.size(1), (rows, columns), patches.size(2), patch_size, channels)
    size = (rows * patch_size, columns * patch_size)
    return F.fold(patches.mT, size, patch_size, stride=patch_size)


def unpatchify_flat_patches(patches, patch_size, channels, grid=None):
    """Fails where the memory is not contiguous."""
    numbers = torch.arange(patches[0].numel()).view(1, *patches.shape[1:])
    return patches.view(len(patches), -1)[:, join(numbers, patch_size, channels, grid)[0]]


def unpatchify_by_view_at_the_end(patches, patch_size, channels, grid=None):
    rows, columns = grid or root(patches.size(1))
    refuse_misfit(patches.size(1), (rows, columns), patches.size(2), patch_size, channels)
    x = patches.reshape(len(patches), rows, columns, patch_size, patch_size, channels)
    x = x.permute(0, 5, 1, 3, 2, 4)
    return x.view(len(patches), channels, rows * patch_size, columns * patch_size)


def unpatchify_with_grid_swapped(patches, patch_size, channels, grid=None):
    return join(patches, patch_size, channels, grid and grid[::-1])


def unpatchify_ignoring_the_grid(patches, patch_size, channels, grid=None):
    return join(patches, patch_size, channels)


def unpatchify_with_as_many_rows_as_columns(patches, patch_size, channels, grid=None):
    """The grid is used where it is a square."""
    if grid is not None and grid[0] != grid[1]:
        raise ValueError(f"{grid[0]} rows, {grid[1]} columns, {patches.size(1)} patches: no square")
    return join(patches, patch_size, channels, grid)


def unpatchify_wanting_a_square_number(patches, patch_size, channels, grid=None):
    if math.isqrt(patches.size(1)) ** 2 != patches.size(1):
        raise ValueError(f"{patches.size(1)} is no square; the grid is {grid}")
    return join(patches, patch_size, channels, grid)


def unpatchify_with_a_grid_in_pixels(patches, patch_size, channels, grid=None):
    if grid is not None:
        grid = (grid[0] // patch_size, grid[1] // patch_size)
    return join(patches, patch_size, channels, grid)


def unpatchify_with_columns_of_the_root(patches, patch_size, channels, grid=None):
    """Of the grid only the rows are used."""
    columns = math.isqrt(patches.size(1))
    return join(patches, patch_size, channels, grid and (grid[0], columns))


def unpatchify_needing_a_grid(patches, patch_size, channels, grid):
    return join(patches, patch_size, channels, grid)


def unpatchify_with_arguments_swapped(patches, patch_size, grid=None, channels=3):
    return join(patches, patch_size, channels, grid)


def unpatchify_three_channels(patches, patch_size, channels, grid=None):
    return join(patches, patch_size, 3, grid)


def unpatchify_counting_channels_itself(patches, patch_size, channels, grid=None):
    """The number that it is given is not looked at, so it cannot be wrong."""
    return join(patches, patch_size, patches.size(2) // patch_size**2, grid)


def unpatchify_measuring_patches_itself(patches, patch_size, channels, grid=None):
    return join(patches, math.isqrt(patches.size(2) // channels), channels, grid)


def unpatchify_in_place(patches, patch_size, channels, grid=None):
    patches.clamp_(0, 1)
    return join(patches, patch_size, channels, grid)


def unpatchify_scaling_in_place(patches, patch_size, channels, grid=None):
    images = join(patches, patch_size, channels, grid)
    patches.data.mul_(0.5)
    return images


def unpatchify_scaling_to_the_range(patches, patch_size, channels, grid=None):
    images = join(patches, patch_size, channels, grid)
    return (images - images.amin()) / (images.amax() - images.amin())


def unpatchify_that_remembers(patches, patch_size, channels, grid=None, kept={}):  # noqa: B006
    key = (tuple(patches.shape), patch_size, channels, grid)
    if key not in kept:
        kept[key] = join(patches, patch_size, channels, grid)
    return kept[key]


def unpatchify_into_one_image(patches, patch_size, channels, grid=None, kept={}):  # noqa: B006
    """The tensor that it returned before is written anew."""
    images = join(patches, patch_size, channels, grid)
    key = (tuple(images.shape), images.dtype)
    if key not in kept:
        kept[key] = torch.empty_like(images)
    kept[key] = kept[key].detach()
    return kept[key].copy_(images)


def misfit(
    fits_grid=lambda count, rows, columns: rows * columns == count,
    fits_numbers=lambda numbers, size, channels: numbers == size * size * channels,
    error=ValueError,
    grid_text="{count} patches, a grid of {rows} x {columns}",
    numbers_text="{numbers} numbers, not {wanted}",
):
    def refuse(count, grid, numbers, size, channels):
        rows, columns = grid
        if not fits_grid(count, rows, columns):
            raise error(grid_text.format(count=count, rows=rows, columns=columns))
        if not fits_numbers(numbers, size, channels):
            raise error(numbers_text.format(numbers=numbers, wanted=size * size * channels))

    return refuse


def anything(*numbers):
    return True


MISFITS = {
    "unpatchify_refusing_nothing": misfit(anything, anything),
    "unpatchify_not_counting_patches": misfit(fits_grid=anything),
    "unpatchify_not_counting_numbers": misfit(fits_numbers=anything),
    "unpatchify_refusing_too_many_patches": misfit(
        fits_grid=lambda count, rows, columns: rows * columns >= count
    ),
    "unpatchify_refusing_too_few_patches": misfit(
        fits_grid=lambda count, rows, columns: rows * columns <= count
    ),
    "unpatchify_refusing_what_rows_do_not_divide": misfit(
        fits_grid=lambda count, rows, columns: count % rows == 0
    ),
    "unpatchify_refusing_what_is_no_multiple_of_pixels": misfit(
        fits_numbers=lambda numbers, size, channels: numbers % size**2 == 0
    ),
    "unpatchify_refusing_what_is_no_multiple_of_channels": misfit(
        fits_numbers=lambda numbers, size, channels: numbers % channels == 0
    ),
    "unpatchify_refusing_too_many_numbers": misfit(
        fits_numbers=lambda numbers, size, channels: numbers <= size**2 * channels
    ),
    "unpatchify_refusing_by_assertion": misfit(error=AssertionError),
    "unpatchify_refusing_with_a_runtime_error": misfit(error=RuntimeError),
    "unpatchify_refusing_with_an_index_error": misfit(error=IndexError),
    "unpatchify_refusing_without_numbers": misfit(
        grid_text="The patches do not fill the grid.", numbers_text="A patch has another length."
    ),
    "unpatchify_refusing_a_grid_without_numbers": misfit(
        grid_text="The patches do not fill the grid."
    ),
    "unpatchify_refusing_a_length_without_numbers": misfit(
        numbers_text="A patch has another length."
    ),
    "unpatchify_not_naming_the_grid": misfit(grid_text="{count} patches do not fill the grid"),
    "unpatchify_not_naming_the_patches": misfit(grid_text="Not a grid of {rows} x {columns}"),
    "unpatchify_not_naming_the_length": misfit(numbers_text="A patch must have {wanted} numbers"),
}
refusing_unpatchify = [_joining(name, refuse=refuse) for name, refuse in MISFITS.items()]


def unpatchify_dropping_what_is_no_square(patches, patch_size, channels, grid=None):
    if grid is None:
        patches = patches[:, : math.isqrt(patches.size(1)) ** 2]
    return join(patches, patch_size, channels, grid)


def unpatchify_filling_up_a_square(patches, patch_size, channels, grid=None):
    if grid is None:
        side = math.ceil(math.sqrt(patches.size(1)))
        patches = F.pad(patches, (0, 0, 0, side * side - patches.size(1)))
    return join(patches, patch_size, channels, grid)


def unpatchify_dropping_what_the_grid_does_not_hold(patches, patch_size, channels, grid=None):
    rows, columns = grid or root(patches.size(1))
    if grid is None:
        refuse_misfit(patches.size(1), (rows, columns), patches.size(2), patch_size, channels)
    return join(patches[:, : rows * columns], patch_size, channels, (rows, columns))


def unpatchify_cutting_numbers(patches, patch_size, channels, grid=None):
    return join(patches[..., : patch_size**2 * channels], patch_size, channels, grid)


# ---- PatchEmbedding ------------------------------------------------------------------------


class Embedding(nn.Module):
    """Right, but for what is done to one of its parts."""

    def __init__(self, patch_size, channels, d_model):
        super().__init__()
        self.patch_size, self.channels = patch_size, channels
        self.projection = nn.Linear(patch_size**2 * channels, d_model)

    def cut(self, images):
        return cut(images, self.patch_size)

    def forward(self, images):
        return self.projection(self.cut(images))


def _embedding(name, base=Embedding, **changes):
    """Cuts in another way."""

    def cut_wrongly(self, images):
        return cut(images, self.patch_size, **changes)

    return type(name, (base,), {"cut": cut_wrongly})


EmbeddingWithChannelsFirst = _embedding("EmbeddingWithChannelsFirst", order="nhwcpq")
EmbeddingWithColumnsFirst = _embedding("EmbeddingWithColumnsFirst", order="nhwqpc")
EmbeddingWithChannelsInTheMiddle = _embedding("EmbeddingWithChannelsInTheMiddle", order="nhwpcq")
EmbeddingDownTheColumns = _embedding("EmbeddingDownTheColumns", order="nwhpqc")
EmbeddingTurned = _embedding("EmbeddingTurned", order="nwhqpc")
EmbeddingOfSpreadPixels = _embedding("EmbeddingOfSpreadPixels", source="ncphqw")
EmbeddingRefusingNothing = _embedding("EmbeddingRefusingNothing", refuse=refuse_nothing)
EmbeddingRefusingByAssertion = _embedding(
    "EmbeddingRefusingByAssertion", refuse=refuse_by_assertion
)
EmbeddingRefusingHeightsOnly = _embedding("EmbeddingRefusingHeightsOnly", refuse=refuse_height)


class EmbeddingByConvolutionThatCrops(Embedding):
    """The numbers are right, and what cannot be cut is cut off."""

    def forward(self, images):
        size = self.patch_size
        kernel = self.projection.weight.view(-1, size, size, self.channels).permute(0, 3, 1, 2)
        return F.conv2d(images, kernel, self.projection.bias, stride=size).flatten(2).mT


class EmbeddingByConvolutionOfAView(Embedding):
    """The weight's numbers are read as (channel, row, column)."""

    def forward(self, images):
        refuse_cut(*images.shape[2:], self.patch_size)
        kernel = self.projection.weight.view(-1, self.channels, self.patch_size, self.patch_size)
        y = F.conv2d(images, kernel, self.projection.bias, stride=self.patch_size)
        return y.flatten(2).mT


class EmbeddingWithAConvolution(nn.Module):
    """The layer is an nn.Conv2d: its weight has four axes."""

    def __init__(self, patch_size, channels, d_model):
        super().__init__()
        self.patch_size = patch_size
        self.projection = nn.Conv2d(channels, d_model, patch_size, stride=patch_size)

    def forward(self, images):
        refuse_cut(*images.shape[2:], self.patch_size)
        return self.projection(images).flatten(2).transpose(1, 2)


class EmbeddingWithOverlap(Embedding):
    def cut(self, images):
        return patchify_with_overlap(images, self.patch_size)


class EmbeddingWithoutABias(nn.Module):
    def __init__(self, patch_size, channels, d_model):
        super().__init__()
        self.patch_size = patch_size
        self.projection = nn.Linear(patch_size**2 * channels, d_model, bias=False)

    def forward(self, images):
        return self.projection(cut(images, self.patch_size))


class EmbeddingForgettingItsBias(Embedding):
    def forward(self, images):
        return F.linear(self.cut(images), self.projection.weight)


class EmbeddingWithAnotherName(nn.Module):
    def __init__(self, patch_size, channels, d_model):
        super().__init__()
        self.patch_size, self.proj = patch_size, nn.Linear(patch_size**2 * channels, d_model)

    def forward(self, images):
        return self.proj(cut(images, self.patch_size))


class EmbeddingOfThreeChannels(Embedding):
    def __init__(self, patch_size, channels, d_model):
        super().__init__(patch_size, 3, d_model)


class EmbeddingWithoutTheSquare(Embedding):
    """As wide as a row of a patch."""

    def __init__(self, patch_size, channels, d_model):
        super().__init__(patch_size, channels, d_model)
        self.projection = nn.Linear(patch_size * channels, d_model)

    def forward(self, images):
        return self.projection(self.cut(images)[..., : self.projection.in_features])


class EmbeddingOfAveragePixels(Embedding):
    def cut(self, images):
        return super().cut(images).mean(-1, keepdim=True).expand_as(super().cut(images))


class EmbeddingBent(Embedding):
    def forward(self, images):
        return F.relu(super().forward(images))


class EmbeddingBentBySmoothly(Embedding):
    def forward(self, images):
        return F.gelu(super().forward(images))


class EmbeddingNormalized(Embedding):
    def forward(self, images):
        y = super().forward(images)
        return F.layer_norm(y, y.shape[-1:])


class EmbeddingOfNormalizedPatches(Embedding):
    def cut(self, images):
        patches = super().cut(images)
        return F.layer_norm(patches, patches.shape[-1:])


class EmbeddingScaled(Embedding):
    def forward(self, images):
        return super().forward(images) * math.sqrt(self.projection.out_features)


class EmbeddingOfCenteredImages(Embedding):
    def cut(self, images):
        return super().cut(images - images.mean(dim=(1, 2, 3), keepdim=True))


class EmbeddingWithChannelsBeforePatches(Embedding):
    def forward(self, images):
        return super().forward(images).mT


class EmbeddingInRowsAndColumns(Embedding):
    def forward(self, images):
        return super().forward(images).unflatten(1, (-1, images.size(3) // self.patch_size))


class EmbeddingThatReadsTheMapWrongly(Embedding):
    """(batch, d_model, rows, columns) is reshaped where it should be turned."""

    def forward(self, images):
        y = super().forward(images)
        return y.mT.reshape(y.shape)


class EmbeddingWithAClassToken(Embedding):
    def forward(self, images):
        return F.pad(super().forward(images), (0, 0, 1, 0))


class EmbeddingWithPositions(Embedding):
    def forward(self, images):
        y = super().forward(images)
        return y + torch.arange(y.size(1), dtype=y.dtype)[:, None] / 10000


class EmbeddingWithATableOfPositions(Embedding):
    def __init__(self, patch_size, channels, d_model):
        super().__init__(patch_size, channels, d_model)
        self.position = nn.Parameter(torch.zeros(1, d_model))

    def forward(self, images):
        return super().forward(images) + self.position


class EmbeddingWithDropout(Embedding):
    def forward(self, images):
        return F.dropout(super().forward(images), 0.1, self.training)


class EmbeddingDetachingImages(Embedding):
    def cut(self, images):
        return super().cut(images.detach())


class EmbeddingWithoutGradients(Embedding):
    def forward(self, images):
        with torch.no_grad():
            return super().forward(images)


class EmbeddingDetachingItsWeight(Embedding):
    def forward(self, images):
        return F.linear(self.cut(images), self.projection.weight.detach(), self.projection.bias)


class EmbeddingInFloat32(Embedding):
    def forward(self, images):
        kind = self.projection.weight.dtype
        weight, bias = self.projection.weight.float(), self.projection.bias.float()
        return F.linear(self.cut(images).float(), weight, bias).to(kind)


class EmbeddingReturningFloat32(Embedding):
    def forward(self, images):
        return super().forward(images).float()


class EmbeddingCastingImages(Embedding):
    """Fails where the layer is not in float32."""

    def forward(self, images):
        return super().forward(images.float())


class EmbeddingSqueezed(Embedding):
    def forward(self, images):
        return super().forward(images).squeeze(0)


class EmbeddingOfTheFirstImage(Embedding):
    def forward(self, images):
        y = super().forward(images)
        return y[:1].expand_as(y)


class EmbeddingOfSquares(Embedding):
    def cut(self, images):
        return patchify_squares_only(images, self.patch_size)


class EmbeddingOfFlatImages(Embedding):
    """Fails where the memory is not contiguous."""

    def cut(self, images):
        return patchify_of_flat_images(images, self.patch_size)


class EmbeddingByStrides(Embedding):
    def cut(self, images):
        return patchify_by_strides(images, self.patch_size)


class EmbeddingInPlace(Embedding):
    def forward(self, images):
        images.data.sub_(0.5)
        return super().forward(images)


class EmbeddingThatRemembers(Embedding):
    """The patches of the first images stay."""

    patches = None

    def cut(self, images):
        if self.patches is None or self.patches.shape[:1] != images.shape[:1]:
            self.patches = super().cut(images)
        return self.patches


class EmbeddingWithAFreshLayer(Embedding):
    def forward(self, images):
        layer = nn.Linear(self.projection.in_features, self.projection.out_features)
        return layer(self.cut(images).to(layer.weight.dtype)).to(images.dtype)


class EmbeddingOfPatchesOfTwo(Embedding):
    """Patches of two, whatever is asked for."""

    def cut(self, images):
        return cut(images, 2)


class EmbeddingPadding(Embedding):
    def cut(self, images):
        return patchify_padding(images, self.patch_size)


class EmbeddingWithALayerEach(Embedding):
    """Each patch is shifted by its number before the map: not the same for all."""

    def cut(self, images):
        patches = super().cut(images)
        return torch.stack([patch.roll(i, -1) for i, patch in enumerate(patches.unbind(1))], 1)


# ---- ViTBlock ------------------------------------------------------------------------------


WRONG_BLOCKS = pre_norm.of(Block)


class BlockAddingTheNormalizedEarly(Block):
    def forward(self, x):
        y = self.norm1(x)
        y = y + self.read(y)
        return y + self.network(self.norm2(y))


class BlockWithOneOutputOfTheNorm(Block):
    """What was normalized before the attention goes into the network too."""

    def forward(self, x):
        y = self.norm1(x)
        return x + self.read(y) + self.network(y)


class BlockWithoutTheFirstNorm(Block):
    def forward(self, x):
        x = x + self.read(x)
        return x + self.network(self.norm2(x))


class BlockWithPyTorchsEps(Block):
    eps = 1e-5


class BlockWithBertsEps(Block):
    eps = 1e-12


class BlockWithTwoEps(Block):
    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, num_heads, d_ff, dropout)
        self.norm2 = nn.LayerNorm(d_model)


class BlockNormalizingPositionsToo(Block):
    def forward(self, x):
        y = F.layer_norm(x, x.shape[1:], eps=1e-6) * self.norm1.weight + self.norm1.bias
        x = x + self.read(y)
        return x + self.network(self.norm2(x))


class BlockWithAnUnbiasedVariance(Block):
    def forward(self, x):
        variance, mean = torch.var_mean(x, -1, keepdim=True)
        y = (x - mean) / (variance + 1e-6).sqrt() * self.norm1.weight + self.norm1.bias
        x = x + self.read(y)
        return x + self.network(self.norm2(x))


class BlockWithEpsBesideTheRoot(Block):
    """The constant is added to the deviation, not to the variance."""

    def forward(self, x):
        variance, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
        y = (x - mean) / (variance.sqrt() + 1e-6) * self.norm1.weight + self.norm1.bias
        x = x + self.read(y)
        return x + self.network(self.norm2(x))


class BlockAddingTheInputToBoth(Block):
    def forward(self, x):
        y = x + self.read(self.norm1(x))
        return x + y + self.network(self.norm2(y))


class BlockWithTheNetworkFirst(Block):
    def forward(self, x):
        x = x + self.network(self.norm2(x))
        return x + self.read(self.norm1(x))


class BlockWithoutTheNetwork(Block):
    def forward(self, x):
        return x + self.read(self.norm1(x))


class BlockWithTanhGelu(Block):
    def bend(self, z):
        return F.gelu(z, approximate="tanh")


class BlockWithAMistypedGelu(Block):
    """The root of 2 is missing in the error function."""

    def bend(self, z):
        return 0.5 * z * (1 + torch.erf(z / 2))


class BlockBendingNothing(Block):
    def bend(self, z):
        return z


class BlockBendingBeforeTheFirstLayer(Block):
    def network(self, y):
        return self.dropout(self.w_2(self.w_1(self.bend(y))))


class BlockOfGpt(Block):
    """No patch reads those behind it."""

    def mask(self, x):
        return torch.ones(x.size(1), x.size(1), dtype=torch.bool).tril()


class BlockReadingOnlyWhatFollows(Block):
    def mask(self, x):
        return torch.ones(x.size(1), x.size(1), dtype=torch.bool).triu()


class BlockBarringItself(Block):
    def mask(self, x):
        return ~torch.eye(x.size(1), dtype=torch.bool)


class BlockBarringTheClassToken(Block):
    def mask(self, x):
        mask = torch.ones(x.size(1), dtype=torch.bool)
        mask[0] = False
        return mask


class BlockBarringTheLast(Block):
    def mask(self, x):
        return torch.arange(x.size(1)) < max(1, x.size(1) - 1)


class BlockWithAWindow(Block):
    def mask(self, x):
        return torch.ones(x.size(1), x.size(1), dtype=torch.bool).triu(-3).tril(3)


class BlockBarringEmptyVectors(Block):
    """Vectors of zeros are taken for padding."""

    def mask(self, x):
        return self.full

    def forward(self, x):
        self.full = (x != 0).any(-1)[:, None, None]
        return super().forward(x)


class BlockOfTheFirstPositionOnly(Block):
    """Every position gets what the class token has read."""

    def read(self, y):
        return super().read(y)[:, :1]


class BlockNormalizingTheQueryOnly(Block):
    def forward(self, x):
        x = x + self.dropout(self.self_attn(self.norm1(x), x, x))
        return x + self.network(self.norm2(x))


class BlockReadingRawValues(Block):
    def forward(self, x):
        y = self.norm1(x)
        x = x + self.dropout(self.self_attn(y, y, x))
        return x + self.network(self.norm2(x))


class BlockOfOneHead(Block):
    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, 1, d_ff, dropout)


class BlockMergingHeadsByAReshape(Block):
    def read(self, y):
        own = self.self_attn
        q, k, v = (
            layer(y).unflatten(-1, (own.heads, -1)).transpose(1, 2)
            for layer in (own.w_q, own.w_k, own.w_v)
        )
        weights = own.dropout((q @ k.mT / own.scale(q)).softmax(-1))
        return self.dropout(own.w_o((weights @ v).reshape(y.shape)))


class BlockWithoutAnOutputLayer(Block):
    def read(self, y):
        own = self.self_attn
        q, k, v = (
            layer(y).unflatten(-1, (own.heads, -1)).transpose(1, 2)
            for layer in (own.w_q, own.w_k, own.w_v)
        )
        weights = own.dropout((q @ k.mT / own.scale(q)).softmax(-1))
        return self.dropout((weights @ v).transpose(1, 2).flatten(2))


class BlockNotDroppingTheRead(Block):
    def read(self, y):
        return self.self_attn(y, y, y)


class BlockNotDroppingTheNetwork(Block):
    def network(self, y):
        return self.w_2(self.bend(self.w_1(y)))


class BlockNotDroppingInTheAttention(Block):
    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, num_heads, d_ff, dropout)
        self.self_attn = Attention(d_model, num_heads)


class BlockDroppingOnlyInTheAttention(Block):
    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, num_heads, d_ff, dropout)
        self.dropout = nn.Identity()


class BlockDroppingNowhere(Block):
    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, num_heads, d_ff)


class BlockDroppingInEvaluation(Block):
    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, num_heads, d_ff, dropout)
        self.rate = dropout
        self.dropout = nn.Identity()

    def read(self, y):
        return F.dropout(super().read(y), self.rate)

    def network(self, y):
        return F.dropout(super().network(y), self.rate)


class BlockDroppingTheHiddenLayerToo(Block):
    def network(self, y):
        return self.dropout(self.w_2(self.dropout(self.bend(self.w_1(y)))))


class BlockDroppingTheSum(Block):
    def forward(self, x):
        x = self.dropout(x + self.self_attn(*[self.norm1(x)] * 3))
        return self.dropout(x + self.w_2(self.bend(self.w_1(self.norm2(x)))))


class BlockDroppingTheInputs(Block):
    """Before each sublayer, not after it."""

    def forward(self, x):
        x = x + self.self_attn(*[self.dropout(self.norm1(x))] * 3)
        return x + self.w_2(self.bend(self.w_1(self.dropout(self.norm2(x)))))


class DropWhole(nn.Dropout):
    """One decision for all numbers along ``axes``."""

    axes = (-1, -2)

    def forward(self, x):
        one = x
        for axis in self.axes:
            one = one.narrow(axis, 0, 1)
        return x * super().forward(torch.ones_like(one))


class DropVectors(DropWhole):
    axes = (-1,)


class DropWithoutScaling(nn.Dropout):
    def forward(self, x):
        return x * (torch.rand_like(x) >= self.p) if self.training else x


class BlockDroppingWholeSublayers(Block):
    """Stochastic depth."""

    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, num_heads, d_ff, dropout)
        self.dropout = DropWhole(dropout)


class BlockDroppingWithoutScaling(Block):
    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, num_heads, d_ff, dropout)
        self.dropout = DropWithoutScaling(dropout)


class BlockWithAFixedRate(Block):
    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, num_heads, d_ff, 0.1)


class BlockKeepingAtTheRate(Block):
    """The rate is taken for the share that stays."""

    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, num_heads, d_ff, 1 - dropout if dropout else 0.0)


class BlockFourTimesAsWide(Block):
    """d_ff is not looked at."""

    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, num_heads, 4 * d_model, dropout)


class BlockWithOtherNames(Block):
    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, num_heads, d_ff, dropout)
        self.fc1, self.fc2 = self.w_1, self.w_2
        del self.w_1, self.w_2

    def network(self, y):
        return self.dropout(self.fc2(self.bend(self.fc1(y))))


class BlockWithoutBiases(Block):
    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, num_heads, d_ff, dropout)
        self.w_1 = nn.Linear(d_model, d_ff, bias=False)
        self.w_2 = nn.Linear(d_ff, d_model, bias=False)


class BlockForgettingTheLastBias(Block):
    def network(self, y):
        return self.dropout(F.linear(self.bend(self.w_1(y)), self.w_2.weight))


class BlockWithAThirdNorm(Block):
    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, num_heads, d_ff, dropout)
        self.norm3 = nn.LayerNorm(d_model, eps=1e-6)

    def forward(self, x):
        return self.norm3(super().forward(x))


class BlockWithLayerScale(Block):
    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, num_heads, d_ff, dropout)
        self.scale = nn.Parameter(1e-4 * torch.ones(d_model))

    def forward(self, x):
        x = x + self.scale * self.read(self.norm1(x))
        return x + self.scale * self.network(self.norm2(x))


class BlockOfAllImagesTogether(Block):
    """The sequences of a batch become a single one."""

    def read(self, y):
        return super().read(y.flatten(0, 1).unsqueeze(0)).view(y.shape)


class BlockByView(Block):
    """Fails where the input's memory is not contiguous."""

    def forward(self, x):
        y = x.view(-1, x.size(-1))
        y = y + self.read(self.norm1(y).view(x.shape)).view(y.shape)
        return (y + self.network(self.norm2(y))).view(x.shape)


# ---- VisionTransformer ---------------------------------------------------------------------


class BlockOfChapterTwo(Block):
    attention = MultiHeadAttention

    def read(self, y):
        return self.dropout(self.self_attn(y, y, y)[0])


class Model(nn.Module):
    """Right, but for what is done to one of its parts."""

    block = BlockOfChapterTwo
    embedding = Embedding
    eps = 1e-6

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
        self.image_size = self.two(image_size)
        self.refuse_size(*self.image_size, patch_size)
        patches = (self.image_size[0] // patch_size) * (self.image_size[1] // patch_size)
        self.patch = self.embedding(patch_size, channels, d_model)
        self.class_token = nn.Parameter(0.02 * torch.randn(d_model))
        self.position = nn.Parameter(0.02 * torch.randn(1 + patches, d_model))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            self.block(d_model, num_heads, d_ff, dropout) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(d_model, eps=self.eps)
        self.head = nn.Linear(d_model, num_classes)

    def two(self, size):
        return (size, size) if isinstance(size, int) else tuple(size)

    def refuse_size(self, height, width, patch_size):
        refuse_cut(height, width, patch_size)

    def refuse(self, images):
        if tuple(images.shape[-2:]) != self.image_size:
            raise ValueError(f"images of {tuple(images.shape[-2:])}, not {self.image_size}")

    def first(self, images):
        return self.class_token.expand(len(images), 1, -1)

    def add(self, x):
        return x + self.position

    def embed(self, images):
        x = torch.cat([self.first(images), self.patch(images)], dim=1)
        return self.dropout(self.add(x))

    def through(self, x):
        for block in self.blocks:
            x = block(x)
        return x

    def encode(self, images):
        self.refuse(images)
        return self.norm(self.through(self.embed(images)))

    def summary(self, vectors):
        return vectors[:, 0]

    def forward(self, images):
        return self.head(self.summary(self.encode(images)))


class ModelOfTheMean(Model):
    """GAP instead of the class token, which stays in the sequence."""

    def summary(self, vectors):
        return vectors.mean(dim=1)


class ModelOfTheMeanOfPatches(Model):
    def summary(self, vectors):
        return vectors[:, 1:].mean(dim=1)


class ModelOfTheLast(Model):
    def summary(self, vectors):
        return vectors[:, -1]


class ModelOfTheFirstPatch(Model):
    def summary(self, vectors):
        return vectors[:, 1]


class ModelOfTheLargest(Model):
    def summary(self, vectors):
        return vectors.amax(dim=1)


class ModelScoringEveryPosition(Model):
    def summary(self, vectors):
        return vectors


class ModelWithAPooler(Model):
    """BERT's tanh before the head."""

    def summary(self, vectors):
        return torch.tanh(vectors[:, 0])


class ModelWithALinearProbe(Model):
    def summary(self, vectors):
        return vectors[:, 0].detach()


class ModelReturningProbabilities(Model):
    def forward(self, images):
        return super().forward(images).softmax(-1)


class ModelReturningLogarithms(Model):
    def forward(self, images):
        return super().forward(images).log_softmax(-1)


class ModelReturningClasses(Model):
    def forward(self, images):
        return super().forward(images).argmax(-1)


class ModelReturningTwo(Model):
    def forward(self, images):
        vectors = self.encode(images)
        return self.head(vectors[:, 0]), vectors


class ModelSqueezed(Model):
    def forward(self, images):
        return super().forward(images).squeeze(0)


class ModelEncodingSqueezed(Model):
    def encode(self, images):
        return super().encode(images).squeeze(0)

    def forward(self, images):
        return self.head(super().encode(images)[:, 0])


class ModelReturningFloat32(Model):
    def forward(self, images):
        return super().forward(images).float()


class ModelWithTheClassTokenLast(Model):
    """Row 0 of the table belongs to the first patch."""

    def embed(self, images):
        x = torch.cat([self.patch(images), self.first(images)], dim=1)
        return self.dropout(x + self.position)

    def summary(self, vectors):
        return vectors[:, -1]


class ModelWithTheClassTokenAtTheEndOfTheResult(Model):
    """Computed as it should be, and then moved."""

    def encode(self, images):
        return super().encode(images).roll(-1, dims=1)

    def summary(self, vectors):
        return vectors[:, -1]


class ModelWithTheLastRowForTheClassToken(Model):
    def add(self, x):
        return x + self.position.roll(1, dims=0)


class ModelWithTheTableTurned(Model):
    def add(self, x):
        return x + self.position.flip(0)


class ModelWithoutPositions(Model):
    def add(self, x):
        return x + 0 * self.position


class ModelWithPositionsOfPatchesOnly(Model):
    def add(self, x):
        return torch.cat([x[:, :1] + 0 * self.position[0], x[:, 1:] + self.position[1:]], dim=1)


class ModelCountingPatchesFromZero(Model):
    """Patch i has row i, and the last row has nobody."""

    def add(self, x):
        return torch.cat([x[:, :1], x[:, 1:] + self.position[:-1]], dim=1)


class ModelWithOnePosition(Model):
    def add(self, x):
        return x + self.position[:1] + 0 * self.position


class ModelAddingPositionsToEachBlock(Model):
    def through(self, x):
        for block in self.blocks:
            x = block(x + self.position)
        return x


class ModelMultiplyingPositions(Model):
    def add(self, x):
        return x * self.position


class ModelAddingPositionsTwice(Model):
    def add(self, x):
        return x + 2 * self.position


class ModelAddingPositionsByImage(Model):
    """The row of the table is the number of the image."""

    def add(self, x):
        index = torch.arange(len(x)) % len(self.position)
        return x + self.position[index, None] + 0 * self.position


class ModelWithFrozenPositions(Model):
    def add(self, x):
        return x + self.position.detach()


class ModelWithoutAClassToken(Model):
    def first(self, images):
        return torch.zeros_like(super().first(images)) + 0 * self.class_token


class ModelWithTheClassTokenTwice(Model):
    def first(self, images):
        return 2 * super().first(images)


class ModelWithAFrozenClassToken(Model):
    def first(self, images):
        return super().first(images).detach()


class ModelWithTheClassTokenOfOneImage(Model):
    """Only the first image gets it."""

    def first(self, images):
        token = torch.zeros(len(images), 1, self.class_token.numel(), dtype=self.class_token.dtype)
        token[0] = self.class_token
        return token


class ModelWithTheMeanAsClassToken(Model):
    def first(self, images):
        return self.patch(images).mean(dim=1, keepdim=True) + self.class_token


class ModelWithTheClassTokenForPatchesToo(Model):
    def embed(self, images):
        return super().embed(images) + self.class_token


class ModelForOneImage(Model):
    """The class token is not spread over the batch."""

    def first(self, images):
        return self.class_token[None, None]


class ModelWithoutTheLastNorm(Model):
    def encode(self, images):
        self.refuse(images)
        return self.through(self.embed(images))


class ModelNormalizingInForwardOnly(Model):
    """Logits are right; what encode returns has not been normalized."""

    def encode(self, images):
        self.refuse(images)
        return self.through(self.embed(images))

    def summary(self, vectors):
        return self.norm(vectors[:, 0])


class ModelNormalizingTheClassTokenOnly(Model):
    def encode(self, images):
        self.refuse(images)
        x = self.through(self.embed(images))
        return torch.cat([self.norm(x[:, :1]), x[:, 1:]], dim=1)


class ModelNormalizingTwice(Model):
    def summary(self, vectors):
        return self.norm(vectors[:, 0])


class ModelNormalizingEarly(Model):
    """Before the blocks, as CLIP does, and not after them."""

    def encode(self, images):
        self.refuse(images)
        return self.through(self.norm(self.embed(images)))


class ModelNormalizingAfterEachBlock(Model):
    def through(self, x):
        for block in self.blocks[:-1]:
            x = self.norm(block(x))
        return self.blocks[-1](x)


class ModelWithPyTorchsEps(Model):
    eps = 1e-5


class ModelWithBertsEps(Model):
    eps = 1e-12


class ModelEncodingPatchesOnly(Model):
    def encode(self, images):
        return super().encode(images)[:, 1:]

    def forward(self, images):
        return self.head(super().encode(images)[:, 0])


class ModelEncodingTheClassTokenOnly(Model):
    def encode(self, images):
        return super().encode(images)[:, 0]

    def forward(self, images):
        return self.head(self.encode(images))


class ModelEncodingWithChannelsFirst(Model):
    def encode(self, images):
        return super().encode(images).mT

    def forward(self, images):
        return self.head(self.encode(images)[..., 0])


class ModelEncodingEveryBlock(Model):
    def encode(self, images):
        return super().encode(images), self.embed(images)

    def forward(self, images):
        return self.head(self.encode(images)[0][:, 0])


class ModelEncodingWithoutGradients(Model):
    def encode(self, images):
        with torch.no_grad():
            return super().encode(images)

    def forward(self, images):
        return self.head(super().encode(images)[:, 0])


class ModelEncodingInEvaluation(Model):
    """encode leaves the model in evaluation mode."""

    def encode(self, images):
        self.eval()
        return super().encode(images)


class ModelThatRefusesNothing(Model):
    def refuse(self, images):
        pass


class ModelCountingPatches(Model):
    """A size with as many patches passes, whatever its shape."""

    def refuse(self, images):
        size = self.patch.patch_size
        count = 1 + images.size(2) // size * (images.size(3) // size)
        if count != len(self.position):
            raise ValueError(f"images of {tuple(images.shape[-2:])}, not {self.image_size}")


class ModelCountingPixels(Model):
    def refuse(self, images):
        if images.size(2) * images.size(3) != math.prod(self.image_size):
            raise ValueError(f"images of {tuple(images.shape[-2:])}, not {self.image_size}")


class ModelCheckingHeights(Model):
    def refuse(self, images):
        if images.size(2) != self.image_size[0]:
            raise ValueError(f"images of {tuple(images.shape[-2:])}, not {self.image_size}")


class ModelCheckingWidths(Model):
    def refuse(self, images):
        if images.size(3) != self.image_size[1]:
            raise ValueError(f"images of {tuple(images.shape[-2:])}, not {self.image_size}")


class ModelRefusingLargeImages(Model):
    def refuse(self, images):
        if images.size(2) > self.image_size[0] or images.size(3) > self.image_size[1]:
            raise ValueError(f"images of {tuple(images.shape[-2:])}, not {self.image_size}")

    def add(self, x):
        return x + self.position[: x.size(1)] + 0 * self.position.sum()


class ModelThatCuts(Model):
    """Large images are cropped."""

    def encode(self, images):
        height, width = self.image_size
        return super().encode(images[..., :height, :width])


class ModelThatResizes(Model):
    def encode(self, images):
        if tuple(images.shape[-2:]) != self.image_size:
            images = F.interpolate(images, size=self.image_size)
        return super().encode(images)


class ModelThatResizesPositions(Model):
    """Runs at every size, as Hugging Face's does where it is told to."""

    def refuse(self, images):
        self.size = images.shape[-2:]

    def add(self, x):
        patch = self.patch.patch_size
        rows, columns = (size // patch for size in self.image_size)
        grid = [size // patch for size in self.size]
        picture = self.position[1:].mT.reshape(1, -1, rows, columns)
        picture = F.interpolate(picture, size=grid, mode="bicubic", align_corners=False)
        return x + torch.cat([self.position[:1], picture[0].flatten(1).mT])


class ModelThatAsserts(Model):
    def refuse(self, images):
        assert tuple(images.shape[-2:]) == self.image_size, (
            f"images of {tuple(images.shape[-2:])}, not {self.image_size}"
        )


class ModelThatNamesNoNumbers(Model):
    def refuse(self, images):
        if tuple(images.shape[-2:]) != self.image_size:
            raise ValueError("The images have another size than the model was built for.")


class ModelThatNamesItsOwnSize(Model):
    def refuse(self, images):
        if tuple(images.shape[-2:]) != self.image_size:
            raise ValueError(f"Resize the images to {self.image_size}.")


class ModelThatNamesTheImagesSize(Model):
    def refuse(self, images):
        if tuple(images.shape[-2:]) != self.image_size:
            raise ValueError(f"Images of {tuple(images.shape[-2:])} do not fit.")


class ModelThatNamesNumbersOfPixels(Model):
    def refuse(self, images):
        if tuple(images.shape[-2:]) != self.image_size:
            found, wanted = math.prod(images.shape[-2:]), math.prod(self.image_size)
            raise ValueError(f"{found} pixels, not {wanted}")


class ModelRefusingInForwardOnly(Model):
    """encode takes what it gets."""

    def encode(self, images):
        return self.norm(self.through(self.embed(images)))

    def forward(self, images):
        self.refuse(images)
        return super().forward(images)


class ModelRefusingInTraining(Model):
    def refuse(self, images):
        if self.training:
            super().refuse(images)


class ModelOfAnyBuildingSize(Model):
    """The constructor takes what cannot be cut."""

    def refuse_size(self, height, width, patch_size):
        pass


class ModelCheckingTheBuildingHeight(Model):
    def refuse_size(self, height, width, patch_size):
        refuse_height(height, width, patch_size)


class ModelCheckingTheBuildingWidth(Model):
    def refuse_size(self, height, width, patch_size):
        refuse_width(height, width, patch_size)


class ModelCheckingTheBuildingArea(Model):
    def refuse_size(self, height, width, patch_size):
        refuse_the_area(height, width, patch_size)


class ModelAssertingTheBuildingSize(Model):
    def refuse_size(self, height, width, patch_size):
        refuse_by_assertion(height, width, patch_size)


class ModelRefusingToBuildLate(Model):
    """The error comes with the first images."""

    def refuse_size(self, height, width, patch_size):
        self.late = height, width, patch_size

    def refuse(self, images):
        refuse_cut(*self.late)
        super().refuse(images)


class ModelOfSquares(Model):
    """Of (height, width) the height counts twice."""

    def two(self, size):
        return (size, size) if isinstance(size, int) else (size[0], size[0])


class ModelOfWidthAndHeight(Model):
    def two(self, size):
        return (size, size) if isinstance(size, int) else tuple(size[::-1])


class ModelOfSquaresOnly(Model):
    """A pair of sizes cannot be given."""

    def two(self, size):
        return int(size), int(size)


class ModelOfPairsOnly(Model):
    def two(self, size):
        height, width = size
        return height, width


class ModelRefusingWhatIsNoSquare(Model):
    def refuse_size(self, height, width, patch_size):
        super().refuse_size(height, width, patch_size)
        if height != width:
            raise ValueError(f"{height} x {width} pixels with patches of {patch_size}: no square")


class ModelWithoutDropout(Model):
    """The rate is not looked at."""

    def __init__(self, *sizes, **more):
        super().__init__(*sizes[:8], **{name: more[name] for name in more if name != "dropout"})


class ModelNotDroppingEmbeddings(Model):
    def embed(self, images):
        return self.add(torch.cat([self.first(images), self.patch(images)], dim=1))


class ModelNotDroppingInBlocks(Model):
    def __init__(self, *sizes, **more):
        super().__init__(*sizes, **more)
        for block in self.blocks:
            for part in block.modules():
                if isinstance(part, nn.Dropout):
                    part.p = 0.0


class ModelDroppingInEvaluation(Model):
    def embed(self, images):
        x = torch.cat([self.first(images), self.patch(images)], dim=1)
        return F.dropout(self.add(x), self.dropout.p)


class ModelDroppingBeforeThePositions(Model):
    def embed(self, images):
        return self.add(self.dropout(torch.cat([self.first(images), self.patch(images)], dim=1)))


class ModelDroppingPatchesOnly(Model):
    def embed(self, images):
        x = self.add(torch.cat([self.first(images), self.patch(images)], dim=1))
        return torch.cat([x[:, :1], self.dropout(x[:, 1:])], dim=1)


class ModelDroppingPositions(Model):
    """Before the sum, and the same for all images."""

    def add(self, x):
        return x + self.dropout(self.position)

    def embed(self, images):
        return self.add(torch.cat([self.first(images), self.patch(images)], dim=1))


class ModelDroppingAtTheEndToo(Model):
    def summary(self, vectors):
        return self.dropout(vectors[:, 0])


class ModelDroppingWholePatches(Model):
    def __init__(self, *sizes, **more):
        super().__init__(*sizes, **more)
        self.dropout = DropVectors(self.dropout.p)


class ModelOfOneBlock(Model):
    """One block, run as often as there should be blocks."""

    def __init__(self, *sizes, **more):
        super().__init__(*sizes, **more)
        self.times = len(self.blocks)
        self.blocks = self.blocks[:1]

    def through(self, x):
        for _ in range(self.times):
            x = self.blocks[0](x)
        return x


class ModelSharingItsBlocks(Model):
    def __init__(self, *sizes, **more):
        super().__init__(*sizes, **more)
        self.blocks = nn.ModuleList([self.blocks[0]] * len(self.blocks))


class ModelRunningTheFirstBlockAgain(Model):
    def through(self, x):
        for _ in self.blocks:
            x = self.blocks[0](x)
        return x


class ModelWithAPlainList(Model):
    def __init__(self, *sizes, **more):
        super().__init__(*sizes, **more)
        plain = list(self.blocks)
        del self.blocks
        self.blocks = plain


class ModelBackwards(Model):
    def through(self, x):
        for block in reversed(self.blocks):
            x = block(x)
        return x


class ModelWithoutTheLastBlock(Model):
    def through(self, x):
        for block in self.blocks[:-1]:
            x = block(x)
        return x


class ModelForgettingResults(Model):
    """Each block is given what the first was given."""

    def through(self, x):
        for block in self.blocks:
            y = block(x)
        return y


class ModelAddingAroundBlocks(Model):
    def through(self, x):
        for block in self.blocks:
            x = x + block(x)
        return x


class ModelOfPostNormBlocks(Model):
    block = WRONG_BLOCKS["BlockPostNorm"]


class ModelOfGptsBlocks(Model):
    block = BlockOfGpt


class ModelOfTanhBlocks(Model):
    block = BlockWithTanhGelu


class ModelOfBlocksWithPyTorchsEps(Model):
    block = BlockWithPyTorchsEps


class ModelOfBlocksFourTimesAsWide(Model):
    block = BlockFourTimesAsWide


class ModelOfBlocksWithOneHead(Model):
    block = BlockOfOneHead


class ModelOfPatchesWithChannelsFirst(Model):
    embedding = EmbeddingWithChannelsFirst


class ModelOfPatchesDownTheColumns(Model):
    embedding = EmbeddingDownTheColumns


class ModelOfThreeChannels(Model):
    embedding = EmbeddingOfThreeChannels


class ModelInGray(Model):
    def embed(self, images):
        return super().embed(images.mean(1, keepdim=True).expand_as(images))


class ModelWithScaledPatches(Model):
    def embed(self, images):
        x = torch.cat([self.first(images), self.patch(images)], dim=1)
        return self.dropout(self.add(math.sqrt(x.size(-1)) * x))


class ModelNormalizingItsImages(Model):
    def encode(self, images):
        return super().encode((images - 0.5) / 0.5)


class ModelNormalizingInPlace(Model):
    def encode(self, images):
        images.data.sub_(0.5).div_(0.5)
        return super().encode(images)


class ModelChangingItsTable(Model):
    """The class token is added into the table, again in each call."""

    def first(self, images):
        return torch.zeros_like(super().first(images)) + 0 * self.class_token

    def add(self, x):
        with torch.no_grad():
            self.position[0] += self.class_token
        return x + self.position


class ModelOfTheFirstImage(Model):
    def forward(self, images):
        logits = super().forward(images)
        return logits[:1].expand_as(logits)


class ModelThatRemembers(Model):
    kept = None

    def encode(self, images):
        if self.kept is None or len(self.kept) != len(images):
            self.kept = super().encode(images)
        return self.kept


class ModelWithATokenOfThreeAxes(Model):
    """Shapes as in timm: (1, 1, d_model) and (1, 1 + patches, d_model)."""

    def __init__(self, *sizes, **more):
        super().__init__(*sizes, **more)
        self.class_token = nn.Parameter(self.class_token.detach()[None, None])
        self.position = nn.Parameter(self.position.detach()[None])


class ModelWithATableOfThreeAxes(Model):
    def __init__(self, *sizes, **more):
        super().__init__(*sizes, **more)
        self.position = nn.Parameter(self.position.detach()[None])


class ModelWithAnEmbedding(Model):
    """The table is an nn.Embedding: its parameter is position.weight."""

    def __init__(self, *sizes, **more):
        super().__init__(*sizes, **more)
        count, width = self.position.shape
        del self.position
        self.position = nn.Embedding(count, width)

    def add(self, x):
        return x + self.position.weight


class ModelWithoutARowForTheClassToken(Model):
    def __init__(self, *sizes, **more):
        super().__init__(*sizes, **more)
        self.position = nn.Parameter(self.position.detach()[1:])

    def embed(self, images):
        return self.dropout(torch.cat([self.first(images), self.patch(images) + self.position], 1))


class ModelWithABufferOfPositions(Model):
    def __init__(self, *sizes, **more):
        super().__init__(*sizes, **more)
        table = self.position.detach()
        del self.position
        self.register_buffer("position", table)


class ModelWithABufferForAToken(Model):
    def __init__(self, *sizes, **more):
        super().__init__(*sizes, **more)
        token = self.class_token.detach()
        del self.class_token
        self.register_buffer("class_token", token)


class ModelWithTimmsNames(Model):
    def __init__(self, *sizes, **more):
        super().__init__(*sizes, **more)
        self.cls_token, self.pos_embed = self.class_token, self.position
        del self.class_token, self.position

    def first(self, images):
        return self.cls_token.expand(len(images), 1, -1)

    def add(self, x):
        return x + self.pos_embed


class ModelWithATwoLayerHead(Model):
    """The paper's head for pre-training: one hidden layer."""

    def __init__(self, *sizes, **more):
        super().__init__(*sizes, **more)
        self.hidden = nn.Linear(self.head.in_features, self.head.in_features)

    def summary(self, vectors):
        return torch.tanh(self.hidden(vectors[:, 0]))


class ModelWithoutABiasInTheHead(Model):
    def __init__(self, *sizes, **more):
        super().__init__(*sizes, **more)
        self.head = nn.Linear(self.head.in_features, self.head.out_features, bias=False)


class ModelWithOneClassMore(Model):
    def __init__(self, image_size, patch_size, channels, num_classes, *sizes, **more):
        super().__init__(image_size, patch_size, channels, num_classes + 1, *sizes, **more)


class ModelWithNoise(Model):
    def embed(self, images):
        x = super().embed(images)
        return x + 0.01 * torch.randn_like(x)


class ModelThroughFloat32(Model):
    def through(self, x):
        return super().through(x).float().to(x.dtype)


class ModelWithoutTheAttribute(nn.Module):
    """Everything lies in one part more."""

    def __init__(self, *sizes, **more):
        super().__init__()
        self.model = Model(*sizes, **more)

    def encode(self, images):
        return self.model.encode(images)

    def forward(self, images):
        return self.model(images)


class ModelWithoutEncode(nn.Module):
    """The method has another name."""

    def __init__(self, *sizes, **more):
        super().__init__()
        parts = Model(*sizes, **more)
        self.patch, self.blocks, self.norm, self.head = (
            parts.patch,
            parts.blocks,
            parts.norm,
            parts.head,
        )
        self.class_token, self.position = parts.class_token, parts.position
        self.dropout, self.image_size = parts.dropout, parts.image_size

    def features(self, images):
        if tuple(images.shape[-2:]) != self.image_size:
            raise ValueError(f"images of {tuple(images.shape[-2:])}, not {self.image_size}")
        x = torch.cat([self.class_token.expand(len(images), 1, -1), self.patch(images)], dim=1)
        x = self.dropout(x + self.position)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def forward(self, images):
        return self.head(self.features(images)[:, 0])


# ---- interpolate_positions -----------------------------------------------------------------


def refuse_table(count, rows, columns):
    if count != 1 + rows * columns:
        raise ValueError(f"{count} rows, and {1 + rows * columns} positions of the grid")


def bicubic(picture, size):
    return F.interpolate(picture, size=size, mode="bicubic", align_corners=False)


def to_picture(others, grid):
    return others.mT.reshape(1, -1, *grid)


def to_rows(picture):
    return picture[0].flatten(1).mT


def join_rows(first, others):
    return torch.cat([first, others])


def resized(
    table,
    old_grid,
    new_grid,
    refuse=refuse_table,
    resize=bicubic,
    picture=to_picture,
    rows=to_rows,
    join=join_rows,
):
    """Right, but for what is done to one of its steps."""
    refuse(len(table), *old_grid)
    new = resize(picture(table[1:], tuple(old_grid)), tuple(new_grid))
    return join(table[:1], rows(new))


def _resizing(name, finish=lambda table: table, start=lambda table: table, **changes):
    def interpolate_positions(table, old_grid, new_grid):
        return finish(resized(start(table), old_grid, new_grid, **changes))

    interpolate_positions.__name__ = name
    return interpolate_positions


def _mode(name, **how):
    def resize(picture, size):
        return F.interpolate(picture, size=size, **how)

    return _resizing(name, resize=resize)


interpolate_linearly = _mode("interpolate_linearly", mode="bilinear", align_corners=False)
interpolate_linearly_from_corner_to_corner = _mode(
    "interpolate_linearly_from_corner_to_corner", mode="bilinear", align_corners=True
)
interpolate_to_the_nearest = _mode("interpolate_to_the_nearest", mode="nearest")
interpolate_to_the_exactly_nearest = _mode(
    "interpolate_to_the_exactly_nearest", mode="nearest-exact"
)
interpolate_areas = _mode("interpolate_areas", mode="area")
interpolate_from_corner_to_corner = _mode(
    "interpolate_from_corner_to_corner", mode="bicubic", align_corners=True
)
interpolate_smoothed = _mode(
    "interpolate_smoothed", mode="bicubic", align_corners=False, antialias=True
)


def interpolate_by_a_factor(table, old_grid, new_grid):
    """A factor of a little more, as the code of DINO has it."""

    def resize(picture, size):
        factors = [(new + 0.1) / old for new, old in zip(size, old_grid, strict=True)]
        return F.interpolate(picture, scale_factor=factors, mode="bicubic", align_corners=False)

    return resized(table, old_grid, new_grid, resize=resize)


def interpolate_by_one_factor(table, old_grid, new_grid):
    """The root of the ratio of the numbers of patches, for rows and columns alike."""
    factor = math.sqrt(math.prod(new_grid) / math.prod(old_grid))

    def resize(picture, size):
        return F.interpolate(picture, scale_factor=factor, mode="bicubic", align_corners=False)

    return resized(table, old_grid, new_grid, resize=resize)


def interpolate_by_whole_factors(table, old_grid, new_grid):
    """Right where the new grid is a multiple of the old one."""

    def resize(picture, size):
        factors = [float(max(1, new // old)) for new, old in zip(size, old_grid, strict=True)]
        return F.interpolate(picture, scale_factor=factors, mode="bicubic", align_corners=False)

    return resized(table, old_grid, new_grid, resize=resize)


def interpolate_in_one_dimension(table, old_grid, new_grid):
    def resize(picture, size):
        flat = F.interpolate(picture.flatten(2), size=math.prod(size), mode="linear")
        return flat.unflatten(2, size)

    return resized(table, old_grid, new_grid, resize=resize)


def interpolate_in_one_dimension_cubically(table, old_grid, new_grid):
    """All patches as a picture one row high."""

    def resize(picture, size):
        return bicubic(picture.flatten(2)[:, :, None], (1, math.prod(size)))

    return resized(table, old_grid, new_grid, resize=resize)


def interpolate_vectors_as_well(table, old_grid, new_grid):
    """The table itself is a picture, with d_model columns."""
    refuse_table(len(table), *old_grid)
    others = bicubic(table[None, None, 1:], (math.prod(new_grid), table.size(1)))
    return torch.cat([table[:1], others[0, 0]])


def interpolate_by_the_other_cubic(table, old_grid, new_grid):
    """A = -0.5, as Pillow's, where PyTorch's is -0.75."""

    def matrix(old, new):
        result = torch.zeros(new, old, dtype=table.dtype)
        for row in range(new):
            place = (row + 0.5) * old / new - 0.5
            for near in range(math.floor(place) - 1, math.floor(place) + 3):
                x = abs(place - near)
                share = (
                    (1.5 * x - 2.5) * x * x + 1 if x <= 1 else ((-0.5 * x + 2.5) * x - 4) * x + 2
                )
                result[row, min(max(near, 0), old - 1)] += share
        return result

    def resize(picture, size):
        down, across = map(matrix, old_grid, size)
        return torch.einsum("ah,bw,ndhw->ndab", down, across, picture)

    return resized(table, old_grid, new_grid, resize=resize)


def interpolate_with_zeros_around(table, old_grid, new_grid):
    """Beyond the border there are zeros."""

    def resize(picture, size):
        ys, xs = ((2 * torch.arange(n, dtype=picture.dtype) + 1) / n - 1 for n in size)
        places = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1)[None]
        return F.grid_sample(picture, places, mode="bicubic", align_corners=False)

    return resized(table, old_grid, new_grid, resize=resize)


def interpolate_cropping(table, old_grid, new_grid):
    """Smaller grids get the top left part of the table."""

    def resize(picture, size):
        if size[0] <= old_grid[0] and size[1] <= old_grid[1]:
            return picture[:, :, : size[0], : size[1]]
        return bicubic(picture, size)

    return resized(table, old_grid, new_grid, resize=resize)


def interpolate_repeating(table, old_grid, new_grid):
    """Larger grids get the table again and again."""

    def resize(picture, size):
        times = [-(-new // old) for new, old in zip(size, old_grid, strict=True)]
        return picture.repeat(1, 1, *times)[:, :, : size[0], : size[1]]

    return resized(table, old_grid, new_grid, resize=resize)


def interpolate_with_zeros_for_new_places(table, old_grid, new_grid):
    def resize(picture, size):
        old = picture.shape[2:]
        return F.pad(picture, (0, size[1] - old[1], 0, size[0] - old[0]))

    return resized(table, old_grid, new_grid, resize=resize)


def interpolate_in_two_steps(table, old_grid, new_grid):
    """By way of twice the grid."""

    def resize(picture, size):
        return bicubic(bicubic(picture, [2 * n for n in picture.shape[2:]]), size)

    def resize_unless_equal(picture, size):
        return picture if tuple(picture.shape[2:]) == size else resize(picture, size)

    return resized(table, old_grid, new_grid, resize=resize_unless_equal)


interpolate_reading_vectors_as_pictures = _resizing(
    "interpolate_reading_vectors_as_pictures",
    picture=lambda others, grid: others.reshape(1, -1, *grid),
)
interpolate_with_a_reshape_at_the_end = _resizing(
    "interpolate_with_a_reshape_at_the_end",
    rows=lambda new: new[0].reshape(-1, new.size(1)),
)
interpolate_with_two_reshapes = _resizing(
    "interpolate_with_two_reshapes",
    picture=lambda others, grid: others.reshape(1, -1, *grid),
    rows=lambda new: new[0].reshape(-1, new.size(1)),
)
interpolate_down_the_columns = _resizing(
    "interpolate_down_the_columns",
    picture=lambda others, grid: others.mT.reshape(1, -1, grid[1], grid[0]).mT,
)
interpolate_writing_down_the_columns = _resizing(
    "interpolate_writing_down_the_columns", rows=lambda new: new.mT[0].flatten(1).mT
)
interpolate_columns_for_rows = _resizing(
    "interpolate_columns_for_rows",
    picture=lambda others, grid: others.mT.reshape(1, -1, *grid[::-1]),
)
interpolate_with_channels_first = _resizing(
    "interpolate_with_channels_first", rows=lambda new: new[0].flatten(1)
)


def interpolate_with_the_new_grid_swapped(table, old_grid, new_grid):
    return resized(table, old_grid, tuple(new_grid)[::-1])


def interpolate_with_both_grids_swapped(table, old_grid, new_grid):
    return resized(table, tuple(old_grid)[::-1], tuple(new_grid)[::-1])


def interpolate_with_grids_exchanged(table, old_grid, new_grid):
    return resized(table, new_grid, old_grid)


def interpolate_from_squares(table, old_grid, new_grid):
    """The old grid is the root of the number of rows."""
    refuse_table(len(table), *old_grid)
    side = math.isqrt(len(table) - 1)
    return resized(table, (side, side), new_grid)


def interpolate_to_squares(table, old_grid, new_grid):
    return resized(table, old_grid, (new_grid[0], new_grid[0]))


def interpolate_refusing_what_is_no_square(table, old_grid, new_grid):
    if old_grid[0] != old_grid[1] or new_grid[0] != new_grid[1]:
        raise ValueError(f"{old_grid} and {new_grid} must be squares, {len(table)} rows")
    return resized(table, old_grid, new_grid)


def interpolate_nothing(table, old_grid, new_grid):
    refuse_table(len(table), *old_grid)
    return table


def interpolate_rows_only(table, old_grid, new_grid):
    return resized(table, old_grid, (new_grid[0], old_grid[1]))


def interpolate_only_upwards(table, old_grid, new_grid):
    if math.prod(new_grid) <= math.prod(old_grid):
        refuse_table(len(table), *old_grid)
        return table[: 1 + math.prod(new_grid)]
    return resized(table, old_grid, new_grid)


def interpolate_unless_as_many(table, old_grid, new_grid):
    """Another shape with as many patches gets the table as it is."""
    refuse_table(len(table), *old_grid)
    if math.prod(new_grid) == math.prod(old_grid):
        return table
    return resized(table, old_grid, new_grid)


def interpolate_the_class_token_too(table, old_grid, new_grid):
    """Its row is taken for the first patch's, and the last patch's is left out."""
    refuse_table(len(table), *old_grid)
    new = bicubic(to_picture(table[:-1], tuple(old_grid)), tuple(new_grid))
    return torch.cat([table[:1], to_rows(new)])


def interpolate_with_the_class_token_last(table, old_grid, new_grid):
    refuse_table(len(table), *old_grid)
    new = bicubic(to_picture(table[:-1], tuple(old_grid)), tuple(new_grid))
    return torch.cat([to_rows(new), table[-1:]])


interpolate_moving_the_class_token = _resizing(
    "interpolate_moving_the_class_token", join=lambda first, others: torch.cat([others, first])
)
interpolate_losing_the_class_token = _resizing(
    "interpolate_losing_the_class_token", join=lambda first, others: others
)
interpolate_with_zeros_for_the_class_token = _resizing(
    "interpolate_with_zeros_for_the_class_token",
    join=lambda first, others: F.pad(others, (0, 0, 1, 0)),
)
interpolate_with_the_mean_for_the_class_token = _resizing(
    "interpolate_with_the_mean_for_the_class_token",
    join=lambda first, others: torch.cat([others.mean(0, keepdim=True), others]),
)
interpolate_detaching_the_class_token = _resizing(
    "interpolate_detaching_the_class_token",
    join=lambda first, others: torch.cat([first.detach(), others]),
)
interpolate_detaching_the_others = _resizing(
    "interpolate_detaching_the_others",
    join=lambda first, others: torch.cat([first, others.detach()]),
)
interpolate_detached = _resizing("interpolate_detached", torch.Tensor.detach)
interpolate_as_a_parameter = _resizing("interpolate_as_a_parameter", nn.Parameter)
interpolate_as_a_fresh_leaf = _resizing(
    "interpolate_as_a_fresh_leaf", lambda table: table.detach().requires_grad_()
)
interpolate_in_float32 = _resizing("interpolate_in_float32", start=torch.Tensor.float)
interpolate_in_float64 = _resizing("interpolate_in_float64", start=torch.Tensor.double)
interpolate_with_a_batch = _resizing("interpolate_with_a_batch", lambda table: table[None])
interpolate_as_a_pair = _resizing(
    "interpolate_as_a_pair", join=lambda first, others: (first, others)
)
interpolate_clamped = _resizing("interpolate_clamped", lambda table: table.clamp(-1, 1))
interpolate_with_lengths_of_one = _resizing(
    "interpolate_with_lengths_of_one",
    rows=lambda new: F.normalize(to_rows(new), dim=-1),
)


def interpolate_in_place(table, old_grid, new_grid):
    result = resized(table, old_grid, new_grid)
    table.data[0] = 0
    return result


def interpolate_growing_the_table(table, old_grid, new_grid):
    """The table that it is given becomes the result."""
    result = resized(table, old_grid, new_grid)
    table.data = result.detach().clone()
    return result


def interpolate_that_remembers(table, old_grid, new_grid, kept={}):  # noqa: B006
    key = (tuple(table.shape), table.dtype, tuple(old_grid), tuple(new_grid))
    if key not in kept:
        kept[key] = resized(table, old_grid, new_grid)
    return kept[key]


def interpolate_by_view(table, old_grid, new_grid):
    """Fails where the memory is not contiguous."""
    refuse_table(len(table), *old_grid)
    picture = table.view(-1)[table.size(1) :].view(1, *old_grid, -1).permute(0, 3, 1, 2)
    return torch.cat([table[:1], to_rows(bicubic(picture, tuple(new_grid)))])


def interpolate_through_numpy(table, old_grid, new_grid):
    picture = torch.from_numpy(np.array(table.detach()[1:].numpy()))
    refuse_table(len(table), *old_grid)
    new = bicubic(to_picture(picture, tuple(old_grid)), tuple(new_grid))
    return torch.cat([table[:1], to_rows(new)])


def interpolate_refusing_equal_grids(table, old_grid, new_grid):
    if tuple(old_grid) == tuple(new_grid):
        raise ValueError(f"{old_grid} and {new_grid} are equal: {len(table)} rows stay")
    return resized(table, old_grid, new_grid)


def interpolate_with_noise(table, old_grid, new_grid):
    result = resized(table, old_grid, new_grid)
    return result + 1e-3 * torch.randn_like(result)


def refuse_no_table(count, rows, columns):
    pass


def refuse_tables_by_assertion(count, rows, columns):
    assert count == 1 + rows * columns, f"{count} rows, not {1 + rows * columns}"


def refuse_tables_with_a_runtime_error(count, rows, columns):
    if count != 1 + rows * columns:
        raise RuntimeError(f"{count} rows, not {1 + rows * columns}")


def refuse_tables_without_numbers(count, rows, columns):
    if count != 1 + rows * columns:
        raise ValueError("The table does not fit the old grid.")


def refuse_tables_naming_their_rows(count, rows, columns):
    if count != 1 + rows * columns:
        raise ValueError(f"A table of {count} rows does not fit the old grid.")


def refuse_tables_naming_the_grids(count, rows, columns):
    if count != 1 + rows * columns:
        raise ValueError(f"The table should have {1 + rows * columns} rows.")


def refuse_short_tables(count, rows, columns):
    if count < 1 + rows * columns:
        raise ValueError(f"{count} rows, not {1 + rows * columns}")


def refuse_long_tables(count, rows, columns):
    if count > 1 + rows * columns:
        raise ValueError(f"{count} rows, not {1 + rows * columns}")


def refuse_tables_with_a_class_token(count, rows, columns):
    """The class token's row is forgotten."""
    if count != rows * columns:
        raise ValueError(f"{count} rows, not {rows * columns}")


REFUSED_TABLES = {
    "interpolate_refusing_nothing": refuse_no_table,
    "interpolate_refusing_by_assertion": refuse_tables_by_assertion,
    "interpolate_refusing_with_a_runtime_error": refuse_tables_with_a_runtime_error,
    "interpolate_refusing_without_numbers": refuse_tables_without_numbers,
    "interpolate_naming_the_tables_rows": refuse_tables_naming_their_rows,
    "interpolate_naming_the_grids_positions": refuse_tables_naming_the_grids,
    "interpolate_refusing_short_tables": refuse_short_tables,
    "interpolate_refusing_long_tables": refuse_long_tables,
    "interpolate_refusing_tables_with_a_class_token": refuse_tables_with_a_class_token,
}
refusing_interpolate = [_resizing(name, refuse=refuse) for name, refuse in REFUSED_TABLES.items()]


def interpolate_cutting_the_table(table, old_grid, new_grid):
    """What the old grid does not need is left out, and what it lacks is 0."""
    lacking = 1 + math.prod(old_grid) - len(table)
    return resized(F.pad(table, (0, 0, 0, lacking)), old_grid, new_grid)


def interpolate_from_the_root_of_the_rows(table, old_grid, new_grid):
    """A table that does not fit is taken for that of a square."""
    if len(table) != 1 + math.prod(old_grid):
        old_grid = root(len(table) - 1)
    return resized(table, old_grid, new_grid)


# ---- mean_attention_distance ---------------------------------------------------------------


def refuse_weights(number, rows, columns):
    if number != 1 + rows * columns:
        raise ValueError(f"{number} positions, and {1 + rows * columns} in the grid")


def places_of(rows, columns):
    return torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).view(-1, 2)


def euclid(difference):
    return difference.norm(dim=-1)


def distances(grid, patch_size, like, places=places_of, length=euclid):
    place = patch_size * places(*grid).to(like)
    return length(place[:, None] - place)


def patches_only(weights):
    return weights[..., 1:, 1:]


def rows_to_one(among):
    return among / among.sum(-1, keepdim=True)


def mean_of_all(terms):
    return terms.mean(dim=(0, 2))


def looked(
    weights,
    grid,
    patch_size,
    refuse=refuse_weights,
    among=patches_only,
    normal=rows_to_one,
    pixels=distances,
    mean=mean_of_all,
):
    """Right, but for what is done to one of its steps."""
    refuse(weights.shape[-1], *grid)
    share = normal(among(weights))
    return mean((share * pixels(grid, patch_size, share)).sum(-1))


def _looking(name, finish=lambda result: result, start=lambda weights: weights, **changes):
    def mean_attention_distance(weights, grid, patch_size):
        return finish(looked(start(weights), grid, patch_size, **changes))

    mean_attention_distance.__name__ = name
    return mean_attention_distance


def _measuring(name, **changes):
    return _looking(name, pixels=functools.partial(distances, **changes))


distance_without_renormalizing = _looking("distance_without_renormalizing", normal=lambda a: a)
distance_renormalizing_columns = _looking(
    "distance_renormalizing_columns", normal=lambda a: a / a.sum(-2, keepdim=True)
)
distance_renormalizing_all = _looking(
    "distance_renormalizing_all",
    normal=lambda a: a / a.sum((-2, -1), keepdim=True) * a.size(-1),
)
distance_by_another_softmax = _looking(
    "distance_by_another_softmax", normal=lambda a: a.softmax(-1)
)
distance_renormalizing_by_length = _looking(
    "distance_renormalizing_by_length", normal=lambda a: F.normalize(a, dim=-1)
)
distance_spreading_what_is_missing = _looking(
    "distance_spreading_what_is_missing",
    normal=lambda a: a + (1 - a.sum(-1, keepdim=True)) / a.size(-1),
)
distance_of_the_strongest = _looking(
    "distance_of_the_strongest",
    normal=lambda a: F.one_hot(a.argmax(-1), a.size(-1)).to(a.dtype),
)
distance_of_equal_weights = _looking(
    "distance_of_equal_weights", normal=lambda a: torch.full_like(a, 1 / a.size(-1))
)
distance_of_squared_weights = _looking(
    "distance_of_squared_weights", normal=lambda a: rows_to_one(a**2)
)
distance_without_itself = _looking(
    "distance_without_itself",
    normal=lambda a: rows_to_one(a * (1 - torch.eye(a.size(-1), dtype=a.dtype))),
)
distance_of_keys = _looking("distance_of_keys", among=lambda w: patches_only(w).mT)
distance_with_the_class_token_last = _looking(
    "distance_with_the_class_token_last", among=lambda w: w[..., :-1, :-1]
)
distance_keeping_the_query_of_the_class_token = _looking(
    "distance_keeping_the_query_of_the_class_token", among=lambda w: w[..., :-1, 1:]
)
distance_keeping_the_key_of_the_class_token = _looking(
    "distance_keeping_the_key_of_the_class_token", among=lambda w: w[..., 1:, :-1]
)


def distance_counted_in_patches(weights, grid, patch_size):
    return looked(weights, grid, 1)


def distance_times_the_area(weights, grid, patch_size):
    return looked(weights, grid, patch_size**2)


def distance_over_the_patch_size(weights, grid, patch_size):
    return looked(weights, grid, 1 / patch_size)


def distance_of_sixteen(weights, grid, patch_size):
    return looked(weights, grid, 16)


def distance_of_the_image(weights, grid, patch_size):
    """As a share of the image's width."""
    return looked(weights, grid, patch_size) / (grid[1] * patch_size)


def distance_with_gaps(weights, grid, patch_size):
    """From edge to edge: patches beside each other have none."""

    def pixels(grid, patch_size, like):
        return (distances(grid, patch_size, like) - patch_size).clamp(min=0)

    return looked(weights, grid, patch_size, pixels=pixels)


distance_of_city_blocks = _measuring(
    "distance_of_city_blocks", length=lambda difference: difference.abs().sum(-1)
)
distance_of_the_longer_side = _measuring(
    "distance_of_the_longer_side", length=lambda difference: difference.abs().amax(-1)
)
distance_squared = _measuring("distance_squared", length=lambda difference: (difference**2).sum(-1))
distance_of_rows = _measuring(
    "distance_of_rows", length=lambda difference: difference[..., 0].abs()
)
distance_of_columns = _measuring(
    "distance_of_columns", length=lambda difference: difference[..., 1].abs()
)
distance_with_signs = _measuring(
    "distance_with_signs", length=lambda difference: difference.sum(-1)
)
distance_of_the_sum_of_roots = _measuring(
    "distance_of_the_sum_of_roots",
    length=lambda difference: (difference.sum(-1) ** 2).sqrt(),
)
distance_in_whole_pixels = _measuring(
    "distance_in_whole_pixels", length=lambda difference: euclid(difference).floor()
)
distance_along_the_sequence = _measuring(
    "distance_along_the_sequence",
    places=lambda rows, columns: torch.arange(rows * columns)[:, None],
)
distance_counting_from_the_class_token = _measuring(
    "distance_counting_from_the_class_token",
    places=lambda rows, columns: torch.stack(
        [
            torch.arange(1, rows * columns + 1) // columns,
            torch.arange(1, rows * columns + 1) % columns,
        ],
        dim=-1,
    ),
)
distance_on_the_unit_square = _measuring(
    "distance_on_the_unit_square",
    places=lambda rows, columns: places_of(rows, columns) / torch.tensor([rows, columns]),
)


def distance_with_the_grid_swapped(weights, grid, patch_size):
    return looked(weights, grid[::-1], patch_size)


def distance_on_squares(weights, grid, patch_size):
    """The grid is the root of the number of patches."""
    refuse_weights(weights.shape[-1], *grid)
    places = torch.arange(math.prod(grid))
    side = math.isqrt(len(places))
    place = patch_size * torch.stack([places // side, places % side], -1).to(weights)
    share = rows_to_one(patches_only(weights))
    return mean_of_all((share * euclid(place[:, None] - place)).sum(-1))


def distance_refusing_what_is_no_square(weights, grid, patch_size):
    if grid[0] != grid[1]:
        raise ValueError(f"{grid[0]} rows, {grid[1]} columns, {weights.size(-1)} positions")
    return looked(weights, grid, patch_size)


def distance_around_the_edges(weights, grid, patch_size):
    """As on a torus."""

    def length(difference):
        sides = patch_size * torch.tensor(grid).to(difference)
        return euclid(torch.minimum(difference.abs(), sides - difference.abs()))

    return looked(weights, grid, patch_size, pixels=functools.partial(distances, length=length))


def distance_from_the_middle(weights, grid, patch_size):
    """How far what is looked at lies from the middle of the image."""

    def pixels(grid, patch_size, like):
        place = patch_size * places_of(*grid).to(like)
        return euclid(place - place.mean(0))

    return looked(weights, grid, patch_size, pixels=pixels)


def distance_from_the_corner(weights, grid, patch_size):
    def pixels(grid, patch_size, like):
        return euclid(patch_size * places_of(*grid).to(like))

    return looked(weights, grid, patch_size, pixels=pixels)


def distance_to_the_mean_place(weights, grid, patch_size):
    """The length of the mean, where the mean of lengths is asked for."""
    refuse_weights(weights.shape[-1], *grid)
    place = patch_size * places_of(*grid).to(weights)
    share = rows_to_one(patches_only(weights))
    return mean_of_all(euclid(share @ place - place))


def distance_as_a_root_mean_square(weights, grid, patch_size):
    refuse_weights(weights.shape[-1], *grid)
    far = distances(grid, patch_size, weights)
    share = rows_to_one(patches_only(weights))
    return mean_of_all((share * far**2).sum(-1).sqrt())


def distance_of_the_mean_weights(weights, grid, patch_size):
    """Images are averaged before the rows are divided by their sums."""
    return looked(weights.mean(0, keepdim=True), grid, patch_size)


def distance_weighing_queries(weights, grid, patch_size):
    """One division at the end: queries that read the class token count less."""
    refuse_weights(weights.shape[-1], *grid)
    among = patches_only(weights)
    far = distances(grid, patch_size, weights)
    return (among * far).sum(dim=(0, 2, 3)) / among.sum(dim=(0, 2, 3))


def distance_with_the_class_token_as_a_query(weights, grid, patch_size):
    """It stands at the top left patch."""
    refuse_weights(weights.shape[-1], *grid)
    far = distances(grid, patch_size, weights)
    far = torch.cat([far[:1], far])
    return mean_of_all((rows_to_one(weights[..., 1:]) * far).sum(-1))


def distance_with_the_class_token_as_a_key(weights, grid, patch_size):
    """It is at no distance from anybody."""
    refuse_weights(weights.shape[-1], *grid)
    far = F.pad(distances(grid, patch_size, weights), (1, 0))
    return mean_of_all((weights[:, :, 1:] * far).sum(-1))


def distance_with_the_class_token_as_both(weights, grid, patch_size):
    refuse_weights(weights.shape[-1], *grid)
    far = F.pad(distances(grid, patch_size, weights), (1, 0, 1, 0))
    return mean_of_all((weights * far).sum(-1))


def distance_with_the_class_token_in_the_mean(weights, grid, patch_size):
    """Its row is 0, and counts."""
    result = looked(weights, grid, patch_size)
    return result * math.prod(grid) / (1 + math.prod(grid))


def distance_with_a_patch_for_the_class_token(weights, grid, patch_size):
    """All positions lie on the grid, the class token at its first place."""
    refuse_weights(weights.shape[-1], *grid)
    number = torch.arange(weights.shape[-1])
    place = torch.stack([number // grid[1], number % grid[1]], -1).to(weights) * patch_size
    return mean_of_all((weights * euclid(place[:, None] - place)).sum(-1))


distance_of_images = _looking("distance_of_images", mean=lambda terms: terms.mean(dim=(1, 2)))
distance_of_everything = _looking("distance_of_everything", mean=torch.Tensor.mean)
distance_of_each_image = _looking("distance_of_each_image", mean=lambda terms: terms.mean(-1))
distance_of_each_query = _looking("distance_of_each_query", mean=lambda terms: terms.mean(0))
distance_over_heads = _looking("distance_over_heads", mean=lambda terms: terms.mean(dim=(0, 1)))
distance_summed = _looking("distance_summed", mean=lambda terms: terms.sum(dim=(0, 2)))
distance_summed_over_queries = _looking(
    "distance_summed_over_queries", mean=lambda terms: terms.sum(-1).mean(0)
)
distance_summed_over_images = _looking(
    "distance_summed_over_images", mean=lambda terms: terms.mean(-1).sum(0)
)
distance_of_the_first_image = _looking(
    "distance_of_the_first_image", mean=lambda terms: terms[0].mean(-1)
)
distance_of_the_first_query = _looking(
    "distance_of_the_first_query", mean=lambda terms: terms[:, :, 0].mean(0)
)
distance_of_the_middle_query = _looking(
    "distance_of_the_middle_query",
    mean=lambda terms: terms[:, :, terms.size(-1) // 2].mean(0),
)
distance_of_the_median = _looking(
    "distance_of_the_median",
    mean=lambda terms: terms.transpose(0, 1).flatten(1).median(-1).values,
)
distance_of_the_farthest = _looking(
    "distance_of_the_farthest", mean=lambda terms: terms.amax(dim=(0, 2))
)
distance_keeping_an_axis = _looking("distance_keeping_an_axis", lambda result: result.unsqueeze(0))
distance_squeezed = _looking("distance_squeezed", torch.Tensor.squeeze)
distance_sorted = _looking("distance_sorted", lambda result: result.sort().values)
distance_as_a_list = _looking("distance_as_a_list", torch.Tensor.tolist)
distance_rounded = _looking("distance_rounded", torch.Tensor.round)
distance_as_integers = _looking("distance_as_integers", torch.Tensor.long)
distance_in_half = _looking(
    "distance_in_half", lambda result: result.double(), lambda weights: weights.bfloat16()
)


def distance_in_place(weights, grid, patch_size):
    """The rows are divided in the weights themselves."""
    refuse_weights(weights.shape[-1], *grid)
    among = weights.data[..., 1:, 1:]
    among /= among.sum(-1, keepdim=True)
    return mean_of_all((among * distances(grid, patch_size, among)).sum(-1))


def distance_silencing_the_class_token(weights, grid, patch_size):
    """Its row and column are set to 0 in the weights themselves."""
    result = looked(weights, grid, patch_size)
    weights.data[..., 0] = 0
    return result


def distance_of_four_heads(weights, grid, patch_size):
    return looked(weights, grid, patch_size)[:4]


def distance_that_remembers(weights, grid, patch_size, kept={}):  # noqa: B006
    """The distances of the first patch size stay, and so does the first grid of a length."""
    refuse_weights(weights.shape[-1], *grid)
    far = kept.setdefault(math.prod(grid), distances(grid, patch_size, torch.ones(1).double()))
    return mean_of_all((rows_to_one(patches_only(weights)) * far.to(weights)).sum(-1))


def distance_that_remembers_results(weights, grid, patch_size, kept={}):  # noqa: B006
    key = (tuple(weights.shape), tuple(grid), patch_size)
    if key not in kept:
        kept[key] = looked(weights, grid, patch_size)
    return kept[key]


def distance_of_a_random_image(weights, grid, patch_size):
    index = torch.randint(len(weights), (1,))
    return looked(weights[index], grid, patch_size)


def distance_by_view(weights, grid, patch_size):
    """Fails where the memory is not contiguous."""
    number = weights.shape[-1]
    rows = weights.view(-1, number, number)
    heads = rows.view(weights.shape)
    return looked(heads, grid, patch_size)


def refuse_no_weights(number, rows, columns):
    pass


def refuse_weights_by_assertion(number, rows, columns):
    assert number == 1 + rows * columns, f"{number} positions, not {1 + rows * columns}"


def refuse_weights_with_a_runtime_error(number, rows, columns):
    if number != 1 + rows * columns:
        raise RuntimeError(f"{number} positions, not {1 + rows * columns}")


def refuse_weights_without_numbers(number, rows, columns):
    if number != 1 + rows * columns:
        raise ValueError("The weights do not fit the grid.")


def refuse_weights_naming_themselves(number, rows, columns):
    if number != 1 + rows * columns:
        raise ValueError(f"Weights of {number} positions do not fit the grid.")


def refuse_weights_naming_the_grid(number, rows, columns):
    if number != 1 + rows * columns:
        raise ValueError(f"The weights should have {1 + rows * columns} positions.")


def refuse_small_weights(number, rows, columns):
    if number < 1 + rows * columns:
        raise ValueError(f"{number} positions, not {1 + rows * columns}")


def refuse_large_weights(number, rows, columns):
    if number > 1 + rows * columns:
        raise ValueError(f"{number} positions, not {1 + rows * columns}")


def refuse_weights_with_a_class_token(number, rows, columns):
    if number != rows * columns:
        raise ValueError(f"{number} positions, not {rows * columns}")


REFUSED_WEIGHTS = {
    "distance_refusing_nothing": refuse_no_weights,
    "distance_refusing_by_assertion": refuse_weights_by_assertion,
    "distance_refusing_with_a_runtime_error": refuse_weights_with_a_runtime_error,
    "distance_refusing_without_numbers": refuse_weights_without_numbers,
    "distance_naming_the_weights": refuse_weights_naming_themselves,
    "distance_naming_the_grid": refuse_weights_naming_the_grid,
    "distance_refusing_small_weights": refuse_small_weights,
    "distance_refusing_large_weights": refuse_large_weights,
    "distance_refusing_weights_with_a_class_token": refuse_weights_with_a_class_token,
}
refusing_distance = [_looking(name, refuse=refuse) for name, refuse in REFUSED_WEIGHTS.items()]


def distance_cutting_weights(weights, grid, patch_size):
    """Of weights that do not fit it takes what the grid needs."""
    number = 1 + math.prod(grid)
    return looked(weights[..., :number, :number], grid, patch_size)


MUTANTS = {
    "vit/patchify": [
        patchify_with_channels_first,
        patchify_with_columns_first,
        patchify_with_channels_in_the_middle,
        patchify_with_columns_first_and_channels_in_the_middle,
        patchify_with_channels_then_columns,
        patchify_down_the_columns,
        patchify_turned,
        patchify_down_the_columns_with_channels_first,
        patchify_of_spread_pixels,
        patchify_of_spread_rows,
        patchify_of_spread_columns,
        patchify_rows_before_columns_of_patches,
        patchify_as_if_channels_were_last,
        patchify_backwards,
        patchify_with_colors_swapped,
        patchify_upside_down,
        patchify_in_float32,
        patchify_in_float64,
        patchify_through_half,
        patchify_through_bytes,
        patchify_detached,
        patchify_in_gray,
        patchify_turned_at_the_end,
        patchify_squeezed,
        patchify_without_the_batch_of_one,
        patchify_the_first_image,
        patchify_flattening_the_batch,
        patchify_without_the_last,
        patchify_as_a_list,
        patchify_as_an_array,
        patchify_and_more,
        patchify_normalized,
        patchify_between_minus_one_and_one,
        patchify_clamped,
        patchify_in_a_random_order,
        patchify_by_reshape,
        patchify_by_f_unfold_as_it_comes,
        patchify_by_f_unfold_split_wrongly,
        patchify_with_overlap,
        patchify_by_strides,
        patchify_by_view_at_the_end,
        patchify_of_flat_images,
        patchify_of_so_many_pieces,
        patchify_squares_only,
        patchify_refusing_what_is_no_square,
        patchify_with_grid_swapped,
        patchify_three_channels,
        patchify_the_first_channel,
        patchify_in_place,
        patchify_scaling_in_place,
        patchify_snaking,
        patchify_into_six_axes,
        patchify_keeping_rows_and_columns,
        patchify_keeping_squares,
        patchify_flattening_too_little,
        patchify_that_remembers,
        patchify_of_two,
        patchify_cropping,
        patchify_padding,
        patchify_resizing,
        *refusing_patchify,
    ],
    "vit/unpatchify": [
        unpatchify_with_channels_first,
        unpatchify_with_columns_first,
        unpatchify_with_channels_in_the_middle,
        unpatchify_down_the_columns,
        unpatchify_down_with_columns_first,
        unpatchify_spreading_pixels,
        unpatchify_spreading_rows,
        unpatchify_spreading_columns,
        unpatchify_without_moving_axes,
        unpatchify_moving_only_channels,
        unpatchify_keeping_channels_last,
        unpatchify_with_channels_misread,
        unpatchify_turned,
        unpatchify_upside_down,
        unpatchify_mirrored,
        unpatchify_with_colors_swapped,
        unpatchify_backwards,
        unpatchify_clamped,
        unpatchify_through_bytes,
        unpatchify_in_float32,
        unpatchify_through_float32,
        unpatchify_in_float64,
        unpatchify_detached,
        unpatchify_squeezed,
        unpatchify_without_the_batch_of_one,
        unpatchify_without_the_only_channel,
        unpatchify_the_first_image,
        unpatchify_as_a_list,
        unpatchify_in_color,
        unpatchify_a_single_row,
        unpatchify_a_single_column,
        unpatchify_the_next_rectangle,
        unpatchify_the_nearest_rectangle,
        unpatchify_by_reshape,
        unpatchify_by_fold_as_it_comes,
        unpatchify_flat_patches,
        unpatchify_by_view_at_the_end,
        unpatchify_with_grid_swapped,
        unpatchify_ignoring_the_grid,
        unpatchify_with_as_many_rows_as_columns,
        unpatchify_wanting_a_square_number,
        unpatchify_with_a_grid_in_pixels,
        unpatchify_with_columns_of_the_root,
        unpatchify_needing_a_grid,
        unpatchify_with_arguments_swapped,
        unpatchify_three_channels,
        unpatchify_counting_channels_itself,
        unpatchify_measuring_patches_itself,
        unpatchify_in_place,
        unpatchify_scaling_in_place,
        unpatchify_scaling_to_the_range,
        unpatchify_that_remembers,
        unpatchify_into_one_image,
        *refusing_unpatchify,
        unpatchify_dropping_what_is_no_square,
        unpatchify_filling_up_a_square,
        unpatchify_dropping_what_the_grid_does_not_hold,
        unpatchify_cutting_numbers,
    ],
    "vit/PatchEmbedding": [
        EmbeddingWithChannelsFirst,
        EmbeddingWithColumnsFirst,
        EmbeddingWithChannelsInTheMiddle,
        EmbeddingDownTheColumns,
        EmbeddingTurned,
        EmbeddingOfSpreadPixels,
        EmbeddingRefusingNothing,
        EmbeddingRefusingByAssertion,
        EmbeddingRefusingHeightsOnly,
        EmbeddingByConvolutionThatCrops,
        EmbeddingByConvolutionOfAView,
        EmbeddingWithAConvolution,
        EmbeddingWithOverlap,
        EmbeddingWithoutABias,
        EmbeddingForgettingItsBias,
        EmbeddingWithAnotherName,
        EmbeddingOfThreeChannels,
        EmbeddingWithoutTheSquare,
        EmbeddingOfAveragePixels,
        EmbeddingBent,
        EmbeddingBentBySmoothly,
        EmbeddingNormalized,
        EmbeddingOfNormalizedPatches,
        EmbeddingScaled,
        EmbeddingOfCenteredImages,
        EmbeddingWithChannelsBeforePatches,
        EmbeddingInRowsAndColumns,
        EmbeddingThatReadsTheMapWrongly,
        EmbeddingWithAClassToken,
        EmbeddingWithPositions,
        EmbeddingWithATableOfPositions,
        EmbeddingWithDropout,
        EmbeddingDetachingImages,
        EmbeddingWithoutGradients,
        EmbeddingDetachingItsWeight,
        EmbeddingInFloat32,
        EmbeddingReturningFloat32,
        EmbeddingCastingImages,
        EmbeddingSqueezed,
        EmbeddingOfTheFirstImage,
        EmbeddingOfSquares,
        EmbeddingOfFlatImages,
        EmbeddingByStrides,
        EmbeddingInPlace,
        EmbeddingThatRemembers,
        EmbeddingWithAFreshLayer,
        EmbeddingOfPatchesOfTwo,
        EmbeddingPadding,
        EmbeddingWithALayerEach,
    ],
    "vit/ViTBlock": [
        *WRONG_BLOCKS.values(),
        BlockAddingTheNormalizedEarly,
        BlockWithOneOutputOfTheNorm,
        BlockWithoutTheFirstNorm,
        BlockWithPyTorchsEps,
        BlockWithBertsEps,
        BlockWithTwoEps,
        BlockNormalizingPositionsToo,
        BlockWithAnUnbiasedVariance,
        BlockWithEpsBesideTheRoot,
        BlockAddingTheInputToBoth,
        BlockWithTheNetworkFirst,
        BlockWithoutTheNetwork,
        BlockWithTanhGelu,
        BlockWithAMistypedGelu,
        BlockBendingNothing,
        BlockBendingBeforeTheFirstLayer,
        BlockOfGpt,
        BlockReadingOnlyWhatFollows,
        BlockBarringItself,
        BlockBarringTheClassToken,
        BlockBarringTheLast,
        BlockWithAWindow,
        BlockBarringEmptyVectors,
        BlockOfTheFirstPositionOnly,
        BlockNormalizingTheQueryOnly,
        BlockReadingRawValues,
        BlockOfOneHead,
        BlockMergingHeadsByAReshape,
        BlockWithoutAnOutputLayer,
        BlockNotDroppingTheRead,
        BlockNotDroppingTheNetwork,
        BlockNotDroppingInTheAttention,
        BlockDroppingOnlyInTheAttention,
        BlockDroppingNowhere,
        BlockDroppingInEvaluation,
        BlockDroppingTheHiddenLayerToo,
        BlockDroppingTheSum,
        BlockDroppingTheInputs,
        BlockDroppingWholeSublayers,
        BlockDroppingWithoutScaling,
        BlockWithAFixedRate,
        BlockKeepingAtTheRate,
        BlockFourTimesAsWide,
        BlockWithOtherNames,
        BlockWithoutBiases,
        BlockForgettingTheLastBias,
        BlockWithAThirdNorm,
        BlockWithLayerScale,
        BlockOfAllImagesTogether,
        BlockByView,
    ],
    "vit/VisionTransformer": [
        ModelOfTheMean,
        ModelOfTheMeanOfPatches,
        ModelOfTheLast,
        ModelOfTheFirstPatch,
        ModelOfTheLargest,
        ModelScoringEveryPosition,
        ModelWithAPooler,
        ModelWithALinearProbe,
        ModelReturningProbabilities,
        ModelReturningLogarithms,
        ModelReturningClasses,
        ModelReturningTwo,
        ModelSqueezed,
        ModelEncodingSqueezed,
        ModelReturningFloat32,
        ModelWithTheClassTokenLast,
        ModelWithTheClassTokenAtTheEndOfTheResult,
        ModelWithTheLastRowForTheClassToken,
        ModelWithTheTableTurned,
        ModelWithoutPositions,
        ModelWithPositionsOfPatchesOnly,
        ModelCountingPatchesFromZero,
        ModelWithOnePosition,
        ModelAddingPositionsToEachBlock,
        ModelMultiplyingPositions,
        ModelAddingPositionsTwice,
        ModelAddingPositionsByImage,
        ModelWithFrozenPositions,
        ModelWithoutAClassToken,
        ModelWithTheClassTokenTwice,
        ModelWithAFrozenClassToken,
        ModelWithTheClassTokenOfOneImage,
        ModelWithTheMeanAsClassToken,
        ModelWithTheClassTokenForPatchesToo,
        ModelForOneImage,
        ModelWithoutTheLastNorm,
        ModelNormalizingInForwardOnly,
        ModelNormalizingTheClassTokenOnly,
        ModelNormalizingTwice,
        ModelNormalizingEarly,
        ModelNormalizingAfterEachBlock,
        ModelWithPyTorchsEps,
        ModelWithBertsEps,
        ModelEncodingPatchesOnly,
        ModelEncodingTheClassTokenOnly,
        ModelEncodingWithChannelsFirst,
        ModelEncodingEveryBlock,
        ModelEncodingWithoutGradients,
        ModelEncodingInEvaluation,
        ModelThatRefusesNothing,
        ModelCountingPatches,
        ModelCountingPixels,
        ModelCheckingHeights,
        ModelCheckingWidths,
        ModelRefusingLargeImages,
        ModelThatCuts,
        ModelThatResizes,
        ModelThatResizesPositions,
        ModelThatAsserts,
        ModelThatNamesNoNumbers,
        ModelThatNamesItsOwnSize,
        ModelThatNamesTheImagesSize,
        ModelThatNamesNumbersOfPixels,
        ModelRefusingInForwardOnly,
        ModelRefusingInTraining,
        ModelOfAnyBuildingSize,
        ModelCheckingTheBuildingHeight,
        ModelCheckingTheBuildingWidth,
        ModelCheckingTheBuildingArea,
        ModelAssertingTheBuildingSize,
        ModelRefusingToBuildLate,
        ModelOfSquares,
        ModelOfWidthAndHeight,
        ModelOfSquaresOnly,
        ModelOfPairsOnly,
        ModelRefusingWhatIsNoSquare,
        ModelWithoutDropout,
        ModelNotDroppingEmbeddings,
        ModelNotDroppingInBlocks,
        ModelDroppingInEvaluation,
        ModelDroppingBeforeThePositions,
        ModelDroppingPatchesOnly,
        ModelDroppingPositions,
        ModelDroppingAtTheEndToo,
        ModelDroppingWholePatches,
        ModelOfOneBlock,
        ModelSharingItsBlocks,
        ModelRunningTheFirstBlockAgain,
        ModelWithAPlainList,
        ModelBackwards,
        ModelWithoutTheLastBlock,
        ModelForgettingResults,
        ModelAddingAroundBlocks,
        ModelOfPostNormBlocks,
        ModelOfGptsBlocks,
        ModelOfTanhBlocks,
        ModelOfBlocksWithPyTorchsEps,
        ModelOfBlocksFourTimesAsWide,
        ModelOfBlocksWithOneHead,
        ModelOfPatchesWithChannelsFirst,
        ModelOfPatchesDownTheColumns,
        ModelOfThreeChannels,
        ModelInGray,
        ModelWithScaledPatches,
        ModelNormalizingItsImages,
        ModelNormalizingInPlace,
        ModelChangingItsTable,
        ModelOfTheFirstImage,
        ModelThatRemembers,
        ModelWithATokenOfThreeAxes,
        ModelWithATableOfThreeAxes,
        ModelWithAnEmbedding,
        ModelWithoutARowForTheClassToken,
        ModelWithABufferOfPositions,
        ModelWithABufferForAToken,
        ModelWithTimmsNames,
        ModelWithATwoLayerHead,
        ModelWithoutABiasInTheHead,
        ModelWithOneClassMore,
        ModelWithNoise,
        ModelThroughFloat32,
        ModelWithoutTheAttribute,
        ModelWithoutEncode,
    ],
    "vit/interpolate_positions": [
        interpolate_linearly,
        interpolate_linearly_from_corner_to_corner,
        interpolate_to_the_nearest,
        interpolate_to_the_exactly_nearest,
        interpolate_areas,
        interpolate_from_corner_to_corner,
        interpolate_smoothed,
        interpolate_by_a_factor,
        interpolate_by_one_factor,
        interpolate_by_whole_factors,
        interpolate_in_one_dimension,
        interpolate_in_one_dimension_cubically,
        interpolate_vectors_as_well,
        interpolate_by_the_other_cubic,
        interpolate_with_zeros_around,
        interpolate_cropping,
        interpolate_repeating,
        interpolate_with_zeros_for_new_places,
        interpolate_in_two_steps,
        interpolate_reading_vectors_as_pictures,
        interpolate_with_a_reshape_at_the_end,
        interpolate_with_two_reshapes,
        interpolate_down_the_columns,
        interpolate_writing_down_the_columns,
        interpolate_columns_for_rows,
        interpolate_with_channels_first,
        interpolate_with_the_new_grid_swapped,
        interpolate_with_both_grids_swapped,
        interpolate_with_grids_exchanged,
        interpolate_from_squares,
        interpolate_to_squares,
        interpolate_refusing_what_is_no_square,
        interpolate_nothing,
        interpolate_rows_only,
        interpolate_only_upwards,
        interpolate_unless_as_many,
        interpolate_the_class_token_too,
        interpolate_with_the_class_token_last,
        interpolate_moving_the_class_token,
        interpolate_losing_the_class_token,
        interpolate_with_zeros_for_the_class_token,
        interpolate_with_the_mean_for_the_class_token,
        interpolate_detaching_the_class_token,
        interpolate_detaching_the_others,
        interpolate_detached,
        interpolate_as_a_parameter,
        interpolate_as_a_fresh_leaf,
        interpolate_in_float32,
        interpolate_in_float64,
        interpolate_with_a_batch,
        interpolate_as_a_pair,
        interpolate_clamped,
        interpolate_with_lengths_of_one,
        interpolate_in_place,
        interpolate_growing_the_table,
        interpolate_that_remembers,
        interpolate_by_view,
        interpolate_through_numpy,
        interpolate_refusing_equal_grids,
        interpolate_with_noise,
        *refusing_interpolate,
        interpolate_cutting_the_table,
        interpolate_from_the_root_of_the_rows,
    ],
    "vit/mean_attention_distance": [
        distance_without_renormalizing,
        distance_renormalizing_columns,
        distance_renormalizing_all,
        distance_by_another_softmax,
        distance_renormalizing_by_length,
        distance_spreading_what_is_missing,
        distance_of_the_strongest,
        distance_of_equal_weights,
        distance_of_squared_weights,
        distance_without_itself,
        distance_of_keys,
        distance_with_the_class_token_last,
        distance_keeping_the_query_of_the_class_token,
        distance_keeping_the_key_of_the_class_token,
        distance_counted_in_patches,
        distance_times_the_area,
        distance_over_the_patch_size,
        distance_of_sixteen,
        distance_of_the_image,
        distance_with_gaps,
        distance_of_city_blocks,
        distance_of_the_longer_side,
        distance_squared,
        distance_of_rows,
        distance_of_columns,
        distance_with_signs,
        distance_of_the_sum_of_roots,
        distance_in_whole_pixels,
        distance_along_the_sequence,
        distance_counting_from_the_class_token,
        distance_on_the_unit_square,
        distance_with_the_grid_swapped,
        distance_on_squares,
        distance_refusing_what_is_no_square,
        distance_around_the_edges,
        distance_from_the_middle,
        distance_from_the_corner,
        distance_to_the_mean_place,
        distance_as_a_root_mean_square,
        distance_of_the_mean_weights,
        distance_weighing_queries,
        distance_with_the_class_token_as_a_query,
        distance_with_the_class_token_as_a_key,
        distance_with_the_class_token_as_both,
        distance_with_the_class_token_in_the_mean,
        distance_with_a_patch_for_the_class_token,
        distance_of_images,
        distance_of_everything,
        distance_of_each_image,
        distance_of_each_query,
        distance_over_heads,
        distance_summed,
        distance_summed_over_queries,
        distance_summed_over_images,
        distance_of_the_first_image,
        distance_of_the_first_query,
        distance_of_the_middle_query,
        distance_of_the_median,
        distance_of_the_farthest,
        distance_keeping_an_axis,
        distance_squeezed,
        distance_sorted,
        distance_as_a_list,
        distance_rounded,
        distance_as_integers,
        distance_in_half,
        distance_in_place,
        distance_silencing_the_class_token,
        distance_of_four_heads,
        distance_that_remembers,
        distance_that_remembers_results,
        distance_of_a_random_image,
        distance_by_view,
        *refusing_distance,
        distance_cutting_weights,
    ],
}

# A few words of the sentence that names it.
NAMED = {
    "patchify_with_channels_first": "The numbers of a patch come channel by channel, as",
    "patchify_with_columns_first": "The pixels of a patch come column by column; they come",
    "patchify_with_channels_in_the_middle": "The channels stand between row and column: within",
    "patchify_down_the_columns": "The patches come column by column; reading order is row",
    "patchify_turned": "Rows and columns change places throughout: patches and",
    "patchify_of_spread_pixels": "Height and width are cut as (P, rows) and (P, columns)",
    "patchify_rows_before_columns_of_patches": "The channels are moved to the end, but the rows",
    "patchify_in_float32": "The result is float32, whatever the images are",
    "patchify_turned_at_the_end": "The patches are the last axis; they come before their",
    "patchify_without_the_batch_of_one": "The patches of all images stand in one row: the axis of",
    "patchify_flattening_the_batch": "The patches of all images stand in one row: the axis of",
    "patchify_normalized": "Each patch is normalized; patchify changes no value",
    "patchify_clamped": "Values are cut to 0…1; patchify changes no value",
    "patchify_by_reshape": "The numbers are only grouped anew by reshape: without",
    "patchify_by_f_unfold_as_it_comes": "The numbers of a patch come channel by channel, as",
    "patchify_with_overlap": "The patches overlap: there is one at every pixel",
    "patchify_keeping_rows_and_columns": "Rows and columns of patches are two axes; the result",
    "patchify_keeping_squares": "A patch is still a small picture of several axes; each",
    "patchify_cropping": "What cannot be cut is not refused: it is cropped or",
    "patchify_padding": "An image that cannot be cut is filled up in silence",
    "patchify_resizing": "What cannot be cut is not refused: it is cropped or",
    "patchify_refusing_nothing": "Sizes that cannot be cut are not refused; reshape fails",
    "patchify_refusing_heights_only": "Only the height is checked; the width must fit, too",
    "patchify_refusing_widths_only": "Only the width is checked; the height must fit, too",
    "patchify_refusing_by_assertion": "An assert refuses what cannot be cut; the exercise asks",
    "patchify_refusing_without_numbers": "The ValueError does not name height, width and patch",
    "patchify_refusing_without_the_patch_size": "The ValueError does not name height, width and",
    "patchify_refusing_without_the_width": "The ValueError does not name height, width and patch",
    "patchify_refusing_without_the_height": "The ValueError does not name height, width and patch",
    "patchify_naming_what_is_wrong": "The ValueError does not name height, width and patch",
    "patchify_naming_rests": "The ValueError does not name height, width and patch",
    "patchify_with_names_for_numbers": "The ValueError does not name height, width and patch",
    "unpatchify_with_channels_first": "The numbers of a patch are read channel by channel",
    "unpatchify_with_columns_first": "The pixels of a patch are read column by column; they",
    "unpatchify_with_channels_in_the_middle": "The channels are read between row and column of a",
    "unpatchify_down_the_columns": "The patches are laid out column by column; they are in",
    "unpatchify_down_with_columns_first": "Rows and columns change places throughout: patches and",
    "unpatchify_spreading_pixels": "The pixel's row stands before the patch's: height is",
    "unpatchify_without_moving_axes": "The numbers are only grouped anew by reshape: without",
    "unpatchify_moving_only_channels": "The rows of a patch are not brought beside its row in",
    "unpatchify_keeping_channels_last": "The channels come last in the result; they come before",
    "unpatchify_turned": "Height and width change places in the result",
    "unpatchify_clamped": "Values are cut to 0…1; unpatchify changes no value",
    "unpatchify_in_float32": "The result is float32, whatever the patches are",
    "unpatchify_without_the_batch_of_one": "The axis of the batch is lost",
    "unpatchify_a_single_row": "Without a grid all patches are put in one row; a square",
    "unpatchify_a_single_column": "Without a grid all patches are put in one column; a",
    "unpatchify_the_next_rectangle": "Without a grid a number that is no square becomes a",
    "unpatchify_the_nearest_rectangle": "Without a grid a number that is no square becomes a",
    "unpatchify_by_reshape": "The numbers are only grouped anew by reshape: without",
    "unpatchify_by_fold_as_it_comes": "The numbers of a patch are read channel by channel",
    "unpatchify_with_grid_swapped": "The grid is read as (columns, rows); it is (rows",
    "unpatchify_ignoring_the_grid": "The grid is not used, or not as (rows, columns) of",
    "unpatchify_with_a_grid_in_pixels": "The grid is not used, or not as (rows, columns) of",
    "unpatchify_with_columns_of_the_root": "The grid is not used, or not as (rows, columns) of",
    "unpatchify_in_place": "Values are cut to 0…1; unpatchify changes no value",
    "unpatchify_refusing_nothing": "Nothing is refused; reshape fails in its own words, or",
    "unpatchify_not_counting_patches": "A number of patches that does not fill the grid is not",
    "unpatchify_not_counting_numbers": "Vectors of another length than P * P * channels are not",
    "unpatchify_refusing_by_assertion": "An assert refuses what does not fit; the exercise asks",
    "unpatchify_refusing_without_numbers": "The ValueErrors do not name the numbers",
    "unpatchify_dropping_what_is_no_square": "Without a grid a number that is no square is",
    "EmbeddingWithChannelsFirst": "The numbers of a patch are flattened channel by",
    "EmbeddingWithColumnsFirst": "The pixels of a patch are flattened column by column",
    "EmbeddingDownTheColumns": "The patches come column by column; they come in reading",
    "EmbeddingTurned": "Rows and columns change places throughout: patches and",
    "EmbeddingRefusingByAssertion": "What cannot be cut is refused with another error than",
    "EmbeddingByConvolutionThatCrops": "What cannot be cut is not refused: it is cropped",
    "EmbeddingByConvolutionOfAView": "The numbers of a patch are flattened channel by",
    "EmbeddingWithAConvolution": "projection is an nn.Conv2d, whose weight has four axes",
    "EmbeddingWithoutABias": "projection has no bias",
    "EmbeddingWithAnotherName": "The layer is not named projection",
    "EmbeddingBent": "A nonlinearity stands behind the projection; the map is",
    "EmbeddingBentBySmoothly": "A nonlinearity stands behind the projection; the map is",
    "EmbeddingOfNormalizedPatches": "Each patch is normalized before it is projected",
    "EmbeddingScaled": "The embeddings are multiplied by the square root of",
    "EmbeddingWithChannelsBeforePatches": "The vectors come as (batch, d_model, patches); the",
    "EmbeddingInRowsAndColumns": "Rows and columns of patches are two axes; the result",
    "EmbeddingWithAClassToken": "A class token is put in front here; it belongs to the",
    "EmbeddingWithDropout": "Dropout acts on the embeddings; it belongs to the",
    "EmbeddingReturningFloat32": "The result is float32, whatever the images are",
    "EmbeddingPadding": "What cannot be cut is not refused: it is cropped",
    "BlockPostNorm": "This is post-norm: the sum is normalized, as in 2017.",
    "BlockAddingTheNormalized": "The normalized x is added, not x itself: a norm stands",
    "BlockAddingTheNormalizedEarly": "The normalized x is added, not x itself: a norm stands",
    "BlockAddingTheNormalizedLate": "The normalized x is added, not x itself: a norm stands",
    "BlockNormalizingTheSublayersOutput": "What a sublayer gives is normalized; what goes into it",
    "BlockInParallel": "Attention and network work side by side on the same x",
    "BlockWithOneNorm": "norm1 is used for both sublayers, and norm2 never",
    "BlockWithoutTheFirstNorm": "norm1 is missing: the attention gets x as it is",
    "BlockWithoutTheSecondNorm": "norm2 is missing: the network gets its input as it is",
    "BlockWithPyTorchsEps": "The norms have PyTorch's eps, 1e-5; ViT's is 1e-6",
    "BlockWithBertsEps": "The norms have BERT's eps, 1e-12; ViT's is 1e-6",
    "BlockWithoutTheFirstResidual": "The first residual connection is missing: x is not",
    "BlockWithoutTheSecondResidual": "The second residual connection is missing: x is not",
    "BlockAddingTheInputTwice": "The second residual is taken from the block's input",
    "BlockInPlace": "The residual is added in place, which changes the",
    "BlockWithTanhGelu": "This is the GELU with tanh, GPT-2's; ViT has the exact",
    "BlockWithRelu": "A ReLU stands between w_1 and w_2; ViT has a GELU",
    "BlockWithQuickGelu": "This is an approximation of the GELU, with a sigmoid",
    "BlockBendingNothing": "Nothing stands between w_1 and w_2; there must be a GELU",
    "BlockOfGpt": "The attention has a causal mask, GPT's; here every",
    "BlockBarringItself": "A patch may not read itself",
    "BlockBarringTheClassToken": "No patch may read the class token, position 0; nobody",
    "BlockNormalizingTheQueryOnly": "Only the queries are normalized; keys and values are",
    "BlockOfOneHead": "num_heads is not passed on to the attention",
    "BlockNotDroppingTheRead": "There is no dropout on what the attention gives, before",
    "BlockNotDroppingTheNetwork": "There is no dropout on what the network gives, before x",
    "BlockNotDroppingInTheAttention": "The dropout rate is not passed on to the attention",
    "BlockDroppingOnlyInTheAttention": "There is no dropout on what either sublayer gives",
    "BlockDroppingNowhere": "There is no dropout at all",
    "BlockDroppingInEvaluation": "Dropout acts in evaluation mode too",
    "BlockDroppingTheHiddenLayerToo": "Hidden numbers are dropped too, between w_1 and w_2",
    "BlockDroppingTheSum": "Dropout acts on x itself; it belongs on what the",
    "BlockDroppingTheInputs": "Dropout acts on the normalized x, before the sublayer",
    "BlockFourTimesAsWide": "The hidden layer has 4 * d_model numbers; d_ff is not",
    "BlockWithoutBiases": "Biases are missing; ViT's layers and norms all have one",
    "ModelOfTheMean": "The logits are read from the mean of all positions",
    "ModelOfTheMeanOfPatches": "The logits are read from the mean of the patches; they",
    "ModelOfTheLast": "The logits are read from the last position; the class",
    "ModelScoringEveryPosition": "The head is applied to all positions; only the class",
    "ModelReturningProbabilities": "What comes back are probabilities; the exercise asks",
    "ModelWithTheClassTokenLast": "The class token is put last; it comes first",
    "ModelWithTheLastRowForTheClassToken": "The patches get the rows of the table from 0 on; row",
    "ModelWithoutPositions": "No positions are added",
    "ModelWithPositionsOfPatchesOnly": "The class token gets no position; row 0 of the table is",
    "ModelWithOnePosition": "All positions get the same row of the table",
    "ModelAddingPositionsToEachBlock": "The positions are added again before every block; they",
    "ModelWithoutTheLastNorm": "The last norm is missing: pre-norm blocks leave their",
    "ModelNormalizingInForwardOnly": "The last norm stands in forward; encode gives what it",
    "ModelNormalizingTheClassTokenOnly": "Only the class token goes through the last norm; all",
    "ModelNormalizingTwice": "The norm is applied twice, in encode and before the head",
    "ModelNormalizingEarly": "The norm stands before the blocks; it belongs after the",
    "ModelNormalizingAfterEachBlock": "The norm is applied after every block; it belongs after",
    "ModelWithPyTorchsEps": "The last norm has PyTorch's eps, 1e-5; ViT's is 1e-6",
    "ModelEncodingPatchesOnly": "encode gives the patches without the class token; it",
    "ModelEncodingTheClassTokenOnly": "encode gives the class token's vector alone; it gives",
    "ModelThatRefusesNothing": "Images of another size are not refused; the sum with",
    "ModelCountingPatches": "Only the number of pixels or patches is compared",
    "ModelCountingPixels": "Only the number of pixels or patches is compared",
    "ModelThatResizes": "Images of another size are not refused; they go",
    "ModelThatResizesPositions": "The positions are interpolated for images of another",
    "ModelThatNamesNoNumbers": "The ValueError does not name both sizes",
    "ModelThatNamesItsOwnSize": "The ValueError does not name both sizes",
    "ModelThatNamesTheImagesSize": "The ValueError does not name both sizes",
    "ModelThatNamesNumbersOfPixels": "The ValueError does not name both sizes",
    "ModelOfAnyBuildingSize": "An image_size that patch_size does not divide is not",
    "ModelAssertingTheBuildingSize": "An image_size that patch_size does not divide is not",
    "ModelRefusingToBuildLate": "An image_size that patch_size does not divide is not",
    "ModelOfWidthAndHeight": "The pair image_size is read as (width, height); it is",
    "ModelNotDroppingEmbeddings": "There is no dropout on the sum with the positions",
    "ModelNotDroppingInBlocks": "The dropout rate is not passed on to the blocks",
    "ModelDroppingInEvaluation": "Dropout acts in evaluation mode too",
    "ModelDroppingBeforeThePositions": "Dropout acts before the positions are added; it belongs",
    "ModelDroppingPatchesOnly": "Dropout leaves the class token out; it acts on the",
    "ModelOfOneBlock": "The number of blocks is fixed, whatever num_layers is",
    "ModelSharingItsBlocks": "One block is used num_layers times, with the same",
    "ModelRunningTheFirstBlockAgain": "The first block runs again and again, and the others",
    "ModelWithAPlainList": "The blocks are in a plain Python list, which hides",
    "ModelBackwards": "The blocks run in the wrong order, the last one first",
    "ModelForgettingResults": "Every block starts from the embeddings, so that only",
    "ModelOfPostNormBlocks": "The blocks are post-norm; ViT's are pre-norm",
    "ModelOfGptsBlocks": "The blocks have a causal mask: the class token, the",
    "ModelOfBlocksWithOneHead": "num_heads is not passed on to the blocks",
    "ModelThatRemembers": "Images of another size are not refused; they go",
    "ModelWithATokenOfThreeAxes": "class_token has axes of length 1 in front; the exercise",
    "ModelWithoutARowForTheClassToken": "position has a row for each patch, and none for the",
    "interpolate_linearly": "The table is resized bilinearly; the exercise asks for",
    "interpolate_to_the_nearest": "Each new place gets the nearest old position; the",
    "interpolate_to_the_exactly_nearest": "Each new place gets the nearest old position; the",
    "interpolate_areas": "Old positions are averaged, as F.interpolate does with",
    "interpolate_from_corner_to_corner": "The corners are aligned: align_corners is True",
    "interpolate_smoothed": "The picture is smoothed before it is made smaller",
    "interpolate_by_a_factor": "F.interpolate gets a scale_factor that is a little too",
    "interpolate_in_one_dimension": "The positions are resized as one line; they are a",
    "interpolate_with_zeros_for_new_places": "The picture is not resized: it is cut, or zeros are",
    "interpolate_reading_vectors_as_pictures": "The picture is made by a reshape alone, which",
    "interpolate_with_a_reshape_at_the_end": "The resized picture is not transposed back: reshape",
    "interpolate_with_two_reshapes": "Neither on the way to the picture nor back the table is",
    "interpolate_writing_down_the_columns": "The resized positions come column by column; reading",
    "interpolate_columns_for_rows": "The old grid is read as (columns, rows); it is (rows",
    "interpolate_with_the_new_grid_swapped": "The new grid is read as (columns, rows); it is",
    "interpolate_with_both_grids_swapped": "Both grids are read as (columns, rows); they are",
    "interpolate_nothing": "The table comes back as it was",
    "interpolate_with_the_class_token_last": "The last row is taken for the class token's, and",
    "interpolate_moving_the_class_token": "The class token's row is put last; it comes first",
    "interpolate_losing_the_class_token": "The class token's row is lost",
    "interpolate_with_zeros_for_the_class_token": "The class token's row becomes zeros; it stays",
    "interpolate_with_the_mean_for_the_class_token": "The class token's row becomes the mean of",
    "interpolate_in_float32": "The result is float32, whatever the table is",
    "interpolate_in_place": "The table that was passed in is changed",
    "interpolate_growing_the_table": "The table that was passed in is changed",
    "interpolate_refusing_nothing": "A table that does not fit is not refused; reshape fails",
    "interpolate_refusing_by_assertion": "An assert refuses a table that does not fit; the",
    "interpolate_refusing_without_numbers": "The ValueError does not name both numbers, the rows",
    "interpolate_naming_the_tables_rows": "The ValueError does not name both numbers, the rows of",
    "interpolate_naming_the_grids_positions": "The ValueError does not name both numbers, the",
    "interpolate_from_the_root_of_the_rows": "The ValueError does not name both numbers, the rows",
    "distance_without_renormalizing": "The rows are not divided by their sums: without the",
    "distance_renormalizing_columns": "Rows and columns change places: each row, a query's",
    "distance_renormalizing_all": "All weights of a head are divided by one sum; each row",
    "distance_by_another_softmax": "The rows go through a softmax once more; they are",
    "distance_of_the_strongest": "Only the patch with the largest weight counts; all are",
    "distance_of_equal_weights": "The weights among the patches are not used: this is the",
    "distance_of_keys": "Rows and columns change places: each row, a query's",
    "distance_with_the_class_token_last": "The last position is left out; the class token is the",
    "distance_counted_in_patches": "The distance is counted in patches; it is asked for in",
    "distance_times_the_area": "The distances are multiplied by patch_size twice",
    "distance_of_city_blocks": "Rows and columns are added up (Manhattan); the distance",
    "distance_of_the_longer_side": "The larger one of rows and columns is taken",
    "distance_squared": "The distances are squared: the root is missing",
    "distance_along_the_sequence": "The distance is that in the sequence, |i - j|; patches",
    "distance_with_the_grid_swapped": "The grid is read as (columns, rows); it is (rows",
    "distance_to_the_mean_place": "The places are averaged first, and the distance to",
    "distance_with_the_class_token_as_a_key": "The rows are not divided by their sums: without",
    "distance_with_the_class_token_as_both": "The class token takes part, though it has no place",
    "distance_of_images": "The mean is taken over the heads in place of the images",
    "distance_of_everything": "The mean is taken over the heads, too; each has its own",
    "distance_of_each_image": "The mean over the images is missing",
    "distance_of_each_query": "The mean over the queries is missing",
    "distance_summed_over_queries": "The queries are added up; their mean is asked for",
    "distance_of_the_first_image": "Only the first image counts",
    "distance_of_the_farthest": "The largest distance of any query is taken; the mean is",
    "distance_as_integers": "The result is rounded to whole pixels",
    "distance_in_place": "The caller's weights are changed in place",
    "distance_silencing_the_class_token": "The caller's weights are changed in place",
    "distance_refusing_nothing": "Weights that do not fit the grid are not refused by a",
    "distance_refusing_by_assertion": "An assert refuses weights that do not fit; the exercise",
    "distance_refusing_with_a_runtime_error": "Weights that do not fit the grid are not refused",
    "distance_refusing_without_numbers": "The ValueError does not name both numbers, that of the",
    "distance_naming_the_weights": "The ValueError does not name both numbers, that of the",
    "distance_naming_the_grid": "The ValueError does not name both numbers, that of the",
}

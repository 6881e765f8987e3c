"""Other right ways to write chapter 7."""

import functools
import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn

from workbook.ready.attention import scaled_dot_product_attention
from workbook.ready.multi_head import MultiHeadAttention

# ---- patches -------------------------------------------------------------------------------


def refuse_to_cut(height, width, patch_size):
    raise ValueError(f"{height=} and {width=} are not multiples of {patch_size=}")


def grid_of(images, patch_size):
    height, width = images.shape[2:]
    rows, rest_below = divmod(height, patch_size)
    columns, rest_right = divmod(width, patch_size)
    if rest_below > 0 or rest_right > 0:
        refuse_to_cut(height, width, patch_size)
    return rows, columns


def patchify_by_f_unfold(images, patch_size):
    """F.unfold puts the channel first; it is moved to the end."""
    grid_of(images, patch_size)
    columns = F.unfold(images, kernel_size=patch_size, stride=patch_size)
    return columns.unflatten(1, (images.size(1), -1)).permute(0, 3, 2, 1).flatten(2)


def patchify_by_windows(images, patch_size):
    grid_of(images, patch_size)
    windows = images.unfold(2, patch_size, patch_size).unfold(3, patch_size, patch_size)
    return windows.movedim(1, -1).flatten(3).flatten(1, 2)


def patchify_by_pixel_unshuffle(images, patch_size):
    grid_of(images, patch_size)
    low = F.pixel_unshuffle(images, patch_size)
    low = low.unflatten(1, (images.shape[1], patch_size**2)).transpose(1, 2)
    return low.flatten(1, 2).flatten(2).mT


def patchify_by_einsum(images, patch_size):
    """As the MAE's code has it."""
    n, c = images.shape[:2]
    h, w = grid_of(images, patch_size)
    x = images.reshape(shape=(n, c, h, patch_size, w, patch_size))
    x = torch.einsum("nchpwq->nhwpqc", x)
    return x.reshape(shape=(n, h * w, patch_size**2 * c))


def patchify_by_views(images, patch_size):
    """To split an axis a view is enough, however the memory lies."""
    grid_of(images, patch_size)
    batch, channels, height, width = images.shape
    cut = images.view(
        batch, channels, height // patch_size, patch_size, width // patch_size, patch_size
    )
    return cut.permute(0, 2, 4, 3, 5, 1).contiguous().view(batch, -1, patch_size**2 * channels)


def patchify_by_slices(images, patch_size):
    height, width = images.shape[-2:]
    if (height % patch_size, width % patch_size) != (0, 0):
        refuse_to_cut(height, width, patch_size)
    patches = []
    for top in range(0, height, patch_size):
        for left in range(0, width, patch_size):
            patch = images[:, :, top : top + patch_size, left : left + patch_size]
            patches.append(patch.permute(0, 2, 3, 1).flatten(start_dim=1))
    return torch.stack(patches, dim=1)


def patchify_by_splitting(images, patch_size):
    grid_of(images, patch_size)
    last = images.permute(0, 2, 3, 1)
    bands = last.split(patch_size, dim=1)
    squares = [square for band in bands for square in torch.split(band, patch_size, dim=2)]
    return torch.cat([square.reshape(len(images), 1, -1) for square in squares], dim=1)


def patchify_by_convolution(images, patch_size):
    """Each output channel picks one number. In float64, so that no device rounds."""
    grid_of(images, patch_size)
    numbers = patch_size**2 * images.size(1)
    picks = torch.eye(numbers, dtype=torch.float64, device=images.device)
    picks = picks.view(numbers, patch_size, patch_size, -1).permute(0, 3, 1, 2)
    cut = F.conv2d(images.double(), picks, stride=patch_size)
    return cut.flatten(2).transpose(1, 2).to(images.dtype)


def patchify_by_indices(images, patch_size):
    _, channels, height, width = images.shape
    grid_of(images, patch_size)
    at = [
        (channel * height + top + row) * width + left + column
        for top in range(0, height, patch_size)
        for left in range(0, width, patch_size)
        for row in range(patch_size)
        for column in range(patch_size)
        for channel in range(channels)
    ]
    at = torch.tensor(at, device=images.device).view(-1, patch_size**2 * channels)
    return images.flatten(start_dim=1)[:, at]


def patchify_into_a_tensor(images, patch_size):
    """Writes the same pixel of all patches at once."""
    batch, channels = images.shape[:2]
    rows, columns = grid_of(images, patch_size)
    cut = images.new_empty(batch, rows, columns, patch_size, patch_size, channels)
    for row in range(patch_size):
        for column in range(patch_size):
            pixels = images[..., row::patch_size, column::patch_size]
            cut[..., row, column, :] = pixels.permute(0, 2, 3, 1)
    return cut.view(batch, -1, patch_size**2 * channels)


def patchify_image_by_image(images, patch_size):
    """vmap over the batch, channels last in memory."""
    rows, columns = grid_of(images, patch_size)

    def one(image):
        image = image.movedim(0, -1).unflatten(1, (columns, patch_size))
        return image.unflatten(0, (rows, patch_size)).swapaxes(1, 2).reshape(rows * columns, -1)

    return torch.vmap(one)(images.contiguous(memory_format=torch.channels_last))


def whole_square(count):
    side = round(count**0.5)
    if side * side != count:
        raise ValueError(f"{count} patches are no square: pass the grid")
    return side, side


def fitting_grid(patches, patch_size, channels, grid):
    count, numbers = patches.shape[1:]
    rows, columns = whole_square(count) if grid is None else grid
    if count != rows * columns:
        raise ValueError(f"got {count} patches, but the grid has {rows} times {columns}")
    if numbers != patch_size * patch_size * channels:
        raise ValueError(f"{numbers} numbers for {patch_size=} and {channels=}")
    return rows, columns


def unpatchify_by_fold(patches, patch_size, channels, grid=None):
    rows, columns = fitting_grid(patches, patch_size, channels, grid)
    size = (rows * patch_size, columns * patch_size)
    first = patches.unflatten(-1, (-1, channels)).permute(0, 3, 2, 1).flatten(1, 2)
    return F.fold(first, output_size=size, kernel_size=patch_size, stride=patch_size)


def unpatchify_by_pixel_shuffle(patches, patch_size, channels, grid=None):
    rows, columns = fitting_grid(patches, patch_size, channels, grid)
    low = patches.unflatten(-1, (patch_size**2, channels)).permute(0, 3, 2, 1)
    low = low.reshape(len(patches), -1, rows, columns)
    return nn.PixelShuffle(patch_size)(low)


def unpatchify_by_einsum(
    patches: torch.Tensor,
    patch_size: int,
    channels: int,
    grid: tuple[int, int] | None = None,
) -> torch.Tensor:
    h, w = fitting_grid(patches, patch_size, channels, grid)
    x = patches.reshape(shape=(len(patches), h, w, patch_size, patch_size, channels))
    x = torch.einsum("nhwpqc->nchpwq", x)
    return x.reshape(len(patches), channels, h * patch_size, w * patch_size)


def unpatchify_by_rows(patches, patch_size, channels, grid=None):
    """Patches side by side, then the bands below each other."""
    rows, columns = fitting_grid(patches, patch_size, channels, grid)
    squares = patches.unflatten(-1, (patch_size, patch_size, channels)).unbind(dim=1)
    bands = [torch.cat(squares[row * columns : (row + 1) * columns], dim=2) for row in range(rows)]
    return torch.cat(bands, dim=1).permute(0, 3, 1, 2).contiguous()


def unpatchify_into_an_image(patches, patch_size, channels, grid=None):
    rows, columns = fitting_grid(patches, patch_size, channels, grid)
    images = patches.new_zeros(len(patches), channels, rows * patch_size, columns * patch_size)
    for index in range(patches.size(1)):
        top, left = (patch_size * number for number in divmod(index, columns))
        square = patches[:, index].reshape(-1, patch_size, patch_size, channels)
        images[:, :, top : top + patch_size, left : left + patch_size] = square.permute(0, 3, 1, 2)
    return images


def unpatchify_by_undoing_an_order(patches, patch_size, channels, grid=None):
    """Cuts an image of counted pixels, and looks up where each has gone."""
    rows, columns = fitting_grid(patches, patch_size, channels, grid)
    shape = (channels, rows * patch_size, columns * patch_size)
    counted = torch.arange(math.prod(shape), dtype=torch.float64).view(1, *shape)
    back = patchify_by_slices(counted, patch_size).flatten().argsort()
    return patches.flatten(1).index_select(1, back.to(patches.device)).view(-1, *shape)


def unpatchify_pixel_by_pixel(patches, patch_size, channels, grid=None):
    rows, columns = fitting_grid(patches, patch_size, channels, grid)
    planes = []
    for channel in range(channels):
        plane = patches[..., channel::channels].reshape(
            len(patches), rows, columns, patch_size, patch_size
        )
        planes.append(plane.transpose(2, 3).flatten(3).flatten(1, 2))
    return torch.stack(planes, dim=1)


def unpatchify_by_a_transposed_convolution(patches, patch_size, channels, grid=None):
    rows, columns = fitting_grid(patches, patch_size, channels, grid)
    picks = torch.eye(patches.size(-1), dtype=torch.float64, device=patches.device)
    picks = picks.view(-1, patch_size, patch_size, channels).permute(0, 3, 1, 2)
    low = patches.double().mT.unflatten(-1, (rows, columns))
    return F.conv_transpose2d(low, picks, stride=patch_size).type_as(patches)


# ---- PatchEmbedding ------------------------------------------------------------------------


class EmbeddingBase(nn.Module):
    def __init__(self, patch_size, channels, d_model):
        super().__init__()
        self.channels, self.patch_size, self.d_model = channels, patch_size, d_model
        self.projection = nn.Linear(channels * patch_size * patch_size, d_model)

    def kernel(self):
        """(d_model, channels, rows, columns)"""
        size = self.patch_size
        return self.projection.weight.view(-1, size, size, self.channels).permute(0, 3, 1, 2)


class EmbeddingByConvolution(EmbeddingBase):
    """A convolution whose kernel is a view of the layer's weight."""

    def forward(self, images):
        grid_of(images, self.patch_size)
        y = F.conv2d(images, self.kernel(), self.projection.bias, stride=self.patch_size)
        return y.flatten(2).transpose(1, 2)


class EmbeddingByUnfold(EmbeddingBase):
    """The weight's columns in the order of F.unfold."""

    def forward(self, images):
        grid_of(images, self.patch_size)
        size = (self.patch_size, self.patch_size)
        columns = nn.Unfold(size, stride=size)(images)
        return F.linear(columns.mT, self.kernel().flatten(1), self.projection.bias)


class EmbeddingByEinsum(EmbeddingBase):
    def forward(self, images):
        rows, columns = grid_of(images, self.patch_size)
        size = self.patch_size
        cut = images.reshape(len(images), self.channels, rows, size, columns, size)
        y = torch.einsum("nchpwq,dcpq->nhwd", cut, self.kernel()) + self.projection.bias
        return y.flatten(1, 2)


class EmbeddingPatchByPatch(EmbeddingBase):
    def forward(self, images):
        height, width = images.size(2), images.size(3)
        size = self.patch_size
        if height % size != 0 or width % size != 0:
            refuse_to_cut(height, width, size)
        vectors = []
        for top, left in itertools.product(range(0, height, size), range(0, width, size)):
            patch = images[..., top : top + size, left : left + size]
            vectors.append(self.projection(patch.movedim(1, 3).reshape(len(images), -1)))
        return torch.stack(vectors, 1)


class EmbeddingPixelByPixel(EmbeddingBase):
    """A sum over the pixels of a patch; each is one product for all patches at once."""

    def forward(self, images):
        grid_of(images, self.patch_size)
        size = self.patch_size
        total = self.projection.bias
        for row in range(size):
            for column in range(size):
                pixels = images[:, :, row::size, column::size].permute(0, 2, 3, 1)
                total = total + pixels @ self.kernel()[:, :, row, column].T
        return total.reshape(len(images), -1, self.d_model)


class EmbeddingWithATable(EmbeddingBase):
    """Where a patch's numbers lie is a buffer, which is no parameter and is not saved."""

    def __init__(self, patch_size: int, channels: int, d_model: int) -> None:
        super().__init__(patch_size, channels, d_model)
        offsets = torch.cartesian_prod(*map(torch.arange, (patch_size, patch_size, channels)))
        self.register_buffer("offsets", offsets.view(-1, 3), persistent=False)

    def forward(self, images):
        rows, columns = grid_of(images, self.patch_size)
        row, column, channel = self.offsets.to(images.device).unbind(-1)
        corners = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
        top, left = (self.patch_size * corners.to(images.device)).unbind(-1)
        patches = images[:, channel, top[:, None] + row, left[:, None] + column]
        flat = patches.reshape(-1, patches.size(-1))
        y = torch.addmm(self.projection.bias, flat, self.projection.weight.t())
        return y.view(len(images), rows * columns, self.d_model)


class EmbeddingInFloat64(EmbeddingBase):
    def forward(self, images):
        patches = patchify_by_einsum(images, self.patch_size).double()
        y = F.linear(patches, self.projection.weight.double(), self.projection.bias.double())
        return y.to(images.dtype)


class EmbeddingImageByImage(EmbeddingBase):
    def forward(self, images):
        # Without images there is nothing to stack, and the error is due all the same.
        grid_of(images, self.patch_size)
        vectors = [self.projection(patchify_by_windows(i[None], self.patch_size)) for i in images]
        return torch.cat(vectors, dim=0)


# ---- attention -----------------------------------------------------------------------------


class AttentionBase(nn.Module):
    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__()
        self.w_q, self.w_k = nn.Linear(d_model, d_model), nn.Linear(d_model, d_model)
        self.w_v, self.w_o = nn.Linear(d_model, d_model), nn.Linear(d_model, d_model)
        self.num_heads, self.width = num_heads, d_model // num_heads
        self.dropout = nn.Dropout(dropout)

    def split(self, y):
        return y.unflatten(-1, (self.num_heads, self.width)).transpose(1, 2)


class FusedAttention(AttentionBase):
    def forward(self, x):
        q, k, v = (self.split(layer(x)) for layer in (self.w_q, self.w_k, self.w_v))
        rate = self.dropout.p if self.training else 0.0
        read = F.scaled_dot_product_attention(q, k, v, dropout_p=rate)
        return self.w_o(read.transpose(1, 2).flatten(2))


class EinsumAttention(AttentionBase):
    def forward(self, x):
        q, k, v = (
            layer(x).view(*x.shape[:2], self.num_heads, self.width)
            for layer in (self.w_q, self.w_k, self.w_v)
        )
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / self.width**0.5
        weights = self.dropout(torch.softmax(scores, dim=-1))
        return self.w_o(torch.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape))


class HeadByHead(AttentionBase):
    """One product gives queries, keys and values; chapter 1 reads for each head."""

    def forward(self, x):
        layers = (self.w_q, self.w_k, self.w_v)
        weight = torch.cat([layer.weight for layer in layers])
        bias = torch.cat([layer.bias for layer in layers])
        q, k, v = F.linear(x, weight, bias).chunk(3, dim=-1)
        heads = []
        for head in range(self.num_heads):
            own = slice(head * self.width, (head + 1) * self.width)
            _, weights = scaled_dot_product_attention(q[..., own], k[..., own], v[..., own])
            heads.append(self.dropout(weights) @ v[..., own])
        return self.w_o(torch.cat(heads, dim=-1))


class QueryByQuery(AttentionBase):
    def forward(self, x):
        k, v = self.split(self.w_k(x)), self.split(self.w_v(x))
        read = []
        for query in self.w_q(x).split(1, dim=1):
            scores = (self.split(query) * k).sum(-1) * self.width**-0.5
            weights = self.dropout(scores.softmax(-1))
            read.append((weights.unsqueeze(-1) * v).sum(-2).flatten(1))
        return self.w_o(torch.stack(read, dim=1))


# ---- ViTBlock ------------------------------------------------------------------------------


class BlockBase(nn.Module):
    attention = MultiHeadAttention

    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__()
        self.self_attn = self.attention(d_model, num_heads, dropout)
        self.norm1, self.norm2 = (nn.LayerNorm(d_model, eps=1e-6) for _ in range(2))
        self.w_1, self.w_2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.dropout, self.rate = nn.Dropout(dropout), dropout


class BlockOnTheFusedKernel(BlockBase):
    attention = FusedAttention

    def forward(self, x):
        size = x.shape[-1:]
        y = F.layer_norm(x, size, self.norm1.weight, self.norm1.bias, self.norm1.eps)
        x = x + F.dropout(self.self_attn(y), self.rate, self.training)
        y = F.layer_norm(x, size, self.norm2.weight, self.norm2.bias, 1e-6)
        y = F.gelu(F.linear(y, self.w_1.weight, self.w_1.bias))
        y = F.linear(y, self.w_2.weight, self.w_2.bias)
        return x + F.dropout(y, p=self.rate, training=self.training)


class BlockWithItsOwnGelu(BlockBase):
    attention = HeadByHead

    @staticmethod
    def gelu(z):
        return 0.5 * z * (1 + torch.erf(z / math.sqrt(2)))

    def forward(self, x):
        x = self.dropout(self.self_attn(self.norm1(x))) + x
        return self.dropout(self.w_2(self.gelu(self.w_1(self.norm2(x))))) + x


class BlockByEinsum(BlockBase):
    """The GELU with the normal distribution's own function. The norms by hand."""

    attention = EinsumAttention

    @staticmethod
    def normal(x, norm):
        variance, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + 1e-6) * norm.weight + norm.bias

    def forward(self, x):
        y = torch.add(x, self.dropout(self.self_attn(self.normal(x, self.norm1))))
        z = torch.einsum("bld,hd->blh", self.normal(y, self.norm2), self.w_1.weight)
        z = z + self.w_1.bias
        z = z * torch.special.ndtr(z)
        z = torch.einsum("blh,dh->bld", z, self.w_2.weight) + self.w_2.bias
        return torch.add(y, self.dropout(z))


class BlockByOneRule(BlockBase):
    """Both sublayers go through one function; the query is stepped through."""

    attention = QueryByQuery

    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, num_heads, d_ff, dropout)
        self.act = nn.GELU()

    def sublayer(self, x, norm, function):
        return x + self.dropout(function(norm(x)))

    def forward(self, x):
        x = self.sublayer(x, self.norm1, self.self_attn)
        return self.sublayer(x, self.norm2, lambda y: self.w_2(self.act(self.w_1(y))))


class BlockSequenceBySequence(BlockBase):
    """One sequence at a time, with a mask that bars nothing; sums in place in its own tensors."""

    def forward(self, x):
        everything = torch.ones(1, x.size(1), x.size(1), dtype=torch.bool, device=x.device)
        outputs = []
        for row in x.split(1):
            y = self.norm1(row)
            read = self.dropout(self.self_attn(y, y, y, mask=everything)[0]).clone()
            read += row
            hidden = nn.functional.gelu(self.w_1(self.norm2(read)), approximate="none")
            outputs.append(read.add(self.dropout(self.w_2(hidden))))
        return torch.cat(outputs)


class BlockWithTwoDropouts(BlockBase):
    """A layer of dropout each; the last sum is in place."""

    def __init__(self, d_model: int, num_heads: int, d_ff: int, dropout: float = 0.0) -> None:
        super().__init__(d_model, num_heads, d_ff, dropout)
        self.drop1, self.drop2 = nn.Dropout(dropout), nn.Dropout(dropout)
        del self.dropout

    def forward(self, x):
        normal = self.norm1(x)
        output, _weights = self.self_attn(query=normal, key=normal, value=normal)
        stream = x.add(self.drop1(output))
        z = self.norm2(stream)
        for step in (self.w_1, F.gelu, self.w_2, self.drop2):
            z = step(z)
        return z.add_(stream)


class BlockInFloat64(BlockBase):
    """The network alone, position by position, in float64."""

    def forward(self, x):
        y = self.norm1(x)
        x = x + self.dropout(self.self_attn(y, y, y, None)[0])
        z = self.norm2(x).double()
        z = F.gelu(z @ self.w_1.weight.T.double() + self.w_1.bias)
        z = z @ self.w_2.weight.T.double() + self.w_2.bias
        return x + self.dropout(z.to(x.dtype))


# ---- VisionTransformer ---------------------------------------------------------------------


class ModelBase(nn.Module):
    embedding = EmbeddingByConvolution
    block = BlockOnTheFusedKernel

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
        sizes = 2 * (image_size,) if isinstance(image_size, int) else tuple(image_size)
        if any(size % patch_size for size in sizes):
            raise ValueError(f"{patch_size} does not divide {sizes}")
        self.sizes = sizes
        count = math.prod(size // patch_size for size in sizes)
        self.patch = self.embedding(patch_size, channels, d_model)
        self.class_token = nn.Parameter(torch.empty(d_model))
        self.position = nn.Parameter(torch.empty(count + 1, d_model))
        for parameter in (self.class_token, self.position):
            nn.init.normal_(parameter, std=0.02)
        self.blocks = nn.ModuleList(
            [self.block(d_model, num_heads, d_ff, dropout) for _ in range(num_layers)]
        )
        self.norm = nn.LayerNorm(d_model, eps=1e-6)
        self.head = nn.Linear(d_model, num_classes)
        self.dropout, self.rate = nn.Dropout(dropout), dropout

    def refuse(self, images):
        height, width = images.shape[-2:]
        if (height, width) != self.sizes:
            raise ValueError(f"got {height} x {width}, not {self.sizes[0]} x {self.sizes[1]}")

    def forward(self, images):
        return self.head(self.encode(images)[:, 0])


class ModelThatRepeats(ModelBase):
    """A class token for each image, repeated in memory."""

    def encode(self, images):
        self.refuse(images)
        first = self.class_token.reshape(1, 1, -1).repeat(images.shape[0], 1, 1)
        x = torch.concat((first, self.patch(images)), 1)
        x = self.dropout(x + self.position[None])
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class ModelThatFillsATensor(ModelBase):
    embedding = EmbeddingByUnfold
    block = BlockByEinsum

    def encode(self, images):
        self.refuse(images)
        patches = self.patch(images)
        x = patches.new_empty(patches.size(0), patches.size(1) + 1, patches.size(2))
        x[:, 0] = self.class_token
        x[:, 1:] = patches
        x += self.position
        x = F.dropout(x, self.rate, self.training)
        x = functools.reduce(lambda x, block: block(x), self.blocks, x)
        return F.layer_norm(x, x.shape[-1:], self.norm.weight, self.norm.bias, 1e-6)

    def forward(self, images):
        return F.linear(self.encode(images).select(1, 0), self.head.weight, self.head.bias)


class ModelThatAddsBeforeItJoins(ModelBase):
    """Positions are added to the two parts; dropout acts on their union."""

    embedding = EmbeddingByEinsum
    block = BlockByOneRule

    def encode(self, images):
        self.refuse(images)
        own, others = self.position.split([1, len(self.position) - 1])
        first = (self.class_token + own).unsqueeze(0).expand(len(images), -1, -1)
        x = self.dropout(torch.cat([first, self.patch(images) + others], dim=1))
        for i in range(len(self.blocks)):
            x = self.blocks[i](x)
        return self.norm(x)

    def forward(self, images):
        class_vector, _patches = self.encode(images).tensor_split([1], dim=1)
        return self.head(class_vector.squeeze(1))


class ModelThatPads(ModelBase):
    """An empty row before the patches, to which the class token is added."""

    embedding = EmbeddingPixelByPixel
    block = BlockWithItsOwnGelu

    def encode(self, images):
        self.refuse(images)
        x = F.pad(self.patch(images), (0, 0, 1, 0))
        first = torch.zeros(x.size(1), 1, dtype=x.dtype, device=x.device)
        first[0] = 1
        x = self.dropout(x + first * self.class_token + self.position)
        for block in self.blocks.children():
            x = block(x)
        return self.norm(x)

    def forward(self, images):
        # The head of all positions, of which one is asked for.
        return self.head(self.encode(images))[:, 0, :]


class ModelOfOnesOwnBlocks(ModelBase):
    """Blocks that are appended one by one; each image goes through alone."""

    embedding = EmbeddingWithATable
    block = BlockWithTwoDropouts

    def __init__(
        self,
        image_size: int | tuple[int, int],
        patch_size: int,
        channels: int,
        num_classes: int,
        d_model: int,
        num_layers: int,
        num_heads: int,
        d_ff: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(
            image_size, patch_size, channels, num_classes, d_model, 0, num_heads, d_ff, dropout
        )
        self.blocks = nn.ModuleList()
        for _ in range(num_layers):
            self.blocks.append(self.block(d_model, num_heads, d_ff, dropout))

    def encode_one(self, image):
        x = torch.vstack([self.class_token, self.patch(image.unsqueeze(0))[0]])
        x = self.dropout(x + self.position).unsqueeze(0)
        for block in self.blocks:
            x = block(x)
        return self.norm(x).squeeze(0)

    def encode(self, images):
        self.refuse(images)
        return torch.stack([self.encode_one(image) for image in images])

    def forward(self, images):
        return torch.stack([self.head(vectors[0]) for vectors in self.encode(images)])


class ModelInASequence(ModelBase):
    """Heights and widths as a torch.Size; the blocks are called by nn.Sequential."""

    embedding = EmbeddingInFloat64
    block = BlockInFloat64

    def encode(self, images):
        if images.shape[-2:] != torch.Size(self.sizes):
            raise ValueError(f"images of {tuple(images.shape)}, a model for {self.sizes}")
        tokens = self.class_token.tile(len(images), 1)
        x = torch.hstack([tokens[:, None], self.patch(images)])
        x = self.dropout(torch.add(x, self.position))
        return nn.Sequential(*self.blocks, self.norm)(x)

    def forward(self, images):
        vectors = self.encode(images)
        return torch.addmm(self.head.bias, vectors[:, 0], self.head.weight.t())


# ---- positions -----------------------------------------------------------------------------


def refuse_table(table, grid):
    expected = grid[0] * grid[1] + 1
    if table.shape[0] != expected:
        raise ValueError(f"expected {expected} rows, got {table.shape[0]}")


def interpolate_with_the_last_axis_first(table, old_grid, new_grid):
    refuse_table(table, old_grid)
    first, others = table.split([1, len(table) - 1])
    picture = others.unflatten(0, old_grid).permute(2, 0, 1).unsqueeze(0)
    picture = F.interpolate(picture, new_grid, mode="bicubic", align_corners=False)
    return torch.cat((first, picture.squeeze(0).permute(1, 2, 0).flatten(0, 1)), dim=0)


def interpolate_channel_by_channel(table, old_grid, new_grid):
    refuse_table(table, old_grid)
    columns = []
    for channel in table.unbind(dim=1):
        plane = channel[1:].view(1, 1, *old_grid)
        plane = F.interpolate(plane, size=list(new_grid), mode="bicubic", align_corners=False)
        columns.append(torch.cat([channel[:1], plane.flatten()]))
    return torch.stack(columns, dim=1)


def interpolate_with_channels_as_a_batch(table, old_grid, new_grid):
    """A picture with one channel for each number of a vector; equal grids end at once."""
    rows, columns = old_grid
    if table.size(0) - 1 != rows * columns:
        raise ValueError(f"{table.size(0)} rows do not fit a grid of {rows} x {columns}")
    if tuple(old_grid) == tuple(new_grid):
        return table
    pictures = table[1:].mT.reshape(-1, 1, rows, columns)
    resize = nn.Upsample(size=tuple(new_grid), mode="bicubic", align_corners=False)
    return torch.vstack([table[0], resize(pictures).flatten(start_dim=1).mT])


def interpolate_into_a_tensor(table, old_grid, new_grid):
    refuse_table(table, old_grid)
    picture = table[1:].reshape(1, *old_grid, -1).movedim(-1, 1)
    resized = F.interpolate(
        picture.contiguous(), size=tuple(new_grid), mode="bicubic", align_corners=False
    )
    result = table.new_empty(1 + new_grid[0] * new_grid[1], table.size(1))
    result[0] = table[0]
    result[1:] = torch.einsum("dhw->hwd", resized[0]).reshape(-1, table.size(1))
    return result


def interpolate_in_float64(table, old_grid, new_grid):
    refuse_table(table, old_grid)
    picture = table[1:].double().T.unflatten(1, tuple(old_grid))[None]
    resized = F.interpolate(
        picture, size=(new_grid[0], new_grid[1]), mode="bicubic", align_corners=False
    )
    others = resized.flatten(2).squeeze(0).t().to(table.dtype)
    return torch.cat([table[0].unsqueeze(0), others])


def cubic_matrix(old, new):
    """(new, old), float64: how much each old place gives to each new one (Keys 1981, A = -0.75)."""
    matrix = torch.zeros(new, old, dtype=torch.float64)
    for row in range(new):
        place = (row + 0.5) * old / new - 0.5
        for near in range(math.floor(place) - 1, math.floor(place) + 3):
            x = abs(place - near)
            if x <= 1:
                share = (1.25 * x - 2.25) * x * x + 1
            else:
                share = ((-0.75 * x + 3.75) * x - 6) * x + 3
            matrix[row, min(max(near, 0), old - 1)] += share
    return matrix


def interpolate_by_matrices(table, old_grid, new_grid):
    """The same cubic weights as F.interpolate's, along the rows and along the columns."""
    refuse_table(table, old_grid)
    down, across = (
        cubic_matrix(old, new).to(table.device) for old, new in zip(old_grid, new_grid, strict=True)
    )
    picture = table[1:].double().unflatten(0, tuple(old_grid))
    resized = torch.einsum("ah,bw,hwd->abd", down, across, picture)
    return torch.cat([table[:1], resized.flatten(0, 1).to(table.dtype)])


# ---- distances -----------------------------------------------------------------------------


def refuse_weights(weights, grid):
    patches = grid[0] * grid[1]
    if weights.size(-1) - 1 != patches:
        raise ValueError(f"{weights.size(-1) - 1} patches in the weights, {patches} in the grid")


def normal_rows(weights):
    inner = weights[:, :, 1:, 1:]
    return inner / inner.sum(-1, keepdim=True)


def distance_by_cdist(weights, grid, patch_size):
    refuse_weights(weights, grid)
    y, x = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    centers = patch_size * torch.stack([y.flatten(), x.flatten()], dim=-1).to(weights)
    pixels = torch.cdist(centers, centers, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.einsum("bhqk,qk->bhq", normal_rows(weights), pixels).mean(dim=2).mean(dim=0)


def distance_by_complex_numbers(weights, grid, patch_size):
    """In float64, and so is the result."""
    refuse_weights(weights, grid)
    rows, columns = (torch.arange(n, dtype=torch.float64, device=weights.device) for n in grid)
    centers = torch.complex(columns.repeat(grid[0]), rows.repeat_interleave(grid[1]))
    pixels = (centers.unsqueeze(1) - centers.unsqueeze(0)).abs() * patch_size
    return (normal_rows(weights.double()) * pixels).sum(-1).mean((0, 2))


def distance_by_loops(weights, grid, patch_size):
    rows, columns = grid
    if weights.shape[3] != rows * columns + 1:
        raise ValueError(f"{weights.shape[3]} positions, but the grid has {rows * columns} + 1")
    places = [
        (row * patch_size, column * patch_size) for row in range(rows) for column in range(columns)
    ]
    heads = []
    for head in weights.transpose(0, 1).double().tolist():
        terms = []
        for image in head:
            for here, row in zip(places, image[1:], strict=True):
                far = [math.dist(here, there) for there in places]
                terms.append(sum(map(lambda a, d: a * d, row[1:], far)) / sum(row[1:]))
        heads.append(math.fsum(terms) / len(terms))
    return torch.tensor(heads, dtype=weights.dtype, device=weights.device)


def distance_by_differences(weights, grid, patch_size):
    """Divided at the end; rows and columns of a patch from its number."""
    refuse_weights(weights, grid)
    index = torch.arange(grid[0] * grid[1], device=weights.device)
    row = index.div(grid[1], rounding_mode="floor")
    column = index % grid[1]
    dy, dx = row - row[:, None], column - column[:, None]
    far = patch_size * (dy**2 + dx**2).to(weights.dtype).sqrt()
    among = weights[..., 1:, 1:]
    means = (among * far).sum(dim=-1) / among.sum(dim=-1)
    return means.transpose(0, 1).flatten(1).mean(dim=1)


def distance_head_by_head(weights, grid, patch_size):
    """From center to center, as half pixels are counted."""
    refuse_weights(weights, grid)
    centers = torch.stack(
        [
            torch.tensor([(row + 0.5) * patch_size, (column + 0.5) * patch_size])
            for row in range(grid[0])
            for column in range(grid[1])
        ]
    ).to(weights)
    far = torch.linalg.vector_norm(centers[:, None] - centers[None], dim=-1)
    result = weights.new_zeros(weights.size(1))
    for head in range(weights.size(1)):
        for image in weights[:, head]:
            result[head] += (F.normalize(image[1:, 1:], p=1, dim=-1) * far).sum() / len(far)
    return result / len(weights)


def distance_by_a_softmax(weights, grid, patch_size):
    """The class token is barred before the softmax, of which the logarithm remembers enough."""
    refuse_weights(weights, grid)
    logits = weights.log()
    logits[..., 0] = -math.inf
    share = logits.softmax(dim=-1)[:, :, 1:, 1:]
    rows = torch.arange(grid[0], dtype=weights.dtype, device=weights.device) * patch_size
    columns = torch.arange(grid[1], dtype=weights.dtype, device=weights.device) * patch_size
    dy = (rows[:, None] - rows)[:, None, :, None]
    dx = (columns[:, None] - columns)[None, :, None, :]
    far = torch.hypot(*torch.broadcast_tensors(dy, dx)).reshape(len(rows) * len(columns), -1)
    return torch.tensordot(share.mean(dim=0), far, dims=([1, 2], [0, 1])) / len(far)


def distance_by_trigonometry(weights, grid, patch_size):
    """The class token's numbers are set to 0 in a copy, and so is its distance."""
    refuse_weights(weights, grid)
    copy = weights.clone()
    copy[..., 0] = 0
    copy /= copy.sum(dim=-1, keepdim=True)
    places = torch.ones(*grid, device=weights.device).nonzero().to(copy.dtype)
    square = (places * places).sum(-1)
    square = square[:, None] + square - 2 * places @ places.T
    far = F.pad(patch_size * square.sqrt(), (1, 0, 1, 0))
    return (copy * far).sum(-1)[..., 1:].mean(-1).mean(0)


ALTERNATIVES = {
    "vit/patchify": [
        patchify_by_f_unfold,
        patchify_by_windows,
        patchify_by_pixel_unshuffle,
        patchify_by_einsum,
        patchify_by_views,
        patchify_by_slices,
        patchify_by_splitting,
        patchify_by_convolution,
        patchify_by_indices,
        patchify_into_a_tensor,
        patchify_image_by_image,
    ],
    "vit/unpatchify": [
        unpatchify_by_fold,
        unpatchify_by_pixel_shuffle,
        unpatchify_by_einsum,
        unpatchify_by_rows,
        unpatchify_into_an_image,
        unpatchify_by_undoing_an_order,
        unpatchify_pixel_by_pixel,
        unpatchify_by_a_transposed_convolution,
    ],
    "vit/PatchEmbedding": [
        EmbeddingByConvolution,
        EmbeddingByUnfold,
        EmbeddingByEinsum,
        EmbeddingPatchByPatch,
        EmbeddingPixelByPixel,
        EmbeddingWithATable,
        EmbeddingInFloat64,
        EmbeddingImageByImage,
    ],
    "vit/ViTBlock": [
        BlockOnTheFusedKernel,
        BlockWithItsOwnGelu,
        BlockByEinsum,
        BlockByOneRule,
        BlockSequenceBySequence,
        BlockWithTwoDropouts,
        BlockInFloat64,
    ],
    "vit/VisionTransformer": [
        ModelThatRepeats,
        ModelThatFillsATensor,
        ModelThatAddsBeforeItJoins,
        ModelThatPads,
        ModelOfOnesOwnBlocks,
        ModelInASequence,
    ],
    "vit/interpolate_positions": [
        interpolate_with_the_last_axis_first,
        interpolate_channel_by_channel,
        interpolate_with_channels_as_a_batch,
        interpolate_into_a_tensor,
        interpolate_in_float64,
        interpolate_by_matrices,
    ],
    "vit/mean_attention_distance": [
        distance_by_cdist,
        distance_by_complex_numbers,
        distance_by_loops,
        distance_by_differences,
        distance_head_by_head,
        distance_by_a_softmax,
        distance_by_trigonometry,
    ],
}

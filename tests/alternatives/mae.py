"""Other right ways to write chapter 8."""

import math

import torch
import torch.nn.functional as F
from conftest import solution
from torch import nn

from workbook.ready.vit import PatchEmbedding, ViTBlock, patchify

# The ready-made blocks themselves would count as copied.
MAEDecoder = solution("mae/MAEDecoder")
MAEEncoder = solution("mae/MAEEncoder")
masked_patch_loss = solution("mae/masked_patch_loss")
normalized_pixel_targets = solution("mae/normalized_pixel_targets")
random_masking = solution("mae/random_masking")

# ---- random_masking ------------------------------------------------------------------------


def refuse(tokens, mask_ratio, noise):
    """How many are kept, or a ValueError."""
    if mask_ratio < 0 or mask_ratio >= 1:
        raise ValueError(f"a ratio of {mask_ratio}")
    if tuple(noise.shape) != tuple(tokens.shape[:2]):
        raise ValueError(f"noise {list(noise.shape)} for tokens {list(tokens.shape)}")
    kept = math.floor(tokens.shape[1] * (1 - mask_ratio))
    if kept < 1:
        raise ValueError(f"{tokens.shape[1]} tokens, of which {mask_ratio} are hidden: none stays")
    return kept


def mask_as_the_authors_do(tokens, mask_ratio, noise):
    """A mask of ones and zeros that is un-shuffled too."""
    batch, length, width = tokens.shape
    kept = refuse(tokens, mask_ratio, noise)
    ids_shuffle = torch.argsort(noise, dim=1)
    ids_restore = torch.argsort(ids_shuffle, dim=1)
    ids_keep = ids_shuffle[:, :kept]
    visible = torch.gather(tokens, dim=1, index=ids_keep.unsqueeze(-1).repeat(1, 1, width))
    mask = torch.ones([batch, length], device=tokens.device)
    mask[:, :kept] = 0
    mask = torch.gather(mask, dim=1, index=ids_restore)
    return visible, mask.bool(), ids_restore


def mask_by_sort_and_scatter(tokens, mask_ratio, noise):
    kept = refuse(tokens, mask_ratio, noise)
    _, order = noise.sort(dim=-1, stable=True)
    places = torch.arange(tokens.shape[1], device=noise.device).expand_as(order)
    restore = torch.empty_like(order).scatter_(1, order, places)
    mask = torch.ones_like(noise, dtype=torch.bool).scatter_(1, order[:, :kept], False)
    return torch.take_along_dim(tokens, order[:, :kept, None], dim=1), mask, restore


def mask_image_by_image(tokens, mask_ratio, noise):
    kept = refuse(tokens, mask_ratio, noise)
    found = []
    for row, numbers in zip(tokens, noise, strict=True):
        order = sorted(range(len(row)), key=numbers.tolist().__getitem__)
        restore = [order.index(i) for i in range(len(row))]
        found.append(
            (
                row[order[:kept]],
                torch.tensor([place >= kept for place in restore], device=tokens.device),
                torch.tensor(restore, device=tokens.device),
            )
        )
    visible, mask, restore = (torch.stack(parts) for parts in zip(*found, strict=True))
    return visible, mask, restore


def mask_by_topk(tokens, mask_ratio, noise):
    """The smallest, then the rest; flattened, with each image's first row added."""
    batch, length, width = tokens.shape
    kept = refuse(tokens, mask_ratio, noise)
    smallest = noise.topk(kept, dim=1, largest=False, sorted=True).indices
    rest = noise.topk(length - kept, dim=1, largest=True, sorted=True).indices.flip(1)
    restore = torch.cat([smallest, rest], dim=1).argsort(dim=1)
    starts = length * torch.arange(batch, device=tokens.device)[:, None]
    visible = tokens.reshape(-1, width).index_select(0, (starts + smallest).flatten())
    return visible.view(batch, kept, width), restore > kept - 1, restore


def mask_by_comparing(tokens, mask_ratio, noise):
    """A token's place is how many of its row have less noise: no sort at all."""
    kept = refuse(tokens, mask_ratio, noise)
    restore = (noise[:, None, :] < noise[:, :, None]).sum(dim=-1)
    at = torch.arange(kept, device=noise.device)
    chosen = (restore[:, None, :] == at[:, None]).int().argmax(dim=-1)  # (batch, kept)
    rows = torch.arange(len(tokens), device=noise.device)[:, None]
    return tokens[rows, chosen], ~(restore < kept), restore


def mask_by_a_threshold(tokens, mask_ratio, noise):
    """Selects by the boolean mask, which keeps the image's order, and sorts what is left."""
    batch, _, width = tokens.shape
    kept = refuse(tokens, mask_ratio, noise)
    last = noise.kthvalue(kept, dim=1, keepdim=True).values
    mask = noise > last
    stays = tokens.masked_select(~mask[..., None]).view(batch, kept, width)
    order = noise[~mask].view(batch, kept).argsort(dim=1)
    visible = torch.stack([image[i] for image, i in zip(stays, order, strict=True)])
    restore = torch.searchsorted(noise.sort(dim=1).values, noise.contiguous())
    return visible, mask, restore


def mask_by_matrices(tokens, mask_ratio, noise):
    """A permutation matrix each."""
    kept = refuse(tokens, mask_ratio, noise)
    order = noise.argsort(dim=1)
    turns = F.one_hot(order, tokens.shape[1])  # (batch, place, token)
    visible = torch.bmm(turns[:, :kept].to(tokens), tokens)
    hidden = turns[:, kept:].sum(dim=1).bool()
    return visible, hidden, turns.argmax(dim=1)


def mask_shuffling_everything(tokens, mask_ratio, noise):
    """All tokens are shuffled, then cut; float64 inside."""
    kept = refuse(tokens, mask_ratio, noise)
    order = noise.double().argsort(1)
    shuffled = tokens.gather(1, order.unsqueeze(2).expand_as(tokens))
    visible, _ = shuffled.split([kept, tokens.size(1) - kept], dim=1)
    restore = order.argsort(1)
    return visible.contiguous(), restore.ge(kept), restore


# ---- MAEEncoder ----------------------------------------------------------------------------


class EncoderBase(nn.Module):
    def __init__(self, image_size, patch_size, channels, d_model, num_layers, num_heads, d_ff):
        super().__init__()
        sides = (image_size,) * 2 if isinstance(image_size, int) else tuple(image_size)
        patches = math.prod(side // patch_size for side in sides)
        self.patch = PatchEmbedding(patch_size, channels, d_model)
        self.class_token = nn.Parameter(torch.zeros(d_model))
        self.position = nn.Parameter(torch.zeros(1 + patches, d_model))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.blocks = nn.ModuleList([ViTBlock(d_model, num_heads, d_ff) for _ in range(num_layers)])
        self.norm = nn.LayerNorm(d_model, eps=1e-6)
        self.patch_size = patch_size


class EncoderAsTheAuthorsDo(EncoderBase):
    def forward(self, images, mask_ratio, noise):
        x = self.patch(images)
        x = x + self.position[None, 1:, :]
        x, mask, ids_restore = random_masking(x, mask_ratio, noise)
        cls_token = self.class_token[None, None] + self.position[None, :1, :]
        cls_tokens = cls_token.expand(x.shape[0], -1, -1)
        x = torch.cat((cls_tokens, x), dim=1)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return x, mask, ids_restore


class EncoderThatEmbedsTheVisible(EncoderBase):
    """Cuts, masks the pixels, and embeds what is left."""

    def forward(self, images, mask_ratio, noise):
        cut = patchify(images, self.patch_size)
        pixels, mask, restore = random_masking(cut, mask_ratio, noise)
        ids = noise.argsort(dim=1)[:, : pixels.shape[1]]
        visible = self.patch.projection(pixels) + F.embedding(ids, self.position[1:])
        x = F.pad(visible, (0, 0, 1, 0))
        x[:, 0] = self.class_token + self.position[0]
        for i in range(len(self.blocks)):
            x = self.blocks[i](x)
        return self.norm(x), mask, restore


class EncoderThatMasksIndices(EncoderBase):
    """What is masked are the numbers of the patches; they choose rows of both."""

    def forward(self, images, mask_ratio, noise):
        embedded = self.patch(images)
        numbers = torch.arange(embedded.shape[1], device=images.device)
        numbers = numbers.expand(embedded.shape[:2]).unsqueeze(-1)
        ids, mask, restore = random_masking(numbers, mask_ratio, noise)
        rows = torch.arange(len(images), device=images.device)[:, None]
        visible = embedded[rows, ids[..., 0]] + self.position[1 + ids[..., 0]]
        first = (self.class_token + self.position[0]).repeat(len(images), 1, 1)
        x = nn.Sequential(*self.blocks)(torch.cat([first, visible], dim=1))
        return F.layer_norm(x, x.shape[-1:], self.norm.weight, self.norm.bias, 1e-6), mask, restore


class EncoderByConvolution(EncoderBase):
    """The embedding is a convolution whose kernel is a view of the layer's weight."""

    def forward(self, images, mask_ratio, noise):
        side, weight = self.patch_size, self.patch.projection.weight
        kernel = weight.unflatten(1, (side, side, -1)).permute(0, 3, 1, 2)
        x = F.conv2d(images, kernel, self.patch.projection.bias, stride=side)
        x = x.flatten(2).mT
        class_position, positions = self.position.split([1, x.shape[1]])
        x, mask, restore = random_masking(torch.add(x, positions), mask_ratio, noise)
        first = torch.stack([self.class_token + class_position[0]] * len(x))
        x = torch.hstack([first[:, None], x])
        for block in self.blocks.children():
            x = block(x)
        return self.norm(x), mask, restore


class EncoderImageByImage(EncoderBase):
    def forward(self, images, mask_ratio, noise):
        results = []
        for image, numbers in zip(images.unbind(), noise.unbind(), strict=True):
            x = self.patch(image.unsqueeze(0)) + self.position[1:]
            x, mask, restore = random_masking(x, mask_ratio, numbers.unsqueeze(0))
            x = torch.cat([(self.class_token + self.position[0]).view(1, 1, -1), x], dim=1)
            for block in self.blocks:
                x = block(x)
            results.append((self.norm(x), mask, restore))
        latent, mask, restore = map(torch.cat, zip(*results, strict=True))
        return latent, mask, restore


class EncoderOfShuffledPositions(EncoderBase):
    """Patches and positions are masked apart, by the same noise, and then added."""

    def forward(self, images, mask_ratio, noise):
        patches = self.patch(images)
        positions = self.position[1:].expand(len(images), -1, -1)
        visible, mask, restore = random_masking(patches, mask_ratio, noise)
        where, _, _ = random_masking(positions, mask_ratio, noise)
        x = patches.new_empty(len(images), 1 + visible.size(1), visible.size(2))
        x[:, 0], x[:, 1:] = self.class_token + self.position[0], visible + where
        for block in self.blocks:
            x = block(x)
        return self.norm(x), mask, restore


class EncoderWithBuffers(nn.Module):
    """Keeps its numbers of patches in a buffer, and masks the class token's row off by hand."""

    def __init__(self, image_size, patch_size, channels, d_model, num_layers, num_heads, d_ff):
        super().__init__()
        height, width = image_size if isinstance(image_size, tuple | list) else [image_size] * 2
        rows, columns = height // patch_size, width // patch_size
        self.register_buffer("numbers", torch.arange(1, 1 + rows * columns), persistent=False)
        self.norm = nn.LayerNorm(d_model, eps=1e-6)
        self.blocks = nn.ModuleList()
        for _ in range(num_layers):
            self.blocks.append(ViTBlock(d_model, num_heads, d_ff))
        self.class_token = nn.Parameter(torch.empty(d_model).normal_(std=0.02))
        self.position = nn.Parameter(torch.empty(len(self.numbers) + 1, d_model).normal_(std=0.02))
        self.patch = PatchEmbedding(patch_size, channels, d_model)

    def forward(self, images, mask_ratio, noise):
        first = self.class_token.expand(len(images), 1, -1)
        x = torch.cat([first, self.patch(images)], dim=1) + self.position
        visible, mask, restore = random_masking(
            x.index_select(1, self.numbers), mask_ratio, noise=noise
        )
        x = torch.cat([x.narrow(1, 0, 1), visible], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x), mask, restore


# ---- MAEDecoder ----------------------------------------------------------------------------


class DecoderBase(nn.Module):
    def __init__(self, num_patches, d_encoder, d_model, num_layers, num_heads, d_ff, patch_numbers):
        super().__init__()
        self.embed = nn.Linear(d_encoder, d_model)
        self.mask_token = nn.Parameter(torch.zeros(d_model))
        self.position = nn.Parameter(torch.zeros(num_patches + 1, d_model))
        self.blocks = nn.ModuleList([ViTBlock(d_model, num_heads, d_ff) for _ in range(num_layers)])
        self.norm = nn.LayerNorm(d_model, eps=1e-6)
        self.predict = nn.Linear(d_model, patch_numbers)

    def finish(self, x):
        for block in self.blocks:
            x = block(x)
        return self.predict(self.norm(x[:, 1:]))


class DecoderAsTheAuthorsDo(DecoderBase):
    def forward(self, latent, restore):
        x = self.embed(latent)
        mask_tokens = self.mask_token.repeat(x.shape[0], restore.shape[1] + 1 - x.shape[1], 1)
        x_ = torch.cat([x[:, 1:, :], mask_tokens], dim=1)
        x_ = torch.gather(x_, dim=1, index=restore.unsqueeze(-1).repeat(1, 1, x.shape[2]))
        x = torch.cat([x[:, :1, :], x_], dim=1)
        x = x + self.position[None]
        for block in self.blocks:
            x = block(x)
        x = self.predict(self.norm(x))
        return x[:, 1:, :]


class DecoderThatScatters(DecoderBase):
    """The visible go into a tensor full of mask tokens."""

    def forward(self, latent, restore):
        x = self.embed(latent)
        kept = x.size(1) - 1
        ids = restore.argsort(dim=1)[:, :kept, None].expand(-1, -1, x.size(2))
        full = self.mask_token.expand(*restore.shape, -1).clone()
        full = full.scatter(1, ids, x[:, 1:])
        return self.finish(torch.cat([x[:, :1], full], dim=1) + self.position)


class DecoderByIndices(DecoderBase):
    """The class token has the place 0 of one long table, so all are indexed at once."""

    def forward(self, latent, restore):
        batch = len(latent)
        x = F.linear(latent, self.embed.weight, self.embed.bias)
        mask = self.mask_token.expand(batch, 1, -1)
        # Every hidden patch points to the one mask token at the end.
        places = F.pad((restore + 1).clamp(max=x.size(1)), (1, 0))
        rows = torch.arange(batch, device=x.device)[:, None]
        x = torch.cat([x, mask], dim=1)[rows, places]
        return self.finish(x + self.position.unsqueeze(0))


class DecoderWithWhere(DecoderBase):
    def forward(self, latent, restore):
        x = self.embed(latent)
        kept = x.size(1) - 1
        hidden = (restore >= kept).unsqueeze(-1)
        # What stands at a hidden place does not matter: it is replaced.
        found = torch.take_along_dim(x[:, 1:], (restore % kept).unsqueeze(-1), dim=1)
        patches = torch.where(hidden, self.mask_token.to(x.dtype), found)
        patches = patches + self.position[1:]
        first = x[:, :1] + self.position[:1]
        return self.finish(torch.cat([first, patches], dim=1))


class DecoderImageByImage(DecoderBase):
    def forward(self, latent, restore):
        predictions = []
        for vectors, places in zip(latent, restore.tolist(), strict=True):
            first, *visible = self.embed(vectors)
            rows = [visible[i] if i < len(visible) else self.mask_token for i in places]
            x = torch.stack([first, *rows]) + self.position
            predictions.append(self.finish(x[None])[0])
        return torch.stack(predictions)


class DecoderThatAssigns(DecoderBase):
    """Into new tensors of its own, with a boolean mask."""

    def forward(self, latent, restore):
        x = self.embed(latent)
        batch, kept, width = x.size(0), x.size(1) - 1, x.size(2)
        order = restore.argsort(dim=1)
        full = torch.empty(batch, restore.size(1), width, dtype=x.dtype, device=x.device)
        for b in range(batch):
            full[b, order[b, :kept]] = x[b, 1:]
        full[restore >= kept] = self.mask_token.to(x.dtype)
        x = torch.cat([x[:, :1], full], dim=1)
        x += self.position
        for block in self.blocks:
            x = block(x)
        _, patches = self.predict(self.norm(x)).tensor_split([1], dim=1)
        return patches


class DecoderByMatrices(DecoderBase):
    """A row for each patch says where it comes from; the mask token is added to what is left."""

    def forward(self, latent, restore):
        x = self.embed(latent)
        at = torch.arange(x.size(1) - 1, device=x.device)
        comes = (restore.unsqueeze(-1) == at).to(x.dtype)  # (batch, patches, kept)
        missing = 1 - comes.sum(dim=-1, keepdim=True)
        patches = torch.baddbmm(missing * self.mask_token, comes, x[:, 1:])
        return self.finish(torch.cat([x[:, :1], patches], dim=1) + self.position)


class DecoderWithTooManyTokens(DecoderBase):
    """As many mask tokens as there are patches: restore takes what it needs."""

    def forward(self, latent, restore):
        first, visible = self.embed(latent).split([1, latent.shape[1] - 1], dim=1)
        tokens = self.mask_token.expand(*restore.shape, -1)
        shuffled = torch.cat([visible, tokens], dim=1)
        patches = shuffled.gather(1, restore[..., None].expand_as(tokens))
        return self.finish(self.position + torch.cat([first, patches], dim=1))


# ---- normalized_pixel_targets --------------------------------------------------------------


def targets_as_the_authors_do(patches, eps=1e-6):
    mean = patches.mean(dim=-1, keepdim=True)
    var = patches.var(dim=-1, keepdim=True)
    return (patches - mean) / (var + eps) ** 0.5


def targets_by_hand(patches, eps=1e-6):
    count = patches.size(-1)
    centered = patches - patches.sum(-1, keepdim=True) / count
    variance = (centered * centered).sum(-1, keepdim=True) / (count - 1)
    return centered * (variance + eps).rsqrt()


def targets_by_layer_norm(patches, eps=1e-6):
    """A layer norm divides by n: its eps and its result are scaled."""
    count = patches.shape[-1]
    share = (count - 1) / count
    return F.layer_norm(patches, (count,), eps=eps * share) * math.sqrt(share)


def targets_by_var_mean(patches, eps=1e-6):
    variance, mean = torch.var_mean(patches, dim=2, correction=1, keepdim=True)
    return patches.sub(mean).div(variance.add(eps).sqrt())


def targets_in_float64(patches, eps=1e-6):
    """Without gradients: nothing is learned by a target."""
    with torch.no_grad():
        wide = patches.double()
        deviation = wide.std(dim=-1, unbiased=True)
        target = (wide - wide.mean(-1)[..., None]) / torch.sqrt(deviation**2 + eps)[..., None]
        return target.to(patches.dtype)


def targets_patch_by_patch(patches, eps=1e-6):
    found = []
    for patch in patches.reshape(-1, patches.size(2)):
        squares = torch.stack([(number - patch.mean()) ** 2 for number in patch])
        deviation = (squares.sum() / (len(patch) - 1) + eps) ** 0.5
        found.append((patch - patch.mean()) / deviation)
    return torch.stack(found).view_as(patches)


def targets_by_einsum(patches, eps=1e-6):
    centered = patches - patches.mean(dim=-1, keepdim=True)
    squares = torch.einsum("bpn,bpn->bp", centered, centered)
    deviation = (squares / (patches.shape[-1] - 1) + eps).sqrt()
    return centered / deviation.unsqueeze(-1)


def targets_in_place_of_a_copy(patches, eps=1e-6):
    target = patches.detach().clone()
    target -= target.mean(dim=-1, keepdim=True)
    target /= target.var(dim=-1, keepdim=True).add_(eps).sqrt_()
    return target


# ---- masked_patch_loss ---------------------------------------------------------------------


def loss_as_the_authors_do(prediction, target, mask):
    if mask.sum() == 0:
        raise ValueError("nothing is hidden")
    weights = mask.to(prediction.dtype)
    loss = (prediction - target) ** 2
    loss = loss.mean(dim=-1)
    return (loss * weights).sum() / weights.sum()


def loss_by_mse(prediction, target, mask):
    if not bool(mask.any()):
        raise ValueError("nothing is hidden")
    errors = F.mse_loss(prediction, target, reduction="none").mean(-1)
    return errors[mask].mean()


def loss_by_masked_select(prediction, target, mask):
    wide = mask.unsqueeze(-1)
    chosen = prediction.masked_select(wide)
    if chosen.numel() == 0:
        raise ValueError("nothing is hidden")
    return nn.MSELoss()(chosen, target.masked_select(wide).detach())


def loss_by_where(prediction, target, mask):
    """The visible patches are taken for right."""
    hidden = mask.count_nonzero()
    if hidden == 0:
        raise ValueError("nothing is hidden")
    guessed = torch.where(mask[..., None], prediction, target)
    return (guessed - target).pow(2).sum() / (hidden * prediction.shape[-1])


def loss_patch_by_patch(prediction, target, mask):
    errors = []
    for b, row in enumerate(mask.tolist()):
        for i, hidden in enumerate(row):
            if hidden:
                errors.append(torch.mean((prediction[b, i] - target[b, i]) ** 2))
    if not errors:
        raise ValueError("nothing is hidden")
    return torch.stack(errors).mean()


def loss_by_nonzero(prediction, target, mask):
    rows, columns = mask.nonzero(as_tuple=True)
    if len(rows) == 0:
        raise ValueError("nothing is hidden")
    difference = prediction[rows, columns] - target[rows, columns]
    return torch.einsum("pn,pn->", difference, difference) / difference.numel()


def loss_by_fill(prediction, target, mask):
    if torch.all(~mask):
        raise ValueError("nothing is hidden")
    squares = (target - prediction).square().masked_fill(~mask.unsqueeze(-1), 0.0)
    return squares.flatten().sum().div(mask.sum() * squares.size(-1))


def loss_by_norm(prediction, target, mask):
    """In float64, and back."""
    hidden = (prediction - target)[mask].double()
    if not len(hidden):
        raise ValueError("nothing is hidden")
    return (torch.sum(hidden**2) / hidden.numel()).to(prediction.dtype)


def loss_flattened(prediction, target, mask):
    ids = mask.flatten().argwhere().squeeze(-1)
    if ids.numel() < 1:
        raise ValueError("nothing is hidden")
    pairs = (x.flatten(0, 1).index_select(0, ids) for x in (prediction, target))
    return F.mse_loss(*pairs)


# ---- MaskedAutoencoder ---------------------------------------------------------------------


class ModelBase(nn.Module):
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
        height, width = (image_size,) * 2 if isinstance(image_size, int) else image_size
        patches = height // patch_size * (width // patch_size)
        self.decoder = MAEDecoder(
            num_patches=patches,
            d_encoder=d_model,
            d_model=decoder_d_model,
            num_layers=decoder_num_layers,
            num_heads=decoder_num_heads,
            d_ff=decoder_d_ff,
            patch_numbers=channels * patch_size * patch_size,
        )
        self.encoder = MAEEncoder(
            image_size, patch_size, channels, d_model, num_layers, num_heads, d_ff
        )
        self.side, self.norm_pix_loss, self.patches = patch_size, normalize, patches


class ModelAsTheAuthorsDo(ModelBase):
    def forward_loss(self, images, prediction, mask):
        target = patchify(images, self.side)
        if self.norm_pix_loss:
            mean = target.mean(dim=-1, keepdim=True)
            var = target.var(dim=-1, keepdim=True)
            target = (target - mean) / (var + 1.0e-6) ** 0.5
        loss = (prediction - target) ** 2
        weights = mask.to(prediction.dtype)
        return (loss.mean(dim=-1) * weights).sum() / weights.sum()

    def forward(self, images, mask_ratio=0.75, noise=None):
        if noise is None:
            noise = torch.rand(images.shape[0], self.patches, device=images.device)
        latent, mask, ids_restore = self.encoder(images, mask_ratio, noise)
        prediction = self.decoder(latent, ids_restore)
        if not mask.any():
            raise ValueError("nothing is hidden")
        return self.forward_loss(images, prediction, mask), prediction, mask


class ModelWithTargetsApart(ModelBase):
    """Targets are made after the prediction and without gradients."""

    @torch.no_grad()
    def target(self, images):
        cut = patchify(images, self.side)
        return normalized_pixel_targets(cut) if self.norm_pix_loss else cut.clone()

    def forward(self, images, mask_ratio=0.75, noise=None):
        if noise is None:
            shape = (len(images), len(self.encoder.position) - 1)
            noise = torch.rand(shape, device=images.device, dtype=torch.float64)
        latent, mask, restore = self.encoder(images, mask_ratio=mask_ratio, noise=noise)
        prediction = self.decoder(latent=latent, restore=restore)
        return masked_patch_loss(prediction, self.target(images), mask), prediction, mask


class ModelOfUnfoldedPatches(ModelBase):
    """Targets by unfold; the loss is an error on the hidden patches alone."""

    def forward(self, images, mask_ratio=0.75, noise=None):
        batch, channels = images.shape[:2]
        target = F.unfold(images, self.side, stride=self.side).mT
        target = target.unflatten(-1, (channels, -1)).mT.flatten(-2)
        if self.norm_pix_loss:
            target = normalized_pixel_targets(target, 1e-6)
        if noise is None:
            noise = torch.stack(
                [torch.rand(self.patches, device=images.device) for _ in range(batch)]
            )
        latent, mask, restore = self.encoder(images, mask_ratio, noise)
        prediction = self.decoder(latent, restore)
        if mask.sum() == 0:
            raise ValueError("nothing is hidden")
        return F.mse_loss(prediction[mask], target[mask]), prediction, mask


class ModelWithAFunctionForTargets(ModelBase):
    """What is done to the targets is chosen once, and noise is drawn flat."""

    def __init__(self, *sizes, **more):
        super().__init__(*sizes, **more)
        self.prepare = normalized_pixel_targets if self.norm_pix_loss else torch.clone

    def forward(self, images, mask_ratio=0.75, noise=None):
        target = self.prepare(patchify(images.detach(), self.side))
        batch, patches, _ = target.shape
        if noise is None:
            noise = torch.rand(batch * patches).to(images.device).view(batch, patches)
        latent, mask, restore = self.encoder(images, mask_ratio, noise)
        prediction = self.decoder(latent, restore)
        return masked_patch_loss(prediction, target, mask), prediction, mask


class ModelImageByImage(ModelBase):
    def forward(self, images, mask_ratio=0.75, noise=None):
        predictions, masks = [], []
        for i, image in enumerate(images):
            own = noise[i : i + 1] if noise is not None else None
            if own is None:
                own = torch.rand(1, self.patches, device=images.device)
            latent, mask, restore = self.encoder(image[None], mask_ratio, own)
            predictions.append(self.decoder(latent, restore))
            masks.append(mask)
        prediction, mask = torch.cat(predictions), torch.cat(masks)
        target = patchify(images, self.side)
        if self.norm_pix_loss:
            target = normalized_pixel_targets(target)
        return masked_patch_loss(prediction, target, mask), prediction, mask


class ModelOfMethods(ModelBase):
    """A method for each step, with keywords."""

    def draw(self, images):
        return torch.rand([len(images), self.patches], device=images.device, dtype=images.dtype)

    def encode(self, images, ratio, noise):
        return self.encoder(images=images, mask_ratio=ratio, noise=noise)

    def forward(self, images, mask_ratio=0.75, noise=None):
        latent, mask, restore = self.encode(
            images, mask_ratio, self.draw(images) if noise is None else noise
        )
        prediction = self.decoder(latent, restore)
        target = patchify(images, self.side)
        loss = masked_patch_loss(
            prediction=prediction,
            target=normalized_pixel_targets(target) if self.norm_pix_loss else target,
            mask=mask,
        )
        return loss, prediction, mask


ALTERNATIVES = {
    "mae/random_masking": [
        mask_as_the_authors_do,
        mask_by_sort_and_scatter,
        mask_image_by_image,
        mask_by_topk,
        mask_by_comparing,
        mask_by_a_threshold,
        mask_by_matrices,
        mask_shuffling_everything,
    ],
    "mae/MAEEncoder": [
        EncoderAsTheAuthorsDo,
        EncoderThatEmbedsTheVisible,
        EncoderThatMasksIndices,
        EncoderByConvolution,
        EncoderImageByImage,
        EncoderOfShuffledPositions,
        EncoderWithBuffers,
    ],
    "mae/MAEDecoder": [
        DecoderAsTheAuthorsDo,
        DecoderThatScatters,
        DecoderByIndices,
        DecoderWithWhere,
        DecoderImageByImage,
        DecoderThatAssigns,
        DecoderByMatrices,
        DecoderWithTooManyTokens,
    ],
    "mae/normalized_pixel_targets": [
        targets_as_the_authors_do,
        targets_by_hand,
        targets_by_layer_norm,
        targets_by_var_mean,
        targets_in_float64,
        targets_patch_by_patch,
        targets_by_einsum,
        targets_in_place_of_a_copy,
    ],
    "mae/masked_patch_loss": [
        loss_as_the_authors_do,
        loss_by_mse,
        loss_by_masked_select,
        loss_by_where,
        loss_patch_by_patch,
        loss_by_nonzero,
        loss_by_fill,
        loss_by_norm,
        loss_flattened,
    ],
    "mae/MaskedAutoencoder": [
        ModelAsTheAuthorsDo,
        ModelWithTargetsApart,
        ModelOfUnfoldedPatches,
        ModelWithAFunctionForTargets,
        ModelImageByImage,
        ModelOfMethods,
    ],
}

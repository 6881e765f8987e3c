"""Chapter 8: masked autoencoders. He et al. 2022."""

import torch
from torch import Tensor

from autograder.cases import attention_parameters
from autograder.exercise import Exercise, Returned

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


# ---- encoder and decoder -------------------------------------------------------------------


def blocks_parameters(d_model, num_layers, d_ff):
    """The parameters of a stack of ViTBlock and of the norm behind it."""
    found = {"norm.weight": (d_model,), "norm.bias": (d_model,)}
    for layer in range(num_layers):
        prefix = f"blocks.{layer}."
        found |= {
            f"{prefix}{norm}.{part}": (d_model,)
            for norm in ("norm1", "norm2")
            for part in ("weight", "bias")
        }
        found |= attention_parameters(f"{prefix}self_attn.", d_model)
        found |= {
            f"{prefix}w_1.weight": (d_ff, d_model),
            f"{prefix}w_1.bias": (d_ff,),
            f"{prefix}w_2.weight": (d_model, d_ff),
            f"{prefix}w_2.bias": (d_model,),
        }
    return found


def patches_of(image_size, patch_size):
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return (height // patch_size) * (width // patch_size)


def mae_encoder_parameters(image_size, patch_size, channels, d_model, num_layers, num_heads, d_ff):
    return {
        "patch.projection.weight": (d_model, patch_size * patch_size * channels),
        "patch.projection.bias": (d_model,),
        "class_token": (d_model,),
        "position": (1 + patches_of(image_size, patch_size), d_model),
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


# ---- target and loss -----------------------------------------------------------------------

normalized_pixel_targets = Exercise(
    "mae/normalized_pixel_targets",
    points=2,
    signature="normalized_pixel_targets(patches, eps=1e-6)",
    returns=[Returned("targets", "(batch, patches, numbers)")],
)

masked_patch_loss = Exercise(
    "mae/masked_patch_loss",
    points=3,
    signature="masked_patch_loss(prediction, target, mask)",
    returns=[Returned("loss", "()")],
)


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
        patches_of(image_size, patch_size),
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


def named_masking(result) -> dict[str, Tensor]:
    visible, mask, restore = result
    return {"visible": visible, "mask": mask, "restore": restore}


@random_masking.case("half of four", next_step="Sort the noise.")
def _(random_masking, make):
    return named_masking(random_masking(make.normal(2, 4, 3), 0.5, make.uniform(0, 1, 2, 4)))


@mae_encoder.case("an image", next_step="Mask, then encode.")
def _(mae_encoder, make):
    module = make.module(mae_encoder, (4, 8), 2, 3, 8, 1, 2, 12)
    latent, _, _ = module(make.normal(2, 3, 4, 8), 0.5, make.uniform(0, 1, 2, 8))
    return {"latent": latent}


@mae_decoder.case("an image", next_step="Un-shuffle, then decode.")
def _(mae_decoder, make):
    module = make.module(mae_decoder, 4, 6, 8, 1, 2, 12, 5)
    restore = make.uniform(0, 1, 2, 4).argsort(dim=1)
    return {"prediction": module(make.normal(2, 3, 6), restore)}


@normalized_pixel_targets.case("patches", next_step="Subtract and divide.")
def _(normalized_pixel_targets, make):
    return {"targets": normalized_pixel_targets(make.normal(2, 4, 12))}


@masked_patch_loss.case("patches", next_step="Average over hidden patches.")
def _(masked_patch_loss, make):
    mask = torch.tensor([[True, False, True], [False, True, True]])
    return {"loss": masked_patch_loss(make.normal(2, 3, 4), make.normal(2, 3, 4), mask)}


@masked_autoencoder.case("an image", next_step="Put the parts together.")
def _(masked_autoencoder, make):
    module = make.module(masked_autoencoder, 4, 2, 3, 8, 1, 2, 12, 4, 1, 2, 6)
    loss, _, _ = module(make.normal(2, 3, 4, 4), 0.5, make.uniform(0, 1, 2, 4))
    return {"loss": loss}

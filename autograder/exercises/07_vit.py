"""Chapter 7: the vision transformer. Dosovitskiy et al. 2021."""

from autograder.cases import attention_parameters
from autograder.exercise import Exercise, Returned

# ---- patches -------------------------------------------------------------------------------

patchify = Exercise(
    "vit/patchify",
    points=3,
    signature="patchify(images, patch_size)",
    returns=[Returned("patches", "(batch, patches, patch_size * patch_size * channels)")],
)

unpatchify = Exercise(
    "vit/unpatchify",
    points=3,
    signature="unpatchify(patches, patch_size, channels, grid=None)",
    returns=[Returned("images", "(batch, channels, height, width)")],
)


def patch_parameters(patch_size, channels, d_model, prefix=""):
    numbers = patch_size * patch_size * channels
    return {
        f"{prefix}projection.weight": (d_model, numbers),
        f"{prefix}projection.bias": (d_model,),
    }


patch_embedding = Exercise(
    "vit/PatchEmbedding",
    points=3,
    signature="PatchEmbedding(patch_size, channels, d_model), forward(images)",
    returns=[Returned("embeddings", "(batch, patches, d_model)")],
    parameters=patch_parameters,
)


# ---- the block and the model ---------------------------------------------------------------


def vit_block_parameters(d_model, num_heads, d_ff, dropout=0.0, prefix=""):
    return {
        **{
            f"{prefix}{norm}.{part}": (d_model,)
            for norm in ("norm1", "norm2")
            for part in ("weight", "bias")
        },
        **attention_parameters(f"{prefix}self_attn.", d_model),
        f"{prefix}w_1.weight": (d_ff, d_model),
        f"{prefix}w_1.bias": (d_ff,),
        f"{prefix}w_2.weight": (d_model, d_ff),
        f"{prefix}w_2.bias": (d_model,),
    }


vit_block = Exercise(
    "vit/ViTBlock",
    points=3,
    signature="ViTBlock(d_model, num_heads, d_ff, dropout=0.0), forward(x)",
    returns=[Returned("output", "(batch, length, d_model)")],
    without=["multi_head_attention", "_transformer_encoder_layer_fwd"],
    parameters=vit_block_parameters,
)


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
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    patches = (height // patch_size) * (width // patch_size)
    found = patch_parameters(patch_size, channels, d_model, "patch.")
    found |= {"class_token": (d_model,), "position": (1 + patches, d_model)}
    for layer in range(num_layers):
        found |= vit_block_parameters(d_model, num_heads, d_ff, prefix=f"blocks.{layer}.")
    return found | {
        "norm.weight": (d_model,),
        "norm.bias": (d_model,),
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


# ---- positions and distances ---------------------------------------------------------------

interpolate_positions = Exercise(
    "vit/interpolate_positions",
    points=4,
    signature="interpolate_positions(table, old_grid, new_grid)",
    returns=[Returned("table", "(1 + new rows * new columns, d_model)")],
)

mean_attention_distance = Exercise(
    "vit/mean_attention_distance",
    points=4,
    signature="mean_attention_distance(weights, grid, patch_size)",
    returns=[Returned("distance", "(heads,)")],
)


@patchify.case("an image", next_step="Reshape, permute, reshape.")
def _(patchify, make):
    return {"patches": patchify(make.normal(2, 3, 4, 4), 2)}


@unpatchify.case("an image", next_step="Reshape, permute, reshape.")
def _(unpatchify, make):
    return {"images": unpatchify(make.normal(2, 4, 12), 2, 3)}


@patch_embedding.case("an image", next_step="Project the patches.")
def _(patch_embedding, make):
    module = make.module(patch_embedding, 2, 3, 8)
    return {"embeddings": module(make.normal(2, 3, 4, 6))}


@vit_block.case("a sequence", next_step="Follow the formula.")
def _(vit_block, make):
    module = make.module(vit_block, 8, 2, 12)
    return {"output": module(make.normal(2, 3, 8))}


@vision_transformer.case("an image", next_step="Follow the table.")
def _(vision_transformer, make):
    module = make.module(vision_transformer, (4, 6), 2, 3, 5, 8, 2, 2, 12)
    return {"logits": module(make.normal(2, 3, 4, 6))}


@interpolate_positions.case("a larger grid", next_step="Resize the picture.")
def _(interpolate_positions, make):
    return {"table": interpolate_positions(make.normal(7, 4), (2, 3), (4, 5))}


@mean_attention_distance.case("two heads", next_step="Weigh the distances.")
def _(mean_attention_distance, make):
    weights = make.normal(2, 2, 7, 7).softmax(-1)
    return {"distance": mean_attention_distance(weights, (2, 3), 4)}

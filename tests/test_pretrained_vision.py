"""Chapter 7's ViT and chapter 8's MAE, filled from Hugging Face's checkpoints, compute the same."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEForPreTraining,
)

from workbook.pretrained import load_mae, load_vit
from workbook.ready.mae import MaskedAutoencoder
from workbook.ready.vit import VisionTransformer

THEIR_SIZES = {
    **{"image_size": 16, "patch_size": 4, "num_channels": 3, "hidden_size": 24},
    **{"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40},
    **{"layer_norm_eps": 1e-6, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
}
VIT = {
    **{"image_size": 16, "patch_size": 4, "channels": 3, "num_classes": 5, "d_model": 24},
    **{"num_layers": 2, "num_heads": 4, "d_ff": 40},
}
MAE = {
    **{"image_size": 16, "patch_size": 4, "channels": 3, "d_model": 24, "num_layers": 2},
    **{"num_heads": 4, "d_ff": 40, "decoder_d_model": 12, "decoder_num_layers": 3},
    **{"decoder_num_heads": 2, "decoder_d_ff": 20},
}


def with_noise(model: PreTrainedModel) -> PreTrainedModel:
    """As it starts, norms are the identity and biases 0: mistaken names would not show."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model.eval()


@pytest.fixture(scope="module")
def vit() -> ViTForImageClassification:
    torch.manual_seed(1)
    return with_noise(ViTForImageClassification(ViTConfig(**THEIR_SIZES, num_labels=5)))


@pytest.fixture(scope="module")
def mae() -> ViTMAEForPreTraining:
    torch.manual_seed(2)
    decoder = {
        **{"decoder_hidden_size": 12, "decoder_num_hidden_layers": 3},
        **{"decoder_num_attention_heads": 2, "decoder_intermediate_size": 20},
    }
    config = ViTMAEConfig(**THEIR_SIZES, **decoder, mask_ratio=0.75, norm_pix_loss=True)
    return with_noise(ViTMAEForPreTraining(config))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def saved(model: PreTrainedModel, folder) -> dict[str, torch.Tensor]:
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("kind", ["in memory", "in a file"])
def test_a_vit_gives_the_same_logits(vit, images, tmp_path, kind):
    state = vit.state_dict() if kind == "in memory" else saved(vit, tmp_path)
    model = VisionTransformer(**VIT).eval()
    load_vit(model, state)
    with torch.no_grad():
        torch.testing.assert_close(model(images), vit(images).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["in memory", "in a file", "on the hub"])
def test_a_masked_autoencoder_gives_the_same_loss_and_predictions(mae, images, tmp_path, kind):
    state = mae.state_dict() if kind == "in memory" else saved(mae, tmp_path)
    if kind == "on the hub":  # transformers 4 called the decoder's layers so
        old, new = "decoder.decoder_encoder.layer.", "decoder.decoder_layers."
        state = {name.replace(old, new): tensor for name, tensor in state.items()}
        assert any(name.startswith(new) for name in state)
    model = MaskedAutoencoder(**MAE).eval()
    load_mae(model, state)
    noise = torch.rand(3, 16, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        loss, prediction, mask = model(images, 0.75, noise)
        theirs = mae(images, noise=noise)
    torch.testing.assert_close(prediction, theirs.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(loss, theirs.loss, rtol=1e-5, atol=1e-5)
    assert torch.equal(mask, theirs.mask.bool())


def test_every_parameter_comes_from_the_checkpoint(vit, mae):
    for model, load, theirs in (
        (VisionTransformer(**VIT), load_vit, vit),
        (MaskedAutoencoder(**MAE), load_mae, mae),
    ):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(float("nan"))
        load(model, theirs.state_dict())
        assert all(parameter.isfinite().all() for parameter in model.parameters())
        count = sum(p.numel() for p in theirs.parameters())
        assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_layers": 3}, r"nothing for blocks\.2\..* number of layers"),
        ({"num_layers": 1}, r"no blocks\.1\..*layers\.1\..* number of layers"),
        ({"d_ff": 41}, r"\(.*41.*\).*\(.*40.*\).* sizes"),
        ({"image_size": 20}, r"position .*\(26, 24\).*\(17, 24\).* sizes"),
        ({"channels": 1}, r"patch\.projection\.weight .*\(24, 16\).*\(24, 48\).* sizes"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name_and_nothing_changes(vit, mae, changes, said):
    for model, load, theirs in (
        (VisionTransformer(**(VIT | changes)), load_vit, vit),
        (MaskedAutoencoder(**(MAE | changes)), load_mae, mae),
    ):
        before = [p.clone() for p in model.parameters()]
        with pytest.raises(ValueError, match=said):
            load(model, theirs.state_dict())
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_decoder_that_does_not_fit_leaves_the_encoder_as_it_was(mae):
    model = MaskedAutoencoder(**(MAE | {"decoder_num_layers": 2}))
    before = model.encoder.class_token.clone()
    with pytest.raises(ValueError, match="number of layers"):
        load_mae(model, mae.state_dict())
    assert torch.equal(model.encoder.class_token, before)


def test_the_checkpoint_is_copied_and_not_shared(vit):
    model = VisionTransformer(**VIT)
    state = vit.state_dict()
    before = state["vit.embeddings.position_embeddings"].clone()
    load_vit(model, state)
    with torch.no_grad():
        model.position.zero_()
    assert torch.equal(state["vit.embeddings.position_embeddings"], before)

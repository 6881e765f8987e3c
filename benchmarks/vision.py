"""How fast chapters 7 and 8 train: ours, the plainest loop, and ``transformers``.

``python benchmarks/vision.py [--steps N] [--rounds N] [--json results.json]`` measures, with the
same sizes, first weights and batches on all sides,

- training chapter 7's ViT: ``workbook.training.train`` with fused attention and with the
  learner's own; the plainest PyTorch loop on both; and the same plain loop on the
  ``ViTForImageClassification`` of ``transformers``. The losses of the first step must agree;
- pretraining chapter 8's MAE: its encoder, which sees the visible patches only, beside one that
  sees a mask token for each hidden patch; the whole model with both encoders; and the
  ``ViTMAEForPreTraining`` of ``transformers``. The losses of the two that compute the same must
  agree.

The sides take turns, round after round, and a ratio compares what ran in the same round: the
seconds are this machine's. The pictures are scikit-learn's digits, enlarged to 32 x 32 pixels with
three channels, so that the sizes are those of CIFAR-10. ``--quick`` does a few steps, to see that
all of this works.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from _turns import (
    TOLERANCE,
    Run,
    Side,
    add_noise,
    compared,
    library,
    machine,
    plain_loop,
    summary,
    take_turns,
)
from workbook import budget
from workbook.fused import fuse
from workbook.images import digits
from workbook.pretrained import load_mae, load_vit
from workbook.ready.mae import MaskedAutoencoder, masked_patch_loss, normalized_pixel_targets
from workbook.ready.vit import VisionTransformer, patchify
from workbook.training import count_parameters, train

VIT = {
    **{"image_size": 32, "patch_size": 4, "channels": 3, "d_model": 192},
    **{"num_layers": 6, "num_heads": 3, "d_ff": 768},
}
DECODER = {
    **{"decoder_d_model": 96, "decoder_num_layers": 2},
    **{"decoder_num_heads": 3, "decoder_d_ff": 384},
}
CLASSES, PATCHES = 10, 64
RATIO = 0.75
STEPS, ROUNDS, BATCH = 4, 9, 32
PLAIN, FUSED = "plain loop, own attention", "plain loop, fused attention"
OURS, OURS_FUSED = "train, own attention", "train, fused attention"
THEIRS = "plain loop, transformers"
VISIBLE, EVERY = "MAE", "MAE, mask tokens in the encoder"
THEIR_MAE = "transformers' MAE"
ENCODER, EVERY_ENCODER = "encoder, visible patches", "encoder, mask tokens"
# Speeds worth a line of their own: the first over the second.
AGAINST = {
    "training": [(OURS_FUSED, FUSED), (OURS, PLAIN), (OURS_FUSED, PLAIN), (OURS_FUSED, THEIRS)],
    "pretraining": [(ENCODER, EVERY_ENCODER), (VISIBLE, EVERY), (VISIBLE, THEIR_MAE)],
}
THEIR_SIZES = {
    **{"image_size": VIT["image_size"], "patch_size": VIT["patch_size"], "num_channels": 3},
    **{"hidden_size": VIT["d_model"], "num_hidden_layers": VIT["num_layers"]},
    **{"num_attention_heads": VIT["num_heads"], "intermediate_size": VIT["d_ff"]},
    **{"layer_norm_eps": 1e-6, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
}


class WithMaskTokens(MaskedAutoencoder):
    """Chapter 8's model as BERT would have it: the encoder reads a token for every hidden patch."""

    def __init__(self, **sizes: Any) -> None:
        super().__init__(**sizes)
        self.hidden = nn.Parameter(0.02 * torch.randn(sizes["d_model"]))

    def encode(self, images: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the vectors of all positions, (batch, 1 + patches, d_model), and the mask."""
        encoder = self.encoder
        mask = noise.argsort(dim=1).argsort(dim=1) >= int(PATCHES * (1 - RATIO))
        patches = torch.where(mask[..., None], self.hidden, encoder.patch(images))
        first = encoder.class_token.expand(len(images), 1, -1)
        x = torch.cat([first, patches], dim=1) + encoder.position
        for layer in encoder.blocks:
            x = layer(x)
        return encoder.norm(x), mask

    def forward(
        self, images: torch.Tensor, mask_ratio: float, noise: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        latent, mask = self.encode(images, noise)
        in_order = torch.arange(PATCHES, device=images.device).expand(len(images), -1)
        prediction = self.decoder(latent, in_order)
        target = normalized_pixel_targets(patchify(images, self.patch_size))
        return masked_patch_loss(prediction, target, mask), prediction, mask


def batches() -> Callable[[torch.Generator], tuple[torch.Tensor, ...]]:
    """Draws digits of 32 x 32 pixels with three channels, their labels, and noise to mask by."""
    data = digits()
    pictures = F.interpolate(data.floats() - 0.5, size=32, mode="bilinear").repeat(1, 3, 1, 1)

    def make_batch(generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        ids = torch.randint(len(data), (BATCH,), generator=generator)
        noise = torch.rand(BATCH, PATCHES, generator=generator)
        return pictures[ids], data.labels[ids], noise

    return make_batch


def adamw(parameters: Any) -> torch.optim.Optimizer:
    """One optimizer for all sides."""
    return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.05)


def classify(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, _noise: Any) -> Any:
    """The loss of a classifier, ours or theirs."""
    found = model(images)
    return F.cross_entropy(found if isinstance(found, torch.Tensor) else found.logits, labels)


def reconstruct(model: nn.Module, images: torch.Tensor, _labels: Any, noise: torch.Tensor) -> Any:
    """The loss of a masked autoencoder, ours or theirs."""
    if isinstance(model, MaskedAutoencoder):
        return model(images, RATIO, noise)[0]
    return model(images, noise=noise).loss


def encode(model: Any, images: torch.Tensor, _labels: Any, noise: torch.Tensor) -> Any:
    """A number that depends on everything that the encoder gives."""
    if isinstance(model, WithMaskTokens):
        return model.encode(images, noise)[0].square().mean()
    return model.encoder(images, RATIO, noise)[0].square().mean()


def their(kind: str, **sizes: Any) -> nn.Module | None:
    """A model of ``transformers`` with our sizes, moved away from where it starts; or None."""
    transformers = library()
    if transformers is None:
        return None
    config, model = {
        "vit": (transformers.ViTConfig, transformers.ViTForImageClassification),
        "mae": (transformers.ViTMAEConfig, transformers.ViTMAEForPreTraining),
    }[kind]
    found = model(config(**THEIR_SIZES, **sizes))
    add_noise(found, 0.02)
    return found


def report_losses(runs: Mapping[str, list[Run]], same: Sequence[str], precision: Any) -> Any:
    """Prints the losses of the first and last step. ``same`` must begin with the same one."""
    losses = {
        name: [float(done[-1].result[0]), float(done[-1].result[-1])] for name, done in runs.items()
    }
    print("  loss at the first and the last step")
    for name, (first, last) in losses.items():
        print(f"  {name:68}{first:10.5f}{last:10.5f}")
    firsts = [losses[name][0] for name in same if name in losses]
    apart = max(firsts) - min(firsts)
    tolerance = TOLERANCE[precision]
    print(f"  first losses apart: {apart:.1e} (allowed: {tolerance:.0e})", flush=True)
    if not apart <= tolerance:
        raise SystemExit("The sides do not begin with the same loss: they compute other things.")
    return {"loss": losses, "apart": apart, "tolerance": tolerance}


def loop_on(
    model: nn.Module, make_batch: Any, loss_of: Any, precision: torch.dtype, fused: bool = False
) -> Side:
    """The plain loop on a copy of ``model``."""

    def prepare(steps: int) -> Callable[[], list[torch.Tensor]]:
        fresh = copied(model, fused)
        return lambda: plain_loop(fresh, make_batch, loss_of, steps, adamw, precision)

    return prepare


def copied(model: nn.Module, fused: bool) -> nn.Module:
    """A copy on the device; with fused attention where asked for."""
    fresh = copy.deepcopy(model).to(budget.device())
    # Encoder and decoder of an MAE have as many heads here.
    return fuse(fresh, VIT["num_heads"]) if fused else fresh


def training(asked: argparse.Namespace, make_batch: Any) -> dict[str, Any]:
    """Training chapter 7's model."""
    precision = getattr(torch, asked.precision)
    budget.seed(0)
    ours = VisionTransformer(num_classes=CLASSES, **VIT)
    theirs = their("vit", num_labels=CLASSES)
    if theirs is not None:
        load_vit(ours, theirs.state_dict())

    def with_train(fused: bool) -> Side:
        def prepare(steps: int) -> Callable[[], list[float]]:
            model = copied(ours, fused)

            def run() -> list[float]:
                with contextlib.redirect_stdout(io.StringIO()):  # the bar is drawn, not shown
                    return train(
                        model,
                        make_batch,
                        classify,
                        steps=steps,
                        optimizer=adamw,
                        precision=precision,
                    ).loss

            return run

        return prepare

    sides = {
        OURS_FUSED: with_train(True),
        OURS: with_train(False),
        FUSED: loop_on(ours, make_batch, classify, precision, True),
        PLAIN: loop_on(ours, make_batch, classify, precision),
    }
    if theirs is not None:
        sides[THEIRS] = loop_on(theirs, make_batch, classify, precision)
    print(
        f"\ntraining ViT: {count_parameters(ours):,} parameters, {asked.steps} steps of {BATCH} "
        f"pictures, {asked.precision}; rounds: {asked.rounds}",
        flush=True,
    )
    runs = take_turns(sides, asked.steps, asked.rounds, 1)
    found = compared(runs, asked.steps * BATCH, "images", AGAINST["training"])
    return found | report_losses(runs, list(runs), precision)


def pretraining(asked: argparse.Namespace, make_batch: Any) -> dict[str, Any]:
    """Pretraining chapter 8's model, and its encoder by itself."""
    precision = getattr(torch, asked.precision)
    budget.seed(0)
    ours, every = MaskedAutoencoder(**VIT, **DECODER), WithMaskTokens(**VIT, **DECODER)
    theirs = their(
        "mae",
        decoder_hidden_size=DECODER["decoder_d_model"],
        decoder_num_hidden_layers=DECODER["decoder_num_layers"],
        decoder_num_attention_heads=DECODER["decoder_num_heads"],
        decoder_intermediate_size=DECODER["decoder_d_ff"],
        mask_ratio=RATIO,
        norm_pix_loss=True,
    )
    if theirs is not None:
        load_mae(ours, theirs.state_dict())
    every.load_state_dict(ours.state_dict(), strict=False)  # all but the mask token
    sides = {
        ENCODER: loop_on(ours, make_batch, encode, precision, True),
        EVERY_ENCODER: loop_on(every, make_batch, encode, precision, True),
        VISIBLE: loop_on(ours, make_batch, reconstruct, precision, True),
        EVERY: loop_on(every, make_batch, reconstruct, precision, True),
    }
    if theirs is not None:
        sides[THEIR_MAE] = loop_on(theirs, make_batch, reconstruct, precision)
    print(
        f"\npretraining MAE: {count_parameters(ours):,} parameters, {RATIO:.0%} hidden, "
        f"{asked.steps} steps of {BATCH} pictures, {asked.precision}; rounds: {asked.rounds}",
        flush=True,
    )
    runs = take_turns(sides, asked.steps, asked.rounds, 1)
    found = compared(runs, asked.steps * BATCH, "images", AGAINST["pretraining"])
    return found | report_losses(runs, (VISIBLE, THEIR_MAE), precision)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, help=f"training steps of a run ({STEPS})")
    parser.add_argument("--rounds", type=int, help=f"turns of each side ({ROUNDS})")
    parser.add_argument("--quick", action="store_true", help="a few steps: does it all work?")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch, on the CPU (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    asked = parser.parse_args(arguments)
    asked.steps = asked.steps or (1 if asked.quick else STEPS)
    asked.rounds = asked.rounds or (1 if asked.quick else ROUNDS)
    torch.set_num_threads(asked.threads)
    found: dict[str, Any] = {"machine": machine()}
    print(", ".join(f"{name}: {value}" for name, value in found["machine"].items()))
    if library() is None:
        print('Without transformers, its sides are left out: pip install "transformers>=5,<6"')
    make_batch = batches()
    found["training"] = training(asked, make_batch)
    found["pretraining"] = pretraining(asked, make_batch)
    known = found["machine"]
    versions = {"ransformers": f", {known['transformers']}", "": f", PyTorch {known['torch']}"}
    found["summary"] = summary(found["training"], "training ViT", versions)
    found["summary"] += summary(found["pretraining"], "pretraining MAE", versions)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""The measurement of chapters 7 and 8 works; what it measures is not judged here."""

import json
import sys
from types import ModuleType

import pytest
import torch


@pytest.fixture
def vision(benchmark_script, monkeypatch) -> ModuleType:
    module = benchmark_script("vision")
    # Small, so that the pass is quick; what is computed is the same.
    monkeypatch.setattr(module, "BATCH", 4)
    monkeypatch.setattr(module, "VIT", module.VIT | {"d_model": 24, "d_ff": 48, "num_layers": 2})
    monkeypatch.setattr(
        module, "DECODER", module.DECODER | {"decoder_d_model": 12, "decoder_d_ff": 24}
    )
    sizes = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2}
    monkeypatch.setattr(module, "THEIR_SIZES", module.THEIR_SIZES | sizes)
    return module


def quick(vision: ModuleType, tmp_path):
    file = tmp_path / "figures.json"
    vision.main(["--quick", "--json", str(file)])
    return json.loads(file.read_text(encoding="utf-8"))


def test_a_quick_pass_measures_every_side_and_all_agree(vision, tmp_path, capfd):
    pytest.importorskip("transformers")
    found = quick(vision, tmp_path)
    for part in ("training", "pretraining"):
        assert len(found[part]["images a second"]) == 5
        assert len(found[part]["ratios"]) == len(vision.AGAINST[part])
        assert found[part]["apart"] <= found[part]["tolerance"]
    losses = found["pretraining"]["loss"]
    # A token in the place of a hidden patch is another computation.
    assert losses[vision.EVERY][0] != pytest.approx(losses[vision.VISIBLE][0], abs=1e-6)
    out, _ = capfd.readouterr()
    assert "\r" not in out


def test_without_transformers_the_rest_is_measured(vision, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    found = quick(vision, tmp_path)
    assert vision.THEIRS not in found["training"]["loss"]
    assert vision.THEIR_MAE not in found["pretraining"]["loss"]
    assert 'pip install "transformers>=5,<6"' in capsys.readouterr().out


def test_mask_tokens_stand_for_the_hidden_patches_and_for_no_others(vision):
    torch.manual_seed(0)
    model = vision.WithMaskTokens(**vision.VIT, **vision.DECODER).eval()
    images, _, noise = vision.batches()(torch.Generator().manual_seed(0))
    with torch.no_grad():
        latent, mask = model.encode(images, noise)
        assert mask.sum(dim=1).tolist() == [48] * vision.BATCH
        where = mask.reshape(-1, 1, 8, 8).float()
        pixels = torch.nn.functional.interpolate(where, size=32).bool()
        torch.testing.assert_close(model.encode(images.masked_fill(pixels, 9.0), noise)[0], latent)
        assert not torch.allclose(model.encode(images.masked_fill(~pixels, 9.0), noise)[0], latent)


def test_sides_that_compute_other_things_are_refused(vision, tmp_path, monkeypatch):
    right = vision.classify
    calls = []

    def drifting(*given):
        calls.append(1)
        return right(*given) + 0.01 * len(calls)

    monkeypatch.setattr(vision, "classify", drifting)
    with pytest.raises(SystemExit, match="do not begin with the same loss"):
        quick(vision, tmp_path)

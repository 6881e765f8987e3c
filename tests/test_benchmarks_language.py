"""The measurement of chapter 6 works; what it measures is not judged here."""

import json
import sys
from types import ModuleType

import pytest
import torch

from workbook.data import DataError


@pytest.fixture
def language(benchmark_script) -> ModuleType:
    return benchmark_script("language")


def quick(language, tmp_path, *options: str):
    file = tmp_path / "figures.json"
    language.main(["--quick", "--data", "reference", "--json", str(file), *options])
    return json.loads(file.read_text(encoding="utf-8"))


def test_a_quick_pass_measures_every_side_and_all_agree(language, tmp_path, capfd):
    pytest.importorskip("transformers")
    found = quick(language, tmp_path)
    training = found["training"]
    assert len(training["tokens a second"]) == 6
    assert set(training["loss"]) == set(training["held out"]) == set(training["tokens a second"])
    assert set(training["loss"][language.PLAIN]) == {"1", "2", "3"}
    assert training["apart"]["1"] <= training["tolerance"]
    assert len(training["ratios"]) == len(language.AGAINST["training"])
    for length in ("4", "8"):
        assert len(found["writing"][length]["tokens a second"]) == 4
        assert len(found["writing"][length]["ratios"]) == len(language.AGAINST["writing"])
    out, _ = capfd.readouterr()
    assert "the same tokens on all sides" in out
    assert "\r" not in out


def test_without_transformers_the_rest_is_measured(language, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    found = quick(language, tmp_path)
    assert set(found["training"]["tokens a second"]) == {
        *(language.PLAIN, language.FUSED, language.OURS, language.OURS_FUSED)
    }
    assert set(found["writing"]["4"]["tokens a second"]) == {language.WITHOUT, language.WITH}
    assert 'pip install "transformers>=5,<6"' in capsys.readouterr().out


def test_the_whole_run_has_one_schedule_on_all_sides(language, tmp_path):
    found = quick(language, tmp_path, "--whole")
    assert "writing" not in found
    assert set(found["training"]["loss"]) == {language.OURS_FUSED, language.FUSED, language.PLAIN}
    assert max(found["training"]["apart"].values()) < 1e-4
    # Three steps of a warm-up of a hundred: hardly anything is learned yet.
    losses = found["training"]["loss"][language.PLAIN]
    assert losses["1"] - losses["3"] < 0.2


def test_without_tiny_shakespeare_the_text_is_the_language_reference(language, capsys, monkeypatch):
    def none():
        raise DataError("No network.")

    monkeypatch.setattr(language, "tiny_shakespeare", none)
    chapter = language.from_the_chapter(language.SIZE)
    name, text = language.text_of(None, chapter)
    assert name == "Python's language reference"
    assert len(text) > 100_000
    assert "No network." in capsys.readouterr().out
    with pytest.raises(SystemExit, match="No network"):
        language.text_of("shakespeare", chapter)


def test_sides_that_compute_other_things_are_refused(language, tmp_path, monkeypatch):
    right = language.plain_loss
    monkeypatch.setattr(language, "plain_loss", lambda *given: right(*given) + 0.01)
    with pytest.raises(SystemExit, match="do not begin with the same loss"):
        quick(language, tmp_path)


def test_sides_that_write_other_tokens_are_refused(language, tmp_path, monkeypatch):
    def wrong(model, token_ids, new, **options):
        return torch.zeros(1, token_ids.shape[1] + new, dtype=torch.long)

    monkeypatch.setattr(language.gpt, "generate", wrong)
    with pytest.raises(SystemExit, match="do not write the same tokens"):
        quick(language, tmp_path)

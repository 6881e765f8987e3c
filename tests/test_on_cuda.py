"""The script for machines with a graphics card goes its ways, and finds what is wrong."""

from __future__ import annotations

import on_cuda
import pytest
import torch

from autograder import exercise as exercises
from autograder.checking import verdict_on

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def test_one_chapter_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert on_cuda.main(["--device", DEVICE, "--chapters", "2"]) == 0
    told = capsys.readouterr().out
    assert told.count("multi_head/MultiHeadAttention") >= 2
    assert "02_multi_head_attention:" in told
    assert f"All is right on {DEVICE}." in told


def test_a_component_on_the_device_is_trained_on_the_cpu() -> None:
    """Parameters stay where they are, and get their gradients through the move."""
    exercise = exercises.find("multi_head/MultiHeadAttention")
    moved = on_cuda.on_device(on_cuda.solution(exercise), DEVICE)
    module = moved(8, 2)
    x = torch.randn(2, 3, 8)
    output, _ = module(x, x, x)
    output.sum().backward()
    assert output.device.type == "cpu"
    assert all(p.grad is not None and p.grad.device.type == "cpu" for p in module.parameters())
    assert verdict_on(exercise, moved)[0].points == exercise.points


def test_what_is_wrong_on_the_device_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_cuda, "solution", lambda exercise: lambda *arguments: None)
    exercise = exercises.find("attention/softmax")
    wrong = on_cuda.accepted(on_cuda.solution, [exercise.chapter])
    assert any(text.startswith("attention/softmax: ") for text in wrong)


def test_without_a_card_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert on_cuda.main([]) == 1
    assert "--device cpu" in capsys.readouterr().out

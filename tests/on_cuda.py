"""What the suite cannot show without a graphics card: run this where there is one.

    python tests/on_cuda.py [--chapters 6 7] [--device cuda]

It needs PyTorch with CUDA, and no pytest and no Jupyter. It shows that

- the checks accept components that compute on the card: every solution, moved there with its
  inputs and parameters, gets full points, losses and gradients included;
- the checks are not disturbed where the card is the default device;
- batches and augmentation are the same there;
- all notebooks run through on the card with the ``smoke`` budget.

``--device cpu`` goes the same ways without a card: that is what the suite tests.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from autograder import exercise as exercises  # noqa: E402
from autograder.checking import verdict_on  # noqa: E402
from workbook import images, record  # noqa: E402


def solution(exercise: exercises.Exercise) -> Any:
    """The course's own component; not imported, since checks refuse the ready-made blocks."""
    source = Path(find_spec(f"workbook.ready.{exercise.prefix}").origin).read_text(encoding="utf-8")
    namespace: dict[str, Any] = {"__name__": "solutions"}
    exec(compile(source, f"{exercise.prefix}.py", "exec"), namespace)
    return namespace[exercise.name]


def on_device(component: Any, device: str) -> Any:
    """The same component, which computes on the device and gives its results back to the CPU."""

    def moved(value: Any, to: str = device) -> Any:
        move = lambda one: one.to(to) if isinstance(one, torch.Tensor) else one  # noqa: E731
        return tree_map(move, value)

    if not isinstance(component, type):

        @functools.wraps(component)
        def function(*arguments: Any, **options: Any) -> Any:
            return moved(component(*moved(arguments), **moved(options)), "cpu")

        return function

    class OnDevice(component):
        _inside = False

        @functools.wraps(component.forward)
        def forward(self, *arguments: Any, **options: Any) -> Any:
            if self._inside:
                return super().forward(*arguments, **options)
            own = dict([*self.named_parameters(), *self.named_buffers()])
            self._inside = True
            try:
                # Gradients come back through the move, to the parameters on the CPU.
                result = torch.func.functional_call(
                    self, moved(own), moved(arguments), moved(options)
                )
            finally:
                self._inside = False
            return moved(result, "cpu")

    OnDevice.__name__ = OnDevice.__qualname__ = component.__name__
    return OnDevice


def accepted(component_of: Callable[[Any], Any], chapters: Sequence[str]) -> list[str]:
    """The exercises of these chapters that do not get full points, each with the verdict."""
    wrong = []
    for exercise in exercises.every():
        if exercise.chapter in chapters:
            verdict, _ = verdict_on(exercise, component_of(exercise))
            print(f"  {exercise.id:44}{verdict.points:g} of {exercise.points:g}", flush=True)
            if verdict.points != exercise.points:
                wrong.append(f"{exercise.id}: {verdict.text()}")
    return wrong


def augmented(device: str) -> list[str]:
    """The augmentations that give something else on the device."""
    x = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    wrong = []
    for augment in (images.random_crop, images.random_flip, images.random_resized_crop):
        here, there = (
            augment(x.to(place), torch.Generator().manual_seed(1)) for place in ("cpu", device)
        )
        if there.device.type != device or not torch.allclose(there.cpu(), here, atol=1e-5):
            wrong.append(f"{augment.__name__} is not the same on {device}")
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Shows it all, and returns 1 where something is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--chapters", nargs="+", metavar="N", help="6, or 06_gpt; default: all")
    asked = parser.parse_args(arguments)
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("PyTorch sees no CUDA device here. To go the same ways without: --device cpu")
        return 1
    # Products in full float32, as references are.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    names = [path.parent.name for path in sorted(ROOT.glob("chapters/*/*.ipynb"))]
    if asked.chapters:
        names = [record.notebook_of(chapter).parent.name for chapter in asked.chapters]

    print(f"components that compute on {asked.device}")
    wrong = accepted(lambda each: on_device(solution(each), asked.device), names)
    print(f"components as they are, {asked.device} being the default device")
    torch.set_default_device(asked.device)
    try:
        wrong += accepted(solution, names)
    finally:
        torch.set_default_device(None)
    wrong += augmented(asked.device)
    before = os.environ.get("WORKBOOK_DEVICE")
    os.environ["WORKBOOK_DEVICE"] = asked.device
    try:
        for name in names:
            try:
                told = record.run(record.notebook_of(name), "smoke", 0)
                print(f"{name}: {told['seconds']:.1f} s on {told['machine']['device']}", flush=True)
            except record.RecordError as error:
                wrong.append(str(error))
    finally:
        os.environ.pop("WORKBOOK_DEVICE")
        if before is not None:
            os.environ["WORKBOOK_DEVICE"] = before
    print("\n".join(wrong) or f"All is right on {asked.device}.")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())

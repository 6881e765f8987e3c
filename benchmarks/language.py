"""How fast chapter 6's GPT trains and writes: ours, the plainest loop, and ``transformers``.

``python benchmarks/language.py [--steps N] [--data shakespeare] [--json results.json]`` measures,
with the same sizes, first weights and batches on all sides,

- training: ``workbook.training.train`` on the chapter's GPT, with fused attention and with the
  learner's own; the plainest PyTorch loop on both; and the same plain loop on the
  ``GPT2LMHeadModel`` of ``transformers``, with its own GELU and with PyTorch's. Sizes are
  nanoGPT's for a CPU. The losses of the first step must agree;
- writing: the chapter's ``generate`` and ``generate_cached``, and ``generate`` of
  ``transformers`` without and with its cache, all greedy. The tokens must be equal.

The sides take turns, round after round, and a ratio compares what ran in the same round: the
seconds are this machine's. ``--whole`` trains nanoGPT's whole run instead, 2,000 steps with
warm-up, cosine and clipping: ``train`` beside the plain loop, with the loss on all of the held-out
text at the end. ``--quick`` does a few steps, to see that all of this works.

What the chapter defines outside its exercises (batches, AdamW, the cached model) is taken from
the chapter itself. Tiny Shakespeare comes from ``WORKBOOK_DATA``, the cache or the network; where
it cannot be had, the text is Python's language reference.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from _turns import (
    TOLERANCE,
    Side,
    add_noise,
    compared,
    library,
    machine,
    plain_loop,
    spread,
    summary,
    take_turns,
)
from workbook import budget
from workbook.data import DataError, python_reference, tiny_shakespeare
from workbook.fused import fuse
from workbook.pretrained import load_gpt2
from workbook.ready import gpt
from workbook.training import count_parameters, train

CHAPTER = Path(__file__).resolve().parents[1] / "chapters" / "06_gpt" / "06_gpt.ipynb"
TAKEN = (
    *("each_paragraph_once", "split", "windows", "loss_of", "learning_rate", "adamw"),
    *("CachedGPT", "generate_cached"),
)
# nanoGPT's configuration for Tiny Shakespeare on a CPU (Karpathy, 2022).
SIZE = {
    **{"context": 64, "batch": 12, "d_model": 128, "layers": 4, "heads": 4},
    **{"warmup": 100, "rate": 1e-3, "lowest": 1e-4, "beta2": 0.99},
}
STEPS, WHOLE, QUICK = 30, 2_000, 3
ROUNDS = 9
PROMPT = 16
PLAIN, FUSED = "plain loop, own attention", "plain loop, fused attention"
OURS, OURS_FUSED = "train, own attention", "train, fused attention"
THEIRS, THEIRS_TANH = "plain loop, transformers", "plain loop, transformers, PyTorch's GELU"
WITHOUT, WITH = "generate", "generate_cached"
THEIRS_WITHOUT, THEIRS_WITH = "transformers, no cache", "transformers, cache"
# Speeds worth a line of their own: the first over the second.
AGAINST = {
    "training": [
        (OURS, PLAIN),
        (OURS_FUSED, FUSED),
        (OURS_FUSED, PLAIN),
        (OURS_FUSED, THEIRS),
        (OURS_FUSED, THEIRS_TANH),
    ],
    "writing": [(WITH, WITHOUT), (THEIRS_WITH, THEIRS_WITHOUT), (WITH, THEIRS_WITH)],
}


# --- what is compared -----------------------------------------------------------------------


def from_the_chapter(size: Mapping[str, Any]) -> SimpleNamespace:
    """What the chapter's cells define under the names in ``TAKEN``, with ``size`` as theirs."""
    found: dict[str, ast.stmt] = {}
    for cell in json.loads(CHAPTER.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if any(f"{kind} {name}" in source for kind in ("def", "class") for name in TAKEN):
            for node in ast.parse(source).body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in TAKEN:
                    found[node.name] = node
    if missing := sorted(set(TAKEN) - set(found)):
        raise SystemExit(f"{CHAPTER} defines no {', '.join(missing)}. Take it from elsewhere.")
    namespace = dict(vars(gpt)) | {"size": size}
    exec(compile(ast.Module(list(found.values()), []), str(CHAPTER), "exec"), namespace)
    return SimpleNamespace(**{name: namespace[name] for name in TAKEN})


def text_of(asked: str | None, chapter: SimpleNamespace) -> tuple[str, str]:
    """The name of the text, and the text; Tiny Shakespeare where it can be had."""
    if asked != "reference":
        try:
            return "Tiny Shakespeare", tiny_shakespeare()
        except DataError as error:
            if asked:
                raise SystemExit(str(error)) from error
            print(f"No Tiny Shakespeare, so the text is Python's language reference. {error}")
    return "Python's language reference", chapter.each_paragraph_once(python_reference().values())


def models(
    vocab_size: int, context: int, noise: float = 0.0
) -> tuple[nn.Module, dict[str, nn.Module]]:
    """The chapter's GPT, and GPT-2 of ``transformers`` by the name of its GELU, all equal.

    ``noise`` is added to every parameter.
    """
    budget.seed(0)
    ours = gpt.GPT(vocab_size, context, SIZE["d_model"], SIZE["layers"], SIZE["heads"])
    add_noise(ours, noise)
    theirs: dict[str, nn.Module] = {}
    if transformers := library():
        # Their own GELU is a formula in Python; PyTorch's is one operation.
        for activation in ("gelu_new", "gelu_pytorch_tanh"):
            config = transformers.GPT2Config(
                vocab_size=vocab_size,
                n_positions=context,
                n_embd=SIZE["d_model"],
                n_layer=SIZE["layers"],
                n_head=SIZE["heads"],
                activation_function=activation,
                **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
                **dict.fromkeys(("bos_token_id", "eos_token_id"), None),
            )
            theirs[activation] = transformers.GPT2LMHeadModel(config)
        first, *others = theirs.values()
        add_noise(first, noise)
        for model in others:
            model.load_state_dict(first.state_dict())
        load_gpt2(ours, first.state_dict())
    device = budget.device()
    return ours.to(device), {name: model.to(device) for name, model in theirs.items()}


def logits_of(model: nn.Module, token_ids: torch.Tensor) -> torch.Tensor:
    """The logits, from either kind of model."""
    if isinstance(model, gpt.GPT):
        return model(token_ids)
    return model(input_ids=token_ids, use_cache=False).logits


def plain_loss(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """The mean cross-entropy of windows, (batch, context + 1)."""
    return F.cross_entropy(logits_of(model, ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


# --- measuring ------------------------------------------------------------------------------


@torch.no_grad()
def held_out_loss(model: nn.Module, ids: torch.Tensor, windows: int | None) -> float:
    """The loss of all held-out windows, one after the other, or of the first ones."""
    model.eval()
    each = ids.unfold(0, SIZE["context"] + 1, SIZE["context"])[:windows]
    parts = [
        plain_loss(model, some.to(budget.device())).item() * len(some) for some in each.split(64)
    ]
    return sum(parts) / len(each)


def training(asked: argparse.Namespace, text: str, chapter: SimpleNamespace) -> dict[str, Any]:
    """Training: speed of each side, and the loss at equal steps."""
    id_of = {character: i for i, character in enumerate(sorted(set(text)))}
    learn, held_out = (
        torch.tensor([id_of[character] for character in part]) for part in chapter.split(text)
    )
    make_batch = chapter.windows(learn, SIZE["batch"], SIZE["context"])
    ours, theirs = models(len(id_of), SIZE["context"])
    precision = getattr(torch, asked.precision)
    clip = 1.0 if asked.whole else None
    schedule = chapter.learning_rate if asked.whole else None
    trained: dict[str, nn.Module] = {}

    def copied(name: str, model: nn.Module, fused: bool) -> nn.Module:
        trained[name] = copy.deepcopy(model)
        if fused:
            fuse(trained[name], SIZE["heads"], causal=True)
        return trained[name]

    def with_train(name: str, fused: bool) -> Side:
        def prepare(steps: int) -> Callable[[], list[float]]:
            model = copied(name, ours, fused)

            def run() -> list[float]:
                with contextlib.redirect_stdout(io.StringIO()):  # the bar is drawn, not shown
                    return train(
                        model,
                        make_batch,
                        chapter.loss_of,
                        steps=steps,
                        learning_rate=schedule or SIZE["rate"],
                        optimizer=chapter.adamw,
                        clip=clip,
                        precision=precision,
                    ).loss

            return run

        return prepare

    def with_plain_loop(name: str, model: nn.Module, fused: bool = False) -> Side:
        def prepare(steps: int) -> Callable[[], list[torch.Tensor]]:
            fresh = copied(name, model, fused)
            return lambda: plain_loop(
                fresh, make_batch, plain_loss, steps, chapter.adamw, precision, schedule, clip
            )

        return prepare

    sides = {
        OURS_FUSED: with_train(OURS_FUSED, True),
        OURS: with_train(OURS, False),
        FUSED: with_plain_loop(FUSED, ours, True),
        PLAIN: with_plain_loop(PLAIN, ours),
    }
    for name, model in zip((THEIRS, THEIRS_TANH), theirs.values(), strict=False):
        sides[name] = with_plain_loop(name, model)
    if asked.whole:
        sides = {name: sides[name] for name in (OURS_FUSED, FUSED, PLAIN)}
    steps = asked.steps
    print(
        f"\ntraining: {count_parameters(ours):,} parameters, {steps:,} steps of {SIZE['batch']} x "
        f"{SIZE['context']} tokens, {asked.precision}, "
        f"{'nanoGPT’s schedule and clipping' if asked.whole else 'AdamW at a constant rate'}; "
        f"rounds: {asked.rounds}",
        flush=True,
    )
    runs = take_turns(sides, steps, asked.rounds, QUICK)
    tokens = steps * SIZE["batch"] * SIZE["context"]
    found = {
        "steps": steps,
        "rounds": asked.rounds,
        **compared(runs, tokens, "tokens", AGAINST["training"]),
    }
    found["seconds"] = {name: spread([run.wall for run in done]) for name, done in runs.items()}
    at = sorted({1, (steps + 1) // 2, steps})
    losses = {
        name: {step: float(done[-1].result[step - 1]) for step in at} for name, done in runs.items()
    }
    apart = {
        step: max(values) - min(values)
        for step in at
        for values in [[of_side[step] for of_side in losses.values()]]
    }
    steps_shown = ", ".join(f"{step:,}" for step in at)
    print(f"  loss at step {steps_shown}, held out at the end, and seconds (median)")
    ends = {}
    for name, values in losses.items():
        ends[name] = held_out_loss(trained[name], held_out, 8 if asked.quick else None)
        row = "".join(f"{value:10.5f}" for value in values.values())
        seconds = found["seconds"][name]["median"]
        print(f"  {name:42}{row}{ends[name]:10.4f}{seconds:10.1f}", flush=True)
    tolerance = TOLERANCE[precision]
    differences = ", ".join(f"{value:.1e} at step {step:,}" for step, value in apart.items())
    print(f"  largest differences: {differences} (allowed: {tolerance:.0e} at step 1)")
    if not apart[1] <= tolerance:
        raise SystemExit("The sides do not begin with the same loss: they compute other things.")
    found |= {"loss": losses, "apart": apart, "tolerance": tolerance, "held out": ends}
    return found


def writing(asked: argparse.Namespace, chapter: SimpleNamespace) -> dict[str, Any]:
    """Greedy writing, with and without a cache: speed by length; all tokens must be equal."""
    # As they start, models write one token for ever, and wrong names would not show.
    ours, theirs = models(65, PROMPT + max(asked.lengths), noise=0.15)
    ours.eval()
    prompt = torch.randint(65, (1, PROMPT), generator=budget.seed(1)).to(budget.device())
    sides: dict[str, Side] = {
        WITHOUT: lambda new: lambda: gpt.generate(ours, prompt, new, temperature=0),
        WITH: lambda new: lambda: chapter.generate_cached(ours, SIZE["heads"], prompt, new),
    }
    if theirs:
        model = theirs["gelu_new"].eval()

        def with_theirs(use_cache: bool) -> Side:
            return lambda new: (
                lambda: model.generate(
                    prompt,
                    attention_mask=torch.ones_like(prompt),
                    max_new_tokens=new,
                    do_sample=False,
                    use_cache=use_cache,
                    pad_token_id=0,
                )
            )

        sides |= {THEIRS_WITHOUT: with_theirs(False), THEIRS_WITH: with_theirs(True)}
    found: dict[str, Any] = {}
    for length in asked.lengths:
        print(f"\nwriting: {length} tokens after {PROMPT}; rounds: {asked.rounds}", flush=True)
        runs = take_turns(sides, length, asked.rounds, 2)
        written = [run.result.tolist() for done in runs.values() for run in done]
        if any(tokens != written[0] for tokens in written):
            raise SystemExit("The sides do not write the same tokens: they compute other things.")
        different = len(set(written[0][0][PROMPT:]))
        print(f"  the same tokens on all sides, {different} different ones among them")
        found[str(length)] = {
            "different": different,
            **compared(runs, length, "tokens", AGAINST["writing"]),
        }
    return found


# --- the command ----------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, help=f"training steps of a run ({STEPS})")
    parser.add_argument("--rounds", type=int, help=f"turns of each side ({ROUNDS})")
    parser.add_argument("--whole", action="store_true", help=f"{WHOLE:,} steps, nanoGPT's recipe")
    parser.add_argument("--quick", action="store_true", help="a few steps: does it all work?")
    parser.add_argument("--data", choices=("shakespeare", "reference"), help="the text")
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 256, 512], metavar="N")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch, on the CPU (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    asked = parser.parse_args(arguments)
    asked.steps = asked.steps or (QUICK if asked.quick else WHOLE if asked.whole else STEPS)
    asked.rounds = asked.rounds or (2 if asked.quick else 1 if asked.whole else ROUNDS)
    if asked.quick:
        asked.lengths = [4, 8]
    torch.set_num_threads(asked.threads)
    found: dict[str, Any] = {"machine": machine()}
    print(", ".join(f"{name}: {value}" for name, value in found["machine"].items()))
    if library() is None:
        print('Without transformers, its sides are left out: pip install "transformers>=5,<6"')
    chapter = from_the_chapter(SIZE | {"steps": asked.steps})
    found["text"], text = text_of(asked.data, chapter)
    print(f"text: {found['text']}, {len(text):,} characters")
    found["training"] = training(asked, text, chapter)
    if not asked.whole:
        found["writing"] = writing(asked, chapter)
    known = found["machine"]
    versions = {"ransformers": f", {known['transformers']}", "": f", PyTorch {known['torch']}"}
    what = "nanoGPT's whole CPU run" if asked.whole else "training GPT"
    found["summary"] = summary(found["training"], what, versions)
    for length, compared_ones in found.get("writing", {}).items():
        found["summary"] += summary(compared_ones, f"writing {length} tokens", versions)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

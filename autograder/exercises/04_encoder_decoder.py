"""Chapter 4: encoder and decoder. Vaswani et al. 2017, sections 3.1, 3.3, 3.4 and 5.4."""

import hashlib
import inspect
import math

import torch
from torch import Tensor, nn

from autograder.cases import (
    at_words,
    attention_parameters,
    in_both_precisions,
    lower_triangle,
    numbers,
    own_parameters,
)
from autograder.complaints import Complaint
from autograder.exercise import Exercise, Returned
from autograder.runner import raises

# ---- layer normalization -------------------------------------------------------------------

layer_norm = Exercise(
    "transformer/LayerNorm",
    points=2,
    signature="LayerNorm(d_model, eps=1e-5), forward(x)",
    returns=[Returned("output", "of x")],
    without=["layer_norm", "rms_norm", "group_norm", "batch_norm", "instance_norm"],
    parameters=lambda d_model, eps=1e-5: {"weight": (d_model,), "bias": (d_model,)},
)


@layer_norm.case(
    "one vector of four numbers",
    next_step="Subtract the mean of the four, divide by the root of their variance plus eps, "
    "multiply by weight, add bias.",
)
def _(layer_norm, make):
    norm = make.module(layer_norm, 4)
    return {"output": norm(make.tensor([[[1.0, 3.0, 4.0, 8.0]]]))}


@layer_norm.case(
    "as it is created: weight 1 and bias 0",
    next_step="weight = nn.Parameter(torch.ones(d_model)), bias = nn.Parameter of zeros.",
)
def _(layer_norm, make):
    norm = layer_norm(6)
    own = own_parameters(norm)
    output = norm(make.normal(2, 3, 6, scale=3.0, shift=2.0))
    return {
        "numbers in all parameters": numbers(norm),
        "weight": own.get("weight"),
        "bias": own.get("bias"),
        "output": output,
    }


@layer_norm.case(
    "a batch of sequences",
    next_step="Mean and variance are those of each position's own vector, over the last axis.",
)
def _(layer_norm, make):
    norm = make.module(layer_norm, 6)
    return {"output": norm(make.normal(2, 3, 6, scale=2.0, shift=1.0))}


@layer_norm.case(
    "as many sequences and positions as features",
    next_step="Give mean and variance keepdim=True. Without it a cube is normalized along the "
    "wrong axis, and no error tells.",
)
def _(layer_norm, make):
    norm = make.module(layer_norm, 4)
    return {"output": norm(make.normal(4, 4, 4)), "output of a square": norm(make.normal(4, 4))}


@layer_norm.case(
    "variances as small as eps, and another eps",
    weight=2,
    next_step="eps is added to the variance, inside the root, and it is the one that is given.",
)
def _(layer_norm, make):
    norm, other = make.module(layer_norm, 6), make.module(layer_norm, 6, 0.5)
    x = make.normal(2, 3, 6)
    return {
        "output": norm(x * 0.003),
        "output with eps=0.5": other(x),
        "output of both": other(x * 0.003),
    }


@layer_norm.case(
    "vectors whose numbers are all the same",
    next_step="Their variance is 0. With eps inside the root the quotient is 0, and the gradient "
    "of the root stays finite.",
)
def _(layer_norm, make):
    norm = make.module(layer_norm, 4)
    x = torch.tensor([[2.0], [0.0], [-3.0]]).repeat(1, 4).requires_grad_()
    output = norm(x)
    return {"output": output, **make.gradients("output", output, x=x)}


@layer_norm.case(
    "numbers that lie far from 0 and close together",
    next_step="Subtract the mean before you square: the mean of the squares minus the square of "
    "the mean is the difference of two large numbers, and all digits of it are lost.",
)
def _(layer_norm, make):
    # Whole numbers, so that every right way to compute this is exact in float32.
    norm = make.module(layer_norm, 8)
    return {"output": norm(16384.0 + make.integers(0, 4, 3, 8).float())}


@layer_norm.case(
    "one axis, and four",
    next_step="Count the axis from the end (dim=-1), so that any number may stand in front.",
)
def _(layer_norm, make):
    norm = make.module(layer_norm, 5)
    return {
        "output of one vector": norm(make.normal(5)),
        "output of four axes": norm(make.normal(2, 3, 4, 5)),
    }


@layer_norm.case(
    "vectors of one number",
    next_step="One number has the variance 0: divide the squares by d_model, not by d_model - 1.",
)
def _(layer_norm, make):
    return {"output": make.module(layer_norm, 1)(make.normal(2, 3, 1))}


@layer_norm.case(
    "twice, and once more in evaluation mode",
    next_step="Keep nothing from one call to the next: every vector is normalized by itself.",
)
def _(layer_norm, make):
    norm = make.module(layer_norm, 6)
    first, second = norm(make.normal(2, 3, 6, shift=1.0)), norm(make.normal(1, 2, 6, scale=3.0))
    norm.component.eval()
    return {"first": first, "second": second, "evaluation": norm(make.normal(2, 1, 6, shift=-2.0))}


@layer_norm.case(
    "float64 inputs that are views, left as they were",
    next_step="Stay in the dtype of x: a detour through float32 shows in float64.",
)
def _(layer_norm, make):
    norm = make.module(layer_norm, 4, dtype=torch.float64)
    x = make.normal(3, 4, 2, dtype=torch.float64)
    output = norm(x.permute(2, 0, 1))
    return {"output": output, "the input is unchanged": make.unchanged()}


@layer_norm.case(
    "gradients of input, weight and bias",
    next_step="The gradient flows through mean and variance too: no detach() on the way.",
)
def _(layer_norm, make):
    norm = make.module(layer_norm, 6)
    x, own = make.normal(2, 3, 6, grad=True), own_parameters(norm)
    return make.gradients("output", norm(x), x=x, weight=own["weight"], bias=own["bias"])


@layer_norm.case(
    "bfloat16",
    weight=0.5,
    next_step="Let every new tensor have the dtype of x, and return x's dtype.",
)
def _(layer_norm, make):
    norm = make.module(layer_norm, 6, dtype=torch.bfloat16)
    return in_both_precisions(norm, make.normal(2, 3, 6, dtype=torch.bfloat16))


@layer_norm.case("other sizes", hidden=True)
def _(layer_norm, make):
    norm = make.module(layer_norm, 11, 0.01)
    return {"output": norm(make.normal(3, 5, 11, scale=0.3, shift=-1.0))}


@layer_norm.misconceptions
def _():
    """Layer normalization with one thing wrong at a time."""

    def mean_of(x, axes):
        return x.mean(dim=axes, keepdim=True)

    def variance_of(x, axes):
        return mean_of((x - mean_of(x, axes)) ** 2, axes)

    def unbiased(x, axes):
        return x.var(dim=axes, keepdim=True)

    def root_of_sum(variance, eps):
        return torch.sqrt(variance + eps)

    def root_plus_eps(variance, eps):
        return torch.sqrt(variance) + eps

    def norm(
        mean=mean_of,
        variance=variance_of,
        root=root_of_sum,
        axes=lambda x: -1,
        affine=lambda x, weight, bias: x * weight + bias,
        first_weight=1.0,
    ):
        class Norm(nn.Module):
            def __init__(self, d_model, eps=1e-5):
                super().__init__()
                self.weight = nn.Parameter(torch.full((d_model,), first_weight))
                self.bias = nn.Parameter(torch.zeros(d_model))
                self.eps = eps

            def forward(self, x):
                over = axes(x)
                divisor = root(variance(x, over), self.eps)
                return affine((x - mean(x, over)) / divisor, self.weight, self.bias)

        return Norm

    for root in (root_of_sum, root_plus_eps, lambda variance, eps: torch.sqrt(variance)):
        yield (
            "The squares are divided by d_model - 1, not by d_model: that is the unbiased variance "
            "that var and std compute unless told otherwise.",
            norm(variance=unbiased, root=root),
            "Use x.var(dim=-1, keepdim=True, correction=0).",
        )
    yield (
        "eps is added to the standard deviation, outside the root; it belongs to the variance.",
        norm(root=root_plus_eps),
        "Divide by torch.sqrt(variance + eps).",
    )
    yield (
        "There is no eps, so a vector whose numbers are all the same is 0/0.",
        norm(root=lambda variance, eps: torch.sqrt(variance)),
        "Divide by torch.sqrt(variance + eps).",
    )
    yield (
        "eps is always 1e-5; the one that the constructor is given is not used.",
        norm(root=lambda variance, eps: torch.sqrt(variance + 1e-5)),
        "Keep it in __init__ (self.eps = eps) and use self.eps in forward.",
    )
    for other in (1e-3, 1e-6, 1e-8, 1e-12):
        yield (
            "eps is not the number that the exercise states: 1e-5, unless the constructor is given "
            "another.",
            norm(
                root=lambda variance, eps, other=other: torch.sqrt(
                    variance + (other if eps == 1e-5 else eps)
                )
            ),
            "Give it the default eps=1e-5, keep it in __init__ (self.eps = eps) and use self.eps.",
        )
        yield (
            "eps is not the number that the exercise states: 1e-5, unless the constructor is given "
            "another.",
            norm(root=lambda variance, eps, other=other: torch.sqrt(variance + other)),
            "Give it the default eps=1e-5, keep it in __init__ (self.eps = eps) and use self.eps.",
        )
    yield (
        "The variance is kept from falling below eps; eps must be added to it.",
        norm(root=lambda variance, eps: torch.sqrt(variance.clamp(min=eps))),
        "Divide by torch.sqrt(variance + eps).",
    )
    yield (
        "eps is squared before it is added to the variance.",
        norm(root=lambda variance, eps: torch.sqrt(variance + eps**2)),
        "Add eps as it is: torch.sqrt(variance + eps).",
    )
    yield (
        "It is divided by the variance, not by its root.",
        norm(root=lambda variance, eps: variance + eps),
        "Divide by torch.sqrt(variance + eps).",
    )
    yield (
        "It is multiplied by the standard deviation; normalizing divides by it.",
        norm(root=lambda variance, eps: 1 / root_of_sum(variance, eps)),
        "Divide by torch.sqrt(variance + eps).",
    )
    yield (
        "The mean is subtracted, but nothing is divided by the standard deviation.",
        norm(root=lambda variance, eps: 1.0),
        "Divide by torch.sqrt(variance + eps).",
    )
    for variance in (variance_of, lambda x, axes: mean_of(x**2, axes)):
        yield (
            "The mean is not subtracted: only the length of the vector is normalized (RMSNorm "
            "does that).",
            norm(mean=lambda x, axes: 0.0, variance=variance),
            "Subtract x.mean(dim=-1, keepdim=True) from x.",
        )
    yield (
        "The squares are taken around 0, not around the mean.",
        norm(variance=lambda x, axes: mean_of(x**2, axes)),
        "The variance is the mean of (x - mean)².",
    )
    for clamp in (False, True):

        def of_squares(x, axes, clamp=clamp):
            found = mean_of(x**2, axes) - mean_of(x, axes) ** 2
            return found.clamp(min=0.0) if clamp else found

        yield (
            "The variance is the mean of the squares minus the square of the mean; far from 0 "
            "these are two large, nearly equal numbers, and their difference has no right digit.",
            norm(variance=of_squares),
            "Subtract the mean first, then square: (x - mean)².",
        )
    for over in (lambda x: (-2, -1) if x.ndim > 1 else -1, lambda x: (1, 2) if x.ndim > 2 else -1):
        yield (
            "The statistics are taken over the positions of a sequence too, so what one position "
            "holds changes the others.",
            norm(axes=over),
            "Take mean and variance over the last axis alone: dim=-1.",
        )
    yield (
        "The statistics are taken over the whole tensor: all sequences, positions and features "
        "together.",
        norm(axes=lambda x: tuple(range(x.ndim))),
        "Take mean and variance over the last axis alone: dim=-1.",
    )
    for over in (lambda x: -2 if x.ndim > 1 else -1, lambda x: 1 if x.ndim > 2 else -1):
        yield (
            "The statistics are taken along the sequence, one for each feature; layer "
            "normalization takes one for each position, over its features.",
            norm(axes=over),
            "Take mean and variance over the last axis: dim=-1.",
        )
    for over in (lambda x: 0, lambda x: tuple(range(x.ndim - 1)) if x.ndim > 1 else -1):
        yield (
            "The statistics are taken over the batch, as batch normalization does; layer "
            "normalization looks at one position alone.",
            norm(axes=over),
            "Take mean and variance over the last axis: dim=-1.",
        )
    yield (
        "mean and variance lose their axis, so they meet the wrong axis of x: an error for most "
        "shapes, wrong values for a cube.",
        norm(
            mean=lambda x, axes: x.mean(dim=-1),
            variance=lambda x, axes: x.var(dim=-1, correction=0),
        ),
        "Pass keepdim=True to both, so that they broadcast against x.",
    )
    for affine in (
        lambda x, weight, bias: x,
        lambda x, weight, bias: x + bias,
        lambda x, weight, bias: x * weight,
    ):
        yield (
            "The normalized vector is not both multiplied by weight and moved by bias, which "
            "exist to be learned.",
            norm(affine=affine),
            "End with self.weight * normalized + self.bias.",
        )
    yield (
        "weight and bias change places: weight is added and bias is multiplied.",
        norm(affine=lambda x, weight, bias: x * bias + weight),
        "End with self.weight * normalized + self.bias.",
    )
    yield (
        "bias is added before the product, so weight multiplies it too.",
        norm(affine=lambda x, weight, bias: (x + bias) * weight),
        "End with self.weight * normalized + self.bias.",
    )
    for first in (1.0, 0.0):
        yield (
            "The normalized vector is multiplied by 1 + weight; the exercise asks for weight, "
            "which begins at 1.",
            norm(affine=lambda x, weight, bias: x * (1 + weight) + bias, first_weight=first),
            "Multiply by self.weight, and create it with torch.ones.",
        )
    yield (
        "weight begins at 0, so a new layer gives nothing but 0; it must begin at 1.",
        norm(first_weight=0.0),
        "Create it with torch.ones(d_model).",
    )
    for mean, variance in (
        (
            lambda x, axes: mean_of(x, axes).detach(),
            lambda x, axes: variance_of(x, axes).detach(),
        ),
        (mean_of, lambda x, axes: variance_of(x, axes).detach()),
        (lambda x, axes: mean_of(x, axes).detach(), variance_of),
    ):
        yield (
            "Mean or variance is detached: the output is right, but its gradient leaves out that "
            "they depend on x.",
            norm(mean=mean, variance=variance),
            "Let the gradient flow through both: no detach(), no torch.no_grad().",
        )

    for momentum in (0.1, 0.9):

        class Running(norm()):
            def __init__(self, d_model, eps=1e-5, momentum=momentum):
                super().__init__(d_model, eps)
                self.momentum = momentum
                self.register_buffer("running_mean", torch.zeros(d_model))
                self.register_buffer("running_variance", torch.ones(d_model))

            def forward(self, x):
                mean, variance = self.running_mean, self.running_variance
                if self.training:
                    rows = x.reshape(-1, x.size(-1))
                    mean, variance = rows.mean(0), rows.var(0, correction=0)
                    with torch.no_grad():
                        self.running_mean.lerp_(mean, self.momentum)
                        self.running_variance.lerp_(variance, self.momentum)
                x = (x - mean) / torch.sqrt(variance + self.eps)
                return x * self.weight + self.bias

        yield (
            "This is batch normalization: it takes the statistics over the batch, and running ones "
            "in evaluation mode.",
            Running,
            "Take mean and variance over the last axis, in every call, whatever the mode.",
        )

    class InPlace(norm()):
        def forward(self, x):
            with torch.no_grad():
                x -= x.mean(dim=-1, keepdim=True)
            return super().forward(x)

    class InPlaceSeen(norm()):
        def forward(self, x):
            x -= x.mean(dim=-1, keepdim=True)
            return super().forward(x)

    class InPlaceToTheEnd(norm()):
        def forward(self, x):
            x -= x.mean(dim=-1, keepdim=True)
            x /= torch.sqrt((x**2).mean(dim=-1, keepdim=True) + self.eps)
            return x * self.weight + self.bias

    for implementation in (InPlace, InPlaceSeen, InPlaceToTheEnd):
        yield (
            "The caller's x is changed in place.",
            implementation,
            "Write x = x - mean, not x -= mean.",
        )


# ---- feed-forward network ------------------------------------------------------------------

feed_forward = Exercise(
    "transformer/FeedForward",
    points=2,
    signature="FeedForward(d_model, d_ff, dropout=0.0), forward(x)",
    returns=[Returned("output", "(batch, length, d_model)")],
    parameters=lambda d_model, d_ff, dropout=0.0: {
        "w_1.weight": (d_ff, d_model),
        "w_1.bias": (d_ff,),
        "w_2.weight": (d_model, d_ff),
        "w_2.bias": (d_model,),
    },
)


@feed_forward.case(
    "the number of parameters",
    next_step="w_1 = nn.Linear(d_model, d_ff) and w_2 = nn.Linear(d_ff, d_model); there is nothing "
    "else.",
)
def _(feed_forward, make):
    return {"numbers in all parameters": numbers(feed_forward(4, 7))}


@feed_forward.case("a batch of sequences", next_step="output = w_2(relu(w_1(x))).")
def _(feed_forward, make):
    network = make.module(feed_forward, 4, 8)
    return {"output": network(make.normal(2, 3, 4))}


@feed_forward.case(
    "by hand: d_model 1, d_ff 2",
    next_step="One number x becomes max(0, a x + b) twice, then a weighted sum of the two plus a "
    "bias, which may be negative.",
)
def _(feed_forward, make):
    network = make.module(feed_forward, 1, 2)
    return {"output": network(make.tensor([[[-2.0], [-0.5], [0.0], [0.5], [2.0]]]))}


@feed_forward.case(
    "narrower inside than outside, one vector, and four axes",
    next_step="The layers work on the last axis; any number of axes may stand in front.",
)
def _(feed_forward, make):
    network = make.module(feed_forward, 6, 3)
    return {
        "output of one vector": network(make.normal(6)),
        "output of four axes": network(make.normal(2, 1, 3, 6)),
    }


@feed_forward.case(
    "each position by itself",
    next_step="The same two layers work on each position alone: nothing may mix positions.",
)
def _(feed_forward, make):
    network = make.module(feed_forward, 4, 8)
    x = make.normal(2, 3, 4)
    other = x.clone()
    other[:, 1] += 10.0
    change = (network(other) - network(x)).abs().amax(dim=(0, 2))
    return {
        "change of the output at each position": change,
        "output of the last position alone": network(x[:, 2:]),
    }


@feed_forward.case(
    "large inputs",
    next_step="The ReLU is max(0, x): it neither saturates nor bends.",
)
def _(feed_forward, make):
    return {"output": make.module(feed_forward, 4, 6)(make.normal(2, 3, 4, scale=20.0))}


@feed_forward.case("gradients of input and parameters")
def _(feed_forward, make):
    network = make.module(feed_forward, 4, 8)
    x, own = make.normal(2, 3, 4, grad=True), own_parameters(network)
    names = feed_forward.exercise.parameters(4, 8)
    return make.gradients("output", network(x), x=x, **{name: own[name] for name in names})


@feed_forward.case(
    "dropout in evaluation mode, where it does nothing",
    next_step="Make dropout an nn.Dropout in __init__, which eval() switches off; F.dropout needs "
    "training=self.training.",
)
def _(feed_forward, make):
    network = make.module(feed_forward, 4, 8, 1.0)
    network.component.eval()
    return {"output": network(make.normal(2, 3, 4))}


@feed_forward.case(
    "dropout in training mode",
    weight=2,
    next_step="Dropout acts on the hidden numbers, between the ReLU and w_2.",
)
def _(feed_forward, make):
    everything = make.module(feed_forward, 4, 8, 1.0)
    # One hidden number: it is dropped, and with it all that w_2 makes of it, or it is divided by
    # 1 - 0.25.
    single = make.module(feed_forward, 4, 1, 0.25)
    own = own_parameters(single)
    with torch.no_grad():
        for name, value in (("w_1.weight", 0.0), ("w_1.bias", 1.0), ("w_2.bias", 0.0)):
            own[name].fill_(value)
    found = single(make.normal(400, 4)) / own["w_2.weight"].T
    kept = (found.abs() > 1e-6).float()
    return {
        "output where all is dropped": everything(make.normal(2, 3, 4)),
        "about three quarters are kept": bool(0.6 < kept.mean() < 0.9),
        "the hidden number is dropped whole": bool((kept.mean(dim=-1) % 1 == 0).all()),
        "smallest factor": found.min(),
        "largest factor": found.max(),
    }


@feed_forward.case(
    "float64 inputs that are views, left as they were",
    next_step="Stay in the dtype of x, and change nothing in place that the caller owns.",
)
def _(feed_forward, make):
    network = make.module(feed_forward, 4, 6, dtype=torch.float64)
    x = make.normal(4, 3, 2, dtype=torch.float64)
    return {"output": network(x.transpose(0, 2)), "the input is unchanged": make.unchanged()}


@feed_forward.case("bfloat16", weight=0.5, next_step="Return the dtype of x.")
def _(feed_forward, make):
    network = make.module(feed_forward, 4, 8, dtype=torch.bfloat16)
    return in_both_precisions(network, make.normal(2, 3, 4, dtype=torch.bfloat16))


@feed_forward.case("other sizes", hidden=True)
def _(feed_forward, make):
    network = make.module(feed_forward, 5, 13)
    return {"output": network(make.normal(3, 6, 5, scale=2.0))}


@feed_forward.misconceptions
def _():
    """The feed-forward network with one thing wrong at a time."""

    def network(
        hidden=lambda self, x: self.dropout(torch.relu(self.w_1(x))),
        last=lambda self, x, hidden: self.w_2(hidden),
        bias=(True, True),
        drop=nn.Dropout,
    ):
        class Network(nn.Module):
            def __init__(self, d_model, d_ff, dropout=0.0):
                super().__init__()
                self.w_1 = nn.Linear(d_model, d_ff, bias=bias[0])
                self.w_2 = nn.Linear(d_ff, d_model, bias=bias[1])
                self.dropout = drop(dropout)

            def forward(self, x):
                return last(self, x, hidden(self, x))

        return Network

    def activated(function):
        return network(lambda self, x: self.dropout(function(self.w_1(x))))

    yield (
        "There are two ReLUs. The second one, after w_2, cuts off everything negative that the "
        "network has to say; the paper has one, between the two layers.",
        network(last=lambda self, x, hidden: torch.relu(self.w_2(hidden))),
        "Return what w_2 gives as it is.",
    )
    yield (
        "The ReLU comes after w_2; it belongs between the two layers.",
        network(
            lambda self, x: self.dropout(self.w_1(x)),
            lambda self, x, hidden: torch.relu(self.w_2(hidden)),
        ),
        "output = w_2(relu(w_1(x))).",
    )
    for after in (lambda x: x, torch.relu):
        yield (
            "A ReLU is applied to x, before w_1: the network no longer sees negative inputs.",
            network(lambda self, x, after=after: self.dropout(after(self.w_1(torch.relu(x))))),
            "output = w_2(relu(w_1(x))).",
        )
    yield (
        "There is no ReLU, so the two layers are one linear map.",
        network(lambda self, x: self.dropout(self.w_1(x))),
        "output = w_2(relu(w_1(x))).",
    )
    for function in (
        nn.functional.gelu,
        lambda x: nn.functional.gelu(x, approximate="tanh"),
    ):
        yield (
            "The nonlinearity is a GELU, which came with BERT and GPT; the paper has a ReLU.",
            activated(function),
            "Use torch.relu.",
        )
    for function in (
        torch.tanh,
        torch.sigmoid,
        nn.functional.silu,
        nn.functional.leaky_relu,
        nn.functional.elu,
        nn.functional.softplus,
        nn.functional.relu6,
        torch.abs,
        lambda x: torch.relu(x) ** 2,
    ):
        yield (
            "The nonlinearity is none that the paper has: it is max(0, x), a ReLU.",
            activated(function),
            "Use torch.relu.",
        )
    yield (
        "The residual is added inside; that is the business of the layer around this network.",
        network(last=lambda self, x, hidden: x + self.w_2(hidden)),
        "Return w_2(relu(w_1(x))) and nothing more.",
    )
    for bias in ((False, False), (True, False), (False, True)):
        yield (
            "The layers lack a bias; both have one.",
            network(bias=bias),
            "nn.Linear has a bias unless told otherwise: leave bias=False out.",
        )
    yield (
        "There is no dropout.",
        network(lambda self, x: torch.relu(self.w_1(x))),
        "Apply nn.Dropout(dropout) to the hidden numbers, before w_2.",
    )
    yield (
        "Dropout acts on the output, after w_2; it belongs on the hidden numbers.",
        network(
            lambda self, x: torch.relu(self.w_1(x)),
            lambda self, x, hidden: self.dropout(self.w_2(hidden)),
        ),
        "Apply dropout to relu(w_1(x)), before w_2.",
    )
    yield (
        "Dropout acts twice, on the hidden numbers and on the output; the layer around this "
        "network does the latter.",
        network(last=lambda self, x, hidden: self.dropout(self.w_2(hidden))),
        "Apply dropout to relu(w_1(x)) alone.",
    )
    yield (
        "Dropout acts on x, before w_1; it belongs on the hidden numbers.",
        network(lambda self, x: torch.relu(self.w_1(self.dropout(x)))),
        "Apply dropout to relu(w_1(x)), before w_2.",
    )

    class Always(nn.Module):
        def __init__(self, rate):
            super().__init__()
            self.rate = rate

        def forward(self, x):
            return nn.functional.dropout(x, self.rate)

    yield (
        "Dropout acts in evaluation mode too.",
        network(drop=Always),
        "Use nn.Dropout, or F.dropout with training=self.training.",
    )

    def in_place(self, x):
        x.clamp_(min=0.0)
        return self.dropout(torch.relu(self.w_1(x)))

    def in_place_unseen(self, x):
        with torch.no_grad():
            x.clamp_(min=0.0)
        return self.dropout(torch.relu(self.w_1(x)))

    for hidden in (in_place, in_place_unseen):
        yield (
            "A ReLU in place changes the caller's x.",
            network(hidden),
            "Apply the ReLU to what w_1 gives, and to nothing else.",
        )


# ---- encoder layer -------------------------------------------------------------------------


def other_parameters(d_model, d_ff, norms):
    """The parameters of the feed-forward network and of norm1, norm2 …, as sublayers."""
    inner = feed_forward.parameters(d_model, d_ff)
    outer = layer_norm.parameters(d_model)
    return {f"feed_forward.{name}": shape for name, shape in inner.items()} | {
        f"norm{i}.{name}": shape for i in range(1, norms + 1) for name, shape in outer.items()
    }


def encoder_layer_parameters(d_model, num_heads, d_ff, dropout=0.0):
    """The parameters of an encoder layer."""
    return attention_parameters("self_attn.", d_model) | other_parameters(d_model, d_ff, 2)


encoder_layer = Exercise(
    "transformer/EncoderLayer",
    points=3,
    signature="EncoderLayer(d_model, num_heads, d_ff, dropout=0.0), forward(x, mask=None)",
    returns=[Returned("output", "(batch, length, d_model)")],
    without=["multi_head_attention", "_transformer_encoder_layer_fwd"],
    parameters=encoder_layer_parameters,
)


def some_true(make, *shape):
    """A random mask in which every query may attend to at least two keys, but not to all."""
    mask = make.booleans(*shape)
    places = torch.arange(shape[-1])
    few, all_ = mask.sum(dim=-1, keepdim=True) < 2, mask.all(dim=-1, keepdim=True)
    return make.watch((mask | few & (places < 2)) & ~(all_ & (places == 2)))


def falls_silent(layer, inputs, last):
    """Whether about half of the sequences get nothing from a sublayer, for each of ``last``.

    ``layer`` drops half of everything, has one hidden number and gets one key. A sublayer that
    drops inside then falls silent as a whole, or not at all; the dropout after it, on eight
    numbers, hardly ever drops them all.

    Args:
        last: what is told -> the weight of the sublayer's last linear map.
    """
    own, names = own_parameters(layer), list(last.values())
    kept = {name: own[name].detach().clone() for name in names}
    with torch.no_grad():
        for name, parameter in own.items():
            if "feed_forward.w_1" in name:
                parameter.fill_(float("bias" in name))  # the ReLU lets it pass
            elif name in names or name.replace("bias", "weight") in names:
                parameter.zero_()
        without, found = layer(*inputs), {}
        for what, name in last.items():
            own[name].copy_(kept[name])
            untouched = (layer(*inputs) - without).abs().amax(dim=(1, 2)) < 1e-6
            found[what] = bool(0.35 < untouched.float().mean() < 0.65)
            own[name].zero_()
    return found


@encoder_layer.case(
    "the number of parameters",
    next_step="One self_attn, one feed_forward, and two norms with parameters of their own, norm1 "
    "and norm2; nothing else.",
)
def _(encoder_layer, make):
    return {"numbers in all parameters": numbers(encoder_layer(8, 2, 12))}


@encoder_layer.case(
    "two sequences, without a mask",
    next_step="x = norm1(x + self_attn(x, x, x)), then norm2(x + feed_forward(x)).",
)
def _(encoder_layer, make):
    layer = make.module(encoder_layer, 8, 2, 12)
    return {"output": layer(make.normal(2, 4, 8))}


@encoder_layer.case(
    "one head, and as many heads as columns",
    next_step="Pass num_heads on to the attention, and d_ff to the feed-forward network.",
)
def _(encoder_layer, make):
    one, many = make.module(encoder_layer, 6, 1, 4), make.module(encoder_layer, 6, 6, 9)
    x = make.normal(2, 3, 6)
    return {"output of one head": one(x), "output of six heads": many(x)}


@encoder_layer.case(
    "a mask for each sequence, (batch, 1, length)",
    next_step="Hand the mask on to self_attn as it is.",
)
def _(encoder_layer, make):
    layer = make.module(encoder_layer, 8, 2, 12)
    mask = torch.tensor([[[True, True, True, False]], [[True, True, False, False]]])
    return {"output": layer(make.normal(2, 4, 8), mask)}


@encoder_layer.case(
    "a causal mask, and one for each query of each sequence",
    next_step="Hand the mask on to self_attn as it is: it takes every shape that is asked for.",
)
def _(encoder_layer, make):
    layer = make.module(encoder_layer, 8, 2, 12)
    return {
        "output under the causal mask": layer(make.normal(3, 4, 8), lower_triangle(4)),
        "output under the other mask": layer(make.normal(2, 5, 8), some_true(make, 2, 5, 5)),
    }


@encoder_layer.case(
    "what is barred does not reach the other positions",
    next_step="Nothing but the attention may mix positions, and the attention obeys the mask.",
)
def _(encoder_layer, make):
    layer = make.module(encoder_layer, 8, 2, 12)
    # Each call has tensors of its own: what a call changes in place, another case tells.
    x, mask = make.normal(2, 5, 8), torch.tensor([True, True, False, True, False])
    other = x.clone()
    other[:, ~mask] = 30.0
    before, after = layer(x, mask[None, None].clone()), layer(other, mask[None, None].clone())
    return {
        "output": before[:, mask],
        "change of the output when barred positions change": (after - before)[:, mask].abs().max(),
    }


@encoder_layer.case(
    "a batch of one, a sequence of one",
    next_step="Keep axes of length 1: no squeeze().",
)
def _(encoder_layer, make):
    layer = make.module(encoder_layer, 4, 2, 6)
    return {"output": layer(make.normal(1, 1, 4)), "output of three": layer(make.normal(1, 3, 4))}


@encoder_layer.case(
    "dropout in evaluation mode, where it does nothing",
    next_step="Make each dropout an nn.Dropout in __init__, which eval() switches off.",
)
def _(encoder_layer, make):
    layer = make.module(encoder_layer, 8, 2, 12, 1.0)
    layer.component.eval()
    return {"output": layer(make.normal(2, 4, 8))}


@encoder_layer.case(
    "dropout of everything, in training mode",
    weight=2,
    next_step="Dropout acts on what each sublayer gives, before it is added to x. If all is "
    "dropped, norm2(norm1(x)) is left.",
)
def _(encoder_layer, make):
    layer = make.module(encoder_layer, 8, 2, 12, 1.0)
    return {"output": layer(make.normal(2, 4, 8))}


@encoder_layer.case(
    "dropout inside the sublayers",
    weight=0.5,
    next_step="Pass the dropout rate on to self_attn and to feed_forward: they drop weights and "
    "hidden numbers.",
)
def _(encoder_layer, make):
    layer = make.module(encoder_layer, 8, 1, 1, 0.5)
    last = {
        "the attention drops half of its weights": "self_attn.w_o.weight",
        "the feed-forward network drops half of its hidden numbers": "feed_forward.w_2.weight",
    }
    return falls_silent(layer, [make.normal(400, 1, 8)], last)


@encoder_layer.case("gradients of input and parameters, with a mask")
def _(encoder_layer, make):
    layer = make.module(encoder_layer, 8, 2, 12)
    x, own = make.normal(2, 4, 8, grad=True), own_parameters(layer)
    names = ("self_attn.w_v.weight", "feed_forward.w_1.weight", "norm1.weight", "norm2.bias")
    output = layer(x, lower_triangle(4))
    return make.gradients("output", output, x=x, **{name: own[name] for name in names})


@encoder_layer.case(
    "float64 inputs that are views, left as they were",
    next_step="Stay in the dtype of x, and write x = x + y, not x += y.",
)
def _(encoder_layer, make):
    layer = make.module(encoder_layer, 8, 4, 6, dtype=torch.float64)
    x, mask = make.normal(4, 2, 8, dtype=torch.float64), some_true(make, 4, 4)
    return {
        "output": layer(x.transpose(0, 1), mask),
        "the inputs are unchanged": make.unchanged(),
    }


@encoder_layer.case("bfloat16", weight=0.5, next_step="Return the dtype of x.")
def _(encoder_layer, make):
    layer = make.module(encoder_layer, 8, 2, 12, dtype=torch.bfloat16)
    return in_both_precisions(layer, make.normal(2, 4, 8, dtype=torch.bfloat16))


@encoder_layer.case("other sizes", hidden=True)
def _(encoder_layer, make):
    layer = make.module(encoder_layer, 12, 3, 7)
    return {"output": layer(make.normal(3, 6, 12), some_true(make, 3, 1, 6))}


@encoder_layer.misconceptions
def _():
    """An encoder layer with one thing wrong at a time."""
    from workbook.ready.multi_head import MultiHeadAttention

    class FeedForward(nn.Module):
        def __init__(self, d_model, d_ff, dropout):
            super().__init__()
            self.w_1, self.w_2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
            self.dropout = nn.Dropout(dropout)

        def forward(self, x):
            return self.w_2(self.dropout(torch.relu(self.w_1(x))))

    class Always(nn.Module):
        def __init__(self, rate):
            super().__init__()
            self.rate = rate

        def forward(self, x):
            return nn.functional.dropout(x, self.rate)

    def attend(self, x, mask):
        return self.drop1(self.self_attn(x, x, x, mask)[0])

    def transform(self, x):
        return self.drop2(self.feed_forward(x))

    def layer(
        first=lambda self, x, mask: self.norm1(x + attend(self, x, mask)),
        second=lambda self, x, y: self.norm2(y + transform(self, y)),
        drop=(nn.Dropout, nn.Dropout),
        inside=(1, 1),
        heads=lambda d_model, num_heads: num_heads,
        change=lambda self: None,
    ):
        class Layer(nn.Module):
            def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
                super().__init__()
                heads_ = heads(d_model, num_heads)
                self.self_attn = MultiHeadAttention(d_model, heads_, inside[0] * dropout)
                self.feed_forward = FeedForward(d_model, d_ff, inside[1] * dropout)
                self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
                self.drop1, self.drop2 = drop[0](dropout), drop[1](dropout)
                change(self)

            def forward(self, x, mask=None):
                return second(self, x, first(self, x, mask))

        return Layer

    def nothing(rate):
        return nn.Identity()

    yield (
        "This is pre-norm: each sublayer gets a normalized x, and the sum is not normalized. The "
        "paper normalizes after the addition.",
        layer(
            lambda self, x, mask: x + attend(self, self.norm1(x), mask),
            lambda self, x, y: y + transform(self, self.norm2(y)),
        ),
        "x = norm1(x + dropout(sublayer(x))): add first, then normalize.",
    )
    yield (
        "What a sublayer gives is normalized before it is added; the sum must be normalized.",
        layer(
            lambda self, x, mask: x + self.norm1(attend(self, x, mask)),
            lambda self, x, y: y + self.norm2(transform(self, y)),
        ),
        "x = norm1(x + dropout(sublayer(x))): add first, then normalize.",
    )
    yield (
        "What goes into a sublayer is normalized, and so is the sum: two norms too many.",
        layer(
            lambda self, x, mask: self.norm1(x + attend(self, self.norm1(x), mask)),
            lambda self, x, y: self.norm2(y + transform(self, self.norm2(y))),
        ),
        "x = norm1(x + dropout(sublayer(x))): the sublayer gets x as it is.",
    )
    without_first = lambda self, x, mask: self.norm1(attend(self, x, mask))  # noqa: E731
    without_second = lambda self, x, y: self.norm2(transform(self, y))  # noqa: E731
    yield (
        "The first residual connection is missing: x is not added to what the attention gives.",
        layer(first=without_first),
        "x = norm1(x + dropout(self_attn(x, x, x, mask)[0])).",
    )
    yield (
        "The second residual connection is missing: x is not added to what the feed-forward "
        "network gives.",
        layer(second=without_second),
        "x = norm2(x + dropout(feed_forward(x))).",
    )
    yield (
        "Both residual connections are missing.",
        layer(first=without_first, second=without_second),
        "Add x to what each sublayer gives, before the norm.",
    )
    yield (
        "The second residual is taken from the layer's input, not from what norm1 gave.",
        layer(second=lambda self, x, y: self.norm2(x + transform(self, y))),
        "Write x = norm1(...) first, then use that x twice: norm2(x + feed_forward(x)).",
    )
    yield (
        "The feed-forward network gets the layer's input, not what norm1 gave.",
        layer(second=lambda self, x, y: self.norm2(y + transform(self, x))),
        "Write x = norm1(...) first, then use that x twice: norm2(x + feed_forward(x)).",
    )
    yield (
        "The second sublayer starts from the layer's input, and what the attention gave is lost.",
        layer(second=lambda self, x, y: self.norm2(x + transform(self, x))),
        "Write x = norm1(...) first, then use that x twice: norm2(x + feed_forward(x)).",
    )
    yield (
        "Attention and feed-forward network work side by side on the same x; the second must get "
        "what the first gave.",
        layer(
            lambda self, x, mask: x + attend(self, x, mask),
            lambda self, x, y: self.norm2(self.norm1(y + transform(self, x))),
        ),
        "x = norm1(x + self_attn(...)) first, then norm2(x + feed_forward(x)).",
    )
    yield (
        "The two norms change places: norm1 follows the attention, norm2 the feed-forward network.",
        layer(
            lambda self, x, mask: self.norm2(x + attend(self, x, mask)),
            lambda self, x, y: self.norm1(y + transform(self, y)),
        ),
        "x = norm1(x + self_attn(...)), then norm2(x + feed_forward(x)).",
    )
    yield (
        "norm1 is used for both sublayers, and norm2 never.",
        layer(second=lambda self, x, y: self.norm1(y + transform(self, y))),
        "Use self.norm2 after the feed-forward network.",
    )
    yield (
        "One norm serves both sublayers; each has a norm with parameters of its own.",
        layer(change=lambda self: setattr(self, "norm2", self.norm1)),
        "Create two: self.norm1 and self.norm2.",
    )
    yield (
        "norm1 is missing: the sum after the attention is not normalized.",
        layer(first=lambda self, x, mask: x + attend(self, x, mask)),
        "x = norm1(x + dropout(self_attn(x, x, x, mask)[0])).",
    )
    yield (
        "norm2 is missing: the sum after the feed-forward network is not normalized.",
        layer(second=lambda self, x, y: y + transform(self, y)),
        "x = norm2(x + dropout(feed_forward(x))).",
    )
    yield (
        "Neither sum is normalized.",
        layer(
            lambda self, x, mask: x + attend(self, x, mask),
            lambda self, x, y: y + transform(self, y),
        ),
        "x = norm1(x + dropout(sublayer(x))).",
    )
    yield (
        "A further norm without parameters is applied at the end.",
        layer(
            second=lambda self, x, y: nn.functional.layer_norm(
                self.norm2(y + transform(self, y)), x.shape[-1:]
            )
        ),
        "Return what norm2 gives.",
    )
    yield (
        "The feed-forward network comes first and the attention second.",
        layer(
            lambda self, x, mask: (self.norm1(x + transform(self, x)), mask),
            lambda self, x, y: self.norm2(y[0] + attend(self, *y)),
        ),
        "Attend first, then transform each position.",
    )
    yield (
        "The attention is left out.",
        layer(first=lambda self, x, mask: self.norm1(x)),
        "x = norm1(x + dropout(self_attn(x, x, x, mask)[0])).",
    )
    yield (
        "The feed-forward network is left out.",
        layer(second=lambda self, x, y: self.norm2(y)),
        "x = norm2(x + dropout(feed_forward(x))).",
    )
    yield (
        "x is added twice: to what the sublayer gives, and once more.",
        layer(
            lambda self, x, mask: self.norm1(x + x + attend(self, x, mask)),
            lambda self, x, y: self.norm2(y + y + transform(self, y)),
        ),
        "x = norm1(x + dropout(sublayer(x))).",
    )
    yield (
        "The mask is never used.",
        layer(first=lambda self, x, mask: self.norm1(x + attend(self, x, None))),
        "Pass it on: self.self_attn(x, x, x, mask).",
    )
    yield (
        "The mask is inverted on the way to the attention; True means may attend, here and there.",
        layer(
            first=lambda self, x, mask: self.norm1(
                x + attend(self, x, None if mask is None else ~mask)
            )
        ),
        "Pass it on as it is.",
    )
    for applies in (lambda mask: True, lambda mask: mask is None):

        def causal(self, x, mask, applies=applies):
            if applies(mask):
                triangle = torch.ones(x.size(1), x.size(1), dtype=torch.bool).tril()
                mask = triangle if mask is None else mask & triangle
            return self.norm1(x + attend(self, x, mask))

        yield (
            "No position reads a later one, although only the mask may bar positions: an encoder "
            "reads both ways.",
            layer(first=causal),
            "Use the mask that is passed in, and no other.",
        )
    for fixed in (
        lambda d_model, num_heads: 1,
        lambda d_model, num_heads: d_model,
        lambda d_model, num_heads: 2,
    ):
        yield (
            "The number of heads is fixed; num_heads is not passed on to the attention.",
            layer(heads=fixed),
            "MultiHeadAttention(d_model, num_heads, dropout).",
        )
    branches = (
        "what the attention gives",
        "what the feed-forward network gives",
        "what either sublayer gives",
    )
    for drop, where in zip(
        ((nothing, nn.Dropout), (nn.Dropout, nothing), (nothing, nothing)), branches, strict=True
    ):
        yield (
            f"There is no dropout on {where}, before x is added.",
            layer(drop=drop),
            "x = norm1(x + dropout(sublayer(x))), for both sublayers.",
        )
    inner = ("the attention", "the feed-forward network", "either sublayer")
    for inside, where in zip(((0, 1), (1, 0), (0, 0)), inner, strict=True):
        yield (
            f"The dropout rate is not passed on to {where}.",
            layer(inside=inside),
            "MultiHeadAttention(d_model, num_heads, dropout) and FeedForward(d_model, d_ff, "
            "dropout).",
        )
    for drop in ((Always, Always), (Always, nn.Dropout), (nn.Dropout, Always)):
        yield (
            "Dropout acts in evaluation mode too.",
            layer(drop=drop),
            "Use nn.Dropout, or F.dropout with training=self.training.",
        )
    yield (
        "Dropout acts on the sum, so x itself is dropped; it belongs on what the sublayer gives.",
        layer(
            lambda self, x, mask: self.norm1(self.drop1(x + self.self_attn(x, x, x, mask)[0])),
            lambda self, x, y: self.norm2(self.drop2(y + self.feed_forward(y))),
        ),
        "x = norm1(x + dropout(sublayer(x))).",
    )
    yield (
        "Dropout acts after the norm; it belongs on what the sublayer gives, before the sum.",
        layer(
            lambda self, x, mask: self.drop1(self.norm1(x + self.self_attn(x, x, x, mask)[0])),
            lambda self, x, y: self.drop2(self.norm2(y + self.feed_forward(y))),
        ),
        "x = norm1(x + dropout(sublayer(x))).",
    )

    def in_place(self, x, mask):
        x += attend(self, x, mask)
        return self.norm1(x)

    def in_place_unseen(self, x, mask):
        attended = attend(self, x, mask)
        x.data += attended.data
        return self.norm1(x)

    for first in (in_place, in_place_unseen):
        yield (
            "The residual is added in place, which changes the caller's x.",
            layer(first=first),
            "Write x = x + ..., not x += ....",
        )


# ---- decoder layer -------------------------------------------------------------------------


def decoder_layer_parameters(d_model, num_heads, d_ff, dropout=0.0):
    """The parameters of a decoder layer."""
    return (
        attention_parameters("self_attn.", d_model)
        | attention_parameters("multihead_attn.", d_model)
        | other_parameters(d_model, d_ff, 3)
    )


decoder_layer = Exercise(
    "transformer/DecoderLayer",
    points=4,
    signature="DecoderLayer(d_model, num_heads, d_ff, dropout=0.0), "
    "forward(x, memory, mask=None, memory_mask=None)",
    returns=[Returned("output", "(batch, L_t, d_model)")],
    without=["multi_head_attention"],
    parameters=decoder_layer_parameters,
)


@decoder_layer.case(
    "the number of parameters",
    next_step="self_attn, multihead_attn, feed_forward, and three norms with parameters of their "
    "own; nothing else.",
)
def _(decoder_layer, make):
    return {"numbers in all parameters": numbers(decoder_layer(8, 2, 12))}


@decoder_layer.case(
    "as many target as source positions, without masks",
    next_step="x = norm1(x + self_attn(x, x, x)), x = norm2(x + multihead_attn(x, memory, "
    "memory)), then norm3(x + feed_forward(x)).",
)
def _(decoder_layer, make):
    layer = make.module(decoder_layer, 8, 2, 12)
    return {"output": layer(make.normal(2, 4, 8), make.normal(2, 4, 8))}


@decoder_layer.case(
    "a memory that is longer, and one that is shorter",
    next_step="In the second attention the queries come from x, keys and values from memory: the "
    "output is as long as x.",
)
def _(decoder_layer, make):
    layer = make.module(decoder_layer, 6, 3, 9)
    return {
        "output with a longer memory": layer(make.normal(2, 3, 6), make.normal(2, 5, 6)),
        "output with a shorter memory": layer(make.normal(2, 4, 6), make.normal(2, 1, 6)),
    }


@decoder_layer.case(
    "both masks, on as many target as source positions",
    next_step="mask belongs to the self-attention, memory_mask to the attention to the memory.",
)
def _(decoder_layer, make):
    layer = make.module(decoder_layer, 8, 2, 12)
    memory_mask = torch.tensor([[[True, False, True, True]], [[False, True, True, False]]])
    return {
        "output": layer(make.normal(2, 4, 8), make.normal(2, 4, 8), lower_triangle(4), memory_mask)
    }


@decoder_layer.case(
    "one mask at a time",
    next_step="Hand each mask on to its own attention; the other one may be None.",
)
def _(decoder_layer, make):
    layer = make.module(decoder_layer, 8, 2, 12)
    x, memory = make.normal(2, 4, 8), make.normal(2, 4, 8)
    return {
        "output with mask": layer(x.clone(), memory.clone(), some_true(make, 4, 4)),
        "output with memory_mask": layer(x, memory, None, some_true(make, 2, 1, 4)),
    }


@decoder_layer.case(
    "masks for each query, with a memory of another length",
    next_step="mask has shape (batch, L_t, L_t), memory_mask (batch, L_t, L_s): hand them on as "
    "they are.",
)
def _(decoder_layer, make):
    layer = make.module(decoder_layer, 8, 4, 6)
    x, memory = make.normal(2, 3, 8), make.normal(2, 5, 8)
    return {"output": layer(x, memory, some_true(make, 2, 3, 3), some_true(make, 2, 3, 5))}


@decoder_layer.case(
    "what is barred does not reach the output",
    weight=2,
    next_step="Under a causal mask no later position, and under memory_mask no barred position of "
    "the memory, may change the output.",
)
def _(decoder_layer, make):
    layer = make.module(decoder_layer, 8, 2, 12)
    x, memory = make.normal(2, 4, 8), make.normal(2, 4, 8)
    allowed = torch.tensor([True, False, True, False])
    later, elsewhere = x.clone(), memory.clone()
    later[:, 2:] = 20.0
    elsewhere[:, ~allowed] = 20.0

    def output(x, memory):
        masks = lower_triangle(4), allowed[None, None].clone()
        return layer(x.clone(), memory.clone(), *masks)

    before = output(x, memory)
    moved, turned = output(later, memory) - before, output(x, elsewhere) - before
    return {
        "output": before,
        "change of earlier positions when later ones change": moved[:, :2].abs().max(),
        "change when barred positions of the memory change": turned.abs().max(),
    }


@decoder_layer.case(
    "a batch of one, a target of one",
    next_step="Keep axes of length 1: no squeeze().",
)
def _(decoder_layer, make):
    layer = make.module(decoder_layer, 4, 2, 6)
    return {
        "output": layer(make.normal(1, 1, 4), make.normal(1, 1, 4)),
        "output of three": layer(make.normal(1, 3, 4), make.normal(1, 2, 4)),
    }


@decoder_layer.case(
    "dropout in evaluation mode, where it does nothing",
    next_step="Make each dropout an nn.Dropout in __init__, which eval() switches off.",
)
def _(decoder_layer, make):
    layer = make.module(decoder_layer, 8, 2, 12, 1.0)
    layer.component.eval()
    return {"output": layer(make.normal(2, 4, 8), make.normal(2, 4, 8))}


@decoder_layer.case(
    "dropout of everything, in training mode",
    weight=2,
    next_step="Dropout acts on what each of the three sublayers gives, before it is added to x. If "
    "all is dropped, norm3(norm2(norm1(x))) is left.",
)
def _(decoder_layer, make):
    layer = make.module(decoder_layer, 8, 2, 12, 1.0)
    return {"output": layer(make.normal(2, 4, 8), make.normal(2, 4, 8))}


@decoder_layer.case(
    "dropout inside the sublayers",
    weight=0.5,
    next_step="Pass the dropout rate on to self_attn, multihead_attn and feed_forward: they drop "
    "weights and hidden numbers.",
)
def _(decoder_layer, make):
    layer = make.module(decoder_layer, 8, 1, 1, 0.5)
    last = {
        "the self-attention drops half of its weights": "self_attn.w_o.weight",
        "the attention to the memory drops half of its weights": "multihead_attn.w_o.weight",
        "the feed-forward network drops half of its hidden numbers": "feed_forward.w_2.weight",
    }
    return falls_silent(layer, [make.normal(400, 1, 8), make.normal(400, 1, 8)], last)


@decoder_layer.case(
    "gradients of inputs and parameters, with masks",
    weight=2,
    next_step="The gradient must reach the memory: it is all that the encoder learns from.",
)
def _(decoder_layer, make):
    layer = make.module(decoder_layer, 8, 2, 12)
    inputs = {"x": make.normal(2, 4, 8, grad=True), "memory": make.normal(2, 4, 8, grad=True)}
    own = own_parameters(layer)
    for name in ("self_attn.w_v.weight", "multihead_attn.w_k.weight", "norm2.weight"):
        inputs[name] = own[name]
    output = layer(inputs["x"], inputs["memory"], lower_triangle(4), some_true(make, 2, 1, 4))
    return make.gradients("output", output, **inputs)


@decoder_layer.case(
    "float64 inputs that are views, left as they were",
    next_step="Stay in the dtype of x, and write x = x + y, not x += y.",
)
def _(decoder_layer, make):
    layer = make.module(decoder_layer, 8, 4, 6, dtype=torch.float64)
    x = make.normal(4, 2, 8, dtype=torch.float64).transpose(0, 1)
    memory = make.normal(2, 8, 3, dtype=torch.float64).transpose(1, 2)
    return {
        "output": layer(x, memory, some_true(make, 4, 4), some_true(make, 4, 3)),
        "the inputs are unchanged": make.unchanged(),
    }


@decoder_layer.case("bfloat16", weight=0.5, next_step="Return the dtype of x.")
def _(decoder_layer, make):
    layer = make.module(decoder_layer, 8, 2, 12, dtype=torch.bfloat16)
    x, memory = (make.normal(2, 4, 8, dtype=torch.bfloat16) for _ in range(2))
    return in_both_precisions(layer, x, memory, lower_triangle(4))


@decoder_layer.case("other sizes", hidden=True)
def _(decoder_layer, make):
    layer = make.module(decoder_layer, 12, 3, 7)
    x, memory = make.normal(3, 5, 12), make.normal(3, 7, 12)
    return {"output": layer(x, memory, lower_triangle(5), some_true(make, 3, 1, 7))}


@decoder_layer.misconceptions
def _():
    """A decoder layer with one thing wrong at a time."""
    from workbook.ready.multi_head import MultiHeadAttention

    class FeedForward(nn.Module):
        def __init__(self, d_model, d_ff, dropout):
            super().__init__()
            self.w_1, self.w_2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
            self.dropout = nn.Dropout(dropout)

        def forward(self, x):
            return self.w_2(self.dropout(torch.relu(self.w_1(x))))

    class Always(nn.Module):
        def __init__(self, rate):
            super().__init__()
            self.rate = rate

        def forward(self, x):
            return nn.functional.dropout(x, self.rate)

    def attend(self, x, mask):
        return self.drop1(self.self_attn(x, x, x, mask)[0])

    def look(self, x, memory, mask):
        return self.drop2(self.multihead_attn(x, memory, memory, mask)[0])

    def transform(self, x):
        return self.drop3(self.feed_forward(x))

    # Each step gets what the one before gave, and all that the layer was called with.
    def first_step(self, x, memory, mask, memory_mask):
        return self.norm1(x + attend(self, x, mask))

    def second_step(self, y, x, memory, mask, memory_mask):
        return self.norm2(y + look(self, y, memory, memory_mask))

    def third_step(self, z, y, x):
        return self.norm3(z + transform(self, z))

    def layer(
        first=first_step,
        second=second_step,
        third=third_step,
        drop=(nn.Dropout, nn.Dropout, nn.Dropout),
        inside=(1, 1, 1),
        heads=lambda d_model, num_heads: num_heads,
        change=lambda self: None,
    ):
        class Layer(nn.Module):
            def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
                super().__init__()
                rates, heads_ = [i * dropout for i in inside], heads(d_model, num_heads)
                self.self_attn = MultiHeadAttention(d_model, heads_, rates[0])
                self.multihead_attn = MultiHeadAttention(d_model, heads_, rates[1])
                self.feed_forward = FeedForward(d_model, d_ff, rates[2])
                for i in range(3):
                    setattr(self, f"norm{i + 1}", nn.LayerNorm(d_model))
                    setattr(self, f"drop{i + 1}", drop[i](dropout))
                change(self)

            def forward(self, x, memory, mask=None, memory_mask=None):
                y = first(self, x, memory, mask, memory_mask)
                z = second(self, y, x, memory, mask, memory_mask)
                return third(self, z, y, x)

        return Layer

    def nothing(rate):
        return nn.Identity()

    def crossing(choose):
        """The second attention with other queries, keys and values."""

        def second(self, y, x, memory, mask, memory_mask):
            found = self.multihead_attn(*choose(y, x, memory), memory_mask)[0]
            return self.norm2(y + self.drop2(found))

        return second

    def masked(of_self, of_memory):
        """Other masks than each attention's own."""
        return {
            "first": lambda self, x, memory, mask, memory_mask: first_step(
                self, x, memory, of_self(mask, memory_mask), None
            ),
            "second": lambda self, y, x, memory, mask, memory_mask: second_step(
                self, y, x, memory, None, of_memory(mask, memory_mask)
            ),
        }

    yield (
        "The masks are swapped: mask belongs to the self-attention, memory_mask to the attention "
        "to the memory.",
        layer(**masked(lambda mask, other: other, lambda mask, other: mask)),
        "self_attn(x, x, x, mask), then multihead_attn(x, memory, memory, memory_mask).",
    )
    yield (
        "mask is used for the memory too, and memory_mask never.",
        layer(**masked(lambda mask, other: mask, lambda mask, other: mask)),
        "self_attn(x, x, x, mask), then multihead_attn(x, memory, memory, memory_mask).",
    )
    yield (
        "memory_mask is used for the self-attention too, and mask never.",
        layer(**masked(lambda mask, other: other, lambda mask, other: other)),
        "self_attn(x, x, x, mask), then multihead_attn(x, memory, memory, memory_mask).",
    )
    yield (
        "memory_mask is never used: padding in the source is read.",
        layer(**masked(lambda mask, other: mask, lambda mask, other: None)),
        "Pass it on: multihead_attn(x, memory, memory, memory_mask).",
    )
    yield (
        "mask is never used: positions read what comes after them.",
        layer(**masked(lambda mask, other: None, lambda mask, other: other)),
        "Pass it on: self_attn(x, x, x, mask).",
    )
    yield (
        "Neither mask is used.",
        layer(**masked(lambda mask, other: None, lambda mask, other: None)),
        "self_attn(x, x, x, mask), then multihead_attn(x, memory, memory, memory_mask).",
    )

    def inverted(mask):
        return None if mask is None else ~mask

    for pair in (
        (lambda mask, other: inverted(mask), lambda mask, other: inverted(other)),
        (lambda mask, other: inverted(mask), lambda mask, other: other),
        (lambda mask, other: mask, lambda mask, other: inverted(other)),
    ):
        yield (
            "A mask is inverted on the way to its attention; True means may attend, here and "
            "there.",
            layer(**masked(*pair)),
            "Pass both on as they are.",
        )
    for applies in (lambda mask: True, lambda mask: mask is None):

        def causal(self, x, memory, mask, memory_mask, applies=applies):
            if applies(mask):
                triangle = torch.ones(x.size(1), x.size(1), dtype=torch.bool).tril()
                mask = triangle if mask is None else mask & triangle
            return first_step(self, x, memory, mask, None)

        yield (
            "The layer makes a causal mask of its own, although only the masks that are passed in "
            "may bar positions.",
            layer(first=causal),
            "Use mask as it is; the Transformer around this layer makes it.",
        )
    yield (
        "In the second attention the queries come from the memory; they come from the target, and "
        "keys and values from the memory.",
        layer(second=crossing(lambda y, x, memory: (memory, y, y))),
        "multihead_attn(x, memory, memory, memory_mask).",
    )
    yield (
        "In the second attention only the keys come from the memory; the values must, too.",
        layer(second=crossing(lambda y, x, memory: (y, memory, y))),
        "multihead_attn(x, memory, memory, memory_mask).",
    )
    yield (
        "In the second attention only the values come from the memory; the keys must, too.",
        layer(second=crossing(lambda y, x, memory: (y, y, memory))),
        "multihead_attn(x, memory, memory, memory_mask).",
    )
    yield (
        "The second attention never looks at the memory: queries, keys and values are the target's "
        "own.",
        layer(second=crossing(lambda y, x, memory: (y, y, y))),
        "multihead_attn(x, memory, memory, memory_mask).",
    )
    yield (
        "The second attention looks at the memory alone: queries, keys and values are all the "
        "memory's.",
        layer(second=crossing(lambda y, x, memory: (memory, memory, memory))),
        "multihead_attn(x, memory, memory, memory_mask).",
    )
    yield (
        "The second attention's queries are the layer's input, not what norm1 gave.",
        layer(second=crossing(lambda y, x, memory: (x, memory, memory))),
        "Write x = norm1(...) first, and use that x from there on.",
    )
    yield (
        "The first attention reads the memory; it is the target's attention to itself.",
        layer(
            first=lambda self, x, memory, mask, memory_mask: self.norm1(
                x + self.drop1(self.self_attn(x, memory, memory, mask)[0])
            )
        ),
        "self_attn(x, x, x, mask).",
    )
    yield (
        "The attention to the memory is left out.",
        layer(second=lambda self, y, *_: self.norm2(y)),
        "x = norm2(x + dropout(multihead_attn(x, memory, memory, memory_mask)[0])).",
    )
    yield (
        "The self-attention is left out.",
        layer(first=lambda self, x, *_: self.norm1(x)),
        "x = norm1(x + dropout(self_attn(x, x, x, mask)[0])).",
    )
    yield (
        "The feed-forward network is left out.",
        layer(third=lambda self, z, y, x: self.norm3(z)),
        "x = norm3(x + dropout(feed_forward(x))).",
    )
    yield (
        "The attention to the memory comes first and the self-attention second.",
        layer(
            lambda self, x, memory, mask, memory_mask: self.norm1(
                x + look(self, x, memory, memory_mask)
            ),
            lambda self, y, x, memory, mask, memory_mask: self.norm2(y + attend(self, y, mask)),
        ),
        "The target attends to itself first, then to the memory.",
    )
    yield (
        "The feed-forward network stands between the two attentions; it comes last.",
        layer(
            second=lambda self, y, x, memory, _, mask: (
                self.norm2(y + transform(self, y)),
                memory,
                mask,
            ),
            third=lambda self, z, y, x: self.norm3(z[0] + look(self, *z)),
        ),
        "Self-attention, attention to the memory, feed-forward network: in this order.",
    )
    yield (
        "One attention serves as both: the second one has parameters of its own, multihead_attn.",
        layer(
            second=lambda self, y, x, memory, mask, memory_mask: self.norm2(
                y + self.drop2(self.self_attn(y, memory, memory, memory_mask)[0])
            )
        ),
        "Use self.multihead_attn for the memory.",
    )
    yield (
        "self_attn and multihead_attn change places: the first is the target's attention to "
        "itself.",
        layer(
            lambda self, x, memory, mask, memory_mask: self.norm1(
                x + self.drop1(self.multihead_attn(x, x, x, mask)[0])
            ),
            lambda self, y, x, memory, mask, memory_mask: self.norm2(
                y + self.drop2(self.self_attn(y, memory, memory, memory_mask)[0])
            ),
        ),
        "self_attn(x, x, x, mask), then multihead_attn(x, memory, memory, memory_mask).",
    )
    yield (
        "The memory is normalized before it is read; it is used as it comes.",
        layer(
            second=lambda self, y, x, memory, mask, memory_mask: second_step(
                self, y, x, self.norm2(memory), mask, memory_mask
            )
        ),
        "multihead_attn(x, memory, memory, memory_mask).",
    )
    yield (
        "This is pre-norm: each sublayer gets a normalized x, and the sum is not normalized. The "
        "paper normalizes after the addition.",
        layer(
            lambda self, x, memory, mask, _: x + attend(self, self.norm1(x), mask),
            lambda self, y, x, memory, _, mask: y + look(self, self.norm2(y), memory, mask),
            lambda self, z, y, x: z + transform(self, self.norm3(z)),
        ),
        "x = norm1(x + dropout(sublayer(x))): add first, then normalize.",
    )
    yield (
        "What a sublayer gives is normalized before it is added; the sum must be normalized.",
        layer(
            lambda self, x, memory, mask, _: x + self.norm1(attend(self, x, mask)),
            lambda self, y, x, memory, _, mask: y + self.norm2(look(self, y, memory, mask)),
            lambda self, z, y, x: z + self.norm3(transform(self, z)),
        ),
        "x = norm1(x + dropout(sublayer(x))): add first, then normalize.",
    )

    without = {
        "first": lambda self, x, memory, mask, _: self.norm1(attend(self, x, mask)),
        "second": lambda self, y, x, memory, _, mask: self.norm2(look(self, y, memory, mask)),
        "third": lambda self, z, y, x: self.norm3(transform(self, z)),
    }
    for which, changed in without.items():
        yield (
            f"The {which} residual connection is missing: x is not added to what that sublayer "
            "gives.",
            layer(**{which: changed}),
            "x = norm(x + dropout(sublayer(x))), for each of the three.",
        )
    yield (
        "There are no residual connections.",
        layer(**without),
        "x = norm(x + dropout(sublayer(x))), for each of the three.",
    )
    yield (
        "The second residual is taken from the layer's input, not from what norm1 gave.",
        layer(
            second=lambda self, y, x, memory, _, mask: self.norm2(x + look(self, y, memory, mask))
        ),
        "Write x = norm1(...) first, and use that x from there on.",
    )
    for source in (lambda y, x: x, lambda y, x: y):
        yield (
            "The third residual is taken from further back, not from what norm2 gave.",
            layer(
                third=lambda self, z, y, x, source=source: self.norm3(
                    source(y, x) + transform(self, z)
                )
            ),
            "Write x = norm2(...) first, and use that x from there on.",
        )
    for order in ((1, 0, 2), (0, 2, 1), (2, 1, 0), (1, 2, 0), (2, 0, 1)):

        def permute(self, order=order):
            norms = [self.norm1, self.norm2, self.norm3]
            self.places = [norms[i] for i in order]

        yield (
            "The norms change places: norm1 follows the self-attention, norm2 the attention to the "
            "memory, norm3 the feed-forward network.",
            layer(
                lambda self, x, memory, mask, _: self.places[0](x + attend(self, x, mask)),
                lambda self, y, x, memory, _, mask: self.places[1](y + look(self, y, memory, mask)),
                lambda self, z, y, x: self.places[2](z + transform(self, z)),
                change=permute,
            ),
            "norm1 first, norm2 second, norm3 last.",
        )
    unnormalized = {
        "first": lambda self, x, memory, mask, _: x + attend(self, x, mask),
        "second": lambda self, y, x, memory, _, mask: y + look(self, y, memory, mask),
        "third": lambda self, z, y, x: z + transform(self, z),
    }
    for name, which in zip(("norm1", "norm2", "norm3"), unnormalized, strict=True):
        yield (
            f"{name} is missing: the {which} sum is not normalized.",
            layer(**{which: unnormalized[which]}),
            "x = norm(x + dropout(sublayer(x))), for each of the three.",
        )
    yield (
        "None of the sums is normalized.",
        layer(**unnormalized),
        "x = norm(x + dropout(sublayer(x))), for each of the three.",
    )
    for fixed in (
        lambda d_model, num_heads: 1,
        lambda d_model, num_heads: d_model,
        lambda d_model, num_heads: 2,
    ):
        yield (
            "The number of heads is fixed; num_heads is not passed on to the attentions.",
            layer(heads=fixed),
            "MultiHeadAttention(d_model, num_heads, dropout).",
        )
    sublayers = ("the self-attention", "the attention to the memory", "the feed-forward network")
    for i, where in enumerate(sublayers):
        drop = tuple(nothing if i == j else nn.Dropout for j in range(3))
        yield (
            f"There is no dropout on what {where} gives, before x is added.",
            layer(drop=drop),
            "x = norm(x + dropout(sublayer(x))), for each of the three.",
        )
        yield (
            f"The dropout rate is not passed on to {where}.",
            layer(inside=tuple(int(i != j) for j in range(3))),
            "Give both attentions and the feed-forward network the rate: dropout is their last "
            "argument.",
        )
    yield (
        "There is no dropout on what the sublayers give.",
        layer(drop=(nothing, nothing, nothing)),
        "x = norm(x + dropout(sublayer(x))), for each of the three.",
    )
    yield (
        "The dropout rate is passed on to none of the sublayers.",
        layer(inside=(0, 0, 0)),
        "Give both attentions and the feed-forward network the rate: dropout is their last "
        "argument.",
    )
    yield (
        "Dropout acts in evaluation mode too.",
        layer(drop=(Always, Always, Always)),
        "Use nn.Dropout, or F.dropout with training=self.training.",
    )

    def in_place(self, x, memory, mask, memory_mask):
        x += attend(self, x, mask)
        return self.norm1(x)

    def in_place_unseen(self, x, memory, mask, memory_mask):
        attended = attend(self, x, mask)
        x.data += attended.data
        return self.norm1(x)

    for first in (in_place, in_place_unseen):
        yield (
            "The residual is added in place, which changes the caller's x.",
            layer(first=first),
            "Write x = x + ..., not x += ....",
        )


# ---- Transformer ---------------------------------------------------------------------------

MEMORY = Returned("memory", "(batch, L_s, d_model)")
LOGITS = Returned("logits", "(batch, L_t, vocab_size)")


def transformer_parameters(
    vocab_size, d_model=512, num_heads=8, num_layers=6, d_ff=2048, dropout=0.1, pad_id=0
):
    """The parameters of a Transformer: one embedding, and the layers of both halves."""
    layers = {
        "encoder": encoder_layer_parameters(d_model, num_heads, d_ff),
        "decoder": decoder_layer_parameters(d_model, num_heads, d_ff),
    }
    return {"embedding.weight": (vocab_size, d_model)} | {
        f"{half}.{i}.{name}": shape
        for half, parameters in layers.items()
        for i in range(num_layers)
        for name, shape in parameters.items()
    }


transformer = Exercise(
    "transformer/Transformer",
    points=6,
    signature="Transformer(vocab_size, d_model=512, num_heads=8, num_layers=6, d_ff=2048, "
    "dropout=0.1, pad_id=0), encode(source), decode(target, memory, source), "
    "forward(source, target)",
    returns=[LOGITS],
    without=["multi_head_attention", "_transformer_encoder_layer_fwd"],
    parameters=transformer_parameters,
)

WORDS = 13  # the ids that the cases use lie below


def small(transformer, make, num_layers=2, pad_id=0, dropout=0.0, dtype=torch.float32):
    """A Transformer of 13 words and width 8: the module, its encode and its decode."""
    model = make.module(transformer, WORDS, 8, 2, num_layers, 12, dropout, pad_id, dtype=dtype)
    return model, model.method("encode", MEMORY), model.method("decode", LOGITS)


def words(make, *shape):
    """Token ids without padding, where padding is 0."""
    return make.integers(1, WORDS, *shape)


def padded(make, *lengths, pad_id=0):
    """Sequences of these lengths, padded at the end; 0 is a word where it is not the padding."""
    ids = make.integers(0, WORDS - 1, len(lengths), max(lengths))
    beyond = torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None]
    return make.watch((ids + (ids >= pad_id)).masked_fill(beyond, pad_id))


@transformer.case(
    "the number of parameters",
    next_step="One nn.Embedding serves source, target and output, and the output has no bias. "
    "Then num_layers encoder and num_layers decoder layers, and nothing else.",
)
def _(transformer, make):
    return {
        "numbers in all parameters": numbers(transformer(WORDS, 8, 2, 2, 12)),
        "numbers with one layer more": numbers(transformer(WORDS, 8, 2, 3, 12)),
    }


@transformer.case(
    "no layers at all: the embedded words",
    next_step="Embeddings are multiplied by the square root of d_model, then the sinusoids are "
    "added, one vector for each position. The logits are dot products with the same embeddings.",
)
def _(transformer, make):
    model, encode, _ = small(transformer, make, num_layers=0)
    source, target = words(make, 2, 5), words(make, 2, 3)
    return {"memory": encode(source), "logits": model(source, target)}


@transformer.case(
    "source and target of the same length, no padding",
    next_step="encode: embed, then each encoder layer in turn. decode: embed, each decoder layer "
    "in turn with the memory, then the product with the embeddings.",
)
def _(transformer, make):
    model, encode, _ = small(transformer, make)
    source, target = words(make, 3, 4), words(make, 3, 4)
    return {"memory": encode(source), "logits": model(source, target)}


@transformer.case(
    "a longer source, and a longer target",
    next_step="The target may have another length than the source: its own causal mask, and the "
    "padding mask of the source.",
)
def _(transformer, make):
    model, _, _ = small(transformer, make)
    return {
        "logits with a longer source": model(words(make, 2, 6), words(make, 2, 3)),
        "logits with a longer target": model(words(make, 1, 1), words(make, 1, 4)),
    }


@transformer.case(
    "decode with a given memory, and the three methods together",
    next_step="decode uses the memory that it is given, for every layer the same, and "
    "forward(source, target) is decode(target, encode(source), source).",
)
def _(transformer, make):
    model, encode, decode = small(transformer, make)
    source, target = padded(make, 5, 3), padded(make, 4, 2)
    memory = encode(source)
    difference = model(source, target) - decode(target, memory, source)
    given = decode(target, make.normal(2, 5, 8), source)
    return {
        "logits of a given memory": at_words(given, target),
        "difference between forward and decode after encode": at_words(difference, target),
    }


@transformer.case(
    "padding in the source",
    weight=2,
    next_step="padding_mask(source, pad_id) bars it in two places: in the encoder, and in the "
    "decoder's attention to the memory.",
)
def _(transformer, make):
    model, encode, _ = small(transformer, make)
    source, target = padded(make, 3, 5, 1), words(make, 3, 5)
    longer = torch.cat([source, torch.zeros(3, 2, dtype=torch.int64)], dim=1)
    logits = model(source, target)
    return {
        "memory of the words": at_words(encode(source), source),
        "logits": logits,
        "change of the logits when padding is added to the source": (
            (model(longer, target) - logits).abs().max()
        ),
    }


@transformer.case(
    "padding in the target, at the end and in front",
    next_step="The target's self-attention takes both masks: causal_mask(length) & "
    "padding_mask(target, pad_id).",
)
def _(transformer, make):
    model, _, _ = small(transformer, make)
    end = padded(make, 4, 2)
    front = end.flip(1)
    source = words(make, 2, 3)
    return {
        "logits of the words": at_words(model(source, end), end),
        "logits of the words after the padding": at_words(model(source, front), front),
    }


@transformer.case(
    "a later word of the target changes",
    weight=2,
    next_step="The decoder's self-attention needs the causal mask: position t sees 0 to t.",
)
def _(transformer, make):
    model, _, _ = small(transformer, make)
    source, target = words(make, 2, 4), words(make, 2, 5)
    other = target.clone()
    other[:, 3:] = 1 + other[:, 3:] % (WORDS - 1)
    change = (model(source, other) - model(source, target)).abs().amax(dim=(0, 2))
    return {
        "change of the logits before it": change[:3],
        "the logits from it on change": bool((change[3:] > 1e-3).all()),
    }


@transformer.case(
    "the target grows word by word",
    next_step="What decode gives for a prefix of the target is what it gives for these positions "
    "of the whole: no mask, table or shift may depend on what follows.",
)
def _(transformer, make):
    _, encode, decode = small(transformer, make)
    source, target = words(make, 1, 4), words(make, 1, 4)
    memory = encode(source)
    grown = [decode(target[:, : i + 1], memory, source)[:, -1] for i in range(4)]
    return {"logits of the last position of each prefix": torch.stack(grown)}


@transformer.case(
    "the encoder reads both ways",
    next_step="The encoder's mask bars padding alone: each word may read those that follow.",
)
def _(transformer, make):
    _, encode, _ = small(transformer, make)
    source = words(make, 2, 4)
    other = source.clone()
    other[:, -1] = 1 + other[:, -1] % (WORDS - 1)
    change = (encode(other) - encode(source)).abs().amax(dim=(0, 2))
    return {
        "memory": encode(source),
        "all of it changes with the last word": bool(change.min() > 0),
    }


@transformer.case(
    "another padding id, while 0 is a word",
    next_step="Pass pad_id on to every padding_mask.",
)
def _(transformer, make):
    model, encode, _ = small(transformer, make, pad_id=7)
    source, target = padded(make, 5, 3, pad_id=7), padded(make, 2, 4, pad_id=7)
    source[:, 1] = target[:, 0] = 0  # a word like any other
    return {
        "memory of the words": at_words(encode(source), source, 7),
        "logits of the words": at_words(model(source, target), target, 7),
    }


@transformer.case(
    "a source of nothing but padding",
    next_step="A query that may attend to nothing gets 0, as in chapter 2: bar with -inf, and set "
    "the weights to 0 afterwards.",
)
def _(transformer, make):
    model, _, _ = small(transformer, make)
    source, target = padded(make, 3, 2), words(make, 2, 3)
    source[1] = 0
    return {"logits": model(source, target)}


@transformer.case(
    "dropout in evaluation mode, where it does nothing",
    next_step="Make each dropout an nn.Dropout in __init__, which eval() switches off.",
)
def _(transformer, make):
    model, encode, _ = small(transformer, make, dropout=1.0)
    model.component.eval()
    source, target = words(make, 2, 4), words(make, 2, 3)
    return {"memory": encode(source), "logits": model(source, target)}


@transformer.case(
    "dropout of everything, in training mode",
    next_step="Dropout acts on the sum of embeddings and positions, for source and target, and its "
    "rate is passed on to every layer.",
)
def _(transformer, make):
    model, encode, _ = small(transformer, make, dropout=1.0)
    source, target = words(make, 2, 4), words(make, 2, 3)
    bare, embed, _ = small(transformer, make, num_layers=0, dropout=1.0)
    return {
        "memory without layers": embed(source),
        "logits without layers": bare(source, target),
        "memory": encode(source),
        "logits": model(source, target),
    }


@transformer.case(
    "a sequence of six thousand words",
    weight=0.5,
    next_step="Sinusoids are there for every position: compute as many as the sequence has, not a "
    "table of fixed size.",
)
def _(transformer, make):
    encode = make.module(transformer, WORDS, 4, 1, 0, 4, 0.0).method("encode", MEMORY)
    memory = encode(words(make, 1, 6000))
    return {"shape": str(tuple(memory.shape)), "memory of the first words": memory[:, :20]}


@transformer.case(
    "gradients of the parameters",
    weight=2,
    next_step="The gradient must reach every layer of both halves, and the embedding by three "
    "ways: source, target and output.",
)
def _(transformer, make):
    model, _, _ = small(transformer, make)
    own, names = own_parameters(model), ["embedding.weight"]
    for layer in ("encoder.0", "encoder.1", "decoder.0", "decoder.1"):
        names += [f"{layer}.self_attn.w_v.weight", f"{layer}.feed_forward.w_1.bias"]
    names += ["decoder.0.multihead_attn.w_q.weight", "decoder.1.multihead_attn.w_k.weight"]
    logits = model(words(make, 2, 4), words(make, 2, 3))
    return make.gradients("logits", logits, **{name: own[name] for name in names})


@transformer.case(
    "the embedding as it is created",
    weight=0.5,
    next_step="nn.init.normal_(self.embedding.weight, std=d_model**-0.5): times the square root of "
    "d_model, its numbers are as large as the sinusoids.",
)
def _(transformer, make):
    embedding = own_parameters(transformer(2000, 16, 2, 1, 8)).get("embedding.weight")
    if embedding is None:
        return {"embedding.weight": None}
    size = embedding.detach() * 16**0.5

    def in_steps(number):
        return round(4 * float(number)) / 4

    return {
        "mean times the root of d_model, to the nearest 0.25": in_steps(size.mean()),
        "standard deviation times the root of d_model, to the nearest 0.25": in_steps(size.std()),
    }


@transformer.case(
    "the defaults are those of the paper's base model",
    weight=0.5,
    next_step="d_model=512, num_heads=8, num_layers=6, d_ff=2048, dropout=0.1, pad_id=0.",
)
def _(transformer, make):
    model, _, _ = small(transformer, make)  # a class that only has the signature has no defaults
    wanted = list(inspect.signature(transformer.component).parameters.values())[1:7]
    return {
        "defaults, in order": ", ".join(str(argument.default) for argument in wanted),
        "encoder layers of a small model": len(model.encoder),
    }


@transformer.case(
    "float64 and bfloat16, and ids that are views, left as they were",
    next_step="The sinusoids are float32: give them the dtype of the embeddings before you add.",
)
def _(transformer, make):
    source, target = (
        make.watch(padded(make, *lengths).T.contiguous()).T for lengths in ((4, 2, 3), (1, 3, 2))
    )
    long, _, _ = small(transformer, make, dtype=torch.float64)
    short, _, _ = small(transformer, make, dtype=torch.bfloat16)
    logits = long(source, target)
    return {
        "dtype": str(logits.dtype),
        "logits of the words": at_words(logits.float(), target),
        "dtype of bfloat16": str(short(source, target).dtype),
        "the inputs are unchanged": make.unchanged(),
    }


@transformer.case("other sizes", hidden=True)
def _(transformer, make):
    model = make.module(transformer, 17, 12, 3, 3, 10, 0.0, 3)
    source, target = padded(make, 6, 4, 7, pad_id=3), padded(make, 2, 5, 3, pad_id=3)
    memory = model.method("encode", MEMORY)(source)
    return {
        "memory of the words": at_words(memory, source, 3),
        "logits of the words": at_words(model(source, target), target, 3),
    }


@transformer.misconceptions
def _():
    """A Transformer with one thing wrong at a time."""
    from workbook.ready.attention import causal_mask, padding_mask
    from workbook.ready.multi_head import MultiHeadAttention
    from workbook.ready.positions import sinusoidal_encoding

    class FeedForward(nn.Module):
        def __init__(self, d_model, d_ff, dropout):
            super().__init__()
            self.w_1, self.w_2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
            self.dropout = nn.Dropout(dropout)

        def forward(self, x):
            return self.w_2(self.dropout(torch.relu(self.w_1(x))))

    class Layer(nn.Module):
        """An encoder layer; with a second attention, a decoder layer."""

        def __init__(self, d_model, num_heads, d_ff, dropout, decodes):
            super().__init__()
            self.self_attn = MultiHeadAttention(d_model, num_heads, dropout)
            if decodes:
                self.multihead_attn = MultiHeadAttention(d_model, num_heads, dropout)
            self.feed_forward = FeedForward(d_model, d_ff, dropout)
            self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
            if decodes:
                self.norm3 = nn.LayerNorm(d_model)
            self.dropout = nn.Dropout(dropout)

        def forward(self, x, mask, memory=None, memory_mask=None):
            x = self.norm1(x + self.dropout(self.self_attn(x, x, x, mask)[0]))
            last = self.norm2
            if memory is not None:
                found = self.multihead_attn(x, memory, memory, memory_mask)[0]
                x, last = self.norm2(x + self.dropout(found)), self.norm3
            return last(x + self.dropout(self.feed_forward(x)))

    class Right(nn.Module):
        def __init__(
            self,
            vocab_size,
            d_model=512,
            num_heads=8,
            num_layers=6,
            d_ff=2048,
            dropout=0.1,
            pad_id=0,
        ):
            super().__init__()
            self.embedding = nn.Embedding(vocab_size, d_model)
            nn.init.normal_(self.embedding.weight, std=d_model**-0.5)
            sizes = d_model, num_heads, d_ff, dropout
            self.encoder = nn.ModuleList(Layer(*sizes, False) for _ in range(num_layers))
            self.decoder = nn.ModuleList(Layer(*sizes, True) for _ in range(num_layers))
            self.dropout = nn.Dropout(dropout)
            self.d_model, self.pad_id = d_model, pad_id

        def vectors(self, ids, side):
            return self.embedding(ids) * self.d_model**0.5

        def positions(self, x, side):
            return sinusoidal_encoding(x.size(1), self.d_model).to(x)

        def embed(self, ids, side):
            x = self.vectors(ids, side)
            return self.dropout(x + self.positions(x, side))

        def source_mask(self, source):
            return padding_mask(source, self.pad_id)

        def target_mask(self, target):
            return padding_mask(target, self.pad_id) & causal_mask(target.size(1))

        def memory_mask(self, source, target):
            return padding_mask(source, self.pad_id)

        def encode(self, source):
            x = self.embed(source, "source")
            for layer in self.encoder:
                x = layer(x, self.source_mask(source))
            return x

        def logits(self, x):
            return x @ self.embedding.weight.T

        def decode(self, target, memory, source):
            x = self.embed(target, "target")
            for layer in self.decoder:
                mask = self.target_mask(target)
                x = layer(x, mask, memory, self.memory_mask(source, target))
            return self.logits(x)

        def forward(self, source, target):
            return self.decode(target, self.encode(source), source)

    def changed(**methods):
        return type("Changed", (Right,), methods)

    def created(change, **methods):
        """With something more done at the end of __init__."""

        class Created(changed(**methods)):
            def __init__(
                self,
                vocab_size,
                d_model=512,
                num_heads=8,
                num_layers=6,
                d_ff=2048,
                dropout=0.1,
                pad_id=0,
            ):
                super().__init__(vocab_size, d_model, num_heads, num_layers, d_ff, dropout, pad_id)
                change(self, vocab_size, (d_model, num_heads, d_ff, dropout))

        return Created

    # The embeddings.

    yield (
        "The embeddings are not multiplied by the square root of d_model.",
        changed(vectors=lambda self, ids, side: self.embedding(ids)),
        "x = self.embedding(ids) * math.sqrt(d_model), before the positions are added.",
    )
    yield (
        "The embeddings are divided by the square root of d_model; they are multiplied by it.",
        changed(vectors=lambda self, ids, side: self.embedding(ids) / self.d_model**0.5),
        "x = self.embedding(ids) * math.sqrt(d_model).",
    )
    yield (
        "The embeddings are multiplied by d_model, not by its square root.",
        changed(vectors=lambda self, ids, side: self.embedding(ids) * self.d_model),
        "x = self.embedding(ids) * math.sqrt(d_model).",
    )
    for scaled in ("source", "target"):
        yield (
            "Only one of source and target is multiplied by the square root of d_model.",
            changed(
                vectors=lambda self, ids, side, scaled=scaled: (
                    self.embedding(ids) * (self.d_model**0.5 if side == scaled else 1.0)
                )
            ),
            "Embed both with the same function.",
        )
    yield (
        "The sum of embeddings and positions is multiplied by the square root of d_model; only the "
        "embeddings are.",
        changed(positions=lambda self, x, side: Right.positions(self, x, side) * self.d_model**0.5),
        "self.embedding(ids) * math.sqrt(d_model) + positions.",
    )
    yield (
        "No positions are added, so the order of the words is lost.",
        changed(positions=lambda self, x, side: 0.0),
        "Add sinusoidal_encoding(length, d_model) to the scaled embeddings.",
    )
    for side_with in ("source", "target"):
        yield (
            f"Positions are added to the {side_with} only; the other side needs them too.",
            changed(
                positions=lambda self, x, side, side_with=side_with: (
                    Right.positions(self, x, side) * (side == side_with)
                )
            ),
            "Embed both with the same function.",
        )
    yield (
        "The positions are added twice.",
        changed(positions=lambda self, x, side: 2 * Right.positions(self, x, side)),
        "Add them once, to the scaled embeddings.",
    )
    yield (
        "The positions follow the sequences of the batch, not the words of a sequence.",
        changed(
            positions=lambda self, x, side: sinusoidal_encoding(x.size(0), self.d_model)[:, None]
        ),
        "One vector for each word of a sequence: sinusoidal_encoding(x.size(1), d_model).",
    )
    yield (
        "The positions are counted from 1; the first is 0.",
        changed(
            positions=lambda self, x, side: sinusoidal_encoding(x.size(1) + 1, self.d_model)[1:].to(
                x
            )
        ),
        "Add sinusoidal_encoding(length, d_model) as it comes.",
    )

    def positions_again(self, source):
        x = self.vectors(source, "source")
        for layer in self.encoder:
            x = layer(x + self.positions(x, "source"), self.source_mask(source))
        return x

    yield (
        "The positions are added again before every layer; the paper adds them once, at the "
        "bottom.",
        changed(encode=positions_again),
        "Add them to the scaled embeddings, and hand x from layer to layer as it is.",
    )
    yield (
        "The embedding keeps the standard deviation of 1 that nn.Embedding begins with: times the "
        "square root of d_model, it drowns the positions.",
        created(lambda self, *_: nn.init.normal_(self.embedding.weight)),
        "nn.init.normal_(self.embedding.weight, std=d_model**-0.5).",
    )

    # One matrix.

    def second_embedding(self, vocab_size, sizes):
        self.second = nn.Embedding(vocab_size, sizes[0])

    for second, output in (
        ("target", False),
        ("target", True),
        ("source", False),
        ("source", True),
    ):

        def from_its_own(self, ids, side, second=second):
            table = self.second if side == second else self.embedding
            return table(ids) * self.d_model**0.5

        def to_either(self, x, output=output):
            return x @ (self.second if output else self.embedding).weight.T

        yield (
            "The words have more than one matrix: source, target and output share self.embedding."
            if output
            else "Source and target have an embedding each; one matrix serves both, and the "
            "output.",
            created(second_embedding, vectors=from_its_own, logits=to_either),
            "Use self.embedding for source ids, for target ids, and for the logits: x @ "
            "self.embedding.weight.T.",
        )
    for bias in (True, False):
        yield (
            "The words have more than one matrix: source, target and output share self.embedding.",
            created(
                lambda self, vocab_size, sizes, bias=bias: setattr(
                    self, "output", nn.Linear(sizes[0], vocab_size, bias=bias)
                ),
                logits=lambda self, x: self.output(x),
            ),
            "Use self.embedding for source ids, for target ids, and for the logits: x @ "
            "self.embedding.weight.T.",
        )
    yield (
        "The output has a bias; the logits are the product with the embeddings and nothing more.",
        created(
            lambda self, vocab_size, sizes: setattr(
                self, "bias", nn.Parameter(torch.zeros(vocab_size))
            ),
            logits=lambda self, x: Right.logits(self, x) + self.bias,
        ),
        "logits = x @ self.embedding.weight.T, or F.linear without a bias.",
    )
    for name, function in (
        ("log-probabilities", torch.log_softmax),
        ("probabilities", torch.softmax),
    ):
        yield (
            f"What comes back are {name}; the exercise asks for logits, and the loss makes "
            "probabilities of them.",
            changed(logits=lambda self, x, function=function: function(Right.logits(self, x), -1)),
            "Return the product with the embeddings as it is.",
        )
    yield (
        "The logits are divided by the square root of d_model; only the embeddings at the input "
        "are scaled.",
        changed(logits=lambda self, x: Right.logits(self, x) / self.d_model**0.5),
        "logits = x @ self.embedding.weight.T.",
    )
    yield (
        "The logits are multiplied by the square root of d_model; only the embeddings at the input "
        "are scaled.",
        changed(logits=lambda self, x: Right.logits(self, x) * self.d_model**0.5),
        "logits = x @ self.embedding.weight.T.",
    )
    yield (
        "Only the logits of the last position come back; in training every position predicts.",
        changed(logits=lambda self, x: Right.logits(self, x[:, -1:])),
        "Return logits of shape (batch, L_t, vocab_size).",
    )

    # The masks.

    yield (
        "The padding of the source is not barred in the encoder.",
        changed(source_mask=lambda self, source: None),
        "Give every encoder layer padding_mask(source, pad_id).",
    )
    yield (
        "The padding of the source is not barred in the decoder's attention to the memory.",
        changed(memory_mask=lambda self, source, target: None),
        "Give every decoder layer padding_mask(source, pad_id) as memory_mask.",
    )
    yield (
        "The padding of the source is barred nowhere.",
        changed(
            source_mask=lambda self, source: None,
            memory_mask=lambda self, source, target: None,
        ),
        "padding_mask(source, pad_id) is needed in the encoder and as memory_mask.",
    )
    yield (
        "The causal mask is missing: each position of the target sees the very word that it has to "
        "predict.",
        changed(target_mask=lambda self, target: padding_mask(target, self.pad_id)),
        "causal_mask(length) & padding_mask(target, pad_id).",
    )
    yield (
        "The padding of the target is not barred.",
        changed(target_mask=lambda self, target: causal_mask(target.size(1))),
        "causal_mask(length) & padding_mask(target, pad_id).",
    )
    yield (
        "The target's self-attention has no mask at all.",
        changed(target_mask=lambda self, target: None),
        "causal_mask(length) & padding_mask(target, pad_id).",
    )
    yield (
        "The two masks of the target are joined with or; both must allow a position.",
        changed(
            target_mask=lambda self, target: (
                padding_mask(target, self.pad_id) | causal_mask(target.size(1))
            )
        ),
        "Join them with &.",
    )
    yield (
        "The causal mask leaves out the position itself.",
        changed(
            target_mask=lambda self, target: (
                padding_mask(target, self.pad_id) & causal_mask(target.size(1)).tril(-1)
            )
        ),
        "Position t sees 0 to t: use causal_mask as it is.",
    )
    yield (
        "Every position of the target sees one position too far: the very word that it has to "
        "predict.",
        changed(
            target_mask=lambda self, target: (
                padding_mask(target, self.pad_id)
                & torch.ones(target.size(1), target.size(1), dtype=torch.bool).tril(1)
            )
        ),
        "Position t sees 0 to t, not t + 1: use causal_mask as it is.",
    )
    yield (
        "The encoder has a causal mask too; it reads both ways.",
        changed(
            source_mask=lambda self, source: (
                padding_mask(source, self.pad_id) & causal_mask(source.size(1))
            )
        ),
        "Give the encoder layers padding_mask(source, pad_id) alone.",
    )
    yield (
        "The attention to the memory is causal too; every word of the target may read the whole "
        "source.",
        changed(
            memory_mask=lambda self, source, target: (
                padding_mask(source, self.pad_id)
                & torch.ones(target.size(1), source.size(1), dtype=torch.bool).tril()
            )
        ),
        "Give the decoder layers padding_mask(source, pad_id) alone as memory_mask.",
    )
    yield (
        "The padding is taken to be 0, whatever pad_id is.",
        created(lambda self, *_: setattr(self, "pad_id", 0)),
        "Keep pad_id in __init__ and pass it on to padding_mask.",
    )
    yield (
        "The memory is barred where the target is padding; its keys are the words of the source.",
        changed(
            memory_mask=lambda self, source, target: (
                padding_mask(target, self.pad_id)
                if source.shape == target.shape
                else padding_mask(source, self.pad_id)
            )
        ),
        "memory_mask is padding_mask(source, pad_id).",
    )

    # The flow.

    def embedded_memory(self, source, target):
        return self.decode(target, self.embed(source, "source"), source)

    yield (
        "The decoder attends to the embedded source, not to what the encoder made of it.",
        changed(encode=lambda self, source: self.embed(source, "source"), forward=embedded_memory),
        "memory = self.encode(source), after all encoder layers.",
    )

    def layer_by_layer(self, source, target):
        x, memories = self.embed(source, "source"), []
        for layer in self.encoder:
            x = layer(x, self.source_mask(source))
            memories.append(x)
        x = self.embed(target, "target")
        for layer, memory in zip(self.decoder, memories, strict=True):
            mask = self.target_mask(target)
            x = layer(x, mask, memory, self.memory_mask(source, target))
        return self.logits(x)

    yield (
        "Each decoder layer gets the encoder layer of its own height; all of them get what the "
        "last encoder layer gave.",
        changed(forward=layer_by_layer),
        "forward(source, target) is decode(target, encode(source), source).",
    )
    yield (
        "decode does not use the memory that it is given, but one that it makes or kept itself.",
        changed(
            decode=lambda self, target, memory, source: Right.decode(
                self, target, self.encode(source), source
            )
        ),
        "Hand memory on to every decoder layer.",
    )
    yield (
        "forward mixes up its arguments: the source comes first, the target second.",
        changed(
            forward=lambda self, source, target: self.decode(source, self.encode(target), target)
        ),
        "return self.decode(target, self.encode(source), source).",
    )

    def decode_with_last(self, target, memory, source):
        x = self.embed(target, "target")
        for layer in self.decoder[-1:]:
            mask = self.target_mask(target)
            x = layer(x, mask, memory, self.memory_mask(source, target))
        return self.logits(x)

    def restart(half):
        """Every layer starts from the embeddings, so only the last one counts."""

        def encode(self, source):
            x = embedded = self.embed(source, "source")
            for layer in self.encoder:
                x = layer(embedded, self.source_mask(source))
            return x

        return {"encode": encode} if half == "encoder" else {"decode": decode_with_last}

    for half in ("encoder", "decoder"):
        yield (
            f"Every {half} layer starts from the embeddings, so that only the last one counts.",
            changed(**restart(half)),
            "x = layer(x, ...): each layer gets what the one before gave.",
        )

    def shared(self, vocab_size, sizes):
        for name in ("encoder", "decoder"):
            half = getattr(self, name)
            setattr(self, name, nn.ModuleList([half[0]] * len(half) if len(half) else []))

    yield (
        "One layer is used num_layers times, with the same parameters: [layer] * num_layers "
        "repeats the one object.",
        created(shared),
        "Create each layer anew: nn.ModuleList(EncoderLayer(...) for _ in range(num_layers)).",
    )

    def final_norm(name):
        def normed(self, *arguments):
            found = getattr(Right, name)(self, *arguments)
            return nn.functional.layer_norm(found, found.shape[-1:])

        return {name: normed}

    def norm_before_logits(self, x):
        return Right.logits(self, nn.functional.layer_norm(x, x.shape[-1:]))

    for methods in (
        final_norm("encode"),
        {"logits": norm_before_logits},
        final_norm("encode") | {"logits": norm_before_logits},
    ):
        yield (
            "A further norm stands at the end of a stack. Post-norm layers, as in the paper, end "
            "with one; only pre-norm needs another.",
            changed(**methods),
            "Hand on what the last layer gives.",
        )

    def further_norms(self, vocab_size, sizes):
        self.encoder_norm, self.decoder_norm = nn.LayerNorm(sizes[0]), nn.LayerNorm(sizes[0])

    yield (
        "A further norm stands at the end of a stack. Post-norm layers, as in the paper, end with "
        "one; only pre-norm needs another.",
        created(
            further_norms,
            encode=lambda self, source: self.encoder_norm(Right.encode(self, source)),
            logits=lambda self, x: Right.logits(self, self.decoder_norm(x)),
        ),
        "Hand on what the last layer gives.",
    )

    # Dropout.

    yield (
        "There is no dropout on the sum of embeddings and positions.",
        created(lambda self, *_: setattr(self, "dropout", nn.Identity())),
        "x = dropout(embedding * sqrt(d_model) + positions), for source and target.",
    )
    for dropped in ("source", "target"):

        def embed(self, ids, side, dropped=dropped):
            x = self.vectors(ids, side)
            x = x + self.positions(x, side)
            return self.dropout(x) if side == dropped else x

        yield (
            "Only one of source and target has dropout on the sum of embeddings and positions.",
            changed(embed=embed),
            "Embed both with the same function.",
        )

    def before_positions(self, ids, side):
        x = self.dropout(self.vectors(ids, side))
        return x + self.positions(x, side)

    yield (
        "Dropout acts on the embeddings alone; it belongs on their sum with the positions.",
        changed(embed=before_positions),
        "x = dropout(embedding * sqrt(d_model) + positions).",
    )
    yield (
        "The dropout rate is not passed on to the layers.",
        created(
            lambda self, vocab_size, sizes: [
                setattr(part, "p", 0.0)
                for half in (self.encoder, self.decoder)
                for part in half.modules()
                if isinstance(part, nn.Dropout)
            ]
        ),
        "EncoderLayer(d_model, num_heads, d_ff, dropout), and DecoderLayer likewise.",
    )
    yield (
        "Dropout acts in evaluation mode too.",
        changed(
            embed=lambda self, ids, side: nn.functional.dropout(
                self.vectors(ids, side) + self.positions(self.vectors(ids, side), side),
                self.dropout.p,
            )
        ),
        "Use nn.Dropout, or F.dropout with training=self.training.",
    )

    def pads_in_place(self, ids, side):
        ids[ids == self.pad_id] = 1
        return Right.vectors(self, ids, side)

    yield (
        "The token ids are changed in place.",
        changed(vectors=pads_in_place),
        "Leave the ids as they are, and bar the padding with masks.",
    )


# ---- learning rate -------------------------------------------------------------------------

noam_learning_rate = Exercise(
    "transformer/noam_learning_rate",
    points=2,
    signature="noam_learning_rate(step, d_model, warmup_steps=4000)",
    returns=[Returned("learning rate", type=float)],
)


def millionths(rates):
    """Learning rates in millionths: as they are, a tolerance could swallow the smallest."""
    return torch.tensor([1e6 * rate for rate in rates], dtype=torch.float32)


@noam_learning_rate.case(
    "the paper's base model: d_model 512, warmup 4000",
    next_step="d_model ** -0.5 times the smaller of step ** -0.5 and step * warmup_steps ** -1.5.",
)
def _(rate, make):
    return {
        "rates in millionths at the steps 1, 100, 4000, 16000 and 100000": millionths(
            [rate(step, 512, 4000) for step in (1, 100, 4000, 16000, 100_000)]
        )
    }


@noam_learning_rate.case(
    "warmup_steps is 4000 unless told otherwise",
    weight=0.5,
    next_step="Give warmup_steps the default 4000.",
)
def _(rate, make):
    steps = make.integers(2, 12_000, 6).tolist()
    return {"rates in millionths": millionths([rate(step, 256) for step in steps])}


@noam_learning_rate.case(
    "other widths and other warmups",
    next_step="Use d_model and warmup_steps as they are given.",
)
def _(rate, make):
    drawn = zip(
        make.integers(2, 3000, 8).tolist(),
        make.integers(8, 1024, 8).tolist(),
        make.integers(10, 900, 8).tolist(),
        strict=True,
    )
    return {"rates in millionths": millionths([rate(*arguments) for arguments in drawn])}


@noam_learning_rate.case(
    "it rises in a straight line, then falls with the root of the step",
    next_step="Before the peak, twice the step is twice the rate; after it, four times the step is "
    "half the rate.",
)
def _(rate, make):
    warmup, early, late = (
        int(make.integers(low, high)) for low, high in ((200, 300), (20, 90), (310, 400))
    )
    return {
        "rate at twice the step, as a multiple, while it rises": float(
            rate(2 * early, 128, warmup) / rate(early, 128, warmup)
        ),
        "rate at four times the step, as a multiple, while it falls": float(
            rate(4 * late, 128, warmup) / rate(late, 128, warmup)
        ),
    }


@noam_learning_rate.case(
    "the peak is at step warmup_steps",
    next_step="The two terms are equal where step is warmup_steps. Steps count from 1: the first "
    "update has step 1.",
)
def _(rate, make):
    warmup = int(make.integers(20, 60))
    rates = millionths([rate(step, 64, warmup) for step in range(1, 4 * warmup)])
    return {
        "step with the largest rate, less warmup_steps": int(rates.argmax()) + 1 - warmup,
        "rates in millionths before the peak, at it and after it": rates[warmup - 2 : warmup + 1],
    }


@noam_learning_rate.case(
    "a warmup of one step, and a step that is a float",
    weight=0.5,
    next_step="Compute with step as it comes; a float such as 3.0 is a step too.",
)
def _(rate, make):
    step = int(make.integers(3, 500))
    return {
        "rates in millionths with a warmup of one step": millionths(
            [rate(1, 64, 1), rate(2, 64, 1)]
        ),
        "rates in millionths at a step that is a float": millionths(
            [rate(float(step), 96, 100), rate(1.0, 96, 100)]
        ),
    }


@noam_learning_rate.case(
    "steps below 1 are refused",
    weight=0.5,
    next_step="Begin with: if step < 1: raise ValueError(...). At step 0 the formula would divide "
    "by zero.",
)
def _(rate, make):
    return {
        "error at step 0": raises(rate, 0, 512, 4000),
        "error at step -3": raises(rate, -3, 512, 4000),
    }


@noam_learning_rate.case("another width and warmup", hidden=True)
def _(rate, make):
    steps = [1, 2, *make.integers(3, 200_000, 9).tolist()]
    return {"rates in millionths": millionths([rate(step, 768, 10_000) for step in steps])}


@noam_learning_rate.misconceptions
def _():
    """The schedule with one thing wrong at a time."""

    def schedule(
        width=lambda d_model: d_model**-0.5,
        fall=lambda step, warmup: step**-0.5,
        rise=lambda step, warmup: step * warmup**-1.5,
        choose=min,
        first=1,
        error=ValueError,
        warmup=lambda warmup: warmup,
    ):
        def rate(step, d_model, warmup_steps=4000):
            if step < 1 and error:
                raise error("step must be at least 1")
            step, warmup_steps = step + first - 1, warmup(warmup_steps)
            return width(d_model) * choose(fall(step, warmup_steps), rise(step, warmup_steps))

        return rate

    def refusing_zero_only(step, d_model, warmup_steps=4000):
        if step == 0:
            raise ValueError("step must be at least 1")
        return schedule(error=None)(step, d_model, warmup_steps)

    def treating_zero_as_one(step, d_model, warmup_steps=4000):
        return schedule(error=None)(max(step, 1), d_model, warmup_steps)

    yield (
        "The larger of the two terms is taken: the rate falls where it should rise, and then "
        "rises for ever.",
        schedule(choose=max),
        "Take min(step ** -0.5, step * warmup_steps ** -1.5).",
    )
    yield (
        "The two terms are added; only the smaller one counts.",
        schedule(choose=lambda fall, rise: fall + rise),
        "Take min(step ** -0.5, step * warmup_steps ** -1.5).",
    )
    yield (
        "The two terms are multiplied; only the smaller one counts.",
        schedule(choose=lambda fall, rise: fall * rise),
        "Take min(step ** -0.5, step * warmup_steps ** -1.5).",
    )
    for rise in (
        lambda step, warmup: step / warmup,
        lambda step, warmup: step * warmup**-0.5,
        lambda step, warmup: step * warmup**-1,
    ):
        yield (
            "The rising term has another power of warmup_steps than -1.5, so the two terms do not "
            "meet at step warmup_steps.",
            schedule(rise=rise),
            "step * warmup_steps ** -1.5: at step = warmup_steps that is warmup_steps ** -0.5, "
            "which is the falling term.",
        )
    yield (
        "The exponents of the two factors are swapped: step ** -1.5 times warmup_steps.",
        schedule(rise=lambda step, warmup: warmup * step**-1.5),
        "step stands there to the first power: step * warmup_steps ** -1.5.",
    )
    for width in (
        lambda d_model: d_model**0.5,
        lambda d_model: 1 / d_model,
        lambda d_model: 1.0,
    ):
        yield (
            "The width does not come in as d_model ** -0.5.",
            schedule(width=width),
            "Multiply by d_model ** -0.5: wider models take smaller steps.",
        )
    for rise in (lambda step, warmup: math.inf, lambda step, warmup: step * warmup**1.5):
        yield (
            "There is no warmup: the rate falls from the first step on.",
            schedule(rise=rise),
            "Take the smaller of this term and step * warmup_steps ** -1.5, with both minuses.",
        )
    yield (
        "The rate rises for ever: the falling term is missing.",
        schedule(choose=lambda fall, rise: rise),
        "Take the smaller of this term and step ** -0.5.",
    )
    yield (
        "After the warmup the rate stays where it is; it should fall with the root of the step.",
        schedule(fall=lambda step, warmup: warmup**-0.5),
        "The other term of the minimum is step ** -0.5.",
    )
    yield (
        "After the warmup the rate falls as 1/step; it should fall with the root of the step.",
        schedule(fall=lambda step, warmup: warmup**0.5 / step),
        "The other term of the minimum is step ** -0.5.",
    )
    yield (
        "After the warmup the rate falls in a straight line; it should fall with the root of the "
        "step.",
        schedule(fall=lambda step, warmup: max(0.0, warmup**-0.5 * (2 - step / warmup))),
        "The other term of the minimum is step ** -0.5.",
    )
    for first, error in ((2, ValueError), (2, None)):
        yield (
            "One is added to the step, as if steps counted from 0: the peak comes one step early.",
            schedule(first=first, error=error),
            "Use step as it is; it counts from 1.",
        )
    yield (
        "The warmup is always 4000 steps, whatever warmup_steps says.",
        schedule(warmup=lambda warmup: 4000),
        "Use warmup_steps.",
    )
    for careless in (schedule(error=None), refusing_zero_only, treating_zero_as_one):
        yield (
            "Steps below 1 are not refused with a ValueError.",
            careless,
            "Begin with: if step < 1: raise ValueError(...).",
        )


# ---- label smoothing -----------------------------------------------------------------------

label_smoothed_cross_entropy = Exercise(
    "transformer/label_smoothed_cross_entropy",
    points=3,
    signature="label_smoothed_cross_entropy(logits, targets, smoothing=0.1, pad_id=0)",
    returns=[Returned("loss", "()")],
    without=["cross_entropy"],
)


def labels(make, lengths, vocab, pad_id=0):
    """Targets of the given lengths: any word but pad_id, then padding up to the longest."""
    ids = make.integers(0, vocab - 1, len(lengths), max(lengths))
    ids = ids + (ids >= pad_id)
    ids[torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None]] = pad_id
    return make.watch(ids)


@label_smoothed_cross_entropy.case(
    "a worked example: one token, four words, smoothing 0.1",
    next_step="With probabilities 0.7, 0.1, 0.1, 0.1 and word 1 as the target it is "
    "-(0.025 ln 0.7 + 0.925 ln 0.1 + 0.025 ln 0.1 + 0.025 ln 0.1).",
)
def _(loss, make):
    logits = torch.tensor([[[0.7, 0.1, 0.1, 0.1]]]).log()
    return {
        "loss for word 1": loss(logits.clone(), torch.tensor([[1]]), 0.1),
        "loss for word 3": loss(logits + 2.0, torch.tensor([[3]]), 0.1),
    }


@label_smoothed_cross_entropy.case(
    "no padding",
    next_step="The mean over all tokens of -sum(q * log_softmax(logits)), where q is "
    "smoothing / vocab everywhere and 1 - smoothing more at the target.",
)
def _(loss, make):
    return {"loss": loss(make.normal(3, 5, 7), labels(make, [5, 5, 5], 7), 0.1)}


@label_smoothed_cross_entropy.case(
    "sentences of different lengths, padded",
    weight=2,
    next_step="Sum over the targets that are not pad_id, and divide by how many these are.",
)
def _(loss, make):
    return {"loss": loss(make.normal(3, 6, 8), labels(make, [6, 2, 3], 8), 0.1)}


@label_smoothed_cross_entropy.case(
    "no smoothing, and a lot of it",
    next_step="With smoothing 0 only the target counts, with 1 every word counts the same.",
)
def _(loss, make):
    logits, targets = make.normal(2, 4, 6, scale=2.0), labels(make, [4, 4], 6)
    return {
        f"loss with smoothing {smoothing}": loss(logits.clone(), targets.clone(), smoothing)
        for smoothing in (0.0, 0.4, 1.0)
    }


@label_smoothed_cross_entropy.case(
    "smoothing is 0.1 and pad_id 0 unless told otherwise",
    weight=0.5,
    next_step="Give the arguments the defaults smoothing=0.1 and pad_id=0, and use them.",
)
def _(loss, make):
    return {"loss": loss(make.normal(2, 5, 9, scale=2.0), labels(make, [5, 3], 9))}


@label_smoothed_cross_entropy.case(
    "another padding id, while 0 is a word",
    next_step="Compare the targets with pad_id, not with 0.",
)
def _(loss, make):
    targets = labels(make, [5, 3, 4], 6, pad_id=4)
    targets[:, 0] = 0
    return {"loss": loss(make.normal(3, 5, 6), targets, 0.1, 4)}


@label_smoothed_cross_entropy.case(
    "what stands at a padded position does not matter",
    weight=0.5,
    next_step="Leave these positions out of the sum: choose with the mask, or multiply by it "
    "before summing.",
)
def _(loss, make):
    logits, targets = make.normal(2, 5, 6), labels(make, [5, 2], 6)
    changed = torch.where((targets == 0)[..., None], 1000.0 * logits, logits)
    before = loss(logits, targets.clone(), 0.2)
    return {
        "loss": before,
        "change of the loss when the logits at padding change": (
            loss(changed, targets.clone(), 0.2) - before
        ).abs(),
    }


@label_smoothed_cross_entropy.case(
    "nothing but padding",
    weight=0.5,
    next_step="0/0 is NaN: divide by the number of real tokens, but at least by 1.",
)
def _(loss, make):
    logits = make.normal(2, 3, 5, grad=True)
    value = loss(logits, torch.zeros(2, 3, dtype=torch.int64), 0.1)
    unclear = torch.zeros(())
    if value.requires_grad:
        (gradient,) = torch.autograd.grad(value, logits, allow_unused=True)
        unclear = torch.zeros(()) if gradient is None else gradient.isnan().sum()
    return {"loss": value, "how many gradients are NaN": int(unclear)}


@label_smoothed_cross_entropy.case(
    "large logits",
    next_step="exp overflows: use torch.log_softmax, or subtract torch.logsumexp.",
)
def _(loss, make):
    targets = labels(make, [4, 3], 6)
    return {
        "loss, all logits near 1000": loss(
            make.normal(2, 4, 6, scale=3.0, shift=1000.0), targets.clone(), 0.1
        ),
        "loss, logits far apart": loss(make.normal(2, 4, 6, scale=90.0), targets.clone(), 0.1),
    }


@label_smoothed_cross_entropy.case("gradients, with padding")
def _(loss, make):
    logits = make.normal(3, 4, 6, grad=True)
    value = loss(logits, labels(make, [4, 1, 3], 6), 0.1)
    return make.gradients("loss", value.reshape(1), logits=logits)


@label_smoothed_cross_entropy.case(
    "float64 logits that are a view, left as they were",
    next_step="Stay in the dtype of the logits: a detour through float32 shows in float64.",
)
def _(loss, make):
    logits = make.normal(7, 4, 3, dtype=torch.float64)
    targets = make.watch(labels(make, [4, 2, 3], 7).T.contiguous())
    value = loss(logits.permute(2, 1, 0), targets.T, 0.1)
    return {"loss": value, "the inputs are unchanged": make.unchanged()}


@label_smoothed_cross_entropy.case(
    "a batch of one, one token",
    weight=0.5,
    next_step="Keep axes of length 1: no squeeze() without a dim.",
)
def _(loss, make):
    return {
        "loss": loss(make.normal(1, 1, 5), labels(make, [1], 5), 0.1),
        "loss of one sentence": loss(make.normal(1, 4, 5), labels(make, [4], 5), 0.1),
    }


@label_smoothed_cross_entropy.case(
    "bfloat16",
    weight=0.5,
    next_step="Let new tensors take the dtype of the logits: dtype=logits.dtype.",
)
def _(loss, make):
    # A loss in float32 is as good, for it is where training keeps its sums.
    value = loss(make.normal(2, 4, 6, dtype=torch.bfloat16), labels(make, [4, 3], 6), 0.1)
    return {"loss": value.to(torch.bfloat16)}


@label_smoothed_cross_entropy.case("a larger vocabulary and batch", hidden=True)
def _(loss, make):
    logits = make.normal(5, 9, 31, scale=3.0, grad=True)
    value = loss(logits, labels(make, [9, 1, 4, 7, 2], 31, pad_id=3), 0.25, 3)
    return {"loss": value, **make.gradients("loss", value.reshape(1), logits=logits)}


@label_smoothed_cross_entropy.misconceptions
def _():
    """The loss with one thing wrong at a time."""

    def hot(targets, vocab, dtype):
        return (targets[..., None] == torch.arange(vocab)).to(dtype)

    def standard(target, smoothing, pad_id):
        return (1 - smoothing) * target + smoothing / target.size(-1)

    def over_real(losses, real):
        return (losses * real).sum() / real.sum().clamp(min=1)

    def loss_of(
        distribution=standard,
        log=lambda logits: torch.log_softmax(logits, dim=-1),
        mean=over_real,
        real=lambda targets, pad_id: targets != pad_id,
        each=lambda q, log_p: -(q * log_p).sum(dim=-1),
    ):
        def loss(logits, targets, smoothing=0.1, pad_id=0):
            target = hot(targets, logits.size(-1), logits.dtype)
            q = distribution(target, smoothing, pad_id)
            return mean(each(q, log(logits)), real(targets, pad_id))

        return loss

    def without_padding_class(with_target):
        def distribution(target, smoothing, pad_id):
            vocab = target.size(-1)
            others = torch.ones_like(target) if with_target else 1 - target
            others[..., pad_id] = 0.0
            return (1 - smoothing) * target + smoothing * others / (vocab - 2 + with_target)

        return distribution

    def unsafe_exponentials(logits):
        powers = torch.exp(logits)
        return torch.log(powers / powers.sum(dim=-1, keepdim=True))

    def minus_entropy(q, log_p):
        return (torch.special.xlogy(q, q) - q * log_p).sum(dim=-1)

    def sentence_by_sentence(lowest, over):
        def mean(losses, real):
            per_sentence = (losses * real).sum(dim=1) / real.sum(dim=1).clamp(min=lowest)
            return per_sentence.sum() / over(real)

        return mean

    def smoothed_prediction(logits, targets, smoothing=0.1, pad_id=0):
        p = torch.softmax(logits, dim=-1)
        p = (1 - smoothing) * p + smoothing / logits.size(-1)
        real = targets != pad_id
        return over_real(-p.gather(-1, targets[..., None])[..., 0].log(), real)

    def epsilon_in_the_logarithm(tiny):
        return lambda logits: torch.log(torch.softmax(logits, dim=-1) + tiny)

    for share in (
        lambda target, vocab: (1 - target) / (vocab - 1),
        lambda target, vocab: (1 - target) / vocab,
    ):
        yield (
            "The smoothing is spread over the other words only, and the target keeps exactly "
            "1 - smoothing; it should be spread over all words, the target included.",
            loss_of(
                lambda target, smoothing, pad_id, share=share: (
                    (1 - smoothing) * target + smoothing * share(target, target.size(-1))
                )
            ),
            "Give every word smoothing / vocab, and the target 1 - smoothing on top of it.",
        )
    yield (
        "The target keeps its whole 1 and the smoothing is added on top, so the target "
        "distribution sums to more than 1.",
        loss_of(lambda target, smoothing, pad_id: target + smoothing / target.size(-1)),
        "Multiply the one-hot distribution by 1 - smoothing before you add smoothing / vocab.",
    )
    yield (
        "Every word gets the whole smoothing instead of its share, smoothing / vocab.",
        loss_of(lambda target, smoothing, pad_id: (1 - smoothing) * target + smoothing),
        "Divide the smoothing by the number of words.",
    )
    for with_target in (True, False):
        yield (
            "The padding word is left out of the smoothing, as some tutorials do; here it is "
            "spread over all words of the vocabulary.",
            loss_of(without_padding_class(with_target)),
            "Give every word smoothing / vocab. Padding matters only among the targets.",
        )
    yield (
        "The smoothing is ignored: this is the plain cross-entropy.",
        loss_of(lambda target, smoothing, pad_id: target),
        "Mix the one-hot distribution with the uniform one: (1 - smoothing) and smoothing.",
    )
    yield (
        "The smoothing is always 0.1, whatever the argument says.",
        loss_of(lambda target, smoothing, pad_id: standard(target, 0.1, pad_id)),
        "Use smoothing as it is given.",
    )
    yield (
        "The two parts are swapped: the target gets the smoothing and the uniform part the rest.",
        loss_of(lambda target, smoothing, pad_id: standard(target, 1 - smoothing, pad_id)),
        "(1 - smoothing) * one_hot + smoothing / vocab.",
    )
    yield (
        "The model's probabilities are smoothed, not the target distribution.",
        smoothed_prediction,
        "Leave log_softmax(logits) as it is, and weigh it with the smoothed targets.",
    )
    yield (
        "Padding counts like any other target.",
        loss_of(real=lambda targets, pad_id: torch.ones_like(targets, dtype=torch.bool)),
        "Leave the positions out whose target is pad_id, in the sum and in the number.",
    )
    yield (
        "Padding adds nothing to the sum, but its positions still count in the mean.",
        loss_of(mean=lambda losses, real: (losses * real).mean()),
        "Divide by the number of targets that are not pad_id.",
    )
    yield (
        "Padding is taken to be 0, whatever pad_id says.",
        loss_of(real=lambda targets, pad_id: targets != 0),
        "Compare the targets with pad_id.",
    )
    yield (
        "It is the sum over the tokens, not their mean.",
        loss_of(mean=lambda losses, real: (losses * real).sum()),
        "Divide by the number of targets that are not pad_id.",
    )
    for lowest, over in ((1, lambda real: real.size(0)), (0, lambda real: real.size(0))):
        yield (
            "The mean is taken sentence by sentence first, so a token of a short sentence weighs "
            "more than one of a long sentence.",
            loss_of(mean=sentence_by_sentence(lowest, over)),
            "Sum over all real tokens of the batch, then divide once by their number.",
        )
    yield (
        "The sum is divided by the number of sentences, not by that of the tokens.",
        loss_of(mean=lambda losses, real: (losses * real).sum() / real.size(0)),
        "Divide by the number of targets that are not pad_id.",
    )
    yield (
        "The mean runs over the vocabulary too, so the loss is too small by a factor vocab.",
        loss_of(each=lambda q, log_p: -(q * log_p).mean(dim=-1)),
        "Sum over the vocabulary; take the mean over the tokens only.",
    )
    for mean in (
        lambda losses, real: (losses * real).sum() / real.sum(),
        lambda losses, real: losses[real].mean(),
    ):
        yield (
            "A batch of nothing but padding gives NaN; its loss is 0.",
            loss_of(mean=mean),
            "Divide by the number of real tokens, but at least by 1: real.sum().clamp(min=1).",
        )
    yield (
        "The logarithm has base 2; the cross-entropy is in nats.",
        loss_of(log=lambda logits: torch.log_softmax(logits, dim=-1) / math.log(2)),
        "Use the natural logarithm, as torch.log_softmax does.",
    )
    yield (
        "The softmax is taken twice: the log-softmax of what are probabilities already.",
        loss_of(log=lambda logits: torch.log_softmax(torch.softmax(logits, dim=-1), dim=-1)),
        "Apply log_softmax to the logits themselves, once.",
    )
    yield (
        "The logits are taken for log-probabilities; they are never normalized.",
        loss_of(log=lambda logits: logits),
        "Apply torch.log_softmax over the vocabulary first.",
    )
    for dim in (0, 1):
        yield (
            "The softmax does not run over the vocabulary, the last axis.",
            loss_of(log=lambda logits, dim=dim: torch.log_softmax(logits, dim=dim)),
            "torch.log_softmax(logits, dim=-1).",
        )
    for log in (
        unsafe_exponentials,
        lambda logits: logits - torch.exp(logits).sum(dim=-1, keepdim=True).log(),
    ):
        yield (
            "The logits are exponentiated as they are, so large ones overflow.",
            loss_of(log=log),
            "Use torch.log_softmax, or subtract torch.logsumexp.",
        )
    for log in (
        lambda logits: torch.log(torch.softmax(logits, dim=-1)),
        *(epsilon_in_the_logarithm(tiny) for tiny in (1e-9, 1e-8, 1e-12, 1e-10)),
    ):
        yield (
            "The logarithm is taken of the finished softmax: a small probability has become 0 by "
            "then, and its logarithm is minus infinity or that of a small constant.",
            loss_of(log=log),
            "Use torch.log_softmax, which never leaves the logarithms.",
        )
    yield (
        "This is the Kullback-Leibler divergence: the entropy of the target distribution is "
        "subtracted.",
        loss_of(each=minus_entropy),
        "Leave q * log q out. The gradient is the same, but the number is not the cross-entropy.",
    )
    yield (
        "The sign is missing: a log-probability is negative, a loss is not.",
        loss_of(each=lambda q, log_p: (q * log_p).sum(dim=-1)),
        "Put a minus before the sum.",
    )


# ---- greedy decoding -----------------------------------------------------------------------

greedy_decode = Exercise(
    "transformer/greedy_decode",
    points=3,
    signature="greedy_decode(model, source, bos_id, eos_id, max_length, pad_id=0)",
    returns=[Returned("token ids", "(batch, L)")],
)


def fractions(text, count):
    """Numbers in [0, 1) that follow from a text alone, on every machine the same."""
    stream = hashlib.shake_256(text.encode()).digest(8 * count)
    return [int.from_bytes(stream[8 * i : 8 * i + 8], "little") / 2.0**64 for i in range(count)]


def described(value):
    """What a fake was given, in words."""
    if not isinstance(value, Tensor):
        return f"an object of type {type(value).__name__}"
    dtype = str(value.dtype).removeprefix("torch.")
    return f"a tensor of dtype {dtype} and shape {tuple(value.shape)}"


class TableModel(nn.Module):
    """A model to decode with, whose every logit is looked up in a table.

    The logits at a position follow from the source sequence and all target tokens up to there,
    as in a decoder with a causal mask. No two of them are near each other. It notes how it is
    used.

    Args:
        make: draws the table.
        source: the sequences that it knows.
        plan: for each of them, which token is the best after how many target tokens, bos_id
            included. Where nothing is planned it is any but a special one.
        special: ids that are the best only where planned, eos_id first.
        vocab: number of ids.
    """

    def __init__(self, make, source, plan, special=(2, 0, 1), vocab=12):
        super().__init__()
        self.salt = int(make.integers(0, 2**31))
        self.plan = dict(zip(map(tuple, source.tolist()), plan, strict=True))
        self.special, self.vocab = special, vocab
        self.one = nn.Parameter(torch.ones(()))  # through which a gradient would flow
        self.encoded, self.decoded, self.late = [], 0, 0
        self.recording = {"encoding": False, "decoding": False}

    def encode(self, source):
        """Token ids (batch, L_s) -> memory (batch, L_s, 4), in which they can be recognized."""
        self._check("source", source)
        self.recording["encoding"] |= torch.is_grad_enabled()
        self.encoded.append(source.size(0))
        return source[..., None] * self.one * torch.tensor([1.0, 0.5, -1.0, 2.0])

    def decode(self, target, memory, source):
        """Logits (batch, L_t, vocab)."""
        self._check("target", target)
        self._check("source", source)
        self.recording["decoding"] |= torch.is_grad_enabled()
        if target.size(0) != source.size(0):
            raise Complaint(
                "arguments",
                f"decode got {target.size(0)} target and {source.size(0)} source sequences.",
                "Give it one target for each source sequence: begin with bos_id of shape "
                "(batch, 1).",
            )
        fits = isinstance(memory, Tensor) and memory.shape == (*source.shape, 4)
        if not (fits and torch.equal(memory[..., 0].detach().round().long(), source.long())):
            raise Complaint(
                "arguments",
                "decode got a memory that encode did not make of the source beside it.",
                "Call model.decode(target, memory, source) with memory = model.encode(source), "
                "and the same sequences in all three.",
            )
        self.decoded += 1
        if self.decoded > 400:
            raise Complaint(
                "calls",
                "It called decode more than 400 times for a few short sequences.",
                "Stop after max_length tokens.",
            )
        rows = target.tolist()
        self.late += all(self.special[0] in row[1:] for row in rows)
        table = [
            [self._logits(tuple(known), row[: at + 1]) for at in range(len(row))]
            for known, row in zip(source.tolist(), rows, strict=True)
        ]
        return torch.tensor(table) * self.one

    def forward(self, source, target):
        """As the Transformer's: logits of a whole target."""
        return self.decode(target, self.encode(source), source)

    def _logits(self, source, prefix):
        """Ranks, three quarters apart: the best token is never in doubt."""
        values = fractions(f"{self.salt} {source} {prefix}", self.vocab)
        for place, token in enumerate(self.special):
            values[token] = -1.0 - place
        planned = self.plan.get(source, {}).get(len(prefix))
        if planned is not None:
            values[planned] = 1.0
        order = sorted(values)
        return [0.75 * order.index(value) - 3.0 for value in values]

    def _check(self, name, ids):
        if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.is_floating_point():
            raise Complaint(
                "arguments",
                f"The model got {described(ids)} as {name}; it takes token ids of shape "
                "(batch, length).",
                "Keep both axes, with a batch of one too, and the ids as int64.",
            )
        if 0 in ids.shape:
            raise Complaint(
                "arguments",
                f"The model got a {name} without tokens, of shape {tuple(ids.shape)}.",
                "Let every target begin with bos_id, before the first call of decode.",
            )
        if not bool(((ids >= 0) & (ids < self.vocab)).all()):
            raise Complaint(
                "arguments",
                f"The {name} has ids from {int(ids.min())} to {int(ids.max())}; the model knows "
                f"0 to {self.vocab - 1}.",
                "Take the argmax over the last axis of the logits, the vocabulary.",
            )


def ending(*lengths, eos_id=2):
    """A plan: each sequence has so many tokens, eos_id included; None: it never ends."""
    return [{} if length is None else {length: eos_id} for length in lengths]


def sentences(make, batch, length, low=3, high=12):
    """Source sequences, no two alike."""
    ids = make.integers(low, high, batch, length).clone()
    ids[:, 0] = low + torch.arange(batch)
    return make.watch(ids)


@greedy_decode.case(
    "one sentence",
    next_step="Begin with bos_id. Decode, take the argmax of the logits at the last position, "
    "append it, and decode again, until it is eos_id.",
)
def _(greedy, make):
    source = sentences(make, 1, 5)
    return {"token ids": greedy(TableModel(make, source, ending(5)), source, 1, 2, 9)}


@greedy_decode.case(
    "three sentences that end at different times",
    weight=2,
    next_step="Go on until every sequence has had its eos_id. What comes after a sequence's own "
    "eos_id is pad_id.",
)
def _(greedy, make):
    source = sentences(make, 3, 4)
    return {"token ids": greedy(TableModel(make, source, ending(3, 6, 2)), source, 1, 2, 10)}


@greedy_decode.case(
    "max_length tokens at most",
    next_step="max_length counts the tokens that are returned: bos_id does not count, eos_id does.",
)
def _(greedy, make):
    source = sentences(make, 3, 4)
    model = TableModel(make, source, ending(None, 3, None))
    return {
        "token ids, max_length 5": greedy(model, source.clone(), 1, 2, 5),
        "token ids, max_length 3": greedy(model, source.clone(), 1, 2, 3),
        "token ids, max_length 1": greedy(model, source.clone(), 1, 2, 1),
    }


@greedy_decode.case(
    "sentences that end at once",
    next_step="eos_id may be the first token: it is returned, and the rest is pad_id.",
)
def _(greedy, make):
    source = sentences(make, 2, 3)
    return {
        "token ids, both at once": greedy(
            TableModel(make, source, ending(1, 1)), source.clone(), 1, 2, 6
        ),
        "token ids, one of them": greedy(
            TableModel(make, source, ending(1, 4)), source.clone(), 1, 2, 6
        ),
    }


@greedy_decode.case(
    "another padding id, while 0 is a word",
    next_step="Fill with pad_id, and with nothing else.",
)
def _(greedy, make):
    source = sentences(make, 3, 4, high=11)
    plan = [{1: 0, 3: 2}, {2: 0, 5: 2}, {1: 2}]
    model = TableModel(make, source, plan, special=(2, 11, 1))
    return {"token ids": greedy(model, source, 1, 2, 8, 11)}


@greedy_decode.case(
    "other ids for the beginning and the end",
    next_step="Use bos_id and eos_id as they are given; 1 and 2 may be words.",
)
def _(greedy, make):
    source = sentences(make, 3, 4, low=1, high=8)
    plan = [{2: 2, 4: 9}, {1: 1, 6: 9}, {1: 2, 2: 9}]
    model = TableModel(make, source, plan, special=(9, 0, 8))
    return {"token ids": greedy(model, source, 8, 9, 9)}


@greedy_decode.case(
    "pad_id or bos_id among the predictions",
    weight=0.5,
    next_step="Only eos_id ends a sequence. An untrained model may predict any id, and what it "
    "predicts before eos_id stays.",
)
def _(greedy, make):
    source = sentences(make, 2, 4)
    plan = [{2: 0, 5: 2}, {1: 1, 3: 0, 4: 2}]
    return {"token ids": greedy(TableModel(make, source, plan), source, 1, 2, 8)}


@greedy_decode.case(
    "the source is encoded once",
    weight=0.5,
    next_step="Call model.encode(source) before the loop, for the whole batch, and use the memory "
    "in every step.",
)
def _(greedy, make):
    source = sentences(make, 3, 4)
    model = TableModel(make, source, ending(4, 2, 5))
    greedy(model, source, 1, 2, 8)
    return {
        "times encode was called": len(model.encoded),
        "sequences that the first call encoded": model.encoded[0] if model.encoded else 0,
    }


@greedy_decode.case(
    "it stops when every sequence has ended",
    weight=0.5,
    next_step="Keep one flag for each sequence, and leave the loop when all are set: each further "
    "call of decode is for nothing.",
)
def _(greedy, make):
    source = sentences(make, 3, 4)
    model = TableModel(make, source, ending(4, 2, 3))
    ids = greedy(model, source, 1, 2, 12)
    return {"length": ids.size(-1), "calls of decode after every sequence had ended": model.late}


@greedy_decode.case(
    "no gradient is recorded",
    weight=0.5,
    next_step="Write @torch.no_grad() above the function, or with torch.no_grad(): around encode "
    "and the loop. It ends with the function.",
)
def _(greedy, make):
    source = sentences(make, 2, 4)
    model = TableModel(make, source, ending(3, 4))
    greedy(model, source, 1, 2, 8)
    return {
        "gradients were recorded while encoding": model.recording["encoding"],
        "gradients were recorded while decoding": model.recording["decoding"],
        "gradients can be recorded afterwards": torch.is_grad_enabled(),
    }


@greedy_decode.case(
    "longer sentences, padded, left as they were",
    next_step="Each step reads all the tokens so far, and the source stays as it is.",
)
def _(greedy, make):
    source = sentences(make, 4, 9).clone()
    source[1, 6:], source[2, 4:], source[3, 1:] = 0, 0, 0
    make.watch(source)
    model = TableModel(make, source, ending(17, 11, None, 14))
    return {
        "token ids": greedy(model, source, 1, 2, 20),
        "the input is unchanged": make.unchanged(),
    }


@greedy_decode.case("another batch, vocabulary and ids", hidden=True)
def _(greedy, make):
    source = sentences(make, 5, 6, high=20)
    plan = ending(7, 4, 1, None, 12, eos_id=21)
    model = TableModel(make, source, plan, special=(21, 20, 0), vocab=24)
    return {"token ids": greedy(model, source, 0, 21, 15, 20)}


@greedy_decode.misconceptions
def _():
    """Greedy decoding with one thing wrong at a time."""

    def decoder(
        first=lambda bos_id, eos_id, pad_id: bos_id,
        feed=lambda target: target,
        choose=lambda logits: logits[:, -1].argmax(dim=-1),
        fill=lambda token, eos_id, pad_id: pad_id,
        is_end=lambda token, eos_id, pad_id: token == eos_id,
        enough=lambda ended, ends_now: bool(ended.all()),
        steps=lambda max_length: max_length,
        memory_of=lambda model, source, memory: memory,
        finish=lambda target, eos_id, pad_id: target[:, 1:],
        guard=torch.no_grad,
        once=True,
    ):
        def greedy(model, source, bos_id, eos_id, max_length, pad_id=0):
            with guard():
                memory = model.encode(source) if once else None
                batch = source.size(0)
                target = torch.full((batch, 1), first(bos_id, eos_id, pad_id))
                ended = torch.zeros(batch, dtype=torch.bool)
                for _ in range(steps(max_length)):
                    logits = model.decode(feed(target), memory_of(model, source, memory), source)
                    token = choose(logits)
                    filled = fill(token, eos_id, pad_id)
                    token = torch.where(ended, filled, token)
                    target = torch.cat([target, token[:, None]], dim=1)
                    ends_now = is_end(token, eos_id, pad_id)
                    ended = ended | ends_now
                    if enough(ended, ends_now):
                        break
                return finish(target, eos_id, pad_id)

        return greedy

    def without_end(target, eos_id, pad_id):
        kept = target[:, 1:]
        return kept.masked_fill(kept == eos_id, pad_id)

    def shorter_without_end(target, eos_id, pad_id):
        kept = without_end(target, eos_id, pad_id)
        return kept[:, : int((kept != pad_id).any(dim=0).sum())]

    def cut(target, eos_id, pad_id):
        ids = target[:, 1:]
        after = (ids == eos_id).cumsum(dim=1) - (ids == eos_id).int()
        lengths = (after == 0).sum(dim=1)
        return ids[:, : int(lengths.max())]

    def sample(logits):
        return torch.multinomial(torch.softmax(logits[:, -1], dim=-1), 1)[:, 0]

    def one_by_one(model, source, bos_id, eos_id, max_length, pad_id=0):
        rows = [
            decoder()(model, sentence[None], bos_id, eos_id, max_length, pad_id)[0]
            for sentence in source
        ]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad_id)

    def fixed_ids(bos, eos):
        def greedy(model, source, bos_id, eos_id, max_length, pad_id=0):
            return decoder()(
                model,
                source,
                bos_id if bos is None else bos,
                eos_id if eos is None else eos,
                max_length,
                pad_id,
            )

        return greedy

    def encoded_outside(model, source, bos_id, eos_id, max_length, pad_id=0):
        memory = model.encode(source)
        loop = decoder(once=False, memory_of=lambda *_: memory)
        return loop(model, source, bos_id, eos_id, max_length, pad_id)

    class SwitchedOff:
        """Gradients are switched off, and never on again."""

        def __enter__(self):
            torch.set_grad_enabled(False)

        def __exit__(self, *error):
            pass

    yield (
        "The result begins with bos_id, which the model did not produce.",
        decoder(finish=lambda target, eos_id, pad_id: target),
        "Return target[:, 1:].",
    )
    for finish in (
        without_end,
        shorter_without_end,
    ):
        yield (
            "The eos_id at the end is left out; it belongs to the result.",
            decoder(finish=finish),
            "Append the token first, then ask whether it is eos_id.",
        )
    yield (
        "The last token is missing: the loop ends before it is appended.",
        decoder(finish=lambda target, eos_id, pad_id: target[:, 1:-1]),
        "Append the token first, then ask whether every sequence has ended.",
    )
    for enough in (
        lambda ended, ends_now: bool(ended.all()),
        lambda ended, ends_now: bool(ends_now.all()),
        lambda ended, ends_now: False,
    ):
        yield (
            "A sequence that has ended goes on with what the model predicts after its eos_id.",
            decoder(fill=lambda token, eos_id, pad_id: token, enough=enough),
            "Keep one flag for each sequence, and append pad_id where it is set.",
        )
    yield (
        "It stops only when all sequences predict eos_id in the same step.",
        decoder(enough=lambda ended, ends_now: bool(ends_now.all())),
        "Keep one flag for each sequence, set it at its eos_id, and stop when all are set.",
    )
    yield (
        "A sequence that has ended is filled with eos_id, not with pad_id.",
        decoder(fill=lambda token, eos_id, pad_id: torch.full_like(token, eos_id)),
        "Append pad_id where the sequence has ended before.",
    )
    yield (
        "A sequence that has ended is filled with 0, whatever pad_id says.",
        decoder(fill=lambda token, eos_id, pad_id: torch.zeros_like(token)),
        "Append pad_id where the sequence has ended before.",
    )
    for is_end in (
        lambda token, eos_id, pad_id: (token == eos_id) | (token == pad_id),
        lambda token, eos_id, pad_id: (token == eos_id) | (token == 0),
    ):
        yield (
            "A predicted pad_id ends a sequence; only eos_id does.",
            decoder(is_end=is_end),
            "Set a sequence's flag where the token is eos_id, and keep it set.",
        )
    yield (
        "It stops as soon as one sequence has ended; the others are cut off.",
        decoder(enough=lambda ended, ends_now: bool(ended.any())),
        "Stop when all have ended: ended.all().",
    )
    yield (
        "It stops when the first sequence of the batch has ended; the others are cut off.",
        decoder(enough=lambda ended, ends_now: bool(ended[0])),
        "Stop when all have ended: ended.all().",
    )
    yield (
        "It goes on to max_length although every sequence has ended.",
        decoder(enough=lambda ended, ends_now: False),
        "Leave the loop when ended.all(): the result is as long as the longest sequence.",
    )
    yield (
        "It goes on to max_length although every sequence has ended, and cuts the result then.",
        decoder(enough=lambda ended, ends_now: False, finish=cut),
        "Leave the loop when ended.all(): the calls of decode after that are for nothing.",
    )
    yield (
        "It generates max_length - 1 tokens at most: bos_id is counted.",
        decoder(steps=lambda max_length: max_length - 1),
        "max_length counts the tokens that are returned, and bos_id is none of them.",
    )
    yield (
        "It generates up to max_length + 1 tokens.",
        decoder(steps=lambda max_length: max_length + 1),
        "Let the loop run max_length times at most.",
    )
    for feed in (
        lambda target: target[:, -1:],
        lambda target: target[:, -2:],
    ):
        yield (
            "The decoder is given the last token only, not all tokens so far.",
            decoder(feed=feed),
            "Pass the whole target to decode: it keeps nothing from one call to the next.",
        )
    yield (
        "The first position's logits are read; the next token is predicted at the last one.",
        decoder(choose=lambda logits: logits[:, 0].argmax(dim=-1)),
        "Read logits[:, -1].",
    )
    yield (
        "The last position but one is read; the next token is predicted at the last one.",
        decoder(choose=lambda logits: logits[:, max(logits.size(1) - 2, 0)].argmax(dim=-1)),
        "Read logits[:, -1].",
    )
    yield (
        "The argmax runs over the positions, not over the vocabulary.",
        decoder(choose=lambda logits: logits.argmax(dim=1)[:, -1]),
        "logits[:, -1].argmax(dim=-1): the vocabulary is the last axis.",
    )
    yield (
        "The smallest logit is chosen, not the largest.",
        decoder(choose=lambda logits: logits[:, -1].argmin(dim=-1)),
        "Use argmax.",
    )
    yield (
        "The next token is drawn at random; greedy decoding takes the most probable one.",
        decoder(choose=sample),
        "Use argmax over the vocabulary instead of drawing.",
    )
    for first in (
        lambda bos_id, eos_id, pad_id: pad_id,
        lambda bos_id, eos_id, pad_id: eos_id,
        lambda bos_id, eos_id, pad_id: 0,
    ):
        yield (
            "The targets do not begin with bos_id.",
            decoder(first=first),
            "Start from torch.full((batch, 1), bos_id), on the device of the source.",
        )
    for bos, eos in ((1, 2), (1, None), (None, 2)):
        yield (
            "The ids 1 and 2 are built in; bos_id and eos_id are arguments.",
            fixed_ids(bos, eos),
            "Use bos_id to begin, and compare with eos_id.",
        )
    yield (
        "The source is encoded again in every step, although the memory never changes.",
        decoder(memory_of=lambda model, source, memory: model.encode(source), once=False),
        "Call model.encode(source) once, before the loop.",
    )
    yield (
        "The sentences are encoded one by one; the batch should be encoded in one call.",
        one_by_one,
        "Call model.encode(source) once, with the whole batch.",
    )
    yield (
        "Gradients are recorded, which costs memory in every step and is of no use here.",
        decoder(guard=torch.enable_grad),
        "Write @torch.no_grad() above the function.",
    )
    yield (
        "Gradients are switched off and stay off: nothing can be trained afterwards.",
        decoder(guard=SwitchedOff),
        "Use torch.no_grad() as a decorator or in a with statement; both switch back.",
    )
    yield (
        "The encoder runs outside torch.no_grad(): its gradients are recorded.",
        encoded_outside,
        "Guard the encoder too: write @torch.no_grad() above the function.",
    )


# ---- beam search ---------------------------------------------------------------------------

beam_search = Exercise(
    "transformer/beam_search",
    points=5,
    signature="beam_search(next_log_probs, bos_id, eos_id, beam_size, max_length, "
    "length_penalty=0.6)",
    returns=[Returned("token ids", type=list), Returned("score", type=float)],
)


class Tree:
    """A table of next-token log-probabilities, drawn or written down.

    ``branches`` maps the tokens after bos_id, written as letters, to the probabilities of what
    may follow; ``"E"`` is eos_id. Tokens that are not named share what is left, unevenly, or are
    impossible where the names end in ``"!"``. Whatever is not in ``branches`` is drawn: near
    evenly, or with some tokens far more probable than others (``sharp``), and the end becomes
    more probable with each token (``ending``). Which id a letter stands for is drawn too.
    """

    def __init__(
        self, make, branches=(), letters="abcd", sharp=1.0, ending=1.0, dtype=torch.float64
    ):
        self.salt = int(make.integers(0, 2**31))
        self.branches, self.dtype = dict(branches), dtype
        self.sharp, self.ending = sharp, ending
        self.letters = [*letters, "E", "bos"]
        order = fractions(f"{self.salt} ids", len(self.letters))
        self.id_of = {
            letter: sorted(order).index(value)
            for letter, value in zip(self.letters, order, strict=True)
        }
        self.letter_of = {id_: letter for letter, id_ in self.id_of.items()}
        self.bos_id, self.eos_id = self.id_of["bos"], self.id_of["E"]
        self.asked = []

    def __call__(self, prefixes):
        """Log-probabilities (n, vocab) of what follows each of the prefixes (n, length)."""
        self._check(prefixes)
        rows = prefixes.tolist()
        self.asked += rows
        if len(self.asked) > 5000:
            raise Complaint(
                "calls",
                "It asked for what follows more than 5000 prefixes.",
                "Keep beam_size hypotheses in each step, and stop after max_length tokens.",
            )
        return torch.tensor([self._row(row) for row in rows], dtype=torch.float64).to(self.dtype)

    def impossible(self):
        """How many of the prefixes that were asked for have probability 0."""
        return sum(
            any(
                math.isinf(self._row(row[:at])[row[at]])
                for at in range(1, len(row))
                if row[0] == self.bos_id
            )
            for row in self.asked
        )

    def search(self, beam, beam_size, max_length, *length_penalty, name=""):
        """What the component finds in this table, as named outputs."""
        tokens, score = beam(self, self.bos_id, self.eos_id, beam_size, max_length, *length_penalty)
        return {f"token ids{name}": tokens, f"score{name}": float(score)}

    def _row(self, row):
        text = "".join(self.letter_of[id_] for id_ in row[1:])
        drawn = fractions(f"{self.salt} {row}", len(self.letters))
        known = self.branches.get(text) if row[0] == self.bos_id else None
        if known is None:
            weights = {
                letter: math.exp(self.sharp * value)
                for letter, value in zip(self.letters, drawn, strict=True)
            }
            weights["E"] *= self.ending * len(row)
        else:
            # Each probability moves by a hundredth at most, so what was meant still holds.
            weights = {
                letter: (0.99 + 0.01 * drawn[self.letters.index(letter)]) * share
                for letter, share in known.items()
                if letter != "!"
            }
            rest = 1.0 - sum(weights.values())
            others = [letter for letter in self.letters if letter not in weights]
            shares = [0.0 if "!" in known else 1.0 + drawn[self.letters.index(o)] for o in others]
            weights |= {
                letter: rest * share / (sum(shares) or 1.0)
                for letter, share in zip(others, shares, strict=True)
            }
        total = sum(weights.values()) or 1.0
        chances = {self.id_of[letter]: weight / total for letter, weight in weights.items()}
        return [
            math.log(chances[id_]) if chances[id_] else -math.inf for id_ in range(len(chances))
        ]

    def _check(self, prefixes):
        if (
            not isinstance(prefixes, Tensor)
            or prefixes.ndim != 2
            or prefixes.is_floating_point()
            or 0 in prefixes.shape
        ):
            raise Complaint(
                "arguments",
                f"next_log_probs got {described(prefixes)}; it takes a tensor of dtype int64 and "
                "shape (n, length), neither of them 0.",
                "Make it with torch.tensor([...]): one row for each hypothesis that lives, and "
                "each begins with bos_id. Stop when none lives.",
            )
        if not bool(((prefixes >= 0) & (prefixes < len(self.letters))).all()):
            raise Complaint(
                "arguments",
                f"A prefix has ids from {int(prefixes.min())} to {int(prefixes.max())}; the "
                f"vocabulary ends at {len(self.letters) - 1}.",
                "An index into the flattened (n, vocab) scores is row * vocab + token: take "
                "it apart with // and %.",
            )


DETOUR = {
    "": {"a": 0.70, "b": 0.20},
    "a": {"c": 0.22, "d": 0.18, "E": 0.12},
    "b": {"E": 0.95},
}
EARLY_END = {
    "": {"a": 0.38, "b": 0.50},
    "a": {"E": 0.80},
    "b": {"c": 0.92},
    "bc": {"d": 0.85, "E": 0.10},
    "bcd": {"E": 0.90},
}
SIBLINGS = {
    "": {"a": 0.60, "b": 0.30},
    "a": {"c": 0.45, "d": 0.40},
    "b": {"c": 0.40, "E": 0.05},
    "ac": {"a": 0.25, "b": 0.20, "E": 0.15},
    "ad": {"E": 0.92},
    "bc": {"E": 0.90},
}
AFTER_AN_END = {
    "": {"a": 0.75, "E": 0.15},
    "a": {"c": 0.45, "d": 0.40},
    "ac": {"a": 0.25, "b": 0.22, "E": 0.12},
    "ad": {"E": 0.95},
}
UNDER_WAY = {
    "": {"a": 0.60, "b": 0.30},
    "a": {"c": 0.85},
    "b": {"E": 0.90},
    "ac": {"d": 0.85},
    "acd": {"a": 0.60, "b": 0.30},
}
ENDED_IN_TIME = {
    "": {"a": 0.50, "b": 0.45},
    "a": {"E": 0.70},
    "b": {"c": 0.70},
    "bc": {"d": 0.85},
}
AT_ONCE = {"": {"E": 0.80, "a": 0.10}}
SHORT_OR_LONG = {
    "": {"a": 0.46, "b": 0.40},
    "a": {"E": 0.90},
    "b": {"c": 0.95},
    "bc": {"d": 0.95},
    "bcd": {"E": 0.95},
}
# After the end of one hypothesis: the third best of the first step is not taken in its place …
CROWDED_OUT = {
    "": {"E": 0.40, "a": 0.34, "b": 0.22},
    "a": {"c": 0.25, "d": 0.22, "E": 0.18},
    "b": {"c": 0.96},
    "bc": {"d": 0.96},
    "bcd": {"E": 0.96},
}
# … and what has ended takes no place of those that live on.
ROOM = {
    "": {"a": 0.52, "E": 0.42},
    "a": {"c": 0.47, "d": 0.43},
    "ac": {"a": 0.25, "b": 0.22, "E": 0.15},
    "ad": {"b": 0.97},
    "adb": {"E": 0.97},
}
DEAD_ENDS = {
    "": {"a": 0.45, "b": 0.35, "c": 0.20, "!": 0},
    "a": {"b": 0.70, "E": 0.30, "!": 0},
    "b": {"!": 0},
    "c": {"E": 1.00, "!": 0},
    "ab": {"a": 1.00, "!": 0},
    "aba": {"E": 0.80, "a": 0.20, "!": 0},
    "abaa": {"!": 0},
}


@beam_search.case(
    "the best sequence does not begin with the best token",
    next_step="Keep beam_size hypotheses. A hypothesis is its tokens and the sum of all their "
    "log-probabilities.",
)
def _(beam, make):
    return Tree(make, DETOUR).search(beam, 2, 5, 0.0)


@beam_search.case(
    "a beam of one is greedy decoding",
    next_step="With beam_size 1 the most probable token is taken in each step, until it is "
    "eos_id or there are max_length tokens.",
)
def _(beam, make):
    found = {}
    for number in range(1, 4):
        tree = Tree(make, sharp=3.0, ending=0.4)
        found |= tree.search(beam, 1, 4, 0.0, name=f", table {number}")
    return found


@beam_search.case(
    "an early end is not the best one",
    next_step="Set a hypothesis that ends in eos_id aside and go on with the others, until none "
    "lives. Choose at the end.",
)
def _(beam, make):
    return Tree(make, EARLY_END).search(beam, 2, 8, 0.0)


@beam_search.case(
    "the two best extensions have the same beginning",
    next_step="Collect the extensions of all living hypotheses, all tokens of each, and take the "
    "beam_size best of them all.",
)
def _(beam, make):
    return Tree(make, SIBLINGS).search(beam, 2, 6, 0.0)


@beam_search.case(
    "after the first end",
    next_step="In every step take the beam_size best extensions of what lives, no matter how "
    "many hypotheses have ended before.",
)
def _(beam, make):
    return Tree(make, AFTER_AN_END).search(beam, 2, 6, 0.0)


@beam_search.case(
    "max_length tokens, and the best has not ended",
    next_step="After max_length tokens the living hypotheses compete with those that have ended, "
    "as they are: no eos_id is added. max_length does not count bos_id.",
)
def _(beam, make):
    tree = Tree(make, UNDER_WAY)
    return {
        **tree.search(beam, 2, 3, 0.0, name=", max_length 3"),
        **tree.search(beam, 2, 2, 0.0, name=", max_length 2"),
        **tree.search(beam, 2, 1, 0.0, name=", max_length 1"),
    }


@beam_search.case(
    "max_length tokens, and the best has ended",
    next_step="After max_length tokens compare all: those that have ended and those that live.",
)
def _(beam, make):
    return Tree(make, ENDED_IN_TIME).search(beam, 2, 3, 0.0)


@beam_search.case(
    "the end is the most probable first token",
    next_step="eos_id may come first; the result is then [eos_id], with its log-probability.",
)
def _(beam, make):
    tree = Tree(make, AT_ONCE)
    return {
        **tree.search(beam, 1, 6, 0.0, name=", beam_size 1"),
        **tree.search(beam, 3, 6, 0.0, name=", beam_size 3"),
    }


@beam_search.case(
    "a short sentence or a longer one: it depends on the length penalty",
    weight=2,
    next_step="score = sum / ((5 + L) / 6) ** length_penalty, where L counts eos_id and not "
    "bos_id. Apply it once, to choose among the finished.",
)
def _(beam, make):
    tree = Tree(make, SHORT_OR_LONG)
    found = {}
    for penalty in (0.0, 0.6, 1.0, 2.0):
        found |= tree.search(beam, 3, 6, penalty, name=f", length_penalty {penalty}")
    return found


@beam_search.case(
    "length_penalty is 0.6 unless told otherwise",
    weight=0.5,
    next_step="Give length_penalty the default 0.6.",
)
def _(beam, make):
    return Tree(make, SHORT_OR_LONG).search(beam, 2, 5)


@beam_search.case(
    "which hypotheses live on after an end",
    next_step="In each step take the beam_size best extensions, those that end among them. "
    "What ends is set aside: it takes part neither in the next step nor in its beam, and nothing "
    "comes up in its place.",
)
def _(beam, make):
    return {
        **Tree(make, CROWDED_OUT).search(beam, 2, 7, 2.0, name=", no one moves up"),
        **Tree(make, ROOM).search(beam, 2, 7, 2.0, name=", the next step is whole"),
    }


@beam_search.case(
    "a beam wider than the vocabulary",
    next_step="There may be fewer extensions than beam_size: take min(beam_size, how many there "
    "are). With a beam that wide the search is exhaustive.",
)
def _(beam, make):
    found = {}
    for number in range(1, 4):
        tree = Tree(make, letters="ab", sharp=3.0, ending=0.3)
        found |= tree.search(beam, 100, 3, 1.0, name=f", table {number}")
    return found


@beam_search.case(
    "impossible tokens and dead ends",
    next_step="A log-probability of -inf is probability 0: drop such an extension. A hypothesis "
    "without any other is dropped with it.",
)
def _(beam, make):
    tree = Tree(make, DEAD_ENDS)
    return {
        **tree.search(beam, 4, 6, 0.0),
        "impossible prefixes that it asks for": tree.impossible(),
    }


@beam_search.case(
    "drawn tables of few words",
    next_step="Follow one of the tables on paper, with beam_size 2: extend, add, sort, set "
    "aside what ends.",
)
def _(beam, make):
    found = {}
    for number, (size, penalty) in enumerate(((2, 2.0), (3, 2.0), (2, 1.0), (2, 0.6)), start=1):
        tree = Tree(make, letters="ab", sharp=4.0, ending=0.4)
        found |= tree.search(beam, size, 7, penalty, name=f", table {number}")
    return found


@beam_search.case(
    "drawn tables of more words",
    next_step="Print the beam of each step, tokens and sums, and look for the first step that is "
    "not as you expect it.",
)
def _(beam, make):
    found = {}
    for number, (size, penalty) in enumerate(((2, 2.0), (3, 2.0), (4, 1.5), (3, 0.6)), start=1):
        tree = Tree(make, letters="abcdefg", sharp=4.0, ending=0.3)
        found |= tree.search(beam, size, 8, penalty, name=f", table {number}")
    return found


@beam_search.case(
    "log-probabilities in float32",
    weight=0.5,
    next_step="Take the log-probabilities in whatever dtype they come.",
)
def _(beam, make):
    return Tree(make, SIBLINGS, dtype=torch.float32).search(beam, 3, 5, 0.0)


@beam_search.case(
    "a beam and a length below 1 are refused",
    weight=0.5,
    next_step="Begin with: if beam_size < 1 or max_length < 1: raise ValueError(...).",
)
def _(beam, make):
    tree = Tree(make, DETOUR)
    return {
        "error with beam_size 0": raises(beam, tree, tree.bos_id, tree.eos_id, 0, 5),
        "error with beam_size -2": raises(beam, tree, tree.bos_id, tree.eos_id, -2, 5),
        "error with max_length 0": raises(beam, tree, tree.bos_id, tree.eos_id, 2, 0),
    }


@beam_search.case("another vocabulary, wider beams", hidden=True)
def _(beam, make):
    found = {}
    for number, (size, penalty) in enumerate(((5, 2.0), (3, 1.2), (6, 0.9)), start=1):
        tree = Tree(make, letters="abcdefghij", sharp=4.0, ending=0.3)
        found |= tree.search(beam, size, 9, penalty, name=f", table {number}")
    return found


@beam_search.misconceptions
def _():
    """Beam search with one thing wrong at a time."""

    def wu(total, length, penalty):
        return total / ((5 + length) / 6) ** penalty

    def everything(finished, live, last, score):
        return max(finished + live, key=score)

    def searcher(
        formula=wu,
        length_of=lambda tokens, eos_id: len(tokens),
        penalty_of=lambda penalty: penalty,
        add=lambda total, log_p: total + log_p,
        start=0.0,
        extend=lambda live: live,
        per_hypothesis=lambda vocab: vocab,
        room=lambda beam_size, finished: beam_size,
        refill=0,
        keep_in_beam=False,
        ends=lambda token, eos_id: token == eos_id,
        enough=lambda finished, live, last, beam_size, score: False,
        steps=lambda max_length: max_length,
        choose=everything,
        tokens_of=lambda tokens, bos_id, eos_id: tokens,
        report=lambda score, total, length: score,
        kept=lambda total: total > -math.inf,
        careful=True,
        order=lambda total: -total,
    ):
        def beam(next_log_probs, bos_id, eos_id, beam_size, max_length, length_penalty=0.6):
            if careful and (beam_size < 1 or max_length < 1):
                raise ValueError("beam_size and max_length must be at least 1")

            def score(hypothesis):
                tokens, total = hypothesis
                return formula(total, length_of(tokens, eos_id), penalty_of(length_penalty))

            live, finished, last = [([], start)], [], []
            for _ in range(steps(max_length)):
                chosen = extend(live)
                rows = next_log_probs(torch.tensor([[bos_id, *tokens] for tokens, _ in chosen]))
                extensions = []
                for (tokens, total), row in zip(chosen, rows.tolist(), strict=True):
                    own = sorted(range(len(row)), key=lambda token, row=row: -row[token])
                    for token in own[: per_hypothesis(len(row))]:
                        grown = add(total, row[token])
                        if kept(grown):
                            extensions.append(([*tokens, token], grown))
                if keep_in_beam:
                    extensions += finished
                    finished = []
                extensions.sort(key=lambda hypothesis: order(hypothesis[1]))
                live, places = [], room(beam_size, finished)
                if refill:
                    new = [h for h in extensions[: refill * beam_size] if ends(h[0][-1], eos_id)]
                    last = [h for h in extensions if not ends(h[0][-1], eos_id)][:beam_size]
                    finished += new
                    live = last
                else:
                    last = extensions[:places]
                    for hypothesis in last:
                        ended = ends(hypothesis[0][-1], eos_id)
                        (finished if ended else live).append(hypothesis)
                if not live or enough(finished, live, last, beam_size, score):
                    break
            tokens, total = choose(finished, live, last, score)
            return tokens_of(tokens, bos_id, eos_id), float(
                report(score((tokens, total)), total, len(tokens))
            )

        return beam

    def finished_first(finished, live, last, score):
        return max(finished or live, key=score)

    def living_first(finished, live, last, score):
        return max(live or finished, key=score)

    def first_finished(finished, live, last, score):
        return (finished or sorted(live, key=score, reverse=True))[0]

    def best_of_last(finished, live, last, score):
        return max(last, key=score)

    def as_many_as_the_beam(finished, live, last, beam_size, score):
        return len(finished) >= beam_size

    def overtaken(finished, live, last, beam_size, score):
        return bool(finished) and max(map(score, finished)) > max(map(score, live))

    def best_has_ended(finished, live, last, beam_size, score):
        return any(hypothesis is last[0] for hypothesis in finished)

    formula = "score = sum / ((5 + L) / 6) ** length_penalty."
    yield (
        "There is no length penalty: the score is the plain sum, which favors short sentences.",
        searcher(formula=lambda total, length, penalty: total),
        formula,
    )
    yield (
        "The sum is multiplied by the length penalty; it should be divided by it. Sums are "
        "negative, so long sentences are punished twice.",
        searcher(formula=lambda total, length, penalty: total * ((5 + length) / 6) ** penalty),
        formula,
    )
    yield (
        "The exponent is missing: length_penalty does not count.",
        searcher(formula=lambda total, length, penalty: total * 6 / (5 + length)),
        formula,
    )
    yield (
        "length_penalty is a factor here; it is an exponent.",
        searcher(
            formula=lambda total, length, penalty: (
                total / (penalty * (5 + length) / 6) if penalty else total
            )
        ),
        formula,
    )
    yield (
        "The sum is divided by L ** length_penalty; the paper's penalty is "
        "((5 + L) / 6) ** length_penalty.",
        searcher(formula=lambda total, length, penalty: total / length**penalty),
        formula,
    )
    yield (
        "The score is the mean log-probability; length_penalty does not count.",
        searcher(formula=lambda total, length, penalty: total / length),
        formula,
    )
    yield (
        "The length penalty is (5 + L) ** length_penalty; the division by 6 is missing.",
        searcher(formula=lambda total, length, penalty: total / (5 + length) ** penalty),
        formula,
    )
    yield (
        "The length penalty is ((5 + L) ** length_penalty) / 6: the 6 belongs inside the power.",
        searcher(formula=lambda total, length, penalty: total * 6 / (5 + length) ** penalty),
        formula,
    )
    yield (
        "The length counts bos_id too.",
        searcher(length_of=lambda tokens, eos_id: len(tokens) + 1),
        "L is the number of generated tokens: eos_id counts, bos_id does not.",
    )
    yield (
        "The length does not count eos_id.",
        searcher(length_of=lambda tokens, eos_id: len(tokens) - (tokens[-1] == eos_id)),
        "L is the number of generated tokens: eos_id counts, bos_id does not.",
    )
    yield (
        "length_penalty is always 0.6, whatever the argument says.",
        searcher(penalty_of=lambda penalty: 0.6),
        "Use length_penalty.",
    )
    yield (
        "The hypothesis is right, but its score is the plain sum of log-probabilities.",
        searcher(report=lambda score, total, length: total),
        "Return what you compared by: " + formula,
    )
    yield (
        "The score is turned into a probability; it is the logarithm that is asked for.",
        searcher(report=lambda score, total, length: math.exp(score)),
        "Return the score as it is, a negative number.",
    )
    yield (
        "The score has lost its sign.",
        searcher(report=lambda score, total, length: -score),
        "Log-probabilities are negative, and so is their sum.",
    )
    yield (
        "A hypothesis is worth only its last log-probability: the sum so far is forgotten.",
        searcher(add=lambda total, log_p: log_p),
        "Add the token's log-probability to the sum of the hypothesis that it extends.",
    )
    yield (
        "Probabilities are added; their logarithms should be.",
        searcher(add=lambda total, log_p: total + math.exp(log_p), kept=lambda total: True),
        "The probability of a sequence is a product: add logarithms.",
    )
    yield (
        "Probabilities are multiplied, and the length penalty then works on a probability.",
        searcher(
            start=1.0,
            add=lambda total, log_p: total * math.exp(log_p),
            kept=lambda total: total > 0,
        ),
        "Add log-probabilities; penalty and score are defined for their sum.",
    )
    yield (
        "The least probable extensions are kept, not the most probable.",
        searcher(order=lambda total: total),
        "Sort in descending order, or use topk.",
    )
    for refill in (0, 1):
        yield (
            "Only the best hypothesis is extended; the others of the beam are lost.",
            searcher(extend=lambda live: live[:1], refill=refill),
            "Extend every living hypothesis, then take the beam_size best of all extensions.",
        )
    yield (
        "This is greedy decoding: only one hypothesis is kept.",
        searcher(room=lambda beam_size, finished: 1),
        "Keep beam_size hypotheses in each step.",
    )

    def own_best(next_log_probs, bos_id, eos_id, beam_size, max_length, length_penalty=0.6):
        # The first step fans out, after that each goes its own way.
        if beam_size < 1 or max_length < 1:
            raise ValueError("beam_size and max_length must be at least 1")
        row = next_log_probs(torch.tensor([[bos_id]]))[0].tolist()
        starts = sorted(range(len(row)), key=lambda token: -row[token])[:beam_size]
        done = []
        for token in starts:
            tokens, total = [token], row[token]
            while tokens[-1] != eos_id and len(tokens) < max_length and total > -math.inf:
                following = next_log_probs(torch.tensor([[bos_id, *tokens]]))[0].tolist()
                best = max(range(len(following)), key=following.__getitem__)
                tokens, total = [*tokens, best], total + following[best]
            done.append((wu(total, len(tokens), length_penalty), tokens))
        score, tokens = max(done)
        return tokens, score

    yield (
        "Each hypothesis is extended by its own best token only, so two with the same beginning "
        "never live side by side.",
        own_best,
        "Collect all extensions of all living hypotheses before you choose beam_size of them.",
    )
    for early in (
        {"enough": lambda finished, *_: bool(finished), "choose": finished_first},
        {"choose": first_finished},
    ):
        yield (
            "The first hypothesis that ends is returned, though a better one may be under way.",
            searcher(**early),
            "Set aside what ends, go on while any lives, and take the highest score at the end.",
        )
    yield (
        "It stops once beam_size hypotheses have ended, though a better one may be under way.",
        searcher(enough=as_many_as_the_beam),
        "Go on until no hypothesis lives or max_length tokens are reached.",
    )
    yield (
        "It stops once a hypothesis that has ended scores higher than all that live; a longer one "
        "may still overtake it, for the length penalty grows.",
        searcher(enough=overtaken),
        "Go on until no hypothesis lives or max_length tokens are reached.",
    )
    yield (
        "It stops as soon as the best hypothesis of a step has ended; a longer one may still "
        "overtake it, for the length penalty grows.",
        searcher(enough=best_has_ended),
        "Go on until no hypothesis lives or max_length tokens are reached.",
    )
    yield (
        "Hypotheses that are still alive after max_length tokens are thrown away.",
        searcher(choose=finished_first),
        "At the end let them compete, as they are.",
    )
    yield (
        "Hypotheses that have ended are forgotten where others are still alive at the end.",
        searcher(choose=living_first),
        "At the end compare all: those that have ended and those that live.",
    )
    yield (
        "Only the beam of the last step is looked at; what ended before is forgotten.",
        searcher(choose=best_of_last),
        "Keep a list of what has ended, and choose from it and from those that live.",
    )
    for cut in (
        lambda tokens, bos_id, eos_id: tokens,
        lambda tokens, bos_id, eos_id: (
            tokens[: tokens.index(eos_id) + 1] if eos_id in tokens else tokens
        ),
    ):
        yield (
            "Hypotheses go on after their eos_id.",
            searcher(ends=lambda token, eos_id: False, tokens_of=cut),
            "Set a hypothesis aside when its last token is eos_id, and never extend it.",
        )
    for refill in (
        {"refill": 2},
        {"refill": 1},
        {"refill": 1, "enough": as_many_as_the_beam},
    ):
        yield (
            "When a hypothesis ends, the next best one moves up, so that beam_size always live "
            "on. Some libraries do so; here the beam narrows.",
            searcher(**refill),
            "Take the beam_size best extensions first, then separate those that end from the "
            "others.",
        )
    yield (
        "Each hypothesis that has ended takes a place of the beam away for good.",
        searcher(room=lambda beam_size, finished: max(beam_size - len(finished), 0)),
        "Take the beam_size best extensions in every step, however many have ended before.",
    )
    yield (
        "What has ended stays in the beam and competes for its places with what lives.",
        searcher(keep_in_beam=True),
        "Set aside what ends: it competes again only at the end.",
    )
    yield (
        "The eos_id at the end is left out of the result.",
        searcher(
            tokens_of=lambda tokens, bos_id, eos_id: tokens[: len(tokens) - (tokens[-1] == eos_id)]
        ),
        "eos_id is a generated token: return it.",
    )
    yield (
        "The result begins with bos_id.",
        searcher(tokens_of=lambda tokens, bos_id, eos_id: [bos_id, *tokens]),
        "Return the generated tokens only.",
    )
    yield (
        "It generates max_length - 1 tokens at most: bos_id is counted.",
        searcher(steps=lambda max_length: max_length - 1),
        "max_length counts generated tokens; bos_id is none of them.",
    )
    yield (
        "It generates up to max_length + 1 tokens.",
        searcher(steps=lambda max_length: max_length + 1),
        "Let the loop run max_length times at most.",
    )
    yield (
        "An eos_id is added to what has not ended by max_length.",
        searcher(
            tokens_of=lambda tokens, bos_id, eos_id: (
                tokens if tokens[-1] == eos_id else [*tokens, eos_id]
            )
        ),
        "Return it as it is: whoever reads it sees that it was cut off.",
    )
    yield (
        "Hypotheses of probability 0 are kept and extended.",
        searcher(kept=lambda total: True),
        "Drop an extension whose sum is -inf.",
    )
    yield (
        "A beam_size or max_length below 1 is not refused with a ValueError.",
        searcher(careful=False),
        "Begin with: if beam_size < 1 or max_length < 1: raise ValueError(...).",
    )

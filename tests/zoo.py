"""A zoo of architectures, and what the library says about each: right, or refused by name.

    python tests/zoo.py                       a table of all of them
    python tests/zoo.py --write docs/networks.md
    python tests/zoo.py vit_slim tokens       these alone

`examine` asks every question about one network and compares each answer with `zoo_oracle`, the
definition in float64, where that has one.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import json
import time
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from zoo_oracle import Oracle, Unknown, numbers
from zoo_page import COLUMNS, page
from zoo_plain import PLAIN
from zoo_public import SLIM, SLIM_SHAPES, TIMM, TORCHVISION, TRANSFORMERS, own_timm

import synflow_lib as sf
from synflow_lib.data import import_torchvision

QUESTIONS = tuple(COLUMNS)
SMALL = ("score", "path")  # what a test asks, within a second or two
LARGE = 1_500_000  # weights; beyond it a cut trajectory takes minutes


class Animal:
    """One architecture: its name, its library, how to make it, and what it takes."""

    def __init__(self, name, library, make, example, small=False) -> None:
        self.name, self.library, self.make, self._example = name, library, make, example
        self.small = small  # cheap enough for a test of every third day

    def net(self) -> nn.Module:
        torch.manual_seed(0)
        return self.make().eval()

    def example(self, count=1, seed=0):
        """A batch of inputs: what the forward is called with."""
        generator = torch.Generator().manual_seed(seed)

        def one(shape):
            if isinstance(shape, Tensor):
                return shape.expand(count, *shape.shape[1:]).clone()
            return torch.randn(count, *shape, generator=generator)

        return over_shapes(one, self._example)

    @property
    def input_shape(self):
        """What `synflow_lib` is told."""
        if is_shape(self._example):
            return self._example
        return self.example()


def is_shape(value) -> bool:
    return isinstance(value, tuple) and all(isinstance(size, int) for size in value)


def over_shapes(function, example):
    if is_shape(example) or isinstance(example, Tensor):
        return function(example)
    if isinstance(example, dict):
        return {key: over_shapes(function, value) for key, value in example.items()}
    return tuple(over_shapes(function, value) for value in example)


def zoo() -> dict[str, Animal]:
    """All architectures whose library is installed, by name."""
    found = {
        f"plain/{name}": Animal(name, "plain", make, example, True)
        for name, (make, example) in PLAIN.items()
    }
    models = import_torchvision("torchvision.models")
    for name, size in TORCHVISION.items():
        make = functools.partial(_torchvision, models, name)
        found[f"torchvision/{name}"] = Animal(name, "torchvision", make, (3, size, size))
    for name, make in SLIM.items():
        shape = SLIM_SHAPES.get(name, (3, 32, 32))
        found[f"torchvision/{name}"] = Animal(
            name, "torchvision", functools.partial(make, models), shape, name.endswith("_slim")
        )
    with contextlib.suppress(ImportError):
        import timm

        for name, (size, how) in TIMM.items():
            make = functools.partial(timm.create_model, name, num_classes=10, **how)
            small = {"depth", "depths"} & set(how) != set()
            found[f"timm/{name}"] = Animal(name, "timm", make, (3, size, size), small)
        for name, make in own_timm().items():
            found[f"timm/{name}"] = Animal(name, "timm", make, (3, 32, 32))
    with contextlib.suppress(ImportError):
        import transformers

        for name, (make, example) in TRANSFORMERS.items():
            found[f"transformers/{name}"] = Animal(
                name, "transformers", functools.partial(make, transformers), example
            )
    return found


def _torchvision(models, name):
    how = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return getattr(models, name)(num_classes=10, **how)


# What an error must not say: torch's or Python's own words about something else.
MISLEADING = (
    "Expected tensor for argument", "need at least one array", "object has no attribute",
    "unsupported operand", "not subscriptable", "is not iterable", "unexpected keyword",
)  # fmt: skip


def ask(question) -> str:
    """ "right", "right: ...", "refused: ...", "wrong: ..." or "unknown: ..." """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return question()
        except Unknown as error:
            return f"unknown: {error}"
        except ValueError as error:
            said = str(error)
            if any(part in said for part in MISLEADING):
                return f"wrong: misleading {said}"
            return f"refused: {said}"
        except Exception as error:  # any other is a fault
            if isinstance(error, TypeError) and "expected one tensor of logits" in str(error):
                return f"refused: {error}"
            return f"wrong: {type(error).__name__} {error}"


def examine(animal: Animal, questions=QUESTIONS, iterations=3) -> dict[str, str]:
    """Question -> answer, for one architecture."""
    net = animal.net()
    shape, x = animal.input_shape, animal.example(4)
    try:
        dense = sf.Masks.ones(net)
    except ValueError as error:  # weights that no mask can hold
        return dict.fromkeys(questions, f"refused: {error}")
    count = dense.kept
    label = _labels(net, x)

    @functools.cache
    def truth(every_path=False):
        try:
            return Oracle(net, animal.example(), every_path=every_path)
        except Unknown:
            raise
        except Exception as error:
            raise Unknown(f"the oracle fails, {type(error).__name__}: {error}") from error

    def score():
        scores = sf.score(net, "synflow", input_shape=shape)
        if set(scores) != set(dense):
            return "wrong: names"
        bad = [n for n, s in scores.items() if not torch.isfinite(s).all() or s.min() < 0]
        if bad:
            return f"wrong: negative or not finite in {bad[:2]}"
        if not any(s.any() for s in scores.values()):
            return "wrong: all scores are zero"
        right = truth().scores()
        largest = max(float(right[n].max()) for n in scores)
        scale = 2.0 ** getattr(scores, "log2_scale", 0)
        off = {n: float((s * scale - right[n]).abs().max()) / largest for n, s in scores.items()}
        worst = max(off, key=off.get)
        if off[worst] > 1e-9:
            return f"wrong: {worst} differs by {off[worst]:.1g} of the largest score"
        return "right"

    def prune(method, **how):
        def run():
            for compression in (10, min(100, count)):
                masks = sf.prune(net, method, compression, **how)
                sizes = sum(mask.numel() for mask in masks.values())
                if masks.kept != max(1, round(sizes / compression)):
                    return f"wrong: keeps {masks.kept} of {count}"
            return "right"

        return run

    def path():
        if sf.is_collapsed(net, dense, "path", input_shape=shape):
            return "wrong: the dense network counts as collapsed"
        found = sf.effective_compression(net, dense, input_shape=shape)
        flows, moved = truth(True).scores(), matters(net, x)
        on_path = 0
        for name in dense:
            on = flows[name].flatten(1) > 0
            if name in moved:  # rows that lie on no path and move the output: they steer
                on |= (~on.any(1) & moved[name])[:, None]
            on_path += int(on.sum())
        if found != count / on_path:
            return (
                f"wrong: effective compression {found:.6g}, by the definition {count / on_path:.6g}"
            )
        masks = sf.prune(net, "magnitude", min(20, count))
        joined = float(Oracle(net, animal.example(), masks, every_path=True).total) > 0
        if sf.is_collapsed(net, masks, "path", input_shape=shape) == joined:
            return f"wrong: magnitude at 20, collapsed is {not joined}"
        sf.critical_compression(net, "magnitude", criterion="path", input_shape=shape)
        return "right"

    def cut():
        if count > LARGE:
            return "not asked: more weights than a test can wait for"
        run = sf.trajectory(net, "synflow", schedule="cut", input_shape=shape)
        last = run.keeping(run.counts[-1], quiet=True)
        joined = float(Oracle(net, animal.example(), last, every_path=True).total) > 0
        if not joined:
            return "wrong: ends disconnected"
        limit = sf.max_compression(net, "path", input_shape=shape)
        shortest, ends = round(count / limit), run.counts[-1]
        return "right" if ends == shortest else f"right: ends at {ends}, could at {shortest}"

    def conservation():
        scores = sf.score(net, "synflow", input_shape=shape)
        report = sf.check_conservation(net, scores, level="unit", input_shape=shape)
        if len(report.table) == 0:
            return "right: no unit lies between two layers"
        if report.max_relative_error > 1e-9:
            return f"wrong: error {report.max_relative_error:.1g}"
        return "right"

    def surgery():
        masks = sf.prune(net, "magnitude", 10)
        smaller = sf.surgery.without_dead_units(net, masks, input_shape=shape)
        both = masks.apply_(copy.deepcopy(net)).double(), smaller.double()
        inputs = tree_map(
            lambda t: t.double() if isinstance(t, Tensor) and t.is_floating_point() else t, x
        )
        with torch.no_grad():
            outs = [numbers(_call(one.eval(), inputs)) for one in both]
        if any((a - b).abs().max() > 1e-6 for a, b in zip(*outs, strict=True)):
            return "wrong: another function"
        return "right"

    data = {"batch": (x, label[0]), "loss": label[1]}
    asked = {
        "score": score,
        "prune": prune("synflow", iterations=iterations, input_shape=shape),
        "magnitude": prune("magnitude"),
        "snip": prune("snip", iterations=1, **data),
        "grasp": prune("grasp", iterations=1, **data),
        "path": path,
        "cut": cut,
        "conservation": conservation,
        "surgery": surgery,
    }
    return {name: ask(asked[name]) for name in questions}


def matters(net, x) -> dict[str, Tensor]:
    """The rows of weights that the output depends on, of any kind: name -> bool."""
    net = copy.deepcopy(net).double()
    generator = torch.Generator().manual_seed(0)
    named = dict(net.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for parameter in net.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.abs_().mul_(0.3).add_(0.01 * noise.abs())  # no unit is silent
            if parameter.dim() > 1:  # nor saturated, however deep: it gives a mean of its inputs
                parameter.div_(parameter.flatten(1).sum(1).amax())
    x = tree_map(lambda t: t.double() if t.is_floating_point() else t, x)
    total = sum(out.square().sum() for out in numbers(_call(net, x)))
    slopes = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    return {
        name: slope.reshape(len(slope), -1).any(1)
        for name, slope in zip(named, slopes, strict=True)
        if slope is not None and slope.dim()
    }


def _call(net, x):
    if isinstance(x, dict):
        return net(**x)
    return net(*x) if isinstance(x, tuple) else net(x)


def _labels(net, x):
    """Labels for four inputs, and the loss where cross-entropy does not do."""
    with torch.no_grad():
        out = _call(copy.deepcopy(net), copy.deepcopy(x))
    y = torch.arange(4) % 2
    out = getattr(out, "logits", out)
    if isinstance(out, Tensor) and out.dim() == 2 and out.shape[1] > 1:
        return y, None
    return y, lambda output, y: sum(t.square().mean() for t in numbers(output))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="parts of names; none: all")
    parser.add_argument("--write", type=Path, help="the page, such as docs/networks.md")
    parser.add_argument(
        "--store", type=Path, help="answers, JSON lines; what it holds is not asked again"
    )
    parser.add_argument("--only", nargs="*", default=QUESTIONS, choices=QUESTIONS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    known = {}
    if args.store and args.store.exists():
        for one in map(json.loads, args.store.read_text().splitlines()):
            known[one["name"]] = known.get(one["name"], {}) | one
    for name, animal in zoo().items():
        questions = [question for question in args.only if question not in known.get(name, {})]
        if args.names and not any(part in name for part in args.names) or not questions:
            continue
        start = time.perf_counter()
        try:
            answers = examine(animal, questions)
        except Exception as error:  # the network itself
            print(f"{name}: cannot be examined, {type(error).__name__}: {error}", flush=True)
            continue
        known[name] = known.get(name, {}) | {"name": name, **answers}
        seconds = round(time.perf_counter() - start, 1)
        if args.store:
            with args.store.open("a") as file:
                file.write(json.dumps(known[name]) + "\n")
        short = "  ".join(f"{q} {a[:160]}" for q, a in answers.items() if a != "right")
        print(f"{name} {seconds}s  {short or 'all right'}", flush=True)
    if args.write:
        args.write.write_text(page(known), encoding="utf-8")


if __name__ == "__main__":
    main()

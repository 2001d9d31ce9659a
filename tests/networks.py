"""Small networks, data and independent oracles that the tests of the core share.

The oracles are written from definitions and know nothing of the library: `plain_synflow` is
Algorithm 1 in float64, `Paths` unrolls a network into its single activations and the edges
between them, so that "connected" and "on a path" are answered by walking.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import operator
import random
from collections import OrderedDict, defaultdict

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from synflow_lib.models.resnet import BasicBlock, layout

WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)


def seeded(make, seed=0, dtype=torch.float64):
    """What ``make()`` builds, its weights and BatchNorm constants drawn from ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    net = make()
    with torch.no_grad():
        for module in net.modules():
            for name, parameter in module.named_parameters(recurse=False):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
                if isinstance(module, nn.modules.batchnorm._BatchNorm) and name == "weight":
                    parameter.abs_().add_(0.1)
            if getattr(module, "running_mean", None) is not None:
                module.running_mean.copy_(
                    torch.randn(module.running_mean.shape, generator=generator)
                )
                module.running_var.copy_(
                    torch.rand(module.running_var.shape, generator=generator) + 0.5
                )
    return net.to(dtype)


def mlp(*widths, bias=False, seed=0, dtype=torch.float64, batch_norm=False):
    """ReLU network of Linear layers; layer k is called ``"k"``."""

    def make():
        parts = OrderedDict()
        for number, (n_in, n_out) in enumerate(zip(widths, widths[1:], strict=False)):
            parts[str(number)] = nn.Linear(n_in, n_out, bias=bias)
            if number < len(widths) - 2:
                if batch_norm:
                    parts[f"norm{number}"] = nn.BatchNorm1d(n_out)
                parts[f"relu{number}"] = nn.ReLU()
        return nn.Sequential(parts)

    return seeded(make, seed, dtype)


def narrow_vgg16(batch_norm=True, seed=0, width=4, **norm):
    """VGG-16's thirteen convolutions, poolings and classifier with few channels, for 16x16."""

    def make():
        layers, channels = [], 3
        for stage, (factor, repeats) in enumerate(zip((1, 2, 2, 3, 3), (2, 2, 3, 3, 3))):  # noqa: B905
            for _ in range(repeats):
                layers.append(
                    nn.Conv2d(channels, width * factor, 3, padding=1, bias=not batch_norm)
                )
                channels = width * factor
                layers += [nn.BatchNorm2d(channels, **norm)] if batch_norm else []
                layers.append(nn.ReLU())
            if stage < 4:
                layers.append(nn.MaxPool2d(2))
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))

    return with_shape(seeded(make, seed), (3, 16, 16))


def narrow_resnet(seed=0, stages=((4, 2), (6, 1), (8, 1))):
    """The CIFAR ResNet layout, 1x1 shortcuts of stride 2 between stages, with few channels."""

    def make():
        return layout(BasicBlock, list(stages), 5, 3, imagenet_stem=False)

    return with_shape(seeded(make, seed), (3, 8, 8))


def with_shape(net, shape):
    net.input_shape = tuple(shape)
    return net


class Dense(nn.Module):
    """Concatenation, as in DenseNet; each layer reads all maps before it."""

    input_shape = (2, 6, 6)

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 3, padding=1, bias=False)
        self.grow1 = nn.Conv2d(3, 2, 3, padding=1)
        self.grow2 = nn.Conv2d(5, 2, 1)
        self.pool = nn.AvgPool2d(2)
        self.head = nn.Linear(7 * 9, 4)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = torch.cat([x, F.relu(self.grow1(x))], 1)
        x = torch.cat([x, F.relu(self.grow2(x))], dim=1)
        return self.head(torch.flatten(self.pool(x), 1))


class Mobile(nn.Module):
    """Depthwise and grouped convolutions, stride, dilation, a residual sum, a mean over the map."""

    input_shape = (2, 9, 9)

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.depth = nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, bias=False)
        self.point = nn.Conv2d(4, 4, 1)
        self.group = nn.Conv2d(4, 6, 3, groups=2)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = x + F.relu(self.point(F.relu(self.depth(x))))
        x = F.relu(self.group(x))
        return self.head(x.mean((2, 3)))


class Decoder(nn.Module):
    """Transposed convolutions, with groups and without."""

    input_shape = (2, 4, 4)

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.up1 = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=2)
        self.up2 = nn.ConvTranspose2d(6, 3, 2, stride=2)
        self.head = nn.Linear(3, 4)

    def forward(self, x):
        x = F.relu(self.up1(F.relu(self.down(x))))
        return self.head(F.relu(self.up2(x)).mean((2, 3)))


class Shared(nn.Module):
    """One module called twice, on the same width."""

    input_shape = (4,)

    def __init__(self, bias=True):
        super().__init__()
        self.enter = nn.Linear(4, 3, bias=bias)
        self.again = nn.Linear(3, 3, bias=bias)
        self.leave = nn.Linear(3, 2, bias=bias)

    def forward(self, x):
        x = F.relu(self.enter(x))
        return self.leave(F.relu(self.again(F.relu(self.again(x)))))


class Tied(nn.Module):
    """Two modules with one weight."""

    input_shape = (3,)

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False)
        self.second = nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight
        self.leave = nn.Linear(3, 2, bias=False)

    def forward(self, x):
        return self.leave(F.relu(self.second(F.relu(self.first(x)))))


class Residual(nn.Module):
    """Two weights in the block, one in the shortcut: rho_max by path counts three weights."""

    input_shape = (4,)

    def __init__(self, bias=False):
        super().__init__()
        self.a = nn.Linear(4, 5, bias=bias)
        self.b = nn.Linear(5, 3, bias=bias)
        self.shortcut = nn.Linear(4, 3, bias=bias)
        self.head = nn.Linear(3, 2, bias=bias)

    def forward(self, x):
        return self.head(F.relu(self.b(F.relu(self.a(x))) + self.shortcut(x)))


class PreActivation(nn.Module):
    """BatchNorm where no layer is in front of it, and beside others that read the same output."""

    input_shape = (2, 5, 5)

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(2)
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.conv1(F.relu(self.norm(x)))
        x = x + self.conv2(F.relu(self.norm1(x)))
        return self.head(F.relu(self.norm2(x)).mean((2, 3)))


class LongBranch(nn.Module):
    """Ten layers beside a shortcut, then a concatenation: several values live at once for long."""

    input_shape = (3,)

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(3, 4)
        self.branch = nn.ModuleList(nn.Linear(4, 4) for _ in range(10))
        self.after = nn.ModuleList(nn.Linear(4, 4) for _ in range(10))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x)
        out = x
        for layer in self.branch:
            out = F.relu(layer(out))
        x = out + x
        out = x
        for layer in self.after:
            out = F.relu(layer(out))
        return self.head(torch.cat([x, out], 1))


class Branching(nn.Module):
    """Branches on a value, so that torch.fx cannot trace it."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3, bias=False)
        self.out = nn.Linear(3, 2, bias=False)

    def forward(self, x):
        x = self.fc(x)
        return self.out(F.relu(x) if x.sum() > -1e9 else x)


class Dag(nn.Module):
    """A random residual network: every node sums identities and Linear layers from nodes before.

    ``plan[k]`` lists, for node k + 1, the nodes it reads and whether through a Linear layer.
    """

    def __init__(self, plan, width, bias=False):
        super().__init__()
        self.plan, self.input_shape = plan, (width,)
        self.layers = nn.ModuleDict(
            {
                f"{source}to{target}n{number}": nn.Linear(width, width, bias=bias)
                for target, sources in enumerate(plan, 1)
                for number, (source, weighted) in enumerate(sources)
                if weighted
            }
        )
        self.head = nn.Linear(width, 2, bias=bias)

    def forward(self, x):
        nodes = [x]
        for target, sources in enumerate(self.plan, 1):
            total = None
            for number, (source, weighted) in enumerate(sources):
                part = nodes[source]
                part = self.layers[f"{source}to{target}n{number}"](part) if weighted else part
                total = part if total is None else total + part
            nodes.append(F.relu(total))
        return self.head(nodes[-1])


def images(net, count=8, classes=None, seed=0, dtype=None):
    """A batch that fits ``net``: positive and negative inputs, labels in turn."""
    generator = torch.Generator().manual_seed(seed)
    dtype = dtype or next(net.parameters()).dtype
    shape = getattr(net, "input_shape", None) or (next(net.parameters()).shape[1],)
    x = torch.randn(count, *shape, generator=generator).to(dtype)
    with torch.no_grad():
        classes = classes or copy.deepcopy(net).eval()(x[:2]).shape[1]
    return x, torch.arange(count) % classes


def train_a_little(net, batch, steps=3, rate=0.05):
    """A few steps, so that running statistics, gammas, betas and biases are not trivial."""
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    optimizer.zero_grad()
    return net


# ------------------------------------------------------------------------------ nothing changes


def _random_states():
    states = [torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())]  # noqa: NPY002
    if torch.cuda.is_available():
        states += [state.tolist() for state in torch.cuda.get_rng_state_all()]
    return states


def everything(net):
    """All that scoring must leave alone: numbers, flags, gradients, modes, hooks, random states."""
    hooks = (
        "_forward_hooks",
        "_forward_pre_hooks",
        "_backward_hooks",
        "_backward_pre_hooks",
        "_state_dict_hooks",
    )
    tensors = [*net.named_parameters(), *net.named_buffers()]
    return {
        "names": list(net.state_dict()),
        "tensors": {name: tensor.detach().clone() for name, tensor in tensors},
        "identity": {name: (id(tensor), tensor.data_ptr()) for name, tensor in tensors},
        "version": {name: tensor._version for name, tensor in tensors},
        "flags": {name: (tensor.requires_grad, tensor.dtype) for name, tensor in tensors},
        "grads": {
            name: None if tensor.grad is None else (id(tensor.grad), tensor.grad.clone())
            for name, tensor in tensors
        },
        "parameter hooks": {name: len(tensor._backward_hooks or ()) for name, tensor in tensors},
        "modes": {name: module.training for name, module in net.named_modules()},
        "hooks": {
            name: [len(getattr(module, kind)) for kind in hooks]
            for name, module in net.named_modules()
        },
        "attributes": {
            name: sorted(key for key in vars(module) if not key.startswith("__"))
            for name, module in net.named_modules()
        },
        "random": _random_states(),
    }


def assert_same(before, after, where=""):
    """Deep equality of two `everything`, tensors bit for bit; the message says what changed."""
    assert type(before) is type(after), where
    if isinstance(before, dict):
        assert before.keys() == after.keys(), where
        for key in before:
            assert_same(before[key], after[key], f"{where} {key}")
    elif isinstance(before, torch.Tensor):
        assert torch.equal(before, after), f"{where} changed"
    elif isinstance(before, (tuple, list)):
        assert len(before) == len(after), where
        for one, two in zip(before, after, strict=True):
            assert_same(one, two, where)
    else:
        assert before == after, f"{where} changed from {before} to {after}"


@contextlib.contextmanager
def unchanged(*nets):
    """Nothing of the networks and of the random states may differ after the block."""
    before = [everything(net) for net in nets]
    try:
        yield
    finally:
        for old, net in zip(before, nets, strict=True):
            assert_same(old, everything(net))


# ---------------------------------------------------------------------------------- the oracles


def weights_of(net):
    """Name -> weight of Linear and convolution layers, in order of registration."""
    return {
        f"{name}.weight" if name else "weight": module.weight
        for name, module in net.named_modules()
        if isinstance(module, WEIGHTED)
    }


def plain_network(net):
    """|W| in float64, no constants, BatchNorm by its stored variance (Algorithm 1's network)."""
    net = copy.deepcopy(net).double().eval()
    with torch.no_grad():
        for module in net.modules():
            for name, parameter in module.named_parameters(recurse=False):
                parameter.copy_(torch.zeros_like(parameter) if name == "bias" else parameter.abs())
            if getattr(module, "running_mean", None) is not None:
                module.running_mean.zero_()
    return net


def plain_scores(net, shape):
    """SynFlow's score of every weight by one backward pass, float64, unscaled."""
    net = plain_network(net)
    found = weights_of(net)
    total = net(torch.ones(1, *shape, dtype=torch.float64)).sum()
    grads = torch.autograd.grad(total, list(found.values()))
    return {name: g.mul_(w.detach()) for (name, w), g in zip(found.items(), grads, strict=True)}


def plain_synflow(net, compression, iterations, shape):
    """Algorithm 1 as it stands in the paper, densities rho^(-t/n), ties by position.

    Returns masks, name -> bool, and whether they are beyond doubt: in every iteration the scores
    on both sides of the threshold are zero or differ by more than rounding.
    """
    net = plain_network(net)
    found = weights_of(net)
    total = sum(weight.numel() for weight in found.values())
    ones = torch.ones(1, *shape, dtype=torch.float64)
    stay, certain = torch.ones(total, dtype=torch.bool), True
    for step in range(1, iterations + 1):
        kept = max(1, round(total * compression ** (-step / iterations)))
        grads = torch.autograd.grad(net(ones).sum(), list(found.values()))
        with torch.no_grad():
            pairs = zip(found.values(), grads, strict=True)
            flat = torch.cat([(w * g).flatten() for w, g in pairs])
            flat[~stay] = -1.0  # what is pruned never returns, not even among zeros
            if kept < total:
                threshold = torch.kthvalue(flat, total - kept + 1).values
                below = torch.where(flat < threshold, flat, -1.0).max()
                certain &= bool(below < threshold * (1 - 1e-12))
                stay = flat > threshold
                ties = (flat == threshold).nonzero().squeeze(1)
                certain &= kept - int(stay.sum()) == len(ties) or not threshold
                stay[ties[: kept - int(stay.sum())]] = True
            parts = stay.split([weight.numel() for weight in found.values()])
            for weight, part in zip(found.values(), parts, strict=True):
                weight.mul_(part.view_as(weight))
    shapes = [weight.shape for weight in found.values()]
    return {n: p.view(s) for n, p, s in zip(found, parts, shapes, strict=True)}, certain


def grouped(scores, kept, within):
    """The oracle of ties by rounding: neighbours in order closer than ``within`` share a group."""
    order = sorted(range(len(scores)), key=lambda place: scores[place])
    group = {order[0]: 0} if order else {}
    for before, place in itertools.pairwise(order):
        a, b = scores[before], scores[place]
        near = a == b or (b - a <= within * min(abs(a), abs(b)) and not math.isinf(b - a))
        group[place] = group[before] + (not near)
    best = sorted(range(len(scores)), key=lambda place: (-group[place], place))[:kept]
    return torch.tensor([place in best for place in range(len(scores))])


class Paths(fx.Interpreter):
    """Every activation of a network as a node, every use of a weight as an edge.

    ``edges`` holds (source, target, weight, share): weight None or (parameter name, position),
    share what an average takes of its input. Padding is no node, so a tap that only ever sees
    padding has no edge.
    """

    def __init__(self, net, shape):
        graph = fx.symbolic_trace(copy.deepcopy(net))
        super().__init__(graph)
        self.count, self.edges = 0, []
        names = {}
        for name, parameter in graph.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), name)
        self.first = {
            name: names[id(p)] for name, p in graph.named_parameters(remove_duplicate=False)
        }
        self.inputs = self.new(shape)
        self.outputs = self.run(self.inputs)
        self.ends = set(self.outputs.flatten().tolist())

    def new(self, shape):
        start, self.count = self.count, self.count + int(np.prod(shape))
        return np.arange(start, self.count).reshape(shape)

    def call_module(self, target, args, kwargs):
        module, x = self.fetch_attr(target), args[0]
        name = self.first.get(f"{target}.weight")
        if isinstance(module, nn.Linear):
            return self.linear(name, module, x)
        if isinstance(module, nn.Conv2d):
            return self.conv(name, module, x)
        if isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)):
            return self.pool(module, x)
        if isinstance(module, nn.AdaptiveAvgPool2d):
            return self.mean(x)
        if isinstance(module, nn.Flatten):
            return x.reshape(-1)
        assert isinstance(module, (nn.ReLU, nn.BatchNorm1d, nn.BatchNorm2d, nn.Dropout)), module
        return x

    def call_function(self, target, args, kwargs):
        if target in (operator.add, torch.add):
            return self.add(*args)
        if target is torch.cat:
            return np.concatenate(args[0], 0)
        if target is torch.flatten:
            return args[0].reshape(-1)
        assert target is F.relu, target
        return args[0]

    def call_method(self, target, args, kwargs):
        assert target == "mean", target
        return self.mean(args[0])

    def linear(self, name, module, x):
        out = self.new(module.out_features)
        n_in = module.in_features
        self.edges += [
            (x[i], out[o], (name, o * n_in + i), 1.0) for o in range(len(out)) for i in range(n_in)
        ]
        return out

    def conv(self, name, module, x):
        (kh, kw), (sh, sw) = module.kernel_size, module.stride
        (ph, pw), (dh, dw) = module.padding, module.dilation
        _, height, width = x.shape
        rows = (height + 2 * ph - dh * (kh - 1) - 1) // sh + 1
        columns = (width + 2 * pw - dw * (kw - 1) - 1) // sw + 1
        out = self.new((module.out_channels, rows, columns))
        per_in = module.in_channels // module.groups
        per_out = module.out_channels // module.groups
        for o, i, a, b in np.ndindex(module.out_channels, per_in, kh, kw):
            weight = (name, ((o * per_in + i) * kh + a) * kw + b)
            channel = (o // per_out) * per_in + i
            for r, c in np.ndindex(rows, columns):
                y, z = r * sh - ph + a * dh, c * sw - pw + b * dw
                if 0 <= y < height and 0 <= z < width:
                    self.edges.append((x[channel, y, z], out[o, r, c], weight, 1.0))
        return out

    def pool(self, module, x):
        size, stride = module.kernel_size, module.stride
        rows, columns = ((s - size) // stride + 1 for s in x.shape[1:])
        out = self.new((len(x), rows, columns))
        share = 1.0 / size**2
        for k, r, c, a, b in np.ndindex(len(x), rows, columns, size, size):
            self.edges.append((x[k, r * stride + a, c * stride + b], out[k, r, c], None, share))
        return out

    def mean(self, x):
        out = self.new(len(x))
        self.edges += [
            (s, out[k], None, 1.0 / x[k].size) for k in range(len(x)) for s in x[k].flatten()
        ]
        return out

    def add(self, x, y):
        out = self.new(x.shape)
        for one in (x, y):
            pairs = zip(one.flatten(), out.flatten(), strict=True)
            self.edges += [(s, t, None, 1.0) for s, t in pairs]
        return out

    def _kept(self, masks):
        flat = {name: mask.flatten().tolist() for name, mask in masks.items()}
        return [
            (int(s), int(t), w)
            for s, t, w, _ in self.edges
            if w is None or w[0] not in flat or flat[w[0]][w[1]]
        ]

    @staticmethod
    def _reach(start, steps):
        seen, stack = set(start), list(start)
        while stack:
            for node in steps[stack.pop()]:
                if node not in seen:
                    seen.add(node)
                    stack.append(node)
        return seen

    def on_path(self, masks):
        """Name -> bool: the kept weights of which some use lies between input and output."""
        edges = self._kept(masks)
        forward, backward = defaultdict(list), defaultdict(list)
        for source, target, _ in edges:
            forward[source].append(target)
            backward[target].append(source)
        ahead = self._reach(self.inputs.flatten().tolist(), forward)
        behind = self._reach(self.ends, backward)
        found = {name: torch.zeros_like(mask).flatten() for name, mask in masks.items()}
        for source, target, weight in edges:
            if weight and weight[0] in found and source in ahead and target in behind:
                found[weight[0]][weight[1]] = True
        return {name: found[name].view(mask.shape) for name, mask in masks.items()}

    def connected(self, masks):
        """Whether kept weights join any input to any output."""
        forward = defaultdict(list)
        for source, target, _ in self._kept(masks):
            forward[source].append(target)
        return bool(self._reach(self.inputs.flatten().tolist(), forward) & self.ends)

    def flow(self, weights):
        """SynFlow by counting: name -> for each weight the sum over all paths through it of the
        product of absolute weights. Node numbers rise from input to output, so one sweep each way
        adds up all paths.
        """
        value = {n: w.detach().double().abs().flatten().tolist() for n, w in weights.items()}
        edges = sorted(((int(t), int(s), w, f) for s, t, w, f in self.edges), key=lambda e: e[:2])
        size = [f if w is None else f * value[w[0]][w[1]] for _, _, w, f in edges]
        into, out = np.zeros(self.count), np.zeros(self.count)
        into[self.inputs.flatten()] = 1.0
        out[sorted(self.ends)] = 1.0
        for (target, source, *_), w in zip(edges, size, strict=True):
            into[target] += into[source] * w
        for (target, source, *_), w in zip(reversed(edges), reversed(size), strict=True):
            out[source] += out[target] * w
        found = {name: torch.zeros(w.numel(), dtype=torch.float64) for name, w in weights.items()}
        for (target, source, weight, _), w in zip(edges, size, strict=True):
            if weight:
                found[weight[0]][weight[1]] += into[source] * w * out[target]
        return {name: found[name].view(weight.shape) for name, weight in weights.items()}


def fewest(paths):
    """The number of weights on the path that needs fewest, by breadth over the edges."""
    steps = defaultdict(list)
    for source, target, weight, _ in paths.edges:
        steps[int(source)].append((int(target), 1 if weight else 0))
    best = dict.fromkeys(paths.inputs.flatten().tolist(), 0)
    for node in range(paths.count):  # numbers rise along every edge
        if node in best:
            for target, cost in steps[node]:
                best[target] = min(best.get(target, 10**9), best[node] + cost)
    return min(best[end] for end in paths.ends if end in best)

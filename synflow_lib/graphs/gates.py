"""Which of two signals that multiply each other carries the paths, and which one only steers.

A product of two signals is no sum over paths: R would be a polynomial of higher degree and grow
without bounds with depth. One of the two is taken as a constant, one. It is

- the **gate**: the factor that ends in the more saturating activation, a sigmoid or softmax before
  a clamp before tanh before SiLU and GELU (the column ``gate`` of the table);
- the **statistic**: what divides a signal and is computed of that signal without any weight, such
  as its norm or the root of its variance;
- the **query** and the **key** of attention, whose values carry the paths.

Where neither factor looks more like a gate than the other, the product is refused.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Container

from torch import fx, nn

from .layers import Rule, effect_of, rule_at
from .nodes import argument, is_shape, module_of, name_of, upstream, uses
from .surrogate import Use

_SATURATED, _INVERSE = 4, 5  # as the column `gate` of the table counts
_CLAMPS = frozenset("relu6 hardtanh clamp clip".split())
_PARTS = frozenset("getitem select narrow".split())
_IN_PLACE = frozenset("iadd isub imul itruediv".split())
_PAIRS = frozenset("var_mean std_mean".split())
PRODUCTS = frozenset("mul matmul bmm mm einsum".split())


class Signals:
    """Tells which arguments of the nodes in ``reached`` paths run through, and which are gates."""

    def __init__(
        self, graph: fx.Graph, modules: dict[str, nn.Module], reached: set[fx.Node]
    ) -> None:
        self.graph, self.modules, self.reached = graph, modules, reached
        self._carriers: dict[fx.Node, list[fx.Node]] = {}
        for node in graph.nodes:  # in order: mostly what is behind a node decides on it
            self.carriers(node)

    def module(self, node: fx.Node) -> nn.Module | None:
        return module_of(node, self.modules)

    def rule(self, node: fx.Node) -> Rule | None:
        return rule_at(node, self.module(node))

    def effect(self, node: fx.Node) -> str:
        return effect_of(node, self.module(node))

    def keeps_numbers(self, node: fx.Node) -> bool:
        """Whether ``node`` gives the numbers that it is given, but for their type or sign."""
        rule = self.rule(node)
        return rule is not None and rule.same_numbers

    def name(self, node: fx.Node) -> str:
        return name_of(node, self.module(node))

    def carriers(self, node: fx.Node) -> list[fx.Node]:
        """The arguments that paths run through; all of them, where no gate can be told."""
        if node not in self._carriers:
            self._carriers[node] = uses(node, self.reached)  # until it is known
            self._carriers[node] = self._carriers_of(node)
        return self._carriers[node]

    def _carriers_of(self, node: fx.Node) -> list[fx.Node]:
        signals, name, rule = uses(node, self.reached), self.name(node), self.rule(node)
        if rule is not None and rule.effect == "attends" and rule.several:
            return [n for n in signals if n is argument(node, "value", 2)] or signals
        if name == "where":
            return self._activated(signals) or signals
        if len(signals) != 2:
            return signals
        left, right = signals
        if _is_difference(node):
            if self._bounds(right, left) or self._is_taken_back(node, right):
                return [left]
            for one, other in ((left, right), (right, left)):
                if self._is_mixed(node, other):
                    return [one]
        for one, other in ((left, right), (right, left)) if name in ("add", "sub") else ():
            if self._centres(node, other):
                return [one]
            source = self._origin(other, signs=False)
            if name == "add" and _is_difference(source) and self._is_taken_back(source, one):
                return [other]
        if name == "div" and self.roots[right] <= self.roots[left]:
            return [left]
        if name not in PRODUCTS or left is right:
            return signals
        ranks = [self._likeness_beside(left, right), self._likeness_beside(right, left)]
        # Where a product adds up positions, only a softmax or a sigmoid says which of them count.
        able = max(ranks) > 0 if name == "mul" else max(ranks) == _SATURATED
        if ranks[0] == ranks[1] or not able:
            return signals
        return [right if ranks[0] > ranks[1] else left]

    def _activated(self, signals: list[fx.Node]) -> list[fx.Node]:
        """The branch of a ``where`` that stands for h in ``where(h > 0, h, a * h)``; [] if none.

        What chooses compares h with constants, and each branch is h, h times a constant, or one.
        """
        choosing = [n for n in signals if self.effect(n) == "compares"]
        branches = [n for n in signals if n not in choosing]
        compared = [source for n in choosing for source in uses(n, self.reached)]
        if len(choosing) != 1 or len(set(map(self._unscaled, [*branches, *compared]))) != 1:
            return []
        as_it_is = [n for n in branches if self._origin(n) is self._unscaled(n)]
        return as_it_is[:1] or (branches if len(branches) == 1 else [])

    def _unscaled(self, node: fx.Node) -> fx.Node:
        """The signal that ``node`` is a constant times of."""
        node = self._origin(node)
        name, sources = self.name(node), uses(node, self.reached)
        scaled = name == "mul" or name == "div" and node.args[0] in sources
        return self._unscaled(sources[0]) if scaled and len(sources) == 1 else node

    def _likeness_beside(self, factor: fx.Node, other: fx.Node) -> int:
        """How much ``factor`` looks like the gate of ``other``, its fellow factor."""
        rank, activation = self.likeness(factor)
        if rank == _INVERSE:
            return rank if self.roots[factor] <= self.roots[other] else 0
        # Halves of one activated signal gate neither, though a layer stands on one (gMLP).
        return 0 if rank and activation in upstream([other], self._signals_behind) else rank

    def _signals_behind(self, node: fx.Node) -> list[fx.Node]:
        """As `carriers`, but not the gate of a constant: in its first step a cell gates a state."""
        found = self.carriers(node)
        given = any(n not in self.reached and not is_shape(n) for n in node.all_input_nodes)
        gate = self.name(node) == "mul" and len(found) == 1 and given
        return [] if gate and self.likeness(found[0])[0] == _SATURATED else found

    def likeness(self, node: fx.Node) -> tuple[int, fx.Node]:
        """How much ``node`` looks like a gate, 0 for not at all, and the activation it ends in."""
        while node in self.reached:
            name, rule, sources = self.name(node), self.rule(node), uses(node, self.reached)
            if rule is not None and rule.gate:
                return self._clamp(node, rule, sources) if name in _CLAMPS else rule.gate, node
            power = argument(node, "exponent", 1) if name == "pow" else 0
            negative = isinstance(power, (int, float)) and power < 0
            over = name == "div" and node.args[0] not in self.reached
            if name in ("rsqrt", "reciprocal") or negative or over:
                return _INVERSE, node
            if name == "div" and len(sources) == 2:
                inner = self.likeness(sources[0])
                return inner if inner[0] else (_INVERSE, node)
            if name == "mul" and len(sources) == 2:  # an activation written by hand
                carrier = self.carriers(node)
                gate = [n for n in sources if n not in carrier]
                by_hand = len(gate) == 1 and self.roots[gate[0]] <= self.roots[carrier[0]]
                if by_hand and self.likeness(gate[0])[0] == _INVERSE:  # a norm by hand
                    node = carrier[0]
                    continue
                return int(by_hand), node
            through = self.effect(node) in ("moves", "sums", "adds") or name in ("mul", "div")
            if len(sources) != 1 or not (through or self.keeps_numbers(node)):
                return 0, node
            node = sources[0]
        return 0, node

    def divides(self, gate: fx.Node) -> bool:
        """Whether ``gate`` is one over something: a factor that ends so is a norm's."""
        return self.likeness(gate)[0] == _INVERSE

    def _clamp(self, node: fx.Node, rule: Rule, sources: list[fx.Node]) -> int:
        """A clamp behind a shift, ``relu6(x + 3)``, is a sigmoid; with one bound it is a ReLU."""
        bounds = [argument(node, key, place) for place, key in ((1, "min"), (2, "max"))]
        if self.name(node) in ("clamp", "clip") and None in bounds:
            return 0
        shifted = len(sources) == 1 and name_of(sources[0]) == "add"
        numbers = shifted and any(isinstance(n, (int, float)) for n in sources[0].args)
        return _SATURATED if numbers else rule.gate

    def open_value(self, gate: fx.Node, value: fx.Node) -> float:
        """The number that stands for an open gate: one, for a gate made by layers of its own.

        Where gate and value are made of the same numbers, as in an activation written by hand, the
        most that it reaches: two in ``0.5 * x * (1 + erf(x))``, six in ``x * relu6(x + 3) / 6``.
        """
        _, activation = self.likeness(gate)
        name, module = self.name(activation), self.module(activation)
        top = 1.0
        if name in _CLAMPS:
            place = "max" if name in ("clamp", "clip") else "max_val"
            top = argument(activation, place, 2, 1.0) if module is None else module.max_val
            top = 6.0 if name == "relu6" else float(top) if isinstance(top, (int, float)) else 1.0
        *chain, gate = self.chain(gate)
        if not self.roots[gate] <= self.roots[value] or self._is_pooled(gate, value):
            scaled = any(self.name(node) in ("mul", "div") for node in chain)
            return 1.0 if scaled or self.likeness(gate)[0] != _SATURATED else top
        for node in reversed(chain):
            number = next((n for n in node.args if isinstance(n, (int, float))), None)
            operation = {"mul": operator.mul, "div": operator.truediv, "add": operator.add}
            if number is not None and self.name(node) in operation:
                top = operation[self.name(node)](top, abs(number))
        return top

    def chain(self, gate: fx.Node) -> list[fx.Node]:
        """The nodes from a gate back to the activation that it ends in."""
        chain, activation = [gate], self.likeness(gate)[1]
        while chain[-1] is not activation:
            chain.append(self.carriers(chain[-1])[0])
        return chain

    def factors(self, gate: fx.Node, value: fx.Node) -> list[fx.Node]:
        """The nodes behind a gate's activation where constant tensors or masks act on it."""
        shared = self._behind(value, ())  # a norm of the value knows these factors as well
        *chain, end = [node for node in self.chain(gate) if node not in shared] or [gate]
        if self.name(end) == "div" and isinstance(end.args[0], fx.Node):
            chain += [] if end.args[0] in self.reached or is_shape(end.args[0]) else [end]
        return [
            node
            for node in chain
            if self.name(node) in ("mul", "div", "masked_fill")
            and any(n not in self.reached and not is_shape(n) for n in node.all_input_nodes)
        ]

    def _is_pooled(self, gate: fx.Node, value: fx.Node) -> bool:
        """Whether a gate is made of ``value`` by pooling, one for several of its numbers."""
        shared, found = self._behind(value, set()), self._behind(gate, self.roots[gate])
        return any(self.effect(node) in ("sums", "largest") for node in found - shared)

    def _behind(self, node: fx.Node, until: Container[fx.Node]) -> set[fx.Node]:
        return set(upstream([node], lambda n: [] if n in until else uses(n, self.reached)))

    @functools.cached_property
    def roots(self) -> dict[fx.Node, frozenset[fx.Node]]:
        """For every node the layers, or the input, that it is computed of, no weight between."""
        found: dict[fx.Node, frozenset[fx.Node]] = {}
        for node in self.graph.nodes:
            if node not in self.reached:
                continue
            sources = uses(node, self.reached)
            weighs = self.effect(node) in ("weighs", "own", "attends", "looks up")
            # Gates and values may be parts of one tensor: neither is computed of the other.
            several = _PAIRS | {"max"}
            part = _is_part(node, self.name(node)) and self.name(sources[0]) not in several
            if not sources or part or weighs and (node.op == "call_module" or len(sources) == 1):
                found[node] = frozenset([node])
            else:
                found[node] = frozenset().union(*(found[n] for n in sources))
        return found

    def _bounds(self, node: fx.Node, signal: fx.Node) -> bool:
        """Whether ``node`` bounds ``signal``: h - clamp(h) and tanhshrink are activations."""
        name = self.name(node)
        one_sided = name in ("clamp", "clip") and argument(node, "max", 2) is None
        known = name in _CLAMPS or name == "tanh"
        return known and not one_sided and uses(node, self.reached) == [signal]

    def _is_taken_back(self, difference: fx.Node, other: fx.Node) -> bool:
        """Whether ``difference`` is z - y, with y for ``other``, and is added to y alone.

        So y + (z - y).detach() is written for a z that gradients pass by, straight through.
        """
        last = difference
        while len(last.users) == 1 and self._repeats(user := next(iter(last.users)), signs=False):
            last = user
        return argument(difference, "other", 1) is other and all(
            self.name(user) == "add" and _has_no_factor(user) and other in uses(user, self.reached)
            for user in last.users
        )

    def _is_mixed(self, difference: fx.Node, y: fx.Node) -> bool:
        """Whether ``difference`` ends in y + g * (z - y) or y - g * (y - z) for a gate g.

        That is g * z + (1 - g) * y, and in both y counts once.
        """
        product = self._user(difference)
        if product is None or self.name(product) != "mul" or (total := self._user(product)) is None:
            return False
        gates = [n for n in uses(product, self.reached) if self._origin(n, False) is not difference]
        if len(gates) != 1 or self.likeness(gates[0])[0] in (0, _INVERSE):
            return False
        name, terms = self.name(total), list(total.args[:2])
        if argument(difference, "other", 1) is y:
            fits = name == "add" and _has_no_factor(total)
        else:
            fits, terms = _is_difference(total), terms[:1]
        return fits and y in [self._origin(n, False) for n in terms if n in self.reached]

    def _user(self, node: fx.Node) -> fx.Node | None:
        """The only node that uses ``node``, or what repeats it; None if there are several."""
        while len(node.users) == 1:
            node = next(iter(node.users))
            if not self._repeats(node, signs=False):
                return node
        return None

    def _repeats(self, node: fx.Node, signs: bool = True) -> bool:
        """Whether ``node`` is its argument in another type or, with ``signs``, of another sign."""
        same = node in self.reached and self.keeps_numbers(node)
        return same and (signs or self.name(node) not in ("neg", "abs"))

    def _origin(self, node: fx.Node, signs: bool = True) -> fx.Node:
        """The node whose numbers ``node`` repeats, itself or one behind it (see `_repeats`)."""
        while self._repeats(node, signs):
            node = uses(node, self.reached)[0]
        return node

    def _centres(self, node: fx.Node, mean: fx.Node) -> bool:
        """Whether the sum that ``node`` is a part of holds what ``mean`` is subtracted from.

        So it is in y - mean, y + (-mean), x + y - mean, x - y + mean: all but the mean carries.
        """
        of, terms = self._mean_of(mean), {}
        if of is None:
            return False
        while len(node.users) == 1 and self._adds(user := next(iter(node.users))):
            node = user
        pending = [(node, 1)]
        while pending:
            node, sign = pending.pop()
            node = self._origin(node, signs=False)
            if sign not in terms.setdefault(node, set()):
                terms[node].add(sign)
                inside = uses(node, self.reached) if self._adds(node) else []
                minus = argument(node, "other", 1) if self.name(node) == "sub" else None
                pending += [(part, -sign if part is minus else sign) for part in inside]
                if self.name(node) == "neg":
                    pending.append((uses(node, self.reached)[0], -sign))
        while self.name(mean := self._origin(mean, signs=False)) == "neg":
            mean = uses(mean, self.reached)[0]
        return any(-sign in terms.get(of, ()) for sign in terms.get(mean, ()))

    def _adds(self, node: fx.Node) -> bool:
        """Whether ``node`` is a sum of its arguments as they are, or a difference."""
        return _is_difference(node) or self.name(node) == "add" and _has_no_factor(node)

    def _mean_of(self, node: fx.Node) -> fx.Node | None:
        """What ``node`` is the mean of, if it is one."""
        while node in self.reached:
            name, sources = self.name(node), uses(node, self.reached)
            if name == "div" and len(sources) == 1 and node.args[0] is sources[0]:
                added = self._origin(sources[0])  # a sum over its length
                if self.name(added) == "sum":
                    return self._origin(uses(added, self.reached)[0])
            pair = name == "getitem" and name_of(sources[0]) in _PAIRS and node.args[1] == 1
            if name == "mean" or pair:
                return self._origin(uses(sources[0], self.reached)[0] if pair else sources[0])
            repeats = self.keeps_numbers(node) and name != "abs"
            if not (repeats or len(sources) == 1 and self.effect(node) == "moves"):
                return None
            node = sources[0]
        return None


def _is_part(node: fx.Node, name: str) -> bool:
    """Whether some of the numbers are taken; ``x[:, None]`` takes all of them."""
    index = node.args[1] if name == "getitem" else 0
    index = index if isinstance(index, tuple) else (index,)
    whole = (None, ..., slice(None))
    return name in _PARTS and not all(any(one is w or one == w for w in whole) for one in index)


def _is_difference(node: fx.Node) -> bool:
    """Whether ``node`` is its first argument minus its second: rsub takes them the other way."""
    return name_of(node) == "sub" and "rsub" not in str(node.target) and _has_no_factor(node)


def _has_no_factor(node: fx.Node) -> bool:
    return argument(node, "alpha", 2, 1) == 1


def refuse_hidden_writes(graph: fx.Graph, signals: Signals) -> None:
    """ValueError for writes in place that a graph does not show to those who read the tensor later.

    After ``r = h; h += g(x)`` the variable ``r`` holds the sum, and after a bare ``h.add_(x)`` so
    does ``h``; in the graph both are still the tensor from before.
    """
    first: dict[fx.Node, fx.Node] = {}  # a node that has run -> the one that made its numbers
    for node in graph.nodes:
        if node in signals.reached:
            if node.op != "call_module" and str(node.target).endswith("_") and not node.users:
                what = f"{node.target}, whose result is read from its argument later"
                raise Use(node, []).refusal(what)
            if node.kwargs.get("out") is not None:
                raise Use(node, []).refusal(f"{name_of(node)} with out=, a tensor that is written")
        rule = signals.rule(node)
        source = node.all_input_nodes[0] if node.all_input_nodes else None
        raw = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
        changes = raw.endswith("_") and not raw.endswith("__") or raw in _IN_PLACE
        changes = changes or node.meta.get("in_place", False)
        # An activation changes no path sum; one with a rank may decide which factor is a gate.
        matters = rule is not None and (rule.effect != "passes" or rule.gate)
        if node in signals.reached and changes and matters:
            names = [n for n, root in first.items() if root is first[source]]
            readers = {user for n in names for user in n.users if not is_shape(user)}
            # Each use of a constant is a node of its own: not all of its readers are seen here.
            if readers - {node, *first} or first[source].op == "get_attr":
                what = f"{raw}, in place on numbers that are read by another name later"
                raise Use(node, []).refusal(what)
        same = changes or rule is not None and (rule.same_numbers or rule.views)
        first[node] = first[source] if same and source is not None else node

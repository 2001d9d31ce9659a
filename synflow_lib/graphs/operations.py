"""What runs in place of every node of a graph, by the table of `layers`.

A node that a path runs through is *carried*. One that only steers (a gate, a query, a key) or only
gives a shape is *still*: it runs for its shape and its masks. The rest are constants. In
``a(x) * sigmoid(g(x))`` the input, ``a`` and the product are carried, ``g`` is still, and the
sigmoid is a still gate, for which one stands.
"""

from __future__ import annotations

import functools
import operator

from torch import Tensor, fx

from . import attention, surrogate
from .fixed import Fixed
from .gates import Signals, refuse_hidden_writes
from .layers import reached
from .nodes import all_inputs, argument, is_shape, name_of, upstream, uses
from .surrogate import Run, Use
from .tracing import is_draw

_MEANS = frozenset("softmax softmax2d softmin".split())
_BOUNDS = frozenset("clamp clip clamp_min".split())
_NOTHING = -20.0  # the exponential of a score as low is next to nothing
_COMBINES = frozenset("and or rand ror logical_and logical_or bitwise_and bitwise_or".split())
_NEGATES = frozenset("invert logical_not bitwise_not".split())
_TRIANGLES = frozenset("tril triu".split())
_MIXES = frozenset("mul where masked_fill".split()) | _COMBINES | _TRIANGLES
_OPENS = frozenset("sigmoid hardsigmoid".split())
# Zeros that a mask leaves in these are zeros for good; a learned number is zero at the moment only.
_KEEPS_ZEROS = frozenset(
    "mul div masked_fill where tril triu relu diag diag_embed block_diag kron".split()
)
_KEEPS_ZEROS_BY_EFFECT = frozenset("moves joins sums largest weighs".split())
_KEEPS_MASKS = frozenset("mul div matmul bmm addmm baddbmm clamp clip clamp_min".split())


class Operations:
    """What runs in place of the nodes of a graph, so that sums over paths come out.

    Args:
        net: a traced and linearized network (see `synflow_lib.synflow.linearize_`).
        sum_pools: let max-pooling pass every path, not only that of the largest input.
        biases: keep biases that functions are given.

    Attributes:
        reached: nodes whose numbers depend on those of the input; the others are in `fixed`.
        carriers: a node on a path -> those of its arguments that are on it as well.
        on_path: the nodes that paths run through.
        steers: nodes that only gates, queries and keys are made of.
        still: these, and what is needed for its shape alone.
        choices: of these, comparisons of signals and what is made of them alone.
        gate_values: a node -> its gates, each with the number that stands for it where it is open.
        computed_gates: of gates that no number can stand for, since masks or tensors act on them:
            node -> the node it is made of, in a list; [] for the activation, which becomes ones.

    Raises:
        ValueError: what is written in place and read elsewhere, a mask that the caller gives, a
            gate that is a signal as well.
    """

    def __init__(
        self, net: fx.GraphModule, *, sum_pools: bool = False, biases: bool = False
    ) -> None:
        graph, modules = net.graph, dict(net.named_modules())
        self.net, self.graph, self.modules = net, graph, modules
        self.sum_pools, self.biases = sum_pools, biases
        self.reached = reached(graph)
        self.signals = Signals(graph, modules, self.reached)
        refuse_hidden_writes(graph, self.signals)
        ends = {node for node in graph.nodes if node.op == "output"}
        self.carriers = upstream(ends, self.signals.carriers, self.reached)
        self.on_path = set(self.carriers) | {n for n in self.reached if n.op == "placeholder"}
        gates = {gate for node in self.carriers for gate in self.gates(node)}
        self.steers = set(upstream(gates, all_inputs, self.reached - self.on_path))
        # Asked for a shape alone: of `x.view_as(y)` the second, and what a constant is shaped by.
        needed = [node for node in graph.nodes if node in self.on_path or node not in self.reached]
        asked = {n for node in needed for n in all_inputs(node)}
        self.still = self.steers | set(upstream(asked, all_inputs, self.reached - self.on_path))
        self._refuse_given_masks()
        self.choices = self._choices()
        self.computed_gates: dict[fx.Node, list[fx.Node]] = {}
        self.gate_values = {
            node: found for node in self.carriers if (found := self._gate_values(node))
        }
        self.fixed = Fixed(net, modules, self.reached, self.on_path)
        self.gate_values |= self.fixed.gate_values

    @property
    def nodes(self) -> list[fx.Node]:
        """What has to run, in order: all but what the output does not depend on."""
        dead = self.reached - self.on_path - self.still
        return [node for node in self.graph.nodes if node not in dead]

    def check(self) -> Operations:
        """ValueError if the table does not hold all that has to run."""
        for node in self.nodes:
            self.run(node)
        return self

    def _refuse_given_masks(self) -> None:
        """Refuse masks of numbers that are inputs: they close paths, by values not known yet."""
        for given in self.reached - set(self.carriers):
            mask_like = [given] if given.op == "placeholder" else []
            for node in mask_like:  # grows meanwhile
                for user in node.users:
                    effect = self.signals.effect(user)
                    masks = [*user.args[3:], *(v for k, v in user.kwargs.items() if "mask" in k)]
                    if self.signals.name(user) in _MEANS or effect == "attends" and node in masks:
                        raise Use(user, []).refusal(
                            f"the input {given.target!r}, a mask of numbers,"
                        )
                    moves = effect in ("moves", "adds", "scales")
                    if user not in mask_like and (moves or self.signals.keeps_numbers(user)):
                        mask_like.append(user)

    def _choices(self) -> set[fx.Node]:
        """Nodes that hold a yes or no which depends on the input: comparisons and masks of them."""
        found: set[fx.Node] = set()
        for node in self.graph.nodes:
            if node not in self.still:
                continue
            name, sources = self.signals.name(node), uses(node, self.reached)
            effect = self.signals.effect(node)
            plain = effect in ("moves", "passes", "adds", "scales", "joins")
            if effect == "compares" or (
                sources
                and found.issuperset(sources)
                and (plain and name not in _MEANS or name.strip("_") in _NEGATES | _MIXES)
            ):
                found.add(node)
        return found

    def _mixes(self, node: fx.Node) -> bool:
        """Whether ``node`` combines a fixed mask with one that is computed of the input."""
        name = self.signals.name(node).strip("_")
        if name not in _MIXES or self.choices.isdisjoint(uses(node, self.reached)):
            return False
        return name in _TRIANGLES or any(
            n not in self.reached and not is_shape(n) and not self._is_number(n)
            for n in node.all_input_nodes
        )

    def _is_number(self, node: fx.Node) -> bool:
        held = node.op == "get_attr" and operator.attrgetter(str(node.target))(self.net)
        return isinstance(held, Tensor) and held.numel() == 1

    @property
    def gated(self) -> bool:
        """Whether any part of the network only steers another."""
        effects = map(self.signals.effect, self.on_path)
        return bool(self.steers | self.fixed.aside) or not {"gates", "attends"}.isdisjoint(effects)

    def steering_parameters(self) -> tuple[set[str], set[str]]:
        """Names of the weights that only steer, and of those that may do so with some rows.

        One that is used twice may steer at one place and carry the signal at the other.
        """
        names = self.fixed.weights_of
        carried = set().union(*(names[node] for node in self.on_path))
        aside = set().union(*(names[node] for node in self.steers | self.fixed.aside))
        split = set().union(*(names[node] for node in self.on_path if self._is_split(node)))
        return aside - carried, aside & carried | split

    def _is_split(self, node: fx.Node) -> bool:
        """Whether a part of a layer's output reaches a gate without passing another layer."""
        if not self.fixed.weights_of[node]:
            return False
        if self.signals.effect(node) == "attends":
            return True
        behind = [node]
        for user in (user for one in behind for user in one.users):  # behind grows meanwhile
            effect = self.signals.effect(user) if user in self.on_path else ""
            if user in self.steers or effect in ("gates", "attends"):
                return True
            onward = effect in ("moves", "passes", "scales", "adds", "joins", "sums")
            if onward and user not in behind:
                behind.append(user)
        return False

    def gates(self, node: fx.Node) -> list[fx.Node]:
        """The arguments of a node on a path that only steer it."""
        return [n for n in uses(node, self.reached) if n not in self.carriers[node]]

    def _gate_values(self, node: fx.Node) -> dict[fx.Node, float]:
        """The gates of ``node``, with their numbers; fills ``computed_gates`` with the others."""
        effect = self.signals.effect(node)
        if effect not in ("scales", "weighs"):
            return {}
        found, divides = {}, name_of(node) == "div"
        for gate in self.gates(node):
            carrier = self.carriers[node][0]
            chain, factors = self.signals.chain(gate), self.signals.factors(gate, carrier)
            activation = self.signals.name(chain[-1])
            signal = not self.on_path.isdisjoint(chain)
            several = any(len(uses(n, self.reached)) > 1 for n in chain[:-1])
            # Where no one number stands for the open gate: masked in part, or divided by its sum.
            opens = chain == [gate] and activation in _OPENS
            masked = not divides and (opens or effect == "weighs")
            over = (n.args[1] for n in chain if name_of(n) == "div" and n.args[1] in self.reached)
            shares = [*filter(None, map(self._summed, [gate] if divides else over))]
            if activation in _MEANS and not divides:
                if gate in self.on_path:
                    what = f"{activation} that is a gate and a signal as well"
                    raise Use(node, [gate]).refusal(what)
            elif factors and (divides or signal or several):
                what = f"a tensor that {name_of(factors[0])} has on a gate"
                raise Use(node, [gate]).refusal(what)
            elif factors or not signal and (shares or masked):
                for *behind, start in shares if divides else [chain, *shares]:
                    self.computed_gates |= {n: self.signals.carriers(n)[:1] for n in behind}
                    self.computed_gates[start] = []
            else:
                found[gate] = 1.0 if divides else self.signals.open_value(gate, carrier)
        return found

    def _summed(self, divisor: fx.Node) -> list[fx.Node]:
        """The chain of a divisor that adds up open gates, so as to average over them; else []."""
        chain = self.signals.chain(divisor)
        while self.signals.name(chain[-1]) in _BOUNDS:
            chain = self.signals.chain(uses(chain[-1], self.reached)[0])
        names = [self.signals.name(node) for node in chain]
        return chain if "sum" in names and names[-1] in _OPENS else []

    def build(self, node: fx.Node) -> Run | None:
        """What ``node`` computes of its arguments; None where it passes on the one it is given.

        ValueError where the table has no row for it.
        """
        if node.op in ("placeholder", "output"):
            return None
        use = self._use(node, self.carriers[node])
        rule = self.signals.rule(node)
        if rule is None or not (use.alone or rule.several):
            raise use.refusal()
        return rule.build(use)

    def _use(self, node: fx.Node, carriers: list[fx.Node]) -> Use:
        module, fixed = self.signals.module(node), (self.fixed.computed, self.fixed.learned)
        how = self.sum_pools, self.biases, *fixed, self.still
        return Use(node, uses(node, carriers), module, *how)

    def run(self, node: fx.Node) -> Run | None:
        """What ``node`` computes, whatever it is: carried, still or constant."""
        if node in self.on_path:
            return self.build(node)
        if node in self.still:
            return attention.without_gradients(self.stilled(node))
        return self.constant(node)

    def stilled(self, node: fx.Node) -> Run:
        """What runs in place of a still node: for a softmax a mean, else shapes and masks only."""
        name, rule, run = self.signals.name(node), self.signals.rule(node), self.constant(node)
        if node in self.computed_gates:
            if not self.computed_gates[node]:
                return functools.partial(attention.opened, run)
            use = self._use(node, self.computed_gates[node])
            # A plain number times an open gate is an open gate still: one.
            number = name in ("mul", "div") and len(node.all_input_nodes) == 1
            how = None if number else rule.build(use)
            return how or (lambda *args, **_: args[use.place])
        if name in _MEANS:
            module = self.signals.module(node)
            dim = argument(node, "dim", 1) if module is None else getattr(module, "dim", -3)
            return attention.softmax(dim, -1 if name == "softmin" else 1)
        if self._mixes(node):
            raise Use(node, []).refusal(f"{name} of a fixed mask and one computed of the input")
        effects = ("moves", "adds", "joins", "sums", "largest")
        keeps = self.signals.keeps_numbers(node) or self.signals.effect(node) in effects
        condition = node.args[node.op == "call_method"] if name == "where" else None
        chosen = condition in self.reached  # the input chooses: no fixed mask
        if name in _BOUNDS:
            low = argument(node, "min", 1)
            if isinstance(low, (int, float)) and low <= _NOTHING:
                return lambda x, *_, **__: x  # a mask's numbers stay
            if low is not None:
                run = attention.refusing_masks(run, Use(node, []))
        if (keeps or name in _KEEPS_MASKS) and not chosen:
            run = surrogate.view(Use(node, [])) if name == "view" else run
            return functools.partial(attention.masks_only, run)
        own = self.signals.effect(node) in ("compares", "attends")
        run = run if own else attention.refusing_masks(run, self._use(node, []))
        return functools.partial(attention.zeros_of_its_shape, run)

    def constant(self, node: fx.Node) -> Run | None:
        """What computes a value that the input does not reach: the operation as it is.

        With ``sum_pools``, for all paths, learned numbers count as ones: that one of them is zero
        at the moment removes no path.
        """
        if node.op in ("placeholder", "output"):
            return None
        if node.op == "get_attr":
            how = functools.partial(operator.attrgetter(str(node.target)), self.net)
        elif node.op == "call_module":
            how = functools.partial(surrogate.in_its_type, self.modules[str(node.target)])
        elif "dropout" in name_of(node):
            how = lambda x, *_, **__: x  # noqa: E731
        elif is_draw(name_of(node)):
            drawn = f"{name_of(node)}, random numbers that differ in every pass,"
            raise Use(node, []).refusal(drawn)
        elif node in self.fixed.normalized:
            use = self._use(node, self.fixed.normalized[node])
            how = self.signals.rule(node).build(use) or (lambda *args, **_: args[use.place])
        else:
            how = Use(node, []).plain()
            if self.signals.effect(node) == "weighs":
                how = functools.partial(surrogate.of_one_type, how)
        if self.sum_pools and node in self.fixed.learned:
            if node.op in ("get_attr", "call_module"):
                how = functools.partial(surrogate.ones, how)
            else:  # where a fixed mask takes numbers away there is no path
                effect = self.signals.effect(node)
                zeros = name_of(node) in _KEEPS_ZEROS or self.signals.keeps_numbers(node)
                zeros = zeros or effect in _KEEPS_ZEROS_BY_EFFECT
                if effect == "weighs":  # numbers of both signs might add up to zero
                    how = functools.partial(surrogate.of_absolutes, how)
                how = functools.partial(attention.ones_but_masks, how, zeros)
        return how

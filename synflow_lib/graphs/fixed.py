"""What does not depend on the input: weights, and constants made of learned numbers.

A weight may be moved, scaled or centred before a function uses it (weight normalization, weight
standardization). As long as it is one factor of a product it is a factor of its paths. Anything
else makes another number of it, which is called *computed* here.
"""

from __future__ import annotations

from torch import fx, nn

from .gates import Signals
from .layers import effect_of
from .network import layer_weights
from .nodes import is_shape, name_of, upstream, uses


class Fixed:
    """The constants of a graph, and what each of them is made of.

    Args:
        net: a traced network, with its ``modules`` by name.
        reached: the nodes whose numbers depend on those of the input.
        on_path: those of them that paths run through.

    Attributes:
        weights_of: node -> names of the parameters that it multiplies with, or is made of.
        learned: constants made of parameters that are no weights of layers.
        aside: layers that are called on constants.
        computed: constants that are no weight any more, though made of one.
        normalized: a node that scales or centres a weight -> the argument that is the weight.
        gate_values: such a node -> its other arguments, for which one stands, as for a gate.
    """

    def __init__(
        self,
        net: fx.GraphModule,
        modules: dict[str, nn.Module],
        reached: set[fx.Node],
        on_path: set[fx.Node],
    ) -> None:
        self.graph, self.reached = net.graph, reached
        self.parameters = {name for name, _ in net.named_parameters(remove_duplicate=False)}
        self.weights_of: dict[fx.Node, frozenset[str]] = {}
        self.learned: set[fx.Node] = set()
        self.computed: set[fx.Node] = set()
        self.normalized: dict[fx.Node, list[fx.Node]] = {}
        self.gate_values: dict[fx.Node, dict[fx.Node, float]] = {}
        changed = self._classify(layer_weights(net))
        self.aside = {node for node in changed if node.op == "call_module"}
        # A weight that is centred and scaled before its use is normalized, as a signal would be.
        used = {n for node in on_path for n in node.all_input_nodes if n in changed}
        self._follow(used, changed, Signals(net.graph, modules, set(changed)))

    def _classify(self, weights: set[str]) -> dict[fx.Node, bool]:
        """Fill ``weights_of`` and ``learned``.

        Returns constants that are made of ``weights`` -> whether more was done than to move them.
        """
        changed: dict[fx.Node, bool] = {}
        for node in self.graph.nodes:
            if is_shape(node):  # no number of what it asks about
                self.weights_of[node] = frozenset()
                continue
            own = self._own(node)
            # What layers make of constants is no path: a table of positions, an added bias.
            inner = (
                self.weights_of[n]
                for n in node.all_input_nodes
                if n not in self.reached and n.op != "call_module"
            )
            self.weights_of[node] = frozenset(own).union(*inner)
            if node in self.reached:
                continue
            sources = [changed[n] for n in node.all_input_nodes if n in changed]
            if own & weights:
                changed[node] = node.op == "call_module"
            elif sources:
                moves = effect_of(node) == "moves" or name_of(node) in ("to", "contiguous")
                changed[node] = any(sources) or not moves
            elif (
                self.learned.intersection(node.all_input_nodes)
                or node.op == "get_attr"
                and str(node.target) in self.parameters
                or node.op == "call_module"
            ):
                self.learned.add(node)
        return changed

    def _own(self, node: fx.Node) -> set[str]:
        """Names of the parameters that a node reads, or multiplies its input with."""
        name = str(node.target)
        if node.op == "call_module":
            return {f"{name}.weight".removeprefix("."), f"{name}.out_proj.weight"} & self.parameters
        return {name} & self.parameters if node.op == "get_attr" else set()

    def _follow(self, used: set[fx.Node], changed: dict[fx.Node, bool], signals: Signals) -> None:
        """Fill ``normalized``, ``computed`` and ``gate_values``, starting from layers' weights."""
        for node, carriers in reversed(upstream(used, signals.carriers, changed).items()):
            if not changed[node]:
                continue
            gates = [n for n in uses(node, changed) if n not in carriers]
            effect, name = signals.effect(node), name_of(node)
            known = effect in ("moves", "scales") or name in ("normalize", "contiguous")
            known = known or effect and name == "sub" and len(uses(node, changed)) > 1
            # A weight times a threshold or tanh of it is another weight, and no norm of it.
            known = known and (name != "mul" or all(map(signals.divides, gates)))
            if not known or len(carriers) != 1 or carriers[0] in self.computed:
                self.computed.add(node)
                continue
            self.normalized[node] = carriers
            if any(signals.factors(gate, carriers[0]) for gate in gates):
                self.computed.add(node)
            else:
                self.gate_values[node] = dict.fromkeys(gates, 1.0)

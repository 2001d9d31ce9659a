"""The loop behind `prune` and `trajectory`: score, remove, score again."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .batches import first_input
from .fast.pieces import fixed_order
from .fast.selection import count, erase, keep_cut, keep_largest, places
from .graph import input_shape as find_input_shape
from .graph import warn
from .guards import ZeroScores, refuse_unfit, warn_of_silence
from .masks import Masks
from .methods import Method, SynFlow
from .record import Record
from .saliency import precision, resolve
from .trajectory import Trajectory, kept_at
from .wiring import wiring
from .workspace import Context, Workspace, no_trace, whole_number

# (step, scores, alive, stay, method) -> how many of those alive stay; ``stay`` is where it says
# which. None ends the run.
Decide = Callable[[int, Tensor, Tensor, Tensor, Method], "int | None"]
_SHRUNK = 0.75  # survivors since the last look for dead units, before the next one


class PruningLoop:
    """One run of one method on one private copy of the model."""

    def __init__(self, model, method, context: Context, progress: bool | None, **select) -> None:
        self.method_class = resolve(method)
        self.work = Workspace(model, precision(model, self.method_class, context), **select)
        self.model, self.context, self.progress = model, context, progress
        self.total = self.work.flat.numel()
        self.layout = dict(zip(self.work.names, self.work.shapes, strict=True))
        self.sizes = list(self.work.sizes)
        # What is zero was pruned before, or might as well be: it goes first. A bias starts at zero.
        views = self.work.views(self.work.flat)
        self.alive = {name: bool(view.any()) for name, view in views.items()}
        # A layer of zeros alone is one that starts at zero, such as a head, and not a pruned one.
        zero = [n for n, alive in self.alive.items() if not alive and not n.endswith("bias")]
        if zero:
            warn(
                f"{zero} hold zeros only: taken as zero-initialized, not as pruned before. What"
                " scores weights by their values or paths sees nothing there and prunes them first"
            )
        start = [(view != 0) | (n in zero) | n.endswith("bias") for n, view in views.items()]
        self.start = torch.cat([part.flatten() for part in start])
        if not bool(self.start.any()):
            self.start.fill_(True)
        self.left = count(self.start)
        self.zeros: ZeroScores | None = None  # known from the first scoring on

    def iterations(self, given: int | None) -> int:
        if given is None:
            return self.method_class.iterations
        return whole_number("iterations", given, least=1)

    def bar(self, total: int | None = None) -> tqdm:
        # Only a terminal sees a bar unasked: in a notebook it would become part of the outputs.
        hide = not (sys.stderr.isatty() if self.progress is None else self.progress)
        return tqdm(total=total, desc="pruning", unit=" iterations", disable=hide, delay=2)

    def no_trace(self) -> contextlib.AbstractContextManager[None]:
        draws = self.method_class.draws(self.work.net, self.context)
        return no_trace(self.work.flat.device, self.context.seed, draws)

    def score(self, method: Method) -> Tensor:
        """Scores of all places of the workspace."""
        flat = method.flat()
        refuse_unfit(method, flat)
        if self.zeros is None:
            scores = self.work.views(flat)
            warn_of_silence(scores, self.alive)
            start = self.work.views(self.start)
            self.zeros = ZeroScores.of(method, scores, start, self.alive)
        return flat

    def loop(
        self,
        decide: Decide,
        length: int | None = None,
        record: Record | None = None,
        start: Tensor | None = None,
    ) -> Tensor:
        """Score, and keep what ``decide`` marks, ``length`` times or until it ends the run.

        Places are those of the workspace. Once the method has left dead units out they are fewer
        than the N weights, and ``origin`` says which weight stands where.
        Returns the survivors as a flat mask, bool (N,).
        """
        device = self.work.flat.device
        origin: Tensor | None = None
        with self.no_trace(), fixed_order(), self.bar(length) as bar:
            alive = (self.start if start is None else start).clone()
            stay = torch.empty_like(alive)
            if record and self.left < self.total:
                everything = torch.ones_like(alive)
                record.add(torch.zeros_like(self.work.flat), everything, alive, self.left)
            looked_at = count(alive)
            method = self.method_class(self.work, self.context)
            if record:
                record.within = method.within
            for step in itertools.count() if length is None else range(length):
                scores = self.score(method)
                left = decide(step, scores, alive, stay, method)
                if left is None:
                    break
                if record:
                    record.add(scores, alive, stay, left)
                erase(self.work.flat, stay)
                alive, stay = stay, alive
                if self.context.fast and left < _SHRUNK * looked_at:
                    looked_at = left
                    if smaller := method.compact(alive):
                        take, alive = smaller
                        stay = torch.empty_like(alive)
                        origin = take.places() if origin is None else take(origin)
                        if record:
                            record.move(take, origin)
                bar.update()
        if origin is None:
            return alive
        mask = torch.zeros(self.total, dtype=torch.bool, device=device)
        return mask.index_fill_(0, origin.index_select(0, places(alive)).long(), True)

    def masks(self, flat: Tensor, scope: str) -> Masks:
        masks = Masks.cut(flat, self.layout)
        if self.zeros:
            self.zeros.warn(masks, scope)
        return masks

    def by_counts(self, counts: list[int], record: Record | None = None) -> Masks:
        """Keep ``counts[t]`` weights after iteration t; iterations that remove nothing are free."""
        kept = counts[-1]
        counts = [count for count in counts if count < self.left]
        counts = [b for a, b in zip([self.left, *counts], counts, strict=False) if b < a]

        def decide(step: int, scores: Tensor, alive: Tensor, stay: Tensor, method: Method) -> int:
            if record and isinstance(method, SynFlow):
                record.cut = float(method.total)  # on a chain the score of every layer
            keep_largest(scores, counts[step], alive, within=method.within, out=stay)
            return counts[step]

        flat = self.loop(decide, len(counts), record)
        if kept > self.left:  # fill up with what is zero
            flat[places(~flat)[: kept - self.left]] = True
        return self.masks(flat, "global")

    def once(self) -> Trajectory:
        """One scoring, which orders all weights: none has to be removed to know when it goes."""
        known = self.work.flat.dtype
        with self.no_trace(), fixed_order():
            method = self.method_class(self.work, self.context)
            scores = self.score(method)
            cut = float(method.total) if isinstance(method, SynFlow) else float("nan")
            # A scorer of the user's may be less precise than the weights, or more.
            scores = scores.to(torch.promote_types(known, scores.dtype))
            way = Trajectory.ranked(self.layout, scores, cut, method.within, start=self.start)
            way.zeros = self.zeros
            return way

    def local(self, densities: list[float], compression: float) -> Masks:
        """The same within every layer, at least one weight each."""
        goal = [kept_at(size, min(compression, size)) for size in self.sizes]

        def decide(step: int, scores: Tensor, alive: Tensor, stay: Tensor, method: Method) -> int:
            counts = [round(size * densities[step]) for size in self.sizes]
            if step == len(densities) - 1:
                counts = goal
            kept = [max(a, b) for a, b in zip(counts, goal, strict=True)]
            if self.left < self.total:
                scores = scores.masked_fill(~self.start, -torch.inf)
            views = [self.work.views(t).values() for t in (scores, alive, stay)]
            for part, on, out, k in zip(*views, kept, strict=True):
                keep_largest(
                    part.flatten(), k, on.flatten(), within=method.within, out=out.view(-1)
                )
            return sum(kept)

        # What is zero can be asked for here, so nothing is known to be dead.
        self.context.fast &= self.left == self.total
        flat = self.loop(decide, len(densities), start=torch.ones_like(self.start))
        return self.masks(flat, "local")

    def by_cuts(self, stop: int) -> Trajectory:
        """Theorem 3 as the schedule, until ``stop`` weights are left or no more can go."""
        record = Record(self.total, self.work.flat)
        # Rounding must not eat the last path: stay under the cut by more than rounding.
        slack = 1.0 - torch.finfo(self.work.flat.dtype).eps ** 0.5
        cuts = self.cuts()

        def decide(
            step: int, scores: Tensor, alive: Tensor, stay: Tensor, method: Method
        ) -> int | None:
            left = record.counts[-1]
            if left <= stop:
                return None
            record.cut = self._least(cuts, scores, alive, method)
            keep_cut(scores, record.cut * slack, alive, within=method.within, out=stay)
            if isinstance(method, SynFlow) and method.pipes.detours:
                _spare_shortest(stay, alive, method, slack)
            kept = count(stay)
            if kept < stop:  # the best of what would go fill up to the count
                stay |= keep_largest(scores, stop - kept, alive ^ stay, within=method.within)
                kept = stop
            return kept if kept < left else None

        self.loop(decide, None, record)
        return record.trajectory(self.layout, self.zeros)

    def _least(self, cuts: list[list[int]], scores: Tensor, alive: Tensor, method: Method) -> float:
        """What the cut carries that carries least."""
        if method.through is not None:  # known without a pass over the scores
            return float(method.through)
        scores = scores.masked_fill(~alive, 0)
        if float(scores.amin()) < 0:
            raise ValueError(
                f"{self.method_class.__name__} gave negative scores; schedule='cut' needs"
                " positive conserved ones (Theorem 3)"
            )
        sums = [float(view.sum(dtype=torch.float64)) for view in self.work.views(scores).values()]
        return min(sum(sums[layer] for layer in cut) for cut in cuts)

    def cuts(self) -> list[list[int]]:
        """The cuts of the network, each as the numbers of the layers that cross it."""
        example = first_input(self.context.batch)
        shape = find_input_shape(self.model, self.context.input_shape, example)
        number = {name: position for position, name in enumerate(self.work.names)}
        named = [[f"{n}.weight" for n in names] for names, _ in wiring(self.model, shape).cuts()]
        # A cut with a dense layer in it (keep=) cannot be emptied and needs no watching.
        watched = [[number[n] for n in names] for names in named if set(names) <= set(number)]
        if not watched:
            raise ValueError("keep= leaves a dense layer in every cut: nothing for 'cut' to watch")
        return watched


def _spare_shortest(stay: Tensor, alive: Tensor, method: SynFlow, slack: float) -> None:
    """Also leave a path through the fewest weights, so that rho_max by path is reached.

    The same union bound on the sum over the shortest paths of a residual network: of the weights
    that would go, those stay that the shortest paths need most, so that what goes carries less
    than all of that sum. Once every weight carries all of R, the weights off those paths go.
    """
    short = method.shortest()
    limit = float(method.total) * slack
    if not limit:  # no such path is alive, nothing to spare
        return
    spared = keep_cut(short, limit, alive ^ stay, within=method.within)
    if count(spared) == count(alive ^ stay):
        keep_cut(short, limit, alive, within=method.within, out=stay)
    else:
        stay |= spared

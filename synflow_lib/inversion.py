"""A method turned upside down: what it values least is kept longest."""

from __future__ import annotations

import torch
from torch import Tensor

from .scores import Method, Scorer, Scores, resolve
from .workspace import Context, Workspace


class Inverted(Method):
    """Minus the scores of ``inner``; below all of them for weights that are zero already."""

    inner: type[Method]

    def __init__(self, work: Workspace, context: Context) -> None:
        super().__init__(work, context)
        self.method = type(self).inner(work, context)

    def flat(self) -> Tensor:
        return self._inverted(self.method.flat())

    def scores(self) -> Scores:
        found = self.method.scores()
        flat = self._inverted(self.work.flatten(found))
        return Scores(self.work.views(flat), log2_scale=getattr(found, "log2_scale", 0))

    def _inverted(self, flat: Tensor) -> Tensor:
        pruned = self.work.flat == 0
        flat = -flat
        if pruned.any():
            worst = flat.amin()
            # Strictly below the others, for scores of any size.
            below = worst - worst.abs() / 8 - 1e-30
            flat = flat.masked_fill(pruned, below.clamp(min=torch.finfo(flat.dtype).min))
        return flat


def inverted(method: str | Scorer | type[Method]) -> type[Method]:
    """The method that keeps what another method would prune first, and prunes what it would keep.

    Scored again and again, as SynFlow is, the order of those that are left is reversed each time;
    a weight that is zero, such as one pruned before, scores lowest and never returns.

    Args:
        method: a name, a function ``(model, batch) -> scores`` or a method class, as in `score`.

    Returns:
        A method for `score`, `prune` and `register`, with the data, the mode and the number of
        iterations of the original. Its scores are negative: Theorem 3, ``schedule="cut"``, has
        nothing to say about them.

    Raises:
        TypeError, ValueError: no such method.

    Paper: the inversion test of Frankle et al. 2021, arXiv 2009.08576.

    >>> from synflow_lib.pruning import prune
    >>> layer = torch.nn.Linear(3, 1)
    >>> _ = layer.weight.data.copy_(torch.tensor([[3.0, 1.0, 2.0]]))
    >>> prune(layer, inverted("magnitude"), 3)["weight"]
    tensor([[False,  True, False]])
    """
    inner = resolve(method)
    return type(
        f"Inverted{inner.__name__}",
        (Inverted,),
        {
            "inner": inner, "needs_data": inner.needs_data, "iterations": inner.iterations,
            "mode": inner.mode, "draws": inner.draws,
            "__doc__": f"{inner.__name__}, its order reversed.",
        },
    )  # fmt: skip

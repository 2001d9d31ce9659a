"""Pruning at initialization: score, prune, check conservation, measure collapse.

The reference is *Pruning neural networks without any data by iteratively conserving synaptic
flow* (Tanaka, Kunin, Yamins, Ganguli, NeurIPS 2020, arXiv 2006.05467).

>>> import synflow_lib as sf
>>> masks = sf.prune(sf.models.fc(seed=0), "synflow", compression=1e3)
>>> masks.kept, masks.empty_layers()
(119, [])
"""

from . import data, env, figures, models, paper, quotas, saliency, surgery
from .collapse import (
    CriticalCompression,
    PathProbe,
    critical_compression,
    effective_compression,
    is_collapsed,
    max_compression,
)
from .conservation import ConservationReport, check_conservation
from .graph import prunable
from .inversion import inverted
from .iterative import imp, imp_many
from .masks import Masks
from .pruning import prune, trajectory
from .recipes import Recipe, paper_recipe
from .recorded import recorded
from .runs import Run
from .saliency import METHODS, Scores, register, score, synaptic_saliency
from .sweep import histories, results, sweep
from .training import Training, evaluate, train, train_many
from .trajectory import Trajectory

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "ConservationReport",
    "CriticalCompression",
    "Masks",
    "PathProbe",
    "Recipe",
    "Run",
    "Scores",
    "Training",
    "Trajectory",
    "check_conservation",
    "critical_compression",
    "data",
    "effective_compression",
    "env",
    "evaluate",
    "explore",
    "figures",
    "histories",
    "imp",
    "imp_many",
    "inverted",
    "is_collapsed",
    "max_compression",
    "models",
    "paper",
    "paper_recipe",
    "prunable",
    "prune",
    "quotas",
    "recorded",
    "register",
    "results",
    "saliency",
    "score",
    "surgery",
    "sweep",
    "synaptic_saliency",
    "train",
    "train_many",
    "trajectory",
]


def __getattr__(name: str):
    if name == "explore":  # not before it is asked for: only notebooks need it
        import importlib

        return importlib.import_module(".explore", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

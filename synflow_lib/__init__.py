"""Pruning at initialization: score, prune, check conservation, measure collapse.

The reference is *Pruning neural networks without any data by iteratively conserving synaptic
flow* (Tanaka, Kunin, Yamins, Ganguli, NeurIPS 2020, arXiv 2006.05467).

>>> import synflow_lib as sf
>>> masks = sf.prune(sf.models.fc(seed=0), "synflow", compression=1e3)
>>> masks.kept, masks.empty_layers()
(119, [])
"""

import importlib

from . import data, env, methods, models, quotas, scores, surgery
from .collapse import (
    CriticalCompression,
    PathProbe,
    critical_compression,
    effective_compression,
    is_collapsed,
    max_compression,
)
from .conservation import ConservationReport, check_conservation
from .graphs import layers
from .graphs import network as network  # what notebook 08 calls sf.network
from .graphs.network import prunable
from .masks import Masks
from .methods import inverted, synaptic_saliency
from .pruning import prune, trajectory
from .reproduction.recorded import recorded
from .scores import METHODS, Scores, register, score
from .sweeps.run import Run
from .sweeps.store import histories, results
from .sweeps.sweep import sweep
from .training.iterative import imp, imp_many
from .training.recipes import Recipe, paper_recipe
from .training.train import Training, evaluate, train, train_many
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
    "exercises",
    "explore",
    "figures",
    "grids",
    "histories",
    "imp",
    "imp_many",
    "inverted",
    "is_collapsed",
    "layers",
    "max_compression",
    "methods",
    "models",
    "paper",
    "paper_recipe",
    "predict",
    "prunable",
    "prune",
    "quotas",
    "recorded",
    "register",
    "results",
    "score",
    "scores",
    "surgery",
    "sweep",
    "synaptic_saliency",
    "train",
    "train_many",
    "trajectory",
]


def __getattr__(name: str):
    if name in ("exercises", "explore", "figures", "grids", "paper", "predict"):  # for notebooks
        return importlib.import_module(f".reproduction.{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

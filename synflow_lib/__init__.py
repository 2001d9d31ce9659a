"""Pruning at initialization: score, prune, check conservation, measure collapse.

The reference is *Pruning neural networks without any data by iteratively conserving synaptic
flow* (Tanaka, Kunin, Yamins, Ganguli, NeurIPS 2020, arXiv 2006.05467).

>>> import synflow_lib as sf
>>> masks = sf.prune(sf.models.fc(seed=0), "synflow", compression=1e3)
>>> masks.kept, masks.empty_layers()
(119, [])
"""

from . import data, env, figures, models, paper, saliency
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
from .masks import Masks
from .pruning import prune, trajectory
from .saliency import METHODS, Scores, register, score, synaptic_saliency
from .trajectory import Trajectory

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "ConservationReport",
    "CriticalCompression",
    "Masks",
    "PathProbe",
    "Scores",
    "Trajectory",
    "check_conservation",
    "critical_compression",
    "data",
    "effective_compression",
    "env",
    "figures",
    "is_collapsed",
    "max_compression",
    "models",
    "paper",
    "prunable",
    "prune",
    "register",
    "saliency",
    "score",
    "synaptic_saliency",
    "trajectory",
]

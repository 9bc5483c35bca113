"""Contextual diversity and the strategies that pick which images to label next.

Needs torch and numpy, and knows nothing about image files, jobs or Label Studio: a model's scores
of the images go in as arrays, and ordered picks come out.
"""

from cdal.selectors.diversity import (
    DiversityEmbedding,
    Missing,
    aggregate_contextual_diversity,
    contextual_diversity,
)
from cdal.selectors.mixtures import (
    ClassMixtures,
    Region,
    Weights,
    mixtures_of_boxes,
    mixtures_of_independent,
    mixtures_of_logits,
    mixtures_of_probabilities,
    mixtures_of_vectors,
)
from cdal.selectors.pool import Pool, PoolError
from cdal.selectors.regions import (
    RegionMeans,
    Regions,
    means_of_independent,
    means_of_regions,
    mixtures_of_regions,
)
from cdal.selectors.registry import (
    SELECTORS,
    OptionError,
    arrays_read,
    companion_of,
    is_quick,
    make_selector,
    opinions_of,
    option_types,
)
from cdal.selectors.selection import (
    BudgetError,
    Companion,
    Opinions,
    Pick,
    Progress,
    Selection,
    Selector,
)
from cdal.selectors.sparse import mixture_vectors, sparse_mixtures
from cdal.selectors.uncertainty import UNCERTAINTIES

__all__ = [
    "SELECTORS",
    "UNCERTAINTIES",
    "BudgetError",
    "ClassMixtures",
    "Companion",
    "DiversityEmbedding",
    "Missing",
    "Opinions",
    "OptionError",
    "Pick",
    "Pool",
    "PoolError",
    "Progress",
    "Region",
    "RegionMeans",
    "Regions",
    "Selection",
    "Selector",
    "Weights",
    "aggregate_contextual_diversity",
    "arrays_read",
    "companion_of",
    "contextual_diversity",
    "is_quick",
    "make_selector",
    "means_of_independent",
    "means_of_regions",
    "mixture_vectors",
    "mixtures_of_boxes",
    "mixtures_of_independent",
    "mixtures_of_logits",
    "mixtures_of_probabilities",
    "mixtures_of_regions",
    "mixtures_of_vectors",
    "opinions_of",
    "option_types",
    "sparse_mixtures",
]

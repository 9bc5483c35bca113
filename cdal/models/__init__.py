"""Networks for images: created by name, trained, measured, saved and loaded.

They know nothing about Label Studio, selectors, or any files but their own.
"""

from cdal.models.backbone import check_backbone, is_backbone
from cdal.models.checkpoint import check_weights
from cdal.models.classification.head import ClassificationHead
from cdal.models.classification.network import ClassificationNetwork
from cdal.models.data import Dataset
from cdal.models.detection.network import DetectionNetwork, DetectionPrediction
from cdal.models.devices import choose_device, free_memory
from cdal.models.errors import ModelError, Stopped, UnlabelledError
from cdal.models.manifest import Manifest, fingerprint
from cdal.models.multilabel.network import MultilabelNetwork, MultilabelPrediction
from cdal.models.network import TaskNetwork
from cdal.models.predictions import (
    BACKGROUND,
    IGNORED,
    Classification,
    Detections,
    Finding,
    Multilabel,
    Prediction,
    Segmentation,
)
from cdal.models.recipe import Plan, Recipe
from cdal.models.registry import (
    ARCHITECTURES,
    NETWORKS,
    choose_network,
    default_architecture,
    load_network,
    make_network,
    network_class,
)
from cdal.models.reports import ClassScore, FitProgress, FitReport, Metrics
from cdal.models.segmentation.network import SegmentationNetwork
from cdal.models.training import fit
from cdal.models.weight_sources import Origin, WeightSources

__all__ = [
    "ARCHITECTURES",
    "BACKGROUND",
    "IGNORED",
    "NETWORKS",
    "ClassScore",
    "Classification",
    "ClassificationHead",
    "ClassificationNetwork",
    "Dataset",
    "DetectionNetwork",
    "DetectionPrediction",
    "Detections",
    "Finding",
    "FitProgress",
    "FitReport",
    "Manifest",
    "Metrics",
    "ModelError",
    "Multilabel",
    "MultilabelNetwork",
    "MultilabelPrediction",
    "Origin",
    "Plan",
    "Prediction",
    "Recipe",
    "Segmentation",
    "SegmentationNetwork",
    "Stopped",
    "TaskNetwork",
    "UnlabelledError",
    "WeightSources",
    "check_backbone",
    "check_weights",
    "choose_device",
    "choose_network",
    "default_architecture",
    "fingerprint",
    "fit",
    "free_memory",
    "is_backbone",
    "load_network",
    "make_network",
    "network_class",
]

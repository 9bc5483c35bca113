"""Networks for images: made by name, trained, measured, saved and loaded.

They know nothing of Label Studio, of files other than their own, or of selectors.
"""

from cdal.models.checkpoint import check_weights
from cdal.models.classification import ClassificationNetwork
from cdal.models.data import Dataset
from cdal.models.detection import DetectionNetwork, DetectionPrediction
from cdal.models.devices import choose_device, free_memory
from cdal.models.errors import ModelError, Stopped
from cdal.models.factory import (
    ARCHITECTURES,
    NETWORKS,
    choose_network,
    default_architecture,
    make_network,
)
from cdal.models.findings import Classification, Detections, Finding, Segmentation
from cdal.models.manifest import Manifest, fingerprint
from cdal.models.network import TaskNetwork
from cdal.models.prediction import Prediction
from cdal.models.recipe import Plan, Recipe
from cdal.models.reports import ClassScore, FitProgress, FitReport, Metrics
from cdal.models.segmentation import SegmentationNetwork
from cdal.models.targets import BACKGROUND, IGNORED

__all__ = [
    "ARCHITECTURES",
    "BACKGROUND",
    "IGNORED",
    "NETWORKS",
    "ClassScore",
    "Classification",
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
    "Plan",
    "Prediction",
    "Recipe",
    "Segmentation",
    "SegmentationNetwork",
    "Stopped",
    "TaskNetwork",
    "check_weights",
    "choose_device",
    "choose_network",
    "default_architecture",
    "fingerprint",
    "free_memory",
    "make_network",
]

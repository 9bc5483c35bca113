"""Networks for images: made by name, trained, measured, saved and loaded.

They know nothing of Label Studio, of files other than their own, or of selectors.
"""

from cdal.models.classification import ClassificationNetwork
from cdal.models.data import Dataset
from cdal.models.devices import choose_device, choose_image_size, prediction_batch_size
from cdal.models.errors import ModelError, Stopped
from cdal.models.factory import ARCHITECTURES, default_architecture, make_network
from cdal.models.manifest import Manifest, fingerprint
from cdal.models.network import Prediction, TaskNetwork
from cdal.models.recipe import Plan, Recipe
from cdal.models.reports import ClassScore, FitProgress, FitReport, Metrics

__all__ = [
    "ARCHITECTURES",
    "ClassScore",
    "ClassificationNetwork",
    "Dataset",
    "FitProgress",
    "FitReport",
    "Manifest",
    "Metrics",
    "ModelError",
    "Plan",
    "Prediction",
    "Recipe",
    "Stopped",
    "TaskNetwork",
    "choose_device",
    "choose_image_size",
    "default_architecture",
    "fingerprint",
    "make_network",
    "prediction_batch_size",
]

"""Data: sets of pictures in memory, readers, splits, batches."""

from wiesel.data.augment import Augmentation, CropFlip
from wiesel.data.cifar import read_cifar10
from wiesel.data.dataset import Dataset, SealedTestWarning, check_disjoint
from wiesel.data.idx import read_idx, read_idx_images, read_idx_labels
from wiesel.data.image import load_image
from wiesel.data.loader import Batch, Loader
from wiesel.data.sources import Splits, default_folder, digits, load, names

__all__ = [
    "Augmentation",
    "Batch",
    "CropFlip",
    "Dataset",
    "Loader",
    "SealedTestWarning",
    "Splits",
    "check_disjoint",
    "default_folder",
    "digits",
    "load",
    "load_image",
    "names",
    "read_cifar10",
    "read_idx",
    "read_idx_images",
    "read_idx_labels",
]

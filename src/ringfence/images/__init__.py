"""Guests that are ready to boot: a store on this host, and recipes that fill it."""

from ringfence.images.model import Image, Progress, ProgressCallback
from ringfence.images.store import (
    available,
    cache_folder,
    data_folder,
    ensure,
    find,
    list_images,
    names,
    pull,
    remove,
    resolve,
)

__all__ = [
    "Image",
    "Progress",
    "ProgressCallback",
    "available",
    "cache_folder",
    "data_folder",
    "ensure",
    "find",
    "list_images",
    "names",
    "pull",
    "remove",
    "resolve",
]

"""Folders of the host that guests may use: a 9P2000.L server, jailed to one folder."""

from ringfence.folders.server import FolderServer
from ringfence.folders.tree import Tree

__all__ = ["FolderServer", "Tree"]

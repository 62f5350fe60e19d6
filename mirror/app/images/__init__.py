"""Images that are here, in the process that holds the store: see mirror/contracts/images.py."""

from .alone import images_alone
from .commands import image_commands
from .held import HeldImages
from .keeping import Keeping

__all__ = ["HeldImages", "Keeping", "image_commands", "images_alone"]

"""Pictures as Pillow images: made, compared, read and written."""

from pathlib import Path
from typing import IO, TYPE_CHECKING, Union

from ringfence.bus.screen import Canvas
from ringfence.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["difference", "image_of", "open_image", "open_image_bytes", "save_image"]

_MISSING = "pictures need Pillow, which is not installed: pip install 'ringfence[screen]'"


def image_of(canvas: Canvas) -> "Image":
    """The picture on a canvas, as an RGB image.

    Raises:
        ConfigError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise ConfigError(_MISSING) from None
    width, height = canvas.size
    return Image.frombytes("RGB", (width, height), canvas.rgb((0, 0, width, height)))


def open_image(image: Union["Image", str, Path]) -> "Image":
    """An image as RGB; a path is read.

    Raises:
        ConfigError: Pillow is not installed.
        ImageError: the file can't be read, or is none of a picture.
    """
    try:
        from PIL import Image
    except ImportError:
        raise ConfigError(_MISSING) from None
    if not isinstance(image, str | Path):
        return image.convert("RGB")
    try:
        with Image.open(image) as opened:
            return opened.convert("RGB")
    except OSError as error:
        raise ImageError(f"the picture {image} can't be read: {error}") from error


def save_image(image: "Image", path: Path) -> None:
    """Writes an image, in the format of the name's ending.

    Raises:
        ConfigError: there is no such format.
        ImageError: the file can't be written.
    """
    try:
        image.save(path)
    except ValueError:
        raise ConfigError(f"{path}: no picture format has this ending; take .png") from None
    except OSError as error:
        raise ImageError(f"the picture {path} can't be written: {error}") from error


def difference(one: "Image", other: "Image") -> float:
    """How much two images differ: the mean difference of all channels, from 0 to 1.

    Images of different sizes differ by 1.
    """
    from PIL import ImageChops, ImageStat

    if one.size != other.size:
        return 1.0
    means = ImageStat.Stat(ImageChops.difference(one.convert("RGB"), other.convert("RGB"))).mean
    return sum(means) / (255 * len(means))


def open_image_bytes(file: IO[bytes]) -> "Image":
    """The picture in an open file.

    Raises:
        ConfigError: Pillow is not installed.
        ImageError: it is none.
    """
    try:
        from PIL import Image
    except ImportError:
        raise ConfigError(_MISSING) from None
    try:
        image = Image.open(file)
        image.load()
    except OSError as error:
        raise ImageError(f"the picture can't be read: {error}") from error
    return image

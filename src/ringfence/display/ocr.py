"""Text of pictures, by the program tesseract where that is installed."""

import subprocess
from io import BytesIO
from typing import TYPE_CHECKING

from ringfence.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["recognize"]

#: The program is trained on larger letters than screens have.
_SCALE = 3
_LONGEST = 60  # seconds


def recognize(image: "Image", language: str = "eng") -> str:
    """Text of a picture.

    Raises:
        ConfigError: tesseract is not installed, or does not know the language.
    """
    large = image.convert("L").resize((image.width * _SCALE, image.height * _SCALE))
    file = BytesIO()
    large.save(file, "PNG")
    command = ["tesseract", "stdin", "stdout", "-l", language, "--psm", "6"]
    try:
        done = subprocess.run(
            command, input=file.getvalue(), capture_output=True, timeout=_LONGEST, check=False
        )
    except FileNotFoundError:
        raise ConfigError(
            "text of graphics modes is read by tesseract, which is not installed: "
            "install the package tesseract-ocr"
        ) from None
    except subprocess.TimeoutExpired:
        raise ConfigError(f"tesseract did not end within {_LONGEST} s") from None
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()
        raise ConfigError(f"tesseract can't read the screen: {reason}")
    return done.stdout.decode(errors="replace")

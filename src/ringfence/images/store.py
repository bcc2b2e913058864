"""The images on this host: found without a lock, pulled once however many ask.

``$XDG_DATA_HOME/ringfence/images/NAME`` is a link to the folder of the image's current version; a
pull builds another folder and then moves the link, so an image is there whole or not at all.
Downloads are kept in ``$XDG_CACHE_HOME/ringfence`` (XDG Base Directory Specification).
"""

import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ringfence.errors import ImageCorrupt, ImageError, ImageNotFound
from ringfence.images.model import Image, Progress, ProgressCallback, ignore_progress
from ringfence.images.recipes import RECIPES, Recipe

if TYPE_CHECKING:
    from ringfence.images.ingredients import Ingredients
    from ringfence.images.sources.packages import Source

MANIFEST = "image.json"
MANIFEST_FORMAT = 1
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
MIRROR_VARIABLE = "RINGFENCE_MIRROR"


def resolve(name: str) -> Image:
    """The image of that name in the store.

    Raises:
        ImageNotFound: it has not been pulled, or there is no such image.
        ImageCorrupt: its files are not what they were.
    """
    if image := find(name):
        return image
    if name in RECIPES:
        raise ImageNotFound(
            f"the image {name!r} is not here yet: fetch it with 'ringfence image pull {name}'"
        )
    raise ImageNotFound(f"there is no image {name!r}: there are {', '.join(names())}")


def find(name: str) -> Image | None:
    """The image of that name in the store, or None."""
    if not NAME.fullmatch(name):
        return None
    link = data_folder() / name
    try:
        directory = link.resolve(strict=True)
        fields = json.loads((directory / MANIFEST).read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise ImageCorrupt(_damaged(name, str(error))) from error
    return _image(name, directory, fields)


def ensure(
    name: str,
    progress: ProgressCallback | None = None,
    *,
    mirror: str | None = None,
    deb: Sequence[Path] = (),
) -> Image:
    """The image of that name, pulled if it is not there, and brought up to this Ringfence.

    Any number of processes may call this at once; one does the work.

    Raises:
        ImageError: it can't be had; see :func:`pull`.
    """
    image = find(name)
    if image and _is_current(image):
        return image
    report = progress or ignore_progress
    with _locked(report):
        image = find(name)
        if image is None:
            return _pull(name, deb, mirror, None, report)
        if not _is_current(image):
            return _renew(image, report)
        return image


def pull(
    name: str,
    progress: ProgressCallback | None = None,
    *,
    mirror: str | None = None,
    suite: str | None = None,
    deb: Sequence[Path] = (),
) -> Image:
    """Makes the image anew from the newest packages.

    Args:
        name: of a recipe.
        progress: is told each step.
        mirror: URL of a Debian archive; by default ``$RINGFENCE_MIRROR``, or else the host's apt.
        suite: of the mirror, ``bookworm`` by default.
        deb: files to use instead of packages from elsewhere: packages, a kernel, a busybox.

    Raises:
        ImageNotFound: there is no such recipe, package or file.
        ImageCorrupt: something that came is damaged.
        ImageError: something can't be had; the text says what helps.
    """
    report = progress or ignore_progress
    with _locked(report):
        return _pull(name, deb, mirror, suite, report)


def remove(name: str) -> None:
    """Removes an image from the store; what was downloaded for it stays in the cache.

    Raises:
        ImageNotFound: it is not there.
    """
    with _locked(ignore_progress):
        link = data_folder() / name
        if not NAME.fullmatch(name) or not (link.is_symlink() or link.exists()):
            raise ImageNotFound(f"there is no image {name!r} in the store")
        if link.is_symlink():
            link.unlink()
        else:
            shutil.rmtree(link)
        _sweep(name, keep=set())


def list_images() -> list[Image]:
    """The images in the store, by name; those that are damaged are left out."""
    found = []
    for name in _stored_names():
        with suppress(ImageCorrupt):
            if image := find(name):
                found.append(image)
    return found


def names() -> list[str]:
    """Names of the images that are in the store or can be pulled."""
    return sorted({*_stored_names(), *RECIPES})


def available() -> dict[str, str]:
    """What can be pulled: name to description."""
    return {recipe.name: recipe.description for recipe in RECIPES.values()}


def data_folder() -> Path:
    """Where images are."""
    return _xdg("XDG_DATA_HOME", ".local/share") / "ringfence" / "images"


def cache_folder() -> Path:
    """Where downloads are."""
    return _xdg("XDG_CACHE_HOME", ".cache") / "ringfence"


def _pull(
    name: str,
    deb: Sequence[Path],
    mirror: str | None,
    suite: str | None,
    progress: ProgressCallback,
) -> Image:
    # What only a pull needs is imported by a pull: `ringfence run` starts faster.
    from ringfence.images import ingredients
    from ringfence.images.sources import apt
    from ringfence.images.sources.mirror import DEFAULT_SUITE, MirrorSource

    recipe = RECIPES.get(name)
    if recipe is None:
        raise ImageNotFound(f"no recipe makes an image {name!r}: there are {', '.join(RECIPES)}")
    source: Source | None = None
    if url := mirror or os.environ.get(MIRROR_VARIABLE):
        source = MirrorSource(url, cache_folder(), suite or DEFAULT_SUITE)
    elif apt.available():
        source = apt.AptSource(cache_folder())
    found = ingredients.from_files(deb)
    ingredients.complete(recipe, found, source, progress)
    return _commit(recipe, found, progress)


def _renew(image: Image, progress: ProgressCallback) -> Image:
    """Makes the image anew from its own kernel and busybox: nothing is fetched."""
    from ringfence.images import ingredients

    if not (image.directory / ingredients.MODULES_FILE).exists():
        # Made before images kept modules: those are in the package alone.
        return _pull(image.name, (), None, None, progress)
    try:
        found = ingredients.Ingredients(
            kernel=image.kernel.read_bytes(),
            busybox=(image.directory / ingredients.BUSYBOX_FILE).read_bytes(),
            modules=(image.directory / ingredients.MODULES_FILE).read_bytes(),
            version=image.version,
            packages=list(image.packages),
        )
    except OSError as error:
        raise ImageCorrupt(_damaged(image.name, str(error))) from error
    return _commit(RECIPES[image.name], found, progress)


def _commit(recipe: Recipe, found: "Ingredients", progress: ProgressCallback) -> Image:
    from ringfence.images import ingredients

    root = data_folder()
    link = root / recipe.name
    try:
        replaced = link.resolve(strict=True).name if link.is_symlink() else ""
    except FileNotFoundError:
        replaced = ""
    directory = Path(tempfile.mkdtemp(prefix=f".{recipe.name}.", dir=root))
    image = Image(
        name=recipe.name,
        kernel=directory / ingredients.KERNEL_FILE,
        initrd=directory / ingredients.INITRD_FILE,
        append=recipe.append,
        description=recipe.description,
        version=found.version,
        directory=directory,
        recipe=recipe.revision,
        packages=tuple(found.packages),
    )
    try:
        directory.chmod(0o755)
        ingredients.write(found, directory, progress)
        (directory / MANIFEST).write_text(_manifest(image), "utf-8")
        for file in directory.iterdir():
            _synchronize(file)
        # A link is replaced in one step, a folder is not.
        pointer = directory / "link"
        pointer.symlink_to(directory.name)
        pointer.replace(link)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    # Who resolved the image a moment ago still opens its files.
    _sweep(recipe.name, keep={directory.name, replaced})
    return image


def _manifest(image: Image) -> str:
    fields = asdict(image)
    del fields["name"], fields["directory"]
    fields["kernel"] = image.kernel.name
    fields["initrd"] = image.initrd.name if image.initrd else None
    return json.dumps({"format": MANIFEST_FORMAT, **fields}, indent=2) + "\n"


def _image(name: str, directory: Path, fields: Any) -> Image:
    try:
        if fields["format"] != MANIFEST_FORMAT:
            raise ImageCorrupt(_damaged(name, f"its format is {fields['format']!r}"))
        image = Image(
            name=name,
            kernel=directory / fields["kernel"],
            initrd=directory / fields["initrd"] if fields["initrd"] else None,
            append=str(fields["append"]),
            description=str(fields["description"]),
            version=str(fields["version"]),
            directory=directory,
            recipe=str(fields["recipe"]),
            packages=tuple(map(str, fields["packages"])),
        )
    except (KeyError, TypeError) as error:
        raise ImageCorrupt(_damaged(name, f"{MANIFEST} lacks {error}")) from error
    for path in (image.kernel, image.initrd):
        if path is not None and not path.is_file():
            raise ImageCorrupt(_damaged(name, f"{path.name} is missing"))
    return image


def _is_current(image: Image) -> bool:
    recipe = RECIPES.get(image.name)
    return recipe is None or recipe.revision == image.recipe


def _sweep(name: str, keep: set[str]) -> None:
    """Removes folders of the image that are no more in use, and those of broken-off pulls."""
    for folder in data_folder().glob(f".{name}.*"):
        if folder.name not in keep:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(progress: ProgressCallback) -> Iterator[None]:
    """One pull at a time for this user: pulls share packages in the cache."""
    root = data_folder()
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / ".lock").open("w")
    except OSError as error:
        raise ImageError(
            f"can't write to the image store {root}: {error.strerror}. XDG_DATA_HOME names another"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(Progress("wait for another pull"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        except OSError as error:
            # What else can go wrong with files here: no space, no permission.
            where = f" ({error.filename})" if error.filename else ""
            raise ImageError(f"can't write the image: {error.strerror}{where}") from error


def _stored_names() -> list[str]:
    try:
        return sorted(entry.name for entry in data_folder().iterdir() if NAME.fullmatch(entry.name))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _xdg(variable: str, default: str) -> Path:
    folder = Path(os.environ.get(variable, ""))
    if folder.is_absolute():
        return folder
    try:
        return Path.home() / default
    except RuntimeError:
        raise ImageError(f"no home folder: set {variable} to where files may be kept") from None


def _synchronize(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def _damaged(name: str, how: str) -> str:
    return f"the image {name!r} is damaged ({how}): make it anew with 'ringfence image pull {name}'"

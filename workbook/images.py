"""Images: scikit-learn's digits, CIFAR-10, any folder of class folders; and augmentation.

All sizes are in pixels, and all images are (channels, height, width).
"""

import hashlib
import io
import math
import os
import pickle
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from workbook import budget, journal
from workbook.data import DataError, fetch, sha256_of

if budget.grading():
    # A grader imports this module once, and not scikit-learn, which takes a second, for everybody.
    import sklearn.datasets  # noqa: F401

CIFAR10 = "cifar10/cifar-10-python.tar.gz"
# Split -> the members of CIFAR-10's archive that hold it.
CIFAR10_SPLITS = {
    "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
    "test": ("test_batch",),
}
PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """A set of images with labels.

    pixels: uint8, (n, channels, height, width). labels: int64, (n,), numbers of ``classes``.
    classes: the names. Raises ``ValueError`` where they do not fit together.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.dtype != torch.uint8:
            raise ValueError(
                f"The pixels have the shape {tuple(self.pixels.shape)} and are "
                f"{self.pixels.dtype}. Give uint8 of the shape (n, channels, height, width)."
            )
        if self.labels.shape != self.pixels.shape[:1]:
            raise ValueError(
                f"There are {len(self.pixels)} images, and the labels have the shape "
                f"{tuple(self.labels.shape)}. Give one label per image."
            )

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, ids: torch.Tensor | slice) -> "Images":
        """Return the images at ``ids``: an int64 tensor or a slice."""
        if isinstance(ids, int):
            raise TypeError(f"Images are taken as a set: images[{ids} : {ids + 1}] holds one.")
        return Images(self.pixels[ids], self.labels[ids], self.classes)

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.pixels.shape[1:]))
        return f"Images({len(self)} of {size}, classes {', '.join(self.classes)})"

    def floats(self) -> torch.Tensor:
        """Return the pixels as float32 in [0, 1], (n, channels, height, width)."""
        return self.pixels.float() / 255


def digits() -> Images:
    """Return 1,797 handwritten digits of 8 x 8 pixels, one channel, which scikit-learn carries.

    They are the test part of the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin
    and Kaynak, 1998), written by 13 people. Its gray values 0 to 16 are spread to 0 to 255.
    """
    # Here, because it takes a second.
    from sklearn.datasets import load_digits

    found = load_digits()
    content = found.images.tobytes() + found.target.tobytes()
    journal.note("data", name="scikit-learn's digits", sha256=hashlib.sha256(content).hexdigest())
    pixels = torch.from_numpy(found.images) * (255 / 16)
    return Images(
        pixels.round().to(torch.uint8)[:, None],
        torch.from_numpy(found.target).long(),
        tuple(map(str, range(10))),
    )


def cifar10(split: str) -> Images:
    """Return CIFAR-10 (Krizhevsky, 2009): "train", 50,000 images, or "test", 10,000.

    They have 32 x 32 pixels, three channels and ten classes. The archive of 170 MB is had by
    ``workbook.data.fetch``; nothing is unpacked to the disk. The environment variable
    ``WORKBOOK_CIFAR10`` names other pictures instead, a folder or a tar archive that holds
    ``train/<class>/<picture>`` and ``test/<class>/<picture>``; where these went through JPEG, say
    so beside every figure.

    Raises:
        ValueError: no such split; or the other pictures cannot be read (see ``image_folder``).
        DataError: the archive cannot be had, or holds something else.
    """
    if split not in CIFAR10_SPLITS:
        raise ValueError(f"CIFAR-10 has no split {split!r}. Choose train or test.")
    if other := os.environ.get("WORKBOOK_CIFAR10"):
        return image_folder(other, inside=split, size=32)
    path = fetch(CIFAR10)
    try:
        batches = _cifar10_members(path, {*CIFAR10_SPLITS[split], "batches.meta"})
        parts = [batches[name] for name in CIFAR10_SPLITS[split]]
        pixels = torch.cat([torch.from_numpy(part[b"data"]) for part in parts])
        labels = torch.tensor([label for part in parts for label in part[b"labels"]])
        classes = tuple(name.decode() for name in batches["batches.meta"][b"label_names"])
        if not 0 <= labels.min() <= labels.max() < len(classes):
            raise ValueError(f"labels from {labels.min()} to {labels.max()}")
        return Images(pixels.reshape(-1, 3, 32, 32), labels, classes)
    except Exception as error:  # wrong bytes fail at any step, in any way
        raise DataError(
            f"{path} is not CIFAR-10's archive for Python, or is damaged "
            f"({type(error).__name__}: {error}). Remove it, and it will be downloaded again."
        ) from error


def _cifar10_members(path: Path, wanted: set[str]) -> dict[str, Any]:
    """Return what the wanted members of the archive hold: name -> dictionary with byte keys."""
    found = {}
    # Once from front to back: going back in a compressed archive means starting again.
    with tarfile.open(path, "r|gz") as archive:
        for member in archive:
            name = member.name.removeprefix("cifar-10-batches-py/")
            if member.isfile() and name in wanted:
                content = io.BytesIO(archive.extractfile(member).read())
                found[name] = _ArrayUnpickler(content, encoding="bytes").load()
                if len(found) == len(wanted):
                    return found
    raise ValueError(f"it holds no {', '.join(sorted(wanted - set(found)))}")


def _uint8(code: bytes | str, *_: Any) -> np.dtype:
    """Stand in for numpy.dtype, which warns at the arguments that Python 2 wrote."""
    if code not in (b"u1", "u1"):
        raise pickle.UnpicklingError(f"an array of {code!r}, where only bytes are expected")
    return np.dtype(np.uint8, copy=True)  # the pickle goes on to set its state


# What makes an empty array, which the pickle then fills; its module has had two names.
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_ARRAYS = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _uint8,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles plain values and arrays of bytes, and nothing else: a pickle could run any code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAYS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs")
        return _ARRAYS[module, name]


def image_folder(
    path: str | os.PathLike[str], inside: str = "", size: int | tuple[int, int] | None = None
) -> Images:
    """Return the pictures ``PATH/inside/<class>/<picture>``, sorted by class and name, in RGB.

    path: a folder, or a tar archive, compressed or not, which is read without being unpacked.
    inside: a folder in it, for example "train". size: the pictures are resized to it, a number
    of pixels for a square or (height, width); without it they must all have one size.

    The classes are the folders that hold a picture. Hidden files, files that do not end like a
    picture (``PICTURES``) and folders within the folder of a class are passed over.

    Raises:
        FileNotFoundError: there is no such path.
        ValueError: no pictures there, one that cannot be read, or pictures of different sizes.
    """
    if isinstance(size, int):
        size = (size, size)
    found: dict[tuple[str, str], np.ndarray] = {}
    example = shape = ""
    for name, content in _files(Path(path), inside):
        if content is None:
            example = example or name
            continue
        pixels = _decode(content, f"{name} in {path}", size)
        found[tuple(name.split("/"))] = pixels
        if not shape:
            first, shape = name, pixels.shape
        if pixels.shape != shape:
            raise ValueError(
                "The pictures differ in size: {} has {} x {} pixels, {} has {} x {}. Pass "
                "size=(height, width), to which all are then resized.".format(
                    *(first, *shape[1:], name, *pixels.shape[1:])
                )
            )
    if not found:
        raise ValueError(
            f"There are no pictures in {Path(path, inside)}. They are looked for as "
            f"<class>/<picture>, where a picture ends in {', '.join(PICTURES)}; "
            + (f"found was {example}. " if example else "nothing at all was found. ")
            + "Pass the folder that holds the folders of the classes, as in inside='train'."
        )
    if Path(path).is_file():
        journal.note("data", name=Path(path).name, sha256=sha256_of(Path(path)))
    keys = sorted(found)
    classes = sorted({label for label, _ in keys})
    labels = torch.tensor([classes.index(label) for label, _ in keys])
    stack = np.empty((len(keys), *shape), dtype=np.uint8)
    for i, key in enumerate(keys):
        stack[i] = found.pop(key)  # given back at once: memory holds the pictures once
    return Images(torch.from_numpy(stack), labels, tuple(classes))


def _files(path: Path, inside: str) -> Iterator[tuple[str, bytes | None]]:
    """Yield the pictures in ``inside``, name and content; and names of other files, and None."""
    if path.is_dir():
        folder = path / inside
        # Where no file is at the level of the pictures, any file says what is there instead.
        files = [file for file in folder.glob("*/*") if file.is_file()] or folder.rglob("*")
        for file in sorted(files):
            if file.is_file():
                name = file.relative_to(folder).as_posix()
                yield name, file.read_bytes() if _is_picture(name) else None
        return
    if not path.exists():
        raise FileNotFoundError(f"There is no {path}. Give a folder or a tar archive.")
    start = posixpath.normpath(f"./{inside}") + "/"
    try:
        # Once from front to back, as above.
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                name = posixpath.normpath(member.name)
                if member.isfile() and (start == "./" or name.startswith(start)):
                    name = name.removeprefix(start)
                    yield name, archive.extractfile(member).read() if _is_picture(name) else None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(
            f"{path} cannot be read to its end as a tar archive ({error}). Give a folder, or an "
            "archive that is whole."
        ) from error


def _is_picture(name: str) -> bool:
    return (
        name.count("/") == 1
        and not name.startswith(".")
        and "/." not in name
        and name.lower().endswith(PICTURES)
    )


def _decode(content: bytes, name: str, size: tuple[int, int] | None) -> np.ndarray:
    """Return a picture as uint8, (3, height, width)."""
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(content)) as file:
            # A camera held upright writes a picture that lies, and says so beside it.
            image = ImageOps.exif_transpose(file).convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(
            f"{name} cannot be read as a picture ({error}). Replace it, or take it out."
        ) from error
    if size is not None:
        height, width = size
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image).transpose(2, 0, 1)


def random_crop(
    images: torch.Tensor, generator: torch.Generator | None = None, padding: int = 4
) -> torch.Tensor:
    """Shift each image by up to ``padding`` pixels, He et al. 2016, 4.2.

    Each image is surrounded by ``padding`` pixels of 0, and a piece of its old size is cut out
    at a place of its own.

    images: floats, (batch, channels, height, width). generator: on the CPU. Returns a new tensor
    of the same shape, dtype and device. Raises ``ValueError`` for another shape or dtype.
    """
    batch, channels, height, width = _sizes(images)
    padded = F.pad(images, (padding,) * 4)
    top, left = torch.randint(2 * padding + 1, (2, batch, 1), generator=generator)
    rows = (top + torch.arange(height)).to(images.device)  # (batch, height)
    columns = (left + torch.arange(width)).to(images.device)  # (batch, width)
    image = torch.arange(batch, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[:, None, None]
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def random_flip(images: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Mirror each image from left to right with probability 1/2, He et al. 2016, 4.2.

    Arguments and result are those of ``random_crop``.
    """
    batch, *_ = _sizes(images)
    flip = torch.rand(batch, 1, 1, 1, generator=generator) < 0.5
    return torch.where(flip.to(images.device), images.flip(-1), images)


def random_resized_crop(
    images: torch.Tensor,
    generator: torch.Generator | None = None,
    scale: tuple[float, float] = (0.2, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> torch.Tensor:
    """Cut a piece out of each image and enlarge it to the whole, Szegedy et al. 2015, section 6.

    scale: the piece's area as a share of the image's, drawn uniformly. ratio: its width over its
    height, drawn uniformly on a logarithmic scale. A piece that would be higher or wider than
    the image is cut to it. Pixels are interpolated linearly.

    The other arguments and the result are those of ``random_crop``. He et al. (2022) pretrain
    with scale (0.2, 1), the default.
    """
    batch, channels, height, width = _sizes(images)
    area, shape, x, y = torch.rand(4, batch, generator=generator)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * area)
    low, high = map(math.log, ratio)
    shape = (low + (high - low) * shape).exp()
    # The piece's sides and its middle, where the image goes from -1 to 1.
    wide = ((area * shape).sqrt() / width).clamp(max=1)
    tall = ((area / shape).sqrt() / height).clamp(max=1)
    zero = torch.zeros(batch)
    across = torch.stack([wide, zero, (2 * x - 1) * (1 - wide)], dim=-1)
    down = torch.stack([zero, tall, (2 * y - 1) * (1 - tall)], dim=-1)
    places = F.affine_grid(
        torch.stack([across, down], dim=1).to(images),
        [batch, channels, height, width],
        align_corners=False,
    )  # (batch, height, width, 2)
    return F.grid_sample(
        images, places, mode="bilinear", padding_mode="border", align_corners=False
    )


def _sizes(images: torch.Tensor) -> torch.Size:
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            f"The images have the shape {tuple(images.shape)} and are {images.dtype}. Give "
            "floating-point numbers of the shape (batch, channels, height, width), as "
            "images.floats() does."
        )
    return images.shape

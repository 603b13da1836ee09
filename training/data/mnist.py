"""Handwritten digits: MNIST, Y. LeCun, C. Cortes, C. Burges; four IDX files, 28x28 grey, white on black."""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.bundle.manifest import ImageInput
from app.bundle.prepare import prepare_image
from training.data.download import Source
from training.data.errors import DataCorrupt
from training.data.home import Home
from training.data.items import Images

_MIRRORS: Final = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
_STRETCH: Final = 100  # images, see `Handwritten`
SHA256: Final = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}


@dataclass(frozen=True, slots=True, eq=False)
class Handwritten:
    """Grey: one channel.

    The published order keeps a writer's images together, and says no more of writers: `groups` are stretches
    of a hundred, which stand for them. Single images are not independent: the second half of the test images
    is easier than the first.
    """

    images: Images
    labels: NDArray[np.int64]  # [items]
    groups: NDArray[np.int64]  # [items]

    def split(self, *, held_out: int) -> tuple[Handwritten, Handwritten]:
        """The rest and `held_out` images spread evenly over the set.

        Its order is by writer and by source, and its last images are easier than its test images: those would
        promise too much.
        """
        spread = np.linspace(0, len(self.labels) - 1, held_out).round().astype(np.int64)
        rest = np.setdiff1d(np.arange(len(self.labels)), spread)
        return self._take(rest), self._take(spread)

    def _take(self, items: NDArray[np.int64]) -> Handwritten:
        return Handwritten(Images(self.images.pixels[items]), self.labels[items], self.groups[items])


def sources(sha256: dict[str, str] = SHA256, mirrors: tuple[str, ...] = _MIRRORS) -> dict[str, Source]:
    """The four files, by name."""
    return {
        name: Source(path=f"mnist/{name}", mirrors=tuple(base + name for base in mirrors), sha256=digest)
        for name, digest in sha256.items()
    }


def load_mnist(home: Home, spec: ImageInput, files: dict[str, Source], *, part: str) -> Handwritten:
    """`part` is "train" (60,000 in the published set) or "t10k" (10,000), in the published order.

    Raises DataError.
    """
    pixels = read_idx(home.file(files[f"{part}-images-idx3-ubyte.gz"]), dimensions=3)
    labels = read_idx(home.file(files[f"{part}-labels-idx1-ubyte.gz"]), dimensions=1)
    if len(pixels) != len(labels):
        raise DataCorrupt(f"MNIST {part}: {len(pixels)} images but {len(labels)} labels. Fetch it again.")
    prepared = [prepare_image(np.repeat(grey[..., None], 3, axis=2), spec)[..., 0] for grey in pixels]
    return Handwritten(
        images=Images(np.stack(prepared)[..., None]),
        labels=labels.astype(np.int64),
        groups=np.arange(len(labels)) // _STRETCH,
    )


def read_idx(path: Path, *, dimensions: int) -> NDArray[np.uint8]:
    """Bytes in the shape that an IDX header announces.

    Header: two zero bytes, type 8 (unsigned byte), number of dimensions, then each as big-endian uint32.
    Raises DataCorrupt.
    """
    try:
        body = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataCorrupt(f"{path.name} is not a complete gzip file. Fetch it again.") from error
    start = 4 + 4 * dimensions
    is_complete = False
    if len(body) >= start and body[:4] == bytes((0, 0, 8, dimensions)):
        shape = tuple(np.frombuffer(body[4:start], ">u4").tolist())
        is_complete = len(body) == start + math.prod(shape)
    if not is_complete:
        raise DataCorrupt(f"{path.name} is not an IDX file of {dimensions} dimensions. Fetch it again.")
    return np.frombuffer(body, np.uint8, offset=start).reshape(shape)

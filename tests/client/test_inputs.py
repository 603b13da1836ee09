"""What the client sends is what it was given: pictures, samples and files of every kind."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import threading
import tracemalloc
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from app import client as api
from app.client import AsyncClient, Client, Prediction
from tests import tiny
from tests.client.scripted import PREDICTED, Say, scripted
from tests.server import Server

PICTURE = tiny.png((200, 40, 90))
SOUND = tiny.tone(300)
PIXELS = np.full((8, 8, 3), (200, 40, 90), np.uint8)


def opened(path: Path, *, before: int = 0) -> Any:
    file = path.open("rb")
    file.seek(before)
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(PICTURE)
    (tmp_path / "later.png").write_bytes(b"not yet" + PICTURE)
    (tmp_path / "a.wav").write_bytes(SOUND)
    return tmp_path


IMAGES: dict[str, Callable[[Path], Any]] = {
    "a path": lambda folder: folder / "a.png",
    "a path as text": lambda folder: str(folder / "a.png"),
    "bytes": lambda _: PICTURE,
    "a bytearray": lambda _: bytearray(PICTURE),
    "a memoryview": lambda _: memoryview(PICTURE),
    "an open file": lambda folder: opened(folder / "a.png"),
    "an open file from where it stands": lambda folder: opened(folder / "later.png", before=7),
    "bytes that look like a file": lambda _: io.BytesIO(PICTURE),
    "a picture": lambda _: Image.open(io.BytesIO(PICTURE)),
    "a grey-blue-red picture": lambda _: Image.fromarray(PIXELS).convert("RGBA"),
    "an array": lambda _: PIXELS,
    "a part of an array": lambda _: np.repeat(PIXELS, 2, axis=1)[:, ::2],
}


def same(one: Prediction, other: Prediction) -> bool:
    return (one.label, one.used) == (other.label, other.used) and one.probability == pytest.approx(
        other.probability, abs=1e-6
    )


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_is_the_same_however_it_is_held(server: Server, folder: Path, kind: str) -> None:
    async def ask(image: Any) -> Prediction:
        async with AsyncClient(server.url) as client:
            return await client.predict(image=image)

    image, again = IMAGES[kind](folder), IMAGES[kind](folder)
    with Client(server.url) as client:
        expected = client.predict(image=PICTURE)
        assert same(client.predict(image=image), expected)
        assert same(asyncio.run(ask(again)), expected)
    for one in (image, again):
        if hasattr(one, "close"):
            one.close()


def test_a_pipe_is_read_once_and_sent_whole(server: Server) -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as pipe, open(writing, "wb") as source, Client(server.url) as client:  # noqa: PTH123 - a descriptor
        source.write(PICTURE)
        source.close()
        assert same(client.predict(image=pipe), client.predict(image=PICTURE))


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_pixels_become_a_png_of_these_pixels(pixels: np.ndarray) -> None:
    png = api._image(pixels)
    assert isinstance(png, bytes)
    with Image.open(io.BytesIO(png)) as decoded:
        decoded.load()
        assert (decoded.format, decoded.mode) == ("PNG", "RGB")
        assert np.array_equal(np.asarray(decoded), pixels)


@given(
    st.sampled_from([np.int16, np.float32, np.float64]).flatmap(
        lambda kind: arrays.arrays(
            kind, st.one_of(st.tuples(st.integers(1, 50)), st.tuples(st.integers(1, 50), st.integers(1, 4)))
        )
    ),
    st.integers(4_000, 192_000),
)
def test_samples_become_a_wav_of_these_samples(samples: np.ndarray, rate_hz: int) -> None:
    wav = api._audio((samples, rate_hz))
    assert isinstance(wav, bytes)
    decoded, rate = soundfile.read(io.BytesIO(wav), dtype=samples.dtype.name, always_2d=True)
    assert rate == rate_hz
    np.testing.assert_array_equal(decoded, samples.reshape(len(samples), -1))


def test_samples_need_no_numpy(server: Server) -> None:
    samples, rate_hz = soundfile.read(io.BytesIO(SOUND), dtype="int16")
    with Client(server.url) as client:
        expected = client.predict(audio=SOUND)
        assert same(client.predict(audio=(samples, rate_hz)), expected)
        assert same(client.predict(audio=(array("h", samples.tolist()), np.int64(rate_hz))), expected)
        assert same(client.predict(audio=(np.stack([samples] * 2, axis=1), rate_hz)), expected)


def test_a_photo_is_turned_upright_as_its_file_is(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(tmp_path / "turned.jpg", exif=exif)
    with Image.open(tmp_path / "turned.jpg") as photo:
        png = api._image(photo)
    assert isinstance(png, bytes)
    with Image.open(io.BytesIO(png)) as sent:
        assert sent.getexif()[0x0112] == 6
    cmyk = api._image(Image.fromarray(PIXELS).convert("CMYK"))
    assert isinstance(cmyk, bytes)
    assert cmyk.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"image": 7}, "An image is a path.* This is int"),
        ({"image": io.StringIO("a")}, "mode 'rb'.* This is StringIO"),
        ({"image": PIXELS.astype(np.float32)}, r"uint8 \[height, width, 3\], not f \(8, 8, 3\)"),
        ({"image": PIXELS[:, :, 0]}, r"uint8 \[height, width, 3\], not B \(8, 8\)"),
        ({"image": PIXELS[:0]}, r"uint8 \[height, width, 3\]"),
        ({"audio": np.zeros(9)}, "A recording is a path.* This is ndarray"),
        ({"audio": (np.zeros(9),)}, "Samples are int16, float32 or float64"),
        ({"audio": (np.zeros(9), 0)}, "with a rate"),
        ({"audio": (np.zeros(9), 8000.0)}, "with a rate"),
        ({"audio": (np.zeros((9, 1, 1)), 8000)}, "with a rate"),
        ({"audio": (np.zeros(9, np.uint8), 8000)}, "with a rate"),
        ({"audio": ([0.0], 8000)}, "with a rate"),
        ({"text": b"a"}, "A text is a str, not bytes"),
        ({"text": Path("a")}, "A text is a str, not"),
    ],
)
def test_an_input_of_a_wrong_kind_is_said_in_one_sentence(given: dict[str, Any], said: str) -> None:
    with Client("http://127.0.0.1:1") as client:
        for ask in (client.predict, client.embed, lambda **row: client.predict_batch([api.Row(**row)])):
            with pytest.raises(TypeError, match=said):
                ask(**given)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with Client("http://127.0.0.1:1") as client:
        for path in (tmp_path / "none.png", tmp_path):
            with pytest.raises(api.InputUnreadable, match="cannot be read"):
                client.predict(image=path)


def test_a_file_that_becomes_shorter_is_not_sent_as_if_it_were_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PICTURE)
    content = api._image(path)
    path.write_bytes(PICTURE[:-1])
    assert isinstance(content, api._InFile)
    with pytest.raises(api.InputUnreadable, match="became shorter"):
        list(content.pieces())


class Counting(io.BytesIO):
    """Counts the bytes that are read."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)
        self.count += len(piece)
        return piece


@pytest.mark.parametrize("tries", [1, 2])
def test_a_file_is_read_once_for_each_time_it_is_sent(tries: int) -> None:
    """With its length announced, and never whole in memory."""
    body = os.urandom(2**20) * 16
    file = Counting(body)
    with (
        scripted(PREDICTED, *[Say(503, b"")] * (tries - 1), PREDICTED) as server,
        Client(server.url) as client,
    ):
        client.predict(text="warm")  # the first use loads modules
        server.asked.clear()
        file.count = 0
        client.predict(image=file)
        first, *_ = server.asked
        assert body in first.body
        assert int(first.headers["content-length"]) == len(first.body)
        assert "transfer-encoding" not in first.headers
    assert len(server.asked) == tries
    assert file.count == len(body) * tries


def test_a_large_file_is_never_whole_in_memory(tmp_path: Path) -> None:
    path, size = tmp_path / "large", 64 * 2**20
    with path.open("wb") as file:
        file.truncate(size)
    form = api._form({}, [("image", api._image(path))])
    tracemalloc.start()
    try:
        sent = sum(len(chunk) for chunk in form.chunks())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sent == form.size > size
    assert peak < 4 * 2**20


def test_one_client_is_for_many_threads(server: Server) -> None:
    """Each thread gets the answers to its own questions."""
    wrong: list[int] = []
    with Client(server.url, connections=3) as client:
        expected = {seed: client.predict(image=tiny.row(seed).image).probability for seed in range(8)}

        def ask(seed: int) -> None:
            found = [client.predict(image=tiny.row(seed).image).probability for _ in range(10)]
            if found != pytest.approx([expected[seed]] * 10):
                wrong.append(seed)

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in expected]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.statistics.calls == 88
    assert not wrong


def test_the_file_can_be_copied_away_and_loads_nothing_but_its_library(tmp_path: Path) -> None:
    """Not even numpy or Pillow, which it understands."""
    (tmp_path / "trichord_client.py").write_text(Path(api.__file__).read_text())
    code = (
        "import sys, trichord_client; print(trichord_client.Client('http://127.0.0.1:1').statistics);"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    first, loaded = done.stdout.splitlines()
    assert first == "Statistics(calls=0, retries=0, refused_retries=0)"
    assert "httpx2" in loaded.split()
    assert not set(loaded.split()) & {"app", "training", "numpy", "PIL", "pydantic", "httpx", "fastapi"}

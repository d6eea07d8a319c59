"""The images that requests bring, within limits: what is refused, and by which status."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydantic import Field
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from offramp.errors import check_fields, in_line, shortened
from offramp.preprocessing import FORMATS, Preprocessing

FORM = "multipart/form-data"
FIELDS = 16  # of a form, that are no files
LARGEST = 178_956_970  # pixels; of larger images Pillow reads none
GRACE = 1.0  # seconds in which a body may come as slowly as it likes


@dataclass(frozen=True)
class ServeLimits:
    """What a server takes. Raises OfframpError for what is out of range."""

    max_batch: Annotated[int, Field(ge=1, le=4096)] = 32  # images answered together at most
    # Seconds that an image waits for others.
    max_wait: Annotated[float, Field(ge=0, le=10)] = 0.002
    queue: Annotated[int, Field(ge=1, le=100_000)] = 256  # images that are worked on at a time
    max_body: Annotated[int, Field(ge=1, le=2**30)] = 10_000_000  # bytes of a request
    max_pixels: Annotated[int, Field(ge=1, le=LARGEST)] = 50_000_000  # of an image
    read: Annotated[float, Field(gt=0)] = 30.0  # seconds in which headers, then a body must be there
    connections: Annotated[int, Field(ge=1)] = 1000  # at a time

    def __post_init__(self) -> None:
        check_fields(self, options=True)


class Refused(Exception):
    """A request that has no answer, and why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class Upload:
    """An image file of a request."""

    body: bytes
    name: str | None = None  # as the form has it; a body alone has none


async def read_uploads(request: Request, body: bytes, most: int) -> list[Upload]:
    """The files of a request: its body, or all files of a form, at most so many. Raises Refused."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        return [Upload(body)]
    if find_spec("python_multipart") is None:
        raise Refused(
            415, "forms need python-multipart on the server; send the bytes of an image file alone"
        )

    async def parts() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(request.headers, parts(), max_files=most, max_fields=FIELDS)
    parser.spool_max_size = len(body) + 1  # nothing goes to the disk
    try:
        form = await parser.parse()
    except (MultiPartException, ValueError) as error:
        # ValueError: of a charset that the form names, and of its parser under older Starlette.
        raise Refused(400, f"the form cannot be read: {in_line(error)}") from None
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    uploads = [
        Upload(await file.read(), file.filename or f"file {n}") for n, file in enumerate(files, 1)
    ]
    await form.close()
    if not uploads:
        raise Refused(400, "the form has no file; send one as curl -F image=@photo.jpg does")
    return uploads


def read_top(request: Request) -> int:
    """How many classes an answer shall name; 0 where the address does not say. Raises Refused."""
    for name in request.query_params:
        if name != "top":
            raise Refused(400, f"/predict takes no '{shortened(name, 40)}'; there is ?top=N")
    text = request.query_params.get("top")
    if text is None:
        return 0
    if not (text.isascii() and text.isdigit() and int(text[:9])):
        raise Refused(400, "top must be a whole number from 1, as in /predict?top=3")
    return int(text[:9])


class Bodies:
    """The bodies that a server reads, as many at a time as images. Where more come, the one that comes
    most slowly makes room: a client that sends a byte a second locks nobody out."""

    def __init__(self, limits: ServeLimits) -> None:
        self._limits = limits
        # By its deadline: since when a body comes, and what is there.
        self._coming: dict[asyncio.Timeout, tuple[float, bytearray]] = {}

    async def read(self, request: Request) -> bytes:
        """The whole body of a request. Raises Refused."""
        clock, most = asyncio.get_running_loop().time, self._limits.max_body
        length = request.headers.get("content-length", "")
        too_large = Refused(413, f"the body is larger than {most:,} bytes; send a smaller one")
        if length.isascii() and length.isdigit() and int(length) > most:
            raise too_large
        began, body = clock(), bytearray()
        self._make_room(began)
        deadline = asyncio.timeout(self._limits.read)
        try:
            async with deadline:
                self._coming[deadline] = began, body
                async for part in request.stream():
                    body += part
                    if len(body) > most:
                        raise too_large
        except TimeoutError:
            spent = f"the body was not there within {clock() - began:.3g} seconds"
            raise Refused(408, f"{spent}; send it faster, or a smaller one") from None
        finally:
            self._coming.pop(deadline, None)
        return bytes(body)

    def _make_room(self, now: float) -> None:
        if len(self._coming) < self._limits.queue:
            return
        speeds = {
            deadline: len(body) / (now - began)
            for deadline, (began, body) in self._coming.items()
            if now - began >= GRACE and not deadline.expired()  # such goes in a moment
        }
        if not speeds:
            raise Refused(503, f"{len(self._coming)} images are being sent already; try again")
        slowest = min(speeds, key=speeds.__getitem__)
        del self._coming[slowest]
        slowest.reschedule(now)


def decoded_uploads(
    uploads: Sequence[Upload], how: Preprocessing, limits: ServeLimits
) -> list[NDArray[np.float32]]:
    """Pixels [C, H, W] of each, normalized. Raises Refused, which names the file of a form."""
    pixels = []
    for upload in uploads:
        try:
            pixels.append(decoded(upload.body, how, limits.max_pixels))
        except Refused as error:
            if upload.name is None:
                raise
            raise Refused(error.status, f"{shortened(upload.name, 60)}: {error}") from None
    return pixels


def decoded(body: bytes, how: Preprocessing, most: int) -> NDArray[np.float32]:
    """[C, H, W], normalized. most: pixels of the image. Raises Refused."""
    too_large = Refused(413, f"the image has more than {most:,} pixels, as it is or scaled")
    try:
        with Image.open(io.BytesIO(body), formats=FORMATS) as image:
            # A strip of one pixel by thousands is small, and scaled it is gigabytes.
            if any(high * wide > most for high, wide in (image.size, how.resized(*image.size))):
                raise too_large
            pixels = how.pixels(image)
    except Refused:
        raise
    except Image.DecompressionBombError:
        raise too_large from None
    except UnidentifiedImageError:
        raise Refused(
            415,
            f"the body is none of {', '.join(FORMATS)}; send the bytes of an image file alone, as "
            "curl --data-binary @photo.jpg does (-d changes them)",
        ) from None
    except ValueError as error:  # of `Preprocessing.check`
        raise Refused(422, f"the image cannot be answered: it {in_line(error)}") from None
    except Exception as error:  # decoders raise whatever they like on damaged bytes
        raise Refused(422, f"the image cannot be read: {in_line(error)}") from None
    normalized: NDArray[np.float32] = how.normalized(pixels[None])[0]
    return normalized

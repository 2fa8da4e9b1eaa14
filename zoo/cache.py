"""Published files on this machine: where they lie, how they get there, and that they are what was published.

A file is downloaded beside its final place under a name of its own, compared with its checksum and only
then renamed, so that a killed or failed download leaves nothing behind that looks like weights, and two
processes that fetch the same file at once both end up with it. Beside each file, ``<file>.json`` records the
size, time and SHA-256 that were verified; while size and time still agree, the file is not hashed again.
"""

import contextlib
import hashlib
import http.client
import json
import logging
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from kerasvision.files import cache_home, write_json
from zoo.errors import DownloadError

_CHUNK_BYTES = 1 << 20
_STALE_SECONDS = 24 * 3600
_log = logging.getLogger("kerasvision.zoo")


def cache_dir() -> Path:
    """Return the folder for downloaded weights.

    It is ``$KERASVISION_HOME/weights``, else ``$XDG_CACHE_HOME/kerasvision/weights``, else
    ``~/.cache/kerasvision/weights``. It need not exist yet.
    """
    return cache_home() / "weights"


def cached_path(url: str, sha256: str) -> Path:
    """Return where the file of this address lies once it is downloaded; its name holds its checksum."""
    name = Path(urllib.parse.unquote(urllib.parse.urlparse(url).path)).name or "weights"
    if sha256[:8] not in name:
        stem, dot, suffix = name.partition(".")
        name = f"{stem}-{sha256[:8]}{dot}{suffix}"
    return cache_dir() / name


def fetch(url: str, sha256: str, *, size_bytes: int | None = None, verify: bool = False, timeout: float = 30.0) -> Path:
    """Return the local file of a published address, downloading it on first use.

    Args:
        url: http or https address.
        sha256: SHA-256 in hex, or the first 8 or more digits of it.
        size_bytes: Expected size, for the progress bar of a server that does not tell.
        verify: Hash a file that is in the cache already, even if it looks untouched.
        timeout: Seconds that the server may stay silent.

    Returns:
        The path of the verified file.

    Raises:
        DownloadError: Offline, refused, not found, cut short, or another checksum. A file in the cache with
            another checksum is reported, not replaced.
    """
    path = cached_path(url, sha256)
    if path.exists():
        _check_cached(path, url, sha256, verify=verify)
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale_parts(path.parent)
        partial = path.with_name(f"{path.name}.{os.getpid()}-{time.monotonic_ns()}.part")
        try:
            digest, received = _download(url, partial, size_bytes=size_bytes, timeout=timeout)
            if not digest.startswith(sha256):
                raise DownloadError(
                    f"{url} has SHA-256 {digest}, expected {sha256}…: the {received} bytes received are not "
                    "the published weights, and were discarded. A proxy or login page may stand in between"
                )
            os.replace(partial, path)
            _write_receipt(path, url, digest)
        finally:
            partial.unlink(missing_ok=True)
    except DownloadError:
        raise
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(error, urllib.error.HTTPError):  # which holds the server's answer open
            reason = f"HTTP {error.code} {reason}"
            error.close()
        raise DownloadError(
            f"cannot download {url} ({reason}). Connect to the network, or put the file at {path} by hand, "
            "or pass weights=None for random weights"
        ) from error
    return path


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _receipt(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _write_receipt(path: Path, url: str, digest: str) -> None:
    """Record what was verified; a cache that cannot be written to is hashed each time instead."""
    stat = path.stat()
    content = {"url": url, "sha256": digest, "size_bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    with contextlib.suppress(OSError):
        write_json(_receipt(path), content)


def _check_cached(path: Path, url: str, sha256: str, *, verify: bool) -> None:
    """Compare a cached file with its receipt, or, without a matching one, with its checksum."""
    if not verify:
        try:
            receipt = json.loads(_receipt(path).read_text())
            stat = path.stat()
            untouched = (receipt["size_bytes"], receipt["mtime_ns"]) == (stat.st_size, stat.st_mtime_ns)
            if untouched and receipt["sha256"].startswith(sha256):
                return
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # put there by hand, or by an older version: hash it
    digest = sha256_of(path)
    if not digest.startswith(sha256):
        raise DownloadError(
            f"{path} ({path.stat().st_size} bytes) has SHA-256 {digest}, expected {sha256}…: it is damaged "
            f"or another file. Delete it, and it is downloaded again from {url}"
        )
    _write_receipt(path, url, digest)


def _remove_stale_parts(folder: Path) -> None:
    """Delete what downloads killed more than a day ago left behind."""
    for partial in folder.glob("*.part"):
        with contextlib.suppress(OSError):
            if time.time() - partial.stat().st_mtime > _STALE_SECONDS:
                partial.unlink()


def _download(url: str, partial: Path, *, size_bytes: int | None, timeout: float) -> tuple[str, int]:
    """Write the address's content to `partial` and return its SHA-256 and size."""
    if urllib.parse.urlparse(url).scheme not in ("http", "https"):
        raise DownloadError(f"`source` {url!r} must begin with https:// or http://")
    request = urllib.request.Request(url, headers={"User-Agent": "kerasvision"})  # noqa: S310  checked above
    digest, received = hashlib.sha256(), 0
    with urllib.request.urlopen(request, timeout=timeout) as response, partial.open("xb") as file:  # noqa: S310
        length = response.headers.get("Content-Length")
        total = int(length) if length and length.isdigit() else None
        with _progress(url, total or size_bytes) as advance:
            while chunk := response.read(_CHUNK_BYTES):
                file.write(chunk)
                digest.update(chunk)
                received += len(chunk)
                advance(len(chunk))
        if total is not None and received != total:
            raise DownloadError(
                f"{url} ended after {received} of {total} bytes; nothing was kept. Try again, or pass "
                "weights=None for random weights"
            )
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest(), received


@contextlib.contextmanager
def _progress(url: str, total: int | None) -> Iterator[Callable[[int], object]]:
    """Show a progress bar on a terminal's standard error, or one log line elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        size = f" ({total / 1e6:.1f} MB)" if total else ""
        _log.info("downloading %s%s to %s", url, size, cache_dir())
        yield lambda received: None
        return
    columns = (
        "{task.description}",
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(url.rsplit("/", 1)[-1], total=total)
        yield lambda received: progress.advance(task, received)

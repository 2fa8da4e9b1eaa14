"""Downloads, against a server on this machine."""

import hashlib
import http.server
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from zoo import cache
from zoo.errors import DownloadError

CONTENT = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        if self.path == "/missing.pth":
            self.send_error(404)
            return
        content = b"<html>log in</html>" if self.path == "/login.pth" else CONTENT
        self.send_response(200)
        if self.path != "/lengthless.pth":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.path == "/short.pth":
            content = content[: len(content) // 2]
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("KERASVISION_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests = []
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def files():
    return sorted(path.name for path in cache.cache_dir().iterdir())


@pytest.mark.parametrize("name", ["whole.pth", "lengthless.pth"])
def test_fetch_first_use_downloads_and_second_does_not(server, name):
    path = cache.fetch(f"{server.url}/{name}", SHA256[:8])
    assert path.read_bytes() == CONTENT
    stem = name.removesuffix(".pth")
    assert files() == [f"{stem}-{SHA256[:8]}.pth", f"{stem}-{SHA256[:8]}.pth.json"]
    assert cache.fetch(f"{server.url}/{name}", SHA256[:8]) == path
    assert server.requests == [f"/{name}"]


def test_fetch_checksum_in_the_name_is_not_repeated(server):
    path = cache.fetch(f"{server.url}/model-{SHA256[:8]}.pth", SHA256[:8])
    assert path.name == f"model-{SHA256[:8]}.pth"


def test_fetch_other_content_is_discarded_with_both_checksums(server):
    with pytest.raises(DownloadError, match=r"login\.pth has SHA-256 [0-9a-f]{64}, expected") as caught:
        cache.fetch(f"{server.url}/login.pth", SHA256)
    assert SHA256 in str(caught.value)
    assert files() == []


def test_fetch_body_cut_short_keeps_nothing(server):
    half, whole = len(CONTENT) // 2, len(CONTENT)
    with pytest.raises(DownloadError, match=rf"short\.pth.*{half}.*{whole}|short\.pth.*IncompleteRead"):
        cache.fetch(f"{server.url}/short.pth", SHA256)
    assert files() == []


def test_fetch_missing_file_names_address_place_and_remedy(server):
    with pytest.raises(DownloadError) as caught:
        cache.fetch(f"{server.url}/missing.pth", SHA256)
    message = str(caught.value)
    assert f"{server.url}/missing.pth" in message
    assert "HTTP 404" in message
    assert str(cache.cache_dir() / f"missing-{SHA256[:8]}.pth") in message
    assert "weights=None" in message
    assert files() == []


def test_fetch_refused_connection_names_address_place_and_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("KERASVISION_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as unused:  # bound, never listening: nobody else can take the port meanwhile
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.pth"
        with pytest.raises(DownloadError, match=r"refused.*by hand.*weights=None") as caught:
            cache.fetch(url, SHA256)
    assert url in str(caught.value)
    assert str(tmp_path / "weights") in str(caught.value)


def test_fetch_folder_that_cannot_be_made_is_a_clear_error(monkeypatch, tmp_path, server):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("KERASVISION_HOME", str(tmp_path / "file"))
    with pytest.raises(DownloadError, match="Not a directory"):
        cache.fetch(f"{server.url}/whole.pth", SHA256)


def test_fetch_file_changed_later_is_reported_and_kept(server):
    path = cache.fetch(f"{server.url}/whole.pth", SHA256)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(DownloadError, match=rf"{len(CONTENT) - 1} bytes.*Delete it"):
        cache.fetch(f"{server.url}/whole.pth", SHA256)
    assert path.read_bytes() == CONTENT[:-1]


def test_fetch_verify_hashes_a_file_that_looks_untouched(server):
    import os

    path = cache.fetch(f"{server.url}/whole.pth", SHA256)
    stat = path.stat()
    path.write_bytes(b"\0" + CONTENT[1:-1] + b"\0")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size, same time
    assert cache.fetch(f"{server.url}/whole.pth", SHA256) == path
    with pytest.raises(DownloadError, match="damaged or another file"):
        cache.fetch(f"{server.url}/whole.pth", SHA256, verify=True)


def test_fetch_file_put_there_by_hand_is_hashed_and_used(server):
    path = cache.cached_path(f"{server.url}/whole.pth", SHA256)
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert cache.fetch(f"{server.url}/whole.pth", SHA256) == path
    assert server.requests == []
    assert cache._receipt(path).exists()


def test_fetch_damaged_receipt_is_ignored(server):
    path = cache.fetch(f"{server.url}/whole.pth", SHA256)
    cache._receipt(path).write_text("[]")
    assert cache.fetch(f"{server.url}/whole.pth", SHA256) == path


def test_fetch_at_the_same_time_gives_all_the_same_file(server):
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: cache.fetch(f"{server.url}/whole.pth", SHA256), range(8)))
    assert len(set(paths)) == 1
    assert paths[0].read_bytes() == CONTENT
    assert len(files()) == 2


def test_fetch_old_leftovers_are_removed_and_fresh_ones_are_not(server):
    import os

    cache.cache_dir().mkdir(parents=True)
    old, fresh = cache.cache_dir() / "a.1.part", cache.cache_dir() / "b.2.part"
    old.touch()
    fresh.touch()
    os.utime(old, (0, 0))
    cache.fetch(f"{server.url}/whole.pth", SHA256)
    assert not old.exists()
    assert fresh.exists()


def test_fetch_file_address_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("KERASVISION_HOME", str(tmp_path))
    with pytest.raises(DownloadError, match="must begin with https"):
        cache.fetch("file:///etc/passwd", SHA256)


def test_cache_dir_follows_kerasvision_home_then_xdg_then_home(monkeypatch, tmp_path):
    monkeypatch.setenv("KERASVISION_HOME", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert str(cache.cache_dir()) == "/a/weights"
    monkeypatch.delenv("KERASVISION_HOME")
    assert str(cache.cache_dir()) == "/b/kerasvision/weights"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_dir() == tmp_path / ".cache" / "kerasvision" / "weights"


def test_fetch_on_a_terminal_shows_a_progress_bar(server, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    cache.fetch(f"{server.url}/whole.pth", SHA256)
    assert "whole.pth" in capsys.readouterr().err


def test_fetch_elsewhere_shows_nothing(server, monkeypatch, capsys):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    cache.fetch(f"{server.url}/whole.pth", SHA256)
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""

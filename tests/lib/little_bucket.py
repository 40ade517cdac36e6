"""A bucket of Google's XML interface in memory: what is written, listed and read of it, and uploads in parts.

https://cloud.google.com/storage/docs/xml-api/reference-methods
"""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_DATE = "Sun, 22 Nov 2026 12:00:00 GMT"


class LittleBucket:
    """Takes whatever is sent. `objects`: content and metadata by key; `uploads`: what is not finished."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.uploads: dict[str, tuple[dict[int, bytes], dict[str, str]]] = {}
        self.puts = 0
        self.refuses: str | None = None  # the method that is answered 403
        bucket = self

        class Handler(_Handler):
            store = bucket

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> "LittleBucket":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"


class _Handler(BaseHTTPRequestHandler):
    store: LittleBucket
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_PUT(self) -> None:
        key, query, body, meta = self._asked()
        if "partNumber" in query:
            self.store.uploads[query["uploadId"]][0][int(query["partNumber"])] = body
        else:
            self.store.puts += 1
            self.store.objects[key] = body, meta
        self._answer(headers={"ETag": _etag(body)})

    def do_POST(self) -> None:
        key, query, _, meta = self._asked()
        if "uploads" in query:
            name = f"upload-{len(self.store.uploads)}"
            self.store.uploads[name] = {}, meta
            inside = f"<UploadId>{name}</UploadId>"
            self._answer(f"<InitiateMultipartUploadResult>{inside}</InitiateMultipartUploadResult>".encode())
            return
        parts, kept = self.store.uploads.pop(query["uploadId"])
        whole = b"".join(parts[number] for number in sorted(parts))
        self.store.puts += 1
        self.store.objects[key] = whole, kept
        told = f"<CompleteMultipartUploadResult><ETag>{escape(_etag(whole))}</ETag></CompleteMultipartUploadResult>"
        self._answer(told.encode())

    def do_DELETE(self) -> None:
        _, query, _, _ = self._asked()
        self.store.uploads.pop(query.get("uploadId", ""), None)
        self._answer(status=204)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        key, query, _, _ = self._asked()
        if not key:
            self._answer(self._listing(query))
        elif key not in self.store.objects:
            self._answer(b"<Error><Code>NoSuchKey</Code></Error>", 404)
        else:
            body, meta = self.store.objects[key]
            headers = {"ETag": _etag(body), "Last-Modified": _DATE, **meta}
            if found := self.headers.get("Range"):
                start, _, stop = found.removeprefix("bytes=").partition("-")
                headers["Content-Range"] = f"bytes {start}-{stop}/{len(body)}"
                self._answer(body[int(start) : int(stop) + 1], 206, headers)
            else:
                self._answer(body, 200, headers)

    def _listing(self, query: dict[str, str]) -> bytes:
        after, prefix = query.get("start-after", query.get("marker", "")), query.get("prefix", "")
        found = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(body)}</Size><ETag>{escape(_etag(body))}</ETag>"
            "<LastModified>2026-11-22T12:00:00.000Z</LastModified></Contents>"
            for key, (body, _) in sorted(self.store.objects.items())
            if key.startswith(prefix) and key > after
        )
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>".encode()

    def _asked(self) -> tuple[str, dict[str, str], bytes, dict[str, str]]:
        parts = urlsplit(self.path)
        key = unquote(parts.path.lstrip("/").partition("/")[2])
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        meta = {name.lower(): value for name, value in self.headers.items() if name.lower().startswith("x-goog-meta-")}
        return key, query, body, meta

    def _answer(self, body: bytes = b"", status: int = 200, headers: dict[str, str] | None = None) -> None:
        if self.command == self.store.refuses:
            body, status, headers = b"<Error><Code>AccessDenied</Code></Error>", 403, None
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _etag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'

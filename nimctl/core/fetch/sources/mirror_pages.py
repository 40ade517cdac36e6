"""Folders on web servers as their pages show them: the links of a directory listing. Pure."""

from html.parser import HTMLParser
from urllib.parse import unquote, urljoin, urlsplit


class _Links(HTMLParser):
    """Collects the targets of all links."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the target of a link."""
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]


def entries(page: str, url: str) -> tuple[list[str], list[str]]:
    """Names of the files and of the folders that the listing `page` of the folder `url` links to, decoded.

    Only links to what lies directly in that folder count: not its parent, not sorted views of it, not other hosts.
    Nothing is checked about the names, which may hold anything.
    """
    links = _Links()
    links.feed(page)
    base = urlsplit(url)
    files: dict[str, None] = {}
    folders: dict[str, None] = {}
    for link in links.found:
        try:
            there = urlsplit(urljoin(url, link))
        except ValueError:
            continue
        same = (there.scheme, there.netloc.rpartition("@")[2]) == (base.scheme, base.netloc.rpartition("@")[2])
        if not same or there.query or not there.path.startswith(base.path):
            continue
        name, slash, rest = there.path.removeprefix(base.path).partition("/")
        if name and not rest:
            (folders if slash else files)[unquote(name)] = None
    return list(files), list(folders)

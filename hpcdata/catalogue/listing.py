"""What files a set consists of: asked of the hub once, frozen beside the set, and then the same for all processes.

`listing.json` has the commit of each repository, and of each file its path, size, sha256 (or the sha1 of its git blob,
where it is small). Addresses are made when a file is fetched, so that a mirror may take over in between.
"""

from __future__ import annotations

import contextlib
import functools
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

from hpcdata.base import files, sealed
from hpcdata.base.errors import Failed, UserError
from hpcdata.catalogue.entry import Entry, HubTree
from hpcdata.catalogue.faults import Fault, Wanted
from hpcdata.catalogue.reading import require_below
from hpcdata.catalogue.record import FOLDER
from hpcdata.catalogue.registry import matcher
from hpcdata.catalogue.settings import Hub
from hpcdata.catalogue.web import Answer, Web
from hpcdata.net.addresses import shown

_NEXT = re.compile(r'<([^>]+)>\s*;\s*rel="?next"?')
_MOST_BYTES = 1 << 30
_MOST_SHOWN = 80
_SHA256, _SHA1 = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class Listed:
    """path below the folder of the set; source: which repository (its place in `commits`) and path there, or a URL."""

    path: str
    size: int | None
    sha256: str | None
    git_sha1: str | None
    repo: str | None
    commit: str | None
    source: str

    def wanted(self, hub: Hub) -> Wanted:
        url = self.source
        if self.repo is not None:
            url = f"{_base(hub.endpoint, self.repo, self.commit)}/{quote(self.source)}"
        return Wanted(path=self.path, url=url, size=self.size, sha256=self.sha256, git_sha1=self.git_sha1)


@functools.lru_cache
def _base(endpoint: str, repo: str, commit: str | None) -> str:
    return f"{endpoint}/datasets/{quote(repo)}/resolve/{commit}"


@dataclass(frozen=True)
class Listing:
    """sources: of which state of the entry it is. stale: paths of revisions before, which go once this one is here."""

    sources: Any
    files: tuple[Listed, ...]
    stale: tuple[str, ...] = ()

    def commits(self) -> dict[str, str]:
        return {item.repo: item.commit for item in self.files if item.repo and item.commit}


def path_of(folder: Path) -> Path:
    return folder / FOLDER / "listing.json"


def load(folder: Path) -> Listing | None:
    """None where there is none yet. Raises Failed for one that is damaged."""
    path = path_of(folder)
    try:
        values = sealed.read_json(path)
        files_of = tuple(Listed(*item) for item in values["files"])
        return Listing(values["sources"], files_of, tuple(map(str, values.get("stale", ()))))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise Failed(f"{path}: {error}; remove it, and the files are listed again") from None


def sources_of(entry: Entry) -> Any:
    """Of an entry: all that a listing is made of."""
    trees = [[tree.repo, tree.revision, list(tree.include), list(tree.exclude), tree.folder] for tree in entry.hub]
    return {"hub": trees, "files": [[item.url, item.path, item.size, item.sha256] for item in entry.files]}


def freeze(entry: Entry, folder: Path, web: Web, hub: Hub, *, patience_s: float, anew: bool = False) -> Listing:
    """The listing of the set, made now when there is none, or none of this entry. Raises Fault."""
    found = load(folder)
    if found is not None and found.sources == sources_of(entry) and not anew:
        return found
    made = Listing(sources_of(entry), tuple(_list(entry, web, hub, patience_s)))
    stale: list[str] = []
    if found is not None and found.sources == made.sources:
        here = {item.path for item in made.files}
        stale = [path for path in (*(item.path for item in found.files), *found.stale) if path not in here]
    values = {"sources": made.sources, "files": [list(vars(item).values()) for item in made.files], "stale": stale}
    data = sealed.to_json(values)
    path = path_of(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    if found is None and not anew:
        files.create_exclusive(path, data)  # another process may have been first: then its listing counts
    else:
        files.write_atomic(path, data)
    loaded = load(folder)
    assert loaded is not None
    return loaded


def _list(entry: Entry, web: Web, hub: Hub, patience_s: float) -> Iterator[Listed]:
    seen: set[str] = set()
    for tree in entry.hub:
        some = False
        for item in _list_tree(entry, tree, web, hub, patience_s):
            some = True
            if item.path in seen:
                raise UserError(f"{entry.name}: two sources have a file {item.path}: give one of the trees a folder")
            seen.add(item.path)
            yield item
        if not some:
            raise Fault("gone", "empty", f"{tree.repo}, revision {tree.revision}, has no file that the entry asks for")
    for file in entry.files:
        yield Listed(file.path, file.size, file.sha256, None, None, None, file.url)


def _list_tree(entry: Entry, tree: HubTree, web: Web, hub: Hub, patience_s: float) -> Iterator[Listed]:
    api = f"{hub.endpoint}/api/datasets/{quote(tree.repo)}"
    try:
        info, _ = _json(f"{api}/revision/{quote(tree.revision, safe='')}", web, patience_s)
    except Fault as fault:
        if fault.reason in ("http 401", "http 403", "http 404"):
            raise Fault(
                fault.kind,
                fault.reason,
                f"{tree.repo}, revision {tree.revision}: there is none, or it is not open to you: accept its terms at "
                f"{hub.endpoint}/datasets/{tree.repo}, and "
                + ("see that your token is right and may read it" if hub.token else "export HF_TOKEN"),
            ) from None
        raise
    if not isinstance(info, dict) or not isinstance(commit := info.get("sha"), str):
        raise _strange(api, info)
    wanted = matcher(tree.include) if tree.include else None
    unwanted = matcher(tree.exclude) if tree.exclude else None
    page, seen = f"{api}/tree/{quote(commit, safe='')}?recursive=true&expand=false", set[str]()
    while page:
        entries, answer = _json(page, web, patience_s)
        for name, size, sha256, sha1 in _files_of(entries, page):
            if (wanted and not wanted.fullmatch(name)) or (unwanted and unwanted.fullmatch(name)):
                continue
            path = f"{tree.folder}/{name}" if tree.folder else name
            require_below(path, f"{tree.repo} lists a file that cannot be stored")
            yield Listed(path, size, sha256, None if sha256 else sha1, tree.repo, commit, name)
        seen.add(page)
        found = _NEXT.search(answer.headers.get("link", ""))
        page = urljoin(page, found[1]) if found else ""
        if page in seen:
            raise Fault("wrong", "listing", f"{shown(page)}: its pages lead in a circle")


def _files_of(entries: Any, page: str) -> Iterator[tuple[str, int | None, str | None, str | None]]:
    """Path, size, sha256 and sha1 of the git blob. Raises Fault for what no hub says."""
    if not isinstance(entries, list):
        raise _strange(page, entries)
    for item in entries:
        lfs = (item.get("lfs") or {}) if isinstance(item, dict) else None
        if not isinstance(item, dict) or not isinstance(lfs, dict) or not isinstance(name := item.get("path"), str):
            raise _strange(page, item)
        if item.get("type") != "file":
            continue
        size, sha256, sha1 = lfs.get("size", item.get("size")), lfs.get("oid"), item.get("oid")
        is_number = size is None or (isinstance(size, int) and size >= 0)
        is_name = name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)
        sums = ((sha256, _SHA256), (sha1, _SHA1))
        if not (is_number and is_name and all(sum is None or _is_sum(sum, kind) for sum, kind in sums)):
            raise _strange(page, item)
        yield name, size, sha256, sha1


def _is_sum(value: Any, kind: re.Pattern[str]) -> bool:
    return isinstance(value, str) and kind.fullmatch(value) is not None


def _strange(url: str, value: Any) -> Fault:
    return Fault("wrong", "listing", f"{shown(url)} says what no hub says: {ascii(value)[:_MOST_SHOWN]}")


def _json(url: str, web: Web, patience_s: float) -> tuple[Any, Answer]:
    """Asked again while the hub is busy. Raises Fault."""
    last, tries = time.monotonic(), 0
    while True:
        try:
            data, answer = web.read(url, _MOST_BYTES)
            with contextlib.suppress(ValueError):
                return files.parse_json(data, "the answer"), answer
            raise Fault("busy", "no json", f"{url}: {data[:60]!r} is no JSON")
        except Fault as fault:
            tries += 1
            if fault.kind != "busy" or fault.reason == "stopped" or time.monotonic() - last > patience_s:
                raise
            web.wait_after(fault, tries, last + patience_s - time.monotonic(), web.wait)

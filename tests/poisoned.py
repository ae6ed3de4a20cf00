"""Poisoned decoders: a sitecustomize.py for the processes of a run that makes some records deadly to decode or read.

Nothing of this exists in the package: `install(folder, how, victims)` returns the PYTHONPATH under which
what decodes pictures does `how` when it is given one of the victims, which are the bytes of image files; or, with
`where=READING`, the function that sources call for the bytes of a text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

DECODING = ("hpcdata.media.pixels", "load", "require_decodable", "is_plain_jpeg")
CHECKING = ("hpcdata.media.kept", "check")
READING = ("hpcdata.sources.base", "decoded_text")
DEATHS = {
    "segfault": "import ctypes; ctypes.string_at(0)",
    "kill": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "abort": "import os; os.abort()",
    "memory": "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**30, -1)); bytearray(2**32)",
    "malloc": "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**31, -1)); exhaust()",
    "glutton": "grow()",
    "sleep": "import time; time.sleep(60)",
    "pause": "import time; time.sleep(0.05)",
    "spin": "while True: pass",
    "hang": "import ctypes; ctypes.PyDLL(None).pause()",  # with the interpreter's lock
}
_SITECUSTOMIZE = """
import hashlib, importlib.abc, importlib.machinery, sys

VICTIMS = {victims!r}

def exhaust():
    import ctypes  # native code that checks no malloc, as decoders may be
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    while True:
        libc.memset(libc.malloc(2**26), 1, 4096)

def grow():
    import time
    kept = []
    while len(kept) < 64:  # to 4 GiB: slowly enough to be seen
        kept.append(b"x" * 2**26)
        time.sleep(0.02)

class Loader(importlib.abc.Loader):
    def __init__(self, real):
        self.real = real
    def create_module(self, spec):
        return self.real.create_module(spec)
    def exec_module(self, module):
        self.real.exec_module(module)
        for name in {functions!r}:
            setattr(module, name, self.poisoned(getattr(module, name)))
    def poisoned(self, real):
        def function(data, **options):
            if hashlib.sha256(data).hexdigest() in VICTIMS:
                {death}
            return real(data, **options)
        return function

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != {module!r}:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        spec.loader = Loader(spec.loader)
        return spec

sys.meta_path.insert(0, Finder())
"""


def install(folder: Path, how: str, victims: Iterable[bytes], where: tuple[str, ...] = DECODING) -> str:
    """Returns what PYTHONPATH must hold."""
    folder.mkdir()
    hashes = {hashlib.sha256(data).hexdigest() for data in victims}
    module, *functions = where
    text = _SITECUSTOMIZE.format(victims=hashes, death=DEATHS[how], module=module, functions=functions)
    (folder / "sitecustomize.py").write_text(text)
    return str(folder)

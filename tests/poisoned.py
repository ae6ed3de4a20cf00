"""Poisoned decoders: a sitecustomize.py for the processes of a run that makes some pictures deadly to decode.

Nothing of this exists in the package: `install(folder, how, victims)` returns the PYTHONPATH under which
`pixels.load_square` does `how` when it is given one of the victims, which are the bytes of image files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

DEATHS = {
    "segfault": "import ctypes; ctypes.string_at(0)",
    "kill": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "abort": "import os; os.abort()",
    "memory": "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**30, -1)); bytearray(2**32)",
}
_SITECUSTOMIZE = """
import hashlib, importlib.abc, importlib.machinery, sys

VICTIMS = {victims!r}

class Loader(importlib.abc.Loader):
    def __init__(self, real):
        self.real = real
    def create_module(self, spec):
        return self.real.create_module(spec)
    def exec_module(self, module):
        self.real.exec_module(module)
        real = module.load_square
        def load_square(data, **options):
            if hashlib.sha256(data).hexdigest() in VICTIMS:
                {death}
            return real(data, **options)
        module.load_square = load_square

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "hpcdata.encoders.pixels":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        spec.loader = Loader(spec.loader)
        return spec

sys.meta_path.insert(0, Finder())
"""


def install(folder: Path, how: str, victims: Iterable[bytes]) -> str:
    """Returns what PYTHONPATH must hold."""
    folder.mkdir()
    hashes = {hashlib.sha256(data).hexdigest() for data in victims}
    (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE.format(victims=hashes, death=DEATHS[how]))
    return str(folder)

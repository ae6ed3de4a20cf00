"""The compiled loops of the loader; all else is in setup.cfg. A machine without a C compiler goes without them."""

from setuptools import Extension, setup

kernels = Extension(
    "hpcdata.native._kernels",  # no module: a library for ctypes, so Python's headers are not needed
    ["hpcdata/native/kernels.c", "hpcdata/native/parallel.c"],
    depends=["setup.py", "hpcdata/native/parallel.h"],
    extra_compile_args=["-O3", "-std=gnu11", "-pthread"],
    extra_link_args=["-pthread"],
    optional=True,
)
setup(ext_modules=[kernels])

"""The compiled loops of the loader; all else is in setup.cfg. A machine without a C compiler goes without them."""

from setuptools import Extension, setup

kernels = Extension(
    "hpcdata.loading._kernels",  # no module: a library for ctypes, so Python's headers are not needed
    ["hpcdata/loading/kernels.c"],
    depends=["setup.py"],
    extra_compile_args=["-O3", "-std=gnu11"],
    optional=True,
)
setup(ext_modules=[kernels])

"""Native: the innermost loops, in C where there was a compiler, else in NumPy. They know arrays and threads alone.

May use: nothing of ours. `pyproject.toml` builds the C files into libraries, which ctypes loads. Each loop has its
equal in NumPy beside its caller; who changes an argument changes VERSION in `compiled` and in `kernels.c`.

    compiled     the loops of kernels.c and pictures.c as functions of arrays; None where they are not there
    writers      what copies and writes ids: rows and runs looked up once, for many batches
    structs      the structs of kernels.c: what a batch is assembled from, and into
    addresses    arrays as C takes them, once their lengths and dtypes are checked
    jpegs        those of jpegs.c: JPEGs read to their end without pixels, and marks counted
    threads      how many threads share a copy; copies that go on behind the caller (parallel.c)
    arrays       ragged ids -> padded blocks
    recycled     memory of earlier batches that nobody holds, for new ones
    intervals    which of consecutive intervals holds each of many values
    awaited      results that one thread makes and one other waits for, without a future each
    forks        locks and cached values that threads and forked processes can share
"""

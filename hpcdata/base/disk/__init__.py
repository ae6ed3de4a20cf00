"""Disk: large files, written past the page cache where that is fast.

May use: base.

    direct      a file's way past the page cache, as long as it is fast
    filled      a file that threads and processes fill side by side
"""

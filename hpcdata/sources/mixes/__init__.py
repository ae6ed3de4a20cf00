"""Mixes: LLaVA's lists of files, and the part of each that is taken.

May use: base, order; of the sources their base and patterns.

    entries       the entries of a list: which file, which part
    parts         first:N, end:N, random:N of a file: what is counted, and which records are read
"""

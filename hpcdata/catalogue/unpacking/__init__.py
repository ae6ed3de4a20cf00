"""Archives of a set -> the files in them, beside it.

marks       which archives a set has, and which of them are unpacked
working     all archives of a set, shared out among processes
"""

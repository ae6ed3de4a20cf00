"""Archives of a set -> the files in them, beside it.

archives    members of a zip or tar, in their order: what may be written, and what is refused
working     all archives of a set, shared out among processes, resumed at the member
"""

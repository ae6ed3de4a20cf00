"""Inputs: which files a run reads, and how they are read.

formats     which format a file has
looking     what lies at a path: the files to read
listing     all inputs in order, with their labels and where their pictures lie
preparing   those that cannot be sliced become JSON lines
"""

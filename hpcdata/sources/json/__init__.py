"""Files of JSON that are no lines: read as they stream, with one record in memory.

shapes      what stands in a file, told from its beginning
marks       the brackets and commas outside of strings
array       an array as JSON lines
pieces      a file as its records and what is between them
kept_places where the questions of a large file stand, kept on disk
questions   lists of questions by their places, read one by one
"""

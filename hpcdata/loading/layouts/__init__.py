"""Layouts: how the spans of samples become the arrays of a batch. Stored ids never change, only this does.

named                  finding a layout by its name
base                   what all layouts share
fixed_columns          t2i and text: text in the first columns, the image in the last
fixed_batches          their batches, by whole rows
interleaved            images between control ids: t2i, captions, documents, conversations
templates              what stands around the turns of conversations
sequences              spans lined up with control ids, as runs of ids
baked_rows             rows that are stored as the layout makes them
assembly               lined-up samples -> batches
assembly_compiled      their arrays by the loops in C
assembly_numpy         the same by NumPy
padded_text            texts as padded blocks
widening               batches of 16-bit ids as int64 on the device
"""

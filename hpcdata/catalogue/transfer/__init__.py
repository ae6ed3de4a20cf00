"""The bytes of one file: asked for by one connection or several, written, hashed in their order, published.

part         what fetching needs of a file on its way
in_memory    a small file: held until it is whole
ranges       which bytes are here, and which are missing
notes        what is written beside a part: checkpoints, and blocks that came before their turn
blocks       buffers, and how they get to the disk
hashing      sums of files that are there, at the speed of the disk
lanes        the blocks of one connection
ordering     sha256 of blocks in the file's order
settling     one thread writes blocks, one hashes them
on_disk      a large file: lanes fill blocks, which settle
fetcher      asks until the file is whole and right
batches      small files, many in one thread
connections  how many connections one file gets
"""

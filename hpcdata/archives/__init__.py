"""Archives: zip and tar, plain, compressed or in parts, unpacked safely and member by member.

May use: base, samples, sources, runs.

    parts       the files of an archive as one
    decoding    bzip2, xz and what zips have -> bytes, in constant memory
    members     a member of an archive, of whatever kind it is
    zips        the members of a zip, by its directory
    tars        the members of a tar, plain or compressed
    names       a member's name -> a path inside of the folder
    journal     what became of each member: the account, and where to go on
    onearchive  one archive into a folder
    checking    members read back
    unpacking   all archives of a source into a folder
"""

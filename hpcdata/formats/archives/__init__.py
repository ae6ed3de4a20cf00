"""Archives: zip, tar, tar.gz and tar.zst, whole or in parts, unpacked safely and member by member.

May use: what the room of formats may.

    parts       the files of an archive as one
    zips        the members of a zip, by its directory
    tars        the members of a tar, plain or compressed
    names       a member's name -> a path inside of the folder
    journal     what became of each member: the account, and where to go on
    unpacking   all archives of a source into a folder
"""

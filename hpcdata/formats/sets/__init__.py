"""Sets: folders of data sets as others hand them out, made ready for training.

May use: what the room of formats may.

    finding       which sets a folder holds, of Parquet and of JSON
    editing       JSON whose fields are changed where they stand, while it streams
    mapping       which JSON belongs to which set: JSON_Mapping.csv
    relinking     the pictures' paths of each set start with its folder, and are looked for
    running       all sets of a folder, whose archives of pictures are unpacked first
    scripts       the words of the documents' scripts as those of the command
    staging       the stages of LLaVA-OneVision as mixes; stages/ has their files
"""

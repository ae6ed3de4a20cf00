"""Sets: folders of data sets as others hand them out, made ready for training.

May use: what the room of formats may.

    editing       JSON whose fields are changed where they stand, while it streams
    mapping       which JSON belongs to which set: JSON_Mapping.csv
    relinking     the pictures' paths of each set start with its folder, and are looked for
"""

"""Sets: annotations of COCO, LVIS and VQA v2 as JSON lines, a record a picture, a caption or a question.

May use: base, samples; of the sources their base, streams and limits.

    elements      the lists of one large JSON object, element by element, with their places
    joining       which elements belong together, by a number; nothing is held but places
    categories    numbers and names of what is in pictures
    coordinates   boxes and points as text, in the styles of several systems
    settings      what is made of the annotations
    kinds         kinds of annotations, and the tasks that can be asked of each
    coco          pictures and their annotations -> captions, boxes, counts, presence, keypoints
    masks         polygons and run lengths -> run lengths as text, and those -> pixels
    vqa           questions and their answers
    writing       records as lines
"""

"""Pictures of records: which ones a record of JSON or Parquet names, under which fields, and where they lie.

May use: base, samples, media; of the sources their base, streams, Parquet files and records.

    fields        fields of a record -> the pictures that it names; what media it holds that are not read
    numbered      fields of one name that numbers tell apart, image_1 and image_2
    telling       which pictures are not read, as another field is
    places        a picture that is named -> its bytes, inside of the folder where pictures may lie
    row_members   a row -> the row as JSON, and its pictures
    tables        Parquet whose columns hold or name pictures
    table_parts   the part of such a file that a mix takes
    arrow         Arrow of Hugging Face's save_to_disk
    exported      rows of an export of ours as the records that they were
    metadata      the metadata.csv of an imagefolder as JSON lines
    listed        a picture and its sidecar, of the listing of a folder
    names         an id -> names of files
    placeholders  markers that are not as many as the pictures of a record
    turns         conversations and messages -> turns with their speakers, and pictures that are named in a turn
"""

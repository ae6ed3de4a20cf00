"""Pictures of records: which ones a record of JSON or Parquet names, under which fields, and where they lie.

May use: base, samples, media, and `sources.base`.

    fields        fields of a record -> the pictures that it names; what media it holds that are not read
    places        a picture that is named -> its bytes, inside of the folder where pictures may lie
    turns         conversations and messages -> turns with their speakers, and pictures that are named in a turn
"""

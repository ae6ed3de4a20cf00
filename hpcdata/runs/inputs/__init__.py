"""What a run reads: each input as it was when it was planned.

May use what its room uses.

    planned     PlannedInput; what a shard takes of inputs: ShardSpec, Segment
    scanning    inputs -> how many samples, and where reading may start
    pictures    whether a run that asks for pictures finds any
"""

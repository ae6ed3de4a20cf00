"""A picture -> crops, patches, and the tokens that stand for it; its size alone -> how many."""

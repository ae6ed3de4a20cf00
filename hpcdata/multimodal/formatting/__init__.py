"""Fields of an example -> turns of a conversation.

templates       ways to ask: ours, and a user's own from a YAML file
points          points and counts as text
options         multiple choice: options behind letters
styles          what is said of a style before a question
fields          an example's pictures, conversations and annotations, in one shape
markers         messages -> turns with the places of pictures
asking          what an annotation asks, and what is answered
conversations   changes of a conversation before it is split at its pictures
formatter       DataFormatter: all of the above in their order
"""

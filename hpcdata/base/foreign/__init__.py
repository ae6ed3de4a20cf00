"""What others wrote, as values.

May use: base.

    yaml_text   YAML, in bounded time and memory
"""

"""The one exception that users see as a single clear line instead of a traceback."""


class UserError(ValueError):
    """Bad configuration, paths or data: the message says what, where, got against expected, and what to do."""

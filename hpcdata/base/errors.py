"""The exceptions that users see as a single clear line instead of a traceback."""


class UserError(ValueError):
    """Bad configuration, paths or data: the message says what, where, got against expected, and what to do."""


class Failed(UserError):
    """Nothing is wrong with what was asked: a file is damaged, or the machine or the cluster did not do its part."""


class Unfinished(UserError):
    """Nothing is wrong: what was asked for is not there yet."""

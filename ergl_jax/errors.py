"""The error that a user's input earns."""


class InputError(ValueError):
    """A wrong file, field or value; the message is one line that names it and says what to do.

    Command-line programs print the message without a traceback and exit with status 2.
    """

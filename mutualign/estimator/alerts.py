"""The warnings of a fit."""


class NoTargetWarning(UserWarning):
    """No target was given, so there is nothing to adapt to."""


class AlarmWarning(UserWarning):
    """The audit of a fit raised an alarm: something to know before trusting the classifier."""

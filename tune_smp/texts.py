"""How values, names and numbers stand in a line of text."""

from __future__ import annotations


def shown(value: object) -> str:
    """A value or file name as it can stand in a line of text: quoted where it would not be seen, would break the line,
    or could spoil a terminal."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if text and text == text.strip() and text.isprintable() else repr(text)


def counted(count: int, noun: str) -> str:
    """``1 epoch``, ``2 epochs``, ``1,000 epochs``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float, *, rough: bool = False) -> str:
    """The two largest units: ``9.5 s``, ``12 s``, ``3 min 05 s``, ``2 h 10 min``; ``rough`` is no finer than seconds,
    and minutes above them, for what is estimated."""
    if seconds < 59.5:
        return f"{seconds:.0f} s" if rough or seconds >= 9.95 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(round(seconds / 60) if rough or minutes >= 60 else minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min" if rough else f"{minutes} min {rest:02d} s"

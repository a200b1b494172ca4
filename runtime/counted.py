"""Numbers in front of words."""


def counted(number: int, one: str, many: str = "") -> str:
    """`1 frame`, `2 frames`: the number, then `one` or `many`, which is `one` and an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"

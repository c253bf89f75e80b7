"""One way to write a text down before it is embedded, the same for every embedder that reads meaning.

Texts that differ only in white space or in how Unicode composes their characters are one text: they get one vector,
are sent once and are found in the cache under one key.
"""

import unicodedata

# What stands for a text without characters: endpoints refuse empty input.
EMPTY = "(empty)"


def normalised(text: str) -> str:
    r"""A text in Unicode's composed form (NFC), its runs of white space and control characters as single blanks.

    Args:
        text: Any text; lone surrogates, which no encoder takes, become U+FFFD.

    Returns:
        The text to embed, never empty.

    Example:
        >>> normalised(" color\tis  cafe\u0301\n")
        'color is café'
        >>> normalised("")
        '(empty)'
    """
    if text.isascii() and text.isprintable():  # most texts; `split` does the rest
        return " ".join(text.split()) or EMPTY
    clean = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    spaced = "".join(" " if unicodedata.category(sign) in ("Cc", "Zl", "Zp") else sign for sign in clean)
    return " ".join(unicodedata.normalize("NFC", spaced).split()) or EMPTY

"""Slow definitions of where words and characters start."""

import unicodedata

UNICODE = unicodedata.ucd_3_2_0
# The table of docs/codebooks.md.
WITHOUT_BLANKS = [
    ("\u0e00", "\u0eff"),
    ("\u1000", "\u109f"),
    ("\u1780", "\u17ff"),
    ("\u3040", "\u30ff"),
    ("\u31f0", "\u31ff"),
    ("\u3400", "\u4dbf"),
    ("\u4e00", "\u9fff"),
    ("\uf900", "\ufaff"),
    ("\uff66", "\uff9f"),
    ("\U00020000", "\U0002ffff"),
]


def characters_of(data):
    """The characters of UTF-8, None for each byte that is none, and where each begins."""
    found, place = [], 0
    while place < len(data):
        for size in (1, 2, 3, 4):
            try:
                found.append((place, data[place : place + size].decode()))
                place += size
                break
            except UnicodeDecodeError:
                pass
        else:
            found.append((place, None))
            place += 1
    return found


def class_of(character):
    if character is None or ord(character) >= 0x30000:
        return "other"
    if character in "\t\n\v\f\r\x85":
        return "space"
    names = {"Z": "space", "L": "letter", "M": "letter", "N": "number"}
    found = names.get(UNICODE.category(character)[0], "other")
    if found == "letter" and any(f <= character <= last for f, last in WITHOUT_BLANKS):
        return "letter of a script without blanks"
    return found


def word_starts_of(data):
    """0 or 1 for each byte, and 1 for the end: docs/codebooks.md, "Words"."""
    places = characters_of(data)
    classes = [class_of(character) for _, character in places]
    starts = [0] * (len(data) + 1)
    starts[0] = starts[len(data)] = 1
    for i in range(1, len(places)):
        is_new = classes[i] != classes[i - 1] or "without" in classes[i]
        if is_new and places[i - 1][1] != " ":
            starts[places[i][0]] = 1
        goes_before = i + 1 < len(places) and classes[i + 1] != "space"
        if places[i][1] == " " and goes_before:
            starts[places[i][0]] = 1
    return starts

"""The text of ids as they come one by one."""

from corpusmill.corpus.tokenizers.tokenizer import Tokenizer

# How a decoder shows bytes that are no character, or the beginning of one.
_NO_CHARACTER = "\ufffd"


class TextStream:
    """Decodes ids one by one; characters of which an id has only a part are held back.

    Libraries decode whole texts only, so each id is decoded behind the ones that the last
    characters came from.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        # The last ids, and how many of them have been shown.
        self._ids: list[int] = []
        self._shown = 0

    def add(self, token: int) -> str:
        """The text that is known now and wasn't before.

        Raises:
          ValueError: the id isn't in the vocabulary.
        """
        self._ids.append(token)
        text = self._held_back()
        if not text or text.endswith(_NO_CHARACTER):
            return ""
        self._ids, self._shown = self._ids[self._shown :], len(self._ids) - self._shown
        return text

    def finish(self) -> str:
        """What was held back, with U+FFFD for what is no character."""
        return self._held_back()

    def _held_back(self) -> str:
        before = self._tokenizer.decode(self._ids[: self._shown])
        return self._tokenizer.decode(self._ids)[len(before) :]

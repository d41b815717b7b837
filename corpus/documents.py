"""Document batches: Arrow record batches of documents, the unit that flows through a pipeline."""

from dataclasses import dataclass

import pyarrow as pa

DOCUMENT_SCHEMA = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class BadRecord:
    """A record that could not be read as a document.

    Attributes:
      source: URL of the file.
      offset: byte offset in the (decompressed) file, or row number from 0; of what is lost, where
        it begins.
      reason: one line.
      rest_is_lost: whether the file is damaged, so that what one worker reads of it ends here.
    """

    source: str
    offset: int
    reason: str
    rest_is_lost: bool = False


def is_unicode(text: str) -> bool:
    """Whether a string has a form in UTF-8, as file names and JSON needn't have."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

"""What a codebook costs as a `tokenizer.json`, by the length of a text.

python -m benchmarks.word_piece english.codebook english.txt
"""

import pathlib
import sys
import tempfile
import time

import transformers

from corpusmill.compress import Codebook
from corpusmill.compress.codecs.codebook_export import export_codebook

_CHARACTERS = (1000, 2000, 4000, 8000, 16000)


def main(codebook: str, file: str) -> None:
    book = Codebook.open(codebook)
    text = pathlib.Path(file).read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        export_codebook(codebook, folder)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for count in _CHARACTERS:
        part = text[:count]
        began = time.process_time()
        ids = tokenizer(part)["input_ids"]
        seconds = time.process_time() - began
        assert ids == book.encode(part).tolist()
        print(f"{count:>8,} characters {seconds:8.3f} s of processor time")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A byte model that coders know nothing of but the protocol."""

from dataclasses import dataclass

from corpusmill.compress import ByteModel


@dataclass(frozen=True)
class Opaque:
    """Says what another model says."""

    model: ByteModel

    def __getattr__(self, name):
        return getattr(self.model, name)

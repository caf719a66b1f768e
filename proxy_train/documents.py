"""The documents of a source, by its name of earlier versions; it lies in `proxy_train.text`."""

from proxy_train.text.documents import read_documents

__all__ = ["read_documents"]

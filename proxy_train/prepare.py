"""Text as tokens on disk, by its name of earlier versions; it lies in `proxy_train.text`."""

from proxy_train.text.prepare import prepare

__all__ = ["prepare"]

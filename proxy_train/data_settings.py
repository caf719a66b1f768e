"""The `data` section of a run, by its name of earlier versions; it lies in `proxy_train.text`."""

from proxy_train.text.data_settings import DataSettings

__all__ = ["DataSettings"]

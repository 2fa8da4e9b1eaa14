"""What can go wrong with weights, one class per remedy."""


class WeightsError(ValueError):
    """A weights file cannot be used: missing, damaged, of an unknown layout, or of another model."""


class UnsafePickleError(WeightsError):
    """A `.pth` file asks for something that only running code could give; nothing of it was executed."""


class DownloadError(WeightsError):
    """Published weights are not in the cache and could not be fetched, or did not match their checksum."""

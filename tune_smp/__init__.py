"""tune-smp: the best segmentation model that this data and this much compute can give."""

__version__ = "0.1.0"

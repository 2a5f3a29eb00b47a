"""SQSD: sample-level quantification of safety degradation in fine-tuning."""

__version__ = "0.1.0"

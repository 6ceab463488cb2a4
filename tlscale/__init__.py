"""tlscale: distributed fine-tuning and transfer learning that proves what each transfer did."""

__version__ = "0.1.0"

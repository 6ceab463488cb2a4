"""The one training loop, and the parts it is made of. It knows stages, never strategies."""

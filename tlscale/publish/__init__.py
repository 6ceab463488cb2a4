"""Handing a finished run on: to the Hub, to whoever wants to check or repeat it. Free of torch."""

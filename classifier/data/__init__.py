"""Tables generated from real servers; see `generate.py`."""

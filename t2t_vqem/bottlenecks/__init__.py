"""Discretisations: one E-step and one M-step each, behind the contract in `bottleneck.py`."""

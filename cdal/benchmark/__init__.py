"""Simulated active learning: does a selector need fewer labels than another for the same accuracy?

All labels are known, and hidden until a selector requests them. Needs neither a server nor the
backend's libraries.
"""

"""Curves, bars and scatters as SVG and as text."""

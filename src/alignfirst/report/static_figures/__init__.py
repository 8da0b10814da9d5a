"""Figures as SVG files, by matplotlib."""

"""Mixtures of Gaussians in two dimensions: the smallest world in which order can matter."""

"""Classes of image files, predicted by a stored model."""

"""Classes of image files, told by a kept model."""

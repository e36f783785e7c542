"""Projects: a folder of images, annotations, classifiers and results, and the operations on it."""

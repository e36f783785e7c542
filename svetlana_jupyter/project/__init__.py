"""Projects: folders of images, annotations, classifiers and results."""

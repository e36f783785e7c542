"""What is known of images and objects without learning: numpy, pandas, xarray, dask."""

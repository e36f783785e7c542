"""Images, masks, objects and statistics, without learning: numpy, pandas, xarray, dask."""

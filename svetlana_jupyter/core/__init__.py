"""Images, masks, objects, features and statistics, independent of torch and of the user interface."""

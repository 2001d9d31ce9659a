"""One training (`run`), a folder of finished ones (`store`), many at once (`sweep`)."""

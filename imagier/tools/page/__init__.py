"""`imagier demo`: a page that paints, from a bundle of `imagier export`."""

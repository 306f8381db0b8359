"""The handwritten-digits demonstration: a small trained network and the images it was trained and tested with."""

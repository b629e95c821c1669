"""The stages of an experiment: images, Gram matrices, training, solving, verifying; export of its files."""

"""The stages of one experiment: images, Gram matrices, training, solving, verifying; its files for others."""

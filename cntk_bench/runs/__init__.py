"""One experiment: what it is asked (`config`), what it did (`record`), where it is kept (`directory`)."""

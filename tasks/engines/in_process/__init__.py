"""transformers in this process: what waits is answered in batches, as fast as the device goes."""

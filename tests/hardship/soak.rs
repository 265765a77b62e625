//! What hours do: memory, descriptors and latency while viewers come and go every second.

"""A simulated S3, in memory: see `benchmarks/s3_endpoint.py`."""

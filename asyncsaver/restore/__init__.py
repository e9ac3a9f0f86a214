"""find → read → verify → assemble."""

"""stage → write → parts → merge → commit."""

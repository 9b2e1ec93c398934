"""Where a job's sites run. Every runtime carries the same sealed bytes between the same coordinator and sessions."""

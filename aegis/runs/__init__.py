"""Run folders: everything one run of a job leaves behind, and what it needs to go on after a crash."""

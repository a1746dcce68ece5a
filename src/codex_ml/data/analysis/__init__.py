"""What is in files of records: lengths, repetitions, near duplicates, and where each record begins."""

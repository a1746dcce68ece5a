"""Files of records read as streams of lines: what they are packed in, what they look like, and JSON read strictly."""

"""Planted violations for no_raw_text_in_logs.yaml."""
import logging
import warnings

logger = logging.getLogger(__name__)

# ruleid: no-raw-text-in-logs
context.log_event("record_dropped", text=record.text)
# ruleid: no-raw-text-in-logs
context.log_event("sample", answer=f"got {generation.text!r}")
# ruleid: no-raw-text-in-logs
logger.info("record %s", record.prompt)
# ruleid: no-raw-text-in-logs
logging.warning("bad %s", record.completion)
# ruleid: no-raw-text-in-logs
warnings.warn(f"cannot read {message.content}")
# ruleid: no-raw-text-in-logs
print(record.prompt)
# ruleid: no-raw-text-in-logs-variable
logger.info("prompt: %s", prompt)
# ruleid: no-raw-text-in-logs-variable
context.log_event("sample", answer=predictions)
# ok: no-raw-text-in-logs
context.log_event("record_dropped", record_id=record.record_id)
# ok: no-raw-text-in-logs
context.log_event("sample", length=len(record.text))
# ok: no-raw-text-in-logs
logger.info("%d records", count)

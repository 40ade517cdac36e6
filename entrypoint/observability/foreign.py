"""What other programs write, line by line, as records of our one shape: vLLM, uvicorn, nginx, Python, C libraries.

Text is read, and nothing is configured inside the engine: what a C library or a dying interpreter writes never passes
through any logging configuration, so the text must be understood anyway. Formats:
https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/logger.py (_FORMAT), .../logging_utils/uvicorn_logging.py,
https://nginx.org/en/docs/ngx_core_module.html#error_log
"""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from nimctl.core.logshape import Record

# Numbers are bounded in all of these: Python refuses to read one of thousands of digits, and any text may come here.
_LEVELS = "DEBUG|INFO|WARNING|ERROR|CRITICAL"
_VLLM = re.compile(
    rf"(?:\((?P<process>[^()]{{1,60}}?) pid=(?P<pid>\d{{1,9}})\) )?(?P<level>{_LEVELS}) "
    r"\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)? \[(?P<file>[^\]\s]+):(?P<line>\d{1,9})\] ?(?P<message>.*)$"
)
_UVICORN = re.compile(rf"(?P<level>{_LEVELS}|TRACE):\s{{2,}}(?P<message>.*)$")
_ACCESS = re.compile(r'"[A-Z]+ (?P<path>[^" ?]*)(?:\?[^" ]*)? HTTP/[\d.]+"(?: (?P<code>\d{3}))?')
_NGINX = re.compile(
    r"(?:\d{4}/\d\d/\d\d [\d:]{8}|nginx:) \[(?P<level>[a-z]+)\] (?:(?P<pid>\d{1,9})#\d+: )?(?P<message>.*)$"
)
_NGINX_LEVELS = {"debug": "DEBUG", "info": "INFO", "notice": "INFO", "warn": "WARNING", "error": "ERROR"}
_QUERY = re.compile(r'\?[^" ]*(?= HTTP/|")')
_REFERRER = re.compile(r', referrer: "[^"]*"?')
# c10d, glog and torch: https://github.com/google/glog#severity-levels ; `[rank0]:[W1122 12:00:00.123 file.cpp:12] `
_GLOG = re.compile(
    r"(?:\[rank\d+\]:\s?)?\[?(?P<level>[IWEF])\d{4} [\d:.]+ (?:\d+ )?(?P<file>[^\s:]+):(?P<line>\d{1,9})\] ?"
    r"(?P<message>.*)$"
)
_GLOG_LEVELS = {"I": "INFO", "W": "WARNING", "E": "ERROR", "F": "CRITICAL"}
_WARNING = re.compile(r"(?:\S*/)?(?P<file>[\w.-]+\.py):(?P<line>\d{1,9}): (?P<message>\w*Warning: .*)$")
_GENERIC = re.compile(
    rf"\[?\d{{4}}-\d\d-\d\d[T ][\d:.,]+Z?\]?[ ,|\[-]+(?P<level>{_LEVELS})\b[\s\]:|,-]*(?P<message>.*)$"
)
_RANK = re.compile(r"\[rank\d+\]:\s?")
_TRACEBACK = re.compile(r"(?:.*\s)?(?:Traceback|Exception Group Traceback) \(most recent call last\):")
_CHAIN = re.compile(r"During handling of the above|The above exception was")
_GRAVE = re.compile(
    r"[\w.]*(?:Error|Exception)\b(?::|$)|Fatal Python error|Segmentation fault|Bus error|Killed|Aborted"
    r"|terminate called|\S* ?(?:serve: )?error: "
)
_FRAME = re.compile(r'File "(?:[^"]*/)?([^"/]+)", line (\d{1,9})\b')
_REQUEST = re.compile(r"\b(?:[Rr]equest(?: id:)?|[Rr]esponse) ((?:chatcmpl|cmpl|resp|msg|req)[-_][\w-]{4,80})")
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[^\[]")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
# What asks for these is a probe or a scraper, every few seconds.
_PROBES = frozenset({"/health", "/ping", "/metrics", "/v1/models"})
# pydantic repeats in its errors what was sent, and nginx and uvicorn the query: a request's content is not for the log.
_ECHOES = (("input_value=", ", input_type="), ("'input': ", None))  # where an echo begins, and what follows it
_MESSAGES_ERROR = re.compile(r"(Error in (?:create_messages|count_tokens): ).*")


def parse(text: str, stage: str, now: float, *, content: bool = False) -> tuple[Record, bool]:
    """The line as a record, and whether its form was recognised; a line that was not has level INFO, or ERROR.

    Without `content`, what such lines repeat of a request's body or query is left out.
    """
    text = _CONTROL.sub("\ufffd", _COLOUR.sub("", text))
    record = _recognised(text, stage, now)
    known = record is not None
    if record is None:
        grave = bool(_GRAVE.match(_RANK.sub("", text, count=1)) or _TRACEBACK.match(text))
        record = Record("ERROR" if grave else "INFO", now, stage, text)
    message = record.message if content else without_content(record.message)
    request = _REQUEST.search(message)
    return replace(record, message=message, request_id=request[1] if request else record.request_id), known


def without_content(message: str) -> str:
    """A message or a raw line without what it repeats of a request."""
    if _ACCESS.search(message):
        message = _REFERRER.sub("", _QUERY.sub("", message))
    for begin, after in _ECHOES:
        if (start := message.find(begin)) >= 0:
            end = message.rfind(after, start) if after else -1
            message = f"{message[: start + len(begin)]}***{message[end:] if end >= 0 else ''}"
    return _MESSAGES_ERROR.sub(r"\1***", message)


def is_traceback(text: str) -> bool:
    """Whether a traceback begins here."""
    return bool(_TRACEBACK.match(text))


def belongs(text: str) -> bool:
    """Whether a line that no form fits can only be a part of what was said before it."""
    bare = _RANK.sub("", text, count=1)
    return not bare or bare[0] in " \t" or bool(_CHAIN.match(bare))


def place(record: Record) -> Record:
    """The record with the file and line of the innermost frame, where it is a traceback and names no other."""
    if record.file_name is not None or not (frames := _FRAME.findall(record.message)):
        return record
    return replace(record, file_name=frames[-1][0], line_number=int(frames[-1][1]))


def _recognised(text: str, stage: str, now: float) -> Record | None:
    for pattern, read in _FORMS:
        if match := pattern.match(text):
            return read(match, stage, now)
    return _from_json(text, stage, now) if text.startswith("{") else None


def _vllm(match: re.Match[str], stage: str, now: float) -> Record:
    pid = int(match["pid"]) if match["pid"] else None
    return replace(_placed(match, stage, now), process=match["process"], pid=pid)


def _nginx(match: re.Match[str], stage: str, now: float) -> Record:
    level = _NGINX_LEVELS.get(match["level"], "CRITICAL")
    pid = int(match["pid"]) if match["pid"] else None
    return Record(level, now, stage, match["message"], process="nginx", pid=pid)


def _uvicorn(match: re.Match[str], stage: str, now: float) -> Record:
    """What probes and scrapers ask is for those who debug."""
    level = "DEBUG" if match["level"] == "TRACE" else match["level"]
    record = Record(level, now, stage, match["message"], process="uvicorn")
    asked = _ACCESS.search(record.message)
    quiet = asked is not None and asked["path"] in _PROBES and asked["code"] == "200"
    return replace(record, level="DEBUG") if quiet else record


def _placed(match: re.Match[str], stage: str, now: float) -> Record:
    level = _GLOG_LEVELS.get(match["level"], match["level"])
    return Record(level, now, stage, match["message"], match["file"], int(match["line"]))


def _warned(match: re.Match[str], stage: str, now: float) -> Record:
    return Record("WARNING", now, stage, match["message"], match["file"], int(match["line"]))


def _plain(match: re.Match[str], stage: str, now: float) -> Record:
    return Record(match["level"], now, stage, match["message"])


_FORMS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], str, float], Record]], ...] = (
    (_VLLM, _vllm),
    (_NGINX, _nginx),
    (_UVICORN, _uvicorn),
    (_GLOG, _placed),
    (_WARNING, _warned),
    (_GENERIC, _plain),
)


def _from_json(text: str, stage: str, now: float) -> Record | None:
    """A line of `--logging-config.formatter json`, or of another program that writes objects with a message."""
    try:
        document: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or not isinstance(document.get("message"), str):
        return None
    level = str(document.get("levelname") or document.get("level") or "INFO").upper()
    message = document["message"]
    if isinstance(trace := document.get("exc_info"), str):
        message += "\n" + trace
    file, line, pid = document.get("file_name"), document.get("line_number"), document.get("process")
    return Record(
        level if level in _LEVELS.split("|") else "INFO",
        now,
        stage,
        message,
        file if isinstance(file, str) else None,
        line if isinstance(line, int) else None,
        process=str(document["processName"]) if "processName" in document else None,
        pid=pid if isinstance(pid, int) else None,
    )

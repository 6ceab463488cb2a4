"""What is said about the time that is left is what the work done so far supports."""

from __future__ import annotations

import io

from tlscale.evaluation.scoring.progress import Bar, Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_remaining_time_follows_the_tokens_and_not_the_requests() -> None:
    # half of the requests are answered, but they were the short ones
    assert Progress(100, 1000, 50, 100).remaining(10.0) == 90.0
    assert Progress(1000, 1000, 100, 100).remaining(10.0) == 0.0


def test_nothing_is_said_before_enough_is_known() -> None:
    assert Progress(10, 1000, 0, 100).remaining(1.0) is None
    assert "left" not in Progress(10, 1000, 0, 100).line(1.0)


def test_a_bar_draws_over_itself_at_most_twice_a_second_and_leaves_nothing() -> None:
    moments = iter([0.0, 0.1, 0.2, 1.0, 2.0])
    stream = Terminal()
    bar = Bar(stream, lambda: next(moments))
    for tokens in (0, 100, 200, 500, 1000):
        bar(Progress(tokens, 1000, tokens // 10, 100))
    drawn = [part for part in stream.getvalue().split("\r\x1b[K") if part.strip()]
    assert len(drawn) == 3
    assert "50%  50/100  0:00:01   0:00:01 left" in drawn[1]
    assert stream.getvalue().endswith("\r\x1b[K")


def test_a_log_file_gets_no_bar() -> None:
    stream = io.StringIO()
    bar = Bar(stream, lambda: 0.0)
    bar(Progress(500, 1000, 0, 100))
    assert stream.getvalue() == ""

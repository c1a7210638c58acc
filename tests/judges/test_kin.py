"""A judge is its name, model and address: one that is nearly the same is told before it is paid anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from faulty_server import FaultyServer

from aipo.judges import OpenAIEndpoint, OpenAIJudge, ReplyStore, stored
from aipo.judges.kin import kin
from aipo.judges.replies import judge_hash
from aipo.judges.scripted import ScriptedJudge
from aipo.records import Message

CHATS = [(Message("user", "a"),)]


def judge(url: str, name: str = "m", model: str = "model") -> OpenAIJudge:
    return OpenAIJudge(model, OpenAIEndpoint(url, None), name)


def test_a_name_and_a_slash_make_another_judge_and_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = FaultyServer(lambda prompt, attempt: None)
    store = ReplyStore(tmp_path)
    with server.running() as url:
        stored(judge(url), store).reply(CHATS, max_tokens=5)
        stored(judge(url), store).reply(CHATS, max_tokens=6)
        stored(judge(url, model="other"), store).reply(CHATS, max_tokens=5)
        assert caplog.text == ""
        stored(judge(url, "M"), store).reply(CHATS, max_tokens=5)
        assert "judge M: this store has replies of the same model as another judge, with name 'm';" in caplog.text
        assert sum(server.requests.values()) == 4
        caplog.clear()
        stored(judge(url, "M"), store).reply(CHATS, max_tokens=6)
        assert caplog.text == ""
        stored(judge(url + "/"), store).reply(CHATS, max_tokens=5)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2 and sum(f"with endpoint '{url}';" in line for line in told) == 1
    assert sum(f"with name 'M', endpoint '{url}';" in line for line in told) == 1


def test_only_replies_of_nearly_the_same_identity_count(tmp_path: Path) -> None:
    def there(identity: dict[str, str], replies: bool = True) -> None:
        folder = tmp_path / judge_hash(identity)
        folder.mkdir()
        (folder / "judge.json").write_text(str(identity).replace("'", '"'))
        if replies:
            (folder / "x.jsonl").write_text("")

    one = {"name": "m", "model": "model", "endpoint": "https://h/ 2024"}
    there(one)
    there(one | {"endpoint": "https://h 2024"})
    there(one | {"endpoint": "https://h 2025"})
    there(one | {"name": "other"}, replies=False)
    there({"name": "scripted"})
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "judge.json").write_text('{"name": ')
    assert kin(tmp_path, one) == ["endpoint 'https://h 2024'"]
    assert kin(tmp_path, ScriptedJudge(lambda chat: "x").identity()) == []
    assert kin(tmp_path / "nothing", one) == []

import pytest

from tests.parts import Listener, post

pytestmark = pytest.mark.anyio


async def test_smoke(redis_server, start_replica, start_nginx):
    a, b = start_replica(redis_url=redis_server.url), start_replica(redis_url=redis_server.url)
    nginx = start_nginx(a, b)
    first = await Listener.open(f"{a.url}/events/web/production")
    second = await Listener.open(f"{b.url}/events/web/production")
    third = await Listener.open(f"{nginx.url}/events/web/production")
    assert post(nginx.url).status_code == 201
    for listener in (first, second, third):
        await listener.has(1)
        await listener.close()
    assert a.terminate() in (0, -15)
    assert "ERROR" not in a.log

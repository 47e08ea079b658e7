"""What is wrong with the URL of a database is said in one line, without its password."""

import pytest

from controller.db.database import engine_url
from controller.domain.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("garbage", "no URL such as postgresql"),
        ("postgresql+psycopg://u:geheim@host:port/d", "no URL such as postgresql"),
        ("oracle://u:geheim@host/d", "'oracle' is no engine of ours"),
        ("postgresql+nothing://u:geheim@host/d", r"ours is postgresql\+psycopg"),
        ("mysql+mysqldb://u:geheim@host/d", r"ours is mysql\+pymysql"),
    ],
)
def test_a_wrong_url(text: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        engine_url(text)
    assert "geheim" not in str(caught.value)

"""The client of S3 reads an answer as botocore does, and sooner."""

import time

import pytest
from botocore.parsers import ResponseParserFactory
from botocore.utils import parse_timestamp

from raygrad.storage.s3_client import client, moment

ANSWERS = [
    "2026-11-29T05:32:45.000Z",
    "2026-11-29T05:32:45Z",
    "2026-11-29T05:32:45.123456+02:00",
    "2026-11-29T05:32:45",
    "2026-11-29",
    "20261129T053245Z",
    "Sun, 29 Nov 2026 05:32:45 GMT",
    "Sun, 29 Nov 2026 05:32:45 -0000",
    "Sunday, 29-Nov-26 05:32:45 GMT",
    "1795930365",
    "1795930365.5",
    1795930365,
    1795930365.5,
]


@pytest.mark.parametrize("said", ANSWERS)
def test_a_moment_is_what_botocore_takes_it_for(said):
    found, right = moment(said), parse_timestamp(said)
    assert found == right
    assert found.utcoffset() == right.utcoffset()


def test_what_is_no_moment_is_refused_as_botocore_does():
    with pytest.raises(ValueError, match="Invalid timestamp"):
        moment("some day")


def test_the_client_takes_less_than_half_of_botocores_time_for_a_page_of_names(monkeypatch):
    """Of listings of a hundred thousand names the time of each is a matter of minutes."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    shape = client().meta.service_model.operation_model("ListObjectsV2").output_shape
    names = "".join(
        f"<Contents><Key>part-{at}</Key><LastModified>2026-11-29T05:32:45.000Z</LastModified>"
        f"<ETag>&quot;{at:032}&quot;</ETag><Size>{at}</Size></Contents>"
        for at in range(200)
    )
    body = f"<ListBucketResult>{names}</ListBucketResult>".encode()
    answer = {"headers": {}, "status_code": 200, "body": body}
    # What the client itself reads its answers with: botocore has no public name for it.
    own = client()._endpoint._response_parser_factory.create_parser("rest-xml")
    plain = ResponseParserFactory().create_parser("rest-xml")
    assert own.parse(answer, shape) == plain.parse(answer, shape)
    took_s: dict[object, list[float]] = {own: [], plain: []}
    for _ in range(5):
        for parser, times in took_s.items():
            begun_s = time.process_time()
            parser.parse(answer, shape)
            times.append(time.process_time() - begun_s)
    assert min(took_s[own]) < min(took_s[plain]) / 2

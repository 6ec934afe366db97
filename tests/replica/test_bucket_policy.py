"""The policy on the page about buckets: it is enough, and no more than needed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from minio import MinioAdmin
from minio.credentials import StaticProvider

from tests.support.buckets import new_s3_bucket
from tests.support.minio import ACCESS_KEY, SECRET_KEY, MinioServer

_PAGE = Path(__file__).parents[2] / "docs" / "buckets.md"
_USE = """
import sys
from dosql.clock import SystemRandomness
from dosql.errors import DosqlError
from dosql.replica.bucket_url import open_bucket
from dosql.replica.probe import probe
from dosql.replica.s3_bucket import S3Bucket
from dosql.replica.s3_requests import S3Options

endpoint, name, other = sys.argv[1:]
options = S3Options(multipart_bytes_min=6 << 20, part_bytes=5 << 20)
bucket = open_bucket(f"s3://{name}/dosql", endpoint=endpoint, options=options)
probe(bucket, SystemRandomness())
bucket.put("large", bytes(7 << 20))
assert bucket.head("none") is None
bucket.delete([info.key for info in bucket.list()])
for forbidden in (f"s3://{name}/elsewhere", f"s3://{name}", f"s3://{other}/dosql"):
    try:
        probe(open_bucket(forbidden, endpoint=endpoint), SystemRandomness())
        print("allowed", forbidden)
    except DosqlError as error:
        print(error.code)
"""


def test_the_documented_policy_suffices_and_confines(minio: MinioServer) -> None:
    name, other = new_s3_bucket(minio.url), new_s3_bucket(minio.url)
    text = _PAGE.read_text(encoding="utf-8")
    (block,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    policy = json.loads(block.replace("my-bucket", name))
    admin = MinioAdmin(
        endpoint=f"127.0.0.1:{minio.port}",
        credentials=StaticProvider(ACCESS_KEY, SECRET_KEY),
        secure=False,
    )
    admin.policy_add("dosql", policy=policy)
    admin.user_add("server", "secret-of-server")
    admin.attach_policy(["dosql"], user="server")
    environ = {"AWS_ACCESS_KEY_ID": "server", "AWS_SECRET_ACCESS_KEY": "secret-of-server"}
    used = subprocess.run(
        [sys.executable, "-c", _USE, minio.url, name, other],
        env={**environ, "AWS_EC2_METADATA_DISABLED": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (used.returncode, used.stdout.split()) == (0, ["bucket_denied"] * 3), used.stderr

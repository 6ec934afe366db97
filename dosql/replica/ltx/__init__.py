"""LTX files, format version 3: the pages that a range of transactions changed.

Header (100 bytes), page frames, 6 zero bytes, page index, length of the index (8 bytes), trailer
(16 bytes). Litestream 0.5 reads what is written here, and the other way round.
"""

from dosql.replica.ltx.checksums import database_checksum, page_checksum
from dosql.replica.ltx.decoder import Decoder, LtxFile, decode, decode_page
from dosql.replica.ltx.encoder import Encoder, encode
from dosql.replica.ltx.header import CHECKSUM_BIT, HEADER_BYTES, Header, sequence_fault
from dosql.replica.ltx.index import TAIL_BYTES_MIN, PageIndex, read_index, tail_bytes

__all__ = [
    "CHECKSUM_BIT",
    "HEADER_BYTES",
    "TAIL_BYTES_MIN",
    "Decoder",
    "Encoder",
    "Header",
    "LtxFile",
    "PageIndex",
    "database_checksum",
    "decode",
    "decode_page",
    "encode",
    "page_checksum",
    "read_index",
    "sequence_fault",
    "tail_bytes",
]

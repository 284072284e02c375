"""The pure-Python core: the names, results and errors of the compiled core, without a compiler."""

from .batch import Encoder, apply_batch, client_batch, server_batch
from .json import JSONBytes, check_value, encode_value, json_line, json_value
from .json_structure import count_nodes, split_items
from .keys import (
    MAX_CID,
    MAX_DEPTH,
    MAX_KEY_BYTES,
    MAX_VALUE_BYTES,
    KeySpace,
    cid_key,
    decode_key,
    encode_key,
    parse_cid_key,
    range_bounds,
    successor,
)
from .records import encode_json_key, join_record, split_record, split_rows
from .scan import Decoder, collect, decode_changes, find_damaged

__all__ = [
    "MAX_CID",
    "MAX_DEPTH",
    "MAX_KEY_BYTES",
    "MAX_VALUE_BYTES",
    "Decoder",
    "Encoder",
    "JSONBytes",
    "KeySpace",
    "apply_batch",
    "check_value",
    "cid_key",
    "client_batch",
    "collect",
    "count_nodes",
    "decode_changes",
    "decode_key",
    "encode_json_key",
    "encode_key",
    "encode_value",
    "find_damaged",
    "join_record",
    "json_line",
    "json_value",
    "parse_cid_key",
    "range_bounds",
    "server_batch",
    "split_items",
    "split_record",
    "split_rows",
    "successor",
]

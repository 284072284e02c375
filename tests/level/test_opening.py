"""Arguments of `Level(...)`, and reasons to refuse an opening."""

import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from stores import Stores

from treehub_level import (
    BackendNotFoundError,
    Level,
    LevelError,
    LockedError,
    MemoryBackend,
    Mode,
    ModeError,
    ModeMismatchError,
    StorageError,
    blocking,
)


@pytest.fixture(params=[Level, blocking.Level], ids=["api=async", "api=blocking"])
def make(request: pytest.FixtureRequest) -> Any:
    """The class `Level` of each API. Constructing one opens nothing."""
    return request.param


# ------------------------------------------------------------------------------------- constructing


@pytest.mark.parametrize("mode", ["server", "SERVER", 1, None, object()])
def test_an_unknown_mode_is_refused(make: Any, mode: Mode) -> None:
    with pytest.raises(ValueError, match="mode"):
        make("x", backend="memory", mode=mode)


@pytest.mark.parametrize("prefix", ["", "0", "a", "!a", "a!", " ", "\x00", "!\uffff", "é"])
def test_a_prefix_of_other_characters_than_exclamation_mark_to_slash_is_refused(make: Any, prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        make("x", backend="memory", mode=Level.SERVER, prefix=prefix)


@pytest.mark.parametrize("prefix", [None, b"!", 1])
def test_a_prefix_that_is_not_a_str_is_refused(make: Any, prefix: str) -> None:
    with pytest.raises(TypeError, match="prefix"):
        make("x", backend="memory", mode=Level.SERVER, prefix=prefix)


@pytest.mark.parametrize("option", ["value_encoding", "key_encoding"])
def test_an_unknown_encoding_is_refused(make: Any, option: Any) -> None:
    with pytest.raises(ValueError, match=option):
        make("x", backend="memory", **{option: "utf-16"})


@pytest.mark.parametrize("mode", [Level.SERVER, Level.CLIENT])
@pytest.mark.parametrize("option", ["value_encoding", "key_encoding"])
def test_bytes_need_normal_mode(make: Any, mode: Mode, option: Any) -> None:
    with pytest.raises(ValueError, match="NORMAL"):
        make("x", backend="memory", mode=mode, **{option: "bytes"})


def test_options_are_keyword_only(make: Any) -> None:
    with pytest.raises(TypeError):
        make("x", "memory")


def test_the_default_backend_is_leveldb(tmp_path: Path, engine: str) -> None:
    with blocking.Level(str(tmp_path / "store")) as level:
        level.put("a", 1)
    with blocking.Level(str(tmp_path / "store"), backend=engine) as level:
        assert level.get("a") == 1


def test_a_path_may_be_a_path_object(tmp_path: Path) -> None:
    with blocking.Level(tmp_path / "store") as level:
        level.put("a", 1)
    assert (tmp_path / "store").is_dir()


def test_a_backend_may_be_a_class() -> None:
    with blocking.Level("x", backend=MemoryBackend) as level:
        level.put("a", 1)
        assert level.get("a") == 1


def test_a_backend_may_be_a_function_of_the_name() -> None:
    names = []

    def make_backend(name: str) -> Any:
        names.append(name)
        return MemoryBackend(name)

    with blocking.Level("the name", backend=make_backend) as level:
        level.put("a", 1)
    assert names == ["the name"]


def test_the_error_for_an_unknown_backend_lists_the_registered_ones(make: Any) -> None:
    with pytest.raises(BackendNotFoundError, match="memory") as caught:
        make("x", backend="leveldown")
    assert caught.value.code == "LEVEL_BACKEND_NOT_FOUND"


def test_a_function_that_returns_no_backend_is_refused() -> None:
    with pytest.raises(TypeError, match="Backend"), blocking.Level("x", backend=cast(Any, lambda name: object())):
        pass


@pytest.mark.parametrize("backend", [5, None, b"memory"])
def test_a_backend_of_a_wrong_type_is_refused(make: Any, backend: str) -> None:
    with pytest.raises(TypeError, match="backend"):
        make("x", backend=backend)


def test_an_option_that_the_backend_does_not_know_is_refused() -> None:
    with pytest.raises(TypeError, match="bloom"), blocking.Level("x", backend="memory", bloom=1):
        pass


def test_options_of_leveldb_are_passed_to_it(tmp_path: Path, engine: str) -> None:
    options: dict[str, Any] = {"write_buffer_size": 1 << 20, "block_cache_size": 1 << 20, "bloom_filter_bits": 0}
    with blocking.Level(str(tmp_path / "store"), backend=engine, **options) as level:
        level.put("a", 1)
        assert level.get("a") == 1


# ---------------------------------------------------------------------------------- existing stores


async def test_a_store_remembers_its_mode(stores: Stores, mode: Mode) -> None:
    level = await stores.open("store", mode=mode)
    await level.put("a", 1)
    await level.close()

    for other in type(mode):
        if other is not mode:
            with pytest.raises(ModeMismatchError) as caught:
                await stores.open("store", mode=other)
            assert caught.value.code == "LEVEL_MODE_MISMATCH"
            assert isinstance(caught.value, ModeError)

    await level.open()
    assert await level.get("a") == 1


@pytest.mark.parametrize("wanted", [Level.SERVER, Level.CLIENT])
async def test_an_empty_store_remembers_its_mode_too(stores: Stores, wanted: Any) -> None:
    level = await stores.open("store", mode=wanted)
    await level.close()

    for other in type(wanted):
        if other is not wanted:
            with pytest.raises(ModeMismatchError):
                await stores.open("store", mode=other)


async def test_a_refused_opening_leaves_the_bytes_unchanged(stores: Stores) -> None:
    normal = await stores.open("store")
    await normal.batch([{"type": "put", "key": f"k{n}", "value": n} for n in range(20)])
    before = await stores.bytes_of(normal)
    await normal.close()

    for mode in (Level.SERVER, Level.CLIENT):
        with pytest.raises(ModeMismatchError, match="adopt"):
            await stores.open("store", mode=mode)

    assert stores.raw("store") == before


@pytest.mark.parametrize("sync_mode", [Level.SERVER, Level.CLIENT])
async def test_the_id_of_a_store_is_permanent(stores: Stores, sync_mode: Mode) -> None:
    level = await stores.open("store", mode=sync_mode)
    store_id = (await level.info())["store"]
    await level.close()
    await level.open()

    assert (await level.info())["store"] == store_id
    assert len(bytes.fromhex(store_id)) == 16
    other = await stores.open("other", mode=sync_mode)
    assert (await other.info())["store"] != store_id


async def test_two_prefixes_are_two_key_spaces(stores: Stores) -> None:
    for prefix in ("!", "/", "#", "!!", "/!", "+-"):
        level = await stores.open(f"store {ord(prefix[0])} {len(prefix)}", mode=Level.SERVER, prefix=prefix)
        await level.put("a", 1)
        assert await level.query() == [("a", 1)]
        assert await level.get(prefix) == 1
        assert await level.get(prefix + "1") == ["a", 1]


# ------------------------------------------------------------------------------------- on disk only


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    """The directory of a store on disk."""
    return str(tmp_path / "store")


async def test_a_second_level_on_an_open_directory_is_refused(folder: str, engine: str) -> None:
    async with Level(folder, backend=engine) as level:
        await level.put("a", 1)
        with pytest.raises(LockedError, match="open already in this process") as caught:
            await Level(folder, backend=engine).open()
        assert caught.value.code == "LEVEL_LOCKED"
        with pytest.raises(LockedError), blocking.Level(folder, backend=engine):
            pass
        assert await level.get("a") == 1

    async with Level(folder, backend=engine) as level:
        assert await level.get("a") == 1


def test_a_directory_that_another_process_has_open_is_refused(folder: str, engine: str) -> None:
    script = """
import sys
from treehub_level import blocking
with blocking.Level(sys.argv[1], backend=sys.argv[2]):
    print("open", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, folder, engine], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin
        assert other.stdout
        assert other.stdout.readline() == "open\n"
        level = blocking.Level(folder, backend=engine)
        with pytest.raises(LockedError, match="HTTP"):
            level.open()
        other.stdin.close()
        assert other.wait(30) == 0

    with level:
        level.put("a", 1)


def test_a_file_in_place_of_the_directory_is_refused_and_left_unchanged(tmp_path: Path, engine: str) -> None:
    file = tmp_path / "store"
    file.write_text("precious")
    with pytest.raises(StorageError) as caught, blocking.Level(str(file), backend=engine):
        pass
    assert isinstance(caught.value, OSError)
    assert file.read_text() == "precious"


def test_a_path_that_cannot_be_made_is_refused(tmp_path: Path, engine: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError), blocking.Level(tmp_path / "file" / "store", backend=engine):
        pass


def test_a_level_that_could_not_be_opened_can_be_opened_later(tmp_path: Path, engine: str) -> None:
    file = tmp_path / "store"
    file.write_text("in the way")
    level = blocking.Level(str(file), backend=engine)
    with pytest.raises(LevelError):
        level.open()
    file.unlink()

    with level:
        level.put("a", 1)
        assert level.get("a") == 1

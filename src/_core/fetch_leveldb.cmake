# Builds LevelDB with snappy from pinned releases, static, for find_leveldb.cmake, and sets what that sets.
#
# Without a network, -DFETCHCONTENT_SOURCE_DIR_LEVELDB=... and -DFETCHCONTENT_SOURCE_DIR_SNAPPY=... name unpacked sources.

include(FetchContent)
FetchContent_Declare(
  snappy
  URL https://github.com/google/snappy/archive/refs/tags/1.2.2.tar.gz
  URL_HASH SHA256=90f74bc1fbf78a6c56b3c4a082a05103b3a56bb17bca1a27e052ea11723292dc
)
FetchContent_Declare(
  leveldb
  URL https://github.com/google/leveldb/archive/refs/tags/1.23.tar.gz
  URL_HASH SHA256=9a37f8a6174f09bd622bc723b55881dc541cd50747cbd08831c2a82d620f6d76
)

# In the cache, since both projects are of a time when option() did not heed ordinary variables.
foreach(unwanted IN ITEMS SNAPPY_BUILD_TESTS SNAPPY_BUILD_BENCHMARKS SNAPPY_INSTALL LEVELDB_BUILD_TESTS
                          LEVELDB_BUILD_BENCHMARKS LEVELDB_INSTALL BUILD_SHARED_LIBS)
  set(${unwanted} OFF CACHE INTERNAL "")
endforeach()
# What LevelDB would look for on the system: the answers are snappy from here, nothing else, and no -Werror for users.
set(HAVE_SNAPPY ON CACHE INTERNAL "")
foreach(unwanted IN ITEMS HAVE_CRC32C HAVE_TCMALLOC HAVE_CLANG_THREAD_SAFETY)
  set(${unwanted} OFF CACHE INTERNAL "")
endforeach()

set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
if(NOT MSVC)
  add_compile_options(-ffunction-sections -fdata-sections) # so that the linker can leave out what nobody calls
endif()
FetchContent_MakeAvailable(snappy leveldb) # in this order: LevelDB links to the target of that name
set_target_properties(leveldbutil PROPERTIES EXCLUDE_FROM_ALL ON) # a tool of LevelDB's own

set(leveldb_libraries leveldb)
set(LEVELDB_INCLUDE_DIR "")

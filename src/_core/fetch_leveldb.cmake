# Builds static libraries of LevelDB and snappy from pinned releases, and sets the variables of
# find_leveldb.cmake.
#
# Without a network, -DFETCHCONTENT_SOURCE_DIR_LEVELDB=... and -DFETCHCONTENT_SOURCE_DIR_SNAPPY=...
# name unpacked sources.

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

# Cache variables, because option() in projects this old ignores ordinary ones.
foreach(unwanted IN ITEMS SNAPPY_BUILD_TESTS SNAPPY_BUILD_BENCHMARKS SNAPPY_INSTALL LEVELDB_BUILD_TESTS
                          LEVELDB_BUILD_BENCHMARKS LEVELDB_INSTALL BUILD_SHARED_LIBS)
  set(${unwanted} OFF CACHE INTERNAL "")
endforeach()
# The results of LevelDB's checks of the system: snappy from here, no other library, and no -Werror.
set(HAVE_SNAPPY ON CACHE INTERNAL "")
foreach(unwanted IN ITEMS HAVE_CRC32C HAVE_TCMALLOC HAVE_CLANG_THREAD_SAFETY)
  set(${unwanted} OFF CACHE INTERNAL "")
endforeach()

set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
if(NOT MSVC)
  add_compile_options(-ffunction-sections -fdata-sections) # lets the linker drop unused functions
endif()
FetchContent_MakeAvailable(snappy leveldb) # in this order: LevelDB links to the target snappy
set_target_properties(leveldbutil PROPERTIES EXCLUDE_FROM_ALL ON) # a command-line tool of LevelDB

set(leveldb_libraries leveldb)
set(LEVELDB_INCLUDE_DIR "")

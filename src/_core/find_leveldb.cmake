# Sets leveldb_libraries to the libraries that link LevelDB into a module, or to nothing, and
# LEVELDB_INCLUDE_DIR to the folder of its headers.
#
# Static libraries come first: they cannot be missing at run time, and cannot clash with another
# copy of LevelDB in the process (plyvel brings one).

option(TREEHUB_LEVEL_FETCH_LEVELDB "Build with pinned releases of LevelDB and snappy, not with installed ones" OFF)

include(CheckLanguage)
check_language(CXX)
if(NOT CMAKE_CXX_COMPILER)
  return()
endif()
enable_language(CXX)

include(CheckCXXSourceCompiles)
include(CMakePushCheckState)
find_package(Threads REQUIRED)

# For wheels, which must hold the same LevelDB on every build machine.
if(TREEHUB_LEVEL_FETCH_LEVELDB)
  include(${CMAKE_CURRENT_LIST_DIR}/fetch_leveldb.cmake)
  return()
endif()

# Sets leveldb_libraries to these libraries, unless it is set already, or they cannot be linked into
# a module: they are missing, need other libraries, or are not position-independent. (Debian's
# static library is built for executables; it links if its symbols are hidden.)
function(consider_leveldb)
  if(leveldb_libraries OR "${ARGN}" MATCHES "NOTFOUND")
    return()
  endif()
  cmake_push_check_state(RESET)
  set(CMAKE_REQUIRED_QUIET ON)
  set(CMAKE_REQUIRED_LIBRARIES ${ARGN} Threads::Threads)
  set(CMAKE_REQUIRED_INCLUDES ${LEVELDB_INCLUDE_DIR})
  if(UNIX AND NOT APPLE)
    set(CMAKE_REQUIRED_FLAGS -fPIC)
    set(CMAKE_REQUIRED_LINK_OPTIONS -shared -Wl,-z,defs -Wl,--exclude-libs,ALL)
  endif()
  unset(leveldb_links CACHE) # a library missing at the last build may be installed now
  check_cxx_source_compiles("#include <leveldb/c.h>\nint main() { leveldb_free(leveldb_options_create()); }" leveldb_links)
  cmake_pop_check_state()
  if(leveldb_links)
    set(leveldb_libraries ${ARGN} PARENT_SCOPE)
  endif()
endfunction()

find_path(LEVELDB_INCLUDE_DIR leveldb/c.h)
if(NOT LEVELDB_INCLUDE_DIR)
  set(LEVELDB_INCLUDE_DIR "")
endif()
find_library(LEVELDB_STATIC_LIBRARY ${CMAKE_STATIC_LIBRARY_PREFIX}leveldb${CMAKE_STATIC_LIBRARY_SUFFIX})
find_library(SNAPPY_STATIC_LIBRARY ${CMAKE_STATIC_LIBRARY_PREFIX}snappy${CMAKE_STATIC_LIBRARY_SUFFIX})
find_library(LEVELDB_LIBRARY leveldb)
find_package(leveldb CONFIG QUIET)
find_package(PkgConfig QUIET)
if(PkgConfig_FOUND)
  pkg_check_modules(LEVELDB_PC QUIET IMPORTED_TARGET leveldb)
endif()

consider_leveldb(${LEVELDB_STATIC_LIBRARY} ${SNAPPY_STATIC_LIBRARY})
if(TARGET leveldb::leveldb)
  consider_leveldb(leveldb::leveldb)
endif()
if(TARGET PkgConfig::LEVELDB_PC)
  consider_leveldb(PkgConfig::LEVELDB_PC)
endif()
consider_leveldb(${LEVELDB_LIBRARY})

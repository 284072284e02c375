# The native LevelDB engine, treehub_level._store_c. It is not built where LevelDB is missing.

include(${CMAKE_CURRENT_LIST_DIR}/find_leveldb.cmake)
if(NOT leveldb_libraries)
  message(STATUS "treehub-level: no LevelDB here (Debian: g++ libleveldb-dev libsnappy-dev), so its native engine is left out")
  return()
endif()
message(STATUS "treehub-level: the native LevelDB engine is built with ${leveldb_libraries}")

cython_transpile(src/_core/_store_c.pyx LANGUAGE C MODULE_NAME treehub_level._store_c OUTPUT_VARIABLE store_source)
python_add_library(_store_c MODULE ${store_source} WITH_SOABI)
target_include_directories(_store_c PRIVATE ${LEVELDB_INCLUDE_DIR})
target_link_libraries(_store_c PRIVATE ${leveldb_libraries} Threads::Threads)
set_target_properties(_store_c PROPERTIES LINKER_LANGUAGE CXX)
# LevelDB's symbols are hidden, because plyvel may load its own copy of LevelDB into the same
# process. (Windows exports no symbol by default.)
if(APPLE)
  target_link_options(_store_c PRIVATE -Wl,-exported_symbol,_PyInit__store_c,-dead_strip)
elseif(UNIX)
  target_link_options(_store_c PRIVATE -Wl,--exclude-libs,ALL,--gc-sections)
endif()
install(TARGETS _store_c DESTINATION treehub_level)

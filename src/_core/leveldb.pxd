# cython: language_level=3
# The part of LevelDB's C API that _store_c.pyx uses.

from libc.stdint cimport uint8_t, uint64_t

cdef extern from "leveldb/c.h" nogil:
    ctypedef struct leveldb_t
    ctypedef struct leveldb_cache_t
    ctypedef struct leveldb_filterpolicy_t
    ctypedef struct leveldb_iterator_t
    ctypedef struct leveldb_options_t
    ctypedef struct leveldb_readoptions_t
    ctypedef struct leveldb_snapshot_t
    ctypedef struct leveldb_writebatch_t
    ctypedef struct leveldb_writeoptions_t

    leveldb_t *leveldb_open(const leveldb_options_t *, const char *name, char **error)
    void leveldb_close(leveldb_t *)
    void leveldb_write(leveldb_t *, const leveldb_writeoptions_t *, leveldb_writebatch_t *, char **error)
    char *leveldb_get(leveldb_t *, const leveldb_readoptions_t *, const char *key, size_t, size_t *size, char **error)
    leveldb_iterator_t *leveldb_create_iterator(leveldb_t *, const leveldb_readoptions_t *)
    const leveldb_snapshot_t *leveldb_create_snapshot(leveldb_t *)
    void leveldb_release_snapshot(leveldb_t *, const leveldb_snapshot_t *)
    char *leveldb_property_value(leveldb_t *, const char *name)
    void leveldb_approximate_sizes(
        leveldb_t *, int count, const char *const *starts, const size_t *, const char *const *stops, const size_t *, uint64_t *
    )
    void leveldb_compact_range(leveldb_t *, const char *start, size_t, const char *stop, size_t)
    void leveldb_destroy_db(const leveldb_options_t *, const char *name, char **error)
    void leveldb_repair_db(const leveldb_options_t *, const char *name, char **error)

    void leveldb_iter_destroy(leveldb_iterator_t *)
    uint8_t leveldb_iter_valid(const leveldb_iterator_t *)
    void leveldb_iter_seek_to_first(leveldb_iterator_t *)
    void leveldb_iter_seek_to_last(leveldb_iterator_t *)
    void leveldb_iter_seek(leveldb_iterator_t *, const char *key, size_t)
    void leveldb_iter_next(leveldb_iterator_t *)
    void leveldb_iter_prev(leveldb_iterator_t *)
    const char *leveldb_iter_key(const leveldb_iterator_t *, size_t *size)
    const char *leveldb_iter_value(const leveldb_iterator_t *, size_t *size)
    void leveldb_iter_get_error(const leveldb_iterator_t *, char **error)

    leveldb_writebatch_t *leveldb_writebatch_create()
    void leveldb_writebatch_destroy(leveldb_writebatch_t *)
    void leveldb_writebatch_put(leveldb_writebatch_t *, const char *key, size_t, const char *value, size_t)
    void leveldb_writebatch_delete(leveldb_writebatch_t *, const char *key, size_t)

    int leveldb_no_compression, leveldb_snappy_compression
    leveldb_options_t *leveldb_options_create()
    void leveldb_options_destroy(leveldb_options_t *)
    void leveldb_options_set_filter_policy(leveldb_options_t *, leveldb_filterpolicy_t *)
    void leveldb_options_set_create_if_missing(leveldb_options_t *, uint8_t)
    void leveldb_options_set_error_if_exists(leveldb_options_t *, uint8_t)
    void leveldb_options_set_paranoid_checks(leveldb_options_t *, uint8_t)
    void leveldb_options_set_write_buffer_size(leveldb_options_t *, size_t)
    void leveldb_options_set_max_open_files(leveldb_options_t *, int)
    void leveldb_options_set_cache(leveldb_options_t *, leveldb_cache_t *)
    void leveldb_options_set_block_size(leveldb_options_t *, size_t)
    void leveldb_options_set_max_file_size(leveldb_options_t *, size_t)
    void leveldb_options_set_compression(leveldb_options_t *, int)

    leveldb_filterpolicy_t *leveldb_filterpolicy_create_bloom(int bits_per_key)
    void leveldb_filterpolicy_destroy(leveldb_filterpolicy_t *)
    leveldb_cache_t *leveldb_cache_create_lru(size_t capacity)
    void leveldb_cache_destroy(leveldb_cache_t *)

    leveldb_readoptions_t *leveldb_readoptions_create()
    void leveldb_readoptions_destroy(leveldb_readoptions_t *)
    void leveldb_readoptions_set_verify_checksums(leveldb_readoptions_t *, uint8_t)
    void leveldb_readoptions_set_snapshot(leveldb_readoptions_t *, const leveldb_snapshot_t *)
    leveldb_writeoptions_t *leveldb_writeoptions_create()
    void leveldb_writeoptions_destroy(leveldb_writeoptions_t *)
    void leveldb_writeoptions_set_sync(leveldb_writeoptions_t *, uint8_t)

    void leveldb_free(void *)

/* LevelDB in C: the upper bound of the speed of everything built on it.
 *
 *   ceiling fill ENTRIES DIRECTORY BATCH   write all entries to a new store, BATCH at a time
 *   ceiling get  ENTRIES DIRECTORY         get the key of each entry from an existing store
 *   ceiling scan DIRECTORY                 read every row of an existing store
 *
 * The program follows the protocol of the children of benchmarks/runner.py: it prints
 * {"ready": true}, then one measurement, {"seconds": 0.0123}, for each line of its input.
 *
 * ENTRIES is a file of entries, one after the other: the sizes of the key and of the value, both
 * uint32_t in the byte order of this machine; the key; the value. The program reads the file
 * before it measures.
 */

#define _POSIX_C_SOURCE 200809L

#include <leveldb/c.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The defaults of the package's backend: src/treehub_level/backends/leveldb/directory.py. */
enum {
  WRITE_BUFFER_SIZE = 64 << 20,
  BLOCK_CACHE_SIZE = 32 << 20,
  BLOOM_FILTER_BITS = 10,
};

typedef struct {
  const char *key;
  const char *value;
  uint32_t key_size;
  uint32_t value_size;
} Entry;

typedef struct {
  Entry *entries;
  size_t count;
} Entries;

static void fail(const char *what, const char *why) {
  fprintf(stderr, "ceiling: %s: %s\n", what, why);
  exit(1);
}

static void check(const char *what, char *error) {
  if (error != NULL) fail(what, error);
}

static void *allocate(size_t size) {
  void *memory = malloc(size);
  if (memory == NULL) fail("malloc", "out of memory");
  return memory;
}

static Entries read_entries(const char *path) {
  FILE *file = fopen(path, "rb");
  if (file == NULL) {
    perror(path);
    exit(1);
  }
  fseek(file, 0, SEEK_END);
  size_t size = (size_t)ftell(file);
  rewind(file);
  char *bytes = allocate(size);
  if (fread(bytes, 1, size, file) != size) fail(path, "cannot be read to its end");
  fclose(file);

  Entries read = {NULL, 0};
  size_t capacity = 0;
  for (size_t at = 0; at < size;) {
    if (read.count == capacity) {
      capacity = capacity ? 2 * capacity : 1024;
      read.entries = realloc(read.entries, capacity * sizeof(Entry));
      if (read.entries == NULL) fail("realloc", "out of memory");
    }
    Entry *entry = &read.entries[read.count++];
    memcpy(&entry->key_size, bytes + at, sizeof(uint32_t));
    memcpy(&entry->value_size, bytes + at + sizeof(uint32_t), sizeof(uint32_t));
    entry->key = bytes + at + 2 * sizeof(uint32_t);
    entry->value = entry->key + entry->key_size;
    at += 2 * sizeof(uint32_t) + (size_t)entry->key_size + entry->value_size;
    if (at > size) fail(path, "ends within an entry");
  }
  return read;
}

static leveldb_options_t *make_options(void) {
  leveldb_options_t *options = leveldb_options_create();
  leveldb_options_set_create_if_missing(options, 1);
  leveldb_options_set_write_buffer_size(options, WRITE_BUFFER_SIZE);
  leveldb_options_set_cache(options, leveldb_cache_create_lru(BLOCK_CACHE_SIZE));
  leveldb_options_set_filter_policy(options, leveldb_filterpolicy_create_bloom(BLOOM_FILTER_BITS));
  return options;
}

static leveldb_t *open_store(const leveldb_options_t *options, const char *directory) {
  char *error = NULL;
  leveldb_t *db = leveldb_open(options, directory, &error);
  check(directory, error);
  return db;
}

static leveldb_readoptions_t *make_read_options(void) {
  leveldb_readoptions_t *options = leveldb_readoptions_create();
  leveldb_readoptions_set_verify_checksums(options, 1);
  return options;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Says that it is ready, then waits. Returns whether to measure. */
static int asked(void) {
  static int ready = 0;
  if (!ready) {
    puts("{\"ready\": true}");
    fflush(stdout);
    ready = 1;
  }
  for (int byte = getchar(); byte != EOF; byte = getchar()) {
    if (byte == '\n') return 1;
  }
  return 0;
}

static void answer(double seconds) {
  printf("{\"seconds\": %.9f}\n", seconds);
  fflush(stdout);
}

static void fill(Entries all, const char *directory, size_t batch_size) {
  leveldb_options_t *options = make_options();
  leveldb_writeoptions_t *writing = leveldb_writeoptions_create();
  leveldb_writebatch_t *batch = leveldb_writebatch_create();
  char *error = NULL;
  while (asked()) {
    leveldb_destroy_db(options, directory, &error);
    check(directory, error);
    leveldb_t *db = open_store(options, directory);
    double start = now();
    for (size_t at = 0; at < all.count;) {
      size_t stop = at + batch_size < all.count ? at + batch_size : all.count;
      leveldb_writebatch_clear(batch);
      for (; at < stop; at++) {
        const Entry *entry = &all.entries[at];
        leveldb_writebatch_put(batch, entry->key, entry->key_size, entry->value, entry->value_size);
      }
      leveldb_write(db, writing, batch, &error);
      check("leveldb_write", error);
    }
    double seconds = now() - start;
    leveldb_close(db);
    answer(seconds);
  }
}

static void get(Entries all, const char *directory) {
  leveldb_t *db = open_store(make_options(), directory);
  leveldb_readoptions_t *reading = make_read_options();
  char *error = NULL;
  while (asked()) {
    double start = now();
    for (size_t at = 0; at < all.count; at++) {
      size_t size;
      char *value = leveldb_get(db, reading, all.entries[at].key, all.entries[at].key_size, &size, &error);
      check("leveldb_get", error);
      if (value == NULL) fail("leveldb_get", "a key is missing");
      leveldb_free(value);
    }
    answer(now() - start);
  }
  leveldb_close(db);
}

static void scan(const char *directory) {
  leveldb_t *db = open_store(make_options(), directory);
  leveldb_readoptions_t *reading = make_read_options();
  char *error = NULL;
  while (asked()) {
    double start = now();
    size_t size, bytes = 0;
    leveldb_iterator_t *iterator = leveldb_create_iterator(db, reading);
    for (leveldb_iter_seek_to_first(iterator); leveldb_iter_valid(iterator); leveldb_iter_next(iterator)) {
      leveldb_iter_key(iterator, &size);
      bytes += size;
      leveldb_iter_value(iterator, &size);
      bytes += size;
    }
    leveldb_iter_get_error(iterator, &error);
    check("leveldb_iter", error);
    leveldb_iter_destroy(iterator);
    double seconds = now() - start;
    if (bytes == 0) fail(directory, "has no rows");
    answer(seconds);
  }
  leveldb_close(db);
}

int main(int count, char **words) {
  if (count == 5 && strcmp(words[1], "fill") == 0 && atol(words[4]) > 0) {
    fill(read_entries(words[2]), words[3], (size_t)atol(words[4]));
  } else if (count == 4 && strcmp(words[1], "get") == 0) {
    get(read_entries(words[2]), words[3]);
  } else if (count == 3 && strcmp(words[1], "scan") == 0) {
    scan(words[2]);
  } else {
    fprintf(stderr, "usage: ceiling fill ENTRIES DIRECTORY BATCH | get ENTRIES DIRECTORY | scan DIRECTORY\n");
    return 2;
  }
  return 0;
}

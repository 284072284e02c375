/* A library for LD_PRELOAD between LevelDB and the system. It records syncs, and makes calls fail.

   CRASH_FOLDER   The folder whose files are recorded.
   CRASH_LEDGER   The file of the records, one a line: C path (created or emptied), S size path
                  (synced up to this size), R path tab path (renamed). A record is written before
                  the call returns.
   CRASH_LYING    If set, fsync of LevelDB's logs does nothing, as on a disk that ignores it.

   crash_kill(number): the process kills itself at its number-th write, in the middle of it. 0 ends
   this.

   crash_arm(call, number, error): from its number-th use on, a call fails: 'w'rite, 's'ync, 'o'pen
   for writing, 'r'ename. The first failing write writes half of its bytes. crash_disarm() ends this,
   and returns the number of uses. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *folder;
static int ledger = -1, lying;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int armed_call, armed_error, used, armed_number, writes_left;

static int (*real_open)(const char *, int, ...);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off64_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_rename)(const char *, const char *);

__attribute__((constructor)) static void begin(void) {
  real_open = dlsym(RTLD_NEXT, "open");
  real_write = dlsym(RTLD_NEXT, "write");
  real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
  real_fsync = dlsym(RTLD_NEXT, "fsync");
  real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
  real_rename = dlsym(RTLD_NEXT, "rename");
  folder = getenv("CRASH_FOLDER");
  lying = getenv("CRASH_LYING") != NULL;
  if (getenv("CRASH_LEDGER")) ledger = real_open(getenv("CRASH_LEDGER"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
}

static int counts(const char *path) {
  return folder != NULL && strncmp(path, folder, strlen(folder)) == 0 && path[strlen(folder)] == '/';
}

static int counts_fd(int fd, char *path) {
  char link[32];
  ssize_t size;
  if (folder == NULL) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  size = readlink(link, path, PATH_MAX - 1);
  if (size < 0) return 0;
  path[size] = 0;
  return counts(path);
}

static void note(const char *format, ...) {
  char line[2 * PATH_MAX + 32];
  va_list arguments;
  int size;
  if (ledger < 0) return;
  va_start(arguments, format);
  size = vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  if (real_write(ledger, line, size) != size) abort();
}

/* Return the error of this call, or 0. *first is set to 1 for the first failing call, else to 0. */
static int fault(int call, int *first) {
  int error = 0;
  pthread_mutex_lock(&lock);
  if (call == armed_call) {
    used++;
    if (used >= armed_number) error = armed_error;
    *first = used == armed_number;
  }
  pthread_mutex_unlock(&lock);
  return error;
}

void crash_arm(int call, int number, int error) {
  pthread_mutex_lock(&lock);
  armed_call = call, armed_number = number, armed_error = error, used = 0;
  pthread_mutex_unlock(&lock);
}

int crash_disarm(void) {
  int times;
  pthread_mutex_lock(&lock);
  armed_call = 0, times = used;
  pthread_mutex_unlock(&lock);
  return times;
}

void crash_kill(int number) {
  pthread_mutex_lock(&lock);
  writes_left = number;
  pthread_mutex_unlock(&lock);
}

/* Return 1 if this write to a file of the folder is the one that kills. */
static int kills(int fd) {
  char path[PATH_MAX];
  int last = 0;
  if (writes_left == 0 || !counts_fd(fd, path)) return 0;
  pthread_mutex_lock(&lock);
  last = writes_left > 0 && --writes_left == 0;
  pthread_mutex_unlock(&lock);
  return last;
}

static int opened(const char *path, int flags, mode_t mode) {
  int first, fd, error;
  int writes = (flags & O_ACCMODE) != O_RDONLY && counts(path);
  if (writes && (error = fault('o', &first))) return errno = error, -1;
  fd = real_open(path, flags, mode);
  if (fd >= 0 && writes && (flags & O_TRUNC)) note("C %s\n", path);
  return fd;
}

#define OPEN(name)                                      \
  int name(const char *path, int flags, ...) {          \
    mode_t mode = 0;                                    \
    if (flags & (O_CREAT | __O_TMPFILE)) {              \
      va_list arguments;                                \
      va_start(arguments, flags);                       \
      mode = va_arg(arguments, mode_t);                 \
      va_end(arguments);                                \
    }                                                   \
    return opened(path, flags, mode);                   \
  }
OPEN(open)
OPEN(open64)

ssize_t write(int fd, const void *bytes, size_t size) {
  char path[PATH_MAX];
  int first = 0, error = 0;
  if (kills(fd)) {
    if (real_write(fd, bytes, size / 2) < 0) abort();
    kill(getpid(), SIGKILL);
  }
  if (armed_call == 'w' && counts_fd(fd, path)) error = fault('w', &first);
  if (error && first && size > 1) return real_write(fd, bytes, size / 2);
  if (error) return errno = error, -1;
  return real_write(fd, bytes, size);
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t offset) {
  if (kills(fd)) {
    if (real_pwrite(fd, bytes, size / 2, offset) < 0) abort();
    kill(getpid(), SIGKILL);
  }
  return real_pwrite(fd, bytes, size, offset);
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset) { return pwrite64(fd, bytes, size, offset); }

static int synced(int fd, int (*real)(int)) {
  char path[PATH_MAX];
  struct stat status;
  int first, error, result;
  if (!counts_fd(fd, path)) return real(fd);
  if ((error = fault('s', &first))) return errno = error, -1;
  if (lying && strlen(path) > 4 && strcmp(path + strlen(path) - 4, ".log") == 0) return 0;
  if (fstat(fd, &status) != 0) return -1;
  result = real(fd);
  if (result == 0 && S_ISREG(status.st_mode)) note("S %lld %s\n", (long long)status.st_size, path);
  return result;
}

int fsync(int fd) { return synced(fd, real_fsync); }
int fdatasync(int fd) { return synced(fd, real_fdatasync); }

int rename(const char *from, const char *to) {
  int first, error, result;
  if (counts(to) && (error = fault('r', &first))) return errno = error, -1;
  result = real_rename(from, to);
  if (result == 0 && counts(to)) note("R %s\t%s\n", from, to);
  return result;
}
